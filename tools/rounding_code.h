/* rounding_code.h - what an encoder decided about one block, before it is packed into the format's bits.
 *
 * The search fills a `struct block_code`, the packer turns it into bytes. Error feedback and refits (feedback.c) work on the same
 * structure: scales stay, codes change. */
#ifndef QUERN_ROUNDING_CODE_H
#define QUERN_ROUNDING_CODE_H

#include "rounding.h"
#include "rounding_lane.h"

enum { SUPER = 256 };               /* values of the largest block */

struct block_code {
    float   d, m;                   /* the block's scale and scale of minimums, exactly as stored   */
    int16_t scale[16], min[16];     /* integers of the sub-blocks; decoded scale = d * f(scale)     */
    int16_t code[SUPER];            /* per value; for codebooks per group of 4 or 8: entry's index  */
    uint8_t sign[SUPER / 8];        /* codebooks: bit j set where value 8 i + j is negative         */
    uint8_t shift[SUPER / 8];       /* IQ1: 1 where the group's levels are shifted down             */
};

/* Without importances a search stops where a finer one gains less than 0.3 % of the error (bench: tiny-books, Q4_K 26 ns per value
 * against 42); with them, when time is spent on quality anyway, the finer one is taken. */
enum effort { EFFORT_QUICK, EFFORT_FINE };

/* Decide on one block. x, w: [block], w positive with mean 1; effort: enum effort. */
typedef void search_fn(const struct rounding *rounding, struct block_code *code, const float *x, const float *w, int effort);

struct encoder {
    uint32_t   format;
    uint32_t   block;               /* values */
    search_fn *search;              /* NULL: lanes.h has it, once per instruction set */
    void     (*pack)(void *out, const struct block_code *code);
};

/* NULL for formats without blocks (F32, F16, BF16) or without an encoder. */
const struct encoder *encoder_find(uint32_t format);
/* One block as rounding_row sees it: x [block] any finite values, weight [block] or NULL. */
void rounding_search(const struct rounding *rounding, const struct encoder *e, struct block_code *code, const float *x,
                     const float *weight);
/* The families: format, search, pack. */
extern const struct encoder encoders_block32[], encoders_super[], encoders_grid[], encoders_ternary[];
extern const size_t encoders_block32_count, encoders_super_count, encoders_grid_count, encoders_ternary_count;

/* The sixteen levels of IQ4_NL and IQ4_XS. */
extern const float levels_nl[16];
/* Which of them a value is. */
int16_t level_index(int16_t level);

#endif
