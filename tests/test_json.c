#include "json.h"
#include "test.h"
#include "text.h"

#include <stdlib.h>
#include <string.h>

/* Text with its length, so that NULs may stand in it. */
#define DOC(text) { text, sizeof(text) - 1 }
struct doc { const char *text; size_t n; };

static const struct doc good[] = {
    DOC("null"), DOC(" true "), DOC("false"), DOC("0"), DOC("-0"), DOC("[]"), DOC("{}"), DOC("\t[ ]\r\n"), DOC("\"\""),
    DOC("1"), DOC("-12.5e+3"), DOC("1E-2"), DOC("0.1"), DOC("0e0"), DOC("1e-999"), DOC("123456789012345678901234567890"),
    DOC("[1,2,3]"), DOC("{\"a\":1,\"b\":[{}]}"), DOC("{\"\":0}"), DOC("\"\\u0000\""), DOC("\"\\ud83d\\ude00\""),
    DOC("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\""), DOC("\"\x7f\""), DOC("\"\xc3\xa9\""), DOC("\"\xf4\x8f\xbf\xbf\""),
    DOC("{\"a\":{\"a\":{\"a\":null}}}"), DOC("[[1],[1]]"), DOC("\"\xed\x9f\xbf\""), DOC("\"\\uffff\""),
};

static const struct doc bad[] = {
    DOC(""), DOC(" "), DOC("nul"), DOC("nulll"), DOC("True"), DOC("NaN"), DOC("Infinity"), DOC("-Infinity"), DOC("-"), DOC("+1"),
    DOC("01"), DOC("-01"), DOC("1."), DOC(".5"), DOC("1e"), DOC("1e+"), DOC("0x10"), DOC("1_0"), DOC("1 2"), DOC("1e999"),
        DOC("-1e999"),
    DOC("["), DOC("]"), DOC("[1"), DOC("[1,"), DOC("[1,]"), DOC("[,1]"), DOC("[1 2]"), DOC("[1}"), DOC("{"), DOC("}"),
        DOC("{\"a\""),
    DOC("{\"a\":"), DOC("{\"a\":1"), DOC("{\"a\":1,"), DOC("{\"a\":1,}"), DOC("{\"a\" 1}"), DOC("{a:1}"), DOC("{'a':1}"),
        DOC("{1:1}"),
    DOC("{,}"), DOC("{\"a\":1]"), DOC("\""), DOC("\"\\"), DOC("\"\\\""), DOC("\"\\x41\""), DOC("\"\\u12\""), DOC("\"\\u12g4\""),
    DOC("\"\\ud800\""), DOC("\"\\udc00\""), DOC("\"\\ud800\\u0041\""), DOC("\"\\ud800\\ud800\""), DOC("\"\\udc00\\ud800\""),
    DOC("\"\\ud800\"\\udc00"), DOC("\"\n\""), DOC("\"\t\""), DOC("\"\0\""), DOC("\0"), DOC("[]\0"), DOC("\xef\xbb\xbf[]"),
    DOC("\"\x80\""), DOC("\"\xc0\x80\""), DOC("\"\xc3\""), DOC("\"\xe0\x80\x80\""), DOC("\"\xed\xa0\x80\""),
        DOC("\"\xf5\x80\x80\x80\""),
    DOC("\"\xf4\x90\x80\x80\""), DOC("\"\xff\""), DOC("[\"\xc3\"]"), DOC("[1]//x"), DOC("/* */1"), DOC("{\"a\":1,\"a\":2}"),
    DOC("{\"a\":1,\"b\":2,\"\\u0061\":3}"), DOC("[{\"x\":{\"k\":1,\"k\":1}}]"), DOC("\f1"), DOC("\xc2\xa0" "1"), DOC("tru"),
        DOC("[tru]"),
};

/* Parse from a block of exactly n bytes, so that a read past the end is seen by the sanitizer. */
static bool parse(struct arena *arena, const char *text, size_t n, const struct json_limits *limits, struct json **root,
                  struct quern_error *err)
{
    char *exact = malloc(n ? n : 1);
    if (n)
        memcpy(exact, text, n);
    *root = json_parse(arena, exact, n, "doc", limits, err);
    free(exact);
    return *root != NULL;
}

static void test_tables(void)
{
    struct quern_error err;
    struct json *root;
    struct arena arena;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        arena_init(&arena, 0);
        CHECK(parse(&arena, good[i].text, good[i].n, NULL, &root, &err), "good %zu '%s': %s", i, good[i].text, err.text);
        arena_free(&arena);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        arena_init(&arena, 0);
        bool accepted = parse(&arena, bad[i].text, bad[i].n, NULL, &root, &err);
        CHECK(!accepted, "bad %zu '%s' was accepted", i, bad[i].text);
        CHECK(accepted || (err.code == QUERN_EFORMAT && strstr(err.text, "doc: line ")), "bad %zu: code %d, %s", i, err.code,
              err.text);
        arena_free(&arena);
    }
}

