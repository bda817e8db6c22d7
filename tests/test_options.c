/* The option tables: what is accepted, what is refused with which words, and that everything the user reads names every option. */
#include "test.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "options.h"

struct inner { float temperature; int32_t top_k; };
struct settings {
    struct args args;
    bool        verbose;
    const char *model;
    size_t      threads, memory;
    int         kv;
    uint64_t    seed;
    struct option_texts  stops;
    struct option_counts sizes;
    struct inner inner;
    size_t      last;
};

static const struct option inner_options[] = {
    {.name = "temp", .kind = OPTION_REAL, .offset = offsetof(struct inner, temperature), .arg = "T", .fallback = "0.8",
     .help = "how random"},
    {.name = "top-k", .kind = OPTION_INT, .offset = offsetof(struct inner, top_k), .arg = "K", .fallback = "40",
     .help = "how many"},
    {0}
};
static const struct option table[] = {
    {.name = "model", .letter = 'm', .kind = OPTION_OPERAND, .offset = offsetof(struct settings, model), .arg = "FILE",
     .help = "the model"},
    {.name = "verbose", .kind = OPTION_SWITCH, .offset = offsetof(struct settings, verbose), .help = "say more"},
    {.name = "threads", .letter = 't', .kind = OPTION_COUNT, .offset = offsetof(struct settings, threads), .arg = "N",
     .help = "threads"},
    {.name = "mem-limit", .kind = OPTION_BYTES, .offset = offsetof(struct settings, memory), .arg = "SIZE", .fallback = "0",
     .help = "limit"},
    {.name = "kv", .kind = OPTION_CHOICE, .offset = offsetof(struct settings, kv), .arg = "TYPE", .fallback = "f16",
     .choices = "f32|f16|q8_0", .help = "cache type"},
    {.name = "seed", .letter = 's', .kind = OPTION_SEED, .offset = offsetof(struct settings, seed), .arg = "N", .fallback = "0",
     .help = "seed"},
    {.name = "stop", .kind = OPTION_TEXTS, .offset = offsetof(struct settings, stops), .arg = "TEXT", .help = "stop there"},
    {.name = "sizes", .kind = OPTION_COUNTS, .offset = offsetof(struct settings, sizes), .arg = "N,..", .fallback = "1,2",
     .help = "sizes"},
    {.name = "sampling", .kind = OPTION_GROUP, .offset = offsetof(struct settings, inner), .group = inner_options,
     .help = "Sampling"},
    {.name = "last", .kind = OPTION_COUNT, .offset = offsetof(struct settings, last), .arg = "N", .help = "after a group",
     .alias = "final"},
    {0}
};
static const struct verb verb = {
    .name = "try", .summary = "try things", .operands = "[FILE]", .operands_max = 1, .surplus = "name the second", .options = table,
    .size = sizeof(struct settings)
};
static const struct verb *const verbs[] = {&verb};
static const struct program program = {.name = "tester", .summary = "a test", .verbs = verbs, .count = 1};

/* Split at '|' and parse. */
static bool parse(struct settings *s, const char *line, struct quern_error *err)
{
    static char copy[4096];
    char *argv[64] = {copy};
    int argc = 1;
    snprintf(copy, sizeof copy, "try%s%s", *line ? "|" : "", line);
    for (char *p = copy; (p = strchr(p, '|')) && argc < 63;) {
        *p++ = 0;
        argv[argc++] = p;
    }
    return options_parse(&verb, argc, argv, s, err);
}

static void test_defaults(void)
{
    struct settings s;
    struct quern_error err = {0};
    CHECK(parse(&s, "", &err), "%s", err.text);
    CHECK(!s.model && !s.verbose && s.threads == 0 && s.memory == 0 && s.kv == 1 && s.seed == 0 && s.stops.count == 0,
          "plain ones");
    CHECK(s.sizes.count == 2 && s.sizes.items[1] == 2 && s.inner.top_k == 40 && s.inner.temperature == 0.8f, "parsed ones");
    CHECK(!options_given(&verb, &s, "kv"), "nothing was given");
    options_free(&verb, &s);
}

