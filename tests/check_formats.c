/* Every tensor type against reference vectors: decoding bit for bit, and the encodings that the engine writes itself. */
#include "formats.h"
#include "formats_small.h"
#include "kernels.h"
#include "numbers.h"
#include "test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct kernels table;
static const char *folder;                 /* vectors/types, NULL when absent */

/* NAME + suffix in the vectors' folder. */
static char *vector(const char *name, const char *suffix, size_t *size)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s%s", folder, name, suffix);
    return read_whole_file(path, size);
}

/* Values differ from the expected bits: the first place, or n. */
static size_t first_difference(const float *got, const float *expected, size_t n)
{
    size_t i = 0;
    while (i < n && float_bits(got[i]) == float_bits(expected[i]))
        i++;
    return i;
}

static void compare_decoding(const struct format *format, const char *packed, const char *decoded)
{
    size_t packed_size = 0, decoded_size = 0;
    char *blocks = vector(format->name, packed, &packed_size);
    char *expected = vector(format->name, decoded, &decoded_size);
    CHECK(blocks && expected, "%s%s or %s%s is missing", format->name, packed, format->name, decoded);
    if (blocks && expected) {
        size_t n = packed_size / format->bytes * format->block;
        CHECK(n > 0 && n * sizeof(float) == decoded_size, "%s%s holds %zu values", format->name, packed, n);
        float *got = malloc(n * sizeof(float));
        table.dequantize[format->id].fn(got, blocks, n);
        size_t at = first_difference(got, (const float *)(const void *)expected, n);
        CHECK(at == n, "%s%s: value %zu of %zu is %a, should be %a", format->name, packed, at, n, at < n ? got[at] : 0,
              at < n ? ((const float *)(const void *)expected)[at] : 0);
        free(got);
    }
    free(blocks);
    free(expected);
}

static void decoding_equals_the_vectors(void)
{
    for (uint32_t id = 0; id < FORMAT_COUNT; id++) {
        const struct format *format = format_find(id);
        if (!format || !format->weights || id == FORMAT_F32)
            continue;
        compare_decoding(format, ".bin", ".f32");
        compare_decoding(format, ".edge.bin", ".edge.f32");
    }
}

static void encoding_equals_the_vectors(void)
{
    static const uint32_t ids[] = { FORMAT_F16, FORMAT_BF16, FORMAT_Q8_0, FORMAT_Q4_0 };
    size_t source_size = 0, expected_size = 0;
    char *source = vector("source", ".f32", &source_size);
    CHECK(source, "source.f32 is missing");
    for (size_t i = 0; source && i < sizeof ids / sizeof *ids; i++) {
        const struct format *format = format_find(ids[i]);
        size_t n = source_size / sizeof(float), bytes = n / format->block * format->bytes, at = 0;
        char *expected = vector(format->name, ".bin", &expected_size), *got = malloc(bytes);
        table.quantize[ids[i]].fn(got, (const float *)(const void *)source, n);
        CHECK(expected && expected_size == bytes, "%s.bin", format->name);
        while (expected && at < bytes && got[at] == expected[at])
            at++;
        CHECK(at == bytes, "%s: byte %zu of block %zu", format->name, at % format->bytes, at / format->bytes);
        free(got);
        free(expected);
    }
    free(source);
}

/* Bytes of a hex string; gives how many. */
static size_t from_hex(unsigned char *out, const char *hex)
{
    size_t n = 0;
    unsigned byte;
    for (; sscanf(hex + 2 * n, "%2x", &byte) == 1; n++)
        out[n] = (unsigned char)byte;
    return n;
}

static void the_carried_blocks_decode(void)
{
    size_t count = 0;
    for (const struct small_block_vector *v = small_blocks; v->hex; v++, count++) {
        const struct format *format = format_find(v->id);
        unsigned char blocks[1024];
        float decoded[256];
        size_t n = from_hex(blocks, v->hex) / format->bytes * format->block;
        CHECK(n > 0 && n <= 256, "%s: %zu values", format->name, n);
        table.dequantize[v->id].fn(decoded, blocks, n);
        CHECK(small_hash(decoded, n * sizeof *decoded) == v->hash, "%s, carried block %zu", format->name, count);
    }
    CHECK(count == 81, "three blocks for each of 27 types, not %zu", count);
}

