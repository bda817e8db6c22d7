/* Times of single slots, one thread: for the eye of who works on a kernel. Models are timed by `quern bench`. */
#include "kernels_check.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROWS = 2048, COLS = 4096, ROUNDS = 5 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *aligned(size_t bytes)
{
    void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!memory)
        exit(2);
    memset(memory, 0, bytes);
    return memory;
}

/* The best of ROUNDS, each long enough for the clock. */
static double best_time(const struct matmul_kernels *kernel, const struct matmul_job *job, void *scratch)
{
    double best = 1e9;
    for (int round = 0; round < ROUNDS; round++) {
        size_t times = 0;
        double begin = now(), elapsed;
        do {
            kernel->matmul(job, 0, ROWS, scratch);
            times++;
            elapsed = now() - begin;
        } while (elapsed < 0.02);
        best = elapsed / (double)times < best ? elapsed / (double)times : best;
    }
    return best;
}

static void bench_matmul(const struct kernels *table, const struct format *format, const char *rung)
{
    static const size_t batches[] = { 1, 2, 4, 8, 16, 64, 256 };
    const struct matmul_kernels *kernel = &table->matmul[format->id];
    struct check c = { .random = 1 };
    size_t row_bytes = COLS / format->block * format->bytes, stride = act_layout(kernel->act, COLS).bytes;
    char *weights = aligned(ROWS * row_bytes), *acts = aligned(256 * stride);
    float *x = aligned(COLS * sizeof *x), *out = aligned(256 * ROWS * sizeof *out);
    void *scratch = aligned(kernels_scratch(table, COLS));
    fill_blocks(&c, weights, format, ROWS * row_bytes / format->bytes, FILL_RANDOM, FILL_RANDOM);
    for (size_t t = 0; t < 256; t++) {
        fill_floats(&c, x, COLS, FILL_RANDOM);
        table->act_prepare[kernel->act].fn(acts + t * stride, x, COLS);
    }
    printf("%-8s %-8s (%s)", rung, format->name, kernel->isa);
    for (size_t i = 0; i < sizeof batches / sizeof *batches; i++) {
        struct matmul_job job = { .out = out, .out_stride = ROWS, .weights = weights, .row_bytes = row_bytes, .cols = COLS,
                                  .acts = acts, .act_stride = stride, .toks = batches[i] };
        double seconds = best_time(kernel, &job, scratch);
        if (i == 0)
            printf("  1 token: %5.1f GB/s %5.1f Gop/s", (double)(ROWS * row_bytes) / seconds * 1e-9,
                   2.0 * ROWS * COLS / seconds * 1e-9);
        else
            printf("  %zu: %.0f", batches[i], 2.0 * ROWS * COLS * (double)batches[i] / seconds * 1e-9);
    }
    printf("\n");
    free(weights);
    free(acts);
    free(x);
    free(out);
    free(scratch);
}

void bench_table(const struct kernels *table, const struct kernels *below, const char *rung)
{
    for (uint32_t id = 0; id < FORMAT_COUNT; id++)
        if (table->matmul[id].matmul && (!below || below->matmul[id].matmul != table->matmul[id].matmul))
            bench_matmul(table, format_find(id), rung);
}
