/* Calibration's file: the same bytes for any threads and memory and from wherever a killed run is taken up, and its reader against
 * bad files. What the numbers must be is in test_imprint_sums.c. */
#include "imprint.h"
#include "stats.h"
#include "test.h"
#include "tiny.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Five calls of four sequences. */
enum { LENGTH = 32, TOKENS = 5 * 4 * LENGTH, CALLS = 5 };

/* A small model of random weights, opened. */
struct subject { struct quern_model *model; struct pool *pool; };

static bool open_subject(struct subject *s, enum format_id type, size_t threads)
{
    struct quern_error err;
    struct quern_model_options how = { .threads = 1 };
    struct tiny t;
    char path[300];
    snprintf(path, sizeof path, "%s", temp_path(type == FORMAT_F32 ? "imprint-f32.gguf" : "imprint-bf16.gguf"));
    tiny_model(&t, TINY_LLAMA);
    tiny_format(&t, type);
    tiny_save(&t, path);
    s->model = quern_open_model(path, &how, &err);
    s->pool = s->model ? pool_open(threads, &err) : NULL;
    CHECK(s->pool != NULL, "%s: %s", path, err.text);
    return s->pool != NULL;
}

static void close_subject(struct subject *s)
{
    pool_close(s->pool);
    quern_close_model(s->model);
}

static bool gather(const struct subject *s, const char *name, size_t mem_limit, struct quern_error *err)
{
    char path[300];
    snprintf(path, sizeof path, "%s", temp_path(name));
    struct imprint_options o = { .context = LENGTH, .tokens = TOKENS, .fisher = true, .mem_limit = mem_limit, .force = true,
                                 .pool = s->pool };
    return imprint_write(s->model, path, &o, err);
}

/* ---- the same bytes ---- */

static volatile int stop_now;
static int calls_left;

static void stop_later(void *arg, const char *what, double share)
{
    (void)arg, (void)what, (void)share;
    if (--calls_left == 0)
        stop_now = 1;
}

static void the_same_bytes(void)
{
    struct subject one, three;
    struct quern_error err;
    if (!open_subject(&one, FORMAT_BF16, 1) || !open_subject(&three, FORMAT_BF16, 3))
        return;
    CHECK(gather(&one, "one.stats", 0, &err), "%s", err.text);
    CHECK(gather(&three, "three.stats", 0, &err), "%s", err.text);
    CHECK(same_files(temp_path("one.stats"), temp_path("three.stats")), "one thread and three");
    CHECK(!gather(&one, "tight.stats", 1 << 16, &err) && err.code == QUERN_EMEM, "a limit that is too low: %s", err.text);
    /* The message names the least that will do; with it the inputs of a layer are gathered one after the other. */
    const char *named = strstr(err.text, "least ");
    size_t least = named ? strtoull(named + 6, NULL, 10) : 0;
    CHECK(gather(&one, "tight.stats", least, &err) && same_files(temp_path("one.stats"), temp_path("tight.stats")),
          "limit %zu: %s", least, err.text);
    CHECK(!gather(&one, "tight.stats", least - 1, &err), "a byte less");
    /* Stopped ever later and taken up again by other numbers of threads. */
    for (int stops = 1; stops < 20; stops += 3) {
        char path[300];
        snprintf(path, sizeof path, "%s", temp_path("parts.stats"));
        unlink(path);
        struct imprint_options o = { .context = LENGTH, .tokens = TOKENS, .fisher = true, .pool = stops % 2 ? one.pool : three.pool,
                                     .stop = &stop_now, .show = stop_later };
        calls_left = stops, stop_now = 0;
        CHECK(!imprint_write(one.model, path, &o, &err) && err.code == QUERN_EINTERRUPT && access(path, F_OK) != 0, "%d", stops);
        for (int more = 2 * stops; err.code == QUERN_EINTERRUPT && more < 10000; more *= 2) {
            calls_left = more, stop_now = 0, err.code = QUERN_OK;
            if (imprint_write(one.model, path, &o, &err))
                break;
        }
        CHECK(same_files(temp_path("one.stats"), temp_path("parts.stats")), "stopped after %d steps", stops);
    }
    close_subject(&one);
    close_subject(&three);
}

/* ---- taken up anywhere ---- */

/* Calls that were run backwards, and calls that went through a layer. */
struct steps { size_t gradients, moments; };

static void count_step(void *arg, const char *what, double share)
{
    struct steps *n = arg;
    (void)share;
    *(strcmp(what, "gradients") ? &n->moments : &n->gradients) += 1;
}

/* A kill leaves the beginning of the file, of any length. Go on from the first `bytes` of the whole one, an input at a time. */
static struct steps take_up(const struct subject *s, const char *whole, size_t bytes, size_t mem_limit)
{
    struct steps steps = { 0, 0 };
    struct quern_error err;
    char path[300];
    snprintf(path, sizeof path, "%s", temp_path("cut.stats"));
    struct imprint_options o = { .context = LENGTH, .tokens = TOKENS, .fisher = true, .mem_limit = mem_limit, .force = true,
                                 .pool = s->pool, .show = count_step, .show_arg = &steps };
    FILE *f = fopen(temp_path(".cut.stats.quern-partial"), "wb");
    CHECK(f && fwrite(whole, 1, bytes, f) == bytes && fclose(f) == 0, "the beginning of a file");
    CHECK(imprint_write(s->model, path, &o, &err), "%zu bytes stood: %s", bytes, err.text);
    CHECK(same_files(temp_path("whole.stats"), path), "other bytes where %zu stood", bytes);
    return steps;
}

