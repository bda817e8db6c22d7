#include "x86.h"

#include "tile16.h"
#include "vector_avx512.h"

#include <string.h>

/* Attention over a tile of 14-bit integers (tile16.h) on AVX-512 with VNNI: vpdpwssd multiplies 32 pairs of 16-bit integers and
 * adds them in int32, twice the products of an FMA, and nothing has to be widened or turned.
 *
 * Scores: one vector is two columns of sixteen keys; four queries by two vectors of keys, 8 integer sums beside 8 float sums, 8
 * products per 2 loads and 4 broadcasts. Mix: one vector is two tokens of sixteen columns; four queries by four vectors, 16 sums.
 * Integer sums have no order; only the float sums over runs of columns do, and that is the same for any number of queries. */

enum { QUERIES = 16 };       /* rounded at a time in the mix, the lanes of a vector of factors; 2 KiB */

/* The bits of |x|, whose order is that of the numbers: what is infinite or no number comes out largest. */
static ALWAYS_INLINE __m512i bits_of(__m512 x)
{
    return _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(INT32_MAX));
}

/* max|x| from its bits, NaN for Inf and NaN. */
static ALWAYS_INLINE float largest_from(__m512i bits)
{
    uint32_t most = _mm512_reduce_max_epu32(bits);
    float largest;
    memcpy(&largest, &most, sizeof largest);
    return most >= 0x7f800000 ? NAN : largest;
}

/* max|x| over a row of n values, n a multiple of 16, NaN where one is not finite. */
static ALWAYS_INLINE float largest_of(const float *x, size_t n)
{
    __m512i most = _mm512_setzero_si512();
    for (size_t i = 0; i < n; i += 16)
        most = _mm512_max_epu32(most, bits_of(_mm512_loadu_ps(x + i)));
    return largest_from(most);
}

/* As in ref/attention_i16.c. */
static ALWAYS_INLINE float factor_of(float *scale, float largest, float most)
{
    if (!(largest >= 0x1p-100f)) {
        *scale = largest != largest ? NAN : 0;
        return 0;
    }
    *scale = largest / most;
    return most / largest;
}

/* Sixteen integers; all 0 for factor 0, whatever x is. */
static ALWAYS_INLINE __m512i rounded(__m512 x, float factor)
{
    return _mm512_maskz_cvtps_epi32(factor == 0 ? 0 : 0xffff, _mm512_mul_ps(x, _mm512_set1_ps(factor)));
}

void attn_query_avx512(float *q, size_t head_dim)
{
    float scale, factor = factor_of(&scale, largest_of(q, head_dim), ROW_MOST);
    for (size_t c = 0; c < head_dim; c += 16)          /* in place: never writes beyond what it has read */
        _mm256_storeu_si256((__m256i *)(void *)((char *)q + 2 * c), _mm512_cvtepi32_epi16(rounded(_mm512_loadu_ps(q + c), factor)));
    memcpy((char *)q + 2 * head_dim, &scale, sizeof scale);
}

/* Pairs of columns lie 64 bytes apart. */
void attn_store_key_avx512(void *tile, size_t index, const float *x, size_t head_dim)
{
    float factor = factor_of(&tile16_scales(tile, head_dim)[index], largest_of(x, head_dim), ROW_MOST);
    char *to = (char *)tile + 2 * tile16_key(head_dim, index, 0);
    for (size_t c = 0; c < head_dim; c += 16) {
        uint32_t pair[8];
        _mm256_storeu_si256((__m256i *)(void *)pair, _mm512_cvtepi32_epi16(rounded(_mm512_loadu_ps(x + c), factor)));
        for (size_t i = 0; i < 8; i++)
            memcpy(to + (c / 2 + i) * 64, &pair[i], sizeof pair[i]);
    }
}

