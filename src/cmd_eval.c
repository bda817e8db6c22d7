/* quern eval: perplexity of a text and distance from another model, or answers to multiple-choice questions. */
#include <stdlib.h>
#include <string.h>

#include "choices_score.h"
#include "cmd.h"
#include "cmd_engine.h"
#include "eval.h"
#include "map.h"
#include "session.h"
#include "text.h"

struct eval_args {
    struct args        args;
    struct engine_args engine;
    const char        *text, *against, *mc, *lambada, *dev;
    size_t             chunks, shots, limit;
    int                kv, mc_format, on_overflow;
    bool               json;
};

#define OFFSET(field) offsetof(struct eval_args, field)
static const struct option options[] = {
    {.name = "text", .letter = 'f', .kind = OPTION_FILE, .offset = OFFSET(text), .arg = "FILE", .help = "the text to predict"},
    {.name = "against", .kind = OPTION_FILE, .offset = OFFSET(against), .arg = "FILE",
     .help = "also compare with this model: Kullback-Leibler divergence from it and agreement of the most likely token"},
    {.name = "chunks", .kind = OPTION_COUNT, .offset = OFFSET(chunks), .arg = "N", .fallback = "0",
     .help = "only the first N chunks; 0: all"},
    {.name = "mc", .kind = OPTION_FILE, .offset = OFFSET(mc), .arg = "FILE",
     .help = "multiple-choice questions to answer: HellaSwag, MMLU (or a folder of its csv files), ARC, WinoGrande, PIQA"},
    {.name = "mc-format", .kind = OPTION_CHOICE, .offset = OFFSET(mc_format), .arg = "NAME", .fallback = "auto",
     .choices = CHOICES_WORDS, .help = "what --mc's file is; auto: told from its content"},
    {.name = "lambada", .kind = OPTION_FILE, .offset = OFFSET(lambada), .arg = "FILE",
     .help = "passages whose last word is to be predicted, JSON lines with \"text\""},
    {.name = "limit", .kind = OPTION_COUNT, .offset = OFFSET(limit), .arg = "N", .fallback = "0",
     .help = "N items of --mc or --lambada, evenly spread; 0: all"},
    {.name = "shots", .kind = OPTION_COUNT, .offset = OFFSET(shots), .arg = "N", .fallback = "0",
     .help = "MMLU: show the model the first N questions of the subject's dev file with their answers"},
    {.name = "dev", .kind = OPTION_FILE, .offset = OFFSET(dev), .arg = "DIR",
     .help = "the folder of the SUBJECT_dev.csv for --shots"},
    {.name = "on-overflow", .kind = OPTION_CHOICE, .offset = OFFSET(on_overflow), .arg = "WHAT", .fallback = "error",
     .choices = "error|cut", .help = "items longer than the context: an error, or cut from the left, which is counted"},
    {.name = "kv", .kind = OPTION_CHOICE, .offset = OFFSET(kv), .arg = "TYPE", .fallback = "auto", .choices = KV_CHOICES,
     .help = KV_HELP},
    {.name = "json", .kind = OPTION_SWITCH, .offset = OFFSET(json), .help = "print one JSON object"},
    {.name = "engine", .kind = OPTION_GROUP, .offset = OFFSET(engine), .group = engine_options, .help = "Engine"},
    {0}
};
#undef OFFSET

static const struct example eval_examples[] = {
    {"quern eval model.gguf --text text.txt -c 128", "perplexity in chunks of 128 tokens"},
    {"quern eval --text text.txt -c 128 --chunks 2 --against model.gguf -m model.gguf",
     "how far the model after -m is from the one after --against"},
    {NULL, NULL}
};

