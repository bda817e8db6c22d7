#include "json.h"

#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "unicode.h"

enum { DEPTH_DEFAULT = 64, DEPTH_MOST = 512 };
#define BYTES_DEFAULT ((size_t)1 << 30)

struct parser {
    struct arena *arena;
    struct quern_error *err;
    const char *name;
    const char *text;         /* [n], no NUL promised */
    size_t n, at;
    size_t depth, depth_limit;
    struct json **pending;    /* children of the containers that are open, innermost last */
    size_t used, room;
    locale_t c_locale;        /* numbers have a point, whatever the user's language is */
};

/* "NAME: line 3, column 7 (byte 41): SENTENCE". Lines and columns are counted only now: errors happen once. */
static bool fail(struct parser *p, size_t at, enum quern_code code, const char *sentence)
{
    size_t line = 1, begin = 0;
    for (size_t i = 0; i < at; i++)
        if (p->text[i] == '\n') {
            line++;
            begin = i + 1;
        }
    return ERR(p->err, code, "%s: line %zu, column %zu (byte %zu): %s", p->name, line, at - begin + 1, at, sentence);
}

static void skip_blanks(struct parser *p)
{
    while (p->at < p->n && (p->text[p->at] == ' ' || p->text[p->at] == '\n' || p->text[p->at] == '\r' || p->text[p->at] == '\t'))
        p->at++;
}

/* ---- strings ---------------------------------------------------------------------------------------------------- */

