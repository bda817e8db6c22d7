/* Where rows of a cache stand: spans, heads, tokens (kv.h). */
#include "test.h"

#include <stdlib.h>

#include "kernels.h"
#include "kv.h"

/* A cache whose last span is a part of one. Every head and position has a place of its own, none beyond the end, and the rows of
 * a tile follow each other, which is what attention reads by. */
static void test_places(void)
{
    enum { HEADS = 3 };
    for (size_t capacity = ATTN_TILE; capacity <= 2 * KV_SPAN + 3 * ATTN_TILE; capacity += 5 * ATTN_TILE) {
        struct kv_layer l = { .heads = HEADS };
        struct kv kv = { .capacity = capacity };
        size_t rows = HEADS * capacity, wrong = 0;
        unsigned char *taken = calloc(rows, 1);
        CHECK(taken != NULL, "no memory");
        for (size_t head = 0; taken && head < HEADS; head++)
            for (size_t pos = 0; pos < capacity; pos++) {
                size_t place = kv_place(&kv, &l, head, pos);
                wrong += place >= rows || taken[place]++;
                wrong += pos % ATTN_TILE != 0 && place != kv_place(&kv, &l, head, pos - 1) + 1;
            }
        CHECK(wrong == 0, "%zu wrong places with room for %zu tokens", wrong, capacity);
        free(taken);
    }
}

int main(void)
{
    TEST(test_places);
    return test_end();
}