const struct verb verb_eval = {
    .name = "eval",
    .summary = "measure how well a model predicts a text",
    .operands = "[MODEL]",
    .operands_max = 1,
    .examples = eval_examples,
    .options = options,
    .size = sizeof(struct eval_args),
    .main = cmd_eval,
    .details =
        "The rule is that of llama-perplexity, so figures compare: the text, tokenized as a whole with its beginning token, is cut "
        "into chunks of --context tokens (512 when not given); in each the first token is replaced by the beginning token, where "
        "the model uses one, and the second half is scored. A last chunk that is not full is left out. Perplexity is the "
        "exponential of the mean negative log likelihood; the errors are standard errors of the means.\n"
        "With --against both models run side by side and nothing is stored. KL is the mean of KL(base || model) per scored token "
        "over the whole vocabulary, in nats. With --mc and --lambada: the other model's accuracies, and how many answers differ. "
        "Both have a cache of one type; --kv auto takes f16 where it would choose another for each. The results name the type.\n"
        "--mc asks for the likelihood of each choice after its context, as lm-evaluation-harness does. Contexts, each followed "
        "by a blank and the choice: HellaSwag 'CONTEXT'; ARC and PIQA 'Question: QUESTION', line end, 'Answer:'; WinoGrande the "
        "sentence up to its gap with each option in it, the choice being the rest (partial evaluation); MMLU 'The following are "
        "multiple choice questions (with answers) about SUBJECT.', an empty line, the shots, the question, lines 'A. CHOICE' to "
        "'D. CHOICE', 'Answer:', the choices being the letters.\n"
        "Accuracy is that of the largest sum of log-probabilities; per byte (the harness' acc_norm) and per token "
        "(llama-perplexity's) divide it by the choice's length. Errors are standard errors. The beginning token stands first where "
        "the model uses one, and nowhere else. --limit N takes item floor(i * total / N) for i from 0 to N - 1. PIQA's labels are "
        "read from NAME-labels.lst beside NAME.jsonl. Items may be as long as the model's trained context, or --context; a "
        "longer one ends the run with exit 8 before anything is computed.\n"
        "--lambada: share of passages whose last word, all its tokens, is what the model would write; perplexity of that word.",
};

static void show_bar(void *arg, double share) { progress_show(arg, share); }

static void print_json(const struct eval_args *a, const struct eval_result *r, enum kv_type kv)
{
    printf("{\"perplexity\":%.6f,\"perplexity_error\":%.6f,\"nll\":%.8f,\"nll_error\":%.8f,\"chunks\":%zu,\"scored\":%zu,"
           "\"context\":%zu,\"kv\":\"%s\"",
           r->perplexity, r->perplexity_error, r->nll, r->nll_error, r->chunks, r->scored, a->engine.context, kv_name(kv));
    if (r->against)
        printf(",\"base_perplexity\":%.6f,\"base_nll\":%.8f,\"kl_mean\":%.8f,\"kl_error\":%.8f,\"kl_median\":%.8f,\"kl_99\":%.8f,"
               "\"kl_999\":%.8f,\"kl_max\":%.8f,\"same_top\":%.6f,\"same_top_error\":%.6f",
               r->base_perplexity, r->base_nll, r->kl_mean, r->kl_error, r->kl_median, r->kl_99, r->kl_999, r->kl_max, r->same_top,
               r->same_top_error);
    puts("}");
}

static void print_result(const struct eval_args *a, const struct eval_result *r, enum kv_type kv)
{
    printf("perplexity       %.4f +- %.4f\n", r->perplexity, r->perplexity_error);
    if (r->against) {
        printf("base perplexity  %.4f (ratio %.4f)\n", r->base_perplexity, r->perplexity / r->base_perplexity);
        printf("KL mean          %.6f +- %.6f nats\nKL median        %.6f\nKL 99 %%          %.6f\nKL 99.9 %%        %.6f\nKL "
               "largest       %.6f\n",
               r->kl_mean, r->kl_error, r->kl_median, r->kl_99, r->kl_999, r->kl_max);
        printf("same top token   %.2f +- %.2f %%\n", 100 * r->same_top, 100 * r->same_top_error);
    }
    printf("scored           %zu tokens in %zu chunks of %zu\ncache            %s\n", r->scored, r->chunks, a->engine.context,
           kv_name(kv));
}