/* Every second int16 of the pair of tokens is this one's; the others may be another thread's at the same time: not touched. */
void attn_store_value_avx512(void *tile, size_t index, const float *x, size_t head_dim)
{
    float factor = factor_of(&tile16_scales(tile, head_dim)[index], largest_of(x, head_dim), ROW_MOST);
    int16_t *to = (int16_t *)tile + tile16_value(head_dim, index, 0);
    for (size_t c = 0; c < head_dim; c += 16) {
        int16_t value[16];
        _mm256_storeu_si256((__m256i *)(void *)value, _mm512_cvtepi32_epi16(rounded(_mm512_loadu_ps(x + c), factor)));
        for (size_t i = 0; i < 16; i++)
            to[2 * (c + i)] = value[i];
    }
}

static ALWAYS_INLINE __m512i pair_of(const void *at)
{
    int32_t pair;
    memcpy(&pair, at, sizeof pair);
    return _mm512_set1_epi32(pair);
}

/* acc += pairs of a times pairs of b, in place: gcc 12 makes two copies of acc of the intrinsic, and then runs out of registers. */
static ALWAYS_INLINE void add_pairs(__m512i *acc, __m512i a, __m512i b)
{
    __asm__("vpdpwssd %2, %1, %0" : "+v"(*acc) : "v"(a), "v"(b));
}

/* A score from its sum of integers; full vectors are stored whole: what a masked store wrote cannot be read again at once. */
static ALWAYS_INLINE void put_scores(float *scores, __m512 sum, float query_scale, const float *key_scale, size_t t, size_t nk)
{
    __m512 score = _mm512_mul_ps(sum, _mm512_mul_ps(_mm512_set1_ps(query_scale), _mm512_loadu_ps(key_scale + t)));
    if (nk == ATTN_TILE || t + 16 <= nk)
        _mm512_storeu_ps(scores + t, score);
    else
        _mm512_mask_storeu_ps(scores + t, t < nk ? lanes_16(nk - t) : 0, score);
}

static ALWAYS_INLINE float query_scale(const char *q, size_t head_dim, float scale)
{
    float own;
    memcpy(&own, q + 2 * head_dim, sizeof own);
    return own * scale;
}

/* Four queries by 32 keys from key t on. q_bytes: from query to query. */
static ALWAYS_INLINE void score_block(float *scores, const char *q, size_t q_bytes, const char *tile, size_t t, size_t nk,
                                      size_t head_dim, float scale)
{
    const char *from = tile + 2 * head_dim * t, *at = q;
    __m512 sum[8];
    UNROLL_ALL
    for (int i = 0; i < 8; i++)
        sum[i] = _mm512_setzero_ps();
    for (size_t c = 0; c < head_dim; c += RUN) {
        __m512i acc[8];
        UNROLL_ALL
        for (int i = 0; i < 8; i++)
            acc[i] = _mm512_setzero_si512();
        for (size_t pairs = (head_dim - c < RUN ? head_dim - c : RUN) / 2; pairs > 0; pairs--, from += 64, at += 4) {
            __m512i low = _mm512_loadu_si512(from), high = _mm512_loadu_si512(from + 32 * head_dim);
            UNROLL_ALL
            for (int i = 0; i < 4; i++) {
                __m512i value = pair_of(at + (size_t)i * q_bytes);
                add_pairs(&acc[2 * i], low, value);
                add_pairs(&acc[2 * i + 1], high, value);
            }
        }
        UNROLL_ALL
        for (int i = 0; i < 8; i++)
            sum[i] = _mm512_add_ps(sum[i], _mm512_cvtepi32_ps(acc[i]));
    }
    UNROLL_ALL
    for (int i = 0; i < 4; i++) {
        float both = query_scale(q + (size_t)i * q_bytes, head_dim, scale);
        put_scores(scores + i * ATTN_TILE, sum[2 * i], both, tile16_const_scales(tile, head_dim), t, nk);
        put_scores(scores + i * ATTN_TILE, sum[2 * i + 1], both, tile16_const_scales(tile, head_dim), t + 16, nk);
    }
}

