/* sampler.c - from logits to a token: bias, penalties, DRY on single logits; then filters that shorten a sorted list of candidates;
 * then temperature and one draw.
 *
 * The order of the filters is llama.cpp's default: top-k, typical, top-p, min-p, temperature last, so that the filters see the
 * model's own probabilities. Nothing is allocated per token, and nothing depends on how libm rounds: the same seed gives the same
 * text everywhere. */
#include "sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "random.h"

struct candidate {
    float   key;       /* what the list is sorted by, largest first: the logit, or for typical minus the deviation */
    float   logit;
    int32_t id;
};

struct quern_sampler {
    struct quern_sampler_options options;
    struct quern_logit_bias     *bias;
    size_t            vocabulary;
    uint64_t          random;          /* state of the generator */
    uint8_t          *breakers;        /* bitmap [vocabulary], or NULL */
    float            *logits;          /* [vocabulary], after bias and penalties */
    struct candidate *list;            /* [vocabulary] */
    size_t            count;           /* of list */
    /* The last `held` <= `capacity` tokens, a ring. */
    int32_t          *history;
    size_t            capacity, held, next;
    size_t            penalty_window, dry_window;
    int32_t          *counts;          /* [vocabulary], all 0 between calls */
    int32_t          *reversed, *match;/* [dry_window] */
};

/* ---- arithmetic ------------------------------------------------------------------------------------------------- */

/* libm's exp may differ in its last bit from system to system, and one bit can turn a draw. exp(x) for x <= 0: 2^k * e^r with
 * |r| <= ln(2)/2, Taylor to r^13 (error below 1e-17). Below -708 the result is 0. */
static double exp_negative(double x)
{
    if (!(x > -708))
        return 0;
    double k = floor(x * 1.4426950408889634 + 0.5);
    double r = (x - k * 0.693147180369123816490) - k * 1.90821492927058770002e-10, sum = 1;
    for (int i = 13; i > 0; i--)
        sum = 1 + sum * r / i;
    return ldexp(sum, (int)k);
}

/* ---- the list of candidates ------------------------------------------------------------------------------------- */

/* Does a stand before b? Equal keys: the smaller id first, so that the order is one. */
static bool before(const struct candidate *a, const struct candidate *b)
{
    return a->key != b->key ? a->key > b->key : a->id < b->id;
}

/* list[0..n) is a heap whose root stands last in order, except that list[at] may have to go down. */
static void sift_down(struct candidate *list, size_t n, size_t at)
{
    struct candidate c = list[at];
    for (size_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && before(&list[child], &list[child + 1]))
            child++;
        if (!before(&c, &list[child]))
            break;
        list[at] = list[child];
    }
    list[at] = c;
}

static void heap_make(struct candidate *list, size_t n)
{
    for (size_t i = n / 2; i-- > 0;)
        sift_down(list, n, i);
}

/* A heap becomes a sorted list, best first. */
static void heap_sort(struct candidate *list, size_t n)
{
    while (n > 1) {
        struct candidate last = list[0];
        list[0] = list[--n];
        list[n] = last;
        sift_down(list, n, 0);
    }
}

/* The k largest logits, sorted. A token enters the heap only when it beats the least of the k so far: for one pass over a large
 * vocabulary that is rare. */
static void select_top(struct quern_sampler *s, size_t k)
{
    s->count = 0;
    for (size_t i = 0; i < s->vocabulary; i++) {
        float logit = s->logits[i];
        struct candidate c = {logit, logit, (int32_t)i};
        if (logit == -INFINITY || (s->count == k && !before(&c, &s->list[0])))
            continue;
        if (s->count < k) {
            s->list[s->count++] = c;
            if (s->count == k)
                heap_make(s->list, k);
        } else {
            s->list[0] = c;
            sift_down(s->list, k, 0);
        }
    }
    if (s->count < k)
        heap_make(s->list, s->count);
    heap_sort(s->list, s->count);
}

/* Every token that is allowed, in the order of ids. */
static void select_all(struct quern_sampler *s)
{
    s->count = 0;
    for (size_t i = 0; i < s->vocabulary; i++)
        if (s->logits[i] != -INFINITY)
            s->list[s->count++] = (struct candidate){s->logits[i], s->logits[i], (int32_t)i};
}

