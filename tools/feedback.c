#include "feedback.h"

#include <stdlib.h>

#include "lattice.h"
#include "tiles.h"

bool feedback_supports(uint32_t format)
{
    return lattice_find(format) != NULL;
}

size_t feedback_group(uint32_t format)
{
    const struct lattice *l = lattice_find(format);
    return l && l->kind == BOOK ? 8 : 1;
}

/* ---- one H ----------------------------------------------------------------------------------------------------------- */

struct rank { float value; uint32_t at; };

static int by_rank(const void *a, const void *b)
{
    const struct rank *x = a, *y = b;
    return x->value != y->value ? (x->value < y->value) - (x->value > y->value) : (x->at > y->at) - (x->at < y->at);
}

static bool choose_order(struct feedback *f, const float *h, size_t group, struct quern_error *err)
{
    size_t groups = f->n / group;
    struct rank *rank = mem_take(groups, sizeof *rank, "an order", err);
    for (size_t g = 0; rank && g < groups; g++) {
        rank[g].at = (uint32_t)g;
        for (size_t i = g * group; i < (g + 1) * group; i++)
            rank[g].value += h[i * f->n + i];
    }
    if (!rank)
        return false;
    qsort(rank, groups, sizeof *rank, by_rank);
    for (size_t p = 0; p < f->n; p++)
        f->order[p] = rank[p / group].at * (uint32_t)group + (uint32_t)(p % group);
    free(rank);
    return true;
}

bool feedback_init(struct feedback *f, const float *h, const float *held, size_t n, size_t group, double damping, struct pool *pool,
                   struct quern_error *err)
{
    size_t stride = (n + 15) / 16 * 16;
    struct cholesky_damping d = { damping, 6, 0 };
    double mean = 0;
    *f = (struct feedback){ .n = n, .stride = stride };
    f->h = mem_take(n, stride * sizeof(float), "second moments", err);
    f->held = f->h && held ? mem_take(n, stride * sizeof(float), "second moments", err) : NULL;
    f->upper = f->h && (f->held || !held) ? mem_take(n, stride * sizeof(float), "a factor", err) : NULL;
    f->importance = f->upper ? mem_take(n, sizeof(float), "importances", err) : NULL;
    f->order = f->importance ? mem_take(n, sizeof *f->order, "an order", err) : NULL;
    if (!f->order || !choose_order(f, h, group, err) || !cholesky_inverse_upper(f->upper, stride, h, f->order, n, &d, pool, err)) {
        feedback_free(f);
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        mean += h[i * n + i] / (double)n;
        f->importance[i] = h[i * n + i];
        memcpy(f->h + i * stride, h + i * n, n * sizeof *h);
        if (held)
            memcpy(f->held + i * stride, held + i * n, n * sizeof *held);
    }
    for (size_t i = 0; i < n; i++)
        f->h[i * stride + i] += (float)(d.used * mean);
    f->damping = d.used;
    return true;
}

void feedback_free(struct feedback *f)
{
    free(f->h);
    free(f->held);
    free(f->upper);
    free(f->importance);
    free(f->order);
    memset(f, 0, sizeof *f);
}

/* ---- rows ------------------------------------------------------------------------------------------------------------ */

/* Rows that are worked on together, so that a row of H or U is read once for all of them. */
enum { TOGETHER = 32 };

struct job {
    const struct feedback *f;
    const struct rounding *rounding;
    const struct encoder  *encoder;
    const struct lattice  *lattice;
    const float *w;
    uint8_t *out[FEEDBACK_WAYS];
    double  *fit[FEEDBACK_WAYS], *held[FEEDBACK_WAYS];     /* [rows] */
    size_t   rows, row_bytes, block_bytes, blocks;
    enum feedback_way most;
    enum rounding_weights rule;
    float   *scratch;                                      /* per thread 3 * TOGETHER rows and 2 */
    struct block_code *codes;                              /* per thread TOGETHER * blocks */
};

struct rows {
    const struct job *j;
    size_t first, count;
    float *x, *v, *r;            /* [TOGETHER][stride]: carried targets, values, gradient H (v - w) */
    float *spare, *weight;       /* [stride] */
    struct block_code *codes;    /* [TOGETHER][blocks] */
};

