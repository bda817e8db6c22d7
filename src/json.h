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

#endif
