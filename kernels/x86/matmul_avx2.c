#include "matmul_wide_avx2.h"

/* The many-token product on AVX2: panels of weights against tokens, lanes are rows.
 *
 * One call multiplies a panel of bytes (16 rows, two vectors) with up to three tokens in one run of 256 columns. Pairs of products
 * are added as int16 for as long as their format's largest value allows (16 columns and more for four bits), then scaled and
 * widened at once. Six sums and six totals leave four of the 16 registers for weights and activations; with four tokens the sums
 * went to the stack and back. Signed values of eight bits come as panels of int16 (matmul_wide_avx2.c). */
enum { TOKS = 3, BLOCK_PANELS = BLOCK_ROWS / PANEL_ROWS, BLOCK_TOKS = 512 };

struct many_scratch {
    float            acc[BLOCK_TOKS + SIX_TOKS][BLOCK_ROWS];        /* a padded group writes beyond the last token */
    union any_panel  panels[BLOCK_PANELS];
    struct token_run tokens[SIX_TOKS];
    union { int16_t wide[SIX_TOKS][PANEL_COLS]; int8_t bytes[SIX_TOKS][PANEL_COLS]; } x;       /* of six tokens   */
    uint8_t          copy[PANEL_ROWS][PANEL_COLS / 32 * 36];
};

size_t matmul_scratch_avx2(void)
{
    return (sizeof(struct many_scratch) + 63) & ~(size_t)63;
}

void columns_of_16_avx2(void *out, const void *rows, size_t stride, size_t groups)
{
    for (size_t g = 0; g < groups; g++)
        for (size_t half = 0; half < 2; half++) {
            __m256i v[8];
            for (size_t r = 0; r < 8; r++)
                v[r] = _mm256_load_si256((const __m256i *)((const char *)rows + (8 * half + r) * stride + 32 * g));
            transpose_8x8(v);
            for (size_t i = 0; i < 8; i++)
                _mm256_store_si256((__m256i *)((char *)out + (8 * g + i) * 64 + 32 * half), v[i]);
        }
}

/* How many maddubs results can be added as int16. */
static ALWAYS_INLINE int sums_that_fit(const struct panel_shape shape)
{
    int fit = 32767 / (2 * 127 * (int)shape.top), all = (int)shape.sub / 4;
    return fit >= all ? all : fit >= 4 ? 4 : fit >= 2 ? 2 : 1;
}

/* sum[v][t]: pairs of products of `steps` groups of four columns from group c on. */
static ALWAYS_INLINE void pair_sums(__m256i sum[2][TOKS], const struct panel *p, const int8_t *const *x, int c, int steps, int toks)
{
    UNROLL_ALL
    for (int i = 0; i < steps; i++) {
        __m256i w0 = settled(_mm256_load_si256((const __m256i *)p->q[c + i]));
        __m256i w1 = settled(_mm256_load_si256((const __m256i *)p->q[c + i] + 1));
        UNROLL_ALL
        for (int t = 0; t < toks; t++) {
            __m256i v = broadcast_4_bytes(x[t] + 4 * (c + i));
            __m256i a = _mm256_maddubs_epi16(w0, v), b = _mm256_maddubs_epi16(w1, v);
            sum[0][t] = settled(i == 0 ? a : _mm256_add_epi16(sum[0][t], a));
            sum[1][t] = settled(i == 0 ? b : _mm256_add_epi16(sum[1][t], b));
        }
    }
}

/* total[v][t] += products of sub-block s, whose values of seven bits leave no room for sums as int16, times the scales. */
static ALWAYS_INLINE void add_seven_bits(__m256i total[2][TOKS], const struct panel *p, const int8_t *const *x, int s, int toks,
                                         const struct panel_shape shape)
{
    const int groups = (int)shape.sub / 4;
    const __m256i *scale = (const __m256i *)p->scale.i[s], s0 = _mm256_load_si256(scale), s1 = _mm256_load_si256(scale + 1);
#pragma GCC unroll 2
    for (int i = 0; i < groups; i++) {
        __m256i w0 = _mm256_load_si256((const __m256i *)p->q[s * groups + i]);
        __m256i w1 = _mm256_load_si256((const __m256i *)p->q[s * groups + i] + 1);
        UNROLL_ALL
        for (int t = 0; t < toks; t++) {
            __m256i v = broadcast_4_bytes(x[t] + 4 * (s * groups + i));
            total[0][t] = _mm256_add_epi32(total[0][t], _mm256_madd_epi16(_mm256_maddubs_epi16(w0, v), s0));
            total[1][t] = _mm256_add_epi32(total[1][t], _mm256_madd_epi16(_mm256_maddubs_epi16(w1, v), s1));
        }
    }
}