static struct block_code *code_of(const struct rows *s, size_t row, size_t column)
{
    return &s->codes[row * s->j->blocks + column / s->j->encoder->block];
}

static void decode_rows(struct rows *s)
{
    const struct job *j = s->j;
    for (size_t i = 0; i < s->count; i++)
        for (size_t c = 0; c < j->f->n; c++)
            s->v[i * j->f->stride + c] = lattice_value(j->lattice, j->rounding, code_of(s, i, c), (int)(c % j->encoder->block));
}

/* r = H (v - w) for all rows. x is free here: its rows hold the differences. */
static void gradient_rows(struct rows *s, const float *h)
{
    size_t n = s->j->f->n, stride = s->j->f->stride;
    for (size_t i = 0; i < s->count; i++)
        for (size_t c = 0; c < n; c++)
            s->x[i * stride + c] = s->v[i * stride + c] - s->j->w[(s->first + i) * n + c];
    tile_product(s->j->rounding->lanes, s->r, s->x, h, stride, s->count, n);
}

/* (v - w) H (v - w)^T of each row, where r = H (v - w). */
static void losses(const struct rows *s, double *loss)
{
    size_t n = s->j->f->n, stride = s->j->f->stride;
    for (size_t i = 0; i < s->count; i++) {
        double sum = 0;
        for (size_t c = 0; c < n; c++)
            sum += (double)s->r[i * stride + c] * (s->v[i * stride + c] - s->j->w[(s->first + i) * n + c]);
        loss[s->first + i] = sum;
    }
}

static void pack_rows(struct rows *s, enum feedback_way way)
{
    const struct job *j = s->j;
    for (size_t i = 0; i < s->count; i++)
        for (size_t b = 0; b < j->blocks; b++)
            j->encoder->pack(j->out[way] + (s->first + i) * j->row_bytes + b * j->block_bytes, &s->codes[i * j->blocks + b]);
}

/* Losses and bytes of one way. A product with H is most of the time that a row takes, so each is made once and only where its
 * result is used: the search's own loss matters only where nothing is held out, descent begins with the r that is left by the
 * carried codes, and has its own at its end. */
static void conclude(struct rows *s, enum feedback_way way)
{
    const struct job *j = s->j;
    pack_rows(s, way);
    if (way == FEEDBACK_DESCENT)
        losses(s, j->fit[way]);
    decode_rows(s);
    if (j->f->held) {
        gradient_rows(s, j->f->held);
        losses(s, j->held[way]);
    }
    if (way == FEEDBACK_CARRY || (way == FEEDBACK_SEARCH && (!j->f->held || j->most == FEEDBACK_SEARCH))) {
        gradient_rows(s, j->f->h);
        losses(s, j->fit[way]);
    }
    if (!j->f->held)
        memcpy(j->held[way] + s->first, j->fit[way] + s->first, s->count * sizeof(double));
}

/* As rounding_row does, but the codes stay. */
static void search_rows(struct rows *s)
{
    const struct job *j = s->j;
    size_t n = j->f->n, block = j->encoder->block;
    for (size_t i = 0; i < s->count; i++) {
        const float *w = j->w + (s->first + i) * n;
        rounding_weigh(s->weight, w, j->f->importance, n, j->rule);
        for (size_t b = 0; b < j->blocks; b++)
            rounding_search(j->rounding, j->encoder, &s->codes[i * j->blocks + b], w + b * block, s->weight + b * block);
    }
}

/* Eight columns at place p: the codebook's choice for the carried targets. */
static void carry_eight(struct rows *s, size_t row, size_t p)
{
    const struct feedback *f = s->j->f;
    size_t column = f->order[p], at = column % SUPER;
    struct block_code *c = code_of(s, row, column);
    const struct codebook *book = &s->j->rounding->books[s->j->lattice->book];
    float scale = lattice_scale(s->j->lattice, c, (int)at / s->j->lattice->length), weight[8], mean = 0;
    int16_t code[2];
    for (int i = 0; i < 8; i++) {
        float u = f->upper[(p + (size_t)i) * f->stride + p + (size_t)i];
        mean += weight[i] = 1 / (u * u);
    }
    for (int i = 0; i < 8; i++)
        weight[i] *= 8 / mean;
    codebook_nearest(book, s->j->lattice->even, s->x + row * f->stride + p, weight, scale, code, &c->sign[at / 8]);
    for (int i = 0; i < 8 / book->group; i++)
        c->code[at / (size_t)book->group + (size_t)i] = code[i];
}