/* What both models' caches are made of, settled before either is measured: left to themselves two could get different ones, and
 * the caches' rounding would count as theirs. */
static enum kv_type both_kv(const struct eval_args *a, const struct quern_model *model, const struct quern_model *base)
{
    enum kv_type kv = session_kv(model, (enum quern_kv)a->kv);
    return !base || session_kv(base, (enum quern_kv)a->kv) == kv ? kv : KV_F16;
}

static bool run_text(struct eval_args *a, struct quern_error *err)
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
    struct eval_options o = {.context = a->engine.context, .chunks = a->chunks, .batch = a->engine.batch,
                             .progress = show_bar, .progress_arg = &bar};
    bool ok = map_open(&text, a->text, err) && (model = engine_open(&a->engine, &a->args, err)) != NULL &&
              (o.pool = pool_open(model->threads, err)) != NULL &&
              (!a->against || (base = engine_open(&other, &none, err)) != NULL);
    o.kv = ok ? both_kv(a, model, base) : KV_F16;
    ok = ok && eval_bytes(&cache, &scratch, model, &o, err) &&
         engine_plan_bytes(model, &a->engine, o.kv, base ? 2 * cache : cache, base ? 2 * scratch : scratch, err);
    if (ok) {
        progress_begin(&bar, "eval");
        o.stop = cli_catch_signals();
        ok = eval_text(&result, model, base, text.data ? (const char *)text.data : "", text.size, &o, err);
        progress_end(&bar);
    }
    if (ok && a->json)
        print_json(a, &result, o.kv);
    else if (ok)
        print_result(a, &result, o.kv);
    pool_close(o.pool);
    quern_close_model(base);
    quern_close_model(model);
    map_close(&text);
    return ok;
}

/* ---- questions ------------------------------------------------------------------------------------------------------ */

/* One model's answers. */
struct side {
    struct quern_model   *model;
    struct choice_answer *answers;
    size_t                longest, cut;
};

static const char *const rule_keys[] = {"accuracy", "accuracy_per_byte", "accuracy_per_token"};

static void json_sum(const struct choice_sum *s, const char *prefix, bool lambada)
{
    printf("\"%schance\":%.6f", prefix, s->chance);
    for (size_t rule = 0; rule < (lambada ? 1 : CHOICE_RULES); rule++)
        printf(",\"%s%s\":%.6f,\"%s%s_error\":%.6f", prefix, rule_keys[rule], s->accuracy[rule], prefix, rule_keys[rule],
               s->error[rule]);
    if (lambada)
        printf(",\"%sperplexity\":%.6f,\"%sperplexity_error\":%.6f", prefix, s->perplexity, prefix, s->perplexity_error);
}

/* Answers in which the two models differ. */
static void count_differences(size_t *out, const struct choice_set *set, const struct side *sides)
{
    memset(out, 0, CHOICE_RULES * sizeof *out);
    for (size_t i = 0; i < set->count; i++)
        for (size_t rule = 0; rule < CHOICE_RULES; rule++)
            out[rule] += sides[0].answers[i].pick[rule] != sides[1].answers[i].pick[rule];
}

