#include "matmul_few_avx512.h"

/* Activations of up to sixteen tokens in the order in which matmul_few_avx512.h multiplies them, and its results to their places.
 * The first is done once per stage and thread (job->kept; for every 64 rows it was 4 %), the second once per block of rows. */

/* Lanes of 128 bits: v[i] lane j becomes v[j] lane i. */
static ALWAYS_INLINE void transpose_lanes(__m512i v[4])
{
    __m512i a = _mm512_shuffle_i32x4(v[0], v[1], 0x44), b = _mm512_shuffle_i32x4(v[2], v[3], 0x44);
    __m512i c = _mm512_shuffle_i32x4(v[0], v[1], 0xee), d = _mm512_shuffle_i32x4(v[2], v[3], 0xee);
    v[0] = _mm512_shuffle_i32x4(a, b, 0x88);
    v[1] = _mm512_shuffle_i32x4(a, b, 0xdd);
    v[2] = _mm512_shuffle_i32x4(c, d, 0x88);
    v[3] = _mm512_shuffle_i32x4(c, d, 0xdd);
}

/* 64 columns of all tokens to 16 / G vectors. */
static ALWAYS_INLINE void arrange_64(int8_t (*out)[64], const int8_t *const *x, size_t at, int G)
{
    __m512i v[16], pair[4];
    for (int i = 0; i < 16 / G; i++)
        v[i] = _mm512_loadu_si512(x[i] + at);
    if (G == 1) {
        transpose_16x16(v);
    } else if (G == 4) {
        transpose_lanes(v);
    } else {                                 /* pairs of tokens, even columns of 8 bytes and odd ones, then the pairs */
        __m512i odd[4];
        for (int i = 0; i < 4; i++) {
            pair[i] = _mm512_unpacklo_epi64(v[2 * i], v[2 * i + 1]);
            odd[i] = _mm512_unpackhi_epi64(v[2 * i], v[2 * i + 1]);
        }
        transpose_lanes(pair);
        transpose_lanes(odd);
        for (int i = 0; i < 4; i++) {
            v[2 * i] = pair[i];
            v[2 * i + 1] = odd[i];
        }
    }
    for (int i = 0; i < 16 / G; i++)
        _mm512_store_si512(out[i], v[i]);
}

/* Lane j: v's lane j / G. */
static ALWAYS_INLINE __m512 repeat_lanes(__m512 v, int G)
{
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm512_permutexvar_ps(_mm512_srli_epi32(lane, (unsigned)__builtin_ctz((unsigned)G)), v);
}

/* v's lane j to lane j G + g, the others zero. */
static ALWAYS_INLINE __m512i place_lanes(__m512i v, int g, int G)
{
    unsigned every = G == 1 ? 0xffff : G == 2 ? 0x5555 : 0x1111;
    return _mm512_maskz_expand_epi32((__mmask16)(every << g), v);
}

/* What takes the offset off again: per lane, so that a lane's sum stays as small as its own values make it (few_pairs). */
static void arrange_init(struct few_run *out, const struct panel_shape *shape, int G)
{
    const size_t subs = PANEL_COLS / shape->sub, steps = shape->sub / 4 / (size_t)G;
    const unsigned shift = (unsigned)__builtin_ctz(shape->offset);
    if (shape->scaled) {
        __m512i sum = _mm512_setzero_si512();
        for (size_t i = 0; i < PANEL_COLS / 4 / (size_t)G; i++)
            sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi8(1), _mm512_load_si512(out->x[i]));
        _mm512_store_si512(out->init[0], _mm512_mullo_epi32(sum, _mm512_set1_epi32(-(int)shape->offset)));
        return;
    }
    for (size_t s = 0; s < subs; s++) {
        __m512i sum = _mm512_setzero_si512();
        for (size_t i = 0; i < steps; i++)
            sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi8(1), _mm512_load_si512(out->x[s * steps + i]));
        _mm512_store_si512(out->init[s], _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32(sum, shift)));
    }
}

