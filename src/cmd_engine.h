/* cmd_engine.h - options and steps that the verbs which run a model have in common: which model, how it is opened, what it will
 * take, how tokens are drawn. */
#ifndef QUERN_CMD_ENGINE_H
#define QUERN_CMD_ENGINE_H

#include "cli.h"
#include "gguf.h"
#include "kernels.h"

struct engine_args {
    const char *model;
    size_t      threads, context, batch, mem_limit, limit_metadata;
    const char *cpu, *tokenizer_pre;
    int         huge_pages;      /* enum quern_huge_pages */
    bool        allow_aliased, verbose;
    bool        quiet;           /* set by verbs that have --quiet: no plan on stderr */
};
extern const struct option engine_options[];      /* a group; offsets in struct engine_args */

/* The words of --huge-pages, in the order of enum quern_huge_pages. */
#define HUGE_PAGES_CHOICES "auto|on|off"

/* The words of --kv, in the order of enum quern_kv, and its help. */
#define KV_CHOICES "auto|f32|f16|bf16|q8_0|q4_0|i16"
#define KV_HELP "type of the cache of keys and values; auto: i16 where the processor and the model's heads allow it, or else f16"

struct sampling_args {
    struct quern_sampler_options options;
    struct option_texts          bias;
};
extern const struct option sampling_options[];    /* a group; offsets in struct sampling_args */

/* The model inside the program (cmd_default.c), a GGUF file; default_model_end is the first byte after it. */
extern const char default_model[], default_model_end[];

/* Open --model, or the operand, or else the model inside the program (said on stderr). QUERN_EUSAGE when both are given. */
struct quern_model *engine_open(const struct engine_args *engine, const struct args *args, struct quern_error *err);
/* The name that engine_open used, for messages and --json. */
const char *engine_model_name(const struct engine_args *engine, const struct args *args);
/* The context that a session of these options has. */
size_t engine_context(const struct quern_model *model, const struct engine_args *engine);
/* Compare weights + cache + scratch with --mem-limit, or without one with what the system gives this process; QUERN_EMEM says the
 * parts. The plan goes to stderr, unless quiet. */
bool engine_plan(const struct quern_model *model, const struct engine_args *engine, const struct quern_session_options *session,
                 struct quern_error *err);
/* The same for callers that plan their own cache and scratch. */
bool engine_plan_bytes(const struct quern_model *model, const struct engine_args *engine, enum kv_type kv, size_t cache,
                       size_t scratch, struct quern_error *err);

/* Settle the sampler: the model's recommended values (general.sampling.*) where no flag was given, logit biases parsed (*bias is
 * the caller's to free), ranges checked. `from_model[i]` for i < *count are the options that the model decided; capacity 8. */
bool sampling_settle(struct sampling_args *s, const struct verb *verb, const void *settings, const struct gguf *g,
                     struct quern_logit_bias **bias, const char **from_model, size_t *count, struct quern_error *err);

/* The GGUF file behind a model, for keys that the engine itself does not need. */
const struct gguf *engine_gguf(const struct quern_model *model);

#endif