static void test_all_forms(void)
{
    struct settings s;
    struct quern_error err = {0};
    CHECK(parse(&s, "-m|a.gguf|--threads=4|--kv|q8_0|-s18446744073709551615|--stop|x|--stop=y|--stop|-z|--temp=-1.5|--mem-limit|3G|"
                    "--sizes=4,8,16|--verbose|--final|7|--|-x", &err), "%s", err.text);
    CHECK(s.model && !strcmp(s.model, "a.gguf") && s.threads == 4 && s.kv == 2 && s.seed == UINT64_MAX && s.verbose && s.last == 7,
          "values");
    CHECK(s.stops.count == 3 && !strcmp(s.stops.items[2], "-z"), "%zu stops", s.stops.count);
    CHECK(s.memory == (size_t)3 << 30 && s.sizes.count == 3 && s.sizes.items[2] == 16 && s.inner.temperature == -1.5f, "numbers");
    CHECK(s.args.operand_count == 1 && !strcmp(s.args.operands[0], "-x"), "after --");
    CHECK(options_given(&verb, &s, "temp") && !options_given(&verb, &s, "top-k") && options_given(&verb, &s, "last"), "given");
    options_free(&verb, &s);
}

/* A dash alone is standard input, a word like others. */
static void test_dash(void)
{
    struct settings s;
    struct quern_error err = {0};
    CHECK(parse(&s, "-|-t|3", &err) && s.args.operand_count == 1 && !strcmp(s.args.operands[0], "-") && s.threads == 3, "%s",
          err.text);
    options_free(&verb, &s);
}

/* Sizes as people write them and as quern prints them. */
static void test_sizes(void)
{
    static const struct { const char *word; size_t bytes; } cases[] = {
        {"0", 0}, {"12345", 12345}, {"12B", 12}, {"4K", 4096}, {"4k", 4096}, {"1KiB", 1024}, {"2MB", 2097152}, {"0.5K", 512},
        {"4.5G", (size_t)9 << 29}, {"1.25MiB", 1310720}, {"0.000001K", 0}, {"3.999999K", 4095}, {"1.999999T", 2199022156040},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct settings s;
        struct quern_error err = {0};
        char line[64];
        snprintf(line, sizeof line, "--mem-limit=%s", cases[i].word);
        CHECK(parse(&s, line, &err) && s.memory == cases[i].bytes, "%s: %zu %s", line, s.memory, err.text);
        options_free(&verb, &s);
    }
}

