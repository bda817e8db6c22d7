#include "formats.h"

#include <strings.h>

static const struct format formats[FORMAT_COUNT] = {
    [FORMAT_F32]     = { "F32", FORMAT_F32, 1, 4, true },
    [FORMAT_F16]     = { "F16", FORMAT_F16, 1, 2, true },
    [FORMAT_Q4_0]    = { "Q4_0", FORMAT_Q4_0, 32, 18, true },
    [FORMAT_Q4_1]    = { "Q4_1", FORMAT_Q4_1, 32, 20, true },
    [FORMAT_Q5_0]    = { "Q5_0", FORMAT_Q5_0, 32, 22, true },
    [FORMAT_Q5_1]    = { "Q5_1", FORMAT_Q5_1, 32, 24, true },
    [FORMAT_Q8_0]    = { "Q8_0", FORMAT_Q8_0, 32, 34, true },
    [FORMAT_Q8_1]    = { "Q8_1", FORMAT_Q8_1, 32, 36, false },
    [FORMAT_Q2_K]    = { "Q2_K", FORMAT_Q2_K, 256, 84, true },
    [FORMAT_Q3_K]    = { "Q3_K", FORMAT_Q3_K, 256, 110, true },
    [FORMAT_Q4_K]    = { "Q4_K", FORMAT_Q4_K, 256, 144, true },
    [FORMAT_Q5_K]    = { "Q5_K", FORMAT_Q5_K, 256, 176, true },
    [FORMAT_Q6_K]    = { "Q6_K", FORMAT_Q6_K, 256, 210, true },
    [FORMAT_Q8_K]    = { "Q8_K", FORMAT_Q8_K, 256, 292, false },
    [FORMAT_IQ2_XXS] = { "IQ2_XXS", FORMAT_IQ2_XXS, 256, 66, true },
    [FORMAT_IQ2_XS]  = { "IQ2_XS", FORMAT_IQ2_XS, 256, 74, true },
    [FORMAT_IQ3_XXS] = { "IQ3_XXS", FORMAT_IQ3_XXS, 256, 98, true },
    [FORMAT_IQ1_S]   = { "IQ1_S", FORMAT_IQ1_S, 256, 50, true },
    [FORMAT_IQ4_NL]  = { "IQ4_NL", FORMAT_IQ4_NL, 32, 18, true },
    [FORMAT_IQ3_S]   = { "IQ3_S", FORMAT_IQ3_S, 256, 110, true },
    [FORMAT_IQ2_S]   = { "IQ2_S", FORMAT_IQ2_S, 256, 82, true },
    [FORMAT_IQ4_XS]  = { "IQ4_XS", FORMAT_IQ4_XS, 256, 136, true },
    [FORMAT_I8]      = { "I8", FORMAT_I8, 1, 1, false },
    [FORMAT_I16]     = { "I16", FORMAT_I16, 1, 2, false },
    [FORMAT_I32]     = { "I32", FORMAT_I32, 1, 4, false },
    [FORMAT_I64]     = { "I64", FORMAT_I64, 1, 8, false },
    [FORMAT_F64]     = { "F64", FORMAT_F64, 1, 8, false },
    [FORMAT_IQ1_M]   = { "IQ1_M", FORMAT_IQ1_M, 256, 56, true },
    [FORMAT_BF16]    = { "BF16", FORMAT_BF16, 1, 2, true },
    [FORMAT_TQ1_0]   = { "TQ1_0", FORMAT_TQ1_0, 256, 54, true },
    [FORMAT_TQ2_0]   = { "TQ2_0", FORMAT_TQ2_0, 256, 66, true },
    [FORMAT_MXFP4]   = { "MXFP4", FORMAT_MXFP4, 32, 17, true },
    [FORMAT_NVFP4]   = { "NVFP4", FORMAT_NVFP4, 64, 36, true },
    [FORMAT_Q1_0]    = { "Q1_0", FORMAT_Q1_0, 128, 18, true },
    [FORMAT_Q2_0]    = { "Q2_0", FORMAT_Q2_0, 64, 18, true },
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