static void answers_json(const struct eval_args *a, const struct choice_set *set, const struct side *sides, enum kv_type kv)
{
    struct choice_sum sum;
    size_t differ[CHOICE_RULES];
    bool lambada = set->format == CHOICES_LAMBADA;
    choices_sum(&sum, set, sides[0].answers, SIZE_MAX);
    printf("{\"format\":\"%s\",\"items\":%zu,\"total\":%zu,\"shots\":%zu,\"cut\":%zu,\"kv\":\"%s\",",
           choice_format_names[set->format], set->count, set->total, a->shots, sides[0].cut, kv_name(kv));
    json_sum(&sum, "", lambada);
    if (sides[1].answers) {
        choices_sum(&sum, set, sides[1].answers, SIZE_MAX);
        putchar(',');
        json_sum(&sum, "base_", lambada);
        count_differences(differ, set, sides);
        printf(",\"differ\":%zu", differ[CHOICE_SUM]);
        if (!lambada)
            printf(",\"differ_per_byte\":%zu,\"differ_per_token\":%zu", differ[CHOICE_PER_BYTE], differ[CHOICE_PER_TOKEN]);
    }
    for (size_t g = 0, shown = 0; set->group_count > 1 && g < set->group_count; g++) {
        choices_sum(&sum, set, sides[0].answers, g);
        if (sum.items == 0)
            continue;
        char name[200];
        text_escape(name, sizeof name, set->groups[g].name, strlen(set->groups[g].name));
        struct text quoted = {0};
        text_add_json(&quoted, name, strlen(name));
        printf("%s{\"name\":%s,\"items\":%zu,", shown++ ? "," : ",\"groups\":[", quoted.failed ? "null" : quoted.data, sum.items);
        text_free(&quoted);
        json_sum(&sum, "", lambada);
        putchar('}');
    }
    puts(set->group_count > 1 ? "]}" : "}");
}

static void print_sum(const struct choice_sum *s, const char *prefix, bool lambada)
{
    static const char *const words[] = {"accuracy", "  per byte", "  per token"};
    for (size_t rule = 0; rule < (lambada ? 1 : CHOICE_RULES); rule++)
        printf("%s%-*s%.2f +- %.2f %%\n", prefix, (int)(17 - strlen(prefix)), words[rule], 100 * s->accuracy[rule],
               100 * s->error[rule]);
    if (lambada)
        printf("%s%-*s%.4f +- %.4f (last word)\n", prefix, (int)(17 - strlen(prefix)), "perplexity", s->perplexity,
               s->perplexity_error);
}

static void print_answers(const struct eval_args *a, const struct choice_set *set, const struct side *sides, enum kv_type kv)
{
    struct choice_sum sum;
    size_t differ[CHOICE_RULES];
    bool lambada = set->format == CHOICES_LAMBADA;
    char name[200];
    for (size_t g = 0; set->group_count > 1 && g < set->group_count; g++) {
        choices_sum(&sum, set, sides[0].answers, g);
        if (sum.items)
            printf("%-40s %5zu  %.2f +- %.2f %%\n",
                   text_escape(name, sizeof name, set->groups[g].name, strlen(set->groups[g].name)), sum.items,
                   100 * sum.accuracy[0], 100 * sum.error[0]);
    }
    choices_sum(&sum, set, sides[0].answers, SIZE_MAX);
    printf("format           %s\n", choice_format_names[set->format]);
    if (set->format == CHOICES_MMLU)
        printf("shots            %zu\n", a->shots);
    print_sum(&sum, "", lambada);
    if (!lambada)
        printf("guessing         %.2f %%\n", 100 * sum.chance);
    if (sides[1].answers) {
        choices_sum(&sum, set, sides[1].answers, SIZE_MAX);
        print_sum(&sum, "base ", lambada);
        count_differences(differ, set, sides);
        if (lambada)
            printf("answers differ   %zu\n", differ[CHOICE_SUM]);
        else
            printf("answers differ   %zu, per byte %zu, per token %zu\n", differ[CHOICE_SUM], differ[CHOICE_PER_BYTE],
                   differ[CHOICE_PER_TOKEN]);
    }
    printf("items            %zu of %zu%s\n", set->count, set->total, set->count < set->total ? ", evenly spread" : "");
    if (sides[0].cut)
        printf("cut              %zu items were longer than the context\n", sides[0].cut);
    printf("cache            %s\n", kv_name(kv));
}

