/* What all verbs that run a model share: the options of the engine, opening it, and its plan of memory.
 *
 * The options are one group (options.h), so that a flag means the same in every verb and stands once in the manual. */
#include "cmd_engine.h"

#include "cpu_words.h"
#include "machine.h"
#include "pool.h"
#include "session.h"

/* Names and letters are llama.cpp's where it has the same thing (-m, -t, -c, -b, --ctx-size), so that habits carry over. */
#define OFFSET(field) offsetof(struct engine_args, field)
const struct option engine_options[] = {
    {.name = "model", .letter = 'm', .kind = OPTION_OPERAND, .offset = OFFSET(model), .arg = "FILE",
     .help = "the model, a GGUF file; it may also stand as an argument of its own"},
    {.name = "threads", .letter = 't', .kind = OPTION_COUNT, .offset = OFFSET(threads), .arg = "N", .fallback = "0",
     .help = "threads; 0: the physical fast cores within the affinity mask and the CPU quota"},
    {.name = "cpu", .kind = OPTION_TEXT, .offset = OFFSET(cpu), .arg = "LEVEL", .choices = CPU_CHOICES,
     .help = "highest instruction set to use (also: environment variable QUERN_CPU)"},
    {.name = "context", .letter = 'c', .alias = "ctx-size", .kind = OPTION_COUNT, .offset = OFFSET(context), .arg = "N",
     .fallback = "0",
     .help = "tokens of context; 0: as trained, at most 4096 (run), 512 (eval --text), as many as there are (logits)"},
    {.name = "batch", .letter = 'b', .alias = "batch-size", .kind = OPTION_COUNT, .offset = OFFSET(batch), .arg = "N",
     .fallback = "0",
     .help = "tokens per pass through the model at most; 0: 512"},
    {.name = "mem-limit", .kind = OPTION_BYTES, .offset = OFFSET(mem_limit), .arg = "SIZE", .fallback = "0",
     .help = "refuse to take more than this for weights, cache and scratch; 0: what the system gives"},
    {.name = "huge-pages", .kind = OPTION_CHOICE, .offset = OFFSET(huge_pages), .arg = "WHEN", .fallback = "auto",
     .choices = HUGE_PAGES_CHOICES,
     .help = "move the weights to huge pages in the background: where memory is plentiful, always or never"},
    {.name = "tokenizer-pre", .kind = OPTION_TEXT, .offset = OFFSET(tokenizer_pre), .arg = "NAME",
     .help = "use this pre-tokenizer instead of the one that the file names"},
    {.name = "limit-metadata", .kind = OPTION_BYTES, .offset = OFFSET(limit_metadata), .arg = "SIZE", .fallback = "256M",
     .help = "refuse files whose keys and values take more than this"},
    {.name = "allow-aliased", .kind = OPTION_SWITCH, .offset = OFFSET(allow_aliased),
     .help = "accept files in which tensors share bytes"},
    {.name = "verbose", .letter = 'v', .kind = OPTION_SWITCH, .offset = OFFSET(verbose),
     .help = "say on stderr what is used and where each setting came from"},
    {0}
};
#undef OFFSET

const char *engine_model_name(const struct engine_args *engine, const struct args *args)
{
    if (engine->model)
        return engine->model;
    return args->operand_count ? args->operands[0] : "tiny-books (inside this program)";
}

const struct gguf *engine_gguf(const struct quern_model *model) { return &model->gguf; }

/* What is no fault but may be a mistake: bytes that nobody reads, tensors that nobody uses. */
static void warn_of_surplus(const struct quern_model *model)
{
    if (model->gguf.trailing)
        cli_warn("%s: %zu bytes after the last tensor are not part of the model", model->gguf.path, model->gguf.trailing);
    if (model->model.extra_tensors)
        cli_warn("%s: %zu tensors are not known to the architecture and not used", model->gguf.path, model->model.extra_tensors);
}

/* Without a name the embedded model speaks, and says so: nobody shall take its sentences for those of the model they meant. */
struct quern_model *engine_open(const struct engine_args *engine, const struct args *args, struct quern_error *err)
{
    struct quern_model_options options = {
        .threads = engine->threads, .cpu = engine->cpu, .tokenizer_pre = engine->tokenizer_pre,
        .limit_metadata = engine->limit_metadata, .allow_aliased = engine->allow_aliased,
        .huge_pages = (enum quern_huge_pages)engine->huge_pages,
    };
    char why[300];
    if (engine->model && args->operand_count) {
        ERR(err, QUERN_EUSAGE, "two models: --model and '%s'", args->operands[0]);
        return NULL;
    }
    if (engine->verbose && engine->threads == 0) {
        pool_default_threads(why, sizeof why);
        fprintf(stderr, "threads: %s\n", why);
    }
    if (engine->model || args->operand_count) {
        struct quern_model *model = quern_open_model(engine_model_name(engine, args), &options, err);
        if (model)
            warn_of_surplus(model);
        return model;
    }
    fputs("quern: no model was named: using tiny-books, a small one inside this program that writes English without much sense\n",
          stderr);
    return quern_view_model(default_model, (size_t)(default_model_end - default_model), "tiny-books", &options, err);
}

size_t engine_context(const struct quern_model *model, const struct engine_args *engine)
{
    struct quern_session_options options = {.context = engine->context};
    session_defaults(model, &options);
    return options.context;
}

/* Would a Q8_0 cache be smaller, and does it fit the model's heads? By trying, as kv_choose does; one tile's tokens tell. */
static bool q8_is_smaller(const struct quern_model *model, enum kv_type kv)
{
    struct quern_error ignored;
    size_t now, then;
    return kv_bytes(&now, &model->model, kv, ATTN_TILE, &ignored) &&
           kv_bytes(&then, &model->model, KV_Q8_0, ATTN_TILE, &ignored) && then < now;
}

/* Refuse before anything is taken. Weights are mapped and could be paged, but a decode step reads all of them: a model larger
 * than the memory would run at the speed of the disk, which nobody wants to discover by waiting. */
bool engine_plan_bytes(const struct quern_model *model, const struct engine_args *engine, enum kv_type kv, size_t cache,
                       size_t scratch, struct quern_error *err)
{
    size_t weights = model->model.weight_bytes, total, limit = engine->mem_limit ? engine->mem_limit : machine_memory("");
    char w[32], c[32], s[32], l[32];
    cli_bytes(w, sizeof w, weights);
    cli_bytes(c, sizeof c, cache);
    cli_bytes(s, sizeof s, scratch);
    cli_bytes(l, sizeof l, limit);
    if (!checked_add(&total, weights, cache) || !checked_add(&total, total, scratch) || (limit && total > limit))
        return ERR(err, QUERN_EMEM, "weights %s + cache %s + scratch %s are more than %s %s%s", w, c, s,
                   engine->mem_limit ? "the limit of" : "this process may have:", l,
                   limit && weights >= limit  ? "; the weights alone do not fit"
                   : cache < scratch          ? ": fewer threads or tokens per pass take less"
                   : q8_is_smaller(model, kv) ? ": a smaller context or --kv q8_0 takes less"
                                              : ": a smaller context takes less");
    if (!engine->quiet)
        fprintf(stderr, "memory: weights %s (mapped), cache %s (%s), scratch %s\n", w, c, kv_name(kv), s);
    return true;
}

bool engine_plan(const struct quern_model *model, const struct engine_args *engine, const struct quern_session_options *session,
                 struct quern_error *err)
{
    size_t cache, scratch;
    return quern_plan_session(model, session, &cache, &scratch, err) &&
           engine_plan_bytes(model, engine, session_kv(model, session->kv), cache, scratch, err);
}
