/* quern eval: perplexity of a text, and distance from another model. */
#include <stdlib.h>
#include <string.h>

#include "cmd.h"
#include "cmd_engine.h"
#include "eval.h"
#include "machine.h"
#include "map.h"

struct eval_args {
    struct args        args;
    struct engine_args engine;
    const char        *text, *against;
    size_t             chunks;
    int                kv;
    bool               json;
};

#define OFFSET(field) offsetof(struct eval_args, field)
static const struct option options[] = {
    {.name = "text", .letter = 'f', .kind = OPTION_FILE, .offset = OFFSET(text), .arg = "FILE", .help = "the text to predict"},
    {.name = "against", .kind = OPTION_FILE, .offset = OFFSET(against), .arg = "FILE",
     .help = "also compare with this model: Kullback-Leibler divergence from it and agreement of the most likely token"},
    {.name = "chunks", .kind = OPTION_COUNT, .offset = OFFSET(chunks), .arg = "N", .fallback = "0",
     .help = "only the first N chunks; 0: all"},
    {.name = "kv", .kind = OPTION_CHOICE, .offset = OFFSET(kv), .arg = "TYPE", .fallback = "f16", .choices = KV_CHOICES,
     .help = "type of the cache of keys and values"},
    {.name = "json", .kind = OPTION_SWITCH, .offset = OFFSET(json), .help = "print one JSON object"},
    {.name = "engine", .kind = OPTION_GROUP, .offset = OFFSET(engine), .group = engine_options, .help = "Engine"},
    {0}
};
#undef OFFSET

const struct verb verb_eval = {
    .name = "eval",
    .summary = "measure how well a model predicts a text",
    .operands = "[MODEL]",
    .operands_max = 1,
    .options = options,
    .size = sizeof(struct eval_args),
    .main = cmd_eval,
    .details =
        "The rule is that of llama-perplexity, so figures compare: the text, tokenized as a whole with its beginning token, is cut "
        "into chunks of --context tokens (512 when not given); in each the first token is replaced by the beginning token, where "
        "the model uses one, and the second half is scored. A last chunk that is not full is left out. Perplexity is the "
        "exponential of the mean negative log likelihood; the errors are standard errors of the means.\n"
        "With --against both models run side by side and nothing is stored. KL is the mean of KL(base || model) per scored token "
        "over the whole vocabulary, in nats.",
};

static void show_bar(void *arg, double share) { progress_show(arg, share); }

static void print_json(const struct eval_args *a, const struct eval_result *r)
{
    printf("{\"perplexity\":%.6f,\"perplexity_error\":%.6f,\"nll\":%.8f,\"nll_error\":%.8f,\"chunks\":%zu,\"scored\":%zu,"
           "\"context\":%zu",
           r->perplexity, r->perplexity_error, r->nll, r->nll_error, r->chunks, r->scored, a->engine.context);
    if (r->against)
        printf(",\"base_perplexity\":%.6f,\"base_nll\":%.8f,\"kl_mean\":%.8f,\"kl_error\":%.8f,\"kl_median\":%.8f,\"kl_99\":%.8f,"
               "\"kl_999\":%.8f,\"kl_max\":%.8f,\"same_top\":%.6f,\"same_top_error\":%.6f",
               r->base_perplexity, r->base_nll, r->kl_mean, r->kl_error, r->kl_median, r->kl_99, r->kl_999, r->kl_max, r->same_top,
               r->same_top_error);
    puts("}");
}

static void print_result(const struct eval_args *a, const struct eval_result *r)
{
    printf("perplexity       %.4f +- %.4f\n", r->perplexity, r->perplexity_error);
    if (r->against) {
        printf("base perplexity  %.4f (ratio %.4f)\n", r->base_perplexity, r->perplexity / r->base_perplexity);
        printf("KL mean          %.6f +- %.6f nats\nKL median        %.6f\nKL 99 %%          %.6f\nKL 99.9 %%        %.6f\nKL "
               "largest       %.6f\n",
               r->kl_mean, r->kl_error, r->kl_median, r->kl_99, r->kl_999, r->kl_max);
        printf("same top token   %.2f +- %.2f %%\n", 100 * r->same_top, 100 * r->same_top_error);
    }
    printf("scored           %zu tokens in %zu chunks of %zu\n", r->scored, r->chunks, a->engine.context);
}

static bool run(struct eval_args *a, struct quern_error *err)
{
    struct map text = {0};
    struct quern_model *model = NULL, *base = NULL;
    struct eval_result result;
    struct progress bar;
    struct engine_args other = a->engine;
    struct args none = {0};
    size_t cache, scratch;
    other.model = a->against;
    if (!a->engine.context)
        a->engine.context = 512;
    struct eval_options o = {.context = a->engine.context, .chunks = a->chunks, .batch = a->engine.batch, .kv = (enum kv_type)a->kv,
                             .progress = show_bar, .progress_arg = &bar};
    bool ok = (a->text || ERR(err, QUERN_EUSAGE, "--text is needed")) && map_open(&text, a->text, err) &&
              (model = engine_open(&a->engine, &a->args, err)) != NULL && (o.pool = pool_open(model->threads, err)) != NULL &&
              (!a->against || (base = engine_open(&other, &none, err)) != NULL) && eval_bytes(&cache, &scratch, model, &o, err) &&
              engine_plan_bytes(model, &a->engine, base ? 2 * cache : cache, base ? 2 * scratch : scratch, err);
    if (ok) {
        progress_begin(&bar, "eval");
        o.stop = cli_catch_signals();
        ok = eval_text(&result, model, base, text.data ? (const char *)text.data : "", text.size, &o, err);
        progress_end(&bar);
    }
    if (ok && a->json)
        print_json(a, &result);
    else if (ok)
        print_result(a, &result);
    pool_close(o.pool);
    quern_close_model(base);
    quern_close_model(model);
    map_close(&text);
    return ok;
}

int cmd_eval(int argc, char **argv)
{
    struct eval_args a;
    struct quern_error err = {0};
    int code;
    if (!cli_begin(&quern_program, &verb_eval, argc, argv, &a, &code))
        return code;
    code = run(&a, &err) ? 0 : cli_fail(&err);
    return cli_end(&verb_eval, &a, code);
}
