/* Every encoder: its error on real rows against what llama.cpp's encoder left with the same data, hostile rows, and the search in
 * the codebooks against looking at every entry. */
#include "gguf.h"
#include "kernels.h"
#include "lanes.h"
#include "test.h"

#include <stdlib.h>

static struct kernels table;
static struct rounding *rounding;

static const uint32_t formats[] = {
    FORMAT_F32, FORMAT_F16, FORMAT_BF16, FORMAT_Q4_0, FORMAT_Q4_1, FORMAT_Q5_0, FORMAT_Q5_1, FORMAT_Q8_0, FORMAT_IQ4_NL,
    FORMAT_MXFP4, FORMAT_Q2_K, FORMAT_Q3_K, FORMAT_Q4_K, FORMAT_Q5_K, FORMAT_Q6_K, FORMAT_IQ4_XS, FORMAT_IQ2_XXS, FORMAT_IQ2_XS,
    FORMAT_IQ2_S, FORMAT_IQ3_XXS, FORMAT_IQ3_S, FORMAT_IQ1_S, FORMAT_IQ1_M, FORMAT_TQ1_0, FORMAT_TQ2_0,
};
enum { FORMATS = sizeof formats / sizeof *formats };

/* Sum of weight * (x - decoded)^2 over a row; weight NULL: 1. */
static double row_error(uint32_t format, const void *blocks, const float *x, const float *weight, size_t n)
{
    float *decoded = malloc(n * sizeof *decoded);
    double error = 0;
    table.dequantize[format].fn(decoded, blocks, n);
    for (size_t i = 0; i < n; i++) {
        double off = (double)x[i] - decoded[i];
        error += (weight ? (double)weight[i] : 1) * off * off;
    }
    free(decoded);
    return error;
}

static size_t row_bytes(uint32_t format, size_t n)
{
    size_t bytes = 0;
    CHECK(format_row_bytes(&bytes, format_find(format), n), "%s: row of %zu", format_find(format)->name, n);
    return bytes;
}

static double encode_error(uint32_t format, const float *x, const float *weight, size_t n)
{
    void *blocks = malloc(row_bytes(format, n));
    rounding_row(rounding, format, blocks, x, weight, n);
    double error = row_error(format, blocks, x, weight, n);
    free(blocks);
    return error;
}

/* ---- against the peer ---- */

/* vectors/types: 16 rows of 1024 values, and llama.cpp's blocks for them; five types were made with importances. */
static void errors_at_or_below_the_vectors(void)
{
    size_t size, n = 1024;
    float *source = (float *)(void *)read_whole_file(shared_path("vectors/types/source.f32"), &size);
    float *importance = (float *)(void *)read_whole_file(shared_path("vectors/types/imatrix.f32"), &size);
    CHECK(source && importance, "source.f32 or imatrix.f32 is missing");
    for (int f = 1; source && importance && f < FORMATS; f++) {
        uint32_t id = formats[f];
        char path[128];
        snprintf(path, sizeof path, "vectors/types/%s.bin", format_find(id)->name);
        char *blocks = read_whole_file(shared_path(path), &size);
        bool weighted = id == FORMAT_IQ2_XXS || id == FORMAT_IQ2_XS || id == FORMAT_IQ2_S ||
                        id == FORMAT_IQ1_S || id == FORMAT_IQ1_M;
        CHECK(blocks && size == 16 * row_bytes(id, n), "%s", path);
        double peer = 0, ours = 0;
        for (size_t r = 0; blocks && r < 16; r++) {
            peer += row_error(id, blocks + r * row_bytes(id, n), source + r * n, weighted ? importance : NULL, n);
            ours += encode_error(id, source + r * n, weighted ? importance : NULL, n);
        }
        CHECK(ours <= peer, "%s: error %g, llama.cpp's %g", format_find(id)->name, ours, peer);
        free(blocks);
    }
    free(source);
    free(importance);
}

