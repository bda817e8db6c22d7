#include "matmul_few_avx512.h"
#include "matmul_micro_avx512.h"
#include "matmul_subs_avx512.h"
#include "matmul_woven_avx512.h"

/* The many-token product: panels of weights against tokens, lanes are rows (matmul_micro_avx512.h). */
enum { BLOCK_PANELS = BLOCK_ROWS / PANEL_ROWS, BLOCK_TOKS = 512 };

struct many_scratch {
    float           acc[BLOCK_TOKS + TOKS][BLOCK_ROWS];
    struct panel    panels[BLOCK_PANELS];
    uint8_t         copy[PANEL_ROWS][PANEL_COLS / 32 * 36];
};

size_t matmul_scratch_avx512(void)
{
    return (sizeof(struct many_scratch) + 63) & ~(size_t)63;
}

/* Of a few more tokens than few_fn takes, sixteen after sixteen by that way need less than panels, since no weights are turned:
 * with 24 tokens a run of Q4_K 133 cycles instead of 150, with 32 168 and 192, with 48 251 and 276. So up to the format's `groups`,
 * in those whose unpacker hides between the dots; with 64 whole models did not gain (bench/results/2026-11-21-few-tokens.md). */
enum { GROUPS_TOKS = 48 };

size_t matmul_few_scratch_per_col_avx512(void)
{
    return (sizeof(struct few_run) + PANEL_COLS - 1) / PANEL_COLS * (GROUPS_TOKS / FEW_TOKS);
}

/* acc[t][0..32) += the two panels times token t's run; x[t]: its 256 values. */
static ALWAYS_INLINE void micro_super(float (*acc)[BLOCK_ROWS], const struct panel *p, const int8_t *const *x,
                                      const struct token_run *token, int toks, const struct panel_shape shape)
{
    const int steps = PANEL_COLS / (shape.scaled ? 32 : (int)shape.sub);
    __m512i total[PANELS][TOKS], low[PANELS][TOKS];
    if (shape.mins)
        sum_minimums(low, p, token, toks, shape);
    begin_totals(total, token, toks, shape);
#pragma GCC unroll 1
    for (int s = 0; s < steps; s++) {
        __m512i idot[PANELS][TOKS];
        if (shape.scaled) {
            dots(total, p, x, 8 * s, 8, toks);
        } else {
            sub_dots(idot, p, x, token, s, toks, shape);
            add_super(total, idot, p, s, toks);
        }
    }
    add_run(acc, p, total, low, token, toks, shape);
}

static ALWAYS_INLINE void micro_small(float (*acc)[BLOCK_ROWS], const struct panel *p, const int8_t *const *x,
                                      const struct token_run *token, int toks, const struct panel_shape shape)
{
    const int subs = PANEL_COLS / (int)shape.sub;
    __m512 sum[PANELS][TOKS];
    UNROLL_ALL
    for (int t = 0; t < toks; t++) {
        sum[0][t] = _mm512_loadu_ps(acc[t]);
        sum[1][t] = _mm512_loadu_ps(acc[t] + PANEL_ROWS);
    }
#pragma GCC unroll 1
    for (int s = 0; s < subs; s++) {
        __m512i idot[PANELS][TOKS];
        sub_dots(idot, p, x, token, s, toks, shape);
        add_small(sum, idot, p, token, s, toks, shape);
    }
    UNROLL_ALL
    for (int t = 0; t < toks; t++) {
        _mm512_storeu_ps(acc[t], sum[0][t]);
        _mm512_storeu_ps(acc[t] + PANEL_ROWS, sum[1][t]);
    }
}

/* Up to six tokens against a block's panels in one run. Two, four or six are multiplied: an odd number repeats its last token into
 * a spare row of acc. */
struct group {
    float                  (*acc)[BLOCK_ROWS];
    const struct panel      *panels;
    size_t                   count;                /* of panels, even                         */
    const uint8_t           *act[TOKS];            /* prepared vectors, from their beginnings */
    const struct act_layout *layout;
    size_t                   run;
    int                      toks;
    unsigned                 offset;               /* of the format */
};
typedef void group_fn(const struct group *group);

