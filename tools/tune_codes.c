#include "tune_codes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"

/* ---- bits -------------------------------------------------------------------------------------------------------------- */

/* Where value i of a block has its code. `codes` and `bits`: where the low and the high parts of blocks of 32 begin. */
static struct code_place place_of(uint32_t format, size_t i)
{
    size_t half = i / 128, in = i % 128;
    switch (format) {
    case FORMAT_Q4_0: case FORMAT_IQ4_NL: case FORMAT_Q4_1: case FORMAT_Q5_0: case FORMAT_Q5_1: {
        size_t codes = format == FORMAT_Q4_1 ? 4 : format == FORMAT_Q5_0 ? 6 : format == FORMAT_Q5_1 ? 8 : 2;
        size_t bits = format == FORMAT_Q5_0 ? 2 : 4;
        return (struct code_place){ (uint8_t)(codes + i % 16), (uint8_t)(i / 16 * 4), (uint8_t)(bits + i / 8), (uint8_t)(i % 8) };
    }
    case FORMAT_IQ4_XS:
        return (struct code_place){ .low = (uint8_t)(8 + i / 32 * 16 + i % 16), .low_shift = (uint8_t)(i % 32 / 16 * 4) };
    case FORMAT_Q2_K:
        return (struct code_place){ .low = (uint8_t)(16 + half * 32 + in % 32), .low_shift = (uint8_t)(in / 32 * 2) };
    case FORMAT_Q3_K:
        return (struct code_place){ (uint8_t)(32 + half * 32 + in % 32), (uint8_t)(in / 32 * 2), (uint8_t)(i % 32),
                                    (uint8_t)(i / 32) };
    case FORMAT_Q6_K:
        return (struct code_place){ (uint8_t)(half * 64 + in % 64), (uint8_t)(in / 64 * 4), (uint8_t)(128 + half * 32 + in % 32),
                                    (uint8_t)(in / 32 * 2) };
    default:    /* Q4_K, Q5_K */
        return (struct code_place){ (uint8_t)((format == FORMAT_Q4_K ? 16 : 48) + i / 64 * 32 + i % 32), (uint8_t)(i % 64 / 32 * 4),
                                    (uint8_t)(16 + i % 32), (uint8_t)(i / 32) };
    }
}

bool code_layout_of(struct code_layout *layout, uint32_t format)
{
    memset(layout, 0, sizeof *layout);
    switch (format) {
    case FORMAT_Q2_K: layout->low_bits = 2; break;
    case FORMAT_Q3_K: layout->low_bits = 2, layout->high_bits = 1; break;
    case FORMAT_Q4_0: case FORMAT_Q4_1: case FORMAT_Q4_K: case FORMAT_IQ4_NL: case FORMAT_IQ4_XS: layout->low_bits = 4; break;
    case FORMAT_Q5_0: case FORMAT_Q5_1: case FORMAT_Q5_K: layout->low_bits = 4, layout->high_bits = 1; break;
    case FORMAT_Q6_K: layout->low_bits = 4, layout->high_bits = 2; break;
    default: return false;
    }
    layout->levels = (size_t)1 << (layout->low_bits + layout->high_bits);
    for (size_t i = 0; i < format_find(format)->block; i++)
        layout->place[i] = place_of(format, i);
    return true;
}

unsigned code_get(const struct code_layout *layout, const uint8_t *block, size_t i)
{
    struct code_place p = layout->place[i];
    unsigned low = (unsigned)block[p.low] >> p.low_shift & ((1u << layout->low_bits) - 1);
    unsigned high = (unsigned)block[p.high] >> p.high_shift & ((1u << layout->high_bits) - 1);
    return low | high << layout->low_bits;
}