/* Four hex digits at `at`, or -1. */
static int32_t hex4(const struct parser *p, size_t at)
{
    if (p->n - at < 4)
        return -1;
    int32_t value = 0;
    for (size_t i = 0; i < 4; i++) {
        char c = p->text[at + i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* The escape that begins at p->at (a backslash): its bytes to `out`, at most 4. */
static bool parse_escape(struct parser *p, char *out, size_t *length)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    size_t at = p->at;
    if (at + 1 >= p->n)
        return fail(p, at, QUERN_EFORMAT, "the text ends inside a string");
    char c = p->text[at + 1];
    const char *simple = c ? strchr(from, c) : NULL;
    if (simple) {
        out[0] = to[simple - from];
        *length = 1;
        p->at += 2;
        return true;
    }
    if (c != 'u')
        return fail(p, at, QUERN_EFORMAT, "unknown escape in a string");
    int32_t unit = hex4(p, at + 2);
    if (unit < 0)
        return fail(p, at, QUERN_EFORMAT, "\\u wants four hex digits");
    p->at += 6;
    if (unit >= 0xd800 && unit < 0xe000) {
        int32_t second = -1;
        if (unit < 0xdc00 && p->n - p->at >= 6 && p->text[p->at] == '\\' && p->text[p->at + 1] == 'u')
            second = hex4(p, p->at + 2);
        if (second < 0xdc00 || second >= 0xe000)
            return fail(p, at, QUERN_EFORMAT, "half of a surrogate pair stands alone");
        unit = 0x10000 + ((unit - 0xd800) << 10) + (second - 0xdc00);
        p->at += 6;
    }
    *length = unicode_encode((uint32_t)unit, out);
    return true;
}

/* A string at p->at (its opening quote): decoded into the arena. Decoding never makes a string longer, so the room up to the
 * closing quote is enough. */
static bool parse_string(struct parser *p, const char **text, size_t *n)
{
    size_t begin = p->at, end = begin + 1;
    while (end < p->n && p->text[end] != '"')
        end += p->text[end] == '\\' ? 2 : 1;
    if (end >= p->n)
        return fail(p, begin, QUERN_EFORMAT, "this string does not end");
    char *out = arena_take(p->arena, end - begin, 1, "a JSON string", p->err);
    if (!out)
        return false;
    size_t used = 0;
    p->at = begin + 1;
    while (p->at < end) {
        unsigned char c = (unsigned char)p->text[p->at];
        if (c == '\\') {
            size_t length = 0;
            if (!parse_escape(p, out + used, &length))
                return false;
            used += length;
            continue;
        }
        if (c < 0x20)
            return fail(p, p->at, QUERN_EFORMAT, "a control character in a string must be written as an escape");
        size_t length = unicode_valid(p->text + p->at, end - p->at);
        if (!length)
            return fail(p, p->at, QUERN_EFORMAT, "invalid UTF-8 in a string");
        memcpy(out + used, p->text + p->at, length);
        used += length;
        p->at += length;
    }
    p->at = end + 1;
    *text = out;
    *n = used;
    return true;
}

/* ---- numbers ---------------------------------------------------------------------------------------------------- */

static size_t digits_at(const struct parser *p, size_t at)
{
    size_t n = 0;
    while (at + n < p->n && p->text[at + n] >= '0' && p->text[at + n] <= '9')
        n++;
    return n;
}

/* End of the number that begins at p->at by RFC 8259's grammar, or 0. *integral: it has neither fraction nor exponent. */
static size_t number_end(const struct parser *p, bool *integral)
{
    size_t at = p->at;
    if (p->text[at] == '-')
        at++;
    size_t digits = digits_at(p, at);
    if (!digits || (digits > 1 && p->text[at] == '0'))
        return 0;
    at += digits;
    *integral = true;
    if (at < p->n && p->text[at] == '.') {
        digits = digits_at(p, at + 1);
        if (!digits)
            return 0;
        at += 1 + digits;
        *integral = false;
    }
    if (at < p->n && (p->text[at] == 'e' || p->text[at] == 'E')) {
        at++;
        if (at < p->n && (p->text[at] == '+' || p->text[at] == '-'))
            at++;
        digits = digits_at(p, at);
        if (!digits)
            return 0;
        at += digits;
        *integral = false;
    }
    return at;
}

static bool parse_number(struct parser *p, struct json *node)
{
    size_t begin = p->at, end = number_end(p, &node->integral);
    if (!end)
        return fail(p, begin, QUERN_EFORMAT, "not a number as JSON writes them");
    /* strtod wants a NUL behind the number, which the text need not have. */
    char small[64], *copy = end - begin < sizeof small ? small : mem_take(end - begin + 1, 1, "a long JSON number", p->err);
    if (!copy)
        return false;
    memcpy(copy, p->text + begin, end - begin);
    copy[end - begin] = '\0';
    node->type = JSON_NUMBER;
    node->number = strtod_l(copy, NULL, p->c_locale);
    if (copy != small)
        free(copy);
    if (!isfinite(node->number))
        return fail(p, begin, QUERN_EFORMAT, "this number is beyond the range of a double");
    bool negative = p->text[begin] == '-';
    for (size_t i = begin + negative; node->integral && i < end; i++) {
        int digit = p->text[i] - '0';
        node->integral = !__builtin_mul_overflow(node->integer, 10, &node->integer) &&
                         !__builtin_add_overflow(node->integer, negative ? -digit : digit, &node->integer);
    }
    if (!node->integral)
        node->integer = 0;
    p->at = end;
    return true;
}

/* ---- containers ------------------------------------------------------------------------------------------------- */

static bool parse_value(struct parser *p, struct json *node);

static bool push(struct parser *p, struct json *child)
{
    if (p->used == p->room) {
        size_t room = p->room ? p->room * 2 : 256, bytes;
        struct json **grown = checked_mul(&bytes, room, sizeof *grown) ? realloc(p->pending, bytes) : NULL;
        if (!grown)
            return ERR(p->err, QUERN_EMEM, "%s: not enough memory for %zu JSON values", p->name, room);
        p->pending = grown;
        p->room = room;
    }
    p->pending[p->used++] = child;
    return true;
}

static int by_key(const void *a, const void *b)
{
    const struct json *x = *(struct json *const *)a, *y = *(struct json *const *)b;
    if (x->key_n != y->key_n)
        return x->key_n < y->key_n ? -1 : 1;
    return memcmp(x->key, y->key, x->key_n);
}

/* Sorting, unlike hashing, has no bad case that a file could aim at: 10^6 members take n log n. The order of `pending` is
 * spoiled, so the caller has copied it. */
static bool check_unique(struct parser *p, size_t first, size_t begin)
{
    size_t n = p->used - first;
    if (n < 2)
        return true;
    qsort(p->pending + first, n, sizeof *p->pending, by_key);
    for (size_t i = first + 1; i < p->used; i++)
        if (!by_key(&p->pending[i - 1], &p->pending[i])) {
            char shown[80], sentence[160];
            text_escape(shown, sizeof shown, p->pending[i]->key, p->pending[i]->key_n);
            snprintf(sentence, sizeof sentence, "this object has the key \"%s\" twice", shown);
            return fail(p, begin, QUERN_EFORMAT, sentence);
        }
    return true;
}

/* One member or element: [key :] value, pushed. */
static bool parse_child(struct parser *p, bool object)
{
    struct json *child = arena_take(p->arena, 1, sizeof *child, "a JSON value", p->err);
    if (!child)
        return false;
    if (object) {
        if (p->at >= p->n || p->text[p->at] != '"')
            return fail(p, p->at, QUERN_EFORMAT, "expected a key in quotes");
        if (!parse_string(p, &child->key, &child->key_n))
            return false;
        skip_blanks(p);
        if (p->at >= p->n || p->text[p->at] != ':')
            return fail(p, p->at, QUERN_EFORMAT, "expected ':' after a key");
        p->at++;
        skip_blanks(p);
    }
    return parse_value(p, child) && push(p, child);
}

static bool parse_container(struct parser *p, struct json *node)
{
    bool object = p->text[p->at] == '{';
    char close = object ? '}' : ']';
    size_t begin = p->at++, first = p->used;
    if (p->depth == p->depth_limit)
        return fail(p, begin, QUERN_ELIMIT, "nested deeper than the limit");
    p->depth++;
    skip_blanks(p);
    bool more = p->at < p->n && p->text[p->at] != close;
    while (more) {
        if (!parse_child(p, object))
            return false;
        skip_blanks(p);
        more = p->at < p->n && p->text[p->at] == ',';
        if (more) {
            p->at++;
            skip_blanks(p);
        }
    }
    if (p->at >= p->n)
        return fail(p, begin, QUERN_EFORMAT, object ? "this object does not end" : "this array does not end");
    if (p->text[p->at] != close)
        return fail(p, p->at, QUERN_EFORMAT, object ? "expected ',' or '}'" : "expected ',' or ']'");
    p->at++;
    p->depth--;
    node->type = object ? JSON_OBJECT : JSON_ARRAY;
    node->n = p->used - first;
    node->items = arena_take(p->arena, node->n, sizeof *node->items, "JSON values", p->err);
    if (!node->items)
        return false;
    if (node->n)
        memcpy(node->items, p->pending + first, node->n * sizeof *node->items);
    bool ok = !object || check_unique(p, first, begin);
    p->used = first;
    return ok;
}

static bool parse_word(struct parser *p, struct json *node)
{
    static const struct { const char *word; enum json_type type; bool boolean; } words[] = {
        { "null", JSON_NULL, false }, { "true", JSON_BOOL, true }, { "false", JSON_BOOL, false },
    };
    for (size_t i = 0; i < 3; i++) {
        size_t n = strlen(words[i].word);
        if (p->n - p->at >= n && !memcmp(p->text + p->at, words[i].word, n)) {
            node->type = words[i].type;
            node->boolean = words[i].boolean;
            p->at += n;
            return true;
        }
    }
    return fail(p, p->at, QUERN_EFORMAT, "expected a JSON value");
}

static bool parse_value(struct parser *p, struct json *node)
{
    if (p->at >= p->n)
        return fail(p, p->at, QUERN_EFORMAT, "the text ends where a value is expected");
    char c = p->text[p->at];
    if (c == '{' || c == '[')
        return parse_container(p, node);
    if (c == '"') {
        node->type = JSON_STRING;
        return parse_string(p, &node->text, &node->n);
    }
    if (c == '-' || (c >= '0' && c <= '9'))
        return parse_number(p, node);
    return parse_word(p, node);
}

struct json *json_parse(struct arena *arena, const char *text, size_t n, const char *name, const struct json_limits *limits,
                        struct quern_error *err)
{
    size_t depth = limits && limits->depth ? limits->depth : DEPTH_DEFAULT;
    size_t bytes = limits && limits->bytes ? limits->bytes : BYTES_DEFAULT;
    struct parser p = { .arena = arena, .err = err, .name = name, .text = text, .n = n,
                        .depth_limit = depth < DEPTH_MOST ? depth : DEPTH_MOST };
    if (n > bytes) {
        ERR(err, QUERN_ELIMIT, "%s: %zu bytes of JSON, at most %zu are read", name, n, bytes);
        return NULL;
    }
    struct json *root = arena_take(arena, 1, sizeof *root, "a JSON value", err);
    if (!root)
        return NULL;
    p.c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (!p.c_locale) {
        ERR(err, QUERN_EMEM, "not enough memory for the C locale");
        return NULL;
    }
    skip_blanks(&p);
    bool ok = parse_value(&p, root);
    if (ok) {
        skip_blanks(&p);
        ok = p.at == n || fail(&p, p.at, QUERN_EFORMAT, "something follows the end of the document");
    }
    freelocale(p.c_locale);
    free(p.pending);
    return ok ? root : NULL;
}

const struct json *json_get(const struct json *object, const char *key)
{
    if (!object || object->type != JSON_OBJECT)
        return NULL;
    size_t n = strlen(key);
    for (size_t i = 0; i < object->n; i++)
        if (object->items[i]->key_n == n && !memcmp(object->items[i]->key, key, n))
            return object->items[i];
    return NULL;
}
