/* written.h - what a tensor lost on its way into the file, whatever rounded it: search, error feedback or tuning. */
#ifndef QUERN_WRITTEN_H
#define QUERN_WRITTEN_H

#include "quantize.h"

/* *error: squared difference between job->input's tensor i and `out` (same shape, any type) over the tensor's square, both weighted
 * with the job's importances; over all values, the same for any number of threads. 0 where the bytes are the input's. QUERN_EMEM,
 * QUERN_EINTERRUPT; QUERN_EFORMAT: another shape. */
bool written_error(const struct quantize_job *job, size_t i, const struct gguf_tensor *out, double *error, struct quern_error *err);

#endif
