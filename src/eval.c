#include "eval.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "log_sum.h"

/* Logits of one pass are held for at most so many bytes per model: 128 Ki tokens of vocabulary give 128 rows. */
enum { LOGITS_BYTES = 64 << 20, BATCH = 512 };

/* What one scored position yields. */
struct point { double nll, base_nll, kl; bool same_top; };

struct evaluation {
    const struct eval_options *options;
    struct runner  model, base;
    bool           against;
    const int32_t *tokens;           /* the text */
    int32_t       *chunk;            /* [context] */
    struct point  *points;           /* [chunks * per chunk] */
    size_t         chunks, scored;
    /* the rows at hand */
    size_t         row_point, row_token;
};

static struct runner_shape shape_of(const struct quern_model *model, const struct eval_options *o)
{
    size_t row = model->model.hyper.vocab * sizeof(float), rows = row < LOGITS_BYTES ? LOGITS_BYTES / row : 1;
    size_t batch = o->batch ? o->batch : BATCH;
    batch = batch < o->context ? batch : o->context;
    return (struct runner_shape){
        .context = o->context, .sequences = 1, .batch = batch, .rows = rows < batch ? rows : batch, .kv = o->kv};
}

bool eval_bytes(size_t *cache, size_t *scratch, const struct quern_model *model, const struct eval_options *options,
                struct quern_error *err)
{
    struct runner_shape shape = shape_of(model, options);
    return runner_bytes(cache, scratch, model, &shape, pool_threads(options->pool), err);
}

/* Score row `index` of the logits at hand. Double throughout: a mean over 10^5 tokens is compared with other engines' to the fourth
 * digit, and KL sums a whole vocabulary of differences that nearly cancel. Each row writes its own point, and the points are summed
 * in their order later, so the figures are the same for any number of threads. */
static void score_row(void *arg, size_t index, size_t thread)
{
    struct evaluation *e = arg;
    struct point *point = &e->points[e->row_point + index];
    size_t vocab = e->model.model->model.hyper.vocab, top, base_top;
    const float *x = e->model.logits + index * vocab;
    int32_t next = e->chunk[e->row_token + index + 1];
    double total = log_sum(x, vocab, &top);
    (void)thread;
    point->nll = total - x[next];
    if (!e->against)
        return;
    const float *y = e->base.logits + index * vocab;
    double base_total = log_sum(y, vocab, &base_top), kl = 0;
    for (size_t i = 0; i < vocab; i++) {
        double log_p = y[i] - base_total;
        kl += exp(log_p) * (log_p - (x[i] - total));
    }
    point->base_nll = base_total - y[next];
    point->kl = kl > 0 ? kl : 0;      /* it is never negative but for rounding, when both models agree */
    point->same_top = top == base_top;
}

/* Tokens [begin, begin + n) of the chunk through one model, with logits after the last `wanted`. */
static bool pass(struct runner *r, const int32_t *chunk, size_t begin, size_t n, size_t wanted, struct quern_error *err)
{
    struct batch_part part = {.kv = &r->kv[0], .tokens = chunk + begin, .count = n, .wanted = wanted};
    return forward_run(&r->forward, &part, 1, r->logits, err) || error_prefix(err, r->model->gguf.path);   /* which of the two */
}

static bool run_chunk(struct evaluation *e, size_t index, struct quern_error *err)
{
    size_t context = e->options->context, first = context / 2, end = context - 1, n;
    memcpy(e->chunk, e->tokens + index * context, context * sizeof *e->chunk);
    const struct tokenizer *t = e->model.model->tokenizer;
    /* The chunk's own first token gives way to BOS and is never scored, as in llama-perplexity: figures must compare. */
    if (tokenizer_adds_bos(t) && tokenizer_bos(t) >= 0)
        e->chunk[0] = tokenizer_bos(t);
    if (!kv_rewind(&e->model.kv[0], 0, err) || (e->against && !kv_rewind(&e->base.kv[0], 0, err)))
        return false;
    /* The first half only fills the cache, so its passes may be a whole batch; in the second every row of logits is needed and
     * passes are cut to what the buffer holds. The chunk's last token has no successor to predict and is not computed. */
    for (size_t at = 0; at < end; at += n) {
        size_t edge = at < first ? first : end, most = at < first ? e->model.shape.batch : e->model.shape.rows;
        n = edge - at < most ? edge - at : most;
        size_t wanted = at < first ? 0 : n;
        if (!pass(&e->model, e->chunk, at, n, wanted, err) || (e->against && !pass(&e->base, e->chunk, at, n, wanted, err)))
            return false;
        e->row_point = e->scored;
        e->row_token = at;
        pool_run(e->options->pool, score_row, e, wanted);
        e->scored += wanted;
    }
    return true;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Linear between the neighbours in the sorted list. */
static double quantile(const double *sorted, size_t n, double q)
{
    double at = q * (double)(n - 1);
    size_t low = (size_t)at, high = low + 1 < n ? low + 1 : low;
    return sorted[low] + (at - (double)low) * (sorted[high] - sorted[low]);
}

/* Mean and its standard error. Two passes, because the sum of squares minus the square of the sum loses the digits that matter. */
static void mean_of(const double *x, size_t n, double *mean, double *error)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i];
    *mean = sum / (double)n;
    for (size_t i = 0; i < n; i++)
        squares += (x[i] - *mean) * (x[i] - *mean);
    *error = n > 1 ? sqrt(squares / (double)n / (double)(n - 1)) : 0;
}