/* Rows of a file that llama-quantize made with the importance matrix, type by type. */
static void compare_file(const struct gguf *base, const struct gguf *matrix, const char *name)
{
    struct quern_error err;
    struct gguf peer;
    char path[128];
    double ours[FORMAT_COUNT] = { 0 }, theirs[FORMAT_COUNT] = { 0 };
    snprintf(path, sizeof path, "models/tiny-books/peers/tiny-books-%s.gguf", name);
    bool open = gguf_open(&peer, shared_path(path), NULL, &err);
    CHECK(open, "%s", err.text);
    for (size_t t = 0; open && t < peer.tensor_count; t++) {
        const struct gguf_tensor *to = &peer.tensors[t];
        char key[128];
        snprintf(key, sizeof key, "%.*s", (int)to->name.n, to->name.text);
        const struct gguf_tensor *from = gguf_find_tensor(base, key);
        snprintf(key, sizeof key, "%.*s.in_sum2", (int)to->name.n, to->name.text);
        const struct gguf_tensor *sums = gguf_find_tensor(matrix, key);
        size_t n = to->shape[0], rows = to->shape[1] < 6 ? to->shape[1] : 6;
        if (!from || !sums || to->type == FORMAT_F32)
            continue;
        float *x = malloc(n * sizeof *x);
        for (size_t r = 0; r < rows; r++) {
            table.dequantize[from->type].fn(x, from->data + r * row_bytes(from->type, n), n);
            const float *weight = (const float *)(const void *)sums->data;
            double scale = 0;             /* so that no tensor drowns the others */
            for (size_t i = 0; i < n; i++)
                scale += (double)weight[i] * x[i] * x[i];
            theirs[to->type] += row_error(to->type, to->data + r * row_bytes(to->type, n), x, weight, n) / scale;
            ours[to->type] += encode_error(to->type, x, weight, n) / scale;
        }
        free(x);
    }
    for (uint32_t id = 0; id < FORMAT_COUNT; id++)
        CHECK(ours[id] <= theirs[id], "%s in %s: error %g, llama.cpp's %g", format_find(id)->name, name, ours[id], theirs[id]);
    if (open)
        gguf_close(&peer);
}

static void errors_at_or_below_the_peers_files(void)
{
    static const char *const names[] = { "Q4_K_M", "IQ4_XS", "Q3_K_M", "Q2_K", "IQ3_XXS", "IQ2_M" };
    struct quern_error err;
    struct gguf base, matrix;
    if (!gguf_open(&base, shared_path("models/tiny-books/tiny-books-BF16.gguf"), NULL, &err)) {
        CHECK(false, "%s", err.text);
        return;
    }
    if (gguf_open(&matrix, shared_path("models/tiny-books/peers/tiny-books.imatrix.gguf"), NULL, &err)) {
        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
            compare_file(&base, &matrix, names[i]);
        gguf_close(&matrix);
    } else {
        CHECK(false, "%s", err.text);
    }
    gguf_close(&base);
}

/* ---- hostile rows ---- */

enum { ROW = 512 };

static void fill(float *x, int kind, uint64_t *seed)
{
    for (int i = 0; i < ROW; i++) {
        float r = random_float(seed, -1, 1);
        switch (kind) {
        case 0: x[i] = 0; break;
        case 1: x[i] = 0.37f; break;
        case 2: x[i] = -1; break;
        case 3: x[i] = i % 32 == 5 ? 3 : 0; break;
        case 4: x[i] = r * 1e-41f; break;
        case 5: x[i] = r * 3e38f; break;
        case 6: x[i] = i % 100 == 7 ? 1000 * r : 1e-3f * r; break;
        case 7: x[i] = r * 5e-6f; break;
        case 8: x[i] = i % 2 ? 1.f : -1.f; break;
        case 9: x[i] = i < 256 ? 0 : r; break;
        default: x[i] = r; break;
        }
    }
}