static ALWAYS_INLINE void micro_super(float (*acc)[BLOCK_ROWS], const struct panel *p, const int8_t *const *x,
                                      const struct token_run *token, int toks, const struct panel_shape shape)
{
    const int subs = PANEL_COLS / (int)shape.sub, steps = sums_that_fit(shape), groups = (int)shape.sub / 4 / steps;
    __m256i total[2][TOKS], sum[2][TOKS];
    for (int t = 0; t < toks; t++)
        total[0][t] = total[1][t] = _mm256_setzero_si256();
    for (int s = 0; s < subs && steps == 1; s++)
        add_seven_bits(total, p, x, s, toks, shape);
    for (int s = 0; s < subs && steps > 1; s++)
        UNROLL_ALL
        for (int g = 0; g < groups; g++) {
            pair_sums(sum, p, x, (s * groups + g) * steps, steps, toks);
            __m256i s0 = _mm256_load_si256((const __m256i *)p->scale.i[s]);
            __m256i s1 = _mm256_load_si256((const __m256i *)p->scale.i[s] + 1);
            UNROLL_ALL
            for (int t = 0; t < toks; t++) {
                total[0][t] = settled(_mm256_add_epi32(total[0][t], _mm256_madd_epi16(sum[0][t], s0)));
                total[1][t] = settled(_mm256_add_epi32(total[1][t], _mm256_madd_epi16(sum[1][t], s1)));
            }
        }
    const bool offset = shape.offset;
    for (int t = 0; t < toks; t++)
        for (int half = 0; half < 2; half++) {
            __m256i low = _mm256_setzero_si256();
            if (shape.mins || offset)
                for (int s = 0; s < subs / 2; s++) {
                    __m256i pair = _mm256_load_si256((const __m256i *)p->min.i[s] + half);
                    low = _mm256_add_epi32(low, _mm256_madd_epi16(pair, broadcast_4_bytes(token[t].sums + 2 * s)));
                }
            __m256i sums = offset ? _mm256_sub_epi32(total[half][t], _mm256_slli_epi32(low, __builtin_ctz(shape.offset | 0x10000)))
                                  : total[half][t];
            __m256 dx = _mm256_set1_ps(token[t].dx[0]), a = _mm256_loadu_ps(acc[t] + 8 * half);
            a = _mm256_fmadd_ps(_mm256_mul_ps(_mm256_load_ps(p->d + 8 * half), dx), _mm256_cvtepi32_ps(sums), a);
            if (shape.mins)
                a = _mm256_fnmadd_ps(_mm256_mul_ps(_mm256_load_ps(p->dmin + 8 * half), dx), _mm256_cvtepi32_ps(low), a);
            _mm256_storeu_ps(acc[t] + 8 * half, a);
        }
}

static ALWAYS_INLINE void micro_small(float (*acc)[BLOCK_ROWS], const struct panel *p, const int8_t *const *x,
                                      const struct token_run *token, int toks, const struct panel_shape shape)
{
    const int subs = PANEL_COLS / (int)shape.sub, steps = sums_that_fit(shape), groups = (int)shape.sub / 4 / steps;
    const int per_dx = 32 / (int)shape.sub;
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i idot[2][TOKS], sum[2][TOKS];
    for (int s = 0; s < subs; s++) {
        UNROLL_ALL
        for (int g = 0; g < groups; g++) {
            pair_sums(sum, p, x, (s * groups + g) * steps, steps, toks);
            UNROLL_ALL
            for (int t = 0; t < toks; t++) {
                __m256i a = _mm256_madd_epi16(sum[0][t], ones), b = _mm256_madd_epi16(sum[1][t], ones);
                idot[0][t] = settled(g == 0 ? a : _mm256_add_epi32(idot[0][t], a));
                idot[1][t] = settled(g == 0 ? b : _mm256_add_epi32(idot[1][t], b));
            }
        }
        for (int half = 0; half < 2; half++) {
            __m256 scale = _mm256_load_ps(p->scale.f[s] + 8 * half);
            UNROLL_ALL
            for (int t = 0; t < toks; t++) {
                __m256i dot = idot[half][t];
                if (shape.offset)
                    dot = _mm256_add_epi32(dot, _mm256_set1_epi32(token[t].init[s]));
                __m256 factor = _mm256_mul_ps(scale, _mm256_set1_ps(token[t].dx[s / per_dx]));
                __m256 a = _mm256_fmadd_ps(factor, _mm256_cvtepi32_ps(dot), _mm256_loadu_ps(acc[t] + 8 * half));
                if (shape.mins)
                    a = _mm256_fnmadd_ps(_mm256_load_ps(p->min.f[s] + 8 * half), _mm256_set1_ps(token[t].dsum[s]), a);
                _mm256_storeu_ps(acc[t] + 8 * half, a);
            }
        }
    }
}