static bool summarize(const struct evaluation *e, struct eval_result *result, struct quern_error *err)
{
    size_t n = e->scored;
    double unused, *list = mem_take(n, sizeof *list, "results", err);
    if (!list)
        return false;
    *result = (struct eval_result){.chunks = e->chunks, .scored = n, .against = e->against};
    for (size_t i = 0; i < n; i++)
        list[i] = e->points[i].nll;
    mean_of(list, n, &result->nll, &result->nll_error);
    result->perplexity = exp(result->nll);
    result->perplexity_error = result->perplexity * result->nll_error;
    if (e->against) {
        for (size_t i = 0; i < n; i++)
            list[i] = e->points[i].base_nll;
        mean_of(list, n, &result->base_nll, &unused);
        result->base_perplexity = exp(result->base_nll);
        for (size_t i = 0; i < n; i++)
            list[i] = e->points[i].same_top;
        mean_of(list, n, &result->same_top, &result->same_top_error);
        for (size_t i = 0; i < n; i++)
            list[i] = e->points[i].kl;
        mean_of(list, n, &result->kl_mean, &result->kl_error);
        qsort(list, n, sizeof *list, ascending);
        result->kl_median = quantile(list, n, 0.5);
        result->kl_99 = quantile(list, n, 0.99);
        result->kl_999 = quantile(list, n, 0.999);
        result->kl_max = list[n - 1];
    }
    free(list);
    return true;
}

static bool run_chunks(struct evaluation *e, struct quern_error *err)
{
    const struct eval_options *o = e->options;
    for (size_t i = 0; i < e->chunks; i++) {
        if (!run_chunk(e, i, err))
            return false;
        if (o->progress)
            o->progress(o->progress_arg, (double)(i + 1) / (double)e->chunks);
    }
    return true;
}

bool eval_tokens(struct eval_result *result, const struct quern_model *model, const struct quern_model *base, const int32_t *tokens,
                 size_t count, const struct eval_options *o, struct quern_error *err)
{
    if (o->context < 4)
        return ERR(err, QUERN_EUSAGE, "a context of %zu tokens, at least 4 are needed", o->context);
    if (count < o->context)
        return ERR(err, QUERN_EUSAGE, "the text has %zu tokens, at least one context of %zu is needed", count, o->context);
    if (base && base->model.hyper.vocab != model->model.hyper.vocab)
        return ERR(err, QUERN_EUSAGE, "the models have vocabularies of %zu and %zu tokens", model->model.hyper.vocab,
                   base->model.hyper.vocab);
    struct evaluation e = {.options = o, .against = base != NULL, .tokens = tokens, .chunks = count / o->context};
    if (o->chunks && o->chunks < e.chunks)
        e.chunks = o->chunks;
    struct runner_shape shape = shape_of(model, o);
    bool ok = runner_open(&e.model, model, &shape, o->pool, o->stop, err) &&
              (!base || runner_open(&e.base, base, &shape, o->pool, o->stop, err)) &&
              (e.chunk = mem_take(o->context, sizeof *e.chunk, "a chunk", err)) != NULL &&
              (e.points = mem_take(e.chunks * (o->context - 1 - o->context / 2), sizeof *e.points, "results", err)) != NULL &&
              run_chunks(&e, err) && summarize(&e, result, err);
    runner_close(&e.model);
    runner_close(&e.base);
    free(e.chunk);
    free(e.points);
    return ok;
}

/* Do both tokenizers cut the text into the same ids? */
static bool same_tokens(const struct quern_model *base, const char *text, size_t n, const int32_t *tokens, size_t count,
                        struct quern_error *err)
{
    int32_t *others;
    size_t other_count;
    if (!quern_encode_text(base, text, n, true, false, &others, &other_count, err))
        return false;
    bool same = count == other_count && (count == 0 || memcmp(tokens, others, count * sizeof *tokens) == 0);
    free(others);
    return same ||
           ERR(err, QUERN_EUSAGE, "the two models cut the text into different tokens: their distributions cannot be compared");
}

bool eval_text(struct eval_result *result, const struct quern_model *model, const struct quern_model *base, const char *text,
               size_t n, const struct eval_options *options, struct quern_error *err)
{
    int32_t *tokens = NULL;
    size_t count;
    bool ok = quern_encode_text(model, text, n, true, false, &tokens, &count, err) &&
              (!base || same_tokens(base, text, n, tokens, count, err)) &&
              eval_tokens(result, model, base, tokens, count, options, err);
    free(tokens);
    return ok;
}
