/* Errors, checked arithmetic, the arena. */
#include "test.h"

#include <errno.h>
#include <string.h>

#include "arena.h"
#include "error.h"

static void test_long_text_is_cut_visibly(void)
{
    struct quern_error err;
    char big[3000];
    memset(big, 'x', sizeof big);
    CHECK(!ERR(&err, QUERN_EFORMAT, "%.*s", (int)sizeof big, big), "ERR gives false");
    CHECK(err.code == QUERN_EFORMAT, "code %d", err.code);
    CHECK(!strcmp(err.text + strlen(err.text) - 3, "..."), "ends in '%s'", err.text + strlen(err.text) - 3);
}

static void test_errno_sentence(void)
{
    struct quern_error err;
    errno = ENOENT;
    ERR_ERRNO(&err, "cannot open '%s'", "x");
    CHECK(err.code == QUERN_EIO && !strcmp(err.text, "cannot open 'x': No such file or directory"), "%s", err.text);
    error_prefix(&err, "quern");
    CHECK(!strncmp(err.text, "quern: cannot", 13), "%s", err.text);
}

static void test_checked_arithmetic(void)
{
    size_t out = 7;
    CHECK(!checked_mul(&out, SIZE_MAX / 2, 3) && out == 7, "out %zu", out);
    CHECK(!checked_add(&out, SIZE_MAX, 1) && out == 7, "out %zu", out);
    CHECK(!checked_align(&out, SIZE_MAX - 3, 64), "out %zu", out);
    CHECK(checked_align(&out, 65, 64) && out == 128, "out %zu", out);
}

static void test_escape(void)
{
    char out[64];
    static const struct { const char *text; size_t n; const char *want; } cases[] = {
        { "plain", 5, "plain" },          { "a\x1b[31m", 6, "a\\x1B[31m" }, { "a\0b", 3, "a\\x00b" },
        { "\xc3\xa9", 2, "\xc3\xa9" },    { "\xc2\x9b", 2, "\\xC2\\x9B" },  { "\xff", 1, "\\xFF" },
        { "\xed\xa0\x80", 3, "\\xED\\xA0\\x80" }, { "\xc3", 1, "\\xC3" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        text_escape(out, sizeof out, cases[i].text, cases[i].n);
        CHECK(!strcmp(out, cases[i].want), "case %zu: '%s'", i, out);
    }
    CHECK(!strcmp(text_escape(out, 12, "0123456789abcdef", 16), "01234567..."), "'%s'", out);
}

static void test_arena_limit(void)
{
    struct quern_error err;
    struct arena arena;
    arena_init(&arena, 1 << 20);
    CHECK(arena_take(&arena, 1000, 1000, "numbers", &err), "fits");
    CHECK(!arena_take(&arena, 100000, 1, "numbers", &err) && err.code == QUERN_EMEM, "limit");
    CHECK(!arena_take(&arena, SIZE_MAX / 2, 4, "numbers", &err) && err.code == QUERN_EMEM, "overflow");
    arena_free(&arena);
    CHECK(arena.slabs == NULL && arena.bytes == 0, "freed");
}

int main(void)
{
    TEST(test_long_text_is_cut_visibly);
    TEST(test_errno_sentence);
    TEST(test_checked_arithmetic);
    TEST(test_escape);
    TEST(test_arena_limit);
    return test_end();
}
