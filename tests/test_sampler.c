/* The sampler against a slow, obvious one; its draws against the probabilities; its edges. */
#include "test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sampler.h"

enum { VOCABULARY = 3000 };

struct slow { int32_t id; double logit, p; };

static int by_logit(const void *a, const void *b)
{
    const struct slow *x = a, *y = b;
    return x->logit != y->logit ? (x->logit < y->logit ? 1 : -1) : x->id - y->id;
}

static void normalize(struct slow *t, size_t n, double temperature)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += t[i].p = exp((t[i].logit - t[0].logit) / temperature);
    for (size_t i = 0; i < n; i++)
        t[i].p /= sum;
}

static double entropy_of;
static int by_typical(const void *a, const void *b)
{
    const struct slow *x = a, *y = b;
    double dx = fabs(-log(x->p) - entropy_of), dy = fabs(-log(y->p) - entropy_of);
    return dx != dy ? (dx > dy ? 1 : -1) : x->id - y->id;
}

static size_t reach(const struct slow *t, size_t n, double p)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        if ((sum += t[i].p) >= p)
            return i + 1;
    return n;
}

/* The chain as its papers say it: sort everything, cut, renormalise, cut again. */
static size_t slow_chain(struct slow *t, const float *logits, size_t n, const struct quern_sampler_options *o)
{
    for (size_t i = 0; i < n; i++)
        t[i] = (struct slow){(int32_t)i, logits[i], 0};
    qsort(t, n, sizeof *t, by_logit);
    if (o->top_k > 0 && (size_t)o->top_k < n)
        n = (size_t)o->top_k;
    normalize(t, n, 1);
    if (o->typical_p < 1) {
        entropy_of = 0;
        for (size_t i = 0; i < n; i++)
            entropy_of -= t[i].p * log(t[i].p);
        qsort(t, n, sizeof *t, by_typical);
        n = reach(t, n, o->typical_p);
        qsort(t, n, sizeof *t, by_logit);
        normalize(t, n, 1);
    }
    if (o->top_p < 1)
        n = reach(t, n, o->top_p);
    size_t kept = 0;
    while (kept < n && t[kept].p >= (double)o->min_p * t[0].p)
        kept++;
    normalize(t, kept, o->temperature);
    return kept;
}

static void fill(float *logits, size_t n, uint64_t seed)
{
    for (size_t i = 0; i < n; i++)
        logits[i] = random_float(&seed, -4, 4) + random_float(&seed, -3, 3) + random_float(&seed, -2, 2);
}

static void test_chain_against_slow_one(void)
{
    static const struct { int32_t k; float p, min, typical, temperature; } cases[] = {
        {40, 0.95f, 0.05f, 1, 0.8f}, {0, 0.9f, 0, 1, 1}, {0, 0.999f, 0, 1, 1.3f}, {0, 1, 0.02f, 1, 0.5f}, {0, 1, 0, 1, 1},
        {1, 1, 0, 1, 2}, {5, 0.3f, 0, 1, 1}, {0, 1, 0, 0.6f, 1}, {100, 0.9f, 0.01f, 0.8f, 0.7f}, {2999, 0.99f, 0, 1, 1},
        {1000000000, 0.5f, 0, 1, 1}, {0, 0.9999f, 0.3f, 0.95f, 1e30f}, {40, 0, 0, 1, 1}, {0, 0, 0, 1, 1}, {0, 1, 1, 1, 1},
        {0, 0.7f, 0, 0.9f, 1},
    };
    static float logits[VOCABULARY];
    static struct slow expected[VOCABULARY];
    static int32_t ids[VOCABULARY];
    static double probs[VOCABULARY];
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct quern_error err = {0};
        struct quern_sampler_options o;
        quern_default_sampler(&o);
        o.top_k = cases[c].k, o.top_p = cases[c].p, o.min_p = cases[c].min, o.typical_p = cases[c].typical;
        o.temperature = cases[c].temperature;
        fill(logits, VOCABULARY, 100 + c);
        struct quern_sampler *s = sampler_open(VOCABULARY, 512, NULL, &o, &err);
        CHECK(s != NULL, "%s", err.text);
        size_t n = slow_chain(expected, logits, VOCABULARY, &o), wrong = 0;
        size_t got = s ? sampler_distribution(s, logits, ids, probs, VOCABULARY, &err) : 0;
        CHECK(got == n, "case %zu: %zu candidates, expected %zu", c, got, n);
        double sum = 0;
        /* Without a sorting filter the ids come in order: look each up. */
        for (size_t i = 0; i < got && got == n; i++) {
            size_t j = i;
            while (j < n && expected[j].id != ids[i])
                j++;
            if (j == n)
                for (j = 0; j < n && expected[j].id != ids[i];)
                    j++;
            wrong += j == n || fabs(expected[j].p - probs[i]) > 1e-12;
            sum += probs[i];
        }
        CHECK(wrong == 0 && fabs(sum - 1) < 1e-9, "case %zu: %zu of %zu wrong, sum %g", c, wrong, got, sum);
        quern_close_sampler(s);
    }
}

