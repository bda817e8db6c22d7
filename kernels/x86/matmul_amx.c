#include "matmul_avx512.h"

#include "amx_tile.h"

/* The many-token product on AMX: the panels of the AVX-512 product are tiles as they stand (a column group of four is a row of 64
 * bytes, 16 rows of weights wide), prepared activations are the other operand as they stand (a token is a row). Integers inside a
 * run are exact and the float steps are the same, so the results are those of AVX-512 to the bit, and few tokens go there.
 *
 * Tiles: 0-3 sums of 2 x 16 tokens by 2 panels, 4-5 activations, 6-7 weights. Each sub-block's sums are stored and scaled by
 * vectors; scaled values have one sum for the run, in tiles of 64 columns. */
enum { GROUP = 32, BLOCK_ROWS = 64, BLOCK_PANELS = BLOCK_ROWS / PANEL_ROWS, BLOCK_TOKS = 512, MANY = 16 };

struct many_scratch {
    float            acc[BLOCK_TOKS][BLOCK_ROWS];
    struct panel     panels[BLOCK_PANELS];
    struct token_run tokens[GROUP];
    int32_t          dots[2][GROUP][PANEL_ROWS], totals[2][GROUP][PANEL_ROWS];    /* [panel][token][row] */
    uint8_t          copy[PANEL_ROWS][PANEL_COLS / 32 * 36];
};

size_t matmul_scratch_amx(void)
{
    return (sizeof(struct many_scratch) + 63) & ~(size_t)63;
}

/* Columns that a tile takes at once, and columns whose sums stay in the tiles. */
static unsigned tile_cols(const struct panel_shape *shape)
{
    return shape->scaled ? 64 : shape->sub;
}

static unsigned sum_cols(const struct panel_shape *shape)
{
    return shape->scaled ? PANEL_COLS : shape->sub;
}

/* Shapes for a group of tokens: the second half of a short group has fewer rows, or none. */
static void configure(struct amx *amx, size_t toks, unsigned cols)
{
    struct amx_config config = { 0 };
    size_t halves[2] = { toks < 16 ? toks : 16, toks < 16 ? 0 : toks - 16 };
    for (int h = 0; h < 2; h++)
        if (halves[h]) {
            amx_config_tile(&config, 2 * h, halves[h], 64);
            amx_config_tile(&config, 2 * h + 1, halves[h], 64);
            amx_config_tile(&config, 4 + h, halves[h], cols);
        }
    amx_config_tile(&config, 6, cols / 4, 64);
    amx_config_tile(&config, 7, cols / 4, 64);
    AMX_CONFIGURE(amx, &config);
}

/* The integer dots of columns that share a scale, from the c-th on: two panels by a group of tokens. x: the first token's run. */
static void tile_dots(struct many_scratch *scratch, struct amx *amx, const struct panel *p, const int8_t *x, size_t stride,
                      size_t toks, size_t c, const struct panel_shape *shape)
{
    enum { STEP = PANEL_ROWS * 4 };
    AMX_ZERO(amx, 0);
    AMX_ZERO(amx, 1);
    if (toks > 16) {
        AMX_ZERO(amx, 2);
        AMX_ZERO(amx, 3);
    }
    for (size_t end = c + sum_cols(shape); c < end; c += tile_cols(shape)) {
        AMX_LOAD(amx, 6, p[0].q[c / 4], STEP);
        AMX_LOAD(amx, 7, p[1].q[c / 4], STEP);
        AMX_LOAD(amx, 4, x + c, stride);
        AMX_DOT_SU(amx, 0, 4, 6);
        AMX_DOT_SU(amx, 1, 4, 7);
        if (toks > 16) {
            AMX_LOAD(amx, 5, x + c + 16 * stride, stride);
            AMX_DOT_SU(amx, 2, 5, 6);
            AMX_DOT_SU(amx, 3, 5, 7);
        }
    }
    AMX_STORE(amx, 0, scratch->dots[0][0], STEP);
    AMX_STORE(amx, 1, scratch->dots[1][0], STEP);
    if (toks <= 16)
        return;
    AMX_STORE(amx, 2, scratch->dots[0][16], STEP);
    AMX_STORE(amx, 3, scratch->dots[1][16], STEP);
}

/* Scale the dots of sub-block s: super formats add to the run's totals, small ones to the accumulators. */
static void scale_dots(struct many_scratch *scratch, const struct panel *p, size_t first, size_t toks, size_t column, unsigned s,
                       const struct panel_shape *shape)
{
    for (size_t half = 0; half < 2; half++) {
        __m512i scale = _mm512_load_si512(p[half].scale.i[s]);
        for (size_t t = 0; t < toks; t++) {
            const struct token_run *token = &scratch->tokens[t];
            __m512i dot = _mm512_add_epi32(_mm512_loadu_si512(scratch->dots[half][t]), _mm512_set1_epi32(token->init[s]));
            if (shape->kind == PANEL_SUPER) {
                int32_t *total = scratch->totals[half][t];
                __m512i scaled = shape->scaled ? dot : _mm512_mullo_epi32(dot, scale);
                _mm512_storeu_si512(total, s == 0 ? scaled : _mm512_add_epi32(_mm512_loadu_si512(total), scaled));
                continue;
            }
            float *acc = &scratch->acc[first + t][column + half * PANEL_ROWS];
            __m512 factor = scaled_by(_mm512_set1_ps(token->dx[s * shape->sub / 32]), _mm512_castsi512_ps(scale), *shape);
            __m512 sum = _mm512_fmadd_ps(factor, _mm512_cvtepi32_ps(dot), _mm512_loadu_ps(acc));
            if (shape->mins)
                sum = _mm512_fnmadd_ps(_mm512_load_ps(p[half].min.f[s]), _mm512_set1_ps(token->dsum[s]), sum);
            _mm512_storeu_ps(acc, sum);
        }
    }
}