void code_put(const struct code_layout *layout, uint8_t *block, size_t i, unsigned code)
{
    struct code_place p = layout->place[i];
    unsigned low = (1u << layout->low_bits) - 1, high = (1u << layout->high_bits) - 1;
    block[p.low] = (uint8_t)((block[p.low] & ~(low << p.low_shift)) | (code & low) << p.low_shift);
    if (layout->high_bits)
        block[p.high] = (uint8_t)((block[p.high] & ~(high << p.high_shift)) | (code >> layout->low_bits) << p.high_shift);
}

/* ---- rows -------------------------------------------------------------------------------------------------------------- */

enum { CHUNK_ROWS = 16 };

struct rows_stage {
    struct tune_codes    *c;
    const struct kernels *kernels;
    const uint8_t *original;          /* beginning: the original's tensor */
    uint32_t       original_format;
    size_t         original_row;      /* bytes */
    float          rate, divisor;     /* a step's */
    float         *values;            /* per thread 3 rows */
    uint8_t       *blocks;            /* per thread a row  */
};

/* What a row would be if all its codes were `code`. */
static void level_row(float *out, uint8_t *blocks, const struct rows_stage *s, size_t row, unsigned code)
{
    const struct tune_codes *c = s->c;
    const struct format *format = format_find(c->format);
    memcpy(blocks, c->data + row * c->row_bytes, c->row_bytes);
    for (size_t i = 0; i < c->cols; i++)
        code_put(&c->layout, blocks + i / format->block * format->bytes, i % format->block, code);
    s->kernels->dequantize[c->format].fn(out, blocks, c->cols);
}

/* Where the original's value lies among the levels, as near to the code in the file as rounds to it. Levels are gone through from
 * below; a block whose scale is negative has them falling, which the test of both sides covers. */
static void begin_row(const struct rows_stage *s, size_t row, float *values, uint8_t *blocks)
{
    struct tune_codes *c = s->c;
    const struct format *format = format_find(c->format);
    float *x = values, *below = values + c->cols, *above = below + c->cols, *position = c->position + row * c->cols;
    s->kernels->dequantize[s->original_format].fn(x, s->original + row * s->original_row, c->cols);
    level_row(below, blocks, s, row, 0);
    for (size_t i = 0; i < c->cols; i++)
        position[i] = NAN;
    for (unsigned code = 1; code < c->layout.levels; code++) {
        level_row(above, blocks, s, row, code);
        for (size_t i = 0; i < c->cols; i++) {
            float share = above[i] != below[i] ? (x[i] - below[i]) / (above[i] - below[i]) : 0.5f;
            bool last = code + 1 == c->layout.levels;
            if (isnan(position[i]) && (share <= 1 || last))
                position[i] = (float)(code - 1) + share;
        }
        memcpy(below, above, c->cols * sizeof *below);
    }
    for (size_t i = 0; i < c->cols; i++) {
        const uint8_t *block = c->data + row * c->row_bytes + i / format->block * format->bytes;
        float code = (float)code_get(&c->layout, block, i % format->block);
        position[i] = fminf(fmaxf(position[i], code - 0.49f), code + 0.49f);
    }
}

static void step_row(const struct rows_stage *s, size_t row, float *values, uint8_t *blocks)
{
    const float first = 0.9f, second = 0.99f;
    struct tune_codes *c = s->c;
    const struct format *format = format_find(c->format);
    float *below = values, *above = values + c->cols, most = (float)(c->layout.levels - 1) + 0.49f;
    uint8_t *data = c->data + row * c->row_bytes;
    level_row(below, blocks, s, row, (unsigned)c->layout.levels / 2 - 1);
    level_row(above, blocks, s, row, (unsigned)c->layout.levels / 2);
    for (size_t i = 0; i < c->cols; i++) {
        size_t at = row * c->cols + i;
        float g = c->gradient[at] * (above[i] - below[i]);
        c->mean[at] = first * c->mean[at] + (1 - first) * g;
        c->square[at] = second * c->square[at] + (1 - second) * g * g;
        if (c->square[at] <= 0)
            continue;
        float moved = c->position[at] - s->rate * c->mean[at] / (sqrtf(c->square[at]) * s->divisor);
        c->position[at] = fminf(fmaxf(moved, -0.49f), most);
        code_put(&c->layout, data + i / format->block * format->bytes, i % format->block, (unsigned)(c->position[at] + 0.5f));
    }
}

