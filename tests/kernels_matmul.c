/* Matrix products: each slot against sums in double over the unpacked weights and the prepared activations. */
#include "kernels_check.h"

#include "numbers.h"
#include "unpack.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct meaning {
    uint32_t         id;
    unpack_small_fn *small;
    unpack_super_fn *super;
};
static const struct meaning meanings[] = {
    { FORMAT_Q1_0, unpack_q1_0_ref, NULL },       { FORMAT_Q2_0, unpack_q2_0_ref, NULL },
    { FORMAT_Q4_0, unpack_q4_0_ref, NULL },       { FORMAT_Q4_1, unpack_q4_1_ref, NULL },
    { FORMAT_Q5_0, unpack_q5_0_ref, NULL },       { FORMAT_Q5_1, unpack_q5_1_ref, NULL },
    { FORMAT_Q8_0, unpack_q8_0_ref, NULL },       { FORMAT_IQ4_NL, unpack_iq4_nl_ref, NULL },
    { FORMAT_MXFP4, unpack_mxfp4_ref, NULL },     { FORMAT_NVFP4, unpack_nvfp4_ref, NULL },
    { FORMAT_Q2_K, NULL, unpack_q2_k_ref },       { FORMAT_Q3_K, NULL, unpack_q3_k_ref },
    { FORMAT_Q4_K, NULL, unpack_q4_k_ref },       { FORMAT_Q5_K, NULL, unpack_q5_k_ref },
    { FORMAT_Q6_K, NULL, unpack_q6_k_ref },       { FORMAT_IQ1_S, NULL, unpack_iq1_s_ref },
    { FORMAT_IQ1_M, NULL, unpack_iq1_m_ref },     { FORMAT_IQ2_XXS, NULL, unpack_iq2_xxs_ref },
    { FORMAT_IQ2_XS, NULL, unpack_iq2_xs_ref },   { FORMAT_IQ2_S, NULL, unpack_iq2_s_ref },
    { FORMAT_IQ3_XXS, NULL, unpack_iq3_xxs_ref }, { FORMAT_IQ3_S, NULL, unpack_iq3_s_ref },
    { FORMAT_IQ4_XS, NULL, unpack_iq4_xs_ref },   { FORMAT_TQ1_0, NULL, unpack_tq1_0_ref },
    { FORMAT_TQ2_0, NULL, unpack_tq2_0_ref },
};

/* A row as exact numbers, and the size of the terms that each value is made of: |scale * q| + |min|. */
static void expand_row(double *value, double *size, const void *row, const struct format *format, const struct kernels *ref,
                       size_t cols)
{
    const struct meaning *m = meanings, *end = meanings + sizeof meanings / sizeof *meanings;
    while (m < end && m->id != format->id)
        m++;
    for (size_t at = 0; at < cols; at += format->block) {
        const char *block = (const char *)row + at / format->block * format->bytes;
        struct small_block s;
        struct super_block u;
        float plain;
        if (m == end)
            ref->dequantize[format->id].fn(&plain, block, 1);
        else if (m->small)
            m->small(&s, block);
        else
            m->super(&u, block);
        for (size_t i = 0; i < format->block; i++) {
            double product = plain, min = 0;
            if (m != end && m->small) {
                product = (double)s.scale[i / 16] * s.q[i];
                min = s.min[i / 16];
            } else if (m != end) {
                product = (double)u.d * u.sub[i / 16] * u.q[i];
                min = (double)u.dmin * u.min[i / 16];
            }
            value[at + i] = product - min;
            size[at + i] = fabs(product) + fabs(min);
        }
    }
}

static double act_value(const void *act, enum act_kind kind, size_t cols, size_t i)
{
    struct act_layout layout = act_layout(kind, cols);
    const float *floats = act, *d = (const float *)(const void *)((const char *)act + layout.scales);
    switch (kind) {
    case ACT_F32:   return floats[i];
    case ACT_BF16:  return bf16_to_f32(((const uint16_t *)act)[i]);
    case ACT_Q8_32: return (double)d[i / 32] * ((const int8_t *)act)[i];
    default:        return (double)d[i / 256] * ((const int8_t *)act)[i];
    }
}

/* The bound's factor, as kernels.h states it. NVFP4 changes its scale every 16 columns. */
static double bound_factor(enum act_kind kind, const struct format *format, size_t cols)
{
    size_t block = format->id == FORMAT_NVFP4 ? 16 : kind == ACT_Q8_32 ? 32 : 256;
    return kind == ACT_F32 || kind == ACT_BF16 ? (double)(cols + 4) * FLT_EPSILON
                                               : ((double)(cols / block) + 4) * FLT_EPSILON;
}

