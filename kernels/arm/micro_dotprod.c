/* micro_dotprod.c - Armv8.2 sdot. For a few tokens the rows as they stand; for more, four rows by four columns side by side in a
 * vector, so that sdot by a lane of x leaves row sums in lanes: four dots for one multiplication by the scale. */
#include "micro_arm.h"

static ALWAYS_INLINE int32x4_t dot_16_dotprod(int32x4_t acc, int8x16_t w, int8x16_t x)
{
    return vdotq_s32(acc, w, x);
}

void micro_few_dotprod(float *acc, size_t stride, const struct quad *quad, const struct token_arm *token, int toks,
                       const struct shape_arm *shape)
{
    if (shape->sub == 16)
        micro_few(acc, stride, quad, token, toks, shape, 16, dot_16_dotprod);
    else
        micro_few(acc, stride, quad, token, toks, shape, 32, dot_16_dotprod);
}

/* lanes[c]: columns 4c to 4c + 3 of rows 0 to 3. */
static void arrange_dotprod(struct quad *quad)
{
    for (int c = 0; c < 256; c += 16) {
        int32x4_t row[QUAD];
        for (int r = 0; r < QUAD; r++)
            row[r] = vreinterpretq_s32_s8(vld1q_s8(quad->run[r].q + c));
        int32x4x2_t low = vzipq_s32(row[0], row[2]), high = vzipq_s32(row[1], row[3]);
        int32x4x2_t first = vzipq_s32(low.val[0], high.val[0]), second = vzipq_s32(low.val[1], high.val[1]);
        vst1q_s8(quad->lanes + 4 * c, vreinterpretq_s8_s32(first.val[0]));
        vst1q_s8(quad->lanes + 4 * c + 16, vreinterpretq_s8_s32(first.val[1]));
        vst1q_s8(quad->lanes + 4 * c + 32, vreinterpretq_s8_s32(second.val[0]));
        vst1q_s8(quad->lanes + 4 * c + 48, vreinterpretq_s8_s32(second.val[1]));
    }
}

/* Sub-block s of four rows with `toks` tokens; each vector of weights is loaded once. */
static ALWAYS_INLINE void dot_lanes(int32x4_t dot[TOKS_ARM], const struct quad *quad, const struct token_arm *token, int toks,
                                    unsigned s, unsigned sub)
{
    for (int t = 0; t < toks; t++)
        dot[t] = vdupq_n_s32(0);
    for (unsigned c = s * sub; c < (s + 1) * sub; c += 16) {
        const int8_t *w = quad->lanes + 4 * c;
        int8x16_t w0 = vld1q_s8(w), w1 = vld1q_s8(w + 16), w2 = vld1q_s8(w + 32), w3 = vld1q_s8(w + 48);
        for (int t = 0; t < toks; t++) {
            int8x16_t x = vld1q_s8(token[t].x + c);
            dot[t] = vdotq_laneq_s32(dot[t], w0, x, 0);
            dot[t] = vdotq_laneq_s32(dot[t], w1, x, 1);
            dot[t] = vdotq_laneq_s32(dot[t], w2, x, 2);
            dot[t] = vdotq_laneq_s32(dot[t], w3, x, 3);
        }
    }
}

static ALWAYS_INLINE void micro_lanes(float *acc, size_t stride, const struct quad *quad, const struct token_arm *token, int toks,
                                      const struct shape_arm *shape, unsigned sub)
{
    float32x4_t sums[TOKS_ARM];
    int32x4_t dot[TOKS_ARM], total[TOKS_ARM];
    for (int t = 0; t < toks; t++) {
        sums[t] = vld1q_f32(acc + (size_t)t * stride);
        total[t] = vdupq_n_s32(0);
    }
    for (unsigned s = 0; s < 256 / sub; s++) {
        dot_lanes(dot, quad, token, toks, s, sub);
        for (int t = 0; t < toks; t++) {
            if (shape->kind == PANEL_SUPER)
                total[t] = vmlaq_s32(total[t], dot[t], vld1q_s32(quad->sub[s]));
            else
                sums[t] = add_small(sums[t], dot[t], s, quad, &token[t], shape);
        }
    }
    for (int t = 0; t < toks; t++) {
        if (shape->kind == PANEL_SUPER)
            sums[t] = add_super(sums[t], total[t], quad, &token[t], shape);
        vst1q_f32(acc + (size_t)t * stride, sums[t]);
    }
}

static void micro_many_dotprod(float *acc, size_t stride, const struct quad *quad, const struct token_arm *token, int toks,
                               const struct shape_arm *shape)
{
    bool fine = shape->sub == 16;
    if (toks == 4 && fine)
        micro_lanes(acc, stride, quad, token, 4, shape, 16);
    else if (toks == 4)
        micro_lanes(acc, stride, quad, token, 4, shape, 32);
    else if (fine)
        micro_lanes(acc, stride, quad, token, toks, shape, 16);
    else
        micro_lanes(acc, stride, quad, token, toks, shape, 32);
}

const struct level_arm level_dotprod = { micro_few_dotprod, micro_many_dotprod, arrange_dotprod, 4 };
