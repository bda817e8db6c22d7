#include "rounding.h"

#include "lanes.h"
#include "rounding_grid.h"

/* Some two dozen rows, looked through once per row of weights (and once per tensor by error feedback): a search costs thousands of
 * times as much. */
const struct encoder *encoder_find(uint32_t format)
{
    for (size_t i = 0; i < encoders_block32_count; i++)
        if (encoders_block32[i].format == format)
            return &encoders_block32[i];
    for (size_t i = 0; i < encoders_super_count; i++)
        if (encoders_super[i].format == format)
            return &encoders_super[i];
    for (size_t i = 0; i < encoders_grid_count; i++)
        if (encoders_grid[i].format == format)
            return &encoders_grid[i];
    for (size_t i = 0; i < encoders_ternary_count; i++)
        if (encoders_ternary[i].format == format)
            return &encoders_ternary[i];
    return NULL;
}

bool rounding_supports(uint32_t format)
{
    return format == FORMAT_F32 || format == FORMAT_F16 || format == FORMAT_BF16 || encoder_find(format);
}

/* Values and weights as the searches want them: weights with mean 1 and a floor, so that no sub-block is without weight; values
 * whose squares stay finite (MXFP4, which has float's whole range, sees them as they are). */
static void prepare(float *x, float *w, const float *from, const float *weight, const struct encoder *e)
{
    double sum = 0;
    for (uint32_t i = 0; i < e->block; i++) {
        x[i] = from[i];
        if (e->format != FORMAT_MXFP4)
            x[i] = fabsf(x[i]) < 1e-15f ? 0 : x[i] > 1e9f ? 1e9f : x[i] < -1e9f ? -1e9f : x[i];
        sum += weight ? (double)weight[i] : 1;
    }
    /* Importances have any unit; the searches' tolerances want weights around 1. The floor keeps sums_error's divisions sound. */
    double mean = sum / e->block;
    for (uint32_t i = 0; i < e->block; i++)
        w[i] = weight && mean > 0 ? fmaxf((float)(weight[i] / mean), 1e-5f) : 1;
}

void rounding_search(const struct rounding *rounding, const struct encoder *e, struct block_code *code, const float *x,
                     const float *weight)
{
    float values[SUPER], weights[SUPER];
    /* What a format does not use is zero, so that equal decisions are equal bytes. */
    memset(code, 0, sizeof *code);
    prepare(values, weights, x, weight, e);
    search_fn *search = e->search ? e->search : rounding->lanes->search[e->format];
    search(rounding, code, values, weights, weight ? EFFORT_FINE : EFFORT_QUICK);
}

void rounding_row(const struct rounding *rounding, uint32_t format, void *blocks, const float *x, const float *weight, size_t n)
{
    uint8_t *out = blocks;
    if (format == FORMAT_F32) {
        memcpy(out, x, n * sizeof *x);
        return;
    }
    if (format == FORMAT_F16 || format == FORMAT_BF16) {
        for (size_t i = 0; i < n; i++)
            store_u16(out + 2 * i, format == FORMAT_F16 ? half_bits(x[i]) : f32_to_bf16(x[i]));
        return;
    }
    const struct encoder *e = encoder_find(format);
    size_t bytes = format_find(format)->bytes;
    for (size_t i = 0; i < n; i += e->block, out += bytes) {
        struct block_code code;
        rounding_search(rounding, e, &code, x + i, weight ? weight + i : NULL);
        e->pack(out, &code);
    }
}

void rounding_weigh(float *weight, const float *x, const float *importance, size_t n, enum rounding_weights rule)
{
    for (size_t from = 0; from < n; from += SUPER) {
        size_t to = from + SUPER < n ? from + SUPER : n;
        /* The mean is that of a super-block whatever the format, so that one rule serves all of a file's types. */
        double square = 0;
        for (size_t i = from; i < to; i++)
            square += (double)x[i] * x[i];
        float mean = (float)(square / (double)(to - from));
        for (size_t i = from; i < to; i++) {
            weight[i] = importance ? importance[i] : 1;
            if (rule == ROUNDING_GUARDED)
                weight[i] *= sqrtf(mean + x[i] * x[i]);
        }
    }
}
