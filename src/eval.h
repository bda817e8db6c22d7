/* eval.h - how well a model predicts a text, and how far it strays from another model.
 *
 * The text's tokens are cut into chunks of `context`. In each chunk the first token is replaced by the model's beginning token
 * where the model has that habit, and the second half is scored: position p in [context / 2, context - 1) predicts token p + 1.
 * That is llama-perplexity's rule, so figures compare. Perplexity = exp(mean negative log likelihood). */
#ifndef QUERN_EVAL_H
#define QUERN_EVAL_H

#include "runner.h"

struct eval_options {
    size_t       context;        /* tokens per chunk, >= 4                */
    size_t       chunks;         /* at most so many; 0: all               */
    size_t       batch;          /* tokens per pass; 0: 512               */
    enum kv_type kv;
    struct pool *pool;
    const volatile int *stop;    /* may be NULL                           */
    void (*progress)(void *arg, double share);   /* may be NULL           */
    void        *progress_arg;
};

struct eval_result {
    size_t chunks, scored;
    double nll, nll_error;                   /* mean over the scored tokens, standard error of the mean; nats */
    double perplexity, perplexity_error;
    /* Only with a base. KL is KL(base || model) over the whole vocabulary, nats per token. */
    bool   against;
    double base_nll, base_perplexity;
    double kl_mean, kl_error, kl_median, kl_99, kl_999, kl_max;
    double same_top, same_top_error;         /* share of positions with the same most likely token */
};

/* Tokens of the text by the model's own tokenizer; with a base, whose tokenizer must give the same ids (QUERN_EUSAGE else).
 * QUERN_EUSAGE when the text has less than one chunk. `base` may be NULL. */
bool eval_text(struct eval_result *result, const struct quern_model *model, const struct quern_model *base, const char *text,
               size_t n, const struct eval_options *options, struct quern_error *err);
/* The same for tokens: ids [count] of both models. */
bool eval_tokens(struct eval_result *result, const struct quern_model *model, const struct quern_model *base, const int32_t *tokens,
                 size_t count, const struct eval_options *options, struct quern_error *err);
/* Caches and scratch that an evaluation takes for one model, logits counted. */
bool eval_bytes(size_t *cache, size_t *scratch, const struct quern_model *model, const struct eval_options *options,
                struct quern_error *err);

#endif