/* The float step of a super format's run. */
static void finish_run(struct many_scratch *scratch, const struct panel *p, size_t first, size_t toks, size_t column,
                       const struct panel_shape *shape)
{
    for (size_t half = 0; half < 2; half++)
        for (size_t t = 0; t < toks; t++) {
            const struct token_run *token = &scratch->tokens[t];
            float *acc = &scratch->acc[first + t][column + half * PANEL_ROWS];
            __m512 dx = _mm512_set1_ps(token->dx[0]), total = _mm512_cvtepi32_ps(_mm512_loadu_si512(scratch->totals[half][t]));
            __m512 sum = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_load_ps(p[half].d), dx), total, _mm512_loadu_ps(acc));
            if (shape->mins) {
                __m512i low = _mm512_setzero_si512();
                for (unsigned s = 0; s < PANEL_COLS / shape->sub / 2; s++) {
                    int32_t pair;
                    memcpy(&pair, token->sums + 2 * s, 4);
                    low = _mm512_dpwssd_epi32(low, _mm512_load_si512(p[half].min.i[s]), _mm512_set1_epi32(pair));
                }
                sum = _mm512_fnmadd_ps(_mm512_mul_ps(_mm512_load_ps(p[half].dmin), dx), _mm512_cvtepi32_ps(low), sum);
            }
            _mm512_storeu_ps(acc, sum);
        }
}

static size_t at_most(size_t n, size_t limit)
{
    return n < limit ? n : limit;
}

/* A group of tokens against all panels of a block in one run. */
static void multiply_group(struct many_scratch *scratch, struct amx *amx, const struct matmul_job *job,
                           const struct act_layout *layout,
                           size_t tok, size_t first, size_t toks, size_t run, size_t panels, const struct panel_shape *shape)
{
    const uint8_t *acts = (const uint8_t *)job->acts + (tok + first) * job->act_stride;
    for (size_t t = 0; t < toks; t++)
        token_run_init(&scratch->tokens[t], acts + t * job->act_stride, layout, run, *shape);
    for (size_t p = 0; p < panels; p += 2) {
        const struct panel *pair = &scratch->panels[p];
        for (unsigned s = 0; s < PANEL_COLS / sum_cols(shape); s++) {
            const int8_t *x = (const int8_t *)acts + run * PANEL_COLS;
            tile_dots(scratch, amx, pair, x, job->act_stride, toks, s * sum_cols(shape), shape);
            scale_dots(scratch, pair, first, toks, p * PANEL_ROWS, s, shape);
        }
        if (shape->kind == PANEL_SUPER)
            finish_run(scratch, pair, first, toks, p * PANEL_ROWS, shape);
    }
}

static void multiply_block(struct many_scratch *scratch, struct amx *amx, const struct matmul_job *job, size_t row, size_t rows,
                           size_t tok,
                           size_t toks, const struct format_avx512 *format)
{
    const struct panel_shape *shape = &format->shape;
    const struct act_layout layout = act_layout(shape->kind == PANEL_SUPER ? ACT_Q8_256 : ACT_Q8_32, job->cols);
    size_t configured = 0;

    memset(scratch->acc, 0, toks * sizeof scratch->acc[0]);
    for (size_t run = 0; run * PANEL_COLS < job->cols; run++) {
        size_t panels = fill_panels_avx512(scratch->panels, scratch->copy[0], job, row, rows, run, format);
        for (size_t t = 0; t < toks; t += GROUP) {
            size_t n = at_most(toks - t, GROUP);
            if (n != configured)
                configure(amx, n, tile_cols(shape));
            configured = n;
            multiply_group(scratch, amx, job, &layout, tok, t, n, run, panels, shape);
        }
    }
    for (size_t t = 0; t < toks; t++)
        memcpy(job->out + (tok + t) * job->out_stride + row, scratch->acc[t], rows * sizeof(float));
}

void matmul_panels_amx(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch,
                       const struct format_avx512 *format)
{
    struct amx amx;

    if (job->toks < MANY) {
        matmul_panels_avx512(job, row_begin, row_end, scratch, format);
        return;
    }
    for (size_t tok = 0; tok < job->toks; tok += BLOCK_TOKS)
        for (size_t row = row_begin; row < row_end; row += BLOCK_ROWS)
            multiply_block(scratch, &amx, job, row, at_most(row_end - row, BLOCK_ROWS), tok, at_most(job->toks - tok, BLOCK_TOKS),
                           format);
    AMX_RELEASE(&amx);
}
