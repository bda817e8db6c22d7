/* Stages: long vectors that few tokens have are made ready part by part, by several threads, and are what one call makes. */
#include "test.h"

#include <stdlib.h>
#include <string.h>

#include "forward.h"

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

int main(void)
{
    TEST(parts_are_the_whole);
    return test_end();
}
