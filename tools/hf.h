/* hf.h - a model's folder as it is published: config.json, tokenizer files, weights. */
#ifndef QUERN_HF_H
#define QUERN_HF_H

#include "arena.h"
#include "json.h"
#include "map.h"
#include "safetensors.h"

struct hf {
    const char        *path;
    const struct json *config;             /* config.json, always there             */
    const struct json *text_config;        /* its text_config, or config itself     */
    const struct json *generation;         /* NULL when absent: from here on        */
    const struct json *tokenizer;          /* tokenizer.json                        */
    const struct json *tokenizer_config;
    const struct json *special_tokens;     /* special_tokens_map.json               */
    const struct json *added_tokens;       /* added_tokens.json                     */
    struct map         pieces;             /* tokenizer.model; size 0 when absent   */
    struct map         chat_template;      /* chat_template.jinja                   */
    struct safetensors weights;
    struct arena       arena;              /* holds the documents                   */
};

/* QUERN_EFORMAT for broken files, QUERN_EUNSUPPORTED for a folder without safetensors, QUERN_EIO, QUERN_EMEM. On failure
 * nothing is held. `path` must outlive the result. */
bool hf_open(struct hf *h, const char *path, struct quern_error *err);
void hf_close(struct hf *h);

/* A member of text_config, else of config; NULL when absent or null. */
const struct json *hf_get(const struct hf *h, const char *key);
/* Typed readers: absent leaves *out untouched and gives true; of another type, or beyond the range, QUERN_EFORMAT naming key and
 * file. */
bool hf_u32(const struct hf *h, const char *key, uint32_t *out, struct quern_error *err);
bool hf_f32(const struct hf *h, const char *key, float *out, struct quern_error *err);
bool hf_text_is(const struct json *j, const char *text);

#endif