/* Cut within each tensor and behind it; what stands whole is not made again. The sanitizers take a minute for all of them: they
 * see one in five, after those of the calls. */
static void taken_up_anywhere(void)
{
    struct subject s;
    struct quern_error err;
    struct gguf g;
    size_t n, least = 0;
    if (!open_subject(&s, FORMAT_BF16, 1))
        return;
    CHECK(gather(&s, "whole.stats", 0, &err) && gguf_open(&g, temp_path("whole.stats"), NULL, &err), "%s", err.text);
    char *whole = read_whole_file(temp_path("whole.stats"), &n);
    if (!gather(&s, "tight.stats", 1 << 16, &err) && strstr(err.text, "least "))
        least = strtoull(strstr(err.text, "least ") + 6, NULL, 10);
    for (size_t i = 0; i < g.tensor_count; i++) {
        const struct gguf_tensor *t = &g.tensors[i];
        if (test_sanitized() && i > 2 * CALLS && i % 5 && i + 1 < g.tensor_count)
            continue;
        size_t at = (size_t)(t->data - g.parts[0].data), calls = i < 2 * CALLS ? i / 2 : CALLS;
        struct steps within = take_up(&s, whole, at + t->bytes / 2, least), behind = take_up(&s, whole, at + t->bytes, least);
        CHECK(within.gradients == CALLS - calls, "%zu calls backwards, %zu stood", within.gradients, calls);
        CHECK(behind.gradients == CALLS - (i < 2 * CALLS ? (i + 1) / 2 : CALLS), "%zu calls, %zu tensors stood", behind.gradients,
              i + 1);
        /* The last tensor of a layer's first input: with it that input's calls need not be run again. */
        if (gguf_string_is(t->name, "blk.0.attn.2.wg_held"))
            CHECK(behind.moments + CALLS == within.moments, "%zu and %zu steps", within.moments, behind.moments);
        CHECK(i + 1 < g.tensor_count || behind.moments == 0, "%zu steps where all stood", behind.moments);
    }
    gguf_close(&g);
    free(whole);
    close_subject(&s);
}

/* ---- bad files ---- */

static void refused(const struct subject *s, const char *data, size_t n, const struct gguf *model,
                    enum quern_code code, const char *words)
{
    struct stats stats;
    struct quern_error err;
    FILE *f = fopen(temp_path("bad.stats"), "wb");
    CHECK(f && fwrite(data, 1, n, f) == n && fclose(f) == 0, "a file to be refused");
    bool ok = stats_open(&stats, temp_path("bad.stats"), model, &s->model->kernels, s->pool, &err);
    CHECK(!ok && err.code == code && strstr(err.text, words), "'%s' wanted: %s", words, ok ? "accepted" : err.text);
    if (ok)
        stats_close(&stats);
}

/* Replace the first occurrence of a word by one of the same length. `model`: as stats_open has it. */
static void refused_with(const struct subject *s, const char *data, size_t n, const struct gguf *model, const char *word,
                         const char *by, const char *words)
{
    char *copy = malloc(n), *at = copy;
    memcpy(copy, data, n);
    while (at + strlen(word) <= copy + n && memcmp(at, word, strlen(word)))
        at++;
    CHECK(at + strlen(word) <= copy + n, "'%s' stands in the file", word);
    memcpy(at, by, strlen(word));
    refused(s, copy, n, model, QUERN_EFORMAT, words);
    free(copy);
}

static void bad_files_are_refused(void)
{
    struct subject s, other;
    struct quern_error err;
    struct stats stats;
    size_t n, m;
    if (!open_subject(&s, FORMAT_F32, 2) || !open_subject(&other, FORMAT_BF16, 1))
        return;
    CHECK(gather(&s, "good.stats", 0, &err), "%s", err.text);
    char *data = read_whole_file(temp_path("good.stats"), &n);
    char *model = read_whole_file(temp_path("imprint-bf16.gguf"), &m);
    bool ok = stats_open(&stats, temp_path("good.stats"), &s.model->gguf, &s.model->kernels, s.pool, &err);
    CHECK(ok, "%s", err.text);
    if (ok)
        stats_close(&stats);
    refused(&s, data, n, &other.model->gguf, QUERN_EFORMAT, "another model");
    refused(&s, model, m, NULL, QUERN_EFORMAT, "no statistics");
    for (size_t cut = 1; cut < n; cut = cut * 3 + 5)
        refused(&s, data, cut, NULL, QUERN_EFORMAT, "");
    refused(&s, data, n - 64, NULL, QUERN_EFORMAT, "");
    refused_with(&s, data, n, &s.model->gguf, "quern.stats.model_sha256", "quern.stats.model_sha25X", "model_sha256 is missing");
    refused_with(&s, data, n, NULL, "quern.stats.rows", "quern.stats.rowz", "lists");
    refused_with(&s, data, n, NULL, "quern.stats.version", "quern.stats.versioN", "version");
    refused_with(&s, data, n, NULL, "quern.stats.calls", "quern.stats.callz", "calls");
    refused_with(&s, data, n, NULL, "blk.1.attn.x_held", "blk.1.attn.x_hold", "blk.1.attn_q.weight");
    refused_with(&s, data, n, NULL, "blk.0.ffn.1.hg", "blk.0.ffn.7.hg", "blk.0.ffn_up.weight");
    refused_with(&s, data, n, NULL, "call.1.gradients", "call.9.gradients", "call 1");
    free(data), free(model);
    close_subject(&s);
    close_subject(&other);
}

int main(void)
{
    TEST(the_same_bytes);
    TEST(taken_up_anywhere);
    TEST(bad_files_are_refused);
    return test_end();
}
