/* The n-th allocation or system call fails, for every n, while questions are read and answered: an error, and nothing is lost. */
#include <stdlib.h>
#include <string.h>

#include "choices_score.h"
#include "fault.h"
#include "test.h"
#include "tiny.h"

static struct quern_error err;

static void save(const char *name, const char *text)
{
    FILE *f = fopen(temp_path(name), "wb");
    CHECK(f && fputs(text, f) >= 0 && fclose(f) == 0, "cannot write %s", name);
}

/* Three files and their folder's names are made before the sweep, so that only reading is in it. */
static const char *const names[] = {"fc.txt", "fc_test.csv", "fc.jsonl", "fa.jsonl", "fw.jsonl"};
static char folder[500];

static void make_files(void)
{
    save("fc.txt", "c\n1\na\nb\nc\nd\n");
    save("fc_test.csv", "\"q \"\"x\"\"\",a,b,c,d,A\nq,a,b,c,d,2\n");
    save("fc_dev.csv", "q,a,b,c,d,A\n");
    save("fc.jsonl", "{\"goal\":\"g\",\"sol1\":\"x\",\"sol2\":\"y\"}\n");
    save("fc-labels.lst", "1\n");
    save("fa.jsonl", "{\"question\":{\"stem\":\"s\",\"choices\":[{\"text\":\"a\",\"label\":\"A\"},"
                     "{\"text\":\"b\",\"label\":\"B\"}]},\"answerKey\":\"B\"}\n");
    save("fw.jsonl", "{\"sentence\":\"a _ b\",\"option1\":\"x\",\"option2\":\"y\",\"answer\":\"1\"}\n");
    snprintf(folder, sizeof folder, "%s", temp_path("."));
}

static bool read_one(size_t which)
{
    struct choice_set set;
    struct choice_options options = {.shots = which == 1, .dev = folder};
    bool ok = choices_open(&set, temp_path(names[which]), &options, &err);
    CHECK(!ok || set.count == (which == 1 ? 2 : 1), "%s: %zu items", names[which], set.count);
    choices_close(&set);
    return ok;
}

static void sweep(enum fault_kind kind, enum fault_mode mode, size_t which)
{
    size_t errors = 0;
    for (size_t n = 0; n < 1000; n++) {
        long before = fault_live_blocks();
        err = (struct quern_error){0};
        fault_arm(kind, n, mode);
        bool ok = read_one(which);
        const char *where = fault_disarm();
        CHECK(ok || err.code == (kind == FAULT_MEMORY ? QUERN_EMEM : QUERN_EIO), "%s, call %zu (%s): code %d, %s", names[which], n,
              where ? where : "none", err.code, err.text);
        CHECK(kind == FAULT_IO || ok == !where, "%s, call %zu (%s): %s", names[which], n, where ? where : "none",
              ok ? "no error" : err.text);
        CHECK(fault_live_blocks() == before, "%s, call %zu: %ld blocks are lost", names[which], n, fault_live_blocks() - before);
        errors += !ok;
        if (!where)
            break;
    }
    CHECK(errors >= (kind == FAULT_MEMORY ? 4 : 1), "%s: only %zu calls failed", names[which], errors);
}

static void test_reading(void)
{
    make_files();
    for (size_t which = 0; which < sizeof names / sizeof *names; which++)
        for (int mode = FAULT_ONCE; mode <= FAULT_FROM_THERE_ON; mode++) {
            sweep(FAULT_MEMORY, (enum fault_mode)mode, which);
            sweep(FAULT_IO, (enum fault_mode)mode, which);
        }
}

/* Answering, one thread, so that the n-th allocation is the same each time. */
static void test_answering(void)
{
    static struct tiny tiny;
    struct choice_set set;
    struct choice_options options = {.format = CHOICES_AUTO};
    struct choice_answer answers[2];
    size_t longest, cut;
    tiny_model(&tiny, TINY_LLAMA);
    tiny_save(&tiny, temp_path("fc.gguf"));
    struct quern_model_options mo = {.threads = 1};
    struct quern_model *m = quern_open_model(temp_path("fc.gguf"), &mo, &err);
    CHECK(m && choices_open(&set, temp_path("fc.txt"), &options, &err), "%s", err.text);
    for (size_t n = 0; m && n < 5000; n++) {
        struct choice_run run = {.kv = QUERN_KV_F32, .context = 64};
        long before = fault_live_blocks();
        fault_arm(FAULT_MEMORY, n, FAULT_ONCE);
        bool ok = choices_measure(&set, m, &run, &longest, &cut, &err) &&
                  choices_answer(answers, NULL, &set, m, &run, longest, &err);
        const char *where = fault_disarm();
        CHECK(ok == !where && (ok || err.code == QUERN_EMEM), "allocation %zu: code %d, %s", n, err.code, err.text);
        CHECK(fault_live_blocks() == before, "allocation %zu: %ld blocks are lost", n, fault_live_blocks() - before);
        if (!where) {
            CHECK(n > 10, "only %zu allocations", n);
            break;
        }
    }
    choices_close(&set);
    quern_close_model(m);
}

int main(void)
{
    TEST(test_reading);
    TEST(test_answering);
    return test_end();
}
