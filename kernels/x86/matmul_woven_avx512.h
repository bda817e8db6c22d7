/* matmul_woven_avx512.h - some formats by five tokens to WOVEN_TOKS on AVX-512 VNNI, where job->wide.
 *
 * Lanes are rows, as with many tokens, so a dot takes its activations as a broadcast and its weights from a panel. With few tokens
 * making panels would cost as much as their dots, so both are woven: between the dots of these two panels the next two are made,
 * step by step.
 *
 * On a Zen 5 dots take two of four ports, and a store among them costs half a cycle to a cycle. So a format turns what stands in
 * its blocks from where it stands (weave.turn), without unpacking rows to memory first, and panels of nibbles stay so, split at
 * each use. Cycles for 256 columns of a row by 8, 12 and 16 tokens, of which dots alone are 16, 24 and 32, and what they took by
 * matmul_few_avx512.h: Q4_K 27, 39, 50 (42, 63, 63); Q6_K 38, 50, 61 (44, 67, 65), of which matmul_subs_avx512.h takes what it does
 * for less; Q4_0 33, 43, 52 (43, 64, 63); IQ4_NL 35, 46, 56 (44, 64, 64); MXFP4 37, 48, 60 (65, 79, 80); Q8_0 38, 48, 57 (43, 63,
 * 62); Q5_K by 8 35 (43). By way of memory, with the unpackers of the other formats, nothing was gained (Q2_K 57 and 70 instead of
 * 35 and 56). What compilers keep in registers here hangs on little: a turn that computed an address before it asked whether its
 * step needs one had sixteen accumulators spilled, 61 cycles instead of 52; look for zmm beside (%rsp) in `objdump -d`.
 *
 * Four tokens go through a run at a time, in slots of two sub-blocks: sixteen accumulators for their dots, eight for what they sum
 * up to. A slot of one sub-block, eight accumulators, would just do for the dots' latency, and each that waits for its port would
 * hold up the next ones: 53 cycles instead of 50. */
#ifndef QUERN_MATMUL_WOVEN_AVX512_H
#define QUERN_MATMUL_WOVEN_AVX512_H

#include "matmul_micro_avx512.h"
#include "matmul_panel_avx512.h"

enum { WOVEN_PASS = 4, WOVEN_ROWS = PANELS * PANEL_ROWS };

/* What a format brings, inlined where all of it is constant. A panel's scales and minimums are as ever, values as it likes. */
struct weave {
    /* step `step` of `steps` that make a panel of sixteen rows' run, `stride` bytes apart */
    void (*turn)(struct panel *out, const uint8_t *rows, size_t stride, int step);
    int  steps;
    /* bytes to multiply: columns 4 i to 4 i + 3 of sub-blocks 2 slot and 2 slot + 1 */
    void (*split)(__m512i w[2], const struct panel *p, int slot, int i);
};

struct woven_scratch {
    struct panel     panels[2][PANELS];              /* multiplied; made meanwhile                                  */
    float            acc[WOVEN_TOKS][BLOCK_ROWS];    /* of which WOVEN_ROWS are used: as add_run has them             */
    uint8_t          copy[PANEL_ROWS][PANEL_COLS / 32 * 34];     /* fewer than sixteen rows; Q8_0's runs are the longest */
    struct token_run token[];                        /* [run][token], tokens to a multiple of four: the last repeated */
};

/* What is woven: the run of sixteen rows. */
struct weaver {
    const struct matmul_job *job;
    struct woven_scratch    *scratch;
    size_t         end, runs;                /* of the call's rows; of a row                */
    size_t         row, run;                 /* of the sixteen                              */
    bool           second;                   /* they are the later panel of two             */
    struct requests ahead;                      /* what is asked for, and in each step so much */
    size_t         ask;
    const uint8_t *from;                     /* their run and the distance of rows there    */
    size_t         stride;
    int            step;                     /* of the steps towards two panels the next    */
    int            due, slots, credit;       /* so many steps in so many slots; how much of the next one is due */
};

/* Rows beyond the call's last become zeros. */
static inline void weaver_copy(struct weaver *w, unsigned bytes)
{
    const size_t rows = w->row < w->end ? w->end - w->row : 0;
    uint8_t (*copy)[sizeof w->scratch->copy[0]] = w->scratch->copy;
    memset(copy, 0, sizeof w->scratch->copy);
    for (size_t r = 0; r < rows; r++)
        memcpy(copy[r], w->from + r * w->job->row_bytes, bytes);
    w->from = copy[0];
    w->stride = sizeof copy[0];
}

