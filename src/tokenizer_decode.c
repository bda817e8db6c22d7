#include <string.h>

#include "tokenizer_internal.h"

/* Byte-level BPE spells bytes that are printable in Latin-1 as themselves and the other 68 as U+0100 onwards, in order. */
static bool spells_itself(unsigned c)
{
    return (c >= 0x21 && c <= 0x7E) || (c >= 0xA1 && c <= 0xAC) || (c >= 0xAE && c <= 0xFF);
}

uint32_t byte_to_char(unsigned byte)
{
    if (spells_itself(byte))
        return byte;
    if (byte <= 0x20)
        return 0x100 + byte;
    return byte == 0xAD ? 0x143 : 0x121 + (byte - 0x7F);     /* 0x7F..0xA0, then 0xAD */
}

/* The byte that a character stands for in byte-level vocabularies; NO_ID for others. */
static int char_to_byte(uint32_t c)
{
    if (c < 0x100)
        return spells_itself(c) ? (int)c : NO_ID;
    if (c <= 0x120)
        return (int)(c - 0x100);
    if (c == 0x143)
        return 0xAD;
    return c < 0x143 ? (int)(c - 0x121 + 0x7F) : NO_ID;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : NO_ID;
}

int byte_token_value(const char *text, size_t n)
{
    if (n != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>' || hex_digit(text[3]) < 0 || hex_digit(text[4]) < 0)
        return NO_ID;
    return hex_digit(text[3]) * 16 + hex_digit(text[4]);
}

/* ---- one token ---- */

struct sink { char *out; size_t n, size; };

static void put(struct sink *sink, const char *bytes, size_t n)
{
    size_t room = sink->n < sink->size ? sink->size - sink->n : 0;
    if (room)
        memcpy(sink->out + sink->n, bytes, n < room ? n : room);
    sink->n += n;
}

/* U+2581 is a blank. */
static void put_marked(struct sink *sink, const char *text, size_t n)
{
    for (size_t i = 0; i < n; ) {
        bool mark = n - i >= BLANK_MARK_BYTES && memcmp(text + i, BLANK_MARK, BLANK_MARK_BYTES) == 0;
        put(sink, mark ? " " : text + i, 1);
        i += mark ? BLANK_MARK_BYTES : 1;
    }
}

/* Characters of the byte-level spelling; others (they are in no published vocabulary) stay as they are. */
static void put_spelled(struct sink *sink, const char *text, size_t n)
{
    for (size_t i = 0; i < n; ) {
        uint32_t c;
        size_t bytes = unicode_decode(text + i, n - i, &c);
        int byte = char_to_byte(c);
        char value = (char)byte;
        if (byte == NO_ID)
            put(sink, text + i, bytes);
        else
            put(sink, &value, 1);
        i += bytes;
    }
}

size_t tokenizer_piece(const struct tokenizer *t, int32_t id, bool special, char *out, size_t size)
{
    if (id < 0 || (size_t)id >= t->size)
        return 0;
    struct sink sink = { out, 0, size };
    const struct token *token = &t->tokens[id];
    if (token->flags & (TOKEN_CONTROL | TOKEN_UNKNOWN)) {
        if (special)
            put(&sink, token->text, token->n);
    } else if (token->flags & TOKEN_USER) {
        put(&sink, token->text, token->n);
    } else if (token->flags & TOKEN_NORMAL) {
        if (t->kind == TOKENIZER_BPE && !(pretokenizer_flags(t->pre) & PRE_RAW))
            put_spelled(&sink, token->text, token->n);
        else
            put_marked(&sink, token->text, token->n);
    } else if (token->flags & TOKEN_BYTE) {
        char value = (char)byte_token_value(token->text, token->n);
        put(&sink, &value, 1);
    }
    return sink.n;
}

/* ---- a text ---- */

/* The three passes that take blanks away where English has none. Each reads what the one before has written; gives the new
 * length. */
static size_t clean_before_marks(char *text, size_t n)
{
    size_t out = 1;
    for (size_t i = 1; i < n; i++) {
        bool blank = text[i - 1] == ' ';
        if (blank && (text[i] == '?' || text[i] == '!' || text[i] == '.' || text[i] == ','))
            out--;
        text[out++] = text[i];
    }
    return out;
}

/* " ' " loses both blanks; the second is then no blank before what follows. */
static size_t clean_around_quotes(char *text, size_t n)
{
    size_t out = 1;
    bool blank = text[0] == ' ';
    for (size_t i = 1; i < n; i++) {
        char c = text[i];
        if (c == '\'' && blank && i + 1 < n && text[i + 1] == ' ') {
            out--;
            text[out++] = c;
            i++;
            blank = false;
            continue;
        }
        blank = c == ' ';
        text[out++] = c;
    }
    return out;
}

static size_t clean_before_endings(char *text, size_t n)
{
    size_t out = 1;
    bool blank = text[0] == ' ';
    for (size_t i = 1; i < n; i++) {
        char c = text[i];
        if (c == '\'' && blank && i + 1 < n) {
            char a = text[i + 1], b = i + 2 < n ? text[i + 2] : '\0';
            if (a == 's' || a == 'm' || ((a == 'r' || a == 'v') && b == 'e'))
                out--;
        }
        blank = c == ' ';
        text[out++] = c;
    }
    return out;
}

static size_t clean_spaces(char *text, size_t n)
{
    n = n ? clean_before_marks(text, n) : 0;
    n = n ? clean_around_quotes(text, n) : 0;
    return n ? clean_before_endings(text, n) : 0;
}

bool tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool special, char **out, size_t *bytes,
                      struct quern_error *err)
{
    size_t total = 0;
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || (size_t)ids[i] >= t->size)
            return ERR(err, QUERN_EUSAGE, "token %d at place %zu is not in the vocabulary of %zu", ids[i], i, t->size);
        if (!checked_add(&total, total, tokenizer_piece(t, ids[i], special, NULL, 0)))
            return ERR(err, QUERN_EMEM, "the text of %zu tokens does not fit in memory", n);
    }
    size_t room;
    if (!checked_add(&room, total, 1))
        return ERR(err, QUERN_EMEM, "the text of %zu tokens does not fit in memory", n);
    char *text = mem_take(room, 1, "the text of tokens", err);
    if (!text)
        return false;
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        size_t start = used;
        used += tokenizer_piece(t, ids[i], special, text + used, total - used);
        /* The blank that encoding has put before the text. */
        if (i == 0 && t->space_prefix && used > start && text[start] == ' ')
            memmove(text, text + 1, --used);
    }
    if (t->clean_spaces)
        used = clean_spaces(text, used);
    text[used] = '\0';
    *out = text;
    *bytes = used;
    return true;
}
