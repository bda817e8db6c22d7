#include "hf.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DOCUMENT_MOST ((size_t)256 << 20)   /* the largest tokenizer.json seen is 35 MB */
#define TREES_MOST    ((size_t)4 << 30)

/* "FOLDER/NAME" or NULL with *absent when there is no such file. malloc'ed. */
static char *path_in(const struct hf *h, const char *name, bool *absent, struct quern_error *err)
{
    size_t n = strlen(h->path) + strlen(name) + 2;
    char *path = mem_take(n, 1, "a path", err);
    *absent = false;
    if (!path)
        return NULL;
    snprintf(path, n, "%s/%s", h->path, name);
    if (access(path, F_OK) == 0)
        return path;
    *absent = true;
    free(path);
    return NULL;
}

/* NULL in *out and true when the file is absent. */
static bool load_json(struct hf *h, const char *name, const struct json **out, struct quern_error *err)
{
    bool absent;
    struct map file;
    *out = NULL;
    char *path = path_in(h, name, &absent, err);
    if (!path)
        return absent;
    bool ok = map_open(&file, path, err);
    if (ok) {
        *out = json_parse(&h->arena, (const char *)file.data, file.size, path, &(struct json_limits){ .bytes = DOCUMENT_MOST },
                          err);
        if (!*out && err->code == QUERN_ELIMIT)
            err->code = QUERN_EFORMAT;
        else if (*out && (*out)->type != JSON_OBJECT)
            *out = (ERR(err, QUERN_EFORMAT, "%s: not a JSON object", path), NULL);
        ok = *out != NULL;
        map_close(&file);
    }
    free(path);
    return ok;
}

static bool load_map(const struct hf *h, const char *name, struct map *out, struct quern_error *err)
{
    bool absent;
    char *path = path_in(h, name, &absent, err);
    if (!path)
        return absent;
    bool ok = map_open(out, path, err);
    free(path);
    return ok;
}

static bool load_weights(struct hf *h, struct quern_error *err)
{
    static const char *const names[] = { "model.safetensors.index.json", "model.safetensors" };
    for (size_t i = 0; i < 2; i++) {
        bool absent;
        char *path = path_in(h, names[i], &absent, err);
        if (path) {
            bool ok = safetensors_open(&h->weights, path, err);
            free(path);
            return ok;
        }
        if (!absent)
            return false;
    }
    return ERR(err, QUERN_EUNSUPPORTED, "%s: neither model.safetensors nor model.safetensors.index.json is there (other kinds of "
               "weights are not read)", h->path);
}

bool hf_open(struct hf *h, const char *path, struct quern_error *err)
{
    *h = (struct hf){ .path = path };
    arena_init(&h->arena, TREES_MOST);
    bool ok = load_json(h, "config.json", &h->config, err);
    if (ok && !h->config)
        ok = ERR(err, QUERN_EFORMAT, "%s: no config.json (not a model's folder?)", path);
    if (ok) {
        const struct json *text = json_get(h->config, "text_config");
        h->text_config = text && text->type == JSON_OBJECT ? text : h->config;
    }
    ok = ok && load_json(h, "generation_config.json", &h->generation, err) && load_json(h, "tokenizer.json", &h->tokenizer, err) &&
         load_json(h, "tokenizer_config.json", &h->tokenizer_config, err) &&
         load_json(h, "special_tokens_map.json", &h->special_tokens, err) &&
         load_json(h, "added_tokens.json", &h->added_tokens, err) && load_map(h, "tokenizer.model", &h->pieces, err) &&
         load_map(h, "chat_template.jinja", &h->chat_template, err) && load_weights(h, err);
    if (!ok)
        hf_close(h);
    return ok;
}

void hf_close(struct hf *h)
{
    safetensors_close(&h->weights);
    map_close(&h->pieces);
    map_close(&h->chat_template);
    arena_free(&h->arena);
    *h = (struct hf){ 0 };
}

const struct json *hf_get(const struct hf *h, const char *key)
{
    const struct json *found = json_get(h->text_config, key);
    if (!found || found->type == JSON_NULL)
        found = json_get(h->config, key);
    return found && found->type != JSON_NULL ? found : NULL;
}

bool hf_u32(const struct hf *h, const char *key, uint32_t *out, struct quern_error *err)
{
    const struct json *j = hf_get(h, key);
    if (!j)
        return true;
    if (j->type != JSON_NUMBER || !j->integral || j->integer < 0 || j->integer > UINT32_MAX)
        return ERR(err, QUERN_EFORMAT, "%s/config.json: '%s' must be a whole number from 0 to %u", h->path, key, UINT32_MAX);
    *out = (uint32_t)j->integer;
    return true;
}

bool hf_f32(const struct hf *h, const char *key, float *out, struct quern_error *err)
{
    const struct json *j = hf_get(h, key);
    if (!j)
        return true;
    if (j->type != JSON_NUMBER || !isfinite((float)j->number))
        return ERR(err, QUERN_EFORMAT, "%s/config.json: '%s' must be a number", h->path, key);
    *out = (float)j->number;
    return true;
}

bool hf_text_is(const struct json *j, const char *text)
{
    return j && j->type == JSON_STRING && j->n == strlen(text) && !memcmp(j->text, text, j->n);
}