/* What a token offers for the run is made here, where the shape is known. */
static ALWAYS_INLINE void multiply_tokens(const struct group *g, int toks, const struct panel_shape shape)
{
    struct token_run token[TOKS];
    const int8_t *x[TOKS];
    for (int t = 0; t < toks; t++) {
        x[t] = (const int8_t *)g->act[t] + g->run * PANEL_COLS;
        token_run_init(&token[t], g->act[t], g->layout, g->run, shape);
    }
    for (size_t p = 0; p < g->count; p += PANELS) {
        float (*acc)[BLOCK_ROWS] = (float (*)[BLOCK_ROWS])&g->acc[0][p * PANEL_ROWS];
        if (shape.kind == PANEL_SUPER)
            micro_super(acc, &g->panels[p], x, token, toks, shape);
        else
            micro_small(acc, &g->panels[p], x, token, toks, shape);
    }
}

static ALWAYS_INLINE void multiply_group(const struct group *g, struct panel_shape shape)
{
    shape.offset = g->offset;
    if (g->toks == 6)
        multiply_tokens(g, 6, shape);
    else if (g->toks == 4)
        multiply_tokens(g, 4, shape);
    else
        multiply_tokens(g, 2, shape);
}

static void group_super_16(const struct group *g)
{
    multiply_group(g, (struct panel_shape){ .kind = PANEL_SUPER, .sub = 16 });
}

static void group_super_32(const struct group *g)
{
    multiply_group(g, (struct panel_shape){ .kind = PANEL_SUPER, .sub = 32 });
}

static void group_super_16_mins(const struct group *g)
{
    multiply_group(g, (struct panel_shape){ .kind = PANEL_SUPER, .sub = 16, .mins = true });
}

static void group_super_32_mins(const struct group *g)
{
    multiply_group(g, (struct panel_shape){ .kind = PANEL_SUPER, .sub = 32, .mins = true });
}

static void group_super_scaled(const struct group *g)
{
    multiply_group(g, (struct panel_shape){ .kind = PANEL_SUPER, .sub = 16, .scaled = true });
}

static void group_super_scaled_mins(const struct group *g)
{
    multiply_group(g, (struct panel_shape){ .kind = PANEL_SUPER, .sub = 16, .mins = true, .scaled = true });
}

static void group_small_16(const struct group *g)
{
    multiply_group(g, (struct panel_shape){ .kind = PANEL_SMALL, .sub = 16 });
}

static void group_small_32(const struct group *g)
{
    multiply_group(g, (struct panel_shape){ .kind = PANEL_SMALL, .sub = 32 });
}

static void group_small_32_exponents(const struct group *g)
{
    multiply_group(g, (struct panel_shape){ .kind = PANEL_SMALL, .sub = 32, .exponents = true });
}

static void group_small_32_mins(const struct group *g)
{
    multiply_group(g, (struct panel_shape){ .kind = PANEL_SMALL, .sub = 32, .mins = true });
}

static group_fn *group_of(const struct panel_shape *shape)
{
    if (shape->scaled)
        return shape->mins ? group_super_scaled_mins : group_super_scaled;
    if (shape->kind == PANEL_SUPER)
        return shape->mins ? (shape->sub == 16 ? group_super_16_mins : group_super_32_mins)
                           : (shape->sub == 16 ? group_super_16 : group_super_32);
    return shape->sub == 16   ? group_small_16
           : shape->exponents ? group_small_32_exponents
           : shape->mins      ? group_small_32_mins
                              : group_small_32;
}

size_t fill_panels_avx512(struct panel *to, uint8_t *copy, const struct matmul_job *job, size_t row, size_t rows, size_t run,
                          const struct format_avx512 *format)
{
    size_t panels = (rows + PANELS * PANEL_ROWS - 1) / (PANELS * PANEL_ROWS) * PANELS, bytes = format->shape.bytes;
    size_t left = job->row_bytes - run * bytes;

    for (size_t p = 0; p < panels; p++) {
        size_t first = p * PANEL_ROWS, count = first >= rows ? 0 : rows - first < PANEL_ROWS ? rows - first : PANEL_ROWS;
        const uint8_t *from = (const uint8_t *)job->weights + (row + first) * job->row_bytes + run * bytes;
        if (count == 0) {
            memset(&to[p], 0, sizeof to[p]);
        } else if (left >= bytes) {
            format->panel(&to[p], from, job->row_bytes, count);
        } else {
            memset(copy, 0, count * bytes);
            for (size_t r = 0; r < count; r++)
                memcpy(copy + r * bytes, from + r * job->row_bytes, left);
            format->panel(&to[p], copy, bytes, count);
        }
    }
    return panels;
}

