#include "model.h"

#include <stdlib.h>

#include "cpu_words.h"
#include "pool.h"

bool model_init(struct model *m, const struct gguf *g, const struct kernels *kernels, struct quern_error *err)
{
    *m = (struct model){ 0 };
    arena_init(&m->arena, 0);
    if (model_hyper(m, g, err) && model_weights(m, g, kernels, err))
        return true;
    model_free(m);
    return false;
}

void model_free(struct model *m)
{
    arena_free(&m->arena);
    *m = (struct model){ 0 };
}

/* More tokens than rows would index past the embedding; more rows are padding, whose logits no token names. */
static bool check_vocabulary(const struct quern_model *q, struct quern_error *err)
{
    size_t tokens = tokenizer_size(q->tokenizer), rows = q->model.hyper.vocab;
    if (tokens > rows)
        return ERR(err, QUERN_EFORMAT, "the tokenizer has %zu tokens, the embedding only %zu rows", tokens, rows);
    return true;
}

/* `data` NULL: `name` is a path; else the file's bytes. */
static struct quern_model *open_model(const char *name, const void *data, size_t bytes, const struct quern_model_options *options,
                                      struct quern_error *err)
{
    static const struct quern_model_options NONE = { 0 };
    if (!options)
        options = &NONE;
    struct quern_model *q = mem_take(1, sizeof *q, "a model", err);
    if (!q)
        return NULL;
    if ((size_t)options->huge_pages > QUERN_HUGE_PAGES_OFF) {
        ERR(err, QUERN_EUSAGE, "huge_pages: %d is no choice", (int)options->huge_pages);
        free(q);
        return NULL;
    }
    struct gguf_options file = { .limit_metadata = options->limit_metadata, .allow_aliased = options->allow_aliased };
    struct tokenizer_options words = { .pre = options->tokenizer_pre };
    struct cpu cpu;
    if ((options->threads && !pool_allows(options->threads, err)) || !cpu_choose(&cpu, options->cpu, err) ||
        !(data ? gguf_view(&q->gguf, data, bytes, name, &file, err) : gguf_open(&q->gguf, name, &file, err))) {
        free(q);
        return NULL;
    }
    kernels_init(&q->kernels, &cpu);
    q->threads = options->threads ? options->threads : pool_default_threads(NULL, 0);
    if (model_init(&q->model, &q->gguf, &q->kernels, err) && (q->tokenizer = tokenizer_open(&q->gguf, &words, err)) != NULL &&
        check_vocabulary(q, err)) {
        /* The first token reads every weight: let the system begin now. */
        static const enum settle_mode MODES[] = { [QUERN_HUGE_PAGES_AUTO] = SETTLE_AUTO, [QUERN_HUGE_PAGES_ON] = SETTLE_ON,
                                                  [QUERN_HUGE_PAGES_OFF] = SETTLE_OFF };
        if (!data)
            q->settle = settle_start(q->gguf.parts, q->gguf.part_count, MODES[options->huge_pages]);
        return q;
    }
    error_prefix(err, name);
    quern_close_model(q);
    return NULL;
}

struct quern_model *quern_open_model(const char *path, const struct quern_model_options *options, struct quern_error *err)
{
    return open_model(path, NULL, 0, options, err);
}

struct quern_model *quern_view_model(const void *data, size_t bytes, const char *name, const struct quern_model_options *options,
                                     struct quern_error *err)
{
    return open_model(name, data, bytes, options, err);
}

void quern_close_model(struct quern_model *q)
{
    if (!q)
        return;
    settle_stop(q->settle);
    tokenizer_close(q->tokenizer);
    model_free(&q->model);
    gguf_close(&q->gguf);
    free(q);
}

size_t quern_model_vocabulary(const struct quern_model *q)
{
    return q->model.hyper.vocab;
}

size_t quern_model_context(const struct quern_model *q)
{
    return q->model.hyper.context;
}

const char *quern_model_architecture(const struct quern_model *q)
{
    return q->model.arch->name;
}

size_t quern_default_threads(void)
{
    return pool_default_threads(NULL, 0);
}

bool quern_encode_text(const struct quern_model *q, const char *text, size_t bytes, bool add_bos, bool special, int32_t **ids,
                       size_t *count, struct quern_error *err)
{
    unsigned flags = (add_bos ? TOKENIZE_ADD_SPECIAL : 0u) | (special ? TOKENIZE_PARSE_SPECIAL : 0u);
    return tokenizer_encode(q->tokenizer, text, bytes, flags, ids, count, err);
}

size_t quern_decode_token(const struct quern_model *q, int32_t id, char *out, size_t size)
{
    return tokenizer_piece(q->tokenizer, id, false, out, size);
}

bool quern_token_ends(const struct quern_model *q, int32_t id)
{
    return tokenizer_is_end(q->tokenizer, id);
}
