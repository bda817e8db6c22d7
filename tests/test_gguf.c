/* The GGUF reader on right files: values of every type, tensors, split files, both versions. Wrong ones are test_bad.c's. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "bytes.h"
#include "formats.h"
#include "gguf.h"
#include "test.h"

static struct quern_error err;

/* A key of each type, arrays of each kind of element, and three tensors with a gap and out of order. */
static void build(struct bytes *b, uint32_t version)
{
    put_raw(b, "GGUF", 4);
    put_u32(b, version);
    put_u64(b, 3);
    put_u64(b, 17);
    put_string(b, "a.u8"),   put_u32(b, GGUF_U8),   put_u8(b, 200);
    put_string(b, "a.i8"),   put_u32(b, GGUF_I8),   put_u8(b, 0x80);
    put_string(b, "a.u16"),  put_u32(b, GGUF_U16),  put_u16(b, 65535);
    put_string(b, "a.i16"),  put_u32(b, GGUF_I16),  put_u16(b, 0xfffe);
    put_string(b, "a.u32"),  put_u32(b, GGUF_U32),  put_u32(b, 4000000000u);
    put_string(b, "a.i32"),  put_u32(b, GGUF_I32),  put_u32(b, (uint32_t)-7);
    put_string(b, "a.f32"),  put_u32(b, GGUF_F32),  put_f32(b, 1.5f);
    put_string(b, "a.bool"), put_u32(b, GGUF_BOOL), put_u8(b, 1);
    put_string(b, "a.text"), put_u32(b, GGUF_STRING), put_string(b, "words");
    put_string(b, "a.u64"),  put_u32(b, GGUF_U64),  put_u64(b, UINT64_MAX);
    put_string(b, "a.i64"),  put_u32(b, GGUF_I64),  put_u64(b, (uint64_t)-9);
    put_string(b, "a.f64"),  put_u32(b, GGUF_F64),  put_u64(b, 0x7fe0000000000000u);
    put_string(b, "b.u16"),  put_u32(b, GGUF_ARRAY), put_u32(b, GGUF_U16), put_u64(b, 3), put_u16(b, 1), put_u16(b, 2), put_u16(b,
                                                                                                                             65535);
    put_string(b, "b.f32"),  put_u32(b, GGUF_ARRAY), put_u32(b, GGUF_F32), put_u64(b, 2), put_f32(b, -1), put_f32(b, 0.25f);
    put_string(b, "b.text"), put_u32(b, GGUF_ARRAY), put_u32(b, GGUF_STRING), put_u64(b, 3), put_string(b, "one"), put_string(b,
                                                                                                                              ""),
        put_string(b, "three");
    put_string(b, "b.none"), put_u32(b, GGUF_ARRAY), put_u32(b, GGUF_STRING), put_u64(b, 0);
    put_key_u32(b, "general.alignment", 64);
    put_tensor(b, "second", 1, (uint64_t[]){ 3 }, FORMAT_F32, 256);
    put_tensor(b, "first", 2, (uint64_t[]){ 64, 2 }, FORMAT_Q8_0, 0);           /* 136 bytes, then 56 padding and 64 of gap */
    put_tensor(b, "last", 4, (uint64_t[]){ 2, 1, 2, 1 }, FORMAT_F16, 320);
    put_pad(b, 64);
    for (unsigned i = 0; i < 384; i++)
        put_u8(b, (uint8_t)i);
}