/* Four equal tokens, of which half of the probability is exactly two; and eleven that are forbidden, which no filter lets in,
 * though top-k would have room for them. */
static void test_edges_of_the_filters(void)
{
    enum { N = 15, EQUAL = 4 };
    static const struct { int32_t k; float p, typical; size_t expected; } cases[] = {
        {0, 0.5f, 1, 2}, {12, 0.5f, 1, 2}, {12, 1, 1, EQUAL}, {0, 1, 1, EQUAL}, {0, 1, 0.5f, 2}, {0, 0.999f, 1, EQUAL},
    };
    float logits[N];
    for (size_t i = 0; i < N; i++)
        logits[i] = i % 4 == 1 ? 2 : -INFINITY;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct quern_error err = {0};
        struct quern_sampler_options o;
        int32_t ids[N];
        double probs[N];
        quern_default_sampler(&o);
        o.top_k = cases[c].k, o.top_p = cases[c].p, o.typical_p = cases[c].typical, o.min_p = 0;
        struct quern_sampler *s = sampler_open(N, 64, NULL, &o, &err);
        size_t got = s ? sampler_distribution(s, logits, ids, probs, N, &err) : 0;
        CHECK(got == cases[c].expected, "case %zu: %zu candidates, expected %zu: %s", c, got, cases[c].expected, err.text);
        for (size_t i = 0; i < got; i++)
            CHECK(ids[i] == (int32_t)(4 * i + 1), "case %zu: token %d", c, (int)ids[i]);
        quern_close_sampler(s);
    }
}

/* 100,000 draws from 12 tokens: chi-square with 11 degrees of freedom exceeds 31.3 once in 1000 seeds; the seed is fixed. */
static void test_draws_follow_the_distribution(void)
{
    enum { N = 12, DRAWS = 100000 };
    float logits[N];
    struct quern_error err = {0};
    struct quern_sampler_options o;
    quern_default_sampler(&o);
    o.top_k = 0, o.top_p = 1, o.min_p = 0, o.temperature = 1.5f, o.seed = 7;
    for (size_t i = 0; i < N; i++)
        logits[i] = 0.3f * (float)i;
    struct quern_sampler *s = sampler_open(N, 64, NULL, &o, &err);
    int32_t ids[N];
    double probs[N], chi = 0;
    size_t hits[N] = {0};
    CHECK(sampler_distribution(s, logits, ids, probs, N, &err) == N, "%s", err.text);
    for (size_t i = 0; i < DRAWS; i++)
        hits[quern_sample_token(s, logits, &err)]++;
    for (size_t i = 0; i < N; i++) {
        double expected = DRAWS * probs[i], d = (double)hits[ids[i]] - expected;
        chi += d * d / expected;
    }
    CHECK(chi > 1 && chi < 31.3, "chi-square %.2f", chi);
    quern_close_sampler(s);
}

/* The stream of a seed is part of the promise: the same on every machine. The first numbers are splitmix64's published ones for
 * seed 1234567 (6457827717110365317, ...), scaled to 1000 equal tokens. */
static void test_seed_gives_these_tokens(void)
{
    static const uint64_t published[] = {6457827717110365317u, 3203168211198807973u, 9817491932198370423u, 4593380528125082431u,
                                         16408922859458223821u};
    float logits[1000] = {0};
    struct quern_error err = {0};
    struct quern_sampler_options o;
    quern_default_sampler(&o);
    o.top_k = 0, o.top_p = 1, o.min_p = 0, o.temperature = 1, o.seed = 1234567;
    struct quern_sampler *s = sampler_open(1000, 64, NULL, &o, &err);
    for (size_t i = 0; i < 5; i++) {
        int32_t got = quern_sample_token(s, logits, &err), expected = (int32_t)((double)(published[i] >> 11) * 0x1p-53 * 1000);
        CHECK(got == expected, "draw %zu: %d, expected %d", i, got, expected);
    }
    quern_close_sampler(s);
}

