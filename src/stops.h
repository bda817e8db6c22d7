/* stops.h - end a streamed text at given strings, also where a string is spread over several pieces.
 *
 * Text that might be the beginning of a stop string is held back until it is clear. The search is bounded: per piece
 * at most (bytes of the piece + longest string) * strings comparisons. */
#ifndef QUERN_STOPS_H
#define QUERN_STOPS_H

#include "error.h"

struct stops {
    const char *const *texts;    /* [count], the caller's */
    size_t            *lengths;  /* [count] */
    size_t             count;
    char              *held;     /* not given out yet */
    size_t             n, capacity;
    size_t             given;    /* of held: went out with the last stops_add */
    bool               stopped;
};

/* QUERN_EUSAGE for an empty string, and for more than 1 MiB of them. */
bool stops_init(struct stops *s, const char *const *texts, size_t count, struct quern_error *err);
void stops_free(struct stops *s);
/* Add a piece; out[0..*out_n) is what may be shown now, valid until the next call. After a stop string was met (s->stopped)
 * nothing more comes out: the text ends before it. */
bool stops_add(struct stops *s, const char *piece, size_t n, const char **out, size_t *out_n, struct quern_error *err);
/* The text ends without a stop string: what was held back. */
void stops_end(struct stops *s, const char **out, size_t *out_n);

#endif
