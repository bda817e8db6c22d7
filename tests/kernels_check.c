/* Guarded memory, inputs and comparing for check_kernels. */
#include "kernels_check.h"

#include "numbers.h"

#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { FILLING = 0xa5, FAILURES_SHOWN = 3 };

/* ---- cases ------------------------------------------------------------------------------------------------------ */

void check_begin(struct check *c, const char *op, const char *detail)
{
    static char name[96];
    snprintf(name, sizeof name, "%s %s%s%s", c->rung, op, *detail ? " " : "", detail);
    c->op = name;
    c->comparisons = c->failures = 0;
    c->worst = 0;
    c->worst_shape[0] = 0;
    test_begin("%s", name);
}

void check_finish(struct check *c, bool verbose)
{
    guard_release(c);
    if (c->comparisons == 0)
        check_failed(c, "nothing was compared");
    if (verbose)
        printf("%-32s %10zu compared, worst %.3f of the bound%s%s\n", c->op, c->comparisons, c->worst, c->worst > 0 ? " at " : "",
               c->worst_shape);
    c->all_comparisons += c->comparisons;
    c->all_failures += c->failures;
    test_finish();
}

void check_shape(struct check *c, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(c->shape, sizeof c->shape, format, args);
    va_end(args);
}

void check_failed(struct check *c, const char *format, ...)
{
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (c->failures++ < FAILURES_SHOWN)
        test_fail(__FILE__, __LINE__, c->op, "%s: %s (seed %llu)", c->shape, text, (unsigned long long)c->seed);
}

size_t check_table(struct check *c, const struct kernels *below, bool verbose)
{
    return check_matmuls(c, below, verbose) + check_conversions(c, below, verbose) + check_elementwise(c, below, verbose) +
           check_attention(c, below, verbose);
}

/* ---- memory ----------------------------------------------------------------------------------------------------- */

struct guard {
    struct guard  *next;
    unsigned char *base, *buffer;
    size_t         mapped;
};

void *guard_alloc(struct check *c, size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), usable = (bytes + page - 1) / page * page + (bytes % page == 0) * page;
    struct guard *g = malloc(sizeof *g);
    unsigned char *base = mmap(NULL, usable + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!g || base == MAP_FAILED || mprotect(base + usable, page, PROT_NONE) != 0) {
        fprintf(stderr, "check_kernels: no memory for a guarded buffer of %zu bytes\n", bytes);
        exit(2);
    }
    memset(base, FILLING, usable);
    *g = (struct guard){ c->guards, base, base + usable - bytes, usable + page };
    c->guards = g;
    return g->buffer;
}

void guard_release(struct check *c)
{
    while (c->guards) {
        struct guard *g = c->guards;
        for (unsigned char *p = g->base; p < g->buffer; p++)
            if (*p != FILLING) {
                check_failed(c, "%zd bytes before a buffer were written", g->buffer - p);
                break;
            }
        c->guards = g->next;
        munmap(g->base, g->mapped);
        free(g);
    }
}

/* ---- comparing -------------------------------------------------------------------------------------------------- */

double ulp_of(double value)
{
    int exponent;
    frexp(fabs(value) > FLT_MIN ? fabs(value) : FLT_MIN, &exponent);
    return ldexp(1, exponent - 24);
}

void check_value(struct check *c, size_t index, double got, double exact, double bound)
{
    c->comparisons++;
    if (!isfinite(exact)) {
        if (isfinite(got))
            check_failed(c, "value %zu is %g, should be %g", index, got, exact);
        return;
    }
    if (isinf((float)exact) && isinf(got) && (got > 0) == (exact > 0))
        return;
    double error = fabs(got - exact);
    if (!(error <= bound)) {
        check_failed(c, "value %zu is %.9g, should be %.9g; the error is %.3g, the bound %.3g", index, got, exact, error, bound);
        return;
    }
    if (error > c->worst * bound) {
        c->worst = error / bound;
        memcpy(c->worst_shape, c->shape, sizeof c->shape);
    }
}