/* Tokens of the next group: two alone would wait for their own sums, so that seven and eight are shared evenly. */
static size_t group_size(size_t left)
{
    return left == 7 || left == 8 ? 4 : left < TOKS ? left : TOKS;
}

/* The runs that will be turned into panels next: asked for while the last groups of tokens are multiplied, a few in each. Asked for
 * three runs before, as they were, they may have left the second-level cache again, pushed out by the activations and sums that
 * pass by (Q4_K from memory by 512 tokens, one core of a Zen 5: 391 -> 382 ns for a row's run). */
enum { ASKING_GROUPS = 16 };

struct soon { const uint8_t *first; size_t stride, rows, asked; unsigned bytes; bool near; };

/* What follows the run of these rows: their next one or the first of the `more` rows after them. */
static struct soon soon_of(const struct matmul_job *job, size_t row, size_t rows, size_t run, size_t more, unsigned bytes)
{
    const uint8_t *weights = (const uint8_t *)job->weights + row * job->row_bytes;
    const bool last = (run + 1) * PANEL_COLS >= job->cols;
    return (struct soon){ .first = weights + (last ? rows * job->row_bytes : (run + 1) * bytes), .stride = job->row_bytes,
                          .rows = !last ? rows : more < BLOCK_ROWS ? more : BLOCK_ROWS, .bytes = bytes, .near = job->wide };
}

/* `later`: so many groups of tokens follow. */
static void ask_some(struct soon *soon, size_t later)
{
    if (later >= ASKING_GROUPS)
        return;
    for (size_t end = soon->rows * (ASKING_GROUPS - later) / ASKING_GROUPS; soon->asked < end; soon->asked++)
        prefetch_run(soon->first + soon->asked * soon->stride, soon->bytes, soon->near);
}

/* `first`: nobody has asked for these rows; `more`: so many follow. */
static void multiply_block(struct many_scratch *scratch, const struct matmul_job *job, size_t row, size_t rows, size_t tok,
                           size_t toks, bool first, size_t more, const struct format_avx512 *format)
{
    const struct act_layout layout = act_layout(format->shape.kind == PANEL_SUPER ? ACT_Q8_256 : ACT_Q8_32, job->cols);
    group_fn *multiply = group_of(&format->shape);
    struct group group = { .panels = scratch->panels, .layout = &layout, .offset = format->shape.offset };

    memset(scratch->acc, 0, toks * sizeof scratch->acc[0]);
    for (size_t r = 0; first && r < rows; r++)
        prefetch_run((const uint8_t *)job->weights + (row + r) * job->row_bytes, format->shape.bytes, job->wide);
    for (group.run = 0; group.run * PANEL_COLS < job->cols; group.run++) {
        group.count = fill_panels_avx512(scratch->panels, scratch->copy[0], job, row, rows, group.run, format);
        struct soon soon = soon_of(job, row, rows, group.run, more, format->shape.bytes);
        for (size_t t = 0, n; t < toks; t += n) {
            n = group_size(toks - t);
            group.toks = (int)(n + 1) / 2 * 2;
            group.acc = &scratch->acc[t];
            for (size_t i = 0; i < TOKS; i++)
                group.act[i] = (const uint8_t *)job->acts + (tok + t + (i < n ? i : n - 1)) * job->act_stride;
            ask_some(&soon, (toks - t - n + TOKS - 1) / TOKS);
            multiply(&group);
        }
    }
    for (size_t t = 0; t < toks; t++)
        memcpy(job->out + (tok + t) * job->out_stride + row, scratch->acc[t], rows * sizeof(float));
}

/* What is left over of sixteen takes less by the one-token way (to four tokens, but small formats to two) or by few_fn than by
 * panels, or as much; nine to twelve tokens would pay for sixteen. Where shuffles are as fast as on a Zen 5 panels take less or as
 * much: a run of Q2_K by 24 tokens 84 cycles instead of 114, by 48 147 instead of 200, of Q8_0 110 and 108, 179 and 217. */
static bool by_groups(size_t toks, bool wide, const struct format_avx512 *format)
{
    const size_t left = toks % FEW_TOKS, one = format->shape.kind == PANEL_SMALL ? 2 : DECODE_TOKS;
    if (toks <= FEW_TOKS)
        return true;
    return !wide && toks <= format->groups && (left <= one || (left > DECODE_TOKS && left <= 8) || left > 12);
}

