/* Calibration against sums made the plain way, in double precision, from the same pass; and the file's reader against bad files. */
#include "imprint.h"
#include "backward.h"
#include "calibration.h"
#include "hessian.h"
#include "stats.h"
#include "test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LENGTH = 32, TOKENS = 5 * 4 * LENGTH, HELD_AT = 4 };

/* A model of the shared ones, opened. */
struct subject { struct quern_model *model; struct pool *pool; };

static bool open_subject(struct subject *s, const char *below, size_t threads)
{
    struct quern_error err;
    struct quern_model_options how = { .threads = 1 };
    s->model = quern_open_model(shared_path(below), &how, &err);
    s->pool = s->model ? pool_open(threads, &err) : NULL;
    CHECK(s->pool != NULL, "%s: %s", below, err.text);
    return s->pool != NULL;
}

static void close_subject(struct subject *s)
{
    pool_close(s->pool);
    quern_close_model(s->model);
}

static bool gather(const struct subject *s, const char *name, bool fisher, size_t mem_limit, const volatile int *stop,
                   struct quern_error *err)
{
    char path[300];
    snprintf(path, sizeof path, "%s", temp_path(name));
    struct imprint_options o = { .context = LENGTH, .tokens = TOKENS, .fisher = fisher, .mem_limit = mem_limit, .force = true,
                                 .pool = s->pool, .stop = stop };
    return imprint_write(s->model, path, &o, err);
}

/* ---- the plain sums ---- */

struct naive {
    size_t id, expert, cols, rows, part_from, part_to;      /* sequences */
    double *h, tokens, *g2, *hg;
    const struct subject *s;
};

/* Weight of row t, which is that of a token, by the rule that the header tells; recomputed here for a whole call. */
static double weight_of(const float *x, size_t cols, size_t n, size_t t, size_t token)
{
    double squares[TOKENS], sorted[TOKENS];
    for (size_t i = 0; i < n; i++) {
        squares[i] = 0;
        for (size_t c = 0; c < cols; c++)
            squares[i] += (double)x[i * dense_stride(cols) + c] * x[i * dense_stride(cols) + c];
        sorted[i] = squares[i];
    }
    for (size_t i = 1; i < n; i++)
        for (size_t j = i; j > 0 && sorted[j - 1] > sorted[j]; j--) {
            double swap = sorted[j];
            sorted[j] = sorted[j - 1], sorted[j - 1] = swap;
        }
    double most = 16 * sorted[n / 2];
    return token % LENGTH == 0 ? 0 : squares[t] > most ? most / squares[t] : 1;
}

/* slots NULL: row t is token t. */
static void add_rows(struct naive *a, const uint32_t *slots, const float *x, size_t n)
{
    size_t used = a->s->model->model.hyper.experts_used;
    for (size_t t = 0; t < n; t++) {
        double weight = weight_of(x, a->cols, n, t, slots ? slots[t] / used : t);
        const float *row = x + t * dense_stride(a->cols);
        a->tokens += weight > 0;
        for (size_t i = 0; i < a->cols; i++)
            for (size_t j = 0; j < a->cols; j++)
                a->h[i * a->cols + j] += weight * row[i] * row[j];
    }
}

static void on_input(void *arg, size_t id, const float *x, size_t n)
{
    struct naive *a = arg;
    if (id == a->id)
        add_rows(a, NULL, x, n);
}

static void on_expert(void *arg, size_t id, size_t expert, const uint32_t *slots, const float *x, const float *dy, size_t n)
{
    struct naive *a = arg;
    (void)dy;
    if (id == a->id && expert == a->expert)
        add_rows(a, slots, x, n);
}

/* The text's sequences of one call, as the verb makes them: calibration.h cuts and begins them. */
static size_t call_sequences(const struct subject *s)
{
    size_t row = dense_stride(s->model->model.hyper.vocab) * sizeof(float), call = ((size_t)512 << 20) / row;
    call = call < 2048 ? call : 2048;
    call /= LENGTH;
    while (call > 1 && TOKENS / LENGTH / call < 5)
        call /= 2;
    return call;
}

static double largest(const float *a, const double *b, size_t n, double scale)
{
    double most = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        most = fmax(most, fabs(a[i] - b[i] / scale));
        size = fmax(size, fabs(b[i] / scale));
    }
    return most / (size + 1e-30);
}