static inline void weaver_begin(struct weaver *w, unsigned bytes)
{
    const struct matmul_job *job = w->job;
    w->from = (const uint8_t *)job->weights + w->row * job->row_bytes + w->run * bytes;
    w->stride = job->row_bytes;
    if (w->row + PANEL_ROWS > w->end)
        weaver_copy(w, bytes);
}

/* The other sixteen rows of two panels, the next run of both, the next rows. */
static inline void weaver_next(struct weaver *w, unsigned bytes)
{
    if (!w->second) {
        w->row += PANEL_ROWS;
    } else if (w->run + 1 < w->runs) {
        w->row -= PANEL_ROWS;
        w->run++;
    } else {
        w->row += PANEL_ROWS;
        w->run = 0;
    }
    w->second = !w->second;
    weaver_begin(w, bytes);
}

static ALWAYS_INLINE void weave_step(struct panel *to, struct weaver *w, const struct weave weave,
                                     const struct panel_shape shape)
{
    const int half = w->step >= weave.steps, step = w->step - half * weave.steps;
    ask_next(&w->ahead, w->ask);
    weave.turn(&to[half], w->from, w->stride, step);
    if (step == weave.steps - 1)
        weaver_next(w, shape.bytes);
    w->step++;
}

static ALWAYS_INLINE void dot_tokens(__m512i idot[PANELS][TOKS], __m512i w0, __m512i w1, const int8_t *const *x, int column)
{
    UNROLL_ALL
    for (int t = 0; t < WOVEN_PASS; t++) {
        __m512i v = broadcast_4_bytes(x[t] + column);
        idot[0][t] = _mm512_dpbusd_epi32(idot[0][t], w0, v);
        idot[1][t] = _mm512_dpbusd_epi32(idot[1][t], w1, v);
    }
}

/* The dots of a slot's two sub-blocks. */
static ALWAYS_INLINE void slot_dots(__m512i idot[2][PANELS][TOKS], const struct panel *p, const int8_t *const *x,
                                    const struct token_run *token, int slot, const struct weave weave,
                                    const struct panel_shape shape)
{
    const int steps = (int)shape.sub / 4, s = 2 * slot;
    UNROLL_ALL
    for (int k = 0; k < 2; k++)
        UNROLL_ALL
        for (int t = 0; t < WOVEN_PASS; t++)
            idot[k][0][t] = idot[k][1][t] = shape.offset ? _mm512_set1_epi32(token[t].init[s + k]) : _mm512_setzero_si512();
    UNROLL_ALL
    for (int i = 0; i < steps; i++) {
        __m512i w[PANELS][2];
        weave.split(w[0], &p[0], slot, i);
        weave.split(w[1], &p[1], slot, i);
        UNROLL_ALL
        for (int k = 0; k < 2; k++)
            dot_tokens(idot[k], w[0][k], w[1][k], x, (s + k) * (int)shape.sub + 4 * i);
    }
}

/* What is due in a slot: steps are spread evenly. */
static ALWAYS_INLINE void weave_slot(struct panel *to, struct weaver *w, const struct weave weave,
                                     const struct panel_shape shape)
{
#pragma GCC unroll 1
    for (w->credit += w->due; w->credit >= w->slots; w->credit -= w->slots)
        weave_step(to, w, weave, shape);
}

/* acc[t][0..32) += the two panels times four tokens' run; between its slots the next two panels are made. */
static ALWAYS_INLINE void weave_super(float (*acc)[BLOCK_ROWS], const struct panel *p, const int8_t *const *x,
                                      const struct token_run *token, struct panel *to, struct weaver *w,
                                      const struct weave weave, const struct panel_shape shape)
{
    const int slots = PANEL_COLS / (int)shape.sub / 2;
    __m512i total[PANELS][TOKS], low[PANELS][TOKS], idot[2][PANELS][TOKS];
    begin_totals(total, token, WOVEN_PASS, shape);
#pragma GCC unroll 1
    for (int slot = 0; slot < slots; slot++) {
        slot_dots(idot, p, x, token, slot, weave, shape);
        UNROLL_ALL
        for (int k = 0; k < 2; k++)
            add_super(total, idot[k], p, 2 * slot + k, WOVEN_PASS);
        weave_slot(to, w, weave, shape);
    }
    if (shape.mins)
        sum_minimums(low, p, token, WOVEN_PASS, shape);
    add_run(acc, p, total, low, token, WOVEN_PASS, shape);
}

