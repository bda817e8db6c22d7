/* The n-th allocation fails, for every n: opening a model, opening a session, running it (bad-inputs G20). And: once a session is
 * open, nothing is allocated any more. */
#include <string.h>
#include <unistd.h>

#include "fault.h"
#include "session.h"
#include "test.h"
#include "tiny.h"

static struct quern_error err;
static const int32_t TOKENS[] = { 1, 5, 60, 70, 80, 90, 100, 110, 120, 130, 5, 60 };

/* Open, run, close. True when all of it went well. */
static bool load_and_run(const char *path)
{
    struct quern_model_options how = { .threads = 2 };
    struct quern_session_options options = { .context = 64, .batch = 8 };
    struct quern_model *model = quern_open_model(path, &how, &err);
    struct quern_session *s = model ? quern_open_session(model, &options, &err) : NULL;
    bool ok = s && quern_sync_session(s, TOKENS, 12, &err) && quern_step_session(s, TOKENS, 1, &err) &&
              quern_sync_session(s, TOKENS + 3, 9, &err);
    quern_close_session(s);
    quern_close_model(model);
    return ok;
}

static void sweep(enum tiny_kind kind, enum fault_mode mode)
{
    static struct tiny tiny;
    const char *path = temp_path("fault.gguf");
    size_t faults = 0;
    tiny_model(&tiny, kind);
    tiny_save(&tiny, path);
    for (size_t n = 0;; n++) {
        long before = fault_live_blocks();
        err = (struct quern_error){ .code = QUERN_OK };
        fault_arm(FAULT_MEMORY, n, mode);
        bool ok = load_and_run(path);
        const char *where = fault_disarm();
        CHECK(fault_live_blocks() == before, "%s, allocation %zu (%s): %ld blocks leak", tiny.arch, n, where,
              fault_live_blocks() - before);
        if (!where) {
            CHECK(ok, "%s, without a fault: %s", tiny.arch, err.text);
            break;
        }
        faults++;
        CHECK(ok || err.code == QUERN_EMEM, "%s, allocation %zu (%s): code %d, %s", tiny.arch, n, where, err.code, err.text);
        CHECK(!ok, "%s, allocation %zu (%s) failed and nobody noticed", tiny.arch, n, where);
    }
    CHECK(faults > 10, "only %zu allocations", faults);
    unlink(path);
}

static void test_load_and_run(void)
{
    for (int kind = 0; kind < TINY_KINDS; kind++)
        for (enum fault_mode mode = FAULT_ONCE; mode <= FAULT_FROM_THERE_ON; mode++)
            sweep((enum tiny_kind)kind, mode);
}

static void test_steps_allocate_nothing(void)
{
    static struct tiny tiny;
    for (int kind = 0; kind < TINY_KINDS; kind++) {
        tiny_model(&tiny, (enum tiny_kind)kind);
        tiny_save(&tiny, temp_path("fault.gguf"));
        struct quern_model_options how = { .threads = 2 };
        struct quern_session_options options = { .context = 64, .batch = 8 };
        struct quern_model *model = quern_open_model(temp_path("fault.gguf"), &how, &err);
        struct quern_session *s = model ? quern_open_session(model, &options, &err) : NULL;
        fault_arm(FAULT_MEMORY, 0, FAULT_FROM_THERE_ON);
        bool ok = s && quern_sync_session(s, TOKENS, 12, &err) && quern_step_session(s, TOKENS, 1, &err) &&
                  quern_rewind_session(s, 0, &err) && quern_sync_session(s, TOKENS, 3, &err);
        const char *where = fault_disarm();
        CHECK(ok && !where, "%s: %s, %s", tiny.arch, where ? where : "no allocation", err.text);
        quern_close_session(s);
        quern_close_model(model);
    }
    unlink(temp_path("fault.gguf"));
}

int main(void)
{
    TEST(test_load_and_run);
    TEST(test_steps_allocate_nothing);
    return test_end();
}
