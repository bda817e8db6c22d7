/* micro_neon.c - Armv8.0: no byte dot product. Products of pairs fit int16 (128 * 127 * 2 = 32512), pairs of those are added in
 * int32. Four instructions for 16 products; the multiplications limit. */
#include "micro_arm.h"

static ALWAYS_INLINE int32x4_t dot_16_neon(int32x4_t acc, int8x16_t w, int8x16_t x)
{
    int16x8_t pairs = vmull_s8(vget_low_s8(w), vget_low_s8(x));
    return vpadalq_s16(acc, vmlal_high_s8(pairs, w, x));
}

static void micro_few_neon(float *acc, size_t stride, const struct quad *quad, const struct token_arm *token, int toks,
                           const struct shape_arm *shape)
{
    if (shape->sub == 16)
        micro_few(acc, stride, quad, token, toks, shape, 16, dot_16_neon);
    else
        micro_few(acc, stride, quad, token, toks, shape, 32, dot_16_neon);
}

const struct level_arm level_neon = { .few = micro_few_neon };
