/* The scan for NaN and Inf: in every format that has a scale or values that can be bad, wherever the block is, for any number of
 * threads. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "scan.h"
#include "test.h"

enum { BLOCKS = 700, THREADS = 4 };

static struct kernels kernels;
static struct pool *pools[THREADS + 1];
static struct quern_error err;

static void scan_all(struct scan *out, const struct gguf_tensor *t, const char *what)
{
    for (size_t threads = 1; threads <= THREADS; threads++) {
        struct scan scan;
        CHECK(scan_tensor(&scan, t, &kernels, pools[threads], &err), "%s: %s", what, err.text);
        if (threads > 1)
            CHECK(!memcmp(&scan, out, sizeof scan), "%s: other findings with %zu threads", what, threads);
        *out = scan;
    }
}

/* Zeros are finite in every format; a block of bytes 0xff has NaN in every float and every float scale but those of a byte. */
static void check_format(const struct format *format)
{
    static const size_t places[] = { 0, 1, BLOCKS / 2, BLOCKS - 1 };
    size_t bytes = (size_t)BLOCKS * format->bytes;
    uint8_t *data = calloc(1, bytes);
    struct gguf_tensor t = { .name = { "t", 1 }, .type = format->id, .dims = 1, .data = data, .bytes = bytes,
                             .shape = { (size_t)BLOCKS * format->block, 1, 1, 1 } };
    struct scan scan;
    scan_all(&scan, &t, format->name);
    bool expected = format->weights || format->id == FORMAT_F64;
    CHECK(scan.scanned == expected, "%s: scanned %d", format->name, scan.scanned);
    CHECK(scan.blocks == BLOCKS && scan.bad_blocks == 0, "%s: %zu bad blocks of zeros", format->name, scan.bad_blocks);
    if (format->id == FORMAT_NVFP4) {          /* UE4M3, read as ggml reads it, has neither NaN nor Inf */
        memset(data, 0xff, bytes);
        scan_all(&scan, &t, format->name);
        CHECK(scan.bad_blocks == 0, "NVFP4: %zu bad blocks", scan.bad_blocks);
        scan.scanned = false;
    }
    for (size_t i = 0; scan.scanned && i < sizeof places / sizeof *places; i++) {
        size_t place = places[i];
        memset(data + place * format->bytes, 0xff, format->bytes);
        scan_all(&scan, &t, format->name);
        CHECK(scan.bad_blocks == 1 && scan.first_block == place, "%s: %zu bad blocks, the first %zu, expected 1 at %zu",
              format->name, scan.bad_blocks, scan.first_block, place);
        CHECK(scan.bad_blocks == 0 || (scan.first_value / format->block == place && !isfinite(scan.value)), "%s: value %zu is %g",
              format->name, scan.first_value, (double)scan.value);
        memset(data + place * format->bytes, 0, format->bytes);
    }
    if (scan.scanned) {
        for (size_t block = 3; block < BLOCKS; block += 5)
            memset(data + block * format->bytes, 0xff, format->bytes);
        scan_all(&scan, &t, format->name);
        CHECK(scan.bad_blocks == (BLOCKS - 3 + 4) / 5 && scan.first_block == 3, "%s: %zu bad blocks", format->name,
              scan.bad_blocks);
    }
    free(data);
}

/* Infinities, and single values within a long tensor of several chunks. */
static void test_infinities(void)
{
    enum { N = 200001 };
    float *x = calloc(N, sizeof *x);
    struct gguf_tensor t = { .name = { "t", 1 }, .type = FORMAT_F32, .dims = 1, .data = (const uint8_t *)x, .bytes = N * sizeof *x,
                             .shape = { N, 1, 1, 1 } };
    struct scan scan;
    x[100] = 3e38f;
    x[199999] = -INFINITY;
    scan_all(&scan, &t, "F32");
    CHECK(scan.bad_blocks == 1 && scan.first_value == 199999 && scan.value == -INFINITY, "value %zu", scan.first_value);
    x[65536] = INFINITY;
    scan_all(&scan, &t, "F32");
    CHECK(scan.bad_blocks == 2 && scan.first_value == 65536 && scan.value == INFINITY, "value %zu", scan.first_value);
    free(x);
}

int main(void)
{
    struct cpu cpu;
    cpu_detect(&cpu);
    kernels_init(&kernels, &cpu);
    for (size_t i = 1; i <= THREADS; i++)
        pools[i] = pool_open(i, &err);
    for (uint32_t id = 0; id < FORMAT_COUNT; id++)
        if (format_find(id)) {
            test_begin("%s", format_find(id)->name);
            check_format(format_find(id));
            test_finish();
        }
    TEST(test_infinities);
    for (size_t i = 1; i <= THREADS; i++)
        pool_close(pools[i]);
    return test_end();
}
