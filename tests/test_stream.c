/* What a terminal or a pipe sees of text that comes in pieces (bad-inputs F7). */
#include <string.h>

#include "stream.h"
#include "test.h"

static const struct { const char *in, *raw, *shown; } cases[] = {
    { "plain text\n\tand more", "plain text\n\tand more", "plain text\n\tand more" },
    { "gr\xC3\xBC\xC3\x9F\x65", "gr\xC3\xBC\xC3\x9F\x65", "gr\xC3\xBC\xC3\x9F\x65" },
    { "\xF0\x9F\x98\x80\xE4\xBD\xA0", "\xF0\x9F\x98\x80\xE4\xBD\xA0", "\xF0\x9F\x98\x80\xE4\xBD\xA0" },
    { "\x1B[31mred\x1B[0m", "\x1B[31mred\x1B[0m", "\\x1B[31mred\\x1B[0m" },
    { "\x1B]0;title\x07.", "\x1B]0;title\x07.", "\\x1B]0;title\\x07." },
    { "\x1B]8;;http://a\x1B\\b", "\x1B]8;;http://a\x1B\\b", "\\x1B]8;;http://a\\x1B\\b" },
    { "\x1BPq#0\x1B\\", "\x1BPq#0\x1B\\", "\\x1BPq#0\\x1B\\" },
    { "a\x1B", "a\x1B", "a\\x1B" },
    { "a\r\nb\rc\r", "a\r\nb\rc\r", "a\nb\\x0Dc\\x0D" },
    { "\x7F\x08\x0B", "\x7F\x08\x0B", "\\x7F\\x08\\x0B" },
    { "\xC2\x9B" "31m", "\xC2\x9B" "31m", "\\xC2\\x9B31m" },               /* CSI as one C1 control */
    { "\xFF\xC3(\xE2\x82", "\xFF\xC3(\xE2\x82", "\\xFF\\xC3(\\xE2\\x82" }, /* not UTF-8, cut off */
    { "\xED\xA0\x80", "\xED\xA0\x80", "\\xED\\xA0\\x80" },                 /* a surrogate */
    { "\xC0\x80", "\xC0\x80", "\\xC0\\x80" },                             /* overlong */
};

/* However the bytes are cut, the same comes out; and nothing is given out that is incomplete. */
static void test_any_cut(void)
{
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        size_t n = strlen(cases[c].in);
        for (size_t first = 0; first <= n; first++) {
            for (size_t second = first; second <= n; second++) {
                for (int escape = 0; escape < 2; escape++) {
                    struct stream s;
                    struct text out = { 0 };
                    const char *expected = escape ? cases[c].shown : cases[c].raw;
                    stream_init(&s, escape);
                    stream_add(&s, cases[c].in, first, &out);
                    stream_add(&s, cases[c].in + first, second - first, &out);
                    stream_add(&s, cases[c].in + second, n - second, &out);
                    stream_flush(&s, &out);
                    CHECK(out.n == strlen(expected) && memcmp(out.data, expected, out.n) == 0,
                          "case %zu cut at %zu and %zu: '%s'", c,
                          first, second, out.data);
                    text_free(&out);
                }
            }
        }
    }
}

static void test_incomplete_is_held(void)
{
    static const struct { const char *in; int escape; size_t given; } held[] = {
        { "ab\xF0\x9F\x98", 0, 2 }, { "ab\xF0\x9F\x98", 1, 2 }, { "ab\xC3", 1, 2 }, { "ab\x1B", 0, 2 }, { "ab\x1B[3", 0, 2 },
        { "ab\x1B]0;ti", 0, 2 }, { "ab\x1B(", 0, 2 }, { "ab\r", 1, 2 }, { "ab\r", 0, 3 }, { "ab\x1B[3\n", 0, 6 },
        { "ab\x1B[3m", 0, 6 },
    };
    for (size_t i = 0; i < sizeof held / sizeof *held; i++) {
        struct stream s;
        struct text out = { 0 };
        stream_init(&s, held[i].escape);
        stream_add(&s, held[i].in, strlen(held[i].in), &out);
        CHECK(out.n == held[i].given, "case %zu: %zu bytes given out, expected %zu", i, out.n, held[i].given);
        text_free(&out);
    }
}

/* An escape sequence without an end must not hold a text for ever. */
static void test_held_is_bounded(void)
{
    struct stream s;
    struct text out = { 0 };
    stream_init(&s, false);
    stream_add(&s, "\x1B]", 2, &out);
    for (size_t i = 0; i < 100000; i++)
        stream_add(&s, "x", 1, &out);
    CHECK(out.n + STREAM_HELD >= 100002, "only %zu bytes were given out", out.n);
    stream_flush(&s, &out);
    CHECK(out.n == 100002, "%zu bytes instead of 100002", out.n);
    text_free(&out);
}

static void test_random_bytes(void)
{
    uint64_t seed = 11;
    for (int round = 0; round < 300; round++) {
        char bytes[400];
        static const char likely[] = "\x1B\x1B[]0;m\x07\\\xC3\xBC\xE2\x82\xAC\xF0\x9F\x98\x80\r\nab ";
        size_t n = random_u64(&seed) % sizeof bytes;
        for (size_t i = 0; i < n; i++)
            bytes[i] = random_u64(&seed) % 4 ? likely[random_u64(&seed) % (sizeof likely - 1)] : (char)random_u64(&seed);
        struct text whole[2] = { { 0 }, { 0 } };
        for (int escape = 0; escape < 2; escape++) {
            struct stream s;
            struct text out = { 0 };
            stream_init(&s, escape);
            stream_add(&s, bytes, n, &whole[escape]);
            stream_flush(&s, &whole[escape]);
            stream_init(&s, escape);
            for (size_t i = 0; i < n; i++)
                stream_add(&s, bytes + i, 1, &out);
            stream_flush(&s, &out);
            CHECK(out.n == whole[escape].n && (n == 0 || memcmp(out.data, whole[escape].data, out.n) == 0),
                  "round %d: cutting changes text",
                  round);
            text_free(&out);
        }
        CHECK(whole[0].n == n && (n == 0 || memcmp(whole[0].data, bytes, n) == 0), "round %d: a pipe does not get the bytes",
              round);
        for (size_t i = 0; i < whole[1].n; i++) {
            unsigned char c = (unsigned char)whole[1].data[i];
            CHECK((c >= 0x20 && c != 0x7F) || c == '\n' || c == '\t', "round %d: control %02x on a terminal", round, c);
        }
        text_free(&whole[0]);
        text_free(&whole[1]);
    }
}

int main(void)
{
    TEST(test_any_cut);
    TEST(test_incomplete_is_held);
    TEST(test_held_is_bounded);
    TEST(test_random_bytes);
    return test_end();
}