static void rows_chunk(void *arg, size_t index, size_t thread)
{
    const struct rows_stage *s = arg;
    size_t from = index * CHUNK_ROWS, to = from + CHUNK_ROWS < s->c->rows ? from + CHUNK_ROWS : s->c->rows;
    float *values = s->values + thread * 3 * s->c->cols;
    uint8_t *blocks = s->blocks + thread * s->c->row_bytes;
    for (size_t row = from; row < to; row++)
        if (s->original)
            begin_row(s, row, values, blocks);
        else
            step_row(s, row, values, blocks);
}

static bool run_rows(struct rows_stage *s, struct pool *pool, struct quern_error *err)
{
    size_t threads = pool_threads(pool);
    s->values = mem_take(threads * 3 * s->c->cols, sizeof *s->values, "tuning", err);
    s->blocks = s->values ? mem_take(threads, s->c->row_bytes, "tuning", err) : NULL;
    if (s->blocks)
        pool_run(pool, rows_chunk, s, (s->c->rows + CHUNK_ROWS - 1) / CHUNK_ROWS);
    bool ok = s->blocks != NULL;
    free(s->values);
    free(s->blocks);
    return ok;
}

/* ---- tensors ------------------------------------------------------------------------------------------------------------ */

bool tune_codes_init(struct tune_codes *c, uint32_t format, uint8_t *data, size_t rows, size_t cols, const uint8_t *original,
                     uint32_t original_format, const struct kernels *kernels, struct pool *pool, struct quern_error *err)
{
    size_t n;
    memset(c, 0, sizeof *c);
    if (!code_layout_of(&c->layout, format))
        return true;
    c->format = format, c->data = data, c->rows = rows, c->cols = cols;
    struct rows_stage s = { .c = c, .kernels = kernels, .original = original, .original_format = original_format };
    format_row_bytes(&c->row_bytes, format_find(format), cols);
    format_row_bytes(&s.original_row, format_find(original_format), cols);
    if (!checked_mul(&n, rows, cols) || !checked_mul(&n, n, 4))
        return ERR(err, QUERN_EMEM, "codes of %zu x %zu values", rows, cols);
    c->position = mem_take(n, sizeof *c->position, "the positions of codes", err);
    c->best = c->position ? mem_take(rows, c->row_bytes, "the codes", err) : NULL;
    if (!c->best)
        return false;
    n /= 4;
    c->gradient = c->position + n, c->mean = c->gradient + n, c->square = c->mean + n;
    memcpy(c->best, data, rows * c->row_bytes);
    return run_rows(&s, pool, err);
}

void tune_codes_free(struct tune_codes *c)
{
    free(c->position);
    free(c->best);
    memset(c, 0, sizeof *c);
}

bool tune_codes_step(struct tune_codes *c, double rate, size_t count, const struct kernels *kernels, struct pool *pool,
                     struct quern_error *err)
{
    double mean_share = 1 - pow(0.9, (double)count + 1), square_share = 1 - pow(0.99, (double)count + 1);
    struct rows_stage s = { .c = c, .kernels = kernels, .rate = (float)(rate / mean_share),
                            .divisor = (float)(1 / sqrt(square_share)) };
    return run_rows(&s, pool, err);
}

size_t tune_codes_changed(const struct tune_codes *c, const uint8_t *then)
{
    const struct format *format = format_find(c->format);
    size_t changed = 0;
    for (size_t row = 0; row < c->rows; row++)
        for (size_t i = 0; i < c->cols; i++) {
            size_t at = row * c->row_bytes + i / format->block * format->bytes;
            changed += code_get(&c->layout, c->data + at, i % format->block) != code_get(&c->layout, then + at, i % format->block);
        }
    return changed;
}