/* Probabilities are never formed: filters compare exp(logit - max) with shares of its sum. */
static float largest(const struct quern_sampler *s)
{
    float max = -INFINITY;
    for (size_t i = 0; i < s->count; i++)
        max = s->list[i].logit > max ? s->list[i].logit : max;
    return max;
}

static double list_sum(const struct quern_sampler *s, float max)
{
    double sum = 0;
    for (size_t i = 0; i < s->count; i++)
        sum += exp_negative((double)s->list[i].logit - max);
    return sum;
}

/* ---- the filters ------------------------------------------------------------------------------------------------ */

/* Keep the shortest beginning of the list whose sum of exp(logit - max) reaches `target`; false when all of it does not. */
static bool cut_at(struct quern_sampler *s, float max, double target)
{
    double sum = 0;
    for (size_t i = 0; i < s->count; i++) {
        sum += exp_negative((double)s->list[i].logit - max);
        if (sum >= target) {
            s->count = i + 1;
            return true;
        }
    }
    return false;
}

/* Locally typical sampling (Meister et al. 2022): keep the tokens whose surprise is nearest to the expected one until their
 * probabilities reach p. |surprise - entropy| = |mean logit - logit|: the normaliser cancels. */
static void filter_typical(struct quern_sampler *s, float p)
{
    float max = largest(s);
    double sum = list_sum(s, max), mean = 0;
    for (size_t i = 0; i < s->count; i++) {
        double below = (double)s->list[i].logit - max;
        mean += exp_negative(below) / sum * below;
    }
    for (size_t i = 0; i < s->count; i++)
        s->list[i].key = (float)-fabs(mean - ((double)s->list[i].logit - max));
    heap_make(s->list, s->count);
    heap_sort(s->list, s->count);
    cut_at(s, max, p * sum);
    for (size_t i = 0; i < s->count; i++)
        s->list[i].key = s->list[i].logit;
    heap_make(s->list, s->count);
    heap_sort(s->list, s->count);
}

/* Top-p where no filter came before: sort only as much of the vocabulary as the cut needs. A text's nucleus is mostly a few dozen
 * tokens; 256 at first, whose sorting is little beside the pass over all logits. */
static void nucleus_of_all(struct quern_sampler *s, float p)
{
    select_all(s);
    float max = largest(s);
    double target = p * list_sum(s, max);
    for (size_t k = 256;; k *= 8) {
        select_top(s, k < s->vocabulary ? k : s->vocabulary);
        if (cut_at(s, max, target) || k >= s->vocabulary)
            return;
    }
}

static void filter_min_p(struct quern_sampler *s, float p)
{
    float max = largest(s);
    size_t kept = 0;
    for (size_t i = 0; i < s->count; i++)
        if (exp_negative((double)s->list[i].logit - max) >= p)
            s->list[kept++] = s->list[i];
    s->count = kept;
}

static void filter(struct quern_sampler *s)
{
    const struct quern_sampler_options *o = &s->options;
    bool some = o->top_k > 0 && (size_t)o->top_k < s->vocabulary;
    if (some || o->typical_p < 1)
        select_top(s, some ? (size_t)o->top_k : s->vocabulary);
    else if (o->top_p < 1)
        nucleus_of_all(s, o->top_p);
    else
        select_all(s);
    if (o->typical_p < 1)
        filter_typical(s, o->typical_p);
    if (o->top_p < 1 && (some || o->typical_p < 1)) {
        float max = largest(s);
        cut_at(s, max, o->top_p * list_sum(s, max));
    }
    if (o->min_p > 0)
        filter_min_p(s, o->min_p);
}

/* ---- bias, penalties, DRY --------------------------------------------------------------------------------------- */

/* The token `back` steps ago, 0 the latest. */
static int32_t past(const struct quern_sampler *s, size_t back)
{
    return s->history[(s->next + s->capacity - 1 - back) % s->capacity];
}

/* Each token of the window once, however often it occurs: counts[] collects the occurrences and is all zero again afterwards, which
 * costs the window's length and not the vocabulary's. Dividing positive logits and multiplying negative ones lowers both (Keskar et
 * al. 2019). */