/* A run's sums of x per sub-block, as the minimums take them; lanes are tokens first. */
static void arrange_sums(struct few_run *out, const uint8_t *const *acts, size_t sums_at, const struct panel_shape *shape, int G)
{
    const int subs = PANEL_COLS / (int)shape->sub;
    __m512i v[16];
    for (int i = 0; i < 16; i++)
        v[i] = _mm512_cvtepi16_epi32(_mm256_loadu_si256((const __m256i *)(acts[i] + sums_at)));
    transpose_16x16(v);
    for (int s = 0; shape->sub == 32 && s < 8; s++)
        v[s] = _mm512_add_epi32(v[2 * s], v[2 * s + 1]);
    if (shape->kind == PANEL_SMALL) {
        for (int s = 0; s < 8; s++)
            _mm512_store_ps(out->dsum[s], _mm512_mul_ps(_mm512_load_ps(out->dx[s]), repeat_lanes(_mm512_cvtepi32_ps(v[s]), G)));
        return;
    }
    for (int p = 0; p < subs / 2 / G; p++) {
        __m512i all = _mm512_setzero_si512();
        for (int g = 0; g < G; g++) {
            __m512i low = v[2 * (p * G + g)], high = v[2 * (p * G + g) + 1];
            __m512i both = _mm512_or_si512(_mm512_and_si512(low, _mm512_set1_epi32(0xffff)), _mm512_slli_epi32(high, 16));
            all = _mm512_or_si512(all, place_lanes(both, g, G));
        }
        _mm512_store_si512(out->sums[p], all);
    }
}

static void arrange_scales(struct few_run *out, const uint8_t *const *acts, const struct act_layout *layout, size_t run,
                           enum panel_kind kind, int G)
{
    if (kind == PANEL_SUPER) {
        float dx[16];
        for (int i = 0; i < 16; i++)
            memcpy(&dx[i], acts[i] + layout->scales + run * 4, 4);
        _mm512_store_ps(out->dx[0], repeat_lanes(_mm512_loadu_ps(dx), G));
        return;
    }
    float dx[16][8] __attribute__((aligned(64)));
    __m512 columns[8];
    for (int i = 0; i < 16; i++)
        memcpy(dx[i], acts[i] + layout->scales + run * 32, sizeof dx[i]);
    transpose_16x8(columns, (const float (*)[8])dx);
    for (int s = 0; s < 8; s++)
        _mm512_store_ps(out->dx[s], repeat_lanes(columns[s], G));
}

static ALWAYS_INLINE void arrange(struct few_scratch *scratch, const struct matmul_job *job, const struct panel_shape *shape, int G)
{
    /* Lanes without a token repeat the last one: their results go nowhere. */
    const struct act_layout layout = act_layout(shape->kind == PANEL_SUPER ? ACT_Q8_256 : ACT_Q8_32, job->cols);
    const uint8_t *acts[16];
    for (size_t i = 0; i < 16; i++)
        acts[i] = (const uint8_t *)job->acts + (i < job->toks ? i : job->toks - 1) * job->act_stride;
    for (size_t run = 0; run * PANEL_COLS < job->cols; run++) {
        struct few_run *out = &scratch->run[run];
        for (size_t k = 0; k < 4; k++)
            arrange_64(out->x + 16 / G * k, (const int8_t *const *)acts, run * PANEL_COLS + 64 * k, G);
        arrange_scales(out, acts, &layout, run, shape->kind, G);
        if (shape->offset)
            arrange_init(out, shape, G);
        if (shape->mins)
            arrange_sums(out, acts, layout.sums + run * 32, shape, G);
    }
}

void few_arrange_avx512(struct few_scratch *scratch, const struct matmul_job *job, const struct panel_shape *shape)
{
    if (few_groups(job->toks) == 1)
        arrange(scratch, job, shape, 1);
    else if (few_groups(job->toks) == 2)
        arrange(scratch, job, shape, 2);
    else
        arrange(scratch, job, shape, 4);
}

void few_store_avx512(const struct matmul_job *job, size_t row, size_t rows, const float (*acc)[16], size_t G)
{
    float *out = job->out + row;
    size_t r = 0;
    for (; G == 1 && r + 16 <= rows; r += 16) {
        __m512i v[16];
        for (int i = 0; i < 16; i++)
            v[i] = _mm512_castps_si512(_mm512_load_ps(acc[r + (size_t)i]));
        transpose_16x16(v);
        for (size_t t = 0; t < job->toks; t++)
            _mm512_storeu_si512(out + t * job->out_stride + r, v[t]);
    }
    for (; r < rows; r++)
        for (size_t t = 0; t < job->toks; t++)
            out[t * job->out_stride + r] = acc[r / G][t * G + r % G];
}