/* Look at all the questions, plan; then ask. */
static bool answer_side(struct side *side, const struct choice_set *set, const struct engine_args *engine,
                        const struct choice_run *settings, const char *what, struct quern_error *err)
{
    struct progress bar;
    struct choice_run run = *settings;
    size_t cache, scratch;
    run.progress = show_bar;
    run.progress_arg = &bar;
    side->answers = mem_take(set->count, sizeof *side->answers, "answers", err);
    if (!side->answers || !choices_measure(set, side->model, &run, &side->longest, &side->cut, err) ||
        !choices_bytes(&cache, &scratch, side->model, &run, side->longest, err) ||
        !engine_plan_bytes(side->model, engine, session_kv(side->model, run.kv), cache, scratch, err))
        return false;
    progress_begin(&bar, what);
    bool ok = choices_answer(side->answers, NULL, set, side->model, &run, side->longest, err);
    progress_end(&bar);
    return ok;
}

static bool run_choices(const struct eval_args *a, struct quern_error *err)
{
    struct choice_set set;
    struct side sides[2] = {{0}};
    struct engine_args other = a->engine;
    struct args none = {0};
    struct choice_options reading = {.format = a->lambada ? CHOICES_LAMBADA : (enum choice_format)a->mc_format, .shots = a->shots,
                                     .dev = a->dev};
    struct choice_run run = {.context = a->engine.context, .batch = a->engine.batch, .cut = a->on_overflow,
                             .stop = cli_catch_signals()};
    enum kv_type kv = KV_F16;
    other.model = a->against;
    bool ok = choices_open(&set, a->lambada ? a->lambada : a->mc, &reading, err) &&
              (sides[0].model = engine_open(&a->engine, &a->args, err)) != NULL &&
              (!a->against || (sides[1].model = engine_open(&other, &none, err)) != NULL);
    if (ok) {
        kv = both_kv(a, sides[0].model, sides[1].model);
        run.kv = kv_asked(kv);
        choices_limit(&set, a->limit);
        ok = answer_side(&sides[0], &set, &a->engine, &run, "eval", err) &&
             (!a->against || answer_side(&sides[1], &set, &other, &run, "base", err));
    }
    if (ok && a->json)
        answers_json(a, &set, sides, kv);
    else if (ok)
        print_answers(a, &set, sides, kv);
    for (size_t i = 0; i < 2; i++) {
        quern_close_model(sides[i].model);
        free(sides[i].answers);
    }
    choices_close(&set);
    return ok;
}

/* Options that say nothing about what was asked for are refused, not ignored. */
static bool run(struct eval_args *a, struct quern_error *err)
{
    static const char *const of_choices[] = {"limit", "on-overflow"}, *const of_mc[] = {"mc-format", "shots", "dev"};
    size_t asked = (a->text != NULL) + (a->mc != NULL) + (a->lambada != NULL);
    if (asked != 1)
        return ERR(err, QUERN_EUSAGE, "one of --text, --mc, --lambada is needed%s", asked ? ", not more" : "");
    if (!a->text && options_given(&verb_eval, a, "chunks"))
        return ERR(err, QUERN_EUSAGE, "--chunks is for --text; --limit takes some of the items");
    for (size_t i = 0; i < sizeof of_choices / sizeof *of_choices; i++)
        if (a->text && options_given(&verb_eval, a, of_choices[i]))
            return ERR(err, QUERN_EUSAGE, "--%s is for --mc and --lambada", of_choices[i]);
    for (size_t i = 0; i < sizeof of_mc / sizeof *of_mc; i++)
        if (!a->mc && options_given(&verb_eval, a, of_mc[i]))
            return ERR(err, QUERN_EUSAGE, "--%s is for --mc", of_mc[i]);
    if (a->dev && !a->shots)
        return ERR(err, QUERN_EUSAGE, "--dev is for --shots");
    return a->text ? run_text(a, err) : run_choices(a, err);
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
