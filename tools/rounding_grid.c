/* rounding_grid.c - encoders of the formats with codebooks: IQ1_S, IQ1_M, IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S.
 *
 * A sub-block's scale is unit * d * (2 k + 1) with k of 3 or 4 bits. Each sub-block's error is sampled over a range of scales,
 * with the best codebook entries (and signs) at each; d is chosen so that the sampled curves, read at the scales that d allows, sum
 * to the least. Then sub-blocks settle among the neighbouring k with the true error, and d is refitted, in turn. */
#include "rounding_grid.h"

enum signs { SIGNS_FREE, SIGNS_EVEN, SIGNS_NONE };    /* any; an even number of minus per 8; levels are signed (IQ1) */

struct grid_shape {
    enum book_id book;
    enum signs   signs;
    int          length;        /* values that share a scale: 16 or 32            */
    int          scales;        /* 16 or 8: k in [0, scales)                      */
    bool         shared_shift;  /* IQ1_S: the shift is the sub-block's, not the group's */
    float        unit;
};

/* IQ1's levels are -1, 0, 1, all moved up or down by this. */
static const float IQ1_SHIFT = 0.125f;

/* What a scale leads to in one sub-block. */
struct grid_pick {
    double   error, xq, qq;
    int16_t  code[8];
    uint8_t  sign[4], shift[4];
};

/* What a refit of d needs: d = xq / qq for the codes as they are. q without its scale. */
static void pick_add(struct grid_pick *p, float x, float w, float q)
{
    p->xq += (double)w * x * q;
    p->qq += (double)w * q * q;
}

/* IQ1: eight values on signed levels, shifted up or down. */
static float pick_shifted(struct grid_pick *p, const struct codebook *book, const float *x, const float *w, float scale, int group,
                          int down)
{
    float cost[GROUP_MAX][LEVELS_MAX], least, shift = down ? -IQ1_SHIFT : IQ1_SHIFT;
    for (int j = 0; j < 8; j++)
        for (int l = 0; l < 3; l++) {
            float off = x[j] - scale * (book->level[l] + shift);
            cost[j][l] = w[j] * off * off;
        }
    p->code[group] = (int16_t)codebook_best(book, cost, &least);
    p->shift[group] = (uint8_t)down;
    return least;
}

/* Each group with its own shift, or (IQ1_S) all groups with the one that suits them together; both shifts are searched in full. */
static void pick_signed_levels(struct grid_pick *p, const struct codebook *book, const struct grid_shape *shape, const float *x,
                               const float *w, float scale)
{
    int groups = shape->length / 8;
    struct grid_pick two[2];
    float sum[2] = { 0, 0 };
    for (int g = 0; g < groups; g++) {
        float least[2];
        for (int down = 0; down < 2; down++)
            sum[down] += least[down] = pick_shifted(&two[down], book, x + 8 * g, w + 8 * g, scale, g, down);
        if (!shape->shared_shift) {
            int down = least[1] < least[0];
            p->code[g] = two[down].code[g], p->shift[g] = (uint8_t)down, p->error += least[down];
        }
    }
    if (shape->shared_shift) {
        int down = sum[1] < sum[0];
        memcpy(p->code, two[down].code, sizeof p->code);
        memcpy(p->shift, two[down].shift, sizeof p->shift);
        p->error = sum[down];
    }
    for (int i = 0; i < shape->length; i++) {
        float shift = p->shift[i / 8] ? -IQ1_SHIFT : IQ1_SHIFT;
        pick_add(p, x[i], w[i], book->level[book->levels_of[p->code[i / 8]][i % 8]] + shift);
    }
}

/* Magnitudes of one entry: costs without and surcharges with the wrong sign, (a + q)^2 - (a - q)^2 = 4 a q. */
static void group_costs(float cost[GROUP_MAX][LEVELS_MAX], float flip[GROUP_MAX][LEVELS_MAX], const struct codebook *book,
                        const float *x, const float *w, float scale)
{
    for (int j = 0; j < book->group; j++)
        for (int l = 0; l < book->levels; l++) {
            float a = fabsf(x[j]), q = scale * book->level[l];
            cost[j][l] = w[j] * (a - q) * (a - q);
            flip[j][l] = 4 * w[j] * a * q;
        }
}

