/* The n-th allocation or system call fails, for every n, while a folder or a GGUF is converted (bad-inputs G7, G8, G20, G21): an
 * error and the old output, or success and the whole new one; nothing leaks, no temporary file stays. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "convert.h"
#include "fault.h"
#include "formats.h"
#include "hf_folder.h"
#include "test.h"

static const char model[] = "models/tiny-books-q8_0.gguf";
static struct quern_error err;
static char folder[600], place[600], out[700];

static bool holds(const char *path, const char *data, size_t n)
{
    size_t size = 0;
    char *found = read_whole_file(path, &size);
    bool same = found && size == n && !memcmp(found, data, n);
    free(found);
    return same;
}

static size_t temps_left(void)
{
    size_t n = 0;
    DIR *dir = opendir(place);
    for (struct dirent *e; dir && (e = readdir(dir)) != NULL;)
        n += strstr(e->d_name, ".quern-") != NULL;
    if (dir)
        closedir(dir);
    return n;
}

static void put_old(void)
{
    write_text_file(place, "out.gguf", "old", 3);
}

/* Convert `in`, with call n of `kind` failing, until there are no n calls. */
static void sweep(const char *in, const struct convert_options *how, enum fault_kind kind, enum fault_mode mode)
{
    size_t whole_n, failures = 0, n = 0;
    put_old();
    bool right = convert_model(in, out, how, &err);
    CHECK(right, "without faults: %s", err.text);
    char *whole = read_whole_file(out, &whole_n);
    for (;; n++) {
        put_old();
        long before = fault_live_blocks();
        fault_arm(kind, n, mode);
        bool ok = convert_model(in, out, how, &err);
        const char *where = fault_disarm();
        CHECK(fault_live_blocks() == before, "%s %zu (%s): %ld blocks leak", kind == FAULT_IO ? "io" : "memory", n, where,
              fault_live_blocks() - before);
        CHECK(temps_left() == 0, "%zu (%s): a temporary file stays", n, where ? where : "none");
        /* A failed fsync of the directory comes after the rename: an error, but the new file is in its place. */
        bool renamed = !ok && where && !strcmp(where, "fsync") && !holds(out, "old", 3);
        CHECK(ok || renamed ? holds(out, whole, whole_n) : holds(out, "old", 3), "%zu (%s): the output is broken", n,
              where ? where : "none");
        CHECK(ok || err.code == (kind == FAULT_IO ? QUERN_EIO : QUERN_EMEM) || (kind == FAULT_IO && err.code == QUERN_EMEM),
              "%zu (%s): code %d, %s", n, where ? where : "none", err.code, err.text);
        failures += !ok;
        if (!where)
            break;
    }
    CHECK(failures > 10, "only %zu of %zu faults were felt", failures, n);
    free(whole);
}

static void test_gguf_memory(void)
{
    struct convert_options how = { .type = FORMAT_F16, .force = true };
    sweep(model, &how, FAULT_MEMORY, FAULT_ONCE);
    sweep(model, &how, FAULT_MEMORY, FAULT_FROM_THERE_ON);
}

static void test_gguf_io(void)
{
    struct convert_options how = { .type = FORMAT_F16, .force = true };
    fault_error(ENOSPC);
    sweep(model, &how, FAULT_IO, FAULT_ONCE);
    sweep(model, &how, FAULT_IO, FAULT_FROM_THERE_ON);
}

static void test_folder_memory(void)
{
    struct convert_options how = { .type = FORMAT_Q8_0, .force = true };
    sweep(folder, &how, FAULT_MEMORY, FAULT_ONCE);
    sweep(folder, &how, FAULT_MEMORY, FAULT_FROM_THERE_ON);
}

static void test_folder_io(void)
{
    struct convert_options how = { .type = FORMAT_Q8_0, .force = true };
    fault_error(EIO);
    sweep(folder, &how, FAULT_IO, FAULT_ONCE);
    sweep(folder, &how, FAULT_IO, FAULT_FROM_THERE_ON);
}

/* The other kind of vocabulary: last, because the folder is changed. */
static void test_json_vocabulary(void)
{
    static const char json[] = "{\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"vocab\":{\"a\":5,\"b\":6,\"ab\":7},"
        "\"merges\":[[\"a\",\"b\"]]},"
                               "\"added_tokens\":[{\"id\":0,\"content\":\"<unk>\",\"special\":true},{\"id\":9,"
                                   "\"content\":\"\u2581x\"}]}";
    struct convert_options how = { .type = FORMAT_Q8_0, .force = true };
    char path[700];
    snprintf(path, sizeof path, "%s/tokenizer.model", folder);
    unlink(path);
    write_text_file(folder, "tokenizer.json", json, sizeof json - 1);
    sweep(folder, &how, FAULT_MEMORY, FAULT_ONCE);
}

/* Writes that take 1000 bytes at a time arrive all the same. */
static void test_short_writes(void)
{
    struct convert_options how = { .type = FORMAT_COUNT, .force = true };
    size_t n;
    char *whole = read_whole_file(model, &n);
    fault_short_io(1000);
    bool ok = convert_model(model, out, &how, &err);
    fault_short_io(0);
    CHECK(ok && holds(out, whole, n), "%s", err.text);
    free(whole);
}

int main(void)
{
    struct gguf g;
    struct convert_options how = { .type = FORMAT_BF16, .force = true };
    if (!getenv("QUERN_TEST_VERBOSE") && !freopen("/dev/null", "w", stderr))
        return 1;
    snprintf(place, sizeof place, "%s", temp_path("fault-out"));
    snprintf(folder, sizeof folder, "%s", temp_path("fault-folder"));
    snprintf(out, sizeof out, "%s/out.gguf", place);
    mkdir(place, 0777);
    if (!convert_model(model, out, &how, &err) || !gguf_open(&g, out, NULL, &err))
        abort();
    hf_folder_write(&g, folder, &(struct hf_folder_options){ .shards = true });
    gguf_close(&g);
    TEST(test_gguf_memory);
    TEST(test_gguf_io);
    TEST(test_folder_memory);
    TEST(test_folder_io);
    TEST(test_json_vocabulary);
    TEST(test_short_writes);
    return test_end();
}
