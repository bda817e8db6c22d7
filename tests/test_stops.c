/* Stop strings in a stream of pieces. */
#include "test.h"

#include <stdlib.h>
#include <string.h>

#include "stops.h"

/* Feed `text` cut into pieces of `step` bytes; what came out goes to `out`. */
static bool feed(const char *const *texts, size_t count, const char *text, size_t step, char *out)
{
    struct stops s;
    struct quern_error err = {0};
    const char *part;
    size_t n, length = strlen(text), total = 0;
    CHECK(stops_init(&s, texts, count, &err), "%s", err.text);
    for (size_t i = 0; i < length; i += step) {
        CHECK(stops_add(&s, text + i, length - i < step ? length - i : step, &part, &n, &err), "%s", err.text);
        if (n)
            memcpy(out + total, part, n);
        total += n;
    }
    bool stopped = s.stopped;
    stops_end(&s, &part, &n);
    if (n)
        memcpy(out + total, part, n);
    out[total + n] = 0;
    stops_free(&s);
    return stopped;
}

static void test_all_cuts_give_the_same(void)
{
    static const struct { const char *texts[3], *text, *expected;
    } cases[] = {
        {{"END"}, "abcENDdef", "abc"},
        {{"END"}, "abcEN", "abcEN"},
        {{"END"}, "ENENDx", "EN"},
        {{"END"}, "END", ""},
        {{"aab"}, "aaaab", "aa"},
        {{"xyz", "y"}, "axyz", "a"},
        {{"xyz", "y"}, "axyq", "ax"},
        {{"xyz", "xy"}, "axyq", "a"},
        {{"\n\n", "###"}, "a\nb##\n\nc", "a\nb##"},
        {{"abc", "bcd", "cde"}, "zbcde", "z"},
        {{"long long string"}, "long long strinG", "long long strinG"},
        {{"é"}, "caf\xc3\xa9!", "caf"},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
        for (size_t step = 1; step < 12; step++) {
            char out[100];
            size_t count = 0;
            while (count < 3 && cases[c].texts[count])
                count++;
            bool stopped = feed(cases[c].texts, count, cases[c].text, step, out);
            CHECK(!strcmp(out, cases[c].expected), "case %zu in pieces of %zu: '%s'", c, step, out);
            CHECK(stopped == (strlen(out) < strlen(cases[c].text)), "case %zu: stopped %d", c, stopped);
        }
}

static void test_ten_thousand_strings(void)
{
    enum { N = 10000 };
    char (*texts)[12] = malloc(N * sizeof *texts);
    const char **list = malloc(N * sizeof *list);
    for (size_t i = 0; i < N; i++) {
        snprintf(texts[i], sizeof texts[i], "<%zu>", i + 100000);
        list[i] = texts[i];
    }
    char out[3000], text[2500] = "";
    for (size_t i = 0; i < 300; i++)
        strcat(text, "<10");
    strcat(text, "<109999>tail");
    CHECK(feed(list, N, text, 3, out) && strlen(out) == 900, "%zu bytes", strlen(out));
    free(list);
    free(texts);
}

static void test_refusals(void)
{
    struct stops s;
    struct quern_error err = {0};
    const char *empty[] = {"a", ""};
    CHECK(!stops_init(&s, empty, 2, &err) && err.code == QUERN_EUSAGE && strstr(err.text, "stop string 2 is empty"), "%s",
          err.text);
    size_t n = (1 << 20) + 1;
    char *big = malloc(n + 1);
    memset(big, 'x', n);
    big[n] = 0;
    const char *list[] = {big};
    CHECK(!stops_init(&s, list, 1, &err) && err.code == QUERN_EUSAGE, "%s", err.text);
    free(big);
}

int main(void)
{
    TEST(test_all_cuts_give_the_same);
    TEST(test_ten_thousand_strings);
    TEST(test_refusals);
    return test_end();
}
