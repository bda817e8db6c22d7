/* Bad inputs, sections A and B, given to gguf_open. Each file is opened in a process of its own, so that a crash is a row's result
 * and time and memory can be measured: a refusal may take 2 s and 64 MiB over what a valid file takes. */
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bad_files.h"
#include "gguf.h"
#include "test.h"

enum { SECONDS = 2, SECONDS_MANY = 5, MEMORY_KIB = 64 * 1024 };

struct outcome {
    bool     ended;            /* by itself, with a verdict */
    int      status;           /* of the process            */
    double   seconds;
    long     kib;              /* most that was resident    */
    struct quern_error err;    /* code QUERN_OK: opened     */
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void open_in_child(int pipe_end, const char *path)
{
    struct quern_error err = { .code = QUERN_OK };
    struct gguf g;
    if (gguf_open(&g, path, NULL, &err))
        gguf_close(&g);
    else if (err.code == QUERN_OK)
        err.code = (enum quern_code)255;                  /* refused, but did not say why */
    _exit(write(pipe_end, &err, sizeof err) == (ssize_t)sizeof err ? 0 : 99);
}

static struct outcome open_apart(const char *path)
{
    struct outcome out = { 0 };
    struct rusage usage;
    int ends[2];
    if (pipe(ends) != 0)
        return out;
    fflush(stdout);
    double start = now();
    pid_t child = fork();
    if (child == 0)
        open_in_child(ends[1], path);
    close(ends[1]);
    out.ended = read(ends[0], &out.err, sizeof out.err) == (ssize_t)sizeof out.err;
    close(ends[0]);
    wait4(child, &out.status, 0, &usage);
    out.ended = out.ended && WIFEXITED(out.status) && WEXITSTATUS(out.status) == 0;
    out.seconds = now() - start;
    out.kib = usage.ru_maxrss;
    return out;
}

static bool one_line_with(const char *text, const char *path, const char *words)
{
    for (const char *p = text; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            return false;
    return !strncmp(text, path, strlen(path)) && strstr(text, words);
}

static void check_row(const struct bad_row *row, long base_kib)
{
    const char *path = temp_path("bad.gguf");
    bool many = !strcmp(row->id, "B15");
    bad_save(row, path);
    struct outcome got = open_apart(path);
    unlink(path);
    CHECK(got.ended, "%s (%s): the process ended with status %d", row->id, row->what, got.status);
    if (!got.ended)
        return;
    CHECK(got.err.code == row->code, "%s (%s): code %d, expected %d: %s", row->id, row->what, got.err.code, row->code,
          got.err.text);
    if (row->code != QUERN_OK)
        CHECK(one_line_with(got.err.text, path, row->words), "%s (%s): no '%s' in: %s", row->id, row->what, row->words,
              got.err.text);
    CHECK(got.seconds < (many ? SECONDS_MANY : SECONDS), "%s (%s) took %.1f s", row->id, row->what, got.seconds);
    if (!many)
        CHECK(got.kib - base_kib < MEMORY_KIB, "%s (%s) took %ld KiB more than a valid file", row->id, row->what,
              got.kib - base_kib);
    printf("%-4s %-36s %d  %5.2f s %7ld KiB  %s\n", row->id, row->what, got.err.code, got.seconds, got.kib,
           row->code == QUERN_OK ? "opened" : got.err.text + strlen(path) + 2);
}

static void test_rows(void)
{
    bad_save(&bad_rows[0], temp_path("base.gguf"));
    struct outcome base = open_apart(temp_path("base.gguf"));
    CHECK(base.ended && base.err.code == QUERN_OK, "the valid file: %s", base.err.text);
    test_finish();
    for (size_t i = 0; i < bad_row_count; i++) {
        test_begin("%s: %s", bad_rows[i].id, bad_rows[i].what);
        check_row(&bad_rows[i], base.kib);
        if (i + 1 < bad_row_count)
            test_finish();
    }
}

/* A5: every beginning of a valid file is refused, but for the one that lacks only padding. The bytes are copied to a block of
 * their very size, so that the sanitizers see a read past the end. */
static void test_every_prefix(void)
{
    struct bytes b = { 0 };
    size_t data_offset, right = 0;
    bad_base(&b, &data_offset);
    for (size_t n = 0; n < b.n; n++) {
        struct quern_error err = { .code = QUERN_OK };
        struct gguf g;
        uint8_t *part = malloc(n ? n : 1);
        if (!part)
            abort();
        memcpy(part, b.data, n);
        bool ok = gguf_view(&g, part, n, "prefix", NULL, &err);
        CHECK(!ok && err.code == QUERN_EFORMAT, "%zu of %zu bytes: code %d, %s", n, b.n, ok ? 0 : err.code,
              ok ? "opened" : err.text);
        right += !ok && err.code == QUERN_EFORMAT;
        gguf_close(&g);
        free(part);
    }
    printf("A5   each of %zu prefixes              3  (%zu of them)\n", b.n, right);
    bytes_free(&b);
}

/* B9: allowed when asked for. */
static void test_aliased(void)
{
    for (size_t i = 0; i < bad_row_count; i++) {
        struct quern_error err;
        struct gguf g;
        if (strcmp(bad_rows[i].id, "B9"))
            continue;
        bad_save(&bad_rows[i], temp_path("bad.gguf"));
        CHECK(gguf_open(&g, temp_path("bad.gguf"), &(struct gguf_options){ .allow_aliased = true }, &err), "%s", err.text);
        gguf_close(&g);
    }
    unlink(temp_path("bad.gguf"));
}

/* A21: the limit is an option. */
static void test_metadata_limit(void)
{
    struct bytes b = { 0 };
    struct quern_error err;
    struct gguf g;
    put_header(&b, 0, 1);
    put_key_text(&b, "x.text", "twenty bytes of text");
    CHECK(!gguf_view(&g, b.data, b.n, "m", &(struct gguf_options){ .limit_metadata = 45 }, &err) && err.code == QUERN_EMEM, "%s",
          err.text);
    CHECK(gguf_view(&g, b.data, b.n, "m", &(struct gguf_options){ .limit_metadata = 46 }, &err), "%s", err.text);
    gguf_close(&g);
    bytes_free(&b);
}

int main(void)
{
    TEST(test_rows);
    TEST(test_every_prefix);
    TEST(test_aliased);
    TEST(test_metadata_limit);
    return test_end();
}