/* Every map's moments, fitted and held out, against the double sums. */
static void check_moments(const char *below, const char *name)
{
    struct subject s;
    struct quern_error err;
    struct stats stats;
    struct backward b;
    struct calibration text;
    if (!open_subject(&s, below, 2))
        return;
    const struct model *m = &s.model->model;
    CHECK(gather(&s, name, true, 0, NULL, &err), "%s: %s", below, err.text);
    CHECK(stats_open(&stats, temp_path(name), &s.model->gguf, &s.model->kernels, s.pool, &err), "%s", err.text);
    CHECK(calibration_open(&text, NULL, CALIBRATION_FIT, s.model, LENGTH, &err), "%s", err.text);
    size_t per_call = call_sequences(&s), calls = TOKENS / LENGTH / per_call;
    CHECK(backward_init(&b, m, &s.model->kernels, s.pool, per_call * LENGTH, LENGTH, &err), "%s", err.text);
    float *logits = aligned_alloc(64, per_call * LENGTH * dense_stride(m->hyper.vocab) * sizeof *logits);
    for (size_t id = 0, e = 0; id < b.all; e + 1 < backward_matrix(m, id)->slices ? e++ : (e = 0, id++)) {
        struct naive a = { .id = id, .expert = e, .cols = backward_matrix(m, id)->cols, .s = &s };
        if (!backward_matrix(m, id)->data)
            continue;
        struct gguf_string tensor = s.model->gguf.tensors[backward_matrix(m, id)->tensor].name;
        struct backward_hooks hooks = { .arg = &a, .input = on_input, .expert = on_expert };
        float *h = malloc(a.cols * a.cols * sizeof *h), *d = malloc(a.cols * sizeof *d);
        for (int part = 0; part < 2; part++) {
            a.h = calloc(a.cols * a.cols, sizeof *a.h), a.tokens = 0;
            for (size_t c = 0; c < calls; c++)
                if ((c % 5 == HELD_AT) == (part == STATS_HELD))
                    backward_forward(&b, text.tokens + c * per_call * LENGTH, per_call, LENGTH, logits, &hooks);
            CHECK(stats_tokens(&stats, tensor, e, part) == a.tokens, "%s, map %zu, expert %zu: %g tokens, %g", below, id, e,
                  stats_tokens(&stats, tensor, e, part), a.tokens);
            CHECK(stats_hessian(&stats, tensor, e, part, false, h, a.cols), "%s, map %zu, expert %zu", below, id, e);
            double off = largest(h, a.h, a.cols * a.cols, a.tokens);
            CHECK(off < 1e-5, "%s, map %zu, part %d: moments off by %g of the largest", below, id, part, off);
            free(a.h);
        }
        CHECK(stats_hessian(&stats, tensor, e, STATS_FIT, false, h, a.cols) && stats_diagonal(&stats, tensor, e, false, d, a.cols),
              "%s", below);
        for (size_t i = 0; i < a.cols; i++)
            CHECK(d[i] == h[i * a.cols + i], "diagonal %zu", i);
        CHECK(!stats_hessian(&stats, tensor, backward_matrix(m, id)->slices, STATS_FIT, false, h, a.cols) &&
              !stats_hessian(&stats, tensor, e, STATS_FIT, false, h, a.cols - 1), "no such expert, no such width");
        free(h), free(d);
    }
    free(logits);
    backward_free(&b);
    calibration_close(&text);
    stats_close(&stats);
    close_subject(&s);
}

static void moments_are_the_plain_sums(void)
{
    check_moments("models/stories260K/stories260K-F32.gguf", "moments.stats");
    check_moments("vectors/archs/qwen2moe.gguf", "experts.stats");
}

/* ---- gradients ---- */

/* Of the head's outputs the mean square gradient is known: labels drawn from p make it p (1 - p), times the square of the cap's
 * slope. The sum over outputs of what was gathered from drawn labels must come near. */
