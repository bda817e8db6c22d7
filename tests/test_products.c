/* Stages: long vectors that few tokens have are made ready part by part, by several threads, and are what one call makes; products
 * of one stage are what each is by itself, though threads keep vectors from one to the next. */
#include "test.h"

#include <stdlib.h>
#include <string.h>

#include "arch.h"
#include "forward.h"
#include "kernels_check.h"

enum { TOKENS = 5, COLS_MOST = 9000, STRIDE = COLS_MOST + 3 };

struct setting {
    struct kernels kernels;
    struct forward forward;
    struct thread_scratch scratch[4];
    float *x;                            /* [TOKENS][STRIDE] */
};

static bool setting_open(struct setting *s, size_t threads)
{
    struct quern_error err;
    struct cpu cpu;
    uint64_t seed = 7;
    memset(s, 0, sizeof *s);
    cpu_detect(&cpu);
    kernels_init(&s->kernels, &cpu);
    s->forward = (struct forward){ .k = &s->kernels, .threads = threads, .scratch = s->scratch, .pool = pool_open(threads, &err) };
    for (size_t i = 0; i < 4; i++) {
        s->scratch[i].rows = mem_take_aligned(product_scratch_floats(&s->kernels, TOKENS), sizeof(float), "rows", &err);
        s->scratch[i].run = mem_take_aligned(1, 64, "a run", &err);
    }
    s->x = malloc(TOKENS * STRIDE * sizeof *s->x);
    for (size_t i = 0; i < TOKENS * STRIDE; i++)
        s->x[i] = random_float(&seed, -3, 3);
    return s->forward.pool != NULL;
}

static void setting_close(struct setting *s)
{
    pool_close(s->forward.pool);
    free(s->x);
    for (size_t i = 0; i < 4; i++) {
        free(s->scratch[i].rows);
        free(s->scratch[i].run);
    }
}

/* All bytes of all forms: what stood there before, in the gaps as well, is overwritten. */
static void compare(struct setting *s, size_t cols, size_t toks)
{
    struct acts acts = { 0 };
    unsigned char *one = aligned_alloc(64, act_layout(ACT_F32, cols).bytes);
    for (int kind = 0; kind < ACT_KINDS; kind++) {
        acts.bytes[kind] = TOKENS * act_layout((enum act_kind)kind, cols).bytes;
        acts.data[kind] = aligned_alloc(64, acts.bytes[kind]);
        memset(acts.data[kind], 0xa5, acts.bytes[kind]);
    }
    prepare_tokens(&s->forward, &acts, s->x, STRIDE, cols, toks);
    for (int kind = 0; kind < ACT_KINDS; kind++) {
        size_t bytes = act_layout((enum act_kind)kind, cols).bytes;
        for (size_t t = 0; t < toks; t++) {
            memset(one, 0, bytes);
            s->kernels.act_prepare[kind].fn(one, s->x + t * STRIDE, cols);
            CHECK(memcmp(one, acts.data[kind] + t * bytes, bytes) == 0, "form %d, %zu columns, token %zu of %zu, %zu threads", kind,
                  cols, t, toks, s->forward.threads);
        }
        free(acts.data[kind]);
    }
    free(one);
}

static void parts_are_the_whole(void)
{
    static const size_t cols[] = { 32, 1024, 1056, 2048, 3040, 4096, 8192, 8992 };
    for (size_t threads = 1; threads <= 4; threads++) {
        struct setting s;
        CHECK(setting_open(&s, threads), "a pool of %zu", threads);
        for (size_t i = 0; i < sizeof cols / sizeof *cols; i++)
            for (size_t toks = 1; toks <= TOKENS; toks += 2)
                compare(&s, cols[i], toks);
        setting_close(&s);
    }
}

/* ---- several products in a stage ---------------------------------------------------------------------------------- */