/* The code of the value at place p; gives the error that it leaves, in units of the factor's diagonal. */
static float carry_one(struct rows *s, size_t row, size_t p)
{
    const struct job *j = s->j;
    const struct feedback *f = j->f;
    const struct lattice *l = j->lattice;
    size_t column = f->order[p];
    int at = (int)(column % j->encoder->block);
    struct block_code *c = code_of(s, row, column);
    float x = s->x[row * f->stride + p];
    if (l->kind == BOOK && p % 8 == 0)
        carry_eight(s, row, p);
    else if (l->kind != BOOK)
        c->code[at] = lattice_nearest(l, x, lattice_scale(l, c, at / l->length), lattice_minimum(l, c, at / l->length));
    return (x - lattice_value(l, j->rounding, c, at)) / f->upper[p * f->stride + p];
}

/* Eight places at a time: among them errors are carried one by one, into the others all eight together, which adds in the same
 * order. */
static void carry_rows(struct rows *s)
{
    const struct job *j = s->j;
    const struct feedback *f = j->f;
    const struct lanes *lanes = j->rounding->lanes;
    for (size_t i = 0; i < s->count; i++)
        for (size_t p = 0; p < f->n; p++)
            s->x[i * f->stride + p] = j->w[(s->first + i) * f->n + f->order[p]];
    for (size_t p = 0; p < f->n; p += 8)
        for (size_t i = 0; i < s->count; i++) {
            float *x = s->x + i * f->stride, minus[8];
            size_t n = f->n - p < 8 ? f->n - p : 8;
            for (size_t k = 0; k < n; k++) {
                minus[k] = -carry_one(s, i, p + k);
                lanes->add_scaled(x + p + k + 1, f->upper + (p + k) * f->stride + p + k + 1, minus[k], n - k - 1);
            }
            if (n == 8)
                lanes->add_eight(x + p + 8, f->upper + p * f->stride + p + 8, f->stride, minus, f->n - p - 8);
        }
}

/* ---- descent: s->v and s->r are kept true ---------------------------------------------------------------------------- */

/* out += delta[i] * row i of `h`, which are f->stride apart: eight at a time, and eights that are all zero not at all. */
static void add_rows(const struct rows *s, float *out, const float *h, const float *delta, size_t rows, size_t width)
{
    const struct lanes *lanes = s->j->rounding->lanes;
    size_t stride = s->j->f->stride, i = 0;
    for (; i + 8 <= rows; i += 8) {
        size_t zeros = 0;
        for (size_t k = 0; k < 8; k++)
            zeros += delta[i + k] == 0;
        if (zeros < 7)
            lanes->add_eight(out, h + i * stride, stride, delta + i, width);
        else
            for (size_t k = 0; zeros < 8 && k < 8; k++)
                if (delta[i + k] != 0)
                    lanes->add_scaled(out, h + (i + k) * stride, delta[i + k], width);
    }
    for (; i < rows; i++)
        if (delta[i] != 0)
            lanes->add_scaled(out, h + i * stride, delta[i], width);
}

/* Change of the loss when columns [from, from + n) move by delta. */
static double change(const struct rows *s, size_t row, size_t from, const float *delta, size_t n)
{
    const struct feedback *f = s->j->f;
    double sum = 0;
    memset(s->spare, 0, n * sizeof *s->spare);
    add_rows(s, s->spare, f->h + from * f->stride + from, delta, n, n);
    for (size_t i = 0; i < n; i++)
        sum += delta[i] * (2 * (double)s->r[row * f->stride + from + i] + s->spare[i]);
    return sum;
}

static void move(struct rows *s, size_t row, size_t from, const float *delta, size_t n)
{
    const struct feedback *f = s->j->f;
    add_rows(s, s->r + row * f->stride, f->h + from * f->stride, delta, n, f->n);
    for (size_t i = 0; i < n; i++)
        s->v[row * f->stride + from + i] += delta[i];
}

