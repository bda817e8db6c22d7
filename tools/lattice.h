/* lattice.h - what values a format's codes stand for, for those who choose codes one by one.
 *
 * The search of rounding.h finds scales and codes together; error feedback and descent then change single codes, integer scales and
 * halves, and must know what each change does to the values. A format is described by one row of lattices (lattice.c). */
#ifndef QUERN_LATTICE_H
#define QUERN_LATTICE_H

#include <math.h>

#include "lanes.h"
#include "rounding.h"

enum lattice_kind { SIGNED, AFFINE, LEVELS, BOOK };

/* value = scale * (code | level of the code | signed level of a codebook's entry) + minimum; scale = d * unit * f(integer). */
struct lattice {
    uint32_t format;
    enum lattice_kind kind;
    int      length;         /* values per scale                       */
    int      low, high;      /* codes                                  */
    int      scale_low, scale_high;   /* integer scales; equal: none   */
    enum book_id book;
    bool     even;           /* codebooks: parity of signs             */
    float    unit;
};

/* NULL for a format that has no such form (IQ1_S, IQ1_M, MXFP4, those without blocks). */
const struct lattice *lattice_find(uint32_t format);

/* Are its scales (and minimums) integers times a half of the block? */
static inline bool lattice_has_integers(const struct lattice *l)
{
    return l->scale_low < l->scale_high;
}

static inline float lattice_scale(const struct lattice *l, const struct block_code *c, int sub)
{
    if (l->kind == BOOK)
        return c->d * l->unit * (float)(2 * c->scale[sub] + 1);
    return lattice_has_integers(l) ? c->d * (float)c->scale[sub] : c->d;
}

static inline float lattice_minimum(const struct lattice *l, const struct block_code *c, int sub)
{
    if (l->kind != AFFINE)
        return 0;
    return lattice_has_integers(l) ? -(c->m * (float)c->min[sub]) : c->m;
}

/* Value i of the block without scale and minimum. */
static inline float lattice_level(const struct lattice *l, const struct rounding *r, const struct block_code *c, int i)
{
    if (l->kind == LEVELS)
        return levels_nl[c->code[i]];
    if (l->kind != BOOK)
        return c->code[i];
    const struct codebook *book = &r->books[l->book];
    float level = book->level[book->levels_of[c->code[i / book->group]][i % book->group]];
    return c->sign[i / 8] >> i % 8 & 1 ? -level : level;
}

static inline float lattice_value(const struct lattice *l, const struct rounding *r, const struct block_code *c, int i)
{
    return lattice_scale(l, c, i / l->length) * lattice_level(l, r, c, i) + lattice_minimum(l, c, i / l->length);
}

/* Code of the value nearest to x. */
static inline int16_t lattice_nearest(const struct lattice *l, float x, float scale, float minimum)
{
    float t = scale != 0 ? (x - minimum) / scale : 0;
    if (l->kind == LEVELS) {
        int best = 0;
        for (int i = 1; i < 16; i++)
            best = fabsf(t - levels_nl[i]) < fabsf(t - levels_nl[best]) ? i : best;
        return (int16_t)best;
    }
    return (int16_t)(t < (float)l->low ? l->low : t > (float)l->high ? l->high : (int)rintf(t));
}

#endif
