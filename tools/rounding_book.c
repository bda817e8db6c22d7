/* rounding_book.c - codebooks arranged for search (rounding_grid.h), once per run: 23 KB each, shared by all threads. */
#include <stdlib.h>

#include "grids.h"
#include "lanes.h"
#include "rounding_grid.h"

/* Position of a half's levels in its table, first value most significant. */
static int half_index(const struct codebook *book, const uint8_t *levels)
{
    int h = 0;
    for (int j = 0; j < book->group / 2; j++)
        h = h * book->levels + levels[j];
    return h;
}

/* The values that occur, ascending. */
static void collect_levels(struct codebook *book, const int8_t *values, size_t n)
{
    book->levels = 0;
    for (int v = -128; v < 128; v++)
        for (size_t i = 0; i < n; i++)
            if (values[i] == v) {
                book->level[book->levels++] = (float)v;
                break;
            }
}

void codebook_init(struct codebook *book, const void *packed, int entries, int group)
{
    const int8_t *values = packed;
    book->lanes = lanes_find();
    book->group = group, book->entries = entries;
    collect_levels(book, values, (size_t)entries * (size_t)group);
    book->halves = 1;
    for (int j = 0; j < group / 2; j++)
        book->halves *= book->levels;
    for (int e = 0; e < entries; e++)
        for (int j = 0; j < group; j++)
            for (uint8_t l = 0; l < book->levels; l++)
                if (book->level[l] == (float)values[e * group + j])
                    book->levels_of[e][j] = l;
    /* Entries sorted by first half. Every half is asked of every entry: 81 * 2048 comparisons, once. */
    uint16_t at = 0;
    for (int h = 0; h < book->halves; h++) {
        book->start[h] = at;
        for (int e = 0; e < entries; e++)
            if (half_index(book, book->levels_of[e]) == h) {
                book->second[at] = (uint8_t)half_index(book, book->levels_of[e] + group / 2);
                book->index[at++] = (uint16_t)e;
            }
    }
    book->start[book->halves] = at;
}

int codebook_best(const struct codebook *book, const float cost[GROUP_MAX][LEVELS_MAX], float *least)
{
    return book->lanes->best_entry(book, cost, least);
}

int codebook_best_flipped(const struct codebook *book, const float cost[GROUP_MAX][LEVELS_MAX],
                          const float flip[GROUP_MAX][LEVELS_MAX], float *least, int *flipped)
{
    return book->lanes->best_flipped(book, cost, flip, least, flipped);
}

struct rounding *rounding_open(struct quern_error *err)
{
    struct rounding *r = mem_take(1, sizeof *r, "the codebooks", err);
    if (!r)
        return NULL;
    r->lanes = lanes_find();
    codebook_init(&r->books[BOOK_IQ1], grid_iq1_s, 2048, 8);
    codebook_init(&r->books[BOOK_IQ2_XXS], grid_iq2_xxs, 256, 8);
    codebook_init(&r->books[BOOK_IQ2_XS], grid_iq2_xs, 512, 8);
    codebook_init(&r->books[BOOK_IQ2_S], grid_iq2_s, 1024, 8);
    codebook_init(&r->books[BOOK_IQ3_XXS], grid_iq3_xxs, 256, 4);
    codebook_init(&r->books[BOOK_IQ3_S], grid_iq3_s, 512, 4);
    return r;
}

void rounding_close(struct rounding *rounding)
{
    free(rounding);
}