/* Take `next` for the block when the values [from, from + n) of it lower the loss. */
static bool try_code(struct rows *s, size_t row, size_t from, size_t n, const struct block_code *next)
{
    struct block_code *c = code_of(s, row, from);
    size_t block = s->j->encoder->block, at = from % block;
    float delta[SUPER] = { 0 };
    for (size_t i = 0; i < n; i++)
        delta[i] = lattice_value(s->j->lattice, s->j->rounding, next, (int)(at + i)) - s->v[row * s->j->f->stride + from + i];
    if (!(change(s, row, from, delta, n) < -1e-7 * fabs((double)s->r[row * s->j->f->stride + from] * delta[0])))
        return false;
    move(s, row, from, delta, n);
    *c = *next;
    return true;
}

static void descend_codes(struct rows *s)
{
    const struct job *j = s->j;
    const struct feedback *f = j->f;
    const struct lattice *l = j->lattice;
    for (size_t p = 0; l->kind != BOOK && p < f->n; p++)
        for (size_t i = 0; i < s->count; i++) {
            size_t column = f->order[p], k = i * f->stride + column;
            int at = (int)(column % j->encoder->block);
            struct block_code *c = code_of(s, i, column);
            float scale = lattice_scale(l, c, at / l->length), minimum = lattice_minimum(l, c, at / l->length);
            int16_t code = lattice_nearest(l, s->v[k] - s->r[k] / f->h[column * f->stride + column], scale, minimum);
            if (code == c->code[at])
                continue;
            float delta = scale * (l->kind == LEVELS ? levels_nl[code] : (float)code) + minimum - s->v[k];
            if (2 * s->r[k] * delta + delta * delta * f->h[column * f->stride + column] < 0) {
                c->code[at] = code;
                move(s, i, column, &delta, 1);
            }
        }
    for (size_t p = 0; l->kind == BOOK && p < f->n; p += 8)
        for (size_t i = 0; i < s->count; i++) {
            size_t column = f->order[p], k = i * f->stride + column, at = column % SUPER;
            const struct codebook *book = &j->rounding->books[l->book];
            struct block_code next = *code_of(s, i, column);
            float target[8], weight[8], mean = 0, scale = lattice_scale(l, &next, (int)at / l->length);
            for (size_t q = 0; q < 8; q++)
                mean += f->h[(column + q) * f->stride + column + q] / 8;
            for (int turn = 0; turn < 2; turn++) {
                for (size_t q = 0; q < 8; q++) {
                    float d = f->h[(column + q) * f->stride + column + q];
                    weight[q] = d / mean;
                    target[q] = s->v[k + q] - s->r[k + q] / (turn ? 2 * d : d);
                }
                codebook_nearest(book, l->even, target, weight, scale, next.code + at / (size_t)book->group, &next.sign[at / 8]);
                if (try_code(s, i, column, 8, &next))
                    break;
            }
        }
}

/* Integer scales and minimums one step up or down. */
static void descend_integers(struct rows *s)
{
    const struct lattice *l = s->j->lattice;
    size_t n = s->j->f->n, length = (size_t)l->length;
    for (size_t from = 0; lattice_has_integers(l) && from < n; from += length)
        for (size_t i = 0; i < s->count; i++)
            for (int turn = 0; turn < (l->kind == AFFINE ? 4 : 2); turn++) {
                struct block_code next = *code_of(s, i, from);
                size_t sub = from % s->j->encoder->block / length;
                int16_t *of = turn < 2 ? &next.scale[sub] : &next.min[sub];
                int value = *of + (turn % 2 ? 1 : -1);
                if (value < l->scale_low || value > l->scale_high)
                    continue;
                *of = (int16_t)value;
                try_code(s, i, from, length, &next);
            }
}