static void check_head(const char *below, const char *name)
{
    struct subject s;
    struct quern_error err;
    struct stats stats;
    struct backward b;
    struct calibration text;
    if (!open_subject(&s, below, 2))
        return;
    const struct hyper *h = &s.model->model.hyper;
    CHECK(gather(&s, name, true, 0, NULL, &err), "%s: %s", below, err.text);
    CHECK(stats_open(&stats, temp_path(name), &s.model->gguf, &s.model->kernels, s.pool, &err), "%s", err.text);
    CHECK(calibration_open(&text, NULL, CALIBRATION_FIT, s.model, LENGTH, &err), "%s", err.text);
    size_t stride = dense_stride(h->vocab), per_call = call_sequences(&s), calls = TOKENS / LENGTH / per_call;
    CHECK(backward_init(&b, &s.model->model, &s.model->kernels, s.pool, per_call * LENGTH, LENGTH, &err), "%s", err.text);
    float *logits = aligned_alloc(64, per_call * LENGTH * stride * sizeof *logits), *g = malloc(h->vocab * sizeof *g);
    double expected = 0, variance = 0, got = 0, tokens = 0;
    for (size_t c = 0; c < calls; c++) {
        if (c % 5 == HELD_AT)
            continue;
        backward_forward(&b, text.tokens + c * per_call * LENGTH, per_call, LENGTH, logits, NULL);
        for (size_t t = 0; t < per_call * LENGTH; t++) {
            const float *x = logits + t * stride;
            double sum = 0, all = 0, mean = 0, square = 0, slope;
            if (t % LENGTH == 0)
                continue;
            tokens++;
            for (size_t v = 0; v < h->vocab; v++)
                sum += exp(x[v]);
            /* Label l gives the sum over outputs v of (p_v - [v = l])^2 slope_v^2. */
            for (size_t v = 0; v < h->vocab; v++) {
                slope = h->logit_softcap != 0 ? 1 - x[v] * x[v] / h->logit_softcap / h->logit_softcap : 1;
                all += pow(exp(x[v]) / sum * slope, 2);
            }
            for (size_t v = 0; v < h->vocab; v++) {
                double p = exp(x[v]) / sum, label;
                slope = h->logit_softcap != 0 ? 1 - x[v] * x[v] / h->logit_softcap / h->logit_softcap : 1;
                label = all + (1 - 2 * p) * slope * slope;
                mean += p * label, square += p * label * label;
            }
            expected += mean, variance += square - mean * mean;
        }
    }
    struct gguf_string head = s.model->gguf.tensors[s.model->model.output.tensor].name;
    CHECK(stats_gradient(&stats, head, 0, g, h->vocab), "%s", below);
    for (size_t v = 0; v < h->vocab; v++)
        got += g[v];
    CHECK(fabs(got * tokens - expected) < 4 * sqrt(variance), "%s: squared gradients of the head %g, expected %g +- %g", below, got,
          expected / tokens, sqrt(variance) / tokens);
    CHECK(!stats_gradient(&stats, head, 0, g, h->vocab - 1) && !stats_gradient(&stats, head, 1, g, h->vocab), "other shapes");
    free(logits), free(g);
    backward_free(&b);
    calibration_close(&text);
    stats_close(&stats);
    close_subject(&s);
}

static void gradients_are_the_fisher_information(void)
{
    check_head("models/stories260K/stories260K-F32.gguf", "head.stats");
    check_head("vectors/archs/gemma2.gguf", "capped.stats");
}

/* ---- the same bytes ---- */

static volatile int stop_now;
static int calls_left;

static void stop_later(void *arg, const char *what, double share)
{
    (void)arg, (void)what, (void)share;
    if (--calls_left == 0)
        stop_now = 1;
}

static void the_same_bytes(void)
{
    const char *below = "models/stories260K/stories260K-BF16.gguf";
    struct subject one, three;
    struct quern_error err;
    if (!open_subject(&one, below, 1) || !open_subject(&three, below, 3))
        return;
    CHECK(gather(&one, "one.stats", true, 0, NULL, &err), "%s", err.text);
    CHECK(gather(&three, "three.stats", true, 0, NULL, &err), "%s", err.text);
    CHECK(same_files(temp_path("one.stats"), temp_path("three.stats")), "one thread and three");
    CHECK(!gather(&one, "tight.stats", true, 1 << 20, NULL, &err) && err.code == QUERN_EMEM,
          "a limit that is too low: %s", err.text);
    /* The message names the least that will do; with it the inputs of a layer are gathered one after the other. */
    size_t least = strtoull(strstr(err.text, "least ") + 6, NULL, 10);
    CHECK(gather(&one, "tight.stats", true, least, NULL, &err) && same_files(temp_path("one.stats"), temp_path("tight.stats")),
          "limit %zu: %s", least, err.text);
    CHECK(!gather(&one, "tight.stats", true, least - 1, NULL, &err), "a byte less");
    /* Stopped ever later and taken up again by other numbers of threads. */
    for (int stops = 1; stops < 36; stops += 5) {
        char path[300];
        snprintf(path, sizeof path, "%s", temp_path("parts.stats"));
        unlink(path);
        struct imprint_options o = { .context = LENGTH, .tokens = TOKENS, .fisher = true, .pool = stops % 2 ? one.pool : three.pool,
                                     .stop = &stop_now, .show = stop_later };
        calls_left = stops, stop_now = 0;
        CHECK(!imprint_write(one.model, path, &o, &err) && err.code == QUERN_EINTERRUPT && access(path, F_OK) != 0, "%d", stops);
        for (int more = 2 * stops; err.code == QUERN_EINTERRUPT && more < 10000; more *= 2) {
            calls_left = more, stop_now = 0, err.code = QUERN_OK;
            if (imprint_write(one.model, path, &o, &err))
                break;
        }
        CHECK(same_files(temp_path("one.stats"), temp_path("parts.stats")), "stopped after %d steps", stops);
    }
    close_subject(&one);
    close_subject(&three);
}