/* Eight values, in one entry or two, signs free or with even parity. */
static void pick_eight(struct grid_pick *p, const struct codebook *book, enum signs signs, const float *x, const float *w,
                       float scale, int eight)
{
    float cost[2][GROUP_MAX][LEVELS_MAX], flip[2][GROUP_MAX][LEVELS_MAX], least[2];
    int parts = 8 / book->group, flipped = -1;
    int16_t *code = p->code + eight * parts;
    uint8_t sign = 0;
    for (int j = 0; j < 8; j++)
        sign |= (uint8_t)((x[j] < 0) << j);
    for (int i = 0; i < parts; i++) {
        group_costs(cost[i], flip[i], book, x + i * book->group, w + i * book->group, scale);
        code[i] = (int16_t)codebook_best(book, cost[i], &least[i]);
        p->error += least[i];
    }
    if (signs == SIGNS_EVEN && __builtin_parity(sign)) {
        /* One value of the eight takes the other sign: where that costs least, entries chosen anew with it in mind. */
        double extra = INFINITY;
        int16_t index[2] = { 0, 0 };
        int part = 0;
        for (int i = 0; i < parts; i++) {
            float with;
            int where;
            index[i] = (int16_t)codebook_best_flipped(book, cost[i], flip[i], &with, &where);
            if ((double)with - least[i] < extra)
                extra = (double)with - least[i], flipped = i * book->group + where, part = i;
        }
        code[part] = index[part];
        p->error += extra;
        sign ^= (uint8_t)(1 << flipped);
    }
    p->sign[eight] = sign;
    for (int j = 0; j < 8; j++) {
        float q = book->level[book->levels_of[code[j / book->group]][j % book->group]];
        pick_add(p, x[j], w[j], sign >> j & 1 ? -q : q);
    }
}

void codebook_nearest(const struct codebook *book, bool even, const float *x, const float *w, float scale, int16_t *code,
                      uint8_t *sign)
{
    struct grid_pick p;
    memset(&p, 0, sizeof p);
    pick_eight(&p, book, even ? SIGNS_EVEN : SIGNS_FREE, x, w, scale, 0);
    for (int i = 0; i < 8 / book->group; i++)
        code[i] = p.code[i];
    *sign = p.sign[0];
}

static void pick_codes(struct grid_pick *p, const struct rounding *r, const struct grid_shape *shape, const float *x,
                       const float *w, float scale)
{
    const struct codebook *book = &r->books[shape->book];
    memset(p, 0, sizeof *p);
    if (shape->signs == SIGNS_NONE) {
        pick_signed_levels(p, book, shape, x, w, scale);
        return;
    }
    for (int e = 0; e < shape->length / 8; e++)
        pick_eight(p, book, shape->signs, x + 8 * e, w + 8 * e, scale, e);
}

/* ---- the search over d --------------------------------------------------------------------------------------------- */

/* Errors of a sub-block at scales from * RATIO^i. The lowest clips the largest value to a third of it. Each sample is a full search
 * of the codebook, so they are few; between them the curve is read linearly, and settle_grid looks at both neighbours. */
enum { SAMPLES = 9 };
static const float RATIO = 1.18f;

struct grid_curve {
    double from;                   /* log of the first scale, in units of log RATIO */
    float  error[SAMPLES];
    float  empty;                  /* error at scale 0 */
    int    best;
};

static void sample_curve(struct grid_curve *c, const struct rounding *r, const struct grid_shape *shape, const float *x,
                         const float *w)
{
    const struct codebook *book = &r->books[shape->book];
    float top = 0;
    double empty = 0;
    for (int i = 0; i < shape->length; i++) {
        top = fabsf(x[i]) > top ? fabsf(x[i]) : top;
        empty += (double)w[i] * x[i] * x[i];
    }
    c->empty = (float)empty, c->best = 0;
    if (top == 0) {
        memset(c->error, 0, sizeof c->error);
        c->from = 0, c->empty = 0;
        return;
    }
    float scale = top / book->level[book->levels - 1] * 0.36f;
    c->from = log((double)scale) / log((double)RATIO);
    for (int i = 0; i < SAMPLES; i++, scale *= RATIO) {
        struct grid_pick p;
        pick_codes(&p, r, shape, x, w, scale);
        c->error[i] = (float)p.error;
        if (c->error[i] < c->error[c->best])
            c->best = i;
    }
}

