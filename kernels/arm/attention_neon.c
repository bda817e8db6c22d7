/* attention_neon.c - scores against keys and sums of values, cache in F32, F16, BF16 or Q8_0.
 *
 * A score's lanes are columns, added at the end; a sum of values runs over the keys in order, lanes are columns. Neither depends on
 * how many queries share the call: they are taken four at a time to share the loads of a key or value. */
#include "numbers.h"
#include "vector_neon.h"

enum { QUERIES = 4 };

/* Columns [at, at + 4) of a row, zero from `n` on. Q8_0's blocks are 34 bytes for 32 columns. */
static ALWAYS_INLINE float32x4_t values_at(const uint8_t *row, size_t at, size_t n, enum kv_type type)
{
    uint8_t tail[16] = { 0 };
    size_t bytes = type == KV_F32 ? 4 : 2, left = n - at;
    if (type == KV_Q8_0) {
        const uint8_t *block = row + at / 32 * 34;
        int16x8_t wide = vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(load_u32(block + 2 + at % 32))));
        return vmulq_n_f32(vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide))), f16_to_f32(load_u16(block)));
    }
    const uint8_t *from = row + at * bytes;
    if (left < 4) {
        memcpy(tail, from, left * bytes);
        from = tail;
    }
    if (type == KV_F32)
        return vreinterpretq_f32_u8(vld1q_u8(from));
    if (type == KV_F16)
        return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(from)));
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(from)), 16));
}

static ALWAYS_INLINE void scores_of(float *scores, const float *q, size_t q_stride, size_t nq, const void *k, size_t k_stride,
                                    size_t nk, size_t head_dim, float scale, enum kv_type type)
{
    for (size_t i = 0; i < nq; i += QUERIES) {
        size_t queries = nq - i < QUERIES ? nq - i : QUERIES;
        for (size_t t = 0; t < nk; t++) {
            const uint8_t *key = (const uint8_t *)k + t * k_stride;
            float32x4_t acc[QUERIES] = { vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0) };
            for (size_t at = 0; at < head_dim; at += 4) {
                float32x4_t value = values_at(key, at, head_dim, type);
                for (size_t j = 0; j < queries; j++)
                    acc[j] = vfmaq_f32(acc[j], load_up_to_4(q + (i + j) * q_stride + at, head_dim - at), value);
            }
            for (size_t j = 0; j < queries; j++)
                scores[(i + j) * ATTN_TILE + t] = scale * vaddvq_f32(acc[j]);
        }
    }
}

static ALWAYS_INLINE void mix(float *out, size_t out_stride, const float *probs, size_t nq, const void *v, size_t v_stride,
                              size_t nk, size_t head_dim, enum kv_type type)
{
    for (size_t i = 0; i < nq; i += QUERIES) {
        size_t queries = nq - i < QUERIES ? nq - i : QUERIES;
        for (size_t at = 0; at < head_dim; at += 4) {
            float32x4_t acc[QUERIES] = { vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0) };
            for (size_t t = 0; t < nk; t++) {
                float32x4_t value = values_at((const uint8_t *)v + t * v_stride, at, head_dim, type);
                for (size_t j = 0; j < queries; j++)
                    acc[j] = vfmaq_n_f32(acc[j], value, probs[(i + j) * ATTN_TILE + t]);
            }
            for (size_t j = 0; j < queries; j++) {
                float *to = out + (i + j) * out_stride + at;
                store_up_to_4(to, vaddq_f32(load_up_to_4(to, head_dim - at), acc[j]), head_dim - at);
            }
        }
    }
}

void attn_scores_f32_neon(float *scores, const float *q, size_t q_stride, size_t nq, const void *k, size_t k_stride,
                          size_t nk, size_t head_dim, float scale)
{
    scores_of(scores, q, q_stride, nq, k, k_stride, nk, head_dim, scale, KV_F32);
}

void attn_scores_f16_neon(float *scores, const float *q, size_t q_stride, size_t nq, const void *k, size_t k_stride,
                          size_t nk, size_t head_dim, float scale)
{
    scores_of(scores, q, q_stride, nq, k, k_stride, nk, head_dim, scale, KV_F16);
}

void attn_scores_bf16_neon(float *scores, const float *q, size_t q_stride, size_t nq, const void *k, size_t k_stride,
                           size_t nk, size_t head_dim, float scale)
{
    scores_of(scores, q, q_stride, nq, k, k_stride, nk, head_dim, scale, KV_BF16);
}

void attn_scores_q8_0_neon(float *scores, const float *q, size_t q_stride, size_t nq, const void *k, size_t k_stride,
                           size_t nk, size_t head_dim, float scale)
{
    scores_of(scores, q, q_stride, nq, k, k_stride, nk, head_dim, scale, KV_Q8_0);
}

void attn_mix_f32_neon(float *out, size_t out_stride, const float *probs, size_t nq, const void *v, size_t v_stride,
                       size_t nk, size_t head_dim)
{
    mix(out, out_stride, probs, nq, v, v_stride, nk, head_dim, KV_F32);
}

void attn_mix_f16_neon(float *out, size_t out_stride, const float *probs, size_t nq, const void *v, size_t v_stride,
                       size_t nk, size_t head_dim)
{
    mix(out, out_stride, probs, nq, v, v_stride, nk, head_dim, KV_F16);
}

void attn_mix_bf16_neon(float *out, size_t out_stride, const float *probs, size_t nq, const void *v, size_t v_stride,
                        size_t nk, size_t head_dim)
{
    mix(out, out_stride, probs, nq, v, v_stride, nk, head_dim, KV_BF16);
}

void attn_mix_q8_0_neon(float *out, size_t out_stride, const float *probs, size_t nq, const void *v, size_t v_stride,
                        size_t nk, size_t head_dim)
{
    mix(out, out_stride, probs, nq, v, v_stride, nk, head_dim, KV_Q8_0);
}
