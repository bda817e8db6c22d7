/* UTF-8 and the Unicode tables. */
#include <string.h>

#include "test.h"
#include "unicode.h"

static void test_utf8_round_trip(void)
{
    for (uint32_t c = 0; c <= UNICODE_LAST; c++) {
        char text[4];
        uint32_t back;
        size_t n = unicode_encode(c, text);
        bool surrogate = c >= 0xD800 && c < 0xE000;
        CHECK(n == (c < 0x80 ? 1u : c < 0x800 ? 2u : c < 0x10000 ? 3u : 4u) && unicode_length((unsigned char)text[0]) == n,
              "U+%04X", c);
        size_t taken = unicode_decode(text, n, &back);
        CHECK(surrogate ? taken == 1 && back == UNICODE_REPLACEMENT : taken == n && back == c, "U+%04X comes back as U+%04X", c,
              back);
        for (size_t cut = 1; cut < n; cut++)
            CHECK(unicode_decode(text, cut, &back) == 1 && back == UNICODE_REPLACEMENT, "U+%04X cut at %zu", c, cut);
    }
}

static void test_not_utf8(void)
{
    static const char *const wrong[] = { "\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xE0\x80\x80", "\xE0\x9F\xBF",
                                         "\xF0\x80\x80\x80", "\xF0\x8F\xBF\xBF",
                                         "\xED\xA0\x80", "\xED\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF", "\xC3(",
                                         "\xE2\x82(" };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        uint32_t c;
        CHECK(unicode_decode(wrong[i], strlen(wrong[i]), &c) == 1 && c == UNICODE_REPLACEMENT, "case %zu", i);
    }
}

/* How many characters of each class, small letters and decompositions Unicode 15.1 has. */
static void test_tables_are_whole(void)
{
    static const struct { unsigned class; size_t count; } expected[] = {
        { UNICODE_LETTER, 136726 }, { UNICODE_MARK, 2450 }, { UNICODE_NUMBER, 1831 }, { UNICODE_PUNCTUATION, 842 },
        { UNICODE_SYMBOL, 7775 },
        { UNICODE_SEPARATOR, 19 }, { UNICODE_CONTROL, 139751 }, { UNICODE_UNASSIGNED, 824718 }, { UNICODE_WHITESPACE, 25 },
    };
    size_t lower = 0, base = 0;
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        size_t count = 0;
        for (uint32_t c = 0; c <= UNICODE_LAST; c++)
            count += (unicode_class(c) & expected[i].class) != 0;
        CHECK(count == expected[i].count, "class %u: %zu characters, expected %zu", expected[i].class, count, expected[i].count);
    }
    for (uint32_t c = 0; c <= UNICODE_LAST; c++) {
        unsigned class = unicode_class(c) & 255;
        CHECK(class && !(class & (class - 1)), "U+%04X has the classes %u", c, class);
        lower += unicode_lower(c) != c;
        base += unicode_base(c) != c;
    }
    CHECK(lower == 1433, "%zu characters have a small letter, expected 1433", lower);
    CHECK(base == 13233, "%zu characters have a decomposition, expected 13233", base);
}

static void test_samples(void)
{
    static const struct { uint32_t c; unsigned class; } classes[] = {
        { 'a', UNICODE_LETTER }, { 'Z', UNICODE_LETTER }, { '7', UNICODE_NUMBER }, { ' ', UNICODE_SEPARATOR | UNICODE_WHITESPACE },
        { '\n', UNICODE_CONTROL | UNICODE_WHITESPACE }, { 0, UNICODE_CONTROL }, { '$', UNICODE_SYMBOL },
        { '!', UNICODE_PUNCTUATION },
        { 0x85, UNICODE_CONTROL | UNICODE_WHITESPACE }, { 0xA0, UNICODE_SEPARATOR | UNICODE_WHITESPACE }, { 0x301, UNICODE_MARK },
        { 0x200B, UNICODE_CONTROL }, { 0x3000, UNICODE_SEPARATOR | UNICODE_WHITESPACE }, { 0x4E00, UNICODE_LETTER },
        { 0xAC00, UNICODE_LETTER },
        { 0x1F600, UNICODE_SYMBOL }, { 0xE000, UNICODE_CONTROL }, { 0xD800, UNICODE_CONTROL }, { 0x378, UNICODE_UNASSIGNED },
        { 0x2EBF0, UNICODE_LETTER }, { 0x2FFC, UNICODE_SYMBOL }, { 0x10FFFF, UNICODE_UNASSIGNED }, { 0x110000, UNICODE_UNASSIGNED },
        { UINT32_MAX, UNICODE_UNASSIGNED }, { 0xBD, UNICODE_NUMBER }, { 0xFFFD, UNICODE_SYMBOL },
    };
    static const uint32_t lowers[][2] = { { 'A', 'a' }, { 'z', 'z' }, { '[', '[' }, { 0xC4, 0xE4 }, { 0x130, 'i' },
                                          { 0x391, 0x3B1 }, { 0x2126, 0x3C9 }, { 0x10400, 0x10428 } };
    static const uint32_t bases[][2] = { { 'e', 'e' }, { 0xE9, 'e' }, { 0x1EA5, 'a' }, { 0x212B, 'A' }, { 0x344, 0x308 },
                                         { 0xAC00, 0x1100 }, { 0xD7A3, 0x1112 }, { 0xF900, 0x8C48 } };
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
        CHECK(unicode_class(classes[i].c) == classes[i].class, "U+%04X: %u", classes[i].c, unicode_class(classes[i].c));
    for (size_t i = 0; i < 8; i++) {
        CHECK(unicode_lower(lowers[i][0]) == lowers[i][1], "U+%04X: U+%04X", lowers[i][0], unicode_lower(lowers[i][0]));
        CHECK(unicode_base(bases[i][0]) == bases[i][1], "U+%04X: U+%04X", bases[i][0], unicode_base(bases[i][0]));
    }
}

int main(void)
{
    TEST(test_utf8_round_trip);
    TEST(test_not_utf8);
    TEST(test_tables_are_whole);
    TEST(test_samples);
    return test_end();
}
