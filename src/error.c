/* Errors that carry a sentence, memory that comes with one, and text made fit for a terminal: see error.h. */
#include "error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "unicode.h"

/* A sentence that does not fit ends in "...", so that no reader takes a cut number for a whole one. */
static void format_text(struct quern_error *err, const char *format, va_list args)
{
    int n = vsnprintf(err->text, sizeof err->text, format, args);
    if (n >= (int)sizeof err->text)
        memcpy(err->text + sizeof err->text - 4, "...", 4);
}

bool error_set(struct quern_error *err, enum quern_code code, const char *file, int line, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    err->code = code;
    err->file = file;
    err->line = line;
    format_text(err, format, args);
    va_end(args);
    return false;
}

bool error_errno(struct quern_error *err, const char *file, int line, const char *format, ...)
{
    const char *sentence = strerror(errno);      /* first of all: formatting may change errno */
    va_list args;
    va_start(args, format);
    err->code = QUERN_EIO;
    err->file = file;
    err->line = line;
    format_text(err, format, args);
    va_end(args);
    size_t n = strlen(err->text);
    snprintf(err->text + n, sizeof err->text - n, ": %s", sentence);
    return false;
}

bool error_prefix(struct quern_error *err, const char *prefix)
{
    char text[sizeof err->text];      /* snprintf must not read what it writes */
    memcpy(text, err->text, sizeof text);
    int n = snprintf(err->text, sizeof err->text, "%s: %s", prefix, text);
    if (n >= (int)sizeof err->text)
        memcpy(err->text + sizeof err->text - 4, "...", 4);
    return false;
}

void *mem_take(size_t count, size_t size, const char *what, struct quern_error *err)
{
    /* calloc checks the product. Never 0 bytes: NULL must mean failure only. */
    void *p = calloc(count ? count : 1, size ? size : 1);
    if (!p)
        ERR(err, QUERN_EMEM, "not enough memory for %s (%zu x %zu bytes)", what, count, size);
    return p;
}

void *mem_take_aligned(size_t count, size_t size, const char *what, struct quern_error *err)
{
    size_t bytes;
    void *p = NULL;
    if (!checked_mul(&bytes, count, size) || !checked_align(&bytes, bytes ? bytes : 1, 64) || !(p = aligned_alloc(64, bytes)))
        ERR(err, QUERN_EMEM, "not enough memory for %s (%zu x %zu bytes)", what, count, size);
    return p;
}

char *mem_copy_text(const char *text, size_t n, struct quern_error *err)
{
    size_t bytes;
    if (!checked_add(&bytes, n, 1)) {
        ERR(err, QUERN_EMEM, "not enough memory for a text of %zu bytes", n);
        return NULL;
    }
    char *copy = malloc(bytes);
    if (!copy) {
        ERR(err, QUERN_EMEM, "not enough memory for a text of %zu bytes", n);
        return NULL;
    }
    memcpy(copy, text, n);
    copy[n] = '\0';
    return copy;
}

/* Bytes of the character at s[0..n) when a terminal may show it. 0 for what is not UTF-8 and for control characters, those from
 * U+0080 to U+009F among them: terminals obey them, too. */
static size_t printable_length(const char *s, size_t n)
{
    uint32_t c;
    size_t length = unicode_valid(s, n);
    unicode_decode(s, n, &c);
    return c < 0x20 || (c >= 0x7f && c < 0xa0) ? 0 : length;
}

const char *text_escape(char *out, size_t size, const char *text, size_t n)
{
    size_t used = 0;
    for (size_t i = 0; i < n;) {
        char piece[8];
        size_t length = printable_length(text + i, n - i), take = length ? length : 1;
        if (length) {
            memcpy(piece, text + i, length);
        } else {
            snprintf(piece, sizeof piece, "\\x%02X", (unsigned char)text[i]);
            length = 4;
        }
        /* Room stays for "..." and the NUL while more is to come, and no character or \\xNN is cut in two. */
        if (used + length + (i + take < n ? 4 : 1) > size) {
            memcpy(out + used, "...", 3);
            used += 3;
            break;
        }
        memcpy(out + used, piece, length);
        used += length;
        i += take;
    }
    out[used] = '\0';
    return out;
}
