#include "tune_parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats.h"
#include "numbers.h"

bool tune_places(uint32_t format, size_t *scale, size_t *minimum)
{
    *minimum = SIZE_MAX;
    switch (format) {
    case FORMAT_Q4_0: case FORMAT_Q5_0: case FORMAT_Q8_0: case FORMAT_IQ4_NL: case FORMAT_IQ4_XS: case FORMAT_IQ1_S:
    case FORMAT_IQ2_XXS: case FORMAT_IQ2_XS: case FORMAT_IQ2_S: case FORMAT_IQ3_XXS: case FORMAT_IQ3_S:
        *scale = 0;
        return true;
    case FORMAT_Q4_1: case FORMAT_Q5_1: case FORMAT_Q4_K: case FORMAT_Q5_K:
        *scale = 0, *minimum = 2;
        return true;
    case FORMAT_Q2_K:
        *scale = 80, *minimum = 82;
        return true;
    case FORMAT_Q3_K: case FORMAT_Q6_K: case FORMAT_TQ1_0: case FORMAT_TQ2_0:   /* the block's last two bytes */
        *scale = format_find(format)->bytes - 2;
        return true;
    default:
        return false;
    }
}

/* ---- collecting -------------------------------------------------------------------------------------------------------- */

/* Matrices of the pass, and norms that stand as f32 in the file. Only tensors that some linear map or the embedding reads. */
static bool add_tensor(struct tune_parts *p, const struct gguf *g, uint8_t *bytes, const struct matrix *w, bool scales,
                       struct quern_error *err)
{
    const struct gguf_tensor *t = &g->tensors[w->tensor];
    struct tune_tensor *own = &p->tensor[w->tensor];
    const struct format *format = format_find(t->type);
    size_t scale, minimum;
    if (own->rows || !tune_places(t->type, &scale, &minimum))
        return true;
    if (w->slices != 1)
        return ERR(err, QUERN_EUNSUPPORTED, "tuning stacks of matrices is not supported");
    *own = (struct tune_tensor){
        .format = t->type, .data = bytes + (t->data - g->parts[0].data), .cols = t->shape[0], .rows = t->shape[1],
        .per_row = t->shape[0] / format->block, .row_bytes = t->shape[0] / format->block * format->bytes,
        .scale = SIZE_MAX, .minimum = SIZE_MAX };
    p->widest = own->cols > p->widest ? own->cols : p->widest;
    p->widest_bytes = own->row_bytes > p->widest_bytes ? own->row_bytes : p->widest_bytes;
    if (!scales)
        return true;
    own->scale = p->count;
    p->part[p->count++] = (struct tune_part){
        .kind = TUNE_SCALE, .at = own->data + scale, .n = own->rows * own->per_row, .step = format->bytes, .half = true };
    if (minimum != SIZE_MAX) {
        own->minimum = p->count;
        p->part[p->count++] = (struct tune_part){
            .kind = TUNE_MINIMUM, .at = own->data + minimum, .n = own->rows * own->per_row, .step = format->bytes, .half = true };
    }
    return true;
}

static void add_norm(struct tune_parts *p, const struct model *m, const struct gguf *g, uint8_t *bytes, size_t id,
                     const float *weight)
{
    const uint8_t *at = (const uint8_t *)weight;
    size_t n = backward_norm_width(m, id);
    p->norm_part[id] = SIZE_MAX;
    for (size_t i = 0; n && i < g->tensor_count; i++) {
        const struct gguf_tensor *t = &g->tensors[i];
        if (t->type == FORMAT_F32 && t->data == at && t->bytes == n * sizeof(float)) {
            p->norm_part[id] = p->count;
            p->part[p->count++] = (struct tune_part){
                .kind = TUNE_NORM, .at = bytes + (at - g->parts[0].data), .n = n, .step = sizeof(float) };
        }
    }
}

static float load(const struct tune_part *p, size_t i)
{
    uint16_t half;
    float    whole;
    if (!p->half) {
        memcpy(&whole, p->at + i * p->step, sizeof whole);
        return whole;
    }
    memcpy(&half, p->at + i * p->step, sizeof half);
    return f16_to_f32(half);
}

static void store(struct tune_part *p, size_t i, float value)
{
    if (!p->half) {
        memcpy(p->at + i * p->step, &value, sizeof value);
        return;
    }
    uint16_t half = f32_to_f16(fminf(fmaxf(value, -65504), 65504));
    memcpy(p->at + i * p->step, &half, sizeof half);
}