static void penalize(struct quern_sampler *s)
{
    const struct quern_sampler_options *o = &s->options;
    size_t window = s->penalty_window < s->held ? s->penalty_window : s->held;
    if (o->repeat_penalty == 1 && o->frequency_penalty == 0 && o->presence_penalty == 0)
        return;
    for (size_t i = 0; i < window; i++)
        s->counts[past(s, i)]++;
    for (size_t i = 0; i < window; i++) {
        int32_t id = past(s, i), times = s->counts[id];
        if (times == 0)
            continue;                                  /* done at a later occurrence */
        s->counts[id] = 0;
        float *logit = &s->logits[id];
        *logit = *logit > 0 ? *logit / o->repeat_penalty : *logit * o->repeat_penalty;
        *logit -= (float)times * o->frequency_penalty + o->presence_penalty;
    }
}

/* How long the text that ends `i` tokens back agrees with the text's end, for each i: the Z function of the reversed text, in
 * linear time. */
static void match_ends(const int32_t *text, int32_t *match, size_t n)
{
    size_t left = 0, right = 0;
    for (size_t i = 1; i < n; i++) {
        size_t length = i < right && (size_t)match[i - left] < right - i ? (size_t)match[i - left] : i < right ? right - i : 0;
        while (i + length < n && text[length] == text[i + length])
            length++;
        match[i] = (int32_t)length;
        if (i + length > right)
            left = i, right = i + length;
    }
}

/* Cut at 1e30: beyond it any multiplier has long forbidden the token, and a repetition may be thousands of tokens long. */
static double power(double base, size_t exponent)
{
    double result = 1;
    for (; exponent > 0 && result < 1e30; exponent--)
        result *= base;
    return result;
}

/* DRY ("don't repeat yourself", p-e-w 2024): a token that would prolong a repetition of at least `allowed` tokens loses
 * multiplier * base^(length - allowed). A repetition does not reach back over a breaker. */
static void discourage_repetition(struct quern_sampler *s)
{
    const struct quern_sampler_options *o = &s->options;
    size_t n = s->dry_window < s->held ? s->dry_window : s->held, reach;
    if (o->dry_multiplier == 0 || n < 2)
        return;
    for (size_t i = 0; i < n; i++)
        s->reversed[i] = past(s, i);
    for (reach = 0; reach < n; reach++) {
        int32_t id = s->reversed[reach];
        if (s->breakers && (s->breakers[id / 8] >> id % 8 & 1))
            break;
    }
    match_ends(s->reversed, s->match, n);
    for (size_t i = 1; i < n; i++) {
        int32_t length = (size_t)s->match[i] < reach ? s->match[i] : (int32_t)reach, id = s->reversed[i - 1];
        if (length >= o->dry_allowed_length && length > s->counts[id])
            s->counts[id] = length;
    }
    for (size_t i = 0; i < n; i++) {
        int32_t id = s->reversed[i], length = s->counts[id];
        if (length > 0)
            s->logits[id] -= (float)(o->dry_multiplier * power(o->dry_base, (size_t)(length - o->dry_allowed_length)));
        s->counts[id] = 0;
    }
}

/* Copy the logits, check them, apply everything that changes single tokens. */
static bool prepare(struct quern_sampler *s, const float *logits, struct quern_error *err)
{
    bool any = false;
    for (size_t i = 0; i < s->vocabulary; i++) {
        if (!(logits[i] < INFINITY))                   /* NaN or +Inf */
            return ERR(err, QUERN_EFAIL, "the logit of token %zu is %s", i, isnan(logits[i]) ? "NaN" : "infinite");
        s->logits[i] = logits[i];
    }
    for (size_t i = 0; i < s->options.bias_count; i++)
        s->logits[s->bias[i].token] += s->bias[i].bias;
    penalize(s);
    discourage_repetition(s);
    for (size_t i = 0; i < s->vocabulary; i++)
        any = any || s->logits[i] > -INFINITY;
    return any || ERR(err, QUERN_EFAIL, "no token is allowed: every logit is minus infinity");
}

/* ---- choosing --------------------------------------------------------------------------------------------------- */

static int32_t best_token(const struct quern_sampler *s)
{
    size_t best = 0;
    for (size_t i = 1; i < s->vocabulary; i++)
        if (s->logits[i] > s->logits[best])
            best = i;
    return (int32_t)best;
}

static double weight(const struct quern_sampler *s, size_t i, float max)
{
    return exp_negative(((double)s->list[i].logit - max) / s->options.temperature);
}

