/* matmul_arm.c - the loops around the micro kernels: rows by sixteen, runs of 256 columns, tokens by four. No instructions of its
 * own, so it is built for the baseline.
 *
 * A run of 16 rows is decoded once and used for all tokens of a block. A row and token's sum goes through the runs in order, so
 * neither the batch nor the chunk changes it. */
#include "arm.h"

#include <string.h>

/* Sixteen rows of a run stay near the core while 256 tokens pass, whose sums (16 KiB) are the larger part of the scratch. Never
 * tuned on silicon. */
enum { ROWS = 16, QUADS = ROWS / QUAD, BLOCK_TOKS = 256 };

struct scratch_arm {
    struct quad quad[QUADS];
    float       acc[BLOCK_TOKS][ROWS];
};

size_t matmul_scratch_arm(void)
{
    return sizeof(struct scratch_arm);
}

/* Scales side by side: the micro kernels multiply those of four rows with one instruction. */
static void join(struct quad *quad, const struct shape_arm *shape)
{
    int subs = 256 / (int)shape->sub;
    for (int r = 0; r < QUAD; r++) {
        const struct run_arm *run = &quad->run[r];
        quad->d[r] = run->d;
        quad->dmin[r] = run->dmin;
        for (int s = 0; s < subs; s++) {
            quad->scale[s][r] = run->scale[s];
            quad->sub[s][r] = run->sub[s];
            quad->low[s][r] = run->low[s];
        }
        for (int s = 0; s < 8; s++)
            quad->min[s][r] = run->min[s];
    }
}

/* The run at column `col` of up to sixteen rows; rows that are not there are zero. */
static void decode_rows(struct scratch_arm *scratch, const struct matmul_job *job, size_t row, size_t rows, size_t col,
                        const struct format_arm *format, arrange_arm_fn *arrange)
{
    size_t left = job->cols - col < 256 ? job->cols - col : 256, blocks = left / format->values;
    const uint8_t *bytes = (const uint8_t *)job->weights + row * job->row_bytes + col / format->values * format->shape.bytes;
    for (size_t r = 0; r < ROWS; r++) {
        struct run_arm *run = &scratch->quad[r / QUAD].run[r % QUAD];
        if (r >= rows || left < 256)
            memset(run, 0, sizeof *run);
        if (r < rows)
            format->run(run, bytes + r * job->row_bytes, blocks);
    }
    for (size_t q = 0; q < QUADS; q++) {
        join(&scratch->quad[q], &format->shape);
        if (arrange)
            arrange(&scratch->quad[q]);
    }
}

/* What a token brings to a run, made once for all rows: sums of the activations, with which minimums are multiplied, at the
 * format's own grain. */
static void token_side(struct token_arm *out, const char *act, const struct act_layout *layout, size_t col,
                       const struct shape_arm *shape)
{
    const int16_t *sums = (const int16_t *)(const void *)(act + layout->sums) + col / 16;
    const float *d = (const float *)(const void *)(act + layout->scales);
    out->x = (const int8_t *)act + col;
    if (shape->kind == PANEL_SUPER) {
        out->dx[0] = d[col / 256];
        for (unsigned s = 0; s < 256 / shape->sub; s++)
            out->sums[s] = shape->sub == 16 ? sums[s] : sums[2 * s] + sums[2 * s + 1];
        return;
    }
    for (int s = 0; s < 8; s++) {
        out->dx[s] = d[col / 32 + (size_t)s];
        out->dsum[s] = out->dx[s] * (float)(sums[2 * s] + sums[2 * s + 1]);
    }
}

/* Up to 256 tokens against up to sixteen rows. */
static void multiply_block(struct scratch_arm *scratch, const struct matmul_job *job, size_t row, size_t rows, size_t tok,
                           size_t toks, const struct format_arm *format, const struct level_arm *level)
{
    const struct act_layout layout = act_layout(format->shape.kind == PANEL_SUPER ? ACT_Q8_256 : ACT_Q8_32, job->cols);
    bool many = level->many && job->toks >= level->many_from;
    memset(scratch->acc, 0, toks * sizeof scratch->acc[0]);
    for (size_t col = 0; col < job->cols; col += 256) {
        decode_rows(scratch, job, row, rows, col, format, many ? level->arrange : NULL);
        for (size_t t = 0; t < toks; t += TOKS_ARM) {
            int n = toks - t < TOKS_ARM ? (int)(toks - t) : TOKS_ARM;
            struct token_arm token[TOKS_ARM];
            const char *act = (const char *)job->acts + (tok + t) * job->act_stride;
            for (int i = 0; i < n; i++, act += job->act_stride)
                token_side(&token[i], act, &layout, col, &format->shape);
            for (size_t q = 0; q * QUAD < rows; q++)
                (many ? level->many : level->few)(&scratch->acc[t][q * QUAD], ROWS, &scratch->quad[q], token, n, &format->shape);
        }
    }
    for (size_t t = 0; t < toks; t++)
        memcpy(job->out + (tok + t) * job->out_stride + row, scratch->acc[t], rows * sizeof(float));
}

void matmul_rows_arm(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch, const struct format_arm *format,
                     const struct level_arm *level)
{
    for (size_t tok = 0; tok < job->toks; tok += BLOCK_TOKS)
        for (size_t row = row_begin; row < row_end; row += ROWS)
            multiply_block(scratch, job, row, row_end - row < ROWS ? row_end - row : ROWS, tok,
                           job->toks - tok < BLOCK_TOKS ? job->toks - tok : BLOCK_TOKS, format, level);
}
