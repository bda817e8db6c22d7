/* quern.h - the public interface of libquern: open a model, keep a session, sample.
 *
 *     struct quern_error err;
 *     struct quern_model *m = quern_open_model("model.gguf", NULL, &err);
 *     struct quern_session *s = quern_open_session(m, NULL, &err);
 *     struct quern_sampler *sampler = quern_open_sampler(m, NULL, &err);
 *     quern_sync_session(s, tokens, n, &err);                  logits after the last token
 *     int32_t next = quern_sample_token(sampler, quern_session_logits(s), &err);
 *
 * Functions that can fail give false or NULL and fill the error; none prints, exits or aborts. A model is immutable and may be
 * shared by sessions in several threads; a session and a sampler belong to one thread at a time. */
#ifndef QUERN_H
#define QUERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define QUERN_VERSION "0.1.0"

/* Also the program's exit codes. */
enum quern_code {
    QUERN_OK = 0,
    QUERN_EFAIL = 1,          /* failure at run time: logits that are not finite, ...   */
    QUERN_EUSAGE = 2,         /* wrong call                                             */
    QUERN_EFORMAT = 3,        /* invalid file                                           */
    QUERN_EUNSUPPORTED = 4,   /* valid, but not supported                               */
    QUERN_EMEM = 5,           /* not enough memory, or more than the limit              */
    QUERN_EIO = 6,            /* reading or writing failed                              */
    QUERN_EQUALITY = 7,       /* a quality gate was not met                             */
    QUERN_ELIMIT = 8,         /* a limit was met: context length, ...                   */
    QUERN_EINTERRUPT = 130    /* the caller's stop flag was set                         */
};

struct quern_error {
    enum quern_code code;
    const char *file;         /* source file and line where it was found */
    int line;
    char text[1000];          /* one sentence, no newline */
};

/* ---- model ------------------------------------------------------------------------------------------------------ */

struct quern_model;

/* Whether a thread moves the weights to huge pages after opening (a third more bandwidth): where memory is plentiful, always, or
 * never. Results are the same. */
enum quern_huge_pages { QUERN_HUGE_PAGES_AUTO, QUERN_HUGE_PAGES_ON, QUERN_HUGE_PAGES_OFF };

struct quern_model_options {
    size_t threads;           /* 0: quern_default_threads                              */
    const char *cpu;          /* cap of the instruction set ("ref", "avx2", ...); NULL: the best */
    const char *tokenizer_pre;/* overrides the file's pre-tokenizer name; NULL: the file's */
    size_t limit_metadata;    /* bytes; 0: 256 MiB                                     */
    bool allow_aliased;       /* tensors may share bytes                               */
    enum quern_huge_pages huge_pages;
};

/* `options` may be NULL. Every tensor's shape is checked against the hyper-parameters before this succeeds. */
struct quern_model *quern_open_model(const char *path, const struct quern_model_options *options, struct quern_error *err);
/* The same from a GGUF file in memory, which must stay as it is until the model is closed.
 * `name` stands for the path in messages. */
struct quern_model *quern_view_model(const void *data, size_t bytes, const char *name, const struct quern_model_options *options,
                                     struct quern_error *err);
void quern_close_model(struct quern_model *model);

size_t quern_model_vocabulary(const struct quern_model *model);     /* tokens, = logits per position */
size_t quern_model_context(const struct quern_model *model);        /* trained context length        */
/* By the name that files give it ("llama", ...); constant. */
const char *quern_model_architecture(const struct quern_model *model);
/* One thread for each fast core that this process may use, within its CPU quota; at least 1. */
size_t quern_default_threads(void);

/* Ids of a text; *ids is malloc'ed, the caller frees it. `special`: texts of special tokens become those tokens. */
bool quern_encode_text(const struct quern_model *model, const char *text, size_t bytes, bool add_bos, bool special, int32_t **ids,
                       size_t *count, struct quern_error *err);
/* Bytes of one token; gives the length, writes at most `size`. */
size_t quern_decode_token(const struct quern_model *model, int32_t id, char *out, size_t size);
/* Does the model end a text or an answer with this token? False for ids outside the vocabulary. */
bool quern_token_ends(const struct quern_model *model, int32_t id);

/* ---- session ---------------------------------------------------------------------------------------------------- */

struct quern_session;

