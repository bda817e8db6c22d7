/* attention.c - scores against a tile of keys and sums over a tile of values, for each type of cache.
 *
 * One loop each; the type enters as its decoder and the bytes of a piece, so that all five types share the one specification. */
#include "ref.h"

enum { PIECE = 32 };                       /* values decoded at a time: a block of Q8_0 and Q4_0 */

static const char *row_of(const void *rows, size_t stride, size_t t)
{
    return (const char *)rows + t * stride;
}

static size_t piece(size_t left)
{
    return left < PIECE ? left : PIECE;
}

/* A row of the cache is decoded piece by piece, so that nothing has to be allocated for it; that it is decoded again for each
 * query is the price of a specification that can be read. */
static void scores_of(float *scores, const float *q, size_t q_stride, size_t nq, const void *k, size_t k_stride, size_t nk,
                      size_t head_dim, float scale, dequantize_fn *decode, enum kv_type type)
{
    for (size_t i = 0; i < nq; i++)
        for (size_t t = 0; t < nk; t++) {
            double sum = 0;
            for (size_t at = 0; at < head_dim; at += PIECE) {
                float key[PIECE];
                size_t n = piece(head_dim - at);
                decode(key, row_of(k, k_stride, t) + kv_row_bytes(type, at), n);
                for (size_t j = 0; j < n; j++)
                    sum += (double)q[i * q_stride + at + j] * key[j];
            }
            scores[i * ATTN_TILE + t] = (float)(scale * sum);
        }
}

static void mix(float *out, size_t out_stride, const float *probs, size_t nq, const void *v, size_t v_stride, size_t nk,
                size_t head_dim, dequantize_fn *decode, enum kv_type type)
{
    for (size_t i = 0; i < nq; i++)
        for (size_t at = 0; at < head_dim; at += PIECE) {
            double sums[PIECE] = { 0 };     /* over the tile in double; `out` is rounded once per tile */
            size_t n = piece(head_dim - at);
            for (size_t t = 0; t < nk; t++) {
                float value[PIECE];
                decode(value, row_of(v, v_stride, t) + kv_row_bytes(type, at), n);
                for (size_t j = 0; j < n; j++)
                    sums[j] += (double)probs[i * ATTN_TILE + t] * value[j];
            }
            for (size_t j = 0; j < n; j++)
                out[i * out_stride + at + j] = (float)(out[i * out_stride + at + j] + sums[j]);
        }
}

void attn_scores_f32_ref(float *scores, const float *q, size_t q_stride, size_t nq, const void *k, size_t k_stride,
                         size_t nk, size_t head_dim, float scale)
{
    scores_of(scores, q, q_stride, nq, k, k_stride, nk, head_dim, scale, dequantize_f32_ref, KV_F32);
}

void attn_scores_f16_ref(float *scores, const float *q, size_t q_stride, size_t nq, const void *k, size_t k_stride,
                         size_t nk, size_t head_dim, float scale)
{
    scores_of(scores, q, q_stride, nq, k, k_stride, nk, head_dim, scale, dequantize_f16_ref, KV_F16);
}

void attn_scores_bf16_ref(float *scores, const float *q, size_t q_stride, size_t nq, const void *k, size_t k_stride,
                          size_t nk, size_t head_dim, float scale)
{
    scores_of(scores, q, q_stride, nq, k, k_stride, nk, head_dim, scale, dequantize_bf16_ref, KV_BF16);
}

void attn_scores_q8_0_ref(float *scores, const float *q, size_t q_stride, size_t nq, const void *k, size_t k_stride,
                          size_t nk, size_t head_dim, float scale)
{
    scores_of(scores, q, q_stride, nq, k, k_stride, nk, head_dim, scale, dequantize_q8_0_ref, KV_Q8_0);
}

void attn_scores_q4_0_ref(float *scores, const float *q, size_t q_stride, size_t nq, const void *k, size_t k_stride,
                          size_t nk, size_t head_dim, float scale)
{
    scores_of(scores, q, q_stride, nq, k, k_stride, nk, head_dim, scale, dequantize_q4_0_ref, KV_Q4_0);
}

void attn_mix_f32_ref(float *out, size_t out_stride, const float *probs, size_t nq, const void *v, size_t v_stride,
                      size_t nk, size_t head_dim)
{
    mix(out, out_stride, probs, nq, v, v_stride, nk, head_dim, dequantize_f32_ref, KV_F32);
}

void attn_mix_f16_ref(float *out, size_t out_stride, const float *probs, size_t nq, const void *v, size_t v_stride,
                      size_t nk, size_t head_dim)
{
    mix(out, out_stride, probs, nq, v, v_stride, nk, head_dim, dequantize_f16_ref, KV_F16);
}

void attn_mix_bf16_ref(float *out, size_t out_stride, const float *probs, size_t nq, const void *v, size_t v_stride,
                       size_t nk, size_t head_dim)
{
    mix(out, out_stride, probs, nq, v, v_stride, nk, head_dim, dequantize_bf16_ref, KV_BF16);
}

void attn_mix_q8_0_ref(float *out, size_t out_stride, const float *probs, size_t nq, const void *v, size_t v_stride,
                       size_t nk, size_t head_dim)
{
    mix(out, out_stride, probs, nq, v, v_stride, nk, head_dim, dequantize_q8_0_ref, KV_Q8_0);
}

void attn_mix_q4_0_ref(float *out, size_t out_stride, const float *probs, size_t nq, const void *v, size_t v_stride,
                       size_t nk, size_t head_dim)
{
    mix(out, out_stride, probs, nq, v, v_stride, nk, head_dim, dequantize_q4_0_ref, KV_Q4_0);
}