/* Two sets of vectors, matrices of a few formats; rows that divide neither into pieces nor into the kernels' blocks. */
enum { COLS = 512, VECTORS = 24, TOKS_LEAST = 5, TOKS_MOST = 16, ROWS_MOST = 131, ROUNDS = 3, LIST_MOST = 2 * ROUNDS };
static const struct { uint32_t format; size_t rows; } SHAPES[] = {
    { FORMAT_Q4_K, 131 }, { FORMAT_Q8_0, 67 }, { FORMAT_IQ2_XXS, 93 }, { FORMAT_Q6_K, 131 }, { FORMAT_F16, 37 },
};
enum { MATRICES = sizeof SHAPES / sizeof *SHAPES };
/* How the second of two products differs from the first. */
enum difference { NOTHING, FIRST, STEP, VECTORS_OF_OTHERS, MATRIX, FEWER, ADDED, GATED, DIFFERENCES };
static const char *const DIFFERENCE[DIFFERENCES] = {
    "nothing", "the first vector", "the step", "the set of vectors", "the matrix", "the number of tokens", "its end", "a gate",
};

struct products {
    struct setting setting;
    struct arch    arch;
    struct model   model;
    struct acts    acts[2];
    struct matrix  matrix[MATRICES];
    float         *out, *expected;       /* [TOKS_MOST][ROWS_MOST] each */
};

static void make_vectors(struct products *s, struct acts *acts)
{
    for (int kind = 0; kind < ACT_KINDS; kind++) {
        acts->bytes[kind] = VECTORS * act_layout((enum act_kind)kind, COLS).bytes;
        acts->data[kind] = aligned_alloc(64, acts->bytes[kind]);
    }
    acts_shape(acts, COLS);
    for (size_t i = 0; i < VECTORS; i++)
        acts_prepare(&s->setting.forward, acts, i, s->setting.x + (acts - s->acts) * VECTORS * COLS + i * COLS, COLS);
}

static bool products_open(struct products *s, size_t threads)
{
    struct quern_error err;
    struct check random = { .random = 11 };
    memset(s, 0, sizeof *s);
    if (!setting_open(&s->setting, threads))
        return false;
    s->arch.activation = FFN_SILU;
    s->model.arch = &s->arch;
    s->setting.forward.m = &s->model;
    for (size_t i = 0; i < 4; i++) {
        struct thread_scratch *scratch = &s->setting.scratch[i];
        free(scratch->rows);
        scratch->rows = mem_take_aligned(product_scratch_floats(&s->setting.kernels, TOKS_MOST), sizeof(float), "rows", &err);
        scratch->kernel = mem_take_aligned(kernels_scratch(&s->setting.kernels, COLS), 1, "scratch", &err);
    }
    make_vectors(s, &s->acts[0]);
    make_vectors(s, &s->acts[1]);
    for (size_t i = 0; i < MATRICES; i++) {
        const struct format *format = format_find(SHAPES[i].format);
        size_t blocks = SHAPES[i].rows * COLS / format->block;
        unsigned char *data = malloc(blocks * format->bytes);
        fill_blocks(&random, data, format, blocks, FILL_RANDOM, FILL_RANDOM);
        s->matrix[i] = (struct matrix){ .data = data, .type = format->id, .cols = COLS, .rows = SHAPES[i].rows, .slices = 1,
                                        .row_bytes = COLS / format->block * format->bytes, .scale = 1 };
    }
    s->out = malloc(LIST_MOST * TOKS_MOST * ROWS_MOST * sizeof *s->out);
    s->expected = malloc(LIST_MOST * TOKS_MOST * ROWS_MOST * sizeof *s->expected);
    return true;
}

static void products_close(struct products *s)
{
    for (size_t i = 0; i < 4; i++)
        free(s->setting.scratch[i].kernel);
    for (int kind = 0; kind < ACT_KINDS; kind++) {
        free(s->acts[0].data[kind]);
        free(s->acts[1].data[kind]);
    }
    for (size_t i = 0; i < MATRICES; i++)
        free((void *)(uintptr_t)s->matrix[i].data);
    free(s->out);
    free(s->expected);
    setting_close(&s->setting);
}

