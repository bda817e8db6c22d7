/* The n-th allocation or system call fails, for every n, while a model is rounded (bad-inputs G7, G8, G20, G21): an error and
 * the old output, or success and the whole new one; nothing leaks, no temporary file stays. */
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
static bool round_model(const void *arg, struct quern_error *error)
{
    struct gguf g;
    (void)arg;
    if (!gguf_open(&g, model, NULL, error))
        return false;
    struct plan_item *plan = mem_take(g.tensor_count, sizeof *plan, "the plan", error);
    struct quantize_job job = { .input = &g, .plan = plan, .rounding = rounding, .kernels = &kernels, .pool = pool };
    bool ok = plan && preset_plan(plan, &g, preset_find("Q4_0"), NULL, 0, false, error) && quantize_write(&job, out, true, error);
    free(plan);
    gguf_close(&g);
    return ok;
}

static void sweep(enum fault_kind kind, enum fault_mode mode)
{
    size_t failures = fault_sweep_file(place, "out.gguf", round_model, NULL, kind, mode);
    CHECK(failures > 5, "only %zu faults were felt", failures);
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