static void test_refusals(void)
{
    static const struct { const char *line, *says;
    } cases[] = {
        {"--thread=4", "did you mean '--threads'"},
        {"--tmep|1", "did you mean '--temp'"},
        {"--temperature|1", "did you mean '--temp'"},
        {"--xyzzy", "unknown option '--xyzzy'"},
        {"--=1", "unknown option"},
        {"--threadsxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "did you mean '--threads'"},
        {"--xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "--help lists them"},
        {"-q", "unknown option '-q'"},
        {"-tgl|99", "unknown option '-tgl'"},
        {"-t=gl", "--threads: 'gl' is not a number"},
        {"--threads", "--threads needs an argument"},
        {"--threads=", "'' is not a number"},
        {"--threads=-1", "'-1' is not a number"},
        {"--threads=1x", "not a number"},
        {"--threads=18446744073709551616", "not a number"},
        {"--threads= 1", "not a number"},
        {"--temp=nan", "not a finite number"},
        {"--temp=inf", "not a finite"},
        {"--temp=-inf", "not a finite"},
        {"--temp=1e60", "not a finite"},
        {"--temp=0x10", "not a finite"},
        {"--temp=1,5", "not a finite"},
        {"--temp=+nan", "not a finite"},
        {"--top-k=1.5", "not a whole number"},
        {"--top-k=\n5", "not a whole number"},
        {"--top-k=", "not a whole number"},
        {"--top-k=3000000000", "not a whole number"},
        {"--kv=q9", "one of f32|f16|q8_0"},
        {"--kv=f", "one of"},
        {"--seed=-1", "or 'random'"},
        {"--sizes=1,,2", "list of numbers"},
        {"--sizes=", "list of numbers"},
        {"--sizes=1,", "list of numbers"},
        {"--mem-limit=17179869184G", "number of bytes"},
        {"--mem-limit=4X", "number of bytes"},
        {"--mem-limit=4.5", "number of bytes"},
        {"--mem-limit=4.G", "number of bytes"},
        {"--mem-limit=.5G", "number of bytes"},
        {"--mem-limit=1.1234567G", "number of bytes"},
        {"--mem-limit=1.5.5G", "number of bytes"},
        {"--verbose=1", "takes no argument"},
        {"a|b", "one argument too many: 'b' (try [FILE]; name the second)"},
        {"--\033[2J", "unknown option '--\\x1B[2J'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct settings s;
        struct quern_error err = {0};
        CHECK(!parse(&s, cases[i].line, &err), "%s was accepted", cases[i].line);
        CHECK(err.code == QUERN_EUSAGE && strstr(err.text, cases[i].says), "%s: %d %s", cases[i].line, err.code, err.text);
        options_free(&verb, &s);
    }
}

/* What --verbose prints: each value and where it came from. */
static void test_settings(void)
{
    static const struct { const char *line, *says; } cases[] = {
        {"a.gguf|--kv=q8_0", "model = 'a.gguf' (operand)\nverbose = no (default)\n"},
        {"-m|b.gguf", "model = 'b.gguf' (flag)\n"},
        {"", "model = none (default)\n"},
        {"--kv=q8_0|--mem-limit=1K", "mem-limit = 1024 (flag)\nkv = q8_0 (flag)\nseed = 0 (default)\nstop = 0 given (default)\n"},
        {"--sizes=4,5", "sizes = 4,5 (flag)\ntemp = 0.8 (default)\ntop-k = 40 (model)\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        static const char *const from_model[] = {"top-k"};
        struct settings s;
        struct quern_error err = {0};
        char *text = NULL;
        size_t bytes;
        FILE *out = open_memstream(&text, &bytes);
        CHECK(parse(&s, cases[i].line, &err), "%s", err.text);
        options_settings(out, &verb, &s, from_model, 1);
        fclose(out);
        CHECK(strstr(text, cases[i].says), "%s: no '%s' in:\n%s", cases[i].line, cases[i].says, text);
        options_free(&verb, &s);
        free(text);
    }
}

static void test_random_seed_and_help(void)
{
    struct settings a, b;
    struct quern_error err = {0};
    CHECK(parse(&a, "--seed=random", &err) && parse(&b, "-s|random", &err) && a.seed != b.seed, "two random seeds");
    options_free(&verb, &a);
    options_free(&verb, &b);
    CHECK(parse(&a, "--nonsense|-h", &err) && a.args.help, "help goes before errors");
    options_free(&verb, &a);
}

static void test_ten_thousand_stops(void)
{
    enum { N = 10000 };
    char **argv = calloc(2 * N + 1, sizeof *argv);
    struct settings s;
    struct quern_error err = {0};
    char name[] = "try", flag[] = "--stop", text[] = "word";
    argv[0] = name;
    for (size_t i = 0; i < N; i++)
        argv[1 + 2 * i] = flag, argv[2 + 2 * i] = text;
    CHECK(options_parse(&verb, 2 * N + 1, argv, &s, &err) && s.stops.count == N, "%s", err.text);
    options_free(&verb, &s);
    free(argv);
}

/* Every option is in the help, the manual and the three completions. */
static void test_everything_names_every_option(void)
{
    static const char *const kinds[] = {"help", "man", "bash", "zsh", "fish"};
    for (size_t k = 0; k < 5; k++) {
        char *text = NULL;
        size_t bytes, offset;
        const char *heading;
        FILE *out = open_memstream(&text, &bytes);
        if (k == 0)
            options_help(out, &program, &verb);
        else if (k == 1)
            options_manual(out, &program);
        else
            CHECK(options_completion(out, &program, kinds[k]), "%s", kinds[k]);
        fclose(out);
        struct option_walk walk = {0};
        size_t options = 0;
        for (const struct option *o; (o = options_next(&verb, &walk, &offset, &heading)); options++) {
            char look[64] = "";
            const char *dashes = k == 1 ? "\\-\\-" : k == 4 ? "-l " : "--";
            snprintf(look, sizeof look, "%s%s", dashes, o->name);
            CHECK(strstr(text, look), "%s does not name %s", kinds[k], look);
        }
        CHECK(options == 11, "%zu options", options);
        free(text);
    }
    CHECK(!options_completion(stdout, &program, "tcsh"), "unknown shell");
}

int main(void)
{
    TEST(test_defaults);
    TEST(test_all_forms);
    TEST(test_dash);
    TEST(test_sizes);
    TEST(test_refusals);
    TEST(test_settings);
    TEST(test_random_seed_and_help);
    TEST(test_ten_thousand_stops);
    TEST(test_everything_names_every_option);
    return test_end();
}