void check_bytes(struct check *c, const void *got, const void *expected, size_t bytes)
{
    const unsigned char *a = got, *b = expected;
    c->comparisons += bytes;
    for (size_t i = 0; i < bytes; i++)
        if (a[i] != b[i]) {
            check_failed(c, "byte %zu of %zu is %02x, should be %02x", i, bytes, a[i], b[i]);
            return;
        }
}

void check_floats(struct check *c, const float *got, const float *expected, size_t n)
{
    c->comparisons += n;
    for (size_t i = 0; i < n; i++)
        if (float_bits(got[i]) != float_bits(expected[i]) && !(isnan(got[i]) && isnan(expected[i]))) {
            check_failed(c, "value %zu of %zu is %a, should be %a", i, n, got[i], expected[i]);
            return;
        }
}

void check_untouched(struct check *c, const float *out, size_t begin, size_t end)
{
    for (size_t i = begin; i < end; i++)
        if (float_bits(out[i]) != FILLING * 0x01010101u) {
            check_failed(c, "value %zu, which is no output, was written", i);
            return;
        }
}

/* ---- inputs ----------------------------------------------------------------------------------------------------- */

const char *const fill_names[FILL_KINDS] = { "random", "zero", "max", "min", "alternating", "one-hot", "tiny", "large" };

size_t random_size(struct check *c, size_t low, size_t high)
{
    return low + random_u64(&c->random) % (high - low + 1);
}

/* Mostly of one size, one in 64 eight times as large, as activations are. */
static float random_activation(struct check *c)
{
    float x = random_float(&c->random, -1, 1) * random_float(&c->random, 0, 1);
    return random_u64(&c->random) % 64 == 0 ? 8 * x : x;
}

void fill_floats(struct check *c, float *x, size_t n, enum fill fill)
{
    size_t hot = n ? random_size(c, 0, n - 1) : 0;
    for (size_t i = 0; i < n; i++)
        switch (fill) {
        case FILL_ZERO:        x[i] = 0; break;
        case FILL_MAX:         x[i] = 3.5f; break;
        case FILL_MIN:         x[i] = -3.5f; break;
        case FILL_ALTERNATING: x[i] = i % 2 ? -127 : 127; break;
        case FILL_ONE_HOT:     x[i] = i == hot ? 1 : 0; break;
        case FILL_TINY:        x[i] = random_activation(c) * 0x1p-60f; break;
        case FILL_LARGE:       x[i] = random_activation(c) * 65504; break;
        default:               x[i] = random_activation(c);
        }
}

static uint16_t random_scale(struct check *c, enum fill fill)
{
    uint16_t sign = random_u64(&c->random) % 4 == 0 ? 0x8000 : 0, mantissa = random_u64(&c->random) & 0x3ff;
    switch (fill) {
    case FILL_ZERO:  return sign;
    case FILL_MAX:   return 0x3c00;                                   /* 1 */
    case FILL_MIN:   return 0xbc00;
    case FILL_TINY:  return sign | mantissa;                          /* subnormal */
    case FILL_LARGE: return sign | 0x7bff;                            /* 65504 */
    case FILL_ONE_HOT: return random_u64(&c->random) % 8 ? 0 : 0x3800;
    default:         return (uint16_t)(sign | random_size(c, 6, 15) << 10 | mantissa);
    }
}

/* Where a block's f16 scales stand; those of the small-number formats and IQ1_M are apart. */
struct scale_places {
    uint32_t id;
    int      first, second;            /* byte offsets, -1: none */
};
static const struct scale_places scale_places[] = {
    { FORMAT_Q4_0, 0, -1 },    { FORMAT_Q4_1, 0, 2 },     { FORMAT_Q5_0, 0, -1 },   { FORMAT_Q5_1, 0, 2 },
    { FORMAT_Q8_0, 0, -1 },    { FORMAT_Q2_K, 80, 82 },   { FORMAT_Q3_K, 108, -1 }, { FORMAT_Q4_K, 0, 2 },
    { FORMAT_Q5_K, 0, 2 },     { FORMAT_Q6_K, 208, -1 },  { FORMAT_IQ2_XXS, 0, -1 }, { FORMAT_IQ2_XS, 0, -1 },
    { FORMAT_IQ2_S, 0, -1 },   { FORMAT_IQ3_XXS, 0, -1 }, { FORMAT_IQ3_S, 0, -1 },  { FORMAT_IQ1_S, 0, -1 },
    { FORMAT_IQ4_NL, 0, -1 },  { FORMAT_IQ4_XS, 0, -1 },  { FORMAT_TQ1_0, 52, -1 }, { FORMAT_TQ2_0, 64, -1 },
    { FORMAT_Q1_0, 0, -1 },    { FORMAT_Q2_0, 0, -1 },    { FORMAT_F16, 0, -1 },
};

