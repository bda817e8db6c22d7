#include <stdlib.h>

#include "grids.h"
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

/* table[h] = sum of the half's costs; the values' levels of cell h count up like digits. */
LANE_INLINE void half_sums(float *table, const float (*cost)[LEVELS_MAX], int group)
{
    if (group == 4) {
        for (int a = 0; a < 8; a++)
            for (int b = 0; b < 8; b++)
                table[8 * a + b] = cost[0][a] + cost[1][b];
        return;
    }
    float low[9];
    for (int i = 0; i < 9; i++)
        low[i] = cost[2][i / 3] + cost[3][i % 3];
    for (int a = 0; a < 9; a++) {
        float high = cost[0][a / 3] + cost[1][a % 3];
        for (int i = 0; i < 9; i++)
            table[9 * a + i] = high + low[i];
    }
}

LANE_INLINE float least_float(float a, float b)
{
    return a < b ? a : b;          /* fminf is a call: it must not choose a NaN */
}

/* table[h] = sums[h] + the least surcharge of one of the half's values. */
LANE_INLINE void half_flips(float *table, const float *sums, const float (*flip)[LEVELS_MAX], int group)
{
    if (group == 4) {
        for (int a = 0; a < 8; a++)
            for (int b = 0; b < 8; b++)
                table[8 * a + b] = sums[8 * a + b] + least_float(flip[0][a], flip[1][b]);
        return;
    }
    for (int a = 0; a < 9; a++) {
        float high = least_float(flip[0][a / 3], flip[1][a % 3]);
        for (int i = 0; i < 9; i++)
            table[9 * a + i] = sums[9 * a + i] + least_float(high, least_float(flip[2][i / 3], flip[3][i % 3]));
    }
}

/* The half's cheapest levels, each value by itself: the least cell of its table and where it stands. */
LANE_INLINE int half_least(float *least, const float (*cost)[LEVELS_MAX], int group)
{
    int h = 0, levels = group == 4 ? 8 : 3;
    *least = 0;
    for (int j = 0; j < group / 2; j++) {
        float value = cost[j][0];
        int at = 0;
        for (int l = 1; l < levels; l++) {
            at = cost[j][l] < value ? l : at;
            value = cost[j][l] < value ? cost[j][l] : value;
        }
        *least += value;
        h = h * levels + at;
    }
    return h;
}

/* Improve (*least, index) by entries whose cost is first[first half] + second[second half]. `floor` is no more than any cell of
 * second; `begin`, a good first half, is looked at first, so that the bound is tight for the others. */
LANE_INLINE int scan_halves(const struct codebook *book, const float *first, const float *second, float floor, int begin,
                            float *least, int index)
{
    float best = *least;
    for (int turn = -1; turn < book->halves; turn++) {
        int h = turn < 0 ? begin : turn;
        if (first[h] + floor >= best)
            continue;
        for (int e = book->start[h]; e < book->start[h + 1]; e++) {
            float sum = first[h] + second[book->second[e]];
            if (sum < best)
                best = sum, index = book->index[e];
        }
    }
    *least = best;
    return index;
}

WIDE static int best_entry(const struct codebook *book, const float cost[GROUP_MAX][LEVELS_MAX], float *least)
{
    float first[HALVES_MAX], second[HALVES_MAX], floor[2];
    int half = book->group / 2, begin = half_least(&floor[0], cost, book->group);
    half_least(&floor[1], cost + half, book->group);
    half_sums(first, cost, book->group);
    half_sums(second, cost + half, book->group);
    *least = INFINITY;
    /* The table's sums add in another order than the floor's: leave room for the last bits. */
    return scan_halves(book, first, second, floor[1] * 0.99999f, begin, least, 0);
}

WIDE static int best_flipped(const struct codebook *book, const float cost[GROUP_MAX][LEVELS_MAX],
                             const float flip[GROUP_MAX][LEVELS_MAX], float *least, int *flipped)
{
    float first[HALVES_MAX], second[HALVES_MAX], table[HALVES_MAX], floor[2];
    int half = book->group / 2, begin = half_least(&floor[0], cost, book->group);
    half_least(&floor[1], cost + half, book->group);
    half_sums(first, cost, book->group);
    half_sums(second, cost + half, book->group);
    *least = INFINITY;
    half_flips(table, first, flip, book->group);
    int index = scan_halves(book, table, second, floor[1] * 0.99999f, begin, least, 0);
    half_flips(table, second, flip + half, book->group);
    index = scan_halves(book, first, table, floor[1] * 0.99999f, begin, least, index);
    *flipped = 0;
    for (int j = 1; j < book->group; j++)
        if (flip[j][book->levels_of[index][j]] < flip[*flipped][book->levels_of[index][*flipped]])
            *flipped = j;
    return index;
}

int codebook_best(const struct codebook *book, const float cost[GROUP_MAX][LEVELS_MAX], float *least)
{
    return best_entry(book, cost, least);
}

int codebook_best_flipped(const struct codebook *book, const float cost[GROUP_MAX][LEVELS_MAX],
                          const float flip[GROUP_MAX][LEVELS_MAX], float *least, int *flipped)
{
    return best_flipped(book, cost, flip, least, flipped);
}

struct rounding *rounding_open(struct quern_error *err)
{
    struct rounding *r = mem_take(1, sizeof *r, "the codebooks", err);
    if (!r)
        return NULL;
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
