/* The n-th allocation or system call fails, for every n, while a model is rounded (bad-inputs G7, G8, G20, G21): an error and
 * the old output, or success and the whole new one; nothing leaks, no temporary file stays. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fault.h"
#include "formats.h"
#include "hf_folder.h"
#include "quantize.h"
#include "test.h"
#include "tiny.h"

static struct quern_error err;
static char model[600], place[600], out[700];
static struct kernels kernels;
static struct rounding *rounding;
static struct pool *pool;

/* From the file on disk to the file on disk, as the program does it without a measured plan. */
static bool round_model(void)
{
    struct gguf g;
    if (!gguf_open(&g, model, NULL, &err))
        return false;
    struct plan_item *plan = mem_take(g.tensor_count, sizeof *plan, "the plan", &err);
    struct quantize_job job = { .input = &g, .plan = plan, .rounding = rounding, .kernels = &kernels, .pool = pool };
    bool ok = plan && preset_plan(plan, &g, preset_find("Q4_0"), NULL, 0, false, &err) && quantize_write(&job, out, true, &err);
    free(plan);
    gguf_close(&g);
    return ok;
}

static bool holds(const char *data, size_t n)
{
    size_t size = 0;
    char *found = read_whole_file(out, &size);
    bool same = found && size == n && !memcmp(found, data, n);
    free(found);
    return same;
}

static size_t temps_left(void)
{
    size_t n = 0;
    DIR *dir = opendir(place);
    for (struct dirent *e; dir && (e = readdir(dir)) != NULL;)
        n += strstr(e->d_name, "quern-") != NULL;
    if (dir)
        closedir(dir);
    return n;
}

static void sweep(enum fault_kind kind, enum fault_mode mode)
{
    size_t whole_n, failures = 0;
    bool right = round_model();
    CHECK(right, "without faults: %s", err.text);
    char *whole = read_whole_file(out, &whole_n);
    for (size_t n = 0; n < 100000; n++) {
        write_text_file(place, "out.gguf", "old", 3);
        long before = fault_live_blocks();
        err = (struct quern_error){ 0 };
        fault_arm(kind, n, mode);
        bool ok = round_model();
        const char *where = fault_disarm(), *name = where ? where : "none";
        CHECK(fault_live_blocks() == before, "%zu (%s): %ld blocks leak", n, name, fault_live_blocks() - before);
        CHECK(temps_left() == 0, "%zu (%s): a temporary file stays", n, name);
        /* A failed fsync of the folder comes after the rename: an error, but the new file is in its place. */
        bool renamed = !ok && !strcmp(name, "fsync") && !holds("old", 3);
        CHECK(ok || renamed ? holds(whole, whole_n) : holds("old", 3), "%zu (%s): the output is broken", n, name);
        CHECK(ok || err.code == QUERN_EMEM || (kind == FAULT_IO && err.code == QUERN_EIO), "%zu (%s): code %d, %s", n, name,
              err.code, err.text);
        failures += !ok;
        if (!where)
            break;
    }
    CHECK(failures > 5, "only %zu faults were felt", failures);
    free(whole);
}

static void test_memory(void)
{
    sweep(FAULT_MEMORY, FAULT_ONCE);
    sweep(FAULT_MEMORY, FAULT_FROM_THERE_ON);
}

static void test_disk(void)
{
    fault_error(ENOSPC);
    sweep(FAULT_IO, FAULT_ONCE);
    fault_error(EIO);
    sweep(FAULT_IO, FAULT_FROM_THERE_ON);
}

int main(void)
{
    struct tiny t;
    struct cpu cpu;
    if (!getenv("QUERN_TEST_VERBOSE") && !freopen("/dev/null", "w", stderr))
        return 1;
    snprintf(place, sizeof place, "%s", temp_path("fault_quantize"));
    snprintf(model, sizeof model, "%s", temp_path("fault_quantize.gguf"));
    snprintf(out, sizeof out, "%s/out.gguf", place);
    mkdir(place, 0700);
    tiny_model(&t, TINY_LLAMA);
    tiny_save(&t, model);
    cpu_detect(&cpu);
    kernels_init(&kernels, &cpu);
    rounding = rounding_open(&err);
    pool = pool_open(1, &err);
    TEST(test_memory);
    TEST(test_disk);
    pool_close(pool);
    rounding_close(rounding);
    return test_end();
}
