#include "arena.h"

#include <stdlib.h>
#include <string.h>

struct arena_slab {
    struct arena_slab *next;
    size_t used, size;
    _Alignas(16) unsigned char data[];
};

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
    if (!checked_mul(&bytes, count, size) || !checked_align(&bytes, bytes, 16) ||
        !checked_add(&total, arena->bytes, bytes) || (arena->limit && total > arena->limit)) {
        ERR(err, QUERN_EMEM, "not enough memory for %s (%zu x %zu bytes)", what, count, size);
        return NULL;
    }
    struct arena_slab *slab = arena->slabs;
    if (!slab || slab->size - slab->used < bytes) {
        size_t room = bytes > SLAB_BYTES ? bytes : SLAB_BYTES, whole;
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
    char *copy = arena_take(arena, bytes, 1, "a text", err);
    if (copy && n)
        memcpy(copy, text, n);
    return copy;
}