typedef void micro_fn(float (*acc)[BLOCK_ROWS], const struct panel *p, const int8_t *const *x, const struct token_run *token,
                      int toks);

/* Three tokens or two; a single one is repeated into a spare row of acc. */
static ALWAYS_INLINE void micro(float (*acc)[BLOCK_ROWS], const struct panel *p, const int8_t *const *x,
                                const struct token_run *token, int toks, const struct panel_shape shape)
{
    if (shape.kind == PANEL_SUPER) {
        if (toks == 3) micro_super(acc, p, x, token, 3, shape);
        else micro_super(acc, p, x, token, 2, shape);
    } else {
        if (toks == 3) micro_small(acc, p, x, token, 3, shape);
        else micro_small(acc, p, x, token, 2, shape);
    }
}

/* One per combination that occurs; micro_of finds it. */
static void micro_q2_k(float (*acc)[BLOCK_ROWS], const struct panel *p, const int8_t *const *x, const struct token_run *token,
                       int toks)
{
    micro(acc, p, x, token, toks, (struct panel_shape){ .kind = PANEL_SUPER, .sub = 16, .top = 3, .mins = true });
}

static void micro_q3_k(float (*acc)[BLOCK_ROWS], const struct panel *p, const int8_t *const *x, const struct token_run *token,
                       int toks)
{
    micro(acc, p, x, token, toks, (struct panel_shape){ .kind = PANEL_SUPER, .sub = 16, .top = 7, .offset = 4 });
}

static void micro_q4_k(float (*acc)[BLOCK_ROWS], const struct panel *p, const int8_t *const *x, const struct token_run *token,
                       int toks)
{
    micro(acc, p, x, token, toks, (struct panel_shape){ .kind = PANEL_SUPER, .sub = 32, .top = 15, .mins = true });
}

static void micro_q5_k(float (*acc)[BLOCK_ROWS], const struct panel *p, const int8_t *const *x, const struct token_run *token,
                       int toks)
{
    micro(acc, p, x, token, toks, (struct panel_shape){ .kind = PANEL_SUPER, .sub = 32, .top = 31, .mins = true });
}

static void micro_q6_k(float (*acc)[BLOCK_ROWS], const struct panel *p, const int8_t *const *x, const struct token_run *token,
                       int toks)
{
    micro(acc, p, x, token, toks, (struct panel_shape){ .kind = PANEL_SUPER, .sub = 16, .top = 63, .offset = 32 });
}

/* IQ3_S, IQ1_S. */
static void micro_iq3_s(float (*acc)[BLOCK_ROWS], const struct panel *p, const int8_t *const *x, const struct token_run *token,
                        int toks)
{
    micro(acc, p, x, token, toks, (struct panel_shape){ .kind = PANEL_SUPER, .sub = 32, .top = 31, .offset = 16 });
}

static void micro_iq1_m(float (*acc)[BLOCK_ROWS], const struct panel *p, const int8_t *const *x, const struct token_run *token,
                        int toks)
{
    micro(acc, p, x, token, toks, (struct panel_shape){ .kind = PANEL_SUPER, .sub = 16, .top = 31, .offset = 16 });
}

/* IQ2_XXS, IQ3_XXS. */
static void micro_seven_bits_32(float (*acc)[BLOCK_ROWS], const struct panel *p, const int8_t *const *x,
                                const struct token_run *token, int toks)
{
    micro(acc, p, x, token, toks, (struct panel_shape){ .kind = PANEL_SUPER, .sub = 32, .top = 127, .offset = 64 });
}

/* IQ2_XS, IQ2_S. */
static void micro_seven_bits_16(float (*acc)[BLOCK_ROWS], const struct panel *p, const int8_t *const *x,
                                const struct token_run *token, int toks)
{
    micro(acc, p, x, token, toks, (struct panel_shape){ .kind = PANEL_SUPER, .sub = 16, .top = 127, .offset = 64 });
}

