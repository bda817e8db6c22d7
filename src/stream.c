/* Tokens are pieces of bytes that end anywhere: within a character, within an escape sequence. What goes out must not, or a
 * terminal shows garbage for a moment and a reader of a pipe gets invalid UTF-8. See stream.h. */
#include "stream.h"

#include <string.h>

#include "unicode.h"

enum { ESC = 0x1B, BEL = 0x07 };

void stream_init(struct stream *s, bool escape)
{
    *s = (struct stream){ .escape = escape };
}

static bool between(unsigned char c, unsigned low, unsigned high)
{
    return c >= low && c <= high;
}

/* Bytes of the escape sequence at p[0..n), p[0] = ESC; 0 while its end is not there (ECMA-48: CSI, strings, two-byte forms). A
 * byte that cannot be in it ends it before that byte. */
static size_t sequence_length(const unsigned char *p, size_t n)
{
    if (n == 1)
        return 0;
    size_t i = 2;
    switch (p[1]) {
    case '[':
        while (i < n && between(p[i], 0x20, 0x3F))
            i++;
        return i == n ? 0 : i + between(p[i], 0x40, 0x7E);
    /* OSC, DCS, SOS, PM, APC: strings up to ST (ESC \\), or BEL as xterm ends an OSC. */
    case ']': case 'P': case 'X': case '^': case '_':
        for (; i < n; i++) {
            if (p[i] == BEL)
                return i + 1;
            if (p[i] == ESC)
                return i + 1 == n ? 0 : p[i + 1] == '\\' ? i + 2 : i;
        }
        return 0;
    default:
        i = 1;
        while (i < n && between(p[i], 0x20, 0x2F))
            i++;
        return i == n ? 0 : i + between(p[i], 0x30, 0x7E);
    }
}

/* Bytes of the first thing in p[0..n) that can be given out whole; 0 while it is incomplete. */
static size_t unit_length(const struct stream *s, const unsigned char *p, size_t n)
{
    uint32_t c;
    if (p[0] == ESC && !s->escape)
        return sequence_length(p, n);
    /* On a terminal CR LF is a line's end, but a CR alone would let later words overwrite earlier ones: it is shown. */
    if (p[0] == '\r' && s->escape)
        return n == 1 ? 0 : 1 + (p[1] == '\n');
    /* Held while what is there can still become a character; the first byte that cannot continue it releases it as it is. */
    size_t length = unicode_length(p[0]);
    if (length <= 1)
        return 1;
    for (size_t i = 1; i < length; i++) {
        if (i == n)
            return 0;
        if ((p[i] & 0xC0) != 0x80)
            return 1;
    }
    return unicode_decode((const char *)p, n, &c);
}

static void show_bytes(const char *p, size_t n, struct text *out)
{
    for (size_t i = 0; i < n; i++)
        text_addf(out, "\\x%02X", (unsigned)(unsigned char)p[i]);
}

/* In a pipe everything goes through as it came; on a terminal what could move the cursor or change its state is spelled out. */
static void give_out(const struct stream *s, const char *p, size_t n, struct text *out)
{
    uint32_t c;
    if (!s->escape) {
        text_add(out, p, n);
        return;
    }
    if (n == 2 && p[0] == '\r') {
        text_add(out, "\n", 1);
        return;
    }
    bool invalid = unicode_valid(p, n) == 0;
    unicode_decode(p, n, &c);
    /* C1 (0x80 to 0x9F as code points) too: some terminals take U+009B for ESC [. */
    bool control = (c < 0x20 && c != '\n' && c != '\t') || (c >= 0x7F && c < 0xA0);
    if (invalid || control)
        show_bytes(p, n, out);
    else
        text_add(out, p, n);
}

static void drop(struct stream *s, size_t n)
{
    s->n -= n;
    memmove(s->held, s->held + n, s->n);
}

static void release(struct stream *s, bool all, struct text *out)
{
    while (s->n) {
        size_t n = unit_length(s, (const unsigned char *)s->held, s->n);
        /* A full buffer lets its first byte go: a sequence that never ends must not hold the text back for good. */
        if (n == 0 && !all && s->n < STREAM_HELD)
            return;
        n = n ? n : 1;
        give_out(s, s->held, n, out);
        drop(s, n);
    }
}

/* Byte by byte: the buffer is short, and a token has a handful of bytes. */
void stream_add(struct stream *s, const char *bytes, size_t n, struct text *out)
{
    for (size_t i = 0; i < n; i++) {
        s->held[s->n++] = bytes[i];
        release(s, false, out);
    }
}

void stream_flush(struct stream *s, struct text *out)
{
    release(s, true, out);
}