/* The curve at log scale `at`; towards 0 it nears the empty error, above the last sample it grows like a parabola. */
static double read_curve(const struct grid_curve *c, double at)
{
    double t = at - c->from;
    if (c->empty == 0)
        return 0;
    if (t <= 0)
        return c->empty + (c->error[0] - c->empty) * exp(t * 0.1);
    if (t >= SAMPLES - 1)
        return c->error[SAMPLES - 1] * (1 + (t - (SAMPLES - 1)) * (t - (SAMPLES - 1)));
    int i = (int)t;
    return c->error[i] + (c->error[i + 1] - c->error[i]) * (t - i);
}

/* d with the least sum of curves over the scales that it allows; k[] gets each sub-block's choice. */
static float choose_d(int *k, const struct grid_curve *curves, int subs, const struct grid_shape *shape)
{
    double log_ratio = log((double)RATIO), odd[16], best_d = 0, least = INFINITY, highest = -INFINITY;
    for (int i = 0; i < shape->scales; i++)
        odd[i] = log(2.0 * i + 1) / log_ratio;
    for (int b = 0; b < subs; b++)
        if (curves[b].empty > 0 && curves[b].from + curves[b].best > highest)
            highest = curves[b].from + curves[b].best;
    if (highest == -INFINITY)
        return 0;
    /* From the largest wish on the largest multiple (and a little above it) downwards, in quarter steps of RATIO over ten of them:
     * finer than the samples that they are read from. */
    for (int i = 0; i < 40; i++) {
        double d = highest - odd[shape->scales - 1] - 1.5 + 0.25 * i, sum = 0;
        int pick[16];
        for (int b = 0; b < subs; b++) {
            double at_least = INFINITY;
            for (int j = 0; j < shape->scales; j++) {
                double e = read_curve(&curves[b], d + odd[j]);
                if (e < at_least)
                    at_least = e, pick[b] = j;
            }
            sum += at_least;
        }
        if (sum < least) {
            least = sum, best_d = d;
            memcpy(k, pick, sizeof pick);
        }
    }
    return (float)(exp(best_d * log_ratio) / shape->unit);
}

struct grid_super {
    float  d;
    int    k[16];
    double error;
    struct grid_pick pick[16];
};

/* Each sub-block's best codes at the step s->d, its multiple at most one from the one that it has. */
static void settle_grid(struct grid_super *s, const struct rounding *r, const struct grid_shape *shape, const float *x,
                        const float *w)
{
    s->error = 0;
    for (int b = 0; b < SUPER / shape->length; b++) {
        int wish = s->k[b];
        double least = INFINITY;
        for (int k = wish - 1; k <= wish + 1; k++) {
            struct grid_pick p;
            if (k < 0 || k >= shape->scales)
                continue;
            pick_codes(&p, r, shape, x + b * shape->length, w + b * shape->length, s->d * shape->unit * (float)(2 * k + 1));
            if (p.error < least)
                least = p.error, s->k[b] = k, s->pick[b] = p;
        }
        s->error += least;
    }
}

/* Curves of the sub-blocks, the d that suits them together, then codes and d in turn, each for the other as it stands. */
static void grid_search(const struct rounding *r, struct block_code *c, const float *x, const float *w,
                        const struct grid_shape *shape)
{
    struct grid_curve curves[16];
    struct grid_super s, next;
    int subs = SUPER / shape->length, groups = shape->length / r->books[shape->book].group;
    for (int b = 0; b < subs; b++)
        sample_curve(&curves[b], r, shape, x + b * shape->length, w + b * shape->length);
    memset(s.k, 0, sizeof s.k);
    s.d = half_round(choose_d(s.k, curves, subs, shape));
    settle_grid(&s, r, shape, x, w);
    for (int turn = 0; turn < 3; turn++) {
        double xq = 0, qq = 0;
        for (int b = 0; b < subs; b++) {
            double f = shape->unit * (float)(2 * s.k[b] + 1);
            xq += f * s.pick[b].xq, qq += f * f * s.pick[b].qq;
        }
        next = s;
        next.d = qq > 0 && xq > 0 ? half_round(xq / qq) : s.d;
        if (next.d == s.d)
            break;
        settle_grid(&next, r, shape, x, w);
        if (next.error >= s.error)
            break;
        s = next;
    }
    c->d = s.d;
    for (int b = 0; b < subs; b++) {
        c->scale[b] = (int16_t)s.k[b];
        memcpy(c->code + b * groups, s.pick[b].code, (size_t)groups * sizeof *c->code);
        memcpy(c->sign + b * shape->length / 8, s.pick[b].sign, (size_t)shape->length / 8);
        memcpy(c->shift + b * shape->length / 8, s.pick[b].shift, (size_t)shape->length / 8);
    }
}

