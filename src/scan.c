/* Search for values that are NaN or infinite, over all blocks of a tensor, in parallel and with the first place that has one.
 *
 * Every value is decoded: a block's scale may be finite and a product of scales still overflow. */
#include "scan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Values per chunk of work and per decoded piece: multiples of every format's block. A piece stays in L1. */
enum { CHUNK = 64 * 1024, PIECE = 2048 };

struct chunk { size_t bad_blocks, first_value; float value; };

struct work {
    const struct gguf_tensor *tensor;
    const struct format      *format;
    dequantize_fn            *dequantize;    /* NULL: F64 */
    size_t                    values;
    struct chunk             *chunks;
};

/* The engine does not run F64, but files may hold it; only whether a value is finite matters here. */
static void narrow_f64(float *out, const uint8_t *data, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double wide;
        memcpy(&wide, data + i * 8, 8);
        out[i] = isfinite(wide) ? 0.0f : isnan(wide) ? NAN : wide > 0 ? INFINITY : -INFINITY;
    }
}

/* Is any of x[0..n) NaN or infinite? The exponent's bits are all set in those only. */
static bool any_bad(const float *x, size_t n)
{
    uint32_t bad = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], 4);
        bad |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return bad != 0;
}

/* The slow path, taken for a piece that has something bad: which blocks, and the first value. */
static void note_bad(struct chunk *chunk, const float *x, size_t n, size_t at, size_t block)
{
    for (size_t b = 0; b < n; b += block) {
        if (!any_bad(x + b, block))
            continue;
        for (size_t i = b; chunk->bad_blocks == 0 && i < b + block; i++)
            if (!isfinite(x[i])) {
                chunk->first_value = at + i;
                chunk->value = x[i];
                break;
            }
        chunk->bad_blocks++;
    }
}

static void scan_chunk(void *arg, size_t index, size_t thread)
{
    const struct work *work = arg;
    float x[PIECE];
    size_t begin = index * CHUNK, end = work->values - begin < CHUNK ? work->values : begin + CHUNK;
    (void)thread;
    for (size_t at = begin; at < end; at += PIECE) {
        size_t n = end - at < PIECE ? end - at : PIECE;
        const uint8_t *data = work->tensor->data + at / work->format->block * work->format->bytes;
        if (work->dequantize)
            work->dequantize(x, data, n);
        else
            narrow_f64(x, data, n);
        if (any_bad(x, n))
            note_bad(&work->chunks[index], x, n, at, work->format->block);
    }
}

bool scan_tensor(struct scan *out, const struct gguf_tensor *t, const struct kernels *kernels, struct pool *pool,
                 struct quern_error *err)
{
    const struct format *format = format_find(t->type);
    struct work work = { .tensor = t, .format = format, .dequantize = kernels->dequantize[t->type].fn };
    *out = (struct scan){ .blocks = t->bytes / format->bytes };
    if (!work.dequantize && t->type != FORMAT_F64)
        return true;
    out->scanned = true;
    work.values = out->blocks * format->block;
    size_t chunks = (work.values - 1) / CHUNK + 1;
    work.chunks = mem_take(chunks, sizeof *work.chunks, "the scan's results", err);
    if (!work.chunks)
        return false;
    pool_run(pool, scan_chunk, &work, chunks);
    /* In order of the chunks, so that the first place named does not depend on which thread was faster. */
    for (size_t i = 0; i < chunks; i++) {
        if (work.chunks[i].bad_blocks && out->bad_blocks == 0) {
            out->first_value = work.chunks[i].first_value;
            out->first_block = out->first_value / format->block;
            out->value = work.chunks[i].value;
        }
        out->bad_blocks += work.chunks[i].bad_blocks;
    }
    free(work.chunks);
    return true;
}