/* Few queries by sixteen keys from key t on, in the order of their addresses: `ways` neighbouring lines have sums of their own, so
 * that enough products are under way. `ahead`: the same place of the next tile is asked for, whose lines the machine's own
 * prefetchers carry on only when they are asked for in order (requests for two lines 2 KiB apart in turn: decode 5 % slower). */
static ALWAYS_INLINE void score_line(float *scores, const char *q, size_t q_bytes, const char *tile, size_t t, size_t nk,
                                     size_t head_dim, float scale, int queries, int ways, bool ahead)
{
    const size_t tile_bytes = ATTN_TILE * (2 * head_dim + sizeof(float));
    const char *from = tile + 2 * head_dim * t, *at = q;
    __m512 sum[4];
    UNROLL_ALL
    for (int i = 0; i < queries; i++)
        sum[i] = _mm512_setzero_ps();
    for (size_t c = 0; c < head_dim; c += RUN) {
        const char *end = from + 32 * (head_dim - c < RUN ? head_dim - c : RUN);
        __m512i acc[8];
        UNROLL_ALL
        for (int i = 0; i < queries * ways; i++)
            acc[i] = _mm512_setzero_si512();
        for (; from < end; from += 64 * ways, at += 4 * ways) {
            UNROLL_ALL
            for (int w = 0; ahead && w < ways; w++)
                prefetch_line(from + 64 * w, tile_bytes);
            UNROLL_ALL
            for (int w = 0; w < ways; w++) {
                __m512i key = _mm512_loadu_si512(from + 64 * w);
                UNROLL_ALL
                for (int i = 0; i < queries; i++)
                    add_pairs(&acc[i * ways + w], key, pair_of(at + (size_t)i * q_bytes + 4 * w));
            }
        }
        UNROLL_ALL
        for (int i = 0; i < queries; i++) {
            __m512i all = _mm512_add_epi32(acc[i * ways], acc[i * ways + 1]);
            if (ways == 4)
                all = _mm512_add_epi32(all, _mm512_add_epi32(acc[i * ways + 2], acc[i * ways + 3]));
            sum[i] = _mm512_add_ps(sum[i], _mm512_cvtepi32_ps(all));
        }
    }
    UNROLL_ALL
    for (int i = 0; i < queries; i++)
        put_scores(scores + i * ATTN_TILE, sum[i], query_scale(q + (size_t)i * q_bytes, head_dim, scale),
                   tile16_const_scales(tile, head_dim), t, nk);
}

/* All queries by nk keys. The first ones ask for the tile that follows: with few queries it comes from memory, with many from the
 * third-level cache, for whose lines a prefill waited a tenth of its attention. */
static ALWAYS_INLINE void score_tile(float *scores, const char *q, size_t q_bytes, size_t nq, const char *tile, size_t nk,
                                     size_t head_dim, float scale)
{
    size_t i = 0;
    if (nq >= 4)
        for (size_t t = 0; t < nk; t += 16)
            score_line(scores, q, q_bytes, tile, t, nk, head_dim, scale, 4, 2, true), i = 4;
    for (; i + 4 <= nq; i += 4)
        for (size_t t = 0; t < nk; t += 32)
            score_block(scores + i * ATTN_TILE, q + i * q_bytes, q_bytes, tile, t, nk, head_dim, scale);
    for (size_t t = 0; i == 0 && t < nk; t += 16)
        score_line(scores, q, q_bytes, tile, t, nk, head_dim, scale, 1, 4, true);
    for (i = i == 0 ? 1 : i; i < nq; i++)
        for (size_t t = 0; t < nk; t += 16)
            score_line(scores + i * ATTN_TILE, q + i * q_bytes, q_bytes, tile, t, nk, head_dim, scale, 1, 4, false);
}

void attn_scores_i16_avx512(float *scores, const float *q, size_t q_stride, size_t nq, const void *k, size_t k_stride, size_t nk,
                            size_t head_dim, float scale)
{
    (void)k_stride;
    if (nk == ATTN_TILE)
        score_tile(scores, (const char *)q, q_stride * sizeof *q, nq, k, ATTN_TILE, head_dim, scale);
    else
        score_tile(scores, (const char *)q, q_stride * sizeof *q, nq, k, nk, head_dim, scale);
}

