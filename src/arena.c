#include "arena.h"

#include <stdlib.h>
#include <string.h>

/* Slabs are only ever added at the front, and only the front one is filled: what is left of an older one when a larger piece comes
 * is given up. The pieces are names and table rows of a file's head, far smaller than a slab, so little is lost. */
struct arena_slab {
    struct arena_slab *next;
    size_t used, size;
    _Alignas(16) unsigned char data[];
};

/* With malloc's own header and ours, still within 64 KiB. */
enum { SLAB_BYTES = 64 * 1024 - 64 };

void arena_init(struct arena *arena, size_t limit)
{
    *arena = (struct arena){ .limit = limit };
}

void arena_free(struct arena *arena)
{
    struct arena_slab *slab = arena->slabs;
    while (slab) {
        struct arena_slab *next = slab->next;
        free(slab);
        slab = next;
    }
    *arena = (struct arena){ .limit = arena->limit };
}

void *arena_take(struct arena *arena, size_t count, size_t size, const char *what, struct quern_error *err)
{
    size_t bytes, total;
    /* The limit counts what was asked for, not the slabs: a file is refused for its contents, at the same byte on every machine. */
    if (!checked_mul(&bytes, count, size) || !checked_align(&bytes, bytes, 16) ||
        !checked_add(&total, arena->bytes, bytes) || (arena->limit && total > arena->limit)) {
        ERR(err, QUERN_EMEM, "not enough memory for %s (%zu x %zu bytes)", what, count, size);
        return NULL;
    }
    struct arena_slab *slab = arena->slabs;
    if (!slab || slab->size - slab->used < bytes) {
        size_t room = bytes > SLAB_BYTES ? bytes : SLAB_BYTES, whole;
        /* calloc: callers get zeroed memory, so a table that is filled only in part has no undefined rows. */
        slab = checked_add(&whole, room, sizeof *slab) ? calloc(1, whole) : NULL;
        if (!slab) {
            ERR(err, QUERN_EMEM, "not enough memory for %s (%zu x %zu bytes)", what, count, size);
            return NULL;
        }
        slab->size = room;
        slab->next = arena->slabs;
        arena->slabs = slab;
    }
    void *p = slab->data + slab->used;
    slab->used += bytes;
    arena->bytes = total;
    return p;
}

char *arena_text(struct arena *arena, const char *text, size_t n, struct quern_error *err)
{
    size_t bytes;
    if (!checked_add(&bytes, n, 1)) {
        ERR(err, QUERN_EMEM, "not enough memory for a text of %zu bytes", n);
        return NULL;
    }
    char *copy = arena_take(arena, bytes, 1, "a text", err);       /* the NUL at its end is the arena's zero */
    if (copy && n)
        memcpy(copy, text, n);
    return copy;
}