static void test_tree(void)
{
    static const char text[] = "{\"n\":-7,\"x\":2.5,\"s\":\"a\\u0000\\ud83d\\ude00\",\"list\":[1,[2],true,null],"
        "\"big\":9223372036854775808,"
                               "\"least\":-9223372036854775808,\"e\":1e2}";
    struct quern_error err;
    struct arena arena;
    struct json *root;
    arena_init(&arena, 0);
    if (!parse(&arena, text, sizeof text - 1, NULL, &root, &err)) {
        CHECK(false, "%s", err.text);
        return;
    }
    const struct json *n = json_get(root, "n"), *x = json_get(root, "x"), *s = json_get(root, "s"), *list = json_get(root, "list");
    CHECK(root->type == JSON_OBJECT && root->n == 7, "%zu members", root->n);
    CHECK(n && n->integral && n->integer == -7 && n->number == -7, "n");
    CHECK(x && !x->integral && x->number == 2.5, "x");
    CHECK(s && s->n == 6 && !memcmp(s->text, "a\0\xf0\x9f\x98\x80", 7), "s");
    CHECK(list && list->n == 4 && list->items[1]->type == JSON_ARRAY && list->items[1]->items[0]->integer == 2, "list");
    CHECK(list->items[2]->boolean && list->items[3]->type == JSON_NULL, "list");
    const struct json *big = json_get(root, "big"), *least = json_get(root, "least"), *e = json_get(root, "e");
    CHECK(big && !big->integral && big->number == 9223372036854775808.0, "big");
    CHECK(least && least->integral && least->integer == INT64_MIN, "least");
    CHECK(e && !e->integral && e->number == 100, "e");
    CHECK(!json_get(root, "absent") && !json_get(list, "n") && !json_get(NULL, "n"), "what is not there");
    arena_free(&arena);
}

static void test_place_of_an_error(void)
{
    static const char text[] = "{\n  \"a\": 1,\n  \"b\": tru\n}";
    struct quern_error err;
    struct arena arena;
    struct json *root;
    arena_init(&arena, 0);
    CHECK(!parse(&arena, text, sizeof text - 1, NULL, &root, &err), "accepted");
    CHECK(strstr(err.text, "doc: line 3, column 8 (byte 19)"), "%s", err.text);
    arena_free(&arena);
}

/* 64 levels by default, at most 512 whatever the caller says, 10^6 brackets without a deep stack. */
static void test_depth(void)
{
    static const struct { size_t levels, limit; bool ok; } cases[] = {
        { 64, 0, true }, { 65, 0, false }, { 10, 10, true }, { 11, 10, false }, { 512, 100000, true }, { 513, 100000, false },
        { 1000000, 0, false },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int object = 0; object < 2; object++) {
            struct quern_error err = { 0 };
            struct arena arena;
            struct json *root;
            struct text t = { 0 };
            for (size_t k = 0; k < cases[i].levels; k++)
                text_add(&t, object ? "{\"k\":" : "[", object ? 5 : 1);
            text_add(&t, "1", 1);
            for (size_t k = 0; k < cases[i].levels; k++)
                text_add(&t, object ? "}" : "]", 1);
            arena_init(&arena, 0);
            bool ok = parse(&arena, t.data, t.n, &(struct json_limits){ .depth = cases[i].limit }, &root, &err);
            CHECK(ok == cases[i].ok, "%zu levels: %s", cases[i].levels, err.text);
            CHECK(ok || err.code == QUERN_ELIMIT, "%zu levels: %s", cases[i].levels, err.text);
            arena_free(&arena);
            text_free(&t);
        }
}

static void test_limits(void)
{
    struct quern_error err;
    struct arena arena;
    struct json *root;
    arena_init(&arena, 0);
    CHECK(!parse(&arena, "[1,2,3]", 7, &(struct json_limits){ .bytes = 6 }, &root, &err) && err.code == QUERN_ELIMIT, "bytes");
    CHECK(parse(&arena, "[1,2,3]", 7, &(struct json_limits){ .bytes = 7 }, &root, &err), "bytes");
    arena_free(&arena);
    struct text t = { 0 };
    text_add(&t, "[0", 2);
    for (int i = 0; i < 100000; i++)
        text_add(&t, ",0", 2);
    text_add(&t, "]", 1);
    arena_init(&arena, 1 << 20);
    CHECK(!parse(&arena, t.data, t.n, NULL, &root, &err) && err.code == QUERN_EMEM, "the arena's limit bounds the nodes");
    arena_free(&arena);
    text_free(&t);
}

/* A million members, and among them one key twice: found, in n log n. */
static void test_many_members(void)
{
    for (int twice = 0; twice < 2; twice++) {
        struct quern_error err = { 0 };
        struct arena arena;
        struct json *root;
        struct text t = { 0 };
        text_add(&t, "{\"first\":1", 10);
        for (int i = 0; i < 300000; i++)
            text_addf(&t, ",\"%d\":%d", i, i);
        text_addf(&t, twice ? ",\"777\":0}" : ",\"last\":0}");
        arena_init(&arena, 0);
        bool ok = parse(&arena, t.data, t.n, NULL, &root, &err);
        CHECK(ok == !twice, "%s", err.text);
        CHECK(!twice || strstr(err.text, "\"777\" twice"), "%s", err.text);
        CHECK(twice || (root->n == 300002 && root->items[5]->integer == 4), "order is kept");
        arena_free(&arena);
        text_free(&t);
    }
}

static void test_long_numbers(void)
{
    struct quern_error err;
    struct arena arena;
    struct json *root;
    struct text t = { 0 };
    text_add(&t, "0.", 2);
    for (int i = 0; i < 100000; i++)
        text_add(&t, "3", 1);
    arena_init(&arena, 0);
    CHECK(parse(&arena, t.data, t.n, NULL, &root, &err) && root->number == 1.0 / 3, "100000 digits: %s", err.text);
    arena_free(&arena);
    t.n = 0;
    for (int i = 0; i < 400; i++)
        text_add(&t, "9", 1);
    arena_init(&arena, 0);
    CHECK(!parse(&arena, t.data, t.n, NULL, &root, &err) && err.code == QUERN_EFORMAT, "400 digits are beyond a double");
    arena_free(&arena);
    text_free(&t);
}

int main(void)
{
    TEST(test_tables);
    TEST(test_tree);
    TEST(test_place_of_an_error);
    TEST(test_depth);
    TEST(test_limits);
    TEST(test_many_members);
    TEST(test_long_numbers);
    return test_end();
}