/* Norm weights near zero move like the largest of their norm; scales move in proportion. */
static void read_values(struct tune_part *p)
{
    float largest = 0;
    for (size_t i = 0; i < p->n; i++) {
        p->value[i] = p->best[i] = load(p, i);
        p->unit[i] = fabsf(p->value[i]);
        largest = fmaxf(largest, p->unit[i]);
    }
    for (size_t i = 0; p->kind == TUNE_NORM && i < p->n; i++)
        p->unit[i] = largest;
}

static bool take_arrays(struct tune_parts *p, struct quern_error *err)
{
    enum { ARRAYS = 6 };
    size_t total = 0;
    for (size_t i = 0; i < p->count; i++)
        if (!checked_add(&total, total, p->part[i].n))
            return ERR(err, QUERN_EMEM, "too many parameters");
    if (!checked_mul(&total, total, ARRAYS))
        return ERR(err, QUERN_EMEM, "too many parameters");
    float *at = p->held = mem_take(total, sizeof(float), "the parameters", err);
    for (size_t i = 0; at && i < p->count; i++) {
        struct tune_part *part = &p->part[i];
        float **arrays[ARRAYS] = { &part->value, &part->unit, &part->gradient, &part->mean, &part->square, &part->best };
        for (size_t k = 0; k < ARRAYS; k++, at += part->n)
            *arrays[k] = at;
        read_values(part);
    }
    return at != NULL;
}

bool tune_parts_possible(const struct model *m, struct quern_error *err)
{
    return m->hyper.experts == 0 || ERR(err, QUERN_EUNSUPPORTED, "mixtures of experts cannot be tuned yet");
}

bool tune_parts_init(struct tune_parts *p, const struct model *m, uint8_t *bytes, const struct gguf *g, bool scales, bool norms,
                     struct quern_error *err)
{
    size_t linears = m->hyper.layers * LINEAR_KINDS + 1, norm_count = m->hyper.layers * NORM_KINDS + 1;
    *p = (struct tune_parts){ .tensor_count = g->tensor_count };
    if (!tune_parts_possible(m, err))
        return false;
    p->tensor = mem_take(g->tensor_count, sizeof *p->tensor, "the parameters", err);
    p->part = p->tensor ? mem_take(2 * g->tensor_count + norm_count, sizeof *p->part, "the parameters", err) : NULL;
    p->norm_part = p->part ? mem_take(norm_count, sizeof *p->norm_part, "the parameters", err) : NULL;
    bool ok = p->norm_part && add_tensor(p, g, bytes, &m->embed, scales, err);
    for (size_t id = 0; ok && id < linears; id++)
        ok = add_tensor(p, g, bytes, backward_matrix(m, id), scales, err);
    for (size_t id = 0; ok && id < norm_count; id++) {
        p->norm_part[id] = SIZE_MAX;
        if (norms)
            add_norm(p, m, g, bytes, id, backward_norm(m, id));
    }
    if (ok && take_arrays(p, err))
        return true;
    tune_parts_free(p);
    return false;
}

bool tune_parts_codes(struct tune_parts *p, const struct gguf *original, const struct gguf *g, const struct kernels *kernels,
                      struct pool *pool, struct quern_error *err)
{
    for (size_t i = 0; i < p->tensor_count; i++) {
        struct tune_tensor *t = &p->tensor[i];
        if (!t->rows)
            continue;
        char name[64];
        snprintf(name, sizeof name, "%.*s", (int)g->tensors[i].name.n, g->tensors[i].name.text);
        const struct gguf_tensor *source = gguf_find_tensor(original, name);
        if (!source || source->shape[0] != t->cols || source->shape[1] != t->rows)
            return ERR(err, QUERN_EFORMAT, "the original has no tensor '%s' of %zu x %zu", name, t->cols, t->rows);
        if (!tune_codes_init(&t->codes, t->format, t->data, t->rows, t->cols, source->data, source->type, kernels, pool, err))
            return false;
    }
    return true;
}

void tune_parts_free(struct tune_parts *p)
{
    for (size_t i = 0; p->tensor && i < p->tensor_count; i++)
        tune_codes_free(&p->tensor[i].codes);
    free(p->part);
    free(p->tensor);
    free(p->norm_part);
    free(p->held);
    memset(p, 0, sizeof *p);
}

/* ---- gradients --------------------------------------------------------------------------------------------------------- */