static ALWAYS_INLINE void weave_small(float (*acc)[BLOCK_ROWS], const struct panel *p, const int8_t *const *x,
                                      const struct token_run *token, struct panel *to, struct weaver *w,
                                      const struct weave weave, const struct panel_shape shape)
{
    const int slots = PANEL_COLS / (int)shape.sub / 2;
    __m512i idot[2][PANELS][TOKS];
    __m512 sum[PANELS][TOKS];
    UNROLL_ALL
    for (int t = 0; t < WOVEN_PASS; t++) {
        sum[0][t] = _mm512_load_ps(acc[t]);
        sum[1][t] = _mm512_load_ps(acc[t] + PANEL_ROWS);
    }
#pragma GCC unroll 1
    for (int slot = 0; slot < slots; slot++) {
        slot_dots(idot, p, x, token, slot, weave, shape);
        UNROLL_ALL
        for (int k = 0; k < 2; k++)
            add_small(sum, idot[k], p, token, 2 * slot + k, WOVEN_PASS, shape);
        weave_slot(to, w, weave, shape);
    }
    UNROLL_ALL
    for (int t = 0; t < WOVEN_PASS; t++) {
        _mm512_store_ps(acc[t], sum[0][t]);
        _mm512_store_ps(acc[t] + PANEL_ROWS, sum[1][t]);
    }
}

/* All rows of a call. */
static ALWAYS_INLINE void woven_format(const struct matmul_job *job, struct row_range all, struct woven_scratch *scratch,
                                       const struct weave weave, const struct panel_shape shape)
{
    const size_t runs = (job->cols + PANEL_COLS - 1) / PANEL_COLS, toks = (job->toks + WOVEN_PASS - 1) / WOVEN_PASS * WOVEN_PASS;
    struct weaver w = { .job = job, .scratch = scratch, .end = all.end, .runs = runs,
                        .row = all.begin, .slots = PANEL_COLS / (int)shape.sub / 2 * (int)toks / WOVEN_PASS };
    const int steps = PANELS * weave.steps;
    const size_t soon = all.end + job->rows_soon;
    size_t now = 0;

    w.ask = (WOVEN_ROWS * job->row_bytes / (runs * (size_t)steps) + 127) / 64 * 64;
    w.ahead = requests_for(job, all.begin, WOVEN_ROWS, soon);
    if (!job->asked)
        ask_next(&w.ahead, SIZE_MAX / 2);
    weaver_begin(&w, shape.bytes);
    for (int i = 0; i < steps; i++)
        weave_step(scratch->panels[now], &w, weave, shape);
    for (size_t row = all.begin; row < all.end; row += WOVEN_ROWS) {
        const size_t rows = all.end - row < WOVEN_ROWS ? all.end - row : WOVEN_ROWS;
        w.ahead = requests_for(job, row + WOVEN_ROWS, WOVEN_ROWS, soon);
        for (size_t t = 0; t < toks; t++)
            memset(scratch->acc[t], 0, WOVEN_ROWS * sizeof(float));
        for (size_t run = 0; run < runs; run++, now ^= 1) {
            w.due = row + WOVEN_ROWS >= all.end && run + 1 == runs ? 0 : steps;
            w.step = 0;
            for (size_t t = 0; t < toks; t += WOVEN_PASS) {
                const struct token_run *token = scratch->token + run * toks + t;
                const int8_t *x[WOVEN_PASS];
                for (size_t i = 0; i < WOVEN_PASS; i++)
                    x[i] = (const int8_t *)job->acts + (t + i < job->toks ? t + i : job->toks - 1) * job->act_stride +
                           run * PANEL_COLS;
                if (shape.kind == PANEL_SUPER)
                    weave_super(&scratch->acc[t], scratch->panels[now], x, token, scratch->panels[now ^ 1], &w, weave, shape);
                else
                    weave_small(&scratch->acc[t], scratch->panels[now], x, token, scratch->panels[now ^ 1], &w, weave, shape);
            }
        }
        for (size_t t = 0; t < job->toks; t++)
            memcpy(job->out + t * job->out_stride + row, scratch->acc[t], rows * sizeof(float));
    }
}

#endif