static void the_carried_floats_encode(void)
{
    unsigned char expected[1024], got[1024];
    float source[SMALL_SOURCE];
    size_t count = 0;
    CHECK(from_hex((unsigned char *)source, small_source) == sizeof source, "the source");
    for (const struct small_encoding *e = small_encodings; e->hex; e++, count++) {
        size_t bytes = from_hex(expected, e->hex);
        table.quantize[e->id].fn(got, source, SMALL_SOURCE);
        CHECK(memcmp(got, expected, bytes) == 0, "%s", format_find(e->id)->name);
    }
    CHECK(count == 4, "%zu encodings", count);
}

/* Every f16 to float and back; every float's neighbourhood of a rounding boundary. */
static void small_numbers_round_trip(void)
{
    for (uint32_t h = 0; h < 0x10000; h++) {
        float value = f16_to_f32((uint16_t)h), wide = bf16_to_f32((uint16_t)h);
        uint16_t quiet = (h & 0x7c00) == 0x7c00 && (h & 0x3ff) ? 0x200 : 0;
        uint16_t quiet_bf = (h & 0x7f80) == 0x7f80 && (h & 0x7f) ? 0x40 : 0;
        CHECK(f32_to_f16(value) == (h | quiet), "f16 %04x became %04x", h, f32_to_f16(value));
        CHECK(f32_to_bf16(wide) == (h | quiet_bf), "bf16 %04x became %04x", h, f32_to_bf16(wide));
        if ((h & 0x7fff) >= 0x7bff)
            continue;
        /* Half way to the next f16: to the even one; a float's step beyond: up; a step before: down. */
        float next = f16_to_f32((uint16_t)(h + 1)), middle = (value + next) / 2;
        CHECK(f32_to_f16(middle) == (h & 1 ? h + 1 : h), "middle above %04x", h);
        CHECK(f32_to_f16(nextafterf(middle, next)) == h + 1, "beyond the middle above %04x", h);
        CHECK(f32_to_f16(nextafterf(middle, value)) == h, "before the middle above %04x", h);
    }
    CHECK(f32_to_f16(65519.996f) == 0x7bff && f32_to_f16(65520) == 0x7c00 && f32_to_f16(-1e30f) == 0xfc00, "the edge to Inf");
    CHECK(f32_to_bf16(float_from_bits(0x3f808000)) == 0x3f80, "a tie in bf16 above an even number");
    CHECK(f32_to_bf16(float_from_bits(0x3f818000)) == 0x3f82, "a tie in bf16 above an odd number");
    CHECK(f32_to_bf16(float_from_bits(0x7f7fffff)) == 0x7f80, "the edge to Inf in bf16");
}

static void names_and_sizes(void)
{
    size_t bytes = 0;
    const struct format *q4 = format_by_name("q4_k");
    CHECK(q4 && q4->id == FORMAT_Q4_K && format_find(q4->id) == q4, "Q4_K by name");
    CHECK(!format_find(4) && !format_find(31) && !format_find(36), "removed ids");
    CHECK(!format_find(FORMAT_COUNT) && !format_find(~0u), "ids that were never given");
    CHECK(!format_by_name("Q9_9") && !format_by_name(""), "unknown names");
    CHECK(format_row_bytes(&bytes, q4, 512) && bytes == 288, "512 values are %zu bytes", bytes);
    CHECK(!format_row_bytes(&bytes, q4, 300), "300 values are no whole blocks");
    CHECK(!format_row_bytes(&bytes, format_find(FORMAT_F64), SIZE_MAX / 2), "an overflow");
}

int main(void)
{
    struct cpu cpu;
    cpu_detect(&cpu);
    cpu_cap(&cpu, "ref");
    kernels_init(&table, &cpu);
    TEST(names_and_sizes);
    TEST(small_numbers_round_trip);
    TEST(the_carried_blocks_decode);
    TEST(the_carried_floats_encode);
    folder = shared_path("vectors/types");
    if (folder) {
        TEST(decoding_equals_the_vectors);
        TEST(encoding_equals_the_vectors);
    } else {
        test_skip("decoding_equals_the_vectors", "no ../shared/vectors/types");
        test_skip("encoding_equals_the_vectors", "no ../shared/vectors/types");
    }
    return test_end();
}
