#include "formats.h"
#include "safetensors.h"
#include "test.h"
#include "text.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A file of this header and `data` bytes (0, 1, 2 ...) behind it, in a block of exactly its size. `claim` is what the length field
 * says; 0: the truth. */
static uint8_t *make(const char *header, size_t data, uint64_t claim, size_t *size)
{
    size_t n = strlen(header);
    *size = 8 + n + data;
    uint8_t *file = malloc(*size);
    if (!claim)
        claim = n;
    for (int i = 0; i < 8; i++)
        file[i] = (uint8_t)(claim >> (8 * i));
    memcpy(file + 8, header, n);
    for (size_t i = 0; i < data; i++)
        file[8 + n + i] = (uint8_t)i;
    return file;
}

static void test_good(void)
{
    static const char header[] =
        "{\"__metadata__\":{\"format\":\"pt\"},\"b\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[4,16]},"
        "\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},\"c\":{\"dtype\":\"F16\",\"shape\":[0,7],"
            "\"data_offsets\":[16,16]},"
        "\"d\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[16,24]}}   ";
    size_t size;
    uint8_t *file = make(header, 24, 0, &size);
    struct safetensors s;
    struct quern_error err;
    bool ok = safetensors_view(&s, file, size, "good", &err);
    CHECK(ok, "%s", err.text);
    if (ok) {
        const struct safetensor *a = safetensors_find(&s, "a"), *b = safetensors_find(&s, "b"), *d = safetensors_find(&s, "d");
        CHECK(s.count == 4 && !safetensors_find(&s, "e") && !safetensors_find(&s, "__metadata__"), "%zu tensors", s.count);
        CHECK(a && a->dims == 0 && a->elements == 1 && a->format == FORMAT_F32 && a->bytes == 4, "a");
        CHECK(b && b->dims == 2 && b->shape[0] == 2 && b->shape[1] == 3 && b->format == FORMAT_BF16 && b->data[0] == 4, "b");
        CHECK(d && d->format == FORMAT_COUNT && !strcmp(d->dtype, "I64"), "d");
        safetensors_close(&s);
    }
    free(file);
}