/* One number from the generator per token, whatever the list: so a seed's later draws do not depend on how a filter cut. The last
 * candidate takes what rounding leaves over. */
static int32_t draw(struct quern_sampler *s)
{
    float max = largest(s);
    double total = 0, sum = 0;
    for (size_t i = 0; i < s->count; i++)
        total += weight(s, i, max);
    double target = random_unit(&s->random) * total;
    for (size_t i = 0; i + 1 < s->count; i++) {
        sum += weight(s, i, max);
        if (target < sum)
            return s->list[i].id;
    }
    return s->list[s->count - 1].id;
}

int32_t quern_sample_token(struct quern_sampler *s, const float *logits, struct quern_error *err)
{
    int32_t id;
    if (!prepare(s, logits, err))
        return -1;
    if (s->options.temperature == 0) {
        id = best_token(s);
    } else {
        filter(s);
        id = draw(s);
    }
    quern_accept_token(s, id);
    return id;
}

size_t sampler_distribution(struct quern_sampler *s, const float *logits, int32_t *ids, double *probs, size_t capacity,
                            struct quern_error *err)
{
    if (!prepare(s, logits, err))
        return 0;
    if (s->options.temperature == 0) {
        if (capacity)
            ids[0] = best_token(s), probs[0] = 1;
        return 1;
    }
    filter(s);
    float max = largest(s);
    double total = 0;
    for (size_t i = 0; i < s->count; i++)
        total += weight(s, i, max);
    for (size_t i = 0; i < s->count && i < capacity; i++)
        ids[i] = s->list[i].id, probs[i] = weight(s, i, max) / total;
    return s->count;
}

void quern_accept_token(struct quern_sampler *s, int32_t token)
{
    if (s->capacity == 0 || token < 0 || (size_t)token >= s->vocabulary)
        return;
    s->history[s->next] = token;
    s->next = (s->next + 1) % s->capacity;
    s->held += s->held < s->capacity;
}

/* ---- open, close, describe -------------------------------------------------------------------------------------- */

/* llama.cpp's defaults of 2026-08, so that another engine is not another temperament; but DRY, which is off in both, would look
 * back over the whole context. */
void quern_default_sampler(struct quern_sampler_options *options)
{
    *options = (struct quern_sampler_options){
        .temperature = 0.8f, .top_k = 40, .top_p = 0.95f, .min_p = 0.05f, .typical_p = 1,
        .repeat_penalty = 1, .penalty_last_n = 64,
        .dry_base = 1.75f, .dry_allowed_length = 2, .dry_last_n = -1,
    };
}

static bool in_range(const char *name, double value, double low, double high, struct quern_error *err)
{
    if (value >= low && value <= high)
        return true;
    if (high > 1e37)
        return ERR(err, QUERN_EUSAGE, "%s is %.10g, at least %.10g is allowed", name, value, low);
    return ERR(err, QUERN_EUSAGE, "%s is %.10g, %.10g to %.10g are allowed", name, value, low, high);
}

static bool check_options(const struct quern_sampler_options *o, size_t vocabulary, struct quern_error *err)
{
    const double most = 3.4e38, count = INT32_MAX;
    if (!in_range("temperature", o->temperature, 0, most, err) || !in_range("top-k", o->top_k, 0, count, err) ||
        !in_range("top-p", o->top_p, 0, 1, err) || !in_range("min-p", o->min_p, 0, 1, err) ||
        !in_range("typical", o->typical_p, 0, 1, err) || !in_range("repeat-penalty", o->repeat_penalty, 0.01, 100, err) ||
        !in_range("frequency-penalty", o->frequency_penalty, -100, 100, err) ||
        !in_range("presence-penalty", o->presence_penalty, -100, 100, err) ||
        !in_range("repeat-last-n", o->penalty_last_n, -1, count, err) ||
        !in_range("dry-multiplier", o->dry_multiplier, 0, 1e6, err) || !in_range("dry-base", o->dry_base, 1, 1e6, err) ||
        !in_range("dry-allowed-length", o->dry_allowed_length, 1, count, err) ||
        !in_range("dry-last-n", o->dry_last_n, -1, count, err))
        return false;
    for (size_t i = 0; i < o->bias_count; i++) {
        if (o->bias[i].token < 0 || (size_t)o->bias[i].token >= vocabulary)
            return ERR(err, QUERN_EUSAGE, "logit-bias: token %d, 0 to %zu are allowed", (int)o->bias[i].token, vocabulary - 1);
        if (isnan(o->bias[i].bias) || o->bias[i].bias == INFINITY)
            return ERR(err, QUERN_EUSAGE, "logit-bias of token %d is not a number", (int)o->bias[i].token);
    }
    return true;
}

