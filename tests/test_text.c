/* Growing text, and the numbers and strings that are written as JSON. */
#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "test.h"
#include "text.h"

static void check_number(double value, const char *expected)
{
    struct text t = { 0 };
    text_add_number(&t, value);
    CHECK(!strcmp(t.data, expected), "%s, expected %s", t.data, expected);
    text_free(&t);
}

static void test_numbers(void)
{
    check_number(0, "0");
    check_number(-3, "-3");
    check_number(0.1, "0.1");
    check_number(0.1f, "0.1");
    check_number(1.0 / 3, "0.3333333333333333");
    check_number(1.0f / 3, "0.33333334");
    check_number(123456789, "123456789");
    check_number(9007199254740991, "9007199254740991");
    check_number(1e300, "1e+300");
    check_number(5e-324, "5e-324");
    check_number(1.7976931348623157e308, "1.7976931348623157e+308");
    check_number(1e-45f, "1e-45");
    check_number(NAN, "null");
    check_number(-INFINITY, "null");
    uint64_t seed = 1;
    for (int i = 0; i < 20000; i++) {
        uint64_t bits = random_u64(&seed);
        double value;
        memcpy(&value, &bits, sizeof value);
        if (i % 2)
            value = (double)(float)value;
        struct text t = { 0 };
        text_add_number(&t, value);
        double back = strtod(t.data, NULL);
        CHECK(!isfinite(value) || back == value || (i % 2 && (float)back == (float)value), "%a became %s", value, t.data);
        text_free(&t);
    }
}

static void test_strings(void)
{
    static const char in[] = "a\"\\\n\x01\x7f\0\xc3\xa9\xff\xed\xa0\x80z";
    struct text t = { 0 };
    text_add_json(&t, in, sizeof in - 1);
    CHECK(!strcmp(t.data, "\"a\\\"\\\\\\n\\u0001\\u007f\\u0000\xc3\xa9\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdz\""), "%s",
          t.data);
    text_free(&t);
    text_addf(&t, "%500d|", 7);
    CHECK(t.n == 501 && t.data[499] == '7' && t.data[500] == '|', "a long format: %zu", t.n);
    text_free(&t);
}

/* With a language that writes a comma, numbers are read and written with a point all the same. */
static void test_locale(void)
{
    static const char *const names[] = { "de_DE.UTF-8", "de_DE.utf8", "de_DE", "fr_FR.UTF-8", "fr_FR.utf8", "it_IT.utf8" };
    bool found = false;
    for (size_t i = 0; i < sizeof names / sizeof *names && !found; i++)
        found = setlocale(LC_ALL, names[i]) && *localeconv()->decimal_point == ',';
    if (!found) {
        test_skip("test_locale", "no locale with a decimal comma is installed");
        return;
    }
    struct quern_error err;
    struct arena arena;
    arena_init(&arena, 0);
    const struct json *root = json_parse(&arena, "2.5", 3, "test", NULL, &err);
    CHECK(root && root->number == 2.5, "reading");
    check_number(2.5, "2.5");
    struct text t = { 0 };
    text_addf(&t, "%.1f", 0.5);
    CHECK(!strcmp(t.data, "0.5"), "%s", t.data);
    text_free(&t);
    arena_free(&arena);
    setlocale(LC_ALL, "C");
}

int main(void)
{
    TEST(test_numbers);
    TEST(test_strings);
    TEST(test_locale);
    return test_end();
}