/* A query's weights times the rows' scales; nothing may come of rows beyond nk, not even NaN. */
static ALWAYS_INLINE void scaled_weights(__m512 weight[4], const float *probs, const float *value_scale, size_t nk)
{
    UNROLL_ALL
    for (size_t i = 0; i < 4; i++) {
        __mmask16 mask = 16 * i < nk ? lanes_16(nk - 16 * i) : 0;
        if (nk == ATTN_TILE)
            weight[i] = _mm512_mul_ps(_mm512_loadu_ps(probs + 16 * i), _mm512_loadu_ps(value_scale + 16 * i));
        else
            weight[i] = _mm512_maskz_mul_ps(mask, _mm512_maskz_loadu_ps(mask, probs + 16 * i),
                                            _mm512_loadu_ps(value_scale + 16 * i));
    }
}

/* The weights of n <= most queries as integers, two tokens beside each other, and each query's factor for its sums. Largest
 * ones first, for all queries, then factors, as factor_of, then the integers: in one go per query each waits for the one before. */
static ALWAYS_INLINE void round_weights(int16_t *to, float scale[QUERIES], const float *probs, size_t n, const float *value_scale,
                                        size_t nk, size_t most)
{
    _Alignas(64) float factor[QUERIES];
    __m512 w[4], part[QUERIES];
    UNROLL_ALL
    for (size_t j = 0; j < most; j++) {
        part[j] = _mm512_setzero_ps();
        if (j >= n)
            continue;
        scaled_weights(w, probs + j * ATTN_TILE, value_scale, nk);
        part[j] = folded(folded(w[0], w[1], FOLD_MAX_BITS), folded(w[2], w[3], FOLD_MAX_BITS), FOLD_MAX_BITS);
    }
    const __m512 top = _mm512_set1_ps(PROB_MOST);
    const __m512 largest = most == 4 ? fold_4_vectors(part, FOLD_MAX_BITS) : fold_16_vectors(part, FOLD_MAX_BITS);
    const __mmask16 infinite = _mm512_cmpge_epu32_mask(_mm512_castps_si512(largest), _mm512_set1_epi32(0x7f800000));
    const __mmask16 usable = _mm512_cmp_ps_mask(largest, _mm512_set1_ps(0x1p-100f), _CMP_GE_OQ) & (__mmask16)~infinite;
    _mm512_store_ps(factor, _mm512_maskz_div_ps(usable, top, largest));
    _mm512_storeu_ps(scale, _mm512_mask_mov_ps(_mm512_maskz_div_ps(usable, largest, top), infinite, _mm512_set1_ps(NAN)));
    /* packs works within quarters of the vectors: the quarters' halves are put back in order. */
    const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    for (size_t j = 0; j < n; j++, to += ATTN_TILE) {
        scaled_weights(w, probs + j * ATTN_TILE, value_scale, nk);
        UNROLL_ALL
        for (size_t i = 0; i < 4; i += 2) {
            /* Where the factor is 0 the weights are too small or not finite; of the latter no integer matters, the scale is NaN. */
            __m512i q = _mm512_packs_epi32(_mm512_cvtps_epi32(_mm512_mul_ps(w[i], _mm512_set1_ps(factor[j]))),
                                           _mm512_cvtps_epi32(_mm512_mul_ps(w[i + 1], _mm512_set1_ps(factor[j]))));
            _mm512_storeu_si512(to + 16 * i, _mm512_permutexvar_epi64(order, q));
        }
    }
}