static void check_values(struct gguf *g)
{
    uint32_t u = 5;
    float f = 0;
    bool yes = false;
    struct gguf_string s = { 0 };
    CHECK(gguf_read_u32(g, "a.u8", &u, &err) && u == 200, "%u", u);
    CHECK(gguf_read_u32(g, "a.u16", &u, &err) && u == 65535, "%u", u);
    CHECK(gguf_read_u32(g, "a.u32", &u, &err) && u == 4000000000u, "%u", u);
    CHECK(gguf_read_u32(g, "absent", &u, &err) && u == 4000000000u, "an absent key changed the default to %u", u);
    CHECK(gguf_read_f32(g, "a.f32", &f, &err) && f == 1.5f, "%g", f);
    CHECK(gguf_read_bool(g, "a.bool", &yes, &err) && yes, "bool");
    CHECK(gguf_read_string(g, "a.text", &s, &err) && gguf_string_is(s, "words"), "string");
    CHECK(!gguf_string_is(s, "word") && !gguf_string_is(s, "words!"), "string_is");
    CHECK(gguf_find(g, "a.i8")->as.i == -128 && gguf_find(g, "a.i16")->as.i == -2 && gguf_find(g, "a.i64")->as.i == -9, "signed");
    CHECK(gguf_find(g, "a.u64")->as.u == UINT64_MAX, "u64");

    static const struct { const char *key, *words; } bad[] = {
        { "a.i32", "is -7" }, { "a.u64", "18446744073709551615" }, { "a.f32", "expected u32, found f32" },
        { "a.text", "expected u32, found string" }, { "b.u16", "expected u32, found array" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        u = 77;
        CHECK(!gguf_read_u32(g, bad[i].key, &u, &err) && err.code == QUERN_EFORMAT && u == 77, "%s", bad[i].key);
        CHECK(strstr(err.text, bad[i].key) && strstr(err.text, bad[i].words), "%s", err.text);
    }
    CHECK(!gguf_read_f32(g, "a.f64", &f, &err) && strstr(err.text, "too large"), "%s", err.text);
    CHECK(!gguf_read_f32(g, "a.u8", &f, &err), "u8 as f32");
    CHECK(!gguf_read_bool(g, "a.u8", &yes, &err), "u8 as bool");
    CHECK(!gguf_read_string(g, "a.u8", &s, &err), "u8 as string");
}

static void check_arrays(struct gguf *g)
{
    int64_t i = 0;
    double f = 0;
    const struct gguf_value *a = gguf_find(g, "b.u16");
    CHECK(a->type == GGUF_ARRAY && a->as.array.n == 3 && gguf_array_i64(a, 2, &i) && i == 65535, "%jd", (intmax_t)i);
    CHECK(!gguf_array_f64(a, 0, &f), "u16 as f64");
    a = gguf_find(g, "b.f32");
    CHECK(gguf_array_f64(a, 1, &f) && f == 0.25 && !gguf_array_i64(a, 1, &i), "%g", f);
    a = gguf_find(g, "b.text");
    size_t at = 0;
    CHECK(gguf_string_is(gguf_array_string(a, &at), "one"), "one");
    CHECK(gguf_string_is(gguf_array_string(a, &at), ""), "empty");
    CHECK(gguf_string_is(gguf_array_string(a, &at), "three") && at == a->as.array.bytes, "three");
    CHECK(gguf_find(g, "b.none")->as.array.n == 0, "empty array");
}

static void check_tensors(struct gguf *g)
{
    CHECK(g->tensor_count == 3 && g->alignment == 64 && g->data_offset % 64 == 0, "%zu tensors", g->tensor_count);
    const struct gguf_tensor *t = gguf_find_tensor(g, "first");
    CHECK(t == &g->tensors[1] && t->dims == 2 && t->shape[0] == 64 && t->shape[1] == 2 && t->shape[2] == 1 && t->bytes == 136,
          "first");
    CHECK(t->data == g->parts[0].data + g->data_offset && t->data[5] == 5 && t->offset == g->data_offset, "first's data");
    t = gguf_find_tensor(g, "last");
    CHECK(t && t->dims == 4 && t->bytes == 8 && t->data[1] == 65, "last");
    CHECK(!gguf_find_tensor(g, "firs") && !gguf_find_tensor(g, "first2") && !gguf_find_tensor(g, ""), "names that are not there");
    CHECK(g->gaps == 64 && g->trailing == 0 && !g->unpadded, "gaps %zu, trailing %zu", g->gaps, g->trailing);
}

static void test_values_and_tensors(void)
{
    for (uint32_t version = 2; version <= 3; version++) {
        struct bytes b = { 0 };
        struct gguf g;
        build(&b, version);
        CHECK(gguf_view(&g, b.data, b.n, "memory", NULL, &err), "version %u: %s", version, err.text);
        if (g.kv_count == 17) {
            CHECK(g.version == version, "version %u", g.version);
            check_values(&g);
            check_arrays(&g);
            check_tensors(&g);
        }
        gguf_close(&g);
        bytes_free(&b);
    }
}

static void test_trailing_bytes(void)
{
    struct bytes b = { 0 };
    struct gguf g;
    build(&b, 3);
    b.n -= 56;                                             /* without the padding after the last tensor's 8 bytes */
    CHECK(gguf_view(&g, b.data, b.n, "memory", NULL, &err) && g.unpadded && g.trailing == 0, "%zu", g.trailing);
    gguf_close(&g);
    put_zeros(&b, 56 + 1000);
    CHECK(gguf_view(&g, b.data, b.n, "memory", NULL, &err) && !g.unpadded && g.trailing == 1000, "%zu", g.trailing);
    gguf_close(&g);
    bytes_free(&b);
}

/* Where tensors may share bytes the end is that of the one that reaches farthest: a short one within a long one ends nothing. */
static void test_aliased(void)
{
    static const struct gguf_options allow = { .allow_aliased = true };
    struct bytes b = { 0 };
    struct gguf g;
    put_header(&b, 3, 0);
    put_tensor(&b, "long", 1, (uint64_t[]){ 64 }, FORMAT_F32, 0);
    put_tensor(&b, "within", 1, (uint64_t[]){ 8 }, FORMAT_F32, 0);
    put_tensor(&b, "after", 1, (uint64_t[]){ 8 }, FORMAT_F32, 256);
    put_pad(&b, 32);
    put_zeros(&b, 256 + 32);
    CHECK(!gguf_view(&g, b.data, b.n, "memory", NULL, &err) && strstr(err.text, "overlap"), "%s", err.text);
    CHECK(gguf_view(&g, b.data, b.n, "memory", &allow, &err), "%s", err.text);
    CHECK(g.gaps == 0 && g.trailing == 0 && !g.unpadded, "gaps %zu, trailing %zu", g.gaps, g.trailing);
    gguf_close(&g);
    bytes_free(&b);
}

/* Names that share long beginnings, are prefixes of each other, or hold bytes above 127. */
static void test_lookup_of_many(void)
{
    enum { N = 5000 };
    struct bytes b = { 0 };
    struct gguf g;
    char name[64];
    put_header(&b, 0, N);
    for (unsigned i = 0; i < N; i++) {
        snprintf(name, sizeof name, "key.%.*s%u\xc3\xa9", (int)(i % 20), "xxxxxxxxxxxxxxxxxxxx", (i * 2654435761u) % 1000003);
        put_key_u32(&b, name, i);
    }
    CHECK(gguf_view(&g, b.data, b.n, "memory", NULL, &err), "%s", err.text);
    size_t wrong = 0;
    for (unsigned i = 0; i < g.kv_count; i++) {
        memcpy(name, g.kvs[i].key.text, g.kvs[i].key.n);
        name[g.kvs[i].key.n] = '\0';
        const struct gguf_value *value = gguf_find(&g, name);
        wrong += !value || value->as.u != i;
    }
    CHECK(g.kv_count == N && wrong == 0, "%zu of %zu keys were not found", wrong, g.kv_count);
    gguf_close(&g);
    bytes_free(&b);
}

/* ---- files ---------------------------------------------------------------------------------------------------- */

/* One part of a split file, with `tensors` tensors named after the first argument. */
static void save_part(const char *path, unsigned no, unsigned count, unsigned all, unsigned tensors, const char *names,
                      const char *model)
{
    struct bytes b = { 0 };
    char name[32];
    put_header(&b, tensors, model ? 4 : 3);
    put_key_u16(&b, "split.no", (uint16_t)no);
    put_key_u16(&b, "split.count", (uint16_t)count);
    put_string(&b, "split.tensors.count"), put_u32(&b, GGUF_I32), put_u32(&b, all);
    if (model)
        put_key_text(&b, "general.architecture", model);
    for (unsigned i = 0; i < tensors; i++) {
        snprintf(name, sizeof name, "%s.%u", names, i);
        put_tensor(&b, name, 1, (uint64_t[]){ 8 }, FORMAT_F32, i * 32);
    }
    put_pad(&b, 32);
    for (unsigned i = 0; i < tensors * 8; i++)
        put_f32(&b, (float)(no * 100 + i));
    bytes_save(&b, path);
    bytes_free(&b);
}

static char split_paths[3][4096];

static void save_split(void)
{
    for (unsigned i = 0; i < 3; i++) {
        char name[64];
        snprintf(name, sizeof name, "split-%05u-of-00003.gguf", i + 1);
        snprintf(split_paths[i], sizeof split_paths[i], "%s", temp_path(name));
        save_part(split_paths[i], i, 3, 6, 2, (const char *[]){ "a", "b", "c" }[i], i ? NULL : "llama");
    }
}

static void test_split_file(void)
{
    struct gguf g;
    save_split();
    CHECK(gguf_open(&g, split_paths[0], NULL, &err), "%s", err.text);
    CHECK(g.part_count == 3 && g.tensor_count == 6, "%zu parts, %zu tensors", g.part_count, g.tensor_count);
    const struct gguf_tensor *t = g.tensor_count == 6 ? gguf_find_tensor(&g, "c.1") : NULL;
    float value = 0;
    if (t)
        memcpy(&value, t->data, 4);
    CHECK(t && t->part == 2 && value == 208, "c.1 begins with %g", value);
    gguf_close(&g);
    FILE *last = fopen(split_paths[2], "ab");
    CHECK(last && fputs("seven b", last) >= 0 && fclose(last) == 0, "%s", split_paths[2]);
    CHECK(gguf_open(&g, split_paths[0], NULL, &err) && g.trailing == 7, "%zu bytes behind the last part", g.trailing);
    gguf_close(&g);
    CHECK(gguf_open(&g, split_paths[1], &(struct gguf_options){ .header_only = true }, &err) && g.tensor_count == 2, "header only");
    gguf_close(&g);
}

/* Every fault of a split file names the part. */
static void expect_split(const char *open, const char *names, const char *words)
{
    struct gguf g;
    bool ok = gguf_open(&g, open, NULL, &err);
    CHECK(!ok && err.code == QUERN_EFORMAT, "expected '%s', got code %d: %s", words, ok ? 0 : err.code, err.text);
    CHECK(ok || (strstr(err.text, names) && strstr(err.text, words)), "expected '%s' and '%s' in: %s", names, words, err.text);
    gguf_close(&g);
}

static void test_split_faults(void)
{
    save_split();
    expect_split(split_paths[2], "split-00003-of-00003.gguf", "part 3 of 3");
    remove(split_paths[1]);
    expect_split(split_paths[0], "split-00002-of-00003.gguf", "part 2 of 3 is missing");
    save_part(split_paths[1], 2, 3, 6, 2, "b", NULL);
    expect_split(split_paths[0], "split-00002-of-00003.gguf", "it says that it is part 3 of 3, expected was part 2 of 3");
    save_part(split_paths[1], 1, 4, 6, 2, "b", NULL);
    expect_split(split_paths[0], "split-00002-of-00003.gguf", "part 2 of 4");
    save_part(split_paths[1], 1, 3, 7, 2, "b", NULL);
    expect_split(split_paths[0], "split-00002-of-00003.gguf", "another model");
    save_part(split_paths[1], 1, 3, 6, 2, "b", "gemma");
    expect_split(split_paths[0], "split-00002-of-00003.gguf", "another model");
    save_part(split_paths[1], 1, 3, 6, 2, "a", NULL);
    expect_split(split_paths[0], "split-00002-of-00003.gguf", "tensor 'a.0': duplicate name");
    save_part(split_paths[1], 1, 3, 6, 1, "b", NULL);
    expect_split(split_paths[0], "split-00001-of-00003.gguf", "the 3 parts hold 5 tensors");
    save_part(split_paths[0], 1, 3, 6, 2, "a", NULL);
    expect_split(split_paths[0], "split-00001-of-00003.gguf", "part 2 of 3");
    save_part(temp_path("split.gguf"), 0, 3, 6, 2, "a", NULL);
    expect_split(temp_path("split.gguf"), "split.gguf", "its name does not end in -00001-of-00003.gguf");
    save_part(temp_path("other-00001-of-00004.gguf"), 0, 3, 6, 2, "a", NULL);
    expect_split(temp_path("other-00001-of-00004.gguf"), "other-00001", "its name says part 1 of 4");
    save_part(temp_path("split.gguf"), 4, 1, 6, 2, "a", NULL);
    expect_split(temp_path("split.gguf"), "split.gguf", "split.no is 4 (part 5), split.count is 1");
    struct bytes b = { 0 };
    put_raw(&b, "GGUF", 4);
    bytes_save(&b, split_paths[1]);
    bytes_free(&b);
    save_part(split_paths[0], 0, 3, 6, 2, "a", NULL);
    expect_split(split_paths[0], "split-00002-of-00003.gguf", "the file ends");
}

/* Bad-inputs G5: what is no regular file is refused at once with the system's words. */
static void test_paths(void)
{
    char fifo[4096], loop[4096], absent[4096], socket_path[108];
    snprintf(fifo, sizeof fifo, "%s", temp_path("fifo"));
    snprintf(loop, sizeof loop, "%s", temp_path("loop"));
    snprintf(absent, sizeof absent, "%s", temp_path("absent.gguf"));
    snprintf(socket_path, sizeof socket_path, "%s", temp_path("socket"));
    CHECK(mkfifo(fifo, 0600) == 0 && symlink(loop, loop) == 0, "cannot make a FIFO and a link");
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    memcpy(address.sun_path, socket_path, sizeof address.sun_path);
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(s >= 0 && bind(s, (struct sockaddr *)&address, sizeof address) == 0, "cannot make a socket");
    const struct { const char *path, *words; } paths[] = {
        { absent, "No such file or directory" }, { "/", "Is a directory" }, { fifo, "not a regular file" }, { "/dev/zero",
                                                                                                             "not a regular file" },
        { socket_path, "No such device or address" }, { loop, "Too many levels of symbolic links" }, { "",
                                                                                                      "No such file or directory" },
    };
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        struct gguf g;
        err.code = QUERN_OK;
        CHECK(!gguf_open(&g, paths[i].path, NULL, &err) && err.code == QUERN_EIO, "%s: code %d", paths[i].path, err.code);
        CHECK(strstr(err.text, paths[i].words) && strstr(err.text, paths[i].path), "no '%s' in: %s", paths[i].words, err.text);
        gguf_close(&g);
    }
    close(s);
    unlink(fifo), unlink(loop), unlink(socket_path);
}

static void test_shared_models(void)
{
    static const char *const files[] = {
        "models/stories260K/stories260K-F32.gguf", "models/babyllama361/babyllama361-Q4_0.gguf",
        "vectors/vocab/ggml-vocab-phi-3.gguf",
        "vectors/archs/llama.gguf", "vectors/archs/qwen3next.gguf",
    };
    if (!shared_path("models")) {
        test_skip("test_shared_models", "../shared is not there");
        return;
    }
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct gguf g;
        CHECK(gguf_open(&g, shared_path(files[i]), NULL, &err), "%s", err.text);
        CHECK(g.kv_count && gguf_find(&g, "general.architecture"), "%s has no architecture", files[i]);
        CHECK(g.gaps == 0 && g.trailing == 0, "%s: gaps %zu, trailing %zu", files[i], g.gaps, g.trailing);
        gguf_close(&g);
    }
}

int main(void)
{
    TEST(test_values_and_tensors);
    TEST(test_trailing_bytes);
    TEST(test_aliased);
    TEST(test_lookup_of_many);
    TEST(test_split_file);
    TEST(test_split_faults);
    TEST(test_paths);
    TEST(test_shared_models);
    return test_end();
}
