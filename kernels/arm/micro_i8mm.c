/* micro_i8mm.c - Armv8.6 smmla: two rows by two tokens by eight columns in one instruction, twice sdot's rate. One token, and the
 * odd one of a group, wastes half of it; alone it goes the dotprod way, which gives the same bits. */
#include "micro_arm.h"

/* lanes: per 8 columns, rows 0 and 1, then rows 2 and 3. */
static void arrange_i8mm(struct quad *quad)
{
    for (int c = 0; c < 256; c += 8) {
        vst1q_s8(quad->lanes + 4 * c, vcombine_s8(vld1_s8(quad->run[0].q + c), vld1_s8(quad->run[1].q + c)));
        vst1q_s8(quad->lanes + 4 * c + 16, vcombine_s8(vld1_s8(quad->run[2].q + c), vld1_s8(quad->run[3].q + c)));
    }
}

/* Two tokens. smmla's result is [row][token]; once per sub-block (small) or run (super) the tokens are taken apart. */
static ALWAYS_INLINE void micro_pair(float *acc, float *acc_other, const struct quad *quad, const struct token_arm *token,
                                     const struct token_arm *other, const struct shape_arm *shape, unsigned sub)
{
    float32x4_t sums = vld1q_f32(acc), sums_other = vld1q_f32(acc_other);
    int32x4_t total01 = vdupq_n_s32(0), total23 = total01;
    for (unsigned s = 0; s < 256 / sub; s++) {
        int32x4_t dot01 = vdupq_n_s32(0), dot23 = dot01;
        for (unsigned c = s * sub; c < (s + 1) * sub; c += 8) {
            int8x16_t x = vcombine_s8(vld1_s8(token->x + c), vld1_s8(other->x + c));
            dot01 = vmmlaq_s32(dot01, vld1q_s8(quad->lanes + 4 * c), x);
            dot23 = vmmlaq_s32(dot23, vld1q_s8(quad->lanes + 4 * c + 16), x);
        }
        if (shape->kind == PANEL_SUPER) {
            int32x4_t scale = vld1q_s32(quad->sub[s]);
            total01 = vmlaq_s32(total01, dot01, vzip1q_s32(scale, scale));
            total23 = vmlaq_s32(total23, dot23, vzip2q_s32(scale, scale));
        } else {
            sums = add_small(sums, vuzp1q_s32(dot01, dot23), s, quad, token, shape);
            sums_other = add_small(sums_other, vuzp2q_s32(dot01, dot23), s, quad, other, shape);
        }
    }
    if (shape->kind == PANEL_SUPER) {
        sums = add_super(sums, vuzp1q_s32(total01, total23), quad, token, shape);
        sums_other = add_super(sums_other, vuzp2q_s32(total01, total23), quad, other, shape);
    }
    vst1q_f32(acc_other, sums_other);
    vst1q_f32(acc, sums);                                 /* last: an odd token is its own partner, in another place */
}

static void micro_many_i8mm(float *acc, size_t stride, const struct quad *quad, const struct token_arm *token, int toks,
                            const struct shape_arm *shape)
{
    for (int t = 0; t < toks; t += 2) {
        float unused[QUAD] = { 0 }, *first = acc + (size_t)t * stride, *second = t + 1 < toks ? first + stride : unused;
        const struct token_arm *other = t + 1 < toks ? &token[t + 1] : &token[t];
        if (shape->sub == 16)
            micro_pair(first, second, quad, &token[t], other, shape, 16);
        else
            micro_pair(first, second, quad, &token[t], other, shape, 32);
    }
}

const struct level_arm level_i8mm = { micro_few_dotprod, micro_many_i8mm, arrange_i8mm, 2 };