/* The block's halves: the best step along the values' dependence on d (or m), rounded, if it helps. */
static void descend_halves(struct rows *s)
{
    const struct job *j = s->j;
    const struct lattice *l = j->lattice;
    size_t block = j->encoder->block;
    for (size_t from = 0; from < j->f->n; from += block)
        for (size_t i = 0; i < s->count; i++)
            for (int minimum = 0; minimum <= (l->kind == AFFINE); minimum++) {
                struct block_code next = *code_of(s, i, from);
                float along[SUPER], *half = minimum ? &next.m : &next.d;
                double slope = 0;
                for (size_t k = 0; k < block; k++) {
                    float low = lattice_minimum(l, &next, (int)k / l->length);
                    along[k] = minimum ? low : lattice_value(l, j->rounding, &next, (int)k) - low;
                    slope += (double)along[k] * s->r[i * j->f->stride + from + k];
                }
                double curve = change(s, i, from, along, block) - 2 * slope;
                if (!(curve > 0))
                    continue;
                float wanted = half_round(*half * (1 - slope / curve));
                if (wanted == *half || (minimum && lattice_has_integers(l) && wanted < 0))
                    continue;
                *half = wanted;
                try_code(s, i, from, block, &next);
            }
}

static void round_rows(void *arg, size_t index, size_t thread)
{
    const struct job *j = arg;
    size_t stride = j->f->stride, each = TOGETHER * stride;
    float *own = j->scratch + thread * (3 * each + 2 * stride);
    struct rows s = { .j = j, .first = index * TOGETHER, .x = own, .v = own + each, .r = own + 2 * each, .spare = own + 3 * each,
                      .weight = own + 3 * each + stride, .codes = j->codes + thread * TOGETHER * j->blocks };
    s.count = j->rows - s.first < TOGETHER ? j->rows - s.first : TOGETHER;
    search_rows(&s);
    conclude(&s, FEEDBACK_SEARCH);
    if (j->most >= FEEDBACK_CARRY) {
        carry_rows(&s);
        conclude(&s, FEEDBACK_CARRY);
    }
    if (j->most < FEEDBACK_DESCENT)
        return;
    for (int turn = 0; turn < 3; turn++) {
        descend_halves(&s);
        descend_integers(&s);
        descend_codes(&s);
    }
    conclude(&s, FEEDBACK_DESCENT);
}

/* ---- a tensor -------------------------------------------------------------------------------------------------------- */

static bool take_job(struct job *j, size_t threads, struct quern_error *err)
{
    size_t floats = 3 * TOGETHER * j->f->stride + 2 * j->f->stride;
    for (int way = 0; way <= (int)j->most; way++)
        if (!(j->out[way] = mem_take(j->rows, j->row_bytes, "rounded rows", err)) ||
            !(j->fit[way] = mem_take(2 * j->rows, sizeof(double), "losses", err)))
            return false;
        else
            j->held[way] = j->fit[way] + j->rows;
    j->scratch = mem_take_aligned(threads, floats * sizeof(float), "rows", err);
    j->codes = j->scratch ? mem_take(threads * TOGETHER, j->blocks * sizeof *j->codes, "codes", err) : NULL;
    return j->codes != NULL;
}

bool feedback_round(const struct feedback *f, const struct rounding *rounding, uint32_t format, void *out, const float *w,
                    size_t rows, enum feedback_way most, enum rounding_weights rule, struct pool *pool,
                    struct feedback_result *result, struct quern_error *err)
{
    struct job j = { .f = f, .rounding = rounding, .encoder = encoder_find(format), .lattice = lattice_find(format), .w = w,
                     .rows = rows, .most = most, .rule = rule, .block_bytes = format_find(format)->bytes };
    memset(result, 0, sizeof *result);
    if (!j.lattice || f->n % j.encoder->block)
        return ERR(err, QUERN_EUNSUPPORTED, "error feedback for rows of %zu values as %s", f->n, format_find(format)->name);
    j.blocks = f->n / j.encoder->block;
    j.row_bytes = j.blocks * j.block_bytes;
    bool ok = take_job(&j, pool_threads(pool), err);
    if (ok) {
        pool_run(pool, round_rows, &j, (rows + TOGETHER - 1) / TOGETHER);
        for (int way = 0; way <= (int)most; way++) {
            for (size_t r = 0; r < rows; r++)
                result->fit[way] += j.fit[way][r], result->held[way] += j.held[way][r];
            if (result->held[way] < result->held[result->kept])
                result->kept = (enum feedback_way)way;
        }
        memcpy(out, j.out[result->kept], rows * j.row_bytes);
    }
    for (int way = 0; way < FEEDBACK_WAYS; way++) {
        free(j.out[way]);
        free(j.fit[way]);
    }
    free(j.scratch);
    free(j.codes);
    return ok;
}