/* Few tokens, sixteen at a time: the first ones bring the rows from memory, the next find them in the second-level cache. Each
 * sixteen have scratch of their own, in which their vectors are kept from call to call. */
static void multiply_groups(const struct matmul_job *job, struct row_range rows, void *scratch, const struct format_avx512 *format)
{
    const size_t runs = (job->cols + PANEL_COLS - 1) / PANEL_COLS;
    const size_t step = sizeof(struct few_scratch) + runs * sizeof(struct few_run);
    for (size_t tok = 0; tok < job->toks; tok += FEW_TOKS) {
        struct few_scratch *few = (struct few_scratch *)(void *)((char *)scratch + tok / FEW_TOKS * step);
        struct matmul_job part = *job;
        part.toks = job->toks - tok < FEW_TOKS ? job->toks - tok : FEW_TOKS;
        part.out += tok * job->out_stride;
        part.acts = (const uint8_t *)job->acts + tok * job->act_stride;
        part.rows_soon = tok == 0 ? job->rows_soon : 0;
        part.asked = tok != 0 || job->asked;
        if (part.toks < few_least(&format->shape)) {
            const struct row_range all = rows_to_ask(&part, rows);
            for (size_t row = rows.begin; row < rows.end; row += PANEL_ROWS)
                format->decode(&part, row, all);
            continue;
        }
        if (!job->kept)
            few_arrange_avx512(few, &part, &format->shape);
        format->few(&part, rows, few);
    }
}

_Static_assert(GROUPS_TOKS / FEW_TOKS * sizeof(struct few_scratch) <= sizeof(struct many_scratch),
               "what each sixteen tokens have besides their vectors fits what is there for panels");

_Static_assert(sizeof(struct woven_scratch) <= sizeof(struct many_scratch) &&
               WOVEN_TOKS * sizeof(struct token_run) <= GROUPS_TOKS / FEW_TOKS * sizeof(struct few_run), "fits what others take");
_Static_assert(sizeof(struct subs_scratch) <= sizeof(struct many_scratch) && SUBS_TOKS / SUBS_GROUP * sizeof(struct subs_group) <=
               GROUPS_TOKS / FEW_TOKS * sizeof(struct few_run), "the same");

/* What tokens offer for all runs; a pass that has fewer than its number repeats the last one. */
static void arrange_woven(struct woven_scratch *scratch, const struct matmul_job *job, const struct panel_shape *shape)
{
    const struct act_layout layout = act_layout(shape->kind == PANEL_SUPER ? ACT_Q8_256 : ACT_Q8_32, job->cols);
    struct token_run *token = scratch->token;
    for (size_t run = 0; run * PANEL_COLS < job->cols; run++)
        for (size_t t = 0; t % WOVEN_PASS != 0 || t < job->toks; t++, token++)
            token_run_init(token, (const uint8_t *)job->acts + (t < job->toks ? t : job->toks - 1) * job->act_stride, &layout, run,
                           *shape);
}

static void multiply_woven(const struct matmul_job *job, struct row_range rows, struct woven_scratch *scratch,
                           const struct format_avx512 *format)
{
    if (!job->kept)
        arrange_woven(scratch, job, &format->shape);
    if (rows.begin < rows.end)
        format->woven(job, rows, scratch);
}

void matmul_panels_avx512(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch,
                          const struct format_avx512 *format)
{
    if (job->wide && job->toks > DECODE_TOKS && job->toks <= format->woven_toks && job->cols % PANEL_COLS == 0) {
        multiply_woven(job, (struct row_range){ row_begin, row_end }, scratch, format);
        return;
    }
    if (by_groups(job->toks, job->wide, format)) {
        multiply_groups(job, (struct row_range){ row_begin, row_end }, scratch, format);
        return;
    }
    for (size_t tok = 0; tok < job->toks; tok += BLOCK_TOKS) {
        size_t toks = job->toks - tok < BLOCK_TOKS ? job->toks - tok : BLOCK_TOKS;
        for (size_t row = row_begin; row < row_end; row += BLOCK_ROWS) {
            const size_t rows = row_end - row < BLOCK_ROWS ? row_end - row : BLOCK_ROWS;
            multiply_block(scratch, job, row, rows, tok, toks, row == row_begin && !job->asked,
                           row_end - row - rows + job->rows_soon, format);
        }
    }
}
