/* Decoding, encoding and preparing activations: EXACT, so compared byte for byte with the reference. */
#include "kernels_check.h"

#include "numbers.h"

#include <math.h>
#include <string.h>

static void check_dequantize(struct check *c, const struct format *format, bool verbose)
{
    static const size_t counts[] = { 1, 2, 3, 5, 7, 8, 9, 16, 17, 31, 33, 65 };
    check_begin(c, "dequantize", format->name);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        for (enum fill quants = 0; quants < FILL_KINDS; quants++) {
            size_t blocks = counts[i], n = blocks * format->block;
            enum fill scales = (enum fill)((quants + i) % FILL_KINDS);
            void *packed = guard_alloc(c, blocks * format->bytes);
            float *got = guard_alloc(c, n * sizeof *got), *expected = guard_alloc(c, n * sizeof *got);
            float *pieces = guard_alloc(c, n * sizeof *got);
            fill_blocks(c, packed, format, blocks, quants, scales);
            if (i % 3 == 2 && quants == FILL_RANDOM)          /* any bytes at all: NaN and Inf scales too */
                for (size_t b = 0; b < blocks * format->bytes; b++)
                    ((unsigned char *)packed)[b] = (unsigned char)random_u64(&c->random);
            check_shape(c, "%zu blocks, quants %s, scales %s", blocks, fill_names[quants], fill_names[scales]);
            c->ref->dequantize[format->id].fn(expected, packed, n);
            c->table->dequantize[format->id].fn(got, packed, n);
            check_floats(c, got, expected, n);
            for (size_t b = 0; b < blocks; b++)
                c->table->dequantize[format->id].fn(pieces + b * format->block, (char *)packed + b * format->bytes, format->block);
            check_floats(c, pieces, expected, n);
            guard_release(c);
        }
    check_finish(c, verbose);
}

/* Floats that rounding finds hard, over what fill_floats has. */
static void hard_floats(struct check *c, float *x, size_t n, size_t kind)
{
    fill_floats(c, x, n, (enum fill)(kind % FILL_KINDS));
    size_t at = n ? random_size(c, 0, n - 1) : 0;
    switch (kind / FILL_KINDS) {
    case 1:                                               /* ties: multiples of 1/2 below a largest of 127 */
        for (size_t i = 0; i < n; i++)
            x[i] = (float)random_size(c, 0, 508) / 2 - 127;
        x[at] = 127;
        break;
    case 2: x[at] = NAN; break;
    case 3: x[at] = -INFINITY; break;
    case 4:                                               /* any bits */
        for (size_t i = 0; i < n; i++)
            x[i] = float_from_bits((uint32_t)random_u64(&c->random));
        break;
    case 5:                                               /* subnormal, and around the smallest normal */
        for (size_t i = 0; i < n; i++)
            x[i] = float_from_bits((uint32_t)random_u64(&c->random) & 0x80ffffff);
        break;
    case 6:                                               /* the smallest largest value that is no zero block, and just below */
        for (size_t i = 0; i < n; i++)
            x[i] = random_float(&c->random, -1, 1) * 0x1p-101f;
        x[at] = random_u64(&c->random) % 2 ? 0x1p-100f : nextafterf(0x1p-100f, 0);
        break;
    case 7:                                               /* around f16's borders: subnormals, ties, the edge to Inf */
        for (size_t i = 0; i < n; i++) {
            uint16_t h = (uint16_t)random_u64(&c->random) & 0xfbff;
            float middle = (f16_to_f32(h) + f16_to_f32(h + 1)) / 2;
            x[i] = random_u64(&c->random) % 2 ? middle : nextafterf(middle, random_u64(&c->random) % 2 ? INFINITY : -INFINITY);
        }
        x[at] = 65520;
        break;
    case 8:                                               /* the largest floats */
        for (size_t i = 0; i < n; i++)
            x[i] = random_float(&c->random, -1, 1) * 3.4e38f;
        break;
    case 9:                                               /* every magnitude, one per 32: scales that f16 cannot hold among them */
        for (size_t i = 0; i < n; i++)
            x[i] = random_float(&c->random, -1, 1) * ldexpf(1, (int)(i / 32 * 17 + kind * 29) % 227 - 100);
        break;
    }
}

enum { HARD_KINDS = 10 * FILL_KINDS };