static void micro_q4_0(float (*acc)[BLOCK_ROWS], const struct panel *p, const int8_t *const *x, const struct token_run *token,
                       int toks)
{
    micro(acc, p, x, token, toks, (struct panel_shape){ .kind = PANEL_SMALL, .sub = 32, .top = 15, .offset = 8 });
}

static void micro_q4_1(float (*acc)[BLOCK_ROWS], const struct panel *p, const int8_t *const *x, const struct token_run *token,
                       int toks)
{
    micro(acc, p, x, token, toks, (struct panel_shape){ .kind = PANEL_SMALL, .sub = 32, .top = 15, .mins = true });
}

/* Also MXFP4's shape. */
static void micro_q5_0(float (*acc)[BLOCK_ROWS], const struct panel *p, const int8_t *const *x, const struct token_run *token,
                       int toks)
{
    micro(acc, p, x, token, toks, (struct panel_shape){ .kind = PANEL_SMALL, .sub = 32, .top = 31, .offset = 16 });
}

static void micro_q5_1(float (*acc)[BLOCK_ROWS], const struct panel *p, const int8_t *const *x, const struct token_run *token,
                       int toks)
{
    micro(acc, p, x, token, toks, (struct panel_shape){ .kind = PANEL_SMALL, .sub = 32, .top = 31, .mins = true });
}

/* Also TQ1_0. */
static void micro_tq2_0(float (*acc)[BLOCK_ROWS], const struct panel *p, const int8_t *const *x, const struct token_run *token,
                        int toks)
{
    micro(acc, p, x, token, toks, (struct panel_shape){ .kind = PANEL_SUPER, .sub = 32, .top = 3, .offset = 1 });
}

/* Also Q1_0. */
static void micro_q2_0(float (*acc)[BLOCK_ROWS], const struct panel *p, const int8_t *const *x, const struct token_run *token,
                       int toks)
{
    micro(acc, p, x, token, toks, (struct panel_shape){ .kind = PANEL_SMALL, .sub = 32, .top = 3, .offset = 1 });
}

static void micro_nvfp4(float (*acc)[BLOCK_ROWS], const struct panel *p, const int8_t *const *x, const struct token_run *token,
                        int toks)
{
    micro(acc, p, x, token, toks, (struct panel_shape){ .kind = PANEL_SMALL, .sub = 16, .top = 31, .offset = 16 });
}

static micro_fn *micro_of(const struct panel_shape *shape)
{
    if (shape->kind == PANEL_SUPER)
        switch (shape->top) {
        case 3:  return shape->mins ? micro_q2_k : micro_tq2_0;
        case 7:  return micro_q3_k;
        case 15: return micro_q4_k;
        case 31: return shape->mins ? micro_q5_k : shape->sub == 16 ? micro_iq1_m : micro_iq3_s;
        case 63: return micro_q6_k;
        default: return shape->sub == 16 ? micro_seven_bits_16 : micro_seven_bits_32;
        }
    if (shape->sub == 16)
        return micro_nvfp4;
    if (shape->top == 3)
        return micro_q2_0;
    if (shape->top == 15)
        return shape->mins ? micro_q4_1 : micro_q4_0;
    return shape->mins ? micro_q5_1 : micro_q5_0;
}

/* The run `run` of `rows` rows to panels. Gives their number. */
static size_t fill_block(struct many_scratch *scratch, const struct matmul_job *job, size_t row, size_t rows, size_t run,
                         const struct format_avx2 *format)
{
    size_t panels = (rows + PANEL_ROWS - 1) / PANEL_ROWS, bytes = format->shape.bytes, left = job->row_bytes - run * bytes;

    for (size_t p = 0; p < panels; p++) {
        size_t first = p * PANEL_ROWS, count = rows - first < PANEL_ROWS ? rows - first : PANEL_ROWS;
        const uint8_t *from = (const uint8_t *)job->weights + (row + first) * job->row_bytes + run * bytes;
        if (left >= bytes) {
            format->panel(&scratch->panels[p], from, job->row_bytes, count);
            continue;
        }
        for (size_t r = 0; r < count; r++) {
            memset(scratch->copy[r], 0, bytes);
            memcpy(scratch->copy[r], from + r * job->row_bytes, left);
        }
        format->panel(&scratch->panels[p], scratch->copy[0], sizeof scratch->copy[0], count);
    }
    return panels;
}

