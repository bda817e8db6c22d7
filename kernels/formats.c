/* formats.c - one row per tensor type. Bytes of a block are written as the sum of its parts, in the order in which they lie there:
 * a scale d or m is an f16 where nothing else is said, "scales" are integers that multiply it. */
#include "formats.h"

#include <strings.h>

static const struct format formats[FORMAT_COUNT] = {
    [FORMAT_F32]     = { "F32", FORMAT_F32, 1, 4, true },
    [FORMAT_F16]     = { "F16", FORMAT_F16, 1, 2, true },
    [FORMAT_Q4_0]    = { "Q4_0", FORMAT_Q4_0, 32, 2 + 32 / 2, true },          /* d, nibbles */
    [FORMAT_Q4_1]    = { "Q4_1", FORMAT_Q4_1, 32, 4 + 32 / 2, true },          /* d, m, nibbles */
    [FORMAT_Q5_0]    = { "Q5_0", FORMAT_Q5_0, 32, 2 + 4 + 32 / 2, true },      /* d, fifth bits, nibbles */
    [FORMAT_Q5_1]    = { "Q5_1", FORMAT_Q5_1, 32, 4 + 4 + 32 / 2, true },      /* d, m, fifth bits, nibbles */
    [FORMAT_Q8_0]    = { "Q8_0", FORMAT_Q8_0, 32, 2 + 32, true },              /* d, bytes */
    [FORMAT_Q8_1]    = { "Q8_1", FORMAT_Q8_1, 32, 4 + 32, false },             /* d, sum, bytes */
    [FORMAT_Q2_K]    = { "Q2_K", FORMAT_Q2_K, 256, 16 + 256 / 4 + 4, true },   /* scales and minimums, 2 bits, d, dmin */
    [FORMAT_Q3_K]    = { "Q3_K", FORMAT_Q3_K, 256, 256 / 8 + 256 / 4 + 12 + 2, true }, /* third bits, 2 bits, scales, d */
    [FORMAT_Q4_K]    = { "Q4_K", FORMAT_Q4_K, 256, 4 + 12 + 256 / 2, true },   /* d, dmin, scales and minimums, nibbles */
    [FORMAT_Q5_K]    = { "Q5_K", FORMAT_Q5_K, 256, 4 + 12 + 256 / 8 + 256 / 2, true }, /* d, dmin, scales, fifth bits, nibbles */
    [FORMAT_Q6_K]    = { "Q6_K", FORMAT_Q6_K, 256, 256 / 2 + 256 / 4 + 16 + 2, true }, /* nibbles, 2 bits, scales, d */
    [FORMAT_Q8_K]    = { "Q8_K", FORMAT_Q8_K, 256, 4 + 256 + 32, false },      /* float d, bytes, 16 sums */
    [FORMAT_IQ2_XXS] = { "IQ2_XXS", FORMAT_IQ2_XXS, 256, 2 + 256 / 8 * 2, true }, /* d; per 32: 4 entries, signs and scale */
    [FORMAT_IQ2_XS]  = { "IQ2_XS", FORMAT_IQ2_XS, 256, 2 + 256 / 8 * 2 + 8, true }, /* d, entries with signs, scales */
    [FORMAT_IQ3_XXS] = { "IQ3_XXS", FORMAT_IQ3_XXS, 256, 2 + 256 / 4 + 32, true }, /* d, entries, signs and scales */
    [FORMAT_IQ1_S]   = { "IQ1_S", FORMAT_IQ1_S, 256, 2 + 256 / 8 + 16, true }, /* d, entries, their high bits and scales */
    [FORMAT_IQ4_NL]  = { "IQ4_NL", FORMAT_IQ4_NL, 32, 2 + 32 / 2, true },      /* d, nibbles */
    [FORMAT_IQ3_S]   = { "IQ3_S", FORMAT_IQ3_S, 256, 2 + 64 + 8 + 32 + 4, true }, /* d, entries, high bits, signs, scales */
    [FORMAT_IQ2_S]   = { "IQ2_S", FORMAT_IQ2_S, 256, 2 + 32 + 32 + 8 + 8, true }, /* d, entries, signs, high bits, scales */
    [FORMAT_IQ4_XS]  = { "IQ4_XS", FORMAT_IQ4_XS, 256, 2 + 2 + 4 + 256 / 2, true }, /* d, scales high and low, nibbles */
    [FORMAT_I8]      = { "I8", FORMAT_I8, 1, 1, false },
    [FORMAT_I16]     = { "I16", FORMAT_I16, 1, 2, false },
    [FORMAT_I32]     = { "I32", FORMAT_I32, 1, 4, false },
    [FORMAT_I64]     = { "I64", FORMAT_I64, 1, 8, false },
    [FORMAT_F64]     = { "F64", FORMAT_F64, 1, 8, false },
    [FORMAT_IQ1_M]   = { "IQ1_M", FORMAT_IQ1_M, 256, 32 + 16 + 8, true },      /* entries, high bits and shifts, scales and d */
    [FORMAT_BF16]    = { "BF16", FORMAT_BF16, 1, 2, true },
    [FORMAT_TQ1_0]   = { "TQ1_0", FORMAT_TQ1_0, 256, 240 / 5 + 16 / 4 + 2, true }, /* five to a byte, the last 16 four to one, d */
    [FORMAT_TQ2_0]   = { "TQ2_0", FORMAT_TQ2_0, 256, 256 / 4 + 2, true },      /* 2 bits, d */
    [FORMAT_MXFP4]   = { "MXFP4", FORMAT_MXFP4, 32, 1 + 32 / 2, true },        /* exponent, nibbles */
    [FORMAT_NVFP4]   = { "NVFP4", FORMAT_NVFP4, 64, 4 + 64 / 2, true },        /* four small scales, nibbles */
    [FORMAT_Q1_0]    = { "Q1_0", FORMAT_Q1_0, 128, 2 + 128 / 8, true },        /* d, signs */
    [FORMAT_Q2_0]    = { "Q2_0", FORMAT_Q2_0, 64, 2 + 64 / 4, true },          /* d, 2 bits */
};

const struct format *format_find(uint32_t id)
{
    return id < FORMAT_COUNT && formats[id].name ? &formats[id] : NULL;
}

const struct format *format_by_name(const char *name)
{
    for (uint32_t id = 0; id < FORMAT_COUNT; id++)
        if (formats[id].name && !strcasecmp(formats[id].name, name))
            return &formats[id];
    return NULL;
}

bool format_row_bytes(size_t *out, const struct format *format, size_t cols)
{
    return cols % format->block == 0 && !__builtin_mul_overflow(cols / format->block, (size_t)format->bytes, out);
}
