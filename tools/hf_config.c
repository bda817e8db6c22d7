/* config.json to keys. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "hf_model.h"

uint32_t file_type_of(uint32_t type)
{
    switch (type) {
    case FORMAT_F16:  return 1;
    case FORMAT_Q8_0: return 7;
    case FORMAT_BF16: return 32;
    default:          return 0;
    }
}

/* ---- rope ------------------------------------------------------------------------------------------------------- */

const struct json *hf_rope(const struct hf *h, const char *key)
{
    static const char *const parents[] = { "rope_parameters", "rope_scaling" };
    for (size_t i = 0; i < 2; i++) {
        const struct json *parent = hf_get(h, parents[i]), *full = json_get(parent, "full_attention");
        const struct json *found = json_get(full ? full : parent, key);
        if (found && found->type != JSON_NULL)
            return found;
    }
    return hf_get(h, key);
}

/* rope_type of today, type of yesterday; "default" is none. */
static const char *rope_type(const struct hf *h)
{
    const struct json *j = hf_rope(h, "rope_type");
    if (!j)
        j = json_get(hf_get(h, "rope_scaling"), "type");
    return j && j->type == JSON_STRING && strcmp(j->text, "default") ? j->text : NULL;
}

static bool rope_f32(const struct hf *h, const char *key, float *out, bool *found, struct quern_error *err)
{
    const struct json *j = hf_rope(h, key);
    if (found)
        *found = j != NULL;
    if (!j)
        return true;
    if (j->type != JSON_NUMBER || !isfinite((float)j->number))
        return ERR(err, QUERN_EFORMAT, "%s/config.json: rope's '%s' must be a number", h->path, key);
    *out = (float)j->number;
    return true;
}

/* Llama 3: low frequencies are divided by `factor`, high ones are left, between them it slides. The tensor holds the divisors. */
static bool llama3_factors(const struct hf_plan *plan, struct hf *h, float *out, size_t n, struct quern_error *err)
{
    float factor = 8, low = 1, high = 4, old = 8192;
    if (!rope_f32(h, "factor", &factor, NULL, err) || !rope_f32(h, "low_freq_factor", &low, NULL, err) ||
        !rope_f32(h, "high_freq_factor", &high, NULL, err) || !rope_f32(h, "original_max_position_embeddings", &old, NULL, err))
        return false;
    if (!(factor > 0) || !(low > 0) || !(high > low) || !(old > 0))
        return ERR(err, QUERN_EFORMAT, "%s/config.json: llama3 rope scaling needs factor > 0 and 0 < low_freq_factor < "
                   "high_freq_factor",
                   h->path);
    for (size_t i = 0; i < n; i++) {
        float freq = 1.0f / powf(plan->rope_theta, (float)(2 * i) / (float)(2 * n));
        float length = 2 * (float)M_PI / freq;
        float smooth = (old / length - low) / (high - low);
        out[i] = length < old / high ? 1 : length > old / low ? factor : 1 / ((1 - smooth) / factor + smooth);
    }
    return true;
}

bool hf_rope_factors(const struct hf_plan *plan, struct hf *h, const char *which, float **out, size_t *n, struct quern_error *err)
{
    const char *type = rope_type(h);
    const struct json *list = hf_rope(h, which);
    *out = NULL;
    *n = plan->head_dim / 2;
    if (!strcmp(which, "llama3")) {
        if (!type || strcmp(type, "llama3"))
            return true;
        *out = arena_take(&h->arena, *n, sizeof **out, "rope factors", err);
        return *out && llama3_factors(plan, h, *out, *n, err);
    }
    if (!list)
        return true;
    if (list->type != JSON_ARRAY || !list->n || list->n > *n)
        return ERR(err, QUERN_EFORMAT, "%s/config.json: '%s' must be a list of at most %zu numbers", h->path, which, *n);
    *n = list->n;
    *out = arena_take(&h->arena, *n, sizeof **out, "rope factors", err);
    for (size_t i = 0; *out && i < *n; i++) {
        (*out)[i] = (float)list->items[i]->number;
        if (list->items[i]->type != JSON_NUMBER || !isfinite((*out)[i]) || !((*out)[i] > 0))
            return ERR(err, QUERN_EFORMAT, "%s/config.json: '%s' holds something else than positive numbers", h->path, which);
    }
    return *out != NULL;
}

/* ---- keys ------------------------------------------------------------------------------------------------------- */

struct keys {
    const struct hf_plan *plan;
    const struct hf *h;
    struct gguf_writer *w;
    struct quern_error *err;
};

