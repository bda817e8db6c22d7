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

/* One call of what is timed. */
typedef void once_fn(const void *call);

/* Seconds of the best of ROUNDS, each of `times` calls at once, and long enough for the clock. */
static double best_time(once_fn *once, const void *call, size_t times)
{
    double best = 1e9;
    for (int round = 0; round < ROUNDS; round++) {
        size_t done = 0;
        double begin = now(), elapsed;
        do {
            for (size_t i = 0; i < times; i++)
                once(call);
            done += times;
            elapsed = now() - begin;
        } while (elapsed < 0.02);
        best = elapsed / (double)done < best ? elapsed / (double)done : best;
    }
    return best;
}

struct matmul_call { const struct matmul_kernels *kernel; struct matmul_job job; void *scratch; };

static void matmul_once(const void *call)
{
    const struct matmul_call *m = call;
    m->kernel->matmul(&m->job, 0, ROWS, m->scratch);
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
                                  .acts = acts, .act_stride = stride, .toks = batches[i], .wide = table->cpu.wide };
        double seconds = best_time(matmul_once, &(struct matmul_call){ kernel, job, scratch }, 1);
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

/* ---- attention: one tile of keys or values in L1, as many queries as share it ------------------------------------ */

enum { HEAD_DIM = 128, QUERIES = 64, CALLS = 100 };

struct attention_call {
    const struct kernels *table;
    enum kv_type          type;
    bool                  mix;
    size_t                nq, stride;      /* queries; bytes from a row of the tile to the next */
    const void           *tile;
    const float          *in;              /* queries, or the weights of a mix                  */
    float                *out;
};

static void attention_once(const void *call)
{
    const struct attention_call *a = call;
    if (a->mix)
        a->table->attn_mix[a->type].fn(a->out, HEAD_DIM, a->in, a->nq, a->tile, a->stride, ATTN_TILE, HEAD_DIM);
    else
        a->table->attn_scores[a->type].fn(a->out, a->in, HEAD_DIM, a->nq, a->tile, a->stride, ATTN_TILE, HEAD_DIM, 0.1f);
}

/* A tile of random rows in the cache's type, and what a call reads beside it: queries, rounded where the type wants that, or
 * weights of a mix. */
static void fill_attention(const struct kernels *table, enum kv_type type, bool mix, char *tile, float *in)
{
    struct check c = { .random = 1 };
    float x[HEAD_DIM];
    for (size_t t = 0; t < ATTN_TILE; t++) {
        fill_floats(&c, x, HEAD_DIM, FILL_RANDOM);
        if (type == KV_I16)
            (mix ? table->attn_store_value : table->attn_store_key).fn(tile, t, x, HEAD_DIM);
        else
            table->quantize[kv_format(type)].fn(tile + t * kv_row_bytes(type, HEAD_DIM), x, HEAD_DIM);
    }
    fill_floats(&c, in, QUERIES * HEAD_DIM, FILL_RANDOM);
    for (size_t i = 0; mix && i < QUERIES * ATTN_TILE; i++)
        in[i] = in[i] < 0 ? -in[i] : in[i];
    for (size_t i = 0; !mix && type == KV_I16 && i < QUERIES; i++)
        table->attn_query.fn(in + i * HEAD_DIM, HEAD_DIM);
}

static void bench_attention(const struct kernels *table, enum kv_type type, bool mix, const char *rung)
{
    static const size_t queries[] = { 1, 4, 8, 16, QUERIES };
    char *tile = aligned(ATTN_TILE * kv_row_bytes(type, HEAD_DIM));
    float *in = aligned(QUERIES * HEAD_DIM * sizeof *in), *out = aligned(QUERIES * HEAD_DIM * sizeof *out);
    fill_attention(table, type, mix, tile, in);
    printf("%-8s %-4s %s (%s)  Gop/s of", rung, kv_name(type), mix ? "attn_mix" : "attn_scores",
           mix ? table->attn_mix[type].isa : table->attn_scores[type].isa);
    for (size_t i = 0; i < sizeof queries / sizeof *queries; i++) {
        struct attention_call call = { table, type, mix, queries[i], kv_row_bytes(type, HEAD_DIM), tile, in, out };
        double seconds = best_time(attention_once, &call, CALLS);
        printf("  %zu: %.1f", queries[i], 2e-9 * ATTN_TILE * HEAD_DIM * (double)queries[i] / seconds);
    }
    printf("\n");
    free(tile);
    free(in);
    free(out);
}

void bench_table(const struct kernels *table, const struct kernels *below, const char *rung)
{
    for (uint32_t id = 0; id < FORMAT_COUNT; id++)
        if (table->matmul[id].matmul && (!below || below->matmul[id].matmul != table->matmul[id].matmul))
            bench_matmul(table, format_find(id), rung);
    for (enum kv_type type = 0; type < KV_TYPES; type++) {
        if (!below || below->attn_scores[type].fn != table->attn_scores[type].fn)
            bench_attention(table, type, false, rung);
        if (!below || below->attn_mix[type].fn != table->attn_mix[type].fn)
            bench_attention(table, type, true, rung);
    }
}
