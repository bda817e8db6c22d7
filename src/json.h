/* json.h - a JSON document as a tree, for config.json, tokenizer.json, index files and requests.
 *
 * Hostile input is expected: depth and size are limited, numbers and UTF-8 are checked, duplicate keys, lone surrogates and
 * numbers beyond a double are refused. The tree lives in one arena, whose limit bounds the number of nodes (about 110 bytes
 * each, at most one per two bytes of input). RFC 8259. */
#ifndef QUERN_JSON_H
#define QUERN_JSON_H

#include "arena.h"
#include "error.h"

enum json_type { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

struct json {
    enum json_type type;
    bool           boolean;
    bool           integral;      /* a number written without '.', 'e', that fits int64 */
    int64_t        integer;
    double         number;
    const char    *text;          /* STRING: decoded UTF-8, NUL-terminated; may hold NULs, see n */
    size_t         n;             /* bytes of text, or children */
    struct json  **items;         /* ARRAY, OBJECT: children in order */
    const char    *key;           /* member's name when the parent is an object */
    size_t         key_n;
};

struct json_limits {
    size_t depth;                 /* 0: 64; at most 512 */
    size_t bytes;                 /* of input; 0: 1 GiB */
};

/* Parse the whole of `text`; anything but blanks after the value is an error. `name` stands for the file in messages, which name
 * byte, line and column. QUERN_EFORMAT, QUERN_EMEM, QUERN_ELIMIT. The tree lives in `arena` and does not refer to `text`. */
struct json *json_parse(struct arena *arena, const char *text, size_t n, const char *name, const struct json_limits *limits,
                        struct quern_error *err);
/* Member of an object; NULL when absent or not an object. */
const struct json *json_get(const struct json *object, const char *key);

/* ---- writing: appends to a growing buffer ---- */
struct text {                     /* a growing byte buffer; begin with {0}, end with text_free */
    char  *data;                  /* NUL-terminated once something was added */
    size_t n, capacity;
    bool   failed;                /* out of memory: later additions do nothing; check once at the end */
};
void text_add(struct text *t, const char *data, size_t n);
void text_addf(struct text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* "..." with escapes; invalid UTF-8 becomes U+FFFD. */
void text_add_json(struct text *t, const char *data, size_t n);
/* The shortest decimal that reads back as the same double, or as the same float when the value is one (0.1f gives 0.1); whole
 * numbers below 2^53 in full; null for NaN and Inf. Never a locale's comma (nor has text_addf). */
void text_add_number(struct text *t, double value);
void text_free(struct text *t);

#endif