/* The type of the cache of keys and values. DEFAULT: I16 (14-bit integers and a float for each head's row, 3 % more memory than F16
 * at heads of 64; at least as fine for nearly all architectures, and long texts are read faster) where this processor's kernels are
 * made for it and the model's heads allow it; F16 elsewhere. A type asked for by name is refused with QUERN_EUNSUPPORTED for heads
 * that are no multiple of its block (Q8_0, Q4_0: 32 values, I16: 16), I16 also where values are a part of the keys (absorbed latent
 * attention). */
enum quern_kv { QUERN_KV_DEFAULT, QUERN_KV_F32, QUERN_KV_F16, QUERN_KV_BF16, QUERN_KV_Q8_0, QUERN_KV_Q4_0, QUERN_KV_I16 };

/* However tokens are cut into calls and batches, and for any number of threads, a session gives the same bits. */
struct quern_session_options {
    size_t context;           /* tokens; 0: the model's, at most 4096                  */
    size_t batch;             /* tokens per forward pass at most; 0: 512               */
    enum quern_kv kv;         /* type of the cache                                     */
    size_t mem_limit;         /* bytes for cache and scratch; 0: none. More is QUERN_EMEM before anything is taken */
    const volatile int *stop; /* checked between batches and layers; non-zero ends with QUERN_EINTERRUPT. NULL: none */
};

/* Bytes that a session of these options will take. */
bool quern_plan_session(const struct quern_model *model, const struct quern_session_options *options, size_t *kv_bytes,
                        size_t *scratch_bytes, struct quern_error *err);
struct quern_session *quern_open_session(struct quern_model *model, const struct quern_session_options *options,
                                         struct quern_error *err);
void quern_close_session(struct quern_session *session);

/* Make the session hold exactly these tokens: what it shares with the current content is kept, the rest is computed.
 * QUERN_ELIMIT before any compute when they do not fit the context; QUERN_EFAIL for logits that are not finite. */
bool quern_sync_session(struct quern_session *session, const int32_t *tokens, size_t count, struct quern_error *err);
/* Append tokens. */
bool quern_step_session(struct quern_session *session, const int32_t *tokens, size_t count, struct quern_error *err);
/* Cut back to the first `count` tokens. Recurrent models can only be cut to where they are or to 0.
 * The logits are void after it. */
bool quern_rewind_session(struct quern_session *session, size_t count, struct quern_error *err);
size_t quern_session_tokens(const struct quern_session *session, const int32_t **tokens);
/* What the cache is made of, never DEFAULT. */
enum quern_kv quern_session_kv(const struct quern_session *session);
/* f32 [vocabulary] after the last token; valid until the next call that changes the session. */
const float *quern_session_logits(const struct quern_session *session);

/* ---- sampler ---------------------------------------------------------------------------------------------------- */

struct quern_sampler;

struct quern_logit_bias { int32_t token; float bias; };

struct quern_sampler_options {
    float temperature;        /* 0: greedy */
    int32_t top_k;            /* 0: all    */
    float top_p, min_p, typical_p;              /* 1, 0, 1: off */
    float repeat_penalty, frequency_penalty, presence_penalty;  /* 1, 0, 0: off */
    int32_t penalty_last_n;   /* window; -1: the whole context, 0: off */
    float dry_multiplier, dry_base; int32_t dry_allowed_length, dry_last_n;   /* multiplier 0: off */
    uint64_t seed;
    const struct quern_logit_bias *bias; size_t bias_count;
};

/* temperature 0.8, top-k 40, top-p 0.95, min-p 0.05, the rest off, seed 0. */
void quern_default_sampler(struct quern_sampler_options *options);
/* NULL options: the default ones. QUERN_EUSAGE for values out of range, naming them. */
struct quern_sampler *quern_open_sampler(const struct quern_model *model, const struct quern_sampler_options *options,
                                         struct quern_error *err);
void quern_close_sampler(struct quern_sampler *sampler);
/* Pick a token from f32 [vocabulary] logits (not changed) and remember it for the penalties; -1 with the error filled when no
 * token is allowed. */
int32_t quern_sample_token(struct quern_sampler *sampler, const float *logits, struct quern_error *err);
/* Tell the penalties of tokens that were not sampled (the prompt). */
void quern_accept_token(struct quern_sampler *sampler, int32_t token);

#ifdef __cplusplus
}
#endif
#endif