static double energy(const float *x)
{
    double sum = 0;
    for (int i = 0; i < ROW; i++)
        sum += (double)x[i] * x[i];
    return sum;
}

/* Decoded values are finite and, except where the format cannot reach so far, no worse than zeros. */
static void hostile_rows_stay_finite(void)
{
    for (int f = 0; f < FORMATS; f++)
        for (int kind = 0; kind <= 10; kind++) {
            uint64_t seed = 1 + (uint64_t)kind;
            float x[ROW], weight[ROW], decoded[ROW];
            uint8_t blocks[ROW * 4];
            fill(x, kind, &seed);
            for (int weights = 0; weights < 4; weights++) {
                for (int i = 0; i < ROW; i++)
                    weight[i] = weights == 1 ? 0 : weights == 2 ? 1e30f : i % 16 < 8 ? 0 : 1e-30f;
                rounding_row(rounding, formats[f], blocks, x, weights ? weight : NULL, ROW);
                table.dequantize[formats[f]].fn(decoded, blocks, ROW);
                bool finite = true;
                for (int i = 0; i < ROW; i++)
                    finite = finite && isfinite(decoded[i]);
                CHECK(finite || (kind == 5 && formats[f] == FORMAT_F16), "%s, row %d", format_find(formats[f])->name, kind);
                double error = row_error(formats[f], blocks, x, NULL, ROW);
                if (finite && weights < 3)
                    CHECK(error <= energy(x) * 1.000001, "%s, row %d, weights %d: error %g of %g",
                          format_find(formats[f])->name, kind, weights, error, energy(x));
            }
        }
}

/* A row of several blocks is the blocks one by one: nothing leaks from block to block. */
static void blocks_are_independent(void)
{
    uint64_t seed = 5;
    float x[ROW * 2];
    for (int i = 0; i < ROW * 2; i++)
        x[i] = random_float(&seed, -1, 1);
    for (int f = 3; f < FORMATS; f++) {
        size_t block = format_find(formats[f])->block, bytes = format_find(formats[f])->bytes;
        uint8_t whole[ROW * 8], one[512];
        rounding_row(rounding, formats[f], whole, x, NULL, ROW * 2);
        for (size_t b = 0; b < ROW * 2 / block; b++) {
            rounding_row(rounding, formats[f], one, x + b * block, NULL, block);
            CHECK(!memcmp(one, whole + b * bytes, bytes), "%s, block %zu", format_find(formats[f])->name, b);
        }
    }
}

/* ---- instruction sets ---- */

/* The loops for this processor's widest vectors against those for any: the same bytes, for every format, and in the two sums. */
static void bytes_do_not_depend_on_the_instruction_set(void)
{
    struct quern_error err;
    struct rounding *plain = rounding_open(&err);
    const struct lanes *wide = rounding->lanes;
    uint64_t seed = 11;
    double a[37] = { 0 }, b[37] = { 0 }, in[4][37];
    float c[37] = { 0 }, d[37] = { 0 }, x[ROW], weight[ROW];
    CHECK(plain != NULL, "%s", err.text);
    if (!plain)
        return;
    plain->lanes = lanes_plain();
    for (int i = 0; i < BOOK_COUNT; i++)
        plain->books[i].lanes = lanes_plain();
    for (int f = 0; f < FORMATS; f++)
        for (int trial = 0; trial < 60; trial++) {
            uint8_t one[ROW * 4], other[ROW * 4];
            fill(x, trial % 30, &seed);
            for (int i = 0; i < ROW; i++)
                weight[i] = random_float(&seed, 0, trial % 7 ? 1 : 1e-6f);
            rounding_row(rounding, formats[f], one, x, trial % 2 ? weight : NULL, ROW);
            rounding_row(plain, formats[f], other, x, trial % 2 ? weight : NULL, ROW);
            CHECK(!memcmp(one, other, row_bytes(formats[f], ROW)), "%s, trial %d", format_find(formats[f])->name, trial);
        }
    for (int i = 0; i < 4 * 37; i++)
        in[i / 37][i % 37] = (double)random_float(&seed, -1, 1) / 3;
    wide->subtract_four(a, in[0], in[1], in[2], in[3], 0.1, 0.7, -1.3, 3, 37);
    lanes_plain()->subtract_four(b, in[0], in[1], in[2], in[3], 0.1, 0.7, -1.3, 3, 37);
    wide->add_scaled(c, x, 0.3f, 37);
    lanes_plain()->add_scaled(d, x, 0.3f, 37);
    CHECK(!memcmp(a, b, sizeof a) && !memcmp(c, d, sizeof c), "sums of doubles or floats");
    const float factors[8] = { 0.3f, -1.7f, 0, 3, 1e-3f, 0.11f, -0.6f, 7 };
    wide->add_eight(c, x, 25, factors, 37);
    for (int i = 0; i < 8; i++)
        lanes_plain()->add_scaled(d, x + 25 * i, factors[i], 37);
    CHECK(!memcmp(c, d, sizeof c), "eight sums at once");
    rounding_close(plain);
}