static const char *arch_key(const struct keys *k, char *out, size_t size, const char *name)
{
    snprintf(out, size, "%s.%s", k->plan->family->arch, name);
    return out;
}

static bool put_u32(const struct keys *k, const char *name, uint32_t value)
{
    char key[96];
    return gguf_writer_u32(k->w, arch_key(k, key, sizeof key, name), value, k->err);
}

static bool put_f32(const struct keys *k, const char *name, float value)
{
    char key[96];
    return gguf_writer_f32(k->w, arch_key(k, key, sizeof key, name), value, k->err);
}

static bool put_text(const struct keys *k, const char *name, const char *value)
{
    char key[96];
    return gguf_writer_text(k->w, arch_key(k, key, sizeof key, name), value, k->err);
}

/* A number of the config, if it is there, under another name. */
static bool copy_u32(const struct keys *k, const char *from, const char *name)
{
    uint32_t value = 0;
    return !hf_get(k->h, from) || (hf_u32(k->h, from, &value, k->err) && put_u32(k, name, value));
}

static bool copy_f32(const struct keys *k, const char *from, const char *name)
{
    float value = 0;
    return !hf_get(k->h, from) || (hf_f32(k->h, from, &value, k->err) && put_f32(k, name, value));
}

static bool copy_rope(const struct keys *k, const char *from, const char *name)
{
    float value = 0;
    bool found;
    return rope_f32(k->h, from, &value, &found, k->err) && (!found || put_f32(k, name, value));
}

static bool rope_original(const struct keys *k, uint32_t fallback)
{
    float value = (float)fallback;
    if (!rope_f32(k->h, "original_max_position_embeddings", &value, NULL, k->err))
        return false;
    if (!(value >= 1) || value > 1e9f)
        return ERR(k->err, QUERN_EFORMAT, "%s/config.json: original_max_position_embeddings %g", k->h->path, (double)value);
    return put_u32(k, "rope.scaling.original_context_length", (uint32_t)value);
}

/* Longer contexts than trained. llama3 and longrope work through tensors (hf_rope_factors). */
static bool put_scaling(const struct keys *k)
{
    const char *type = rope_type(k->h);
    if (!type || !strcmp(type, "llama3") || !strcmp(type, "longrope") || !strcmp(type, "su"))
        return true;
    if (strcmp(type, "linear") && strcmp(type, "yarn"))
        return ERR(k->err, QUERN_EUNSUPPORTED, "%s/config.json: rope scaling '%s'; known are linear, yarn, llama3, longrope",
                   k->h->path, type);
    if (!hf_rope(k->h, "factor"))
        return ERR(k->err, QUERN_EFORMAT, "%s/config.json: rope scaling '%s' without its factor", k->h->path, type);
    if (!put_text(k, "rope.scaling.type", type) || !copy_rope(k, "factor", "rope.scaling.factor"))
        return false;
    if (!strcmp(type, "linear"))
        return true;
    const char *attention = hf_rope(k->h, "attention_factor") ? "attention_factor" : "attn_factor";
    return rope_original(k, k->plan->context) && copy_rope(k, "extrapolation_factor", "rope.scaling.yarn_ext_factor") &&
           copy_rope(k, attention, "rope.scaling.yarn_attn_factor") && copy_rope(k, "beta_fast", "rope.scaling.yarn_beta_fast") &&
           copy_rope(k, "beta_slow", "rope.scaling.yarn_beta_slow");
}

/* Long contexts by two sets of factors: attention is scaled for the longer one (Ding et al. 2024). */
static bool put_phi3(const struct keys *k)
{
    const struct hf_plan *plan = k->plan;
    float part = 1, original = (float)plan->context;
    uint32_t window = 0;
    if (!rope_f32(k->h, "partial_rotary_factor", &part, NULL, k->err) || !hf_u32(k->h, "sliding_window", &window, k->err) ||
        !rope_f32(k->h, "original_max_position_embeddings", &original, NULL, k->err))
        return false;
    if (!(part > 0 && part <= 1))
        return ERR(k->err, QUERN_EFORMAT, "%s/config.json: partial_rotary_factor %g", k->h->path, (double)part);
    if (!rope_original(k, plan->context) ||
        !put_u32(k, "rope.dimension_count", (uint32_t)((double)part * plan->hidden) / plan->heads) ||
        !put_u32(k, "attention.sliding_window", window))
        return false;
    if (!hf_rope(k->h, "long_factor"))
        return true;
    double scale = plan->context / (double)original;
    return put_f32(k, "rope.scaling.attn_factor", scale > 1 ? (float)sqrt(1 + log(scale) / log((double)original)) : 1);
}