/* ---- the formats --------------------------------------------------------------------------------------------------- */

static void search_iq2_xxs(const struct rounding *r, struct block_code *c, const float *x, const float *w, int effort)
{
    static const struct grid_shape shape = { BOOK_IQ2_XXS, SIGNS_EVEN, 32, 16, false, 0.125f };
    (void)effort;
    grid_search(r, c, x, w, &shape);
}

static void search_iq2_xs(const struct rounding *r, struct block_code *c, const float *x, const float *w, int effort)
{
    static const struct grid_shape shape = { BOOK_IQ2_XS, SIGNS_EVEN, 16, 16, false, 0.125f };
    (void)effort;
    grid_search(r, c, x, w, &shape);
}

static void search_iq2_s(const struct rounding *r, struct block_code *c, const float *x, const float *w, int effort)
{
    static const struct grid_shape shape = { BOOK_IQ2_S, SIGNS_FREE, 16, 16, false, 0.125f };
    (void)effort;
    grid_search(r, c, x, w, &shape);
}

static void search_iq3_xxs(const struct rounding *r, struct block_code *c, const float *x, const float *w, int effort)
{
    static const struct grid_shape shape = { BOOK_IQ3_XXS, SIGNS_EVEN, 32, 16, false, 0.25f };
    (void)effort;
    grid_search(r, c, x, w, &shape);
}

static void search_iq3_s(const struct rounding *r, struct block_code *c, const float *x, const float *w, int effort)
{
    static const struct grid_shape shape = { BOOK_IQ3_S, SIGNS_FREE, 32, 16, false, 1 };
    (void)effort;
    grid_search(r, c, x, w, &shape);
}

static void search_iq1_s(const struct rounding *r, struct block_code *c, const float *x, const float *w, int effort)
{
    static const struct grid_shape shape = { BOOK_IQ1, SIGNS_NONE, 32, 8, true, 1 };
    (void)effort;
    grid_search(r, c, x, w, &shape);
}

static void search_iq1_m(const struct rounding *r, struct block_code *c, const float *x, const float *w, int effort)
{
    static const struct grid_shape shape = { BOOK_IQ1, SIGNS_NONE, 16, 8, false, 1 };
    (void)effort;
    grid_search(r, c, x, w, &shape);
}

/* Seven sign bits of each of four groups of 8 (the eighth follows from the parity), and a scale on top. */
static uint32_t signs_and_scale(const struct block_code *c, int b)
{
    uint32_t bits = (uint32_t)c->scale[b] << 28;
    for (int l = 0; l < 4; l++)
        bits |= (uint32_t)(c->sign[4 * b + l] & 127) << 7 * l;
    return bits;
}

static void pack_iq2_xxs(void *out, const struct block_code *c)
{
    uint8_t *o = out;
    store_u16(o, half_bits(c->d));
    for (int b = 0; b < 8; b++) {
        for (int l = 0; l < 4; l++)
            o[2 + 8 * b + l] = (uint8_t)c->code[4 * b + l];
        store_u32(o + 6 + 8 * b, signs_and_scale(c, b));
    }
}

static void pack_iq2_xs(void *out, const struct block_code *c)
{
    uint8_t *o = out;
    store_u16(o, half_bits(c->d));
    for (int g = 0; g < 32; g++)
        store_u16(o + 2 + 2 * g, (uint16_t)(c->code[g] | (c->sign[g] & 127) << 9));
    for (int b = 0; b < 8; b++)
        o[66 + b] = (uint8_t)(c->scale[2 * b] | c->scale[2 * b + 1] << 4);
}