/* What the micro kernels need of `count` tokens from `tok` on; a group of fewer than `padded` repeats its last. */
static void prepare_group(struct many_scratch *scratch, const int8_t **x, const struct matmul_job *job,
                          const struct act_layout *layout, size_t tok, size_t count, size_t padded, size_t run,
                          const struct panel_shape *shape)
{
    for (size_t t = 0; t < padded; t++) {
        const uint8_t *act = (const uint8_t *)job->acts + (tok + (t < count ? t : count - 1)) * job->act_stride;
        x[t] = (const int8_t *)act + run * PANEL_COLS;
        token_run_init(&scratch->tokens[t], act, layout, run, *shape);
    }
}

static void multiply_group(struct many_scratch *scratch, const struct matmul_job *job, const struct act_layout *layout, size_t tok,
                           size_t toks, size_t first, size_t run, size_t panels, const struct panel_shape *shape, micro_fn *fn)
{
    const int8_t *x[TOKS];
    size_t padded = toks < 2 ? 2 : toks;
    prepare_group(scratch, x, job, layout, tok, toks, padded, run, shape);
    for (size_t p = 0; p < panels; p++)
        fn((float (*)[BLOCK_ROWS])&scratch->acc[tok - first][p * PANEL_ROWS], &scratch->panels[p].bytes, x, scratch->tokens,
           (int)padded);
}

/* Wide panels, or bytes with AVX-VNNI. */
static void multiply_six(struct many_scratch *scratch, const struct matmul_job *job, const struct act_layout *layout, size_t tok,
                         size_t toks, size_t first, size_t run, size_t panels, const struct format_avx2 *format)
{
    const int8_t *x[SIX_TOKS];
    const struct panel_shape *shape = &format->shape;
    size_t padded = (toks + 1) / 2 * 2;
    prepare_group(scratch, x, job, layout, tok, toks, padded, run, shape);
    for (size_t t = 0; t < padded; t++)
        if (format->micro)
            memcpy(scratch->x.bytes[t], x[t], PANEL_COLS);
        else
            widen_activations(scratch->x.wide[t], x[t]);
    for (size_t p = 0; p < panels; p++) {
        float (*acc)[BLOCK_ROWS] = (float (*)[BLOCK_ROWS])&scratch->acc[tok - first][p * PANEL_ROWS];
        if (format->micro)
            format->micro(acc, &scratch->panels[p].bytes, (const int8_t (*)[PANEL_COLS])scratch->x.bytes, scratch->tokens, padded,
                          shape);
        else
            micro_wide_avx2(acc, &scratch->panels[p].wide, (const int16_t (*)[PANEL_COLS])scratch->x.wide, scratch->tokens, padded,
                            shape);
    }
}

static void multiply_block(struct many_scratch *scratch, const struct matmul_job *job, size_t row, size_t rows, size_t tok,
                           size_t toks, const struct format_avx2 *format)
{
    const struct act_layout layout = act_layout(format->shape.kind == PANEL_SUPER ? ACT_Q8_256 : ACT_Q8_32, job->cols);
    const bool six = format->micro || comes_signed(format->shape);
    const size_t group = six ? SIX_TOKS : TOKS;
    micro_fn *fn = six ? NULL : micro_of(&format->shape);

    memset(scratch->acc, 0, toks * sizeof scratch->acc[0]);
    for (size_t run = 0; run * PANEL_COLS < job->cols; run++) {
        size_t panels = fill_block(scratch, job, row, rows, run, format);
        for (size_t t = 0; t < toks; t += group) {
            size_t count = toks - t < group ? toks - t : group;
            if (six)
                multiply_six(scratch, job, &layout, tok + t, count, tok, run, panels, format);
            else
                multiply_group(scratch, job, &layout, tok + t, count, tok, run, panels, &format->shape, fn);
        }
    }
    for (size_t t = 0; t < toks; t++)
        memcpy(job->out + (tok + t) * job->out_stride + row, scratch->acc[t], rows * sizeof(float));
}

void matmul_panels_avx2(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch,
                        const struct format_avx2 *format)
{
    if (job->toks <= DECODE_TOKS) {
        for (size_t row = row_begin; row < row_end; row += DECODE_ROWS)
            format->decode(job, row, row_end - row < DECODE_ROWS ? row_end - row : DECODE_ROWS);
        return;
    }
    for (size_t tok = 0; tok < job->toks; tok += BLOCK_TOKS)
        for (size_t row = row_begin; row < row_end; row += BLOCK_ROWS)
            multiply_block(scratch, job, row, row_end - row < BLOCK_ROWS ? row_end - row : BLOCK_ROWS, tok,
                           job->toks - tok < BLOCK_TOKS ? job->toks - tok : BLOCK_TOKS, format);
}