struct product {
    const struct format         *format;
    const struct matmul_kernels *kernel;
    size_t            rows;
    struct matmul_job job;
    void             *scratch;
};

/* Inputs in guarded memory, the weights' last row, the last activation and the scratch all ending at an unmapped page. */
static void prepare(struct check *c, struct product *p, size_t rows, size_t cols, size_t toks, enum fill quants, enum fill scales,
                    enum fill acts)
{
    struct act_layout layout = act_layout(p->kernel->act, cols);
    size_t row_bytes = cols / p->format->block * p->format->bytes, gap = random_size(c, 0, 1) * 64;
    float *x = guard_alloc(c, cols * sizeof *x);
    char *weights = guard_alloc(c, rows * row_bytes);
    char *vectors = guard_alloc(c, toks * (layout.bytes + gap) - gap);
    fill_blocks(c, weights, p->format, rows * row_bytes / p->format->bytes, quants, scales);
    for (size_t t = 0; t < toks; t++) {
        fill_floats(c, x, cols, acts);
        c->ref->act_prepare[p->kernel->act].fn(vectors + t * (layout.bytes + gap), x, cols);
    }
    p->rows = rows;
    p->scratch = guard_alloc(c, kernels_scratch(c->table, cols));
    memset(p->scratch, 0xa5, kernels_scratch(c->table, cols));      /* as another product may have left it */
    p->job = (struct matmul_job){ .out_stride = rows + random_size(c, 0, 3), .weights = weights, .row_bytes = row_bytes,
                                  .cols = cols, .acts = vectors, .act_stride = layout.bytes + gap, .toks = toks };
    p->job.out = guard_alloc(c, ((toks - 1) * p->job.out_stride + rows) * sizeof(float));
    check_shape(c, "rows %zu cols %zu toks %zu, quants %s, scales %s, acts %s", rows, cols, toks, fill_names[quants],
                fill_names[scales], fill_names[acts]);
}

static void run(const struct product *p, const struct matmul_job *job, size_t begin, size_t end)
{
    p->kernel->matmul(job, begin, end, p->scratch);
}

static void compare(struct check *c, const struct product *p)
{
    const struct matmul_job *job = &p->job;
    double *value = malloc(job->cols * sizeof *value), *size = malloc(job->cols * sizeof *size);
    double *x = malloc(job->toks * job->cols * sizeof *x), factor = bound_factor(p->kernel->act, p->format, job->cols);
    for (size_t i = 0; i < job->toks * job->cols; i++)
        x[i] = act_value((const char *)job->acts + i / job->cols * job->act_stride, p->kernel->act, job->cols, i % job->cols);
    for (size_t r = 0; r < p->rows; r++) {
        expand_row(value, size, (const char *)job->weights + r * job->row_bytes, p->format, c->ref, job->cols);
        for (size_t t = 0; t < job->toks; t++) {
            double sum = 0, terms = 0;
            for (size_t i = 0; i < job->cols; i++) {
                sum += value[i] * x[t * job->cols + i];
                terms += size[i] * fabs(x[t * job->cols + i]);
            }
            check_value(c, t * job->out_stride + r, job->out[t * job->out_stride + r], sum,
                        terms * factor + (double)job->cols * FLT_MIN);
        }
    }
    for (size_t t = 0; t + 1 < job->toks; t++)
        check_untouched(c, job->out, t * job->out_stride + p->rows, (t + 1) * job->out_stride);
    free(value);
    free(size);
    free(x);
}

/* The same rows cut in two, into an output of its own: nothing outside the chunk is written, and the bits are the same, also with
 * the hints that an engine gives which takes the pieces one after the other; in one order of reading and multiplying. */
static void compare_chunks(struct check *c, const struct product *p, bool wide)
{
    struct matmul_job job = p->job;
    size_t cut = random_size(c, 0, p->rows), n = (job.toks - 1) * job.out_stride + p->rows;
    job.out = guard_alloc(c, n * sizeof(float));
    job.wide = wide;
    job.asked = true;
    run(p, &job, cut, p->rows);
    job.asked = false;
    job.rows_soon = p->rows - cut;
    job.kept = true;
    for (size_t t = 0; t < job.toks; t++)
        check_untouched(c, job.out, t * job.out_stride, t * job.out_stride + cut);
    run(p, &job, 0, cut);
    for (size_t t = 0; t < job.toks; t++)
        check_floats(c, job.out + t * job.out_stride, p->job.out + t * job.out_stride, p->rows);
}