/* `queries` queries by 16 * vectors columns from c on. */
static ALWAYS_INLINE void mix_block(float *out, size_t out_stride, const int16_t *weights, const float *scale, const char *tile,
                                    size_t c, size_t nk, size_t head_dim, int queries, int vectors, bool ahead)
{
    const size_t tile_bytes = ATTN_TILE * (2 * head_dim + sizeof(float));
    __m512i acc[16];
    UNROLL_ALL
    for (int i = 0; i < queries * vectors; i++)
        acc[i] = _mm512_setzero_si512();
    for (size_t t = 0; t < nk; t += 2) {
        __m512i value[4];
        UNROLL_ALL
        for (int j = 0; j < vectors; j++) {
            const char *from = tile + 2 * t * head_dim + 4 * (c + 16 * (size_t)j);
            value[j] = _mm512_loadu_si512(from);
            if (ahead)
                prefetch_line(from, tile_bytes);
        }
        UNROLL_ALL
        for (int i = 0; i < queries; i++) {
            __m512i weight = pair_of(weights + i * ATTN_TILE + (int)t);
            UNROLL_ALL
            for (int j = 0; j < vectors; j++)
                add_pairs(&acc[i * vectors + j], value[j], weight);
        }
    }
    UNROLL_ALL
    for (int i = 0; i < queries; i++)
        UNROLL_ALL
        for (int j = 0; j < vectors; j++) {
            float *to = out + (size_t)i * out_stride + c + 16 * j;
            _mm512_storeu_ps(to, _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[i * vectors + j]), _mm512_set1_ps(scale[i]),
                                                 _mm512_loadu_ps(to)));
        }
}

/* A function of its own, so that its 16 sums get all registers. */
static __attribute__((noinline)) void mix_4_by_4(float *out, size_t out_stride, const int16_t *weights, const float *scale,
                                                 const char *tile, size_t c, size_t nk, size_t head_dim)
{
    mix_block(out, out_stride, weights, scale, tile, c, nk, head_dim, 4, 4, false);
}

static ALWAYS_INLINE void mix_queries(float *out, size_t out_stride, const int16_t *weights, const float *scale, const char *tile,
                                      size_t nk, size_t head_dim, int queries, bool ahead)
{
    size_t c = 0;
    for (; c + 64 <= head_dim; c += 64) {
        if (queries == 4 && !ahead)
            mix_4_by_4(out, out_stride, weights, scale, tile, c, nk, head_dim);
        else
            mix_block(out, out_stride, weights, scale, tile, c, nk, head_dim, queries, 4, ahead);
    }
    for (; c < head_dim; c += 16)
        mix_block(out, out_stride, weights, scale, tile, c, nk, head_dim, queries, 1, ahead);
}

void attn_mix_i16_avx512(float *out, size_t out_stride, const float *probs, size_t nq, const void *v, size_t v_stride, size_t nk,
                         size_t head_dim)
{
    _Alignas(64) int16_t weights[QUERIES * ATTN_TILE];
    const float *value_scale = tile16_const_scales(v, head_dim);
    float scale[QUERIES];
    (void)v_stride;
    for (size_t first = 0; first < nq; first += QUERIES) {
        size_t n = nq - first < QUERIES ? nq - first : QUERIES, i = 0;
        float *to = out + first * out_stride;
        const float *p = probs + first * ATTN_TILE;
        if (nk == ATTN_TILE && n == QUERIES)
            round_weights(weights, scale, p, QUERIES, value_scale, ATTN_TILE, QUERIES);
        else if (nk == ATTN_TILE && n <= 4)
            round_weights(weights, scale, p, n, value_scale, ATTN_TILE, 4);
        else if (n <= 4)
            round_weights(weights, scale, p, n, value_scale, nk, 4);
        else
            round_weights(weights, scale, p, n, value_scale, nk, QUERIES);
        if (first == 0 && n >= 4) {
            mix_queries(to, out_stride, weights, scale, v, nk, head_dim, 4, true);
            i = 4;
        }
        for (; i + 4 <= n; i += 4)
            mix_queries(to + i * out_stride, out_stride, weights + i * ATTN_TILE, scale + i, v, nk, head_dim, 4, false);
        for (; i < n; i++)
            mix_queries(to + i * out_stride, out_stride, weights + i * ATTN_TILE, scale + i, v, nk, head_dim, 1,
                        first + i == 0);
    }
}