/* A window in tokens: -1 is the whole context. */
static size_t window(int32_t n, size_t context)
{
    size_t most = context < SAMPLER_HISTORY ? context : SAMPLER_HISTORY;
    return n < 0 || (size_t)n > most ? most : (size_t)n;
}

struct quern_sampler *sampler_open(size_t vocabulary, size_t context, const uint8_t *breakers,
                                   const struct quern_sampler_options *options, struct quern_error *err)
{
    static const char what[] = "a sampler";
    struct quern_sampler *s;
    if (!check_options(options, vocabulary, err) || !(s = mem_take(1, sizeof *s, what, err)))
        return NULL;
    s->options = *options;
    s->vocabulary = vocabulary;
    s->random = options->seed;
    s->penalty_window = window(options->penalty_last_n, context);
    s->dry_window = options->dry_multiplier > 0 ? window(options->dry_last_n, context) : 0;
    s->capacity = s->penalty_window > s->dry_window ? s->penalty_window : s->dry_window;
    if (!(s->logits = mem_take(vocabulary, sizeof *s->logits, what, err)) ||
        !(s->list = mem_take(vocabulary, sizeof *s->list, what, err)) ||
        !(s->counts = mem_take(vocabulary, sizeof *s->counts, what, err)) ||
        !(s->history = mem_take(s->capacity, sizeof *s->history, what, err)) ||
        !(s->reversed = mem_take(s->dry_window, sizeof *s->reversed, what, err)) ||
        !(s->match = mem_take(s->dry_window, sizeof *s->match, what, err)) ||
        !(s->bias = mem_take(options->bias_count, sizeof *s->bias, what, err)) ||
        (breakers && !(s->breakers = mem_take((vocabulary + 7) / 8, 1, what, err)))) {
        quern_close_sampler(s);
        return NULL;
    }
    if (options->bias_count)
        memcpy(s->bias, options->bias, options->bias_count * sizeof *s->bias);
    if (breakers)
        memcpy(s->breakers, breakers, (vocabulary + 7) / 8);
    return s;
}

void quern_close_sampler(struct quern_sampler *s)
{
    if (!s)
        return;
    free(s->logits);
    free(s->list);
    free(s->counts);
    free(s->history);
    free(s->reversed);
    free(s->match);
    free(s->bias);
    free(s->breakers);
    free(s);
}

static void add(char *out, size_t size, const char *format, double value)
{
    size_t n = strlen(out);
    if (n && n + 2 < size)
        memcpy(out + n, ", ", 3), n += 2;
    snprintf(out + n, size - n, format, value);
}

const char *sampler_describe(const struct quern_sampler_options *o, char *out, size_t size)
{
    *out = 0;
    if (o->bias_count)
        add(out, size, "%.0f logit biases", (double)o->bias_count);
    if (o->repeat_penalty != 1)
        add(out, size, "repeat penalty %g", o->repeat_penalty);
    if (o->frequency_penalty != 0)
        add(out, size, "frequency penalty %g", o->frequency_penalty);
    if (o->presence_penalty != 0)
        add(out, size, "presence penalty %g", o->presence_penalty);
    if (o->dry_multiplier != 0)
        add(out, size, "DRY %g", o->dry_multiplier);
    if (o->temperature == 0) {
        add(out, size, "greedy", 0);
        return out;
    }
    if (o->top_k > 0)
        add(out, size, "top-k %.0f", o->top_k);
    if (o->typical_p < 1)
        add(out, size, "typical %g", o->typical_p);
    if (o->top_p < 1)
        add(out, size, "top-p %g", o->top_p);
    if (o->min_p > 0)
        add(out, size, "min-p %g", o->min_p);
    add(out, size, "temperature %g", o->temperature);
    size_t n = strlen(out);
    snprintf(out + n, size - n, ", seed %llu", (unsigned long long)o->seed);
    return out;
}