/* `toks` tokens from the tok-th on give the bits that they got within the batch, in either order of reading and multiplying. */
static void compare_part(struct check *c, const struct product *p, size_t tok, size_t toks)
{
    struct matmul_job job = p->job;
    job.toks = toks;
    job.acts = (const char *)job.acts + tok * job.act_stride;
    job.out = guard_alloc(c, ((toks - 1) * job.out_stride + p->rows) * sizeof(float));
    for (int wide = 0; wide < 2; wide++) {
        job.wide = wide;
        run(p, &job, 0, p->rows);
        for (size_t t = 0; t < toks; t++)
            check_floats(c, job.out + t * job.out_stride, p->job.out + (tok + t) * p->job.out_stride, p->rows);
    }
}

static void one_product(struct check *c, struct product *p, size_t rows, size_t cols, size_t toks, enum fill quants,
                        enum fill scales, enum fill acts)
{
    prepare(c, p, rows, cols, toks, quants, scales, acts);
    run(p, &p->job, 0, rows);
    compare(c, p);
    compare_chunks(c, p, false);
    compare_chunks(c, p, true);
    compare_part(c, p, 0, toks);
    compare_part(c, p, random_size(c, 0, toks - 1), 1);
    guard_release(c);
}

/* Every batch from 2 to 33, every third to 63 and 64 to 67 (some kernels change their way above 48 and 64), against its tokens one
 * by one, in either order of reading and multiplying. */
enum { BATCH_SMALL = 33, BATCH_MIDDLE = 63, BATCH_MOST = 67 };

static size_t next_batch(size_t toks)
{
    return toks >= BATCH_SMALL && toks < BATCH_MIDDLE ? toks + 3 : toks + 1;
}

static void all_batches(struct check *c, struct product *p, size_t cols)
{
    size_t rows = p->kernel->tile + 3;
    prepare(c, p, rows, cols, BATCH_MOST, FILL_RANDOM, FILL_RANDOM, FILL_RANDOM);
    float *single = guard_alloc(c, BATCH_MOST * rows * sizeof *single);
    struct matmul_job job = p->job;
    job.out_stride = rows;
    job.toks = 1;
    for (size_t t = 0; t < BATCH_MOST; t++) {
        job.out = single + t * rows;
        job.acts = (const char *)p->job.acts + t * job.act_stride;
        run(p, &job, 0, rows);
    }
    job.out = guard_alloc(c, BATCH_MOST * rows * sizeof *single);
    for (job.toks = 2; job.toks <= BATCH_MOST; job.toks = next_batch(job.toks)) {
        size_t from = random_size(c, 0, BATCH_MOST - job.toks);
        job.acts = (const char *)p->job.acts + from * job.act_stride;
        check_shape(c, "rows %zu cols %zu: tokens one by one and %zu at once", rows, cols, job.toks);
        for (int wide = 0; wide < 2; wide++) {
            job.wide = wide;
            run(p, &job, 0, rows);
            check_floats(c, job.out, single + from * rows, job.toks * rows);
        }
    }
    guard_release(c);
}

/* A NaN in one activation, and a NaN or an Inf in one weight's scale, reach every result that they belong to, and no other. */
static void nan_is_seen(struct check *c, struct product *p, size_t cols, bool wide)
{
    size_t rows = p->kernel->tile + 1, toks = 5;
    prepare(c, p, rows, cols, toks, FILL_RANDOM, FILL_RANDOM, FILL_RANDOM);
    float *x = guard_alloc(c, cols * sizeof *x);
    fill_floats(c, x, cols, FILL_RANDOM);
    x[random_size(c, 0, cols - 1)] = NAN;
    c->ref->act_prepare[p->kernel->act].fn((char *)p->job.acts + 3 * p->job.act_stride, x, cols);
    check_shape(c, "rows %zu cols %zu toks %zu%s, NaN in token 3", rows, cols, toks, wide ? " wide" : "");
    p->job.wide = wide;
    run(p, &p->job, 0, rows);
    compare(c, p);
    guard_release(c);
    for (int inf = 0; inf < 2; inf++) {
        prepare(c, p, rows, cols, toks, FILL_RANDOM, FILL_RANDOM, FILL_RANDOM);
        size_t row = random_size(c, 0, rows - 1), block = random_size(c, 0, cols / p->format->block - 1);
        char *at = (char *)p->job.weights + row * p->job.row_bytes + block * p->format->bytes;
        p->job.wide = wide;
        if (spoil_scale(at, p->format, inf)) {
            check_shape(c, "rows %zu cols %zu toks %zu%s, %s in row %zu", rows, cols, toks, wide ? " wide" : "",
                        inf ? "Inf" : "NaN", row);
            run(p, &p->job, 0, rows);
            compare(c, p);
        }
        guard_release(c);
    }
}