void tune_unit_row(float *out, uint8_t *blocks, const struct tune_tensor *t, size_t row, bool minimum,
                   const struct kernels *kernels)
{
    static const uint16_t one = 0x3c00, zero = 0;   /* halves */
    size_t bytes = format_find(t->format)->bytes, scale = 0, least;
    memcpy(blocks, t->data + row * t->row_bytes, t->row_bytes);
    tune_places(t->format, &scale, &least);
    for (size_t i = 0; i < t->per_row; i++) {
        memcpy(blocks + i * bytes + scale, minimum ? &zero : &one, sizeof one);
        if (least != SIZE_MAX)
            memcpy(blocks + i * bytes + least, minimum ? &one : &zero, sizeof one);
    }
    kernels->dequantize[t->format].fn(out, blocks, t->cols);
}

static void add_blocks(float *to, size_t per_row, size_t cols, const float *unit, const float *gradient, float factor)
{
    size_t block = cols / per_row;
    for (size_t i = 0; i < per_row; i++) {
        float sum = 0;
        for (size_t k = 0; k < block; k++)
            sum += unit[i * block + k] * gradient[i * block + k];
        to[i] += factor * sum;
    }
}

void tune_add_row(struct tune_parts *p, const struct tune_tensor *t, size_t row, const float *gradient, float factor,
                  uint8_t *blocks, float *unit, const struct kernels *kernels)
{
    for (size_t i = 0; t->codes.position && i < t->cols; i++)
        t->codes.gradient[row * t->cols + i] += factor * gradient[i];
    if (t->scale != SIZE_MAX) {
        tune_unit_row(unit, blocks, t, row, false, kernels);
        add_blocks(p->part[t->scale].gradient + row * t->per_row, t->per_row, t->cols, unit, gradient, factor);
    }
    if (t->minimum != SIZE_MAX) {
        tune_unit_row(unit, blocks, t, row, true, kernels);
        add_blocks(p->part[t->minimum].gradient + row * t->per_row, t->per_row, t->cols, unit, gradient, factor);
    }
}

/* ---- steps ------------------------------------------------------------------------------------------------------------- */

void tune_parts_clear(struct tune_parts *p)
{
    for (size_t i = 0; i < p->count; i++)
        memset(p->part[i].gradient, 0, p->part[i].n * sizeof(float));
    for (size_t i = 0; i < p->tensor_count; i++)
        if (p->tensor[i].codes.position)
            memset(p->tensor[i].codes.gradient, 0, p->tensor[i].rows * p->tensor[i].cols * sizeof(float));
}

/* The gradient by a parameter measured in its units is gradient * unit; Adam's ratio makes the step free of that factor, so only
 * the step itself carries it. */
bool tune_parts_step(struct tune_parts *p, const double rate[TUNE_KINDS], const struct kernels *kernels, struct pool *pool,
                     struct quern_error *err)
{
    const float first = 0.9f, second = 0.99f;
    for (size_t i = 0; i < p->tensor_count; i++)
        if (p->tensor[i].codes.position && !tune_codes_step(&p->tensor[i].codes, rate[TUNE_CODE], p->step, kernels, pool, err))
            return false;
    p->step++;
    double mean_share = 1 - pow(first, (double)p->step), square_share = 1 - pow(second, (double)p->step);
    for (size_t i = 0; i < p->count; i++) {
        struct tune_part *part = &p->part[i];
        float step = (float)(rate[part->kind] / mean_share), divisor = (float)(1 / sqrt(square_share));
        for (size_t k = 0; k < part->n; k++) {
            float g = part->gradient[k];
            part->mean[k] = first * part->mean[k] + (1 - first) * g;
            part->square[k] = second * part->square[k] + (1 - second) * g * g;
            if (part->square[k] > 0 && part->unit[k] > 0) {
                part->value[k] -= step * part->unit[k] * part->mean[k] / (sqrtf(part->square[k]) * divisor);
                store(part, k, part->value[k]);
            }
        }
    }
    return true;
}

void tune_parts_keep(struct tune_parts *p)
{
    for (size_t i = 0; i < p->count; i++)
        memcpy(p->part[i].best, p->part[i].value, p->part[i].n * sizeof(float));
    for (size_t i = 0; i < p->tensor_count; i++)
        if (p->tensor[i].codes.position)
            memcpy(p->tensor[i].codes.best, p->tensor[i].data, p->tensor[i].rows * p->tensor[i].row_bytes);
}

void tune_parts_recall(struct tune_parts *p)
{
    for (size_t i = 0; i < p->tensor_count; i++)
        if (p->tensor[i].codes.position)
            memcpy(p->tensor[i].data, p->tensor[i].codes.best, p->tensor[i].rows * p->tensor[i].row_bytes);
    for (size_t i = 0; i < p->count; i++) {
        memcpy(p->part[i].value, p->part[i].best, p->part[i].n * sizeof(float));
        for (size_t k = 0; k < p->part[i].n; k++)
            store(&p->part[i], k, p->part[i].value[k]);
    }
}