static void pack_iq2_s(void *out, const struct block_code *c)
{
    uint8_t *o = out;
    memset(o, 0, 82);
    store_u16(o, half_bits(c->d));
    for (int g = 0; g < 32; g++) {
        o[2 + g] = (uint8_t)c->code[g];
        o[34 + g] = c->sign[g];
        o[66 + g / 4] |= (uint8_t)((c->code[g] >> 8) << 2 * (g % 4));
    }
    for (int b = 0; b < 8; b++)
        o[74 + b] = (uint8_t)(c->scale[2 * b] | c->scale[2 * b + 1] << 4);
}

static void pack_iq3_xxs(void *out, const struct block_code *c)
{
    uint8_t *o = out;
    store_u16(o, half_bits(c->d));
    for (int g = 0; g < 64; g++)
        o[2 + g] = (uint8_t)c->code[g];
    for (int b = 0; b < 8; b++)
        store_u32(o + 66 + 4 * b, signs_and_scale(c, b));
}

static void pack_iq3_s(void *out, const struct block_code *c)
{
    uint8_t *o = out;
    memset(o, 0, 110);
    store_u16(o, half_bits(c->d));
    for (int g = 0; g < 64; g++) {
        o[2 + g] = (uint8_t)c->code[g];
        o[66 + g / 8] |= (uint8_t)((c->code[g] >> 8) << g % 8);
    }
    memcpy(o + 74, c->sign, 32);
    for (int b = 0; b < 8; b++)
        o[106 + b / 2] |= (uint8_t)(c->scale[b] << 4 * (b % 2));
}

static void pack_iq1_s(void *out, const struct block_code *c)
{
    uint8_t *o = out;
    store_u16(o, half_bits(c->d));
    for (int b = 0; b < 8; b++) {
        uint16_t high = (uint16_t)(c->scale[b] << 12 | c->shift[4 * b] << 15);
        for (int l = 0; l < 4; l++) {
            o[2 + 4 * b + l] = (uint8_t)c->code[4 * b + l];
            high |= (uint16_t)((c->code[4 * b + l] >> 8) << 3 * l);
        }
        store_u16(o + 34 + 2 * b, high);
    }
}

/* d's four nibbles stand on top of the four 16-bit words that hold the scales, four of 3 bits in each. */
static void pack_iq1_m(void *out, const struct block_code *c)
{
    uint8_t *o = out;
    uint16_t d = half_bits(c->d);
    for (int g = 0; g < 32; g++)
        o[g] = (uint8_t)c->code[g];
    for (int b = 0; b < 16; b++) {
        int low = c->code[2 * b] >> 8 | c->shift[2 * b] << 3, high = c->code[2 * b + 1] >> 8 | c->shift[2 * b + 1] << 3;
        o[32 + b] = (uint8_t)(low | high << 4);
    }
    for (int i = 0; i < 4; i++) {
        uint16_t word = (uint16_t)((d >> 4 * i & 15) << 12);
        for (int j = 0; j < 4; j++)
            word |= (uint16_t)(c->scale[4 * i + j] << 3 * j);
        store_u16(o + 48 + 2 * i, word);
    }
}

const struct encoder encoders_grid[] = {
    { FORMAT_IQ2_XXS, SUPER, search_iq2_xxs, pack_iq2_xxs }, { FORMAT_IQ2_XS, SUPER, search_iq2_xs, pack_iq2_xs },
    { FORMAT_IQ2_S, SUPER, search_iq2_s, pack_iq2_s },       { FORMAT_IQ3_XXS, SUPER, search_iq3_xxs, pack_iq3_xxs },
    { FORMAT_IQ3_S, SUPER, search_iq3_s, pack_iq3_s },       { FORMAT_IQ1_S, SUPER, search_iq1_s, pack_iq1_s },
    { FORMAT_IQ1_M, SUPER, search_iq1_m, pack_iq1_m },
};
const size_t encoders_grid_count = sizeof encoders_grid / sizeof *encoders_grid;