static void put_u16(unsigned char *at, uint16_t value)
{
    memcpy(at, &value, 2);
}

static void fill_scales(struct check *c, unsigned char *block, const struct format *format, enum fill fill)
{
    uint16_t half = random_scale(c, fill);
    for (size_t i = 0; i < sizeof scale_places / sizeof *scale_places; i++)
        if (scale_places[i].id == format->id) {
            put_u16(block + scale_places[i].first, half);
            if (scale_places[i].second >= 0)
                put_u16(block + scale_places[i].second, random_scale(c, fill));
            return;
        }
    switch (format->id) {
    case FORMAT_IQ1_M:                                    /* four bits on top of each of the last four words */
        for (int w = 0; w < 4; w++) {
            unsigned char *high = block + 49 + 2 * w;
            *high = (unsigned char)((*high & 15) | (half >> 4 * w & 15) << 4);
        }
        break;
    case FORMAT_MXFP4:
        block[0] = (unsigned char)(fill == FILL_TINY ? random_size(c, 0, 3) : fill == FILL_LARGE ? 200 : random_size(c, 100, 139));
        break;
    case FORMAT_NVFP4:
        for (int g = 0; g < 4; g++) {
            size_t any = random_size(c, 0, fill == FILL_TINY ? 7 : 0x7f);
            block[g] = (unsigned char)(fill == FILL_LARGE ? 0x7e : any);
        }
        break;
    case FORMAT_BF16:
        put_u16(block, f32_to_bf16(f16_to_f32(half)));
        break;
    case FORMAT_F32: {
        float value = f16_to_f32(half) * random_float(&c->random, 0.5f, 1);
        memcpy(block, &value, 4);
        break;
    }
    }
}

bool spoil_scale(void *block, const struct format *format, bool inf)
{
    for (size_t i = 0; i < sizeof scale_places / sizeof *scale_places; i++)
        if (scale_places[i].id == format->id) {
            put_u16((unsigned char *)block + scale_places[i].first, inf ? 0x7c00 : 0x7e01);
            return true;
        }
    if (format->id == FORMAT_BF16)
        put_u16(block, inf ? 0x7f80 : 0x7fc1);
    return format->id == FORMAT_BF16;
}

void fill_blocks(struct check *c, void *blocks, const struct format *format, size_t n_blocks, enum fill quants, enum fill scales)
{
    unsigned char *bytes = blocks;
    size_t n = n_blocks * format->bytes, hot = n ? random_size(c, 0, n - 1) : 0;
    for (size_t i = 0; i < n; i++)
        switch (quants) {
        case FILL_ZERO:        bytes[i] = 0; break;
        case FILL_MAX:         bytes[i] = 0xff; break;
        case FILL_MIN:         bytes[i] = 0x80; break;            /* -128 where values are bytes */
        case FILL_ALTERNATING: bytes[i] = i % 2 ? 0x81 : 0x7f; break;
        case FILL_ONE_HOT:     bytes[i] = i == hot ? 0x7f : 0; break;
        case FILL_TINY:        bytes[i] = 0x11; break;
        case FILL_LARGE:       bytes[i] = i % 2 ? 0x0f : 0xf0; break;
        default:               bytes[i] = (unsigned char)random_u64(&c->random);
        }
    for (size_t b = 0; b < n_blocks; b++)
        fill_scales(c, bytes + b * format->bytes, format, scales);
}