static void check_quantize(struct check *c, const struct format *format, bool verbose)
{
    static const size_t counts[] = { 1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 33, 71 };
    check_begin(c, "quantize", format->name);
    for (size_t kind = 0; kind < HARD_KINDS; kind++)
        for (size_t i = kind % 3; i < sizeof counts / sizeof *counts; i += 3) {
            size_t blocks = counts[i], n = blocks * format->block, bytes = blocks * format->bytes;
            float *x = guard_alloc(c, n * sizeof *x);
            void *got = guard_alloc(c, bytes), *expected = guard_alloc(c, bytes);
            hard_floats(c, x, n, kind);
            check_shape(c, "%zu values of kind %zu", n, kind);
            c->ref->quantize[format->id].fn(expected, x, n);
            c->table->quantize[format->id].fn(got, x, n);
            check_bytes(c, got, expected, bytes);
            guard_release(c);
        }
    check_finish(c, verbose);
}

/* The scales and codes of a prepared vector against what kernels.h says of them, in double: the reference too must keep to it. */
static void check_codes(struct check *c, const void *prepared, const float *x, size_t n, enum act_kind kind)
{
    const struct act_layout layout = act_layout(kind, n);
    const size_t block = kind == ACT_Q8_32 ? 32 : 256;
    const int8_t *q = prepared;
    const float *d = (const float *)(const void *)((const char *)prepared + layout.scales);
    for (size_t at = 0; at < n; at += block) {
        double max = 0;
        int exponent;
        size_t end = at + block < n ? at + block : n;
        for (size_t i = at; i < end; i++)
            max = isfinite(x[i]) ? fmax(max, fabs((double)x[i])) : NAN;
        for (size_t i = at; i < end && !isnan(max); i++)
            max = isfinite(x[i]) ? max : NAN;
        double scale = max < 0x1p-100 ? 0 : (double)((float)max / 127.0f);
        if (kind == ACT_Q8_32 && scale > 0) {
            double mantissa = frexp(scale, &exponent);
            scale = ldexp(nearbyint(ldexp(mantissa, 11)), exponent - 11);
            if (scale >= 0x1p-14 && scale <= 65504)
                check_value(c, at, f16_to_f32(f32_to_f16((float)max / 127.0f)), scale, 0);
        }
        check_value(c, at, (double)d[at / block], scale, 0);
        for (size_t i = at; i < end && !isnan(max); i++)      /* half a step, and what rounding the scale moves 127 steps by */
            check_value(c, i, (double)d[at / block] * q[i], (double)x[i], max < 0x1p-100 ? max : scale * (0.5001 + 127 * 0x1p-11));
    }
}

static void check_act_prepare(struct check *c, enum act_kind kind, bool verbose)
{
    static const char *const names[ACT_KINDS] = { "F32", "BF16", "Q8_32", "Q8_256" };
    static const size_t widths[] = { 1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 96, 255, 256, 257, 288, 511, 512, 521, 1024, 1031 };
    check_begin(c, "act_prepare", names[kind]);
    for (size_t hard = 0; hard < HARD_KINDS; hard++)
        for (size_t i = hard % 3; i < sizeof widths / sizeof *widths; i += 3) {
            size_t n = widths[i], bytes = act_layout(kind, n).bytes;
            float *x = guard_alloc(c, n * sizeof *x);
            void *got = guard_alloc(c, bytes), *expected = guard_alloc(c, bytes);
            hard_floats(c, x, n, hard);
            check_shape(c, "%zu values of kind %zu", n, hard);
            c->ref->act_prepare[kind].fn(expected, x, n);
            c->table->act_prepare[kind].fn(got, x, n);
            check_bytes(c, got, expected, bytes);
            if (kind == ACT_Q8_32 || kind == ACT_Q8_256)
                check_codes(c, got, x, n, kind);
            guard_release(c);
        }
    check_finish(c, verbose);
}

size_t check_conversions(struct check *c, const struct kernels *below, bool verbose)
{
    const struct kernels *t = c->table;
    size_t slots = 0;
    for (uint32_t id = 0; id < FORMAT_COUNT; id++) {
        if (t->dequantize[id].fn && (!below || below->dequantize[id].fn != t->dequantize[id].fn)) {
            check_dequantize(c, format_find(id), verbose);
            slots++;
        }
        if (t->quantize[id].fn && (!below || below->quantize[id].fn != t->quantize[id].fn)) {
            check_quantize(c, format_find(id), verbose);
            slots++;
        }
    }
    for (enum act_kind kind = 0; kind < ACT_KINDS; kind++)
        if (!below || below->act_prepare[kind].fn != t->act_prepare[kind].fn) {
            check_act_prepare(c, kind, verbose);
            slots++;
        }
    return slots;
}
