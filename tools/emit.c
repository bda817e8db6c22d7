#include "emit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Values that are converted at once: a multiple of every block size, small enough for the first-level cache with its two copies. */
enum { PIECE = 4096, COPY_BYTES = 4 << 20 };

/* Largest finite value that rounds to a finite F16: halfway to 65536 is the first that does not. */
#define F16_BEYOND 65520.0f

struct buffers {
    _Alignas(64) float   values[PIECE];
    _Alignas(64) uint8_t blocks[PIECE * 4];
};

static size_t row_values(const struct emit_tensor *t)
{
    return t->head_rows && t->dims == 1 ? 1 : t->shape[0];
}

static size_t elements(const struct emit_tensor *t)
{
    return t->shape[0] * t->shape[1] * t->shape[2] * t->shape[3];
}

bool emit_bytes(const struct emit_tensor *t, size_t *out)
{
    const struct format *format = format_find(t->type);
    size_t bytes;
    if (!format || !format_row_bytes(&bytes, format, t->shape[0]))
        return false;
    for (int i = 1; i < 4; i++)
        if (!checked_mul(&bytes, bytes, t->shape[i]))
            return false;
    *out = bytes;
    return true;
}

bool emit_possible(const struct emit_tensor *t, uint32_t type, const struct kernels *kernels)
{
    const struct format *format = format_find(type);
    if (!format || t->shape[0] % format->block)
        return false;
    if (type == t->source_type && t->shift == 0)
        return true;
    return kernels->dequantize[t->source_type].fn && (type == FORMAT_F32 || kernels->quantize[type].fn);
}

bool emit_describe(const struct emit_tensor *t, struct gguf_writer *w, struct quern_error *err)
{
    struct gguf_tensor out = { .name = { t->name, strlen(t->name) }, .type = t->type, .dims = t->dims };
    memcpy(out.shape, t->shape, sizeof out.shape);
    if (!emit_bytes(t, &out.bytes))
        return ERR(err, QUERN_EFORMAT, "tensor '%s' does not divide into blocks of %s, or is too large", t->name,
                   format_find(t->type) ? format_find(t->type)->name : "an unknown type");
    return gguf_writer_tensor(w, &out, err);
}

/* What a type cannot hold is an error, what it can and should not have is counted. `at`: index of values[0] in the tensor. */
static bool check_values(const struct emit_tensor *t, const float *values, size_t n, size_t at, struct emit_report *report,
                         struct quern_error *err)
{
    bool quantized = format_find(t->type)->block > 1, half = t->type == FORMAT_F16;
    char name[160];
    text_escape(name, sizeof name, t->name, strlen(t->name));
    for (size_t i = 0; i < n; i++) {
        bool finite = isfinite(values[i]);
        if (finite && !(half && fabsf(values[i]) >= F16_BEYOND))
            continue;
        size_t where = at + i;
        if (finite)
            return ERR(err, QUERN_EFAIL, "tensor '%s', row %zu, column %zu: %g does not fit F16 (largest: 65504); bf16 and f32 can "
                       "hold it",
                       name, where / t->shape[0], where % t->shape[0], (double)values[i]);
        if (quantized)
            return ERR(err, QUERN_EFAIL, "tensor '%s', row %zu, column %zu is %s, which %s cannot hold", t->name,
                       where / t->shape[0], where % t->shape[0], isnan(values[i]) ? "NaN" : "infinite", format_find(t->type)->name);
        report->odd++;
    }
    return true;
}

static bool tick(struct emit_report *report, size_t bytes, struct quern_error *err)
{
    if (report->tick && !report->tick(report->arg, bytes))
        return ERR(err, QUERN_EINTERRUPT, "interrupted");
    return true;
}

/* The bytes as they are, in steps between which one may stop. */
static bool copy_run(const uint8_t *source, size_t bytes, struct gguf_writer *w, struct emit_report *report,
                     struct quern_error *err)
{
    for (size_t done = 0; done < bytes;) {
        size_t take = bytes - done < COPY_BYTES ? bytes - done : COPY_BYTES;
        if (!gguf_writer_data(w, source + done, take, err) || !tick(report, take, err))
            return false;
        done += take;
    }
    return true;
}

/* `n` values from `source` (their own first byte) to the writer. */
static bool emit_run(const struct emit_tensor *t, const struct kernels *kernels, struct buffers *b, const uint8_t *source, size_t n,
                     size_t at, struct gguf_writer *w, struct emit_report *report, struct quern_error *err)
{
    const struct format *from = format_find(t->source_type), *to = format_find(t->type);
    if (from == to && t->shift == 0)
        return copy_run(source, n / from->block * from->bytes, w, report, err);
    for (size_t done = 0; done < n;) {
        size_t take = n - done < PIECE ? n - done : PIECE;
        kernels->dequantize[from->id].fn(b->values, source + done / from->block * from->bytes, take);
        for (size_t i = 0; t->shift != 0 && i < take; i++)
            b->values[i] += t->shift;
        if (!check_values(t, b->values, take, at + done, report, err))
            return false;
        const void *out = b->values;
        if (to->id != FORMAT_F32) {
            kernels->quantize[to->id].fn(b->blocks, b->values, take);
            out = b->blocks;
        }
        if (!gguf_writer_data(w, out, take / to->block * to->bytes, err) || !tick(report, take / from->block * from->bytes, err))
            return false;
        done += take;
    }
    return true;
}

/* Row of the source that becomes row `r`. */
static size_t source_row(const struct emit_tensor *t, size_t r)
{
    if (!t->head_rows)
        return r;
    size_t in = r % t->head_rows;
    return r - in + in % 2 * (t->head_rows / 2) + in / 2;
}

bool emit_data(const struct emit_tensor *t, const struct kernels *kernels, struct gguf_writer *w, struct emit_report *report,
               struct quern_error *err)
{
    struct buffers *b = mem_take_aligned(1, sizeof *b, "the conversion's buffers", err);
    if (!b)
        return false;
    const struct format *from = format_find(t->source_type);
    size_t slice = elements(t) / t->slice_count, row = row_values(t), at = 0;
    /* Rows that stay in order are one long run: rows end where blocks end. */
    size_t run = t->head_rows ? row : slice;
    size_t run_bytes = run / from->block * from->bytes;
    bool ok = true;
    for (size_t s = 0; s < t->slice_count && ok; s++)
        for (size_t r = 0; r < (run ? slice / run : 0) && ok; r++) {
            ok = emit_run(t, kernels, b, t->slices[s] + source_row(t, r) * run_bytes, run, at, w, report, err);
            at += run;
        }
    free(b);
    return ok;
}