/* ---- bad files ---- */

static void refused(const struct subject *s, const char *data, size_t n, const struct gguf *model,
                    enum quern_code code, const char *words)
{
    struct stats stats;
    struct quern_error err;
    FILE *f = fopen(temp_path("bad.stats"), "wb");
    CHECK(f && fwrite(data, 1, n, f) == n && fclose(f) == 0, "a file to be refused");
    bool ok = stats_open(&stats, temp_path("bad.stats"), model, &s->model->kernels, s->pool, &err);
    CHECK(!ok && err.code == code && strstr(err.text, words), "'%s' wanted: %s", words, ok ? "accepted" : err.text);
    if (ok)
        stats_close(&stats);
}

/* Replace the first occurrence of a word by one of the same length. */
static void refused_with(const struct subject *s, const char *data, size_t n, const char *word, const char *by, const char *words)
{
    char *copy = malloc(n), *at = copy;
    memcpy(copy, data, n);
    while (at + strlen(word) <= copy + n && memcmp(at, word, strlen(word)))
        at++;
    CHECK(at + strlen(word) <= copy + n, "'%s' stands in the file", word);
    memcpy(at, by, strlen(word));
    refused(s, copy, n, NULL, QUERN_EFORMAT, words);
    free(copy);
}

static void bad_files_are_refused(void)
{
    struct subject s, other;
    struct quern_error err;
    struct stats stats;
    size_t n, m;
    if (!open_subject(&s, "models/stories260K/stories260K-F32.gguf", 2) ||
        !open_subject(&other, "models/stories260K/stories260K-BF16.gguf", 1))
        return;
    CHECK(gather(&s, "good.stats", true, 0, NULL, &err), "%s", err.text);
    char *data = read_whole_file(temp_path("good.stats"), &n);
    char *model = read_whole_file(shared_path("models/stories260K/stories260K-BF16.gguf"), &m);
    bool ok = stats_open(&stats, temp_path("good.stats"), &s.model->gguf, &s.model->kernels, s.pool, &err);
    CHECK(ok, "%s", err.text);
    if (ok)
        stats_close(&stats);
    refused(&s, data, n, &other.model->gguf, QUERN_EFORMAT, "another model");
    refused(&s, model, m, NULL, QUERN_EFORMAT, "no statistics");
    for (size_t cut = 1; cut < n; cut = cut * 3 + 5)
        refused(&s, data, cut, NULL, QUERN_EFORMAT, "");
    refused(&s, data, n - 64, NULL, QUERN_EFORMAT, "");
    refused_with(&s, data, n, "quern.stats.rows", "quern.stats.rowz", "lists");
    refused_with(&s, data, n, "quern.stats.version", "quern.stats.versioN", "version");
    refused_with(&s, data, n, "quern.stats.calls", "quern.stats.callz", "calls");
    refused_with(&s, data, n, "blk.1.attn.x_held", "blk.1.attn.x_hold", "blk.1.attn_q.weight");
    refused_with(&s, data, n, "blk.0.ffn.1.hg", "blk.0.ffn.7.hg", "blk.0.ffn_up.weight");
    refused_with(&s, data, n, "call.1.gradients", "call.9.gradients", "call 1");
    free(data), free(model);
    close_subject(&s);
    close_subject(&other);
}

int main(void)
{
    if (!shared_path("models/stories260K/stories260K-F32.gguf")) {
        test_skip("imprint", "shared/ is not here");
        return test_end();
    }
    TEST(moments_are_the_plain_sums);
    TEST(gradients_are_the_fisher_information);
    TEST(the_same_bytes);
    TEST(bad_files_are_refused);
    return test_end();
}