static void test_greedy(void)
{
    float logits[6] = {1, 5, 5, -INFINITY, 2, 4.5f};
    struct quern_error err = {0};
    struct quern_sampler_options o;
    struct quern_logit_bias bias[2] = {{5, 1}, {2, -INFINITY}};
    quern_default_sampler(&o);
    o.temperature = 0;
    struct quern_sampler *s = sampler_open(6, 64, NULL, &o, &err);
    CHECK(quern_sample_token(s, logits, &err) == 1, "the first of equals");
    quern_close_sampler(s);
    o.bias = bias, o.bias_count = 2;
    s = sampler_open(6, 64, NULL, &o, &err);
    CHECK(quern_sample_token(s, logits, &err) == 5, "with bias");
    quern_close_sampler(s);
}

/* Penalties: values by hand. */
static void test_penalties(void)
{
    float logits[5] = {2, -2, 1, 0.5f, 0};
    struct quern_error err = {0};
    struct quern_sampler_options o;
    double probs[5], expected[5], sum = 0;
    int32_t ids[5];
    quern_default_sampler(&o);
    o.top_k = 0, o.top_p = 1, o.min_p = 0, o.temperature = 1;
    o.repeat_penalty = 2, o.frequency_penalty = 0.25f, o.presence_penalty = 0.5f, o.penalty_last_n = 4;
    struct quern_sampler *s = sampler_open(5, 64, NULL, &o, &err);
    static const int32_t seen[] = {3, 3, 0, 1, 0, 0};       /* the window of 4 holds 0, 1, 0, 0 */
    for (size_t i = 0; i < 6; i++)
        quern_accept_token(s, seen[i]);
    CHECK(sampler_distribution(s, logits, ids, probs, 5, &err) == 5, "%s", err.text);
    CHECK(sampler_distribution(s, logits, ids, probs, 5, &err) == 5, "twice the same");
    static const double adjusted[] = {2 / 2.0 - 3 * 0.25 - 0.5, -2 * 2.0 - 0.25 - 0.5, 1, 0.5, 0};
    for (size_t i = 0; i < 5; i++)
        sum += expected[i] = exp(adjusted[i]);
    for (size_t i = 0; i < 5; i++)
        CHECK(fabs(probs[i] - expected[ids[i]] / sum) < 1e-12, "token %d: %g, expected %g", ids[i], probs[i],
              expected[ids[i]] / sum);
    quern_close_sampler(s);
}

/* "a b c d a b c": d would prolong a repetition of 3. With c as a breaker nothing is repeated; with allowed length 4 neither. */
static void test_dry(void)
{
    static const int32_t text[] = {0, 1, 2, 3, 0, 1, 2};
    float logits[5] = {0, 0, 0, 0, 0};
    struct quern_error err = {0};
    struct quern_sampler_options o;
    quern_default_sampler(&o);
    o.top_k = 0, o.top_p = 1, o.min_p = 0, o.temperature = 1, o.dry_multiplier = 0.5f, o.dry_base = 2;
    for (int kind = 0; kind < 4; kind++) {
        uint8_t breakers = kind == 1 ? 1 << 2 : kind == 3 ? 1 << 0 : 0;
        o.dry_allowed_length = kind == 2 ? 4 : 2;
        struct quern_sampler *s = sampler_open(5, 64, &breakers, &o, &err);
        int32_t ids[5];
        double probs[5];
        for (size_t i = 0; i < 7; i++)
            quern_accept_token(s, text[i]);
        CHECK(sampler_distribution(s, logits, ids, probs, 5, &err) == 5, "%s", err.text);
        double loss = kind == 0 ? 0.5 * 2 : kind == 3 ? 0.5 : 0;    /* multiplier * base^(length - allowed), length 3 or 2 */
        double expected = exp(-loss) / (4 + exp(-loss));
        CHECK(ids[3] == 3 && fabs(probs[3] - expected) < 1e-12, "kind %d: %g, expected %g", kind, probs[3], expected);
        quern_close_sampler(s);
    }
}

