/* copy_gguf.h - reader and writer, end to end. */
#ifndef QUERN_COPY_GGUF_H
#define QUERN_COPY_GGUF_H

#include "gguf.h"

/* Write what is in `from` to `to`, data in pieces of `piece` bytes. The same bytes come out when `from` has its tensors in
 * order, without gaps and trailing bytes. */
bool copy_gguf(const char *from, const char *to, bool force, size_t piece, struct quern_error *err);

#endif
