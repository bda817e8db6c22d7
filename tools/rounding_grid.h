/* rounding_grid.h - a codebook arranged so that its best entry for a group of values is found without looking at most entries.
 *
 * The entry that minimises sum over j of cost[j][level_j] is wanted, exactly. An entry's levels are split into a first and a
 * second half; both halves' sums come from two small tables (81 = 3^4 or 64 = 8^2 cells), entries are sorted by first half, and a
 * first half whose sum plus the least of the second table is no better than what is known needs no look at its entries. */
#ifndef QUERN_ROUNDING_GRID_H
#define QUERN_ROUNDING_GRID_H

#include "rounding_code.h"

enum { HALVES_MAX = 81, ENTRIES_MAX = 2048, LEVELS_MAX = 8, GROUP_MAX = 8 };

struct lanes;

struct codebook {
    const struct lanes *lanes;            /* who searches it: lanes.h                               */
    int      group;                       /* values per entry: 4 or 8                               */
    int      levels;                      /* 8 (groups of 4) or 3 (groups of 8)                     */
    int      halves;                      /* cells of a half's table: levels ^ (group / 2)          */
    int      entries;
    float    level[LEVELS_MAX];           /* ascending                                              */
    uint16_t start[HALVES_MAX + 1];       /* entries with first half h: [start[h], start[h + 1])    */
    uint8_t  second[ENTRIES_MAX];         /* of the sorted entries: second half                     */
    uint16_t index[ENTRIES_MAX];          /* of the sorted entries: index in the format             */
    uint8_t  levels_of[ENTRIES_MAX][GROUP_MAX];   /* by format index                                */
};

/* `packed`: int8 values of `entries` entries of `group` values each, as in kernels/grids.h. */
void codebook_init(struct codebook *book, const void *packed, int entries, int group);

/* Index of the best entry, its cost in *least. */
int codebook_best(const struct codebook *book, const float cost[GROUP_MAX][LEVELS_MAX], float *least);
/* The same when exactly one value must take its `flip` surcharge on top of its cost: the cheapest (entry, value) pair. */
int codebook_best_flipped(const struct codebook *book, const float cost[GROUP_MAX][LEVELS_MAX],
                          const float flip[GROUP_MAX][LEVELS_MAX], float *least, int *flipped);

/* The entries (two for groups of 4) and signs of eight values nearest to x under weights w, at one scale. `even`: the number of
 * minus signs must be even. */
void codebook_nearest(const struct codebook *book, bool even, const float *x, const float *w, float scale, int16_t *code,
                      uint8_t *sign);

/* The codebooks of a `struct rounding`. */
enum book_id { BOOK_IQ1, BOOK_IQ2_XXS, BOOK_IQ2_XS, BOOK_IQ2_S, BOOK_IQ3_XXS, BOOK_IQ3_S, BOOK_COUNT };
struct rounding {
    const struct lanes *lanes;
    struct codebook     books[BOOK_COUNT];
};

#endif