/* Rows I10 and their neighbours: QUERN_EFORMAT, with words that name the fault. */
static void test_bad(void)
{
#define T(fields) "{\"t\":{" fields "}}"
    static const struct { const char *header; size_t data; uint64_t claim; const char *words; } cases[] = {
        { T("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]"), 4, 1000, "the header claims 1000 bytes" },
        { T("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]"), 4, UINT64_MAX, "the header claims 18446744073709551615" },
        { "", 0, 0, "the text ends" },
        { "[]", 0, 0, "not a JSON object" },
        { "{}", 0, 0, "no tensors" },
        { "{\"t\":1}", 0, 0, "has no shape" },
        { T("\"dtype\":\"F32\",\"data_offsets\":[0,4]"), 4, 0, "has no shape" },
        { T("\"shape\":[1],\"data_offsets\":[0,4]"), 4, 0, "has no dtype" },
        { T("\"dtype\":\"F31\",\"shape\":[1],\"data_offsets\":[0,4]"), 4, 0, "unknown dtype 'F31'" },
        { T("\"dtype\":\"F32\",\"shape\":[1]"), 4, 0, "data_offsets must be two" },
        { T("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]"), 4, 0, "data_offsets must be two" },
        { T("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]"), 4, 0, "data_offsets must be two" },
        { T("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0.0,4]"), 4, 0, "data_offsets must be two" },
        { T("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]"), 4, 0, "data_offsets must be two" },
        { T("\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]"), 4, 0, "truncated" },
        { T("\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]"), 4, 0, "needs 8" },
        { T("\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]"), 4, 0, "is not a size" },
        { T("\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]"), 0, 0, "does not fit" },
        { T("\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,0]"), 0, 0, "do not fill whole bytes" },
        { T("\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]"), 4, 0, "9 dimensions" },
        { T("\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,1]"), 1, 0, "whole bytes" },
        { "{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"t\":{\"dtype\":\"F32\",\"shape\":[1],"
          "\"data_offsets\":[4,8]}}",
          8, 0, "\"t\" twice" },
        { "{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"u\":{\"dtype\":\"F32\",\"shape\":[1],"
          "\"data_offsets\":[2,6]}}",
          6, 0, "'t' and 'u' overlap" },
        { "{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"u\":{\"dtype\":\"F32\",\"shape\":[1],"
          "\"data_offsets\":[0,4]}}",
          4, 0, "overlap" },
        { "{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"u\":{\"dtype\":\"F32\",\"shape\":[1],"
          "\"data_offsets\":[8,12]}}",
          12, 0, "4 bytes before tensor 'u'" },
        { T("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]"), 5, 0, "1 bytes behind" },
        { "{\"a\\u0000b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, 0, "holds control" },
        { "{\"a\\u001b[2Jb\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, 0, "holds control" },
        { "{\"\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, 0, "is empty" },
        { "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", 0, 0, "nested deeper" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t size;
        uint8_t *file = make(cases[i].header, cases[i].data, cases[i].claim, &size);
        struct safetensors s;
        struct quern_error err = { 0 };
        bool ok = safetensors_view(&s, file, size, "bad", &err);
        CHECK(!ok && err.code == QUERN_EFORMAT && strstr(err.text, cases[i].words), "case %zu (%s): code %d, '%s'", i,
              cases[i].words, err.code, err.text);
        if (ok)
            safetensors_close(&s);
        free(file);
    }
}

/* Every prefix of a good file is refused. */
static void test_truncated(void)
{
    size_t size;
    uint8_t *file = make(T("\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]"), 16, 0, &size);
    for (size_t n = 0; n < size; n++) {
        uint8_t *cut = malloc(n ? n : 1);
        memcpy(cut, file, n);
        struct safetensors s;
        struct quern_error err;
        CHECK(!safetensors_view(&s, cut, n, "cut", &err) && err.code == QUERN_EFORMAT, "%zu bytes", n);
        free(cut);
    }
    free(file);
}

static void write_bytes(const char *path, const void *data, size_t n)
{
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(data, 1, n, file) != n)
        abort();
    fclose(file);
}

static void write_shard(const char *path, const char *tensor)
{
    struct text header = { 0 };
    size_t size;
    text_addf(&header, "{\"%s\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", tensor);
    uint8_t *file = make(header.data, 8, 0, &size);
    write_bytes(path, file, size);
    free(file);
    text_free(&header);
}

static void test_shards(void)
{
    static const struct { const char *index, *words; enum quern_code code; } cases[] = {
        { "{\"metadata\":{},\"weight_map\":{\"x\":\"one.safetensors\",\"y\":\"two.safetensors\"}}", NULL, QUERN_OK },
        { "{\"weight_map\":{\"x\":\"none.safetensors\"}}", "'none.safetensors' is missing", QUERN_EFORMAT },
        { "{\"weight_map\":{\"x\":\"../st-shards/one.safetensors\"}}", "not a plain file name", QUERN_EFORMAT },
        { "{\"weight_map\":{\"x\":\"/etc/passwd\"}}", "not a plain file name", QUERN_EFORMAT },
        { "{\"weight_map\":{\"x\":\"..\"}}", "not a plain file name", QUERN_EFORMAT },
        { "{\"weight_map\":{\"x\":\"\"}}", "not a plain file name", QUERN_EFORMAT },
        { "{\"weight_map\":{\"x\":\"one.safetensors\\u0000\"}}", "not a plain file name", QUERN_EFORMAT },
        { "{\"weight_map\":{\"x\":7}}", "must give a file name", QUERN_EFORMAT },
        { "{\"weight_map\":{\"z\":\"one.safetensors\"}}", "'z' is in no shard", QUERN_EFORMAT },
        { "{\"weight_map\":{\"x\":\"one.safetensors\",\"y\":\"same.safetensors\"}}", "'x' stands in two shards", QUERN_EFORMAT },
        { "{\"weight_map\":{}}", "names 0 shards", QUERN_EFORMAT },
        { "{\"weight_map\":[]}", "no weight_map", QUERN_EFORMAT },
        { "{}", "no weight_map", QUERN_EFORMAT },
        { "{\"weight_map\":{\"x\":\"folder\"}}", "folder': Is a directory", QUERN_EIO },
    };
    char folder[512], path[600];
    snprintf(folder, sizeof folder, "%s", temp_path("st-shards"));
    mkdir(folder, 0777);
    snprintf(path, sizeof path, "%s/folder", folder);
    mkdir(path, 0777);
    snprintf(path, sizeof path, "%s/one.safetensors", folder);
    write_shard(path, "x");
    snprintf(path, sizeof path, "%s/two.safetensors", folder);
    write_shard(path, "y");
    snprintf(path, sizeof path, "%s/same.safetensors", folder);
    write_shard(path, "x");
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", folder);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct safetensors s;
        struct quern_error err = { 0 };
        write_bytes(path, cases[i].index, strlen(cases[i].index));
        bool ok = safetensors_open(&s, path, &err);
        CHECK(ok == !cases[i].words && err.code == cases[i].code, "case %zu: code %d, '%s'", i, err.code, err.text);
        CHECK(ok || !cases[i].words || strstr(err.text, cases[i].words), "case %zu: '%s'", i, err.text);
        if (ok) {
            const struct safetensor *y = safetensors_find(&s, "y");
            CHECK(s.count == 2 && s.part_count == 2 && y && y->part == 1, "both shards");
            safetensors_close(&s);
        }
    }
}

static void test_real_files(void)
{
    static const char *const names[] = { "models/tiny-books/hf/model.safetensors", "models/stories260K/hf/model.safetensors",
                                         "models/babyllama361/hf/model.safetensors" };
    if (!shared_path("")) {
        test_skip("test_real_files", "no ../shared");
        return;
    }
    for (size_t i = 0; i < 3; i++) {
        struct safetensors s;
        struct quern_error err;
        bool ok = safetensors_open(&s, shared_path(names[i]), &err);
        CHECK(ok, "%s", err.text);
        if (ok) {
            CHECK(safetensors_find(&s, "model.embed_tokens.weight"), "%s: %zu tensors", names[i], s.count);
            safetensors_close(&s);
        }
    }
}

int main(void)
{
    TEST(test_good);
    TEST(test_bad);
    TEST(test_truncated);
    TEST(test_shards);
    TEST(test_real_files);
    return test_end();
}