/* ---- codebooks ---- */

static void codebook_search_is_exact(void)
{
    uint64_t seed = 9;
    for (int id = 0; id < BOOK_COUNT; id++)
        for (int trial = 0; trial < 300; trial++) {
            const struct codebook *book = &rounding->books[id];
            float cost[GROUP_MAX][LEVELS_MAX], flip[GROUP_MAX][LEVELS_MAX], least, with;
            for (int j = 0; j < book->group; j++) {
                float a = random_float(&seed, 0, 2), w = random_float(&seed, 0.01f, 1);
                for (int l = 0; l < book->levels; l++) {
                    float q = 2 * book->level[l] / book->level[book->levels - 1];
                    cost[j][l] = w * (a - q) * (a - q), flip[j][l] = 4 * w * a * fabsf(q);
                }
            }
            double best = INFINITY, best_flipped = INFINITY;
            for (int e = 0; e < book->entries; e++) {
                double sum = 0, extra = INFINITY;
                for (int j = 0; j < book->group; j++) {
                    int l = book->levels_of[e][j];
                    sum += cost[j][l];
                    extra = flip[j][l] < extra ? flip[j][l] : extra;
                }
                best = sum < best ? sum : best;
                best_flipped = sum + extra < best_flipped ? sum + extra : best_flipped;
            }
            int where;
            codebook_best(book, cost, &least);
            codebook_best_flipped(book, cost, flip, &with, &where);
            CHECK(fabs(least - best) <= 1e-5 * best, "book %d: %g, every entry: %g", id, least, best);
            CHECK(fabs(with - best_flipped) <= 1e-5 * best_flipped, "book %d, flipped: %g, every entry: %g",
                  id, with, best_flipped);
        }
}

int main(void)
{
    struct cpu cpu;
    struct quern_error err;
    cpu_detect(&cpu);
    kernels_init(&table, &cpu);
    if (!(rounding = rounding_open(&err))) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    TEST(codebook_search_is_exact);
    TEST(hostile_rows_stay_finite);
    TEST(blocks_are_independent);
    if (lanes_find() != lanes_plain())
        TEST(bytes_do_not_depend_on_the_instruction_set);
    else
        test_skip("bytes_do_not_depend_on_the_instruction_set", "the tools have one set of loops for this processor");
    if (shared_path("vectors/types/source.f32")) {
        TEST(errors_at_or_below_the_vectors);
        TEST(errors_at_or_below_the_peers_files);
    } else {
        test_skip("errors_at_or_below_the_vectors", "shared/ is not here");
        test_skip("errors_at_or_below_the_peers_files", "shared/ is not here");
    }
    rounding_close(rounding);
    return test_end();
}