static bool put_gemma(const struct keys *k)
{
    const char *arch = k->plan->family->arch;
    if (!put_u32(k, "attention.key_length", k->plan->head_dim) || !put_u32(k, "attention.value_length", k->plan->head_dim))
        return false;
    if (!strcmp(arch, "gemma"))
        return true;
    uint32_t pattern = 6;
    const struct json *local = json_get(json_get(hf_get(k->h, "rope_parameters"), "sliding_attention"), "rope_theta");
    bool gemma3 = !strcmp(arch, "gemma3");
    if (!copy_u32(k, "sliding_window", "attention.sliding_window") ||
        !copy_f32(k, "final_logit_softcapping", "final_logit_softcapping"))
        return false;
    if (!gemma3)
        return copy_f32(k, "attn_logit_softcapping", "attn_logit_softcapping");
    if (hf_get(k->h, "attn_logit_softcapping"))
        return ERR(k->err, QUERN_EUNSUPPORTED, "%s/config.json: gemma3 has no attn_logit_softcapping in GGUF", k->h->path);
    if (!hf_u32(k->h, "sliding_window_pattern", &pattern, k->err) ||
        (pattern != 6 && !put_u32(k, "attention.sliding_window_pattern", pattern)))
        return false;
    if (local && local->type == JSON_NUMBER)
        return put_f32(k, "rope.freq_base_swa", (float)local->number);
    return copy_f32(k, "rope_local_base_freq", "rope.freq_base_swa");
}

/* Settings that would be lost: better said than silent. */
static void warn_of_losses(const struct keys *k)
{
    const struct json *use = hf_get(k->h, "use_sliding_window"), *window = hf_get(k->h, "sliding_window");
    bool llama = !strcmp(k->plan->family->arch, "llama"), qwen = !strncmp(k->plan->family->arch, "qwen", 4);
    bool used = qwen ? use && use->boolean : llama;
    if (used && window && window->integral && (uint64_t)window->integer < k->plan->context)
        cli_warn("sliding_window %lld cannot be said in a GGUF of '%s': attention will see the whole context",
                 (long long)window->integer, k->plan->family->arch);
}

static bool put_family(const struct keys *k)
{
    const struct hf_plan *plan = k->plan;
    const char *arch = plan->family->arch;
    if (!strcmp(arch, "phi3"))
        return put_phi3(k);
    if (!strncmp(arch, "gemma", 5))
        return put_gemma(k);
    if (hf_get(k->h, "head_dim") &&
        (!put_u32(k, "attention.key_length", plan->head_dim) || !put_u32(k, "attention.value_length", plan->head_dim)))
        return false;
    if (plan->experts && (!put_u32(k, "expert_count", plan->experts) || !copy_u32(k, "num_experts_per_tok", "expert_used_count")))
        return false;
    return strcmp(arch, "llama") || put_u32(k, "rope.dimension_count", plan->head_dim);
}

bool hf_write_keys(const struct hf_plan *plan, const struct hf *h, const char *name, uint32_t file_type, struct gguf_writer *w,
                   struct quern_error *err)
{
    struct keys k = { plan, h, w, err };
    float eps = 1e-6f;
    uint32_t inner = 0;
    if (!hf_get(h, "intermediate_size"))
        return ERR(err, QUERN_EFORMAT, "%s/config.json: intermediate_size is missing", h->path);
    if (!hf_u32(h, "intermediate_size", &inner, err))
        return false;
    warn_of_losses(&k);
    return hf_f32(h, "rms_norm_eps", &eps, err) && gguf_writer_text(w, "general.architecture", plan->family->arch, err) &&
           gguf_writer_text(w, "general.type", "model", err) && gguf_writer_text(w, "general.name", name, err) &&
           put_u32(&k, "block_count", plan->layers) && put_u32(&k, "context_length", plan->context) &&
           put_u32(&k, "embedding_length", plan->hidden) && put_u32(&k, "feed_forward_length", inner) &&
           put_u32(&k, "attention.head_count", plan->heads) && put_u32(&k, "attention.head_count_kv", plan->kv_heads) &&
           put_f32(&k, "rope.freq_base", plan->rope_theta) && put_f32(&k, "attention.layer_norm_rms_epsilon", eps) &&
           put_u32(&k, "vocab_size", (uint32_t)plan->vocabulary) && put_family(&k) && put_scaling(&k) &&
           gguf_writer_u32(w, "general.quantization_version", 2, err) && gguf_writer_u32(w, "general.file_type", file_type, err);
}
