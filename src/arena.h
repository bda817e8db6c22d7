/* arena.h - many small things that live and die together.
 *
 * Memory comes in slabs from malloc and is given back all at once. Nothing in an arena is freed alone. */
#ifndef QUERN_ARENA_H
#define QUERN_ARENA_H

#include "error.h"

struct arena_slab;

struct arena {
    struct arena_slab *slabs;   /* newest first */
    size_t             bytes;   /* given out, for the memory plan */
    size_t             limit;   /* most that may be given out; 0: no limit */
};

void arena_init(struct arena *arena, size_t limit);
void arena_free(struct arena *arena);

/* count * size zeroed bytes, aligned to 16. NULL with QUERN_EMEM when malloc fails or the limit is met; `what` is named
 * in the message. */
void *arena_take(struct arena *arena, size_t count, size_t size, const char *what, struct quern_error *err);
/* A copy of `n` bytes with a closing NUL. */
char *arena_text(struct arena *arena, const char *text, size_t n, struct quern_error *err);

#endif
