#include "text.h"

#include <locale.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "unicode.h"

/* Make room for `n` more bytes and a NUL. */
static bool reserve(struct text *t, size_t n)
{
    size_t need, room;
    if (t->failed)
        return false;
    if (!checked_add(&need, t->n, n) || !checked_add(&need, need, 1)) {
        t->failed = true;
        return false;
    }
    if (need <= t->capacity)
        return true;
    if (!checked_mul(&room, t->capacity, 2) || room < need)
        room = need < 256 ? 256 : need;
    char *grown = realloc(t->data, room);
    if (!grown) {
        t->failed = true;
        return false;
    }
    t->data = grown;
    t->capacity = room;
    return true;
}

void text_add(struct text *t, const char *data, size_t n)
{
    if (!reserve(t, n))
        return;
    if (n)
        memcpy(t->data + t->n, data, n);
    t->n += n;
    t->data[t->n] = '\0';
}

/* vsnprintf with the C locale's point, for this thread and this call only. */
static __attribute__((format(printf, 3, 0))) int format_plain(char *out, size_t size, const char *format, va_list args)
{
    locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (!plain)
        return -1;
    locale_t before = uselocale(plain);
    int n = vsnprintf(out, size, format, args);
    uselocale(before);
    freelocale(plain);
    return n;
}

static __attribute__((format(printf, 3, 4))) int print_plain(char *out, size_t size, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = format_plain(out, size, format, args);
    va_end(args);
    return n;
}

void text_addf(struct text *t, const char *format, ...)
{
    char small[256];
    va_list args;
    va_start(args, format);
    int n = format_plain(small, sizeof small, format, args);
    va_end(args);
    if (n < 0) {
        t->failed = true;
    } else if ((size_t)n < sizeof small) {
        text_add(t, small, (size_t)n);
    } else if (reserve(t, (size_t)n)) {
        va_start(args, format);
        format_plain(t->data + t->n, (size_t)n + 1, format, args);
        va_end(args);
        t->n += (size_t)n;
    }
}

void text_add_json(struct text *t, const char *data, size_t n)
{
    static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
    text_add(t, "\"", 1);
    for (size_t i = 0; i < n;) {
        unsigned char c = (unsigned char)data[i];
        const char *named = c ? strchr(from, c) : NULL;
        size_t length = unicode_valid(data + i, n - i);
        if (named) {
            char escape[2] = { '\\', to[named - from] };
            text_add(t, escape, 2);
        } else if (c < 0x20 || c == 0x7f) {
            text_addf(t, "\\u%04x", c);
        } else if (length) {
            text_add(t, data + i, length);
        } else {
            text_add(t, "\xEF\xBF\xBD", 3);
        }
        i += length ? length : 1;
    }
    text_add(t, "\"", 1);
}

/* Does VALUE printed with `digits` significant digits read back as itself? */
static bool reads_back(double value, bool single, int digits, locale_t plain)
{
    char buffer[40];
    print_plain(buffer, sizeof buffer, "%.*g", digits, value);
    return single ? strtof_l(buffer, NULL, plain) == (float)value : strtod_l(buffer, NULL, plain) == value;
}

void text_add_number(struct text *t, double value)
{
    if (!isfinite(value)) {
        text_add(t, "null", 4);
        return;
    }
    /* Counts and ids: all their digits, no exponent. */
    if (fabs(value) < 9007199254740992.0 && value == floor(value)) {
        text_addf(t, "%.0f", value);
        return;
    }
    locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (!plain) {
        t->failed = true;
        return;
    }
    /* More digits never round further away, so the fewest that suffice are found by halving: 9 always do for a float, 17 for
     * a double. */
    bool single = fabs(value) <= 3.4028234663852886e38 && (double)(float)value == value;
    int low = 1, high = single ? 9 : 17;
    while (low < high) {
        int middle = (low + high) / 2;
        if (reads_back(value, single, middle, plain))
            high = middle;
        else
            low = middle + 1;
    }
    freelocale(plain);
    text_addf(t, "%.*g", high, value);
}

void text_free(struct text *t)
{
    free(t->data);
    *t = (struct text){ 0 };
}
