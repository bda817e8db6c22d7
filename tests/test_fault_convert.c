/* The n-th allocation or system call fails, for every n, while a folder or a GGUF is converted (bad-inputs G7, G8, G20, G21): an
 * error and the old output, or success and the whole new one; nothing leaks, no temporary file stays. */
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

struct conversion { const char *in; const struct convert_options *how; };

static bool convert(const void *arg, struct quern_error *error)
{
    const struct conversion *c = arg;
    return convert_model(c->in, out, c->how, error);
}

static void sweep(const char *in, const struct convert_options *how, enum fault_kind kind, enum fault_mode mode)
{
    size_t failures = fault_sweep_file(place, "out.gguf", convert, &(struct conversion){ in, how }, kind, mode);
    CHECK(failures > 10, "only %zu faults were felt", failures);
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
    CHECK(ok && fault_holds(out, whole, n), "%s", err.text);
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
