/* stream.h - pieces of text, as tokens bring them, to text that may be shown.
 *
 * A character of several bytes, or a terminal's escape sequence, often comes in several tokens. What is incomplete is held until
 * the rest is there; stream_flush at the end gives out what is still held. The output is the same however the input is cut. */
#ifndef QUERN_STREAM_H
#define QUERN_STREAM_H

#include <stdbool.h>
#include <stddef.h>

#include "text.h"

enum { STREAM_HELD = 256 };

struct stream {
    bool   escape;               /* for a terminal: control characters other than newline and tab, and bytes that are not
                                  * UTF-8, are shown as \xNN (CR LF as a newline). Else everything passes as it is. */
    size_t n;
    char   held[STREAM_HELD];    /* an escape sequence that is longer is let go in parts */
};

void stream_init(struct stream *s, bool escape);
/* Append to *out (json.h) what is complete now. */
void stream_add(struct stream *s, const char *bytes, size_t n, struct text *out);
void stream_flush(struct stream *s, struct text *out);

#endif