/* Every bit of the map of breakers: "a X b c a X b", where c would prolong a repetition of 3, or of 1 behind the breaker X. */
static void test_breakers(void)
{
    enum { N = 16 };
    float logits[N] = {0};
    for (int32_t breaker = 3; breaker < N; breaker++) {
        const int32_t text[] = {0, breaker, 1, 2, 0, breaker, 1};
        for (int32_t marked = 3; marked < N; marked++) {
            struct quern_error err = {0};
            struct quern_sampler_options o;
            uint8_t breakers[N / 8] = {0};
            int32_t ids[N];
            double probs[N];
            quern_default_sampler(&o);
            o.top_k = 0, o.top_p = 1, o.min_p = 0, o.temperature = 1, o.dry_multiplier = 0.5f;
            breakers[marked / 8] = (uint8_t)(1 << marked % 8);
            struct quern_sampler *s = sampler_open(N, 64, breakers, &o, &err);
            for (size_t i = 0; i < sizeof text / sizeof *text; i++)
                quern_accept_token(s, text[i]);
            CHECK(sampler_distribution(s, logits, ids, probs, N, &err) == N, "%s", err.text);
            CHECK((probs[2] < probs[0]) == (marked != breaker), "%d in the text, %d marked: %g and %g", (int)breaker, (int)marked,
                  probs[2], probs[0]);
            quern_close_sampler(s);
        }
    }
}

static void test_bad_logits(void)
{
    float logits[8] = {0};
    struct quern_error err = {0};
    struct quern_sampler_options o;
    quern_default_sampler(&o);
    for (int greedy = 0; greedy < 2; greedy++) {
        o.temperature = greedy ? 0 : 1;
        struct quern_sampler *s = sampler_open(8, 64, NULL, &o, &err);
        logits[5] = NAN;
        CHECK(quern_sample_token(s, logits, &err) == -1 && err.code == QUERN_EFAIL && strstr(err.text, "token 5 is NaN"), "%s",
              err.text);
        logits[5] = INFINITY;
        CHECK(quern_sample_token(s, logits, &err) == -1 && err.code == QUERN_EFAIL, "%s", err.text);
        for (size_t i = 0; i < 8; i++)
            logits[i] = -INFINITY;
        CHECK(quern_sample_token(s, logits, &err) == -1 && err.code == QUERN_EFAIL && strstr(err.text, "no token is allowed"), "%s",
              err.text);
        logits[2] = -1e30f;
        CHECK(quern_sample_token(s, logits, &err) == 2, "the only one");
        quern_close_sampler(s);
    }
}

static void test_option_ranges(void)
{
    struct quern_logit_bias bias = {10, 1};
    for (int i = 0; i < 17; i++) {
        struct quern_error err = {0};
        struct quern_sampler_options o;
        quern_default_sampler(&o);
        switch (i) {
        case 0: o.temperature = -1; break;
        case 1: o.temperature = NAN; break;
        case 2: o.top_k = -1; break;
        case 3: o.top_p = 2; break;
        case 4: o.top_p = -0.1f; break;
        case 5: o.min_p = 1.5f; break;
        case 6: o.typical_p = NAN; break;
        case 7: o.repeat_penalty = 0; break;
        case 8: o.frequency_penalty = INFINITY; break;
        case 9: o.presence_penalty = NAN; break;
        case 10: o.penalty_last_n = -2; break;
        case 11: o.dry_multiplier = -1; break;
        case 12: o.dry_base = 0.5f; break;
        case 13: o.dry_allowed_length = 0; break;
        case 14: o.dry_last_n = -7; break;
        case 15: o.bias = &bias, o.bias_count = 1; break;
        case 16: o.temperature = INFINITY; break;
        }
        CHECK(!sampler_open(10, 64, NULL, &o, &err) && err.code == QUERN_EUSAGE, "case %d: %s", i, err.text);
    }
}

static void test_description(void)
{
    char text[300];
    struct quern_sampler_options o;
    quern_default_sampler(&o);
    CHECK(!strcmp(sampler_describe(&o, text, sizeof text), "top-k 40, top-p 0.95, min-p 0.05, temperature 0.8, seed 0"), "%s",
          text);
    o.temperature = 0, o.repeat_penalty = 1.5f;
    CHECK(!strcmp(sampler_describe(&o, text, sizeof text), "repeat penalty 1.5, greedy"), "%s", text);
}

int main(void)
{
    TEST(test_chain_against_slow_one);
    TEST(test_edges_of_the_filters);
    TEST(test_draws_follow_the_distribution);
    TEST(test_seed_gives_these_tokens);
    TEST(test_greedy);
    TEST(test_penalties);
    TEST(test_dry);
    TEST(test_breakers);
    TEST(test_bad_logits);
    TEST(test_option_ranges);
    TEST(test_description);
    return test_end();
}
