/* rounding_book_search.h - the search in a codebook (rounding_grid.h says how it skips most entries).
 *
 * One source for every instruction set, as rounding_block32_search.h. */
#ifndef QUERN_ROUNDING_BOOK_SEARCH_H
#define QUERN_ROUNDING_BOOK_SEARCH_H

#include "rounding_grid.h"

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

static int best_entry(const struct codebook *book, const float cost[GROUP_MAX][LEVELS_MAX], float *least)
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

static int best_flipped(const struct codebook *book, const float cost[GROUP_MAX][LEVELS_MAX],
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

#endif
