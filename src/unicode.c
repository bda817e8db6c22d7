/* UTF-8 and the classes of code points: see unicode.h. The tables are generated (unicode_tables.c says how), sorted, and
 * searched by halving: a dozen steps for a class. */
#include "unicode.h"

#include "unicode_tables.h"

unsigned unicode_class(uint32_t c)
{
    if (c > UNICODE_LAST)
        return UNICODE_UNASSIGNED;
    /* The last range that begins at or before c: low always begins there, high never does. */
    size_t low = 0, high = unicode_ranges_count;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (unicode_ranges[middle] >> 9 <= c)
            low = middle;
        else
            high = middle;
    }
    return unicode_ranges[low] & 511;
}

/* The partner of c in a sorted list of pairs, or c itself. */
static uint32_t mapped(const uint32_t (*table)[2], size_t count, uint32_t c)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (table[middle][0] < c)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && table[low][0] == c ? table[low][1] : c;
}

uint32_t unicode_lower(uint32_t c)
{
    if (c < 0x80)
        return c >= 'A' && c <= 'Z' ? c + 32 : c;
    return mapped(unicode_lowers, unicode_lowers_count, c);
}

uint32_t unicode_base(uint32_t c)
{
    /* A Hangul syllable is 0xAC00 + (lead * 21 + vowel) * 28 + tail; its leads begin at 0x1100. */
    if (c >= 0xAC00 && c < 0xAC00 + 19 * 21 * 28)
        return 0x1100 + (c - 0xAC00) / (21 * 28);
    return c < 0xC0 ? c : mapped(unicode_bases, unicode_bases_count, c);
}

size_t unicode_length(unsigned char lead)
{
    if (lead < 0x80)
        return 1;
    if (lead < 0xC2 || lead > 0xF4)     /* continuation bytes, overlong leads, leads above U+10FFFF */
        return 0;
    return lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

/* Invalid bytes come back one at a time as U+FFFD, so that a broken character never swallows a good one behind it. */
size_t unicode_decode(const char *text, size_t n, uint32_t *c)
{
    static const uint32_t smallest[5] = { 0, 0, 0x80, 0x800, 0x10000 };
    const unsigned char *s = (const unsigned char *)text;
    size_t length = unicode_length(s[0]);
    *c = UNICODE_REPLACEMENT;
    if (length == 0 || length > n)
        return 1;
    uint32_t value = length == 1 ? s[0] : s[0] & (0x7Fu >> length);
    for (size_t i = 1; i < length; i++) {
        if ((s[i] & 0xC0) != 0x80)
            return 1;
        value = value << 6 | (s[i] & 0x3F);
    }
    if (value < smallest[length] || value > UNICODE_LAST || (value >= 0xD800 && value < 0xE000))
        return 1;
    *c = value;
    return length;
}

size_t unicode_valid(const char *text, size_t n)
{
    uint32_t c;
    size_t length = unicode_decode(text, n, &c);
    return length == 1 && c == UNICODE_REPLACEMENT ? 0 : length;
}

size_t unicode_encode(uint32_t c, char out[4])
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    size_t length = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = length - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (c & 0x3F));
        c >>= 6;
    }
    /* 0xF00 >> 2, 3, 4 leaves the leading byte's marks: C0, E0, F0. */
    out[0] = (char)((0xF00 >> length & 0xFF) | c);
    return length;
}