/* The product as calls of its own: its matrix, or both, each by itself, then what is done with them. */
static void by_itself(struct products *s, const struct product *p, float *out)
{
    static float up[TOKS_MOST * ROWS_MOST];
    const struct kernels *k = &s->setting.kernels;
    struct product plain = *p;
    size_t rows = p->w->rows;
    plain.finish = FINISH_STORE;
    plain.gate = NULL;
    plain.out = p->finish == FINISH_STORE ? out : up;
    run_products(&s->setting.forward, &plain, 1);
    if (p->gate) {
        plain.w = p->gate;
        plain.out = out;
        run_products(&s->setting.forward, &plain, 1);
    }
    for (size_t t = 0; t < p->toks; t++) {
        if (p->finish == FINISH_ADD)
            k->axpy.fn(out + t * ROWS_MOST, up + t * ROWS_MOST, p->factor, rows);
        if (p->gate)
            k->silu_mul.fn(out + t * ROWS_MOST, out + t * ROWS_MOST, up + t * ROWS_MOST, rows);
    }
}

/* Two products in turn, so that a thread goes from each to the other; pieces of 32 rows and more let several threads have some. */
static void check_pair(struct products *s, size_t matrix, enum difference difference, size_t toks)
{
    struct product list[LIST_MOST] = { 0 }, run[LIST_MOST];
    size_t other = (matrix + 1) % MATRICES, each = TOKS_MOST * ROWS_MOST;
    const struct matrix *w = &s->matrix[matrix];
    struct matrix gate = s->matrix[other];
    gate.rows = w->rows < gate.rows ? w->rows : gate.rows;       /* gate and up are of one shape */
    struct matrix up = *w;
    up.rows = gate.rows;
    for (size_t i = 0; i < LIST_MOST; i++) {
        struct product *p = &list[i];
        *p = (struct product){ .w = w, .in = &s->acts[0], .first = 2, .step = 1, .toks = toks, .out_stride = ROWS_MOST,
                               .out = s->out + i * each, .factor = 0.5f };
        if (i % 2 == 0)
            continue;
        p->first = difference == FIRST ? 3 : 2;
        p->step = difference == STEP ? 0 : 1;
        p->in = &s->acts[difference == VECTORS_OF_OTHERS];
        p->w = difference == MATRIX ? &s->matrix[other] : difference == GATED ? &up : w;
        p->gate = difference == GATED ? &gate : NULL;
        p->toks = difference == FEWER ? toks - 1 : toks;
        p->finish = difference == ADDED ? FINISH_ADD : difference == GATED ? FINISH_ACTIVATE : FINISH_STORE;
    }
    for (size_t i = 0; i < LIST_MOST * each; i++)
        s->out[i] = s->expected[i] = (float)(i % 7);
    for (size_t i = 0; i < LIST_MOST; i++)
        by_itself(s, &list[i], s->expected + i * each);
    memcpy(run, list, sizeof run);
    run_products(&s->setting.forward, run, LIST_MOST);
    for (size_t i = 0; i < LIST_MOST; i++)
        CHECK(memcmp(s->out + i * each, s->expected + i * each, each * sizeof *s->out) == 0,
              "product %zu of %s, %zu tokens, %zu threads; every second differs in %s", i, format_find(w->type)->name, toks,
              s->setting.forward.threads, DIFFERENCE[difference]);
}

static void products_of_a_stage(void)
{
    for (size_t threads = 1; threads <= 4; threads++) {
        struct products s;
        CHECK(products_open(&s, threads), "a pool of %zu", threads);
        for (size_t matrix = 0; matrix < MATRICES; matrix++)
            for (int difference = 0; difference < DIFFERENCES; difference++)
                for (size_t toks = TOKS_LEAST; toks <= TOKS_MOST; toks++)
                    check_pair(&s, matrix, (enum difference)difference, toks);
        products_close(&s);
    }
}

int main(void)
{
    TEST(parts_are_the_whole);
    TEST(products_of_a_stage);
    return test_end();
}