static void check_matmul(struct check *c, const struct format *format, bool verbose)
{
    static const enum fill hard[][3] = {           /* quants, scales, activations */
        { FILL_MAX, FILL_RANDOM, FILL_MAX },       { FILL_MIN, FILL_MAX, FILL_MIN },         { FILL_MIN, FILL_MIN, FILL_MAX },
        { FILL_ALTERNATING, FILL_MAX, FILL_ALTERNATING }, { FILL_ZERO, FILL_RANDOM, FILL_RANDOM },
        { FILL_RANDOM, FILL_ZERO, FILL_RANDOM },   { FILL_RANDOM, FILL_RANDOM, FILL_ZERO },
        { FILL_RANDOM, FILL_TINY, FILL_RANDOM },
        { FILL_RANDOM, FILL_LARGE, FILL_RANDOM },  { FILL_MAX, FILL_LARGE, FILL_LARGE },     { FILL_RANDOM, FILL_TINY, FILL_TINY },
        { FILL_ONE_HOT, FILL_ONE_HOT, FILL_RANDOM }, { FILL_RANDOM, FILL_RANDOM, FILL_ONE_HOT }, { FILL_LARGE, FILL_MAX, FILL_MAX },
        { FILL_MAX, FILL_MAX, FILL_ALTERNATING },  { FILL_MAX, FILL_MIN, FILL_MAX },         { FILL_MAX, FILL_MAX, FILL_MIN },
        { FILL_RANDOM, FILL_RANDOM, FILL_RANDOM },
    };
    static const size_t batches[] = { 1, 2, 3, 4, 5, 7, 8, 16, 17, 32, 33 };
    static const size_t widths[] = { 1, 2, 3, 5, 7, 8, 13, 17 };           /* blocks */
    static const size_t narrow[] = { 1, 2, 7, 15, 16, 17, 31, 33, 64, 65, 255, 257, 521 };
    struct product p = { .format = format, .kernel = &c->table->matmul[format->id] };
    size_t tile = p.kernel->tile, heights[] = { 1, tile > 1 ? tile - 1 : 2, tile, tile + 1, 2 * tile, 37 };
    check_begin(c, "matmul", format->name);
    size_t turn = random_size(c, 0, 1000);
    for (size_t i = 0; i < sizeof hard / sizeof *hard; i++)
        for (size_t repeat = 0; repeat < 3; repeat++, turn++) {
            size_t rows = heights[turn % 6], toks = batches[turn % 11];
            size_t cols = format->block == 1 ? narrow[turn % 13] : widths[turn % (format->block > 64 ? 5 : 8)] * format->block;
            one_product(c, &p, rows, cols, toks, hard[i][0], hard[i][1], hard[i][2]);
        }
    size_t wide = 2 * (format->block > 16 ? format->block : 16);
    one_product(c, &p, 5, wide, 131, FILL_RANDOM, FILL_RANDOM, FILL_RANDOM);           /* beyond a kernel's own blocks of tokens */
    one_product(c, &p, 2, wide, 515, FILL_RANDOM, FILL_RANDOM, FILL_RANDOM);
    one_product(c, &p, 2 * tile + 9, wide, 6, FILL_RANDOM, FILL_RANDOM, FILL_RANDOM);  /* and of rows */
    /* two runs of 256 columns, and of small blocks also no whole one */
    const bool small = format->block <= 32;
    const size_t two_runs = small ? 512 : 2 * (size_t)format->block;
    all_batches(c, &p, two_runs);
    if (small)
        all_batches(c, &p, 96);
    for (int on = 0; on < 2; on++) {
        nan_is_seen(c, &p, two_runs, on);
        if (small)
            nan_is_seen(c, &p, 128, on);
    }
    check_finish(c, verbose);
}

size_t check_matmuls(struct check *c, const struct kernels *below, bool verbose)
{
    size_t slots = 0;
    for (uint32_t id = 0; id < FORMAT_COUNT; id++) {
        if (!c->table->matmul[id].matmul || (below && below->matmul[id].matmul == c->table->matmul[id].matmul))
            continue;
        check_matmul(c, format_find(id), verbose);
        slots++;
    }
    return slots;
}
