/* Hyper-parameters: the keys of the file, checked against each other before any tensor is looked at.
 *
 * Key names are those of llama.cpp's files, "ARCH.attention.head_count" and so on; what is absent has the default that those
 * files count on. Two kinds of values are refused: those that no model can mean (a base of 0, a NaN), and those that do not fit
 * another key. Whether they fit the tensors is weights.c's question. */
#include "model.h"

#include <math.h>
#include <stdio.h>

/* Limits that no real model comes near; they keep later sums of sizes small. */
enum { MAX_WIDTH = 1 << 20, MAX_HEADS = 1 << 14, MAX_HEAD_DIM = 1 << 14, MAX_FF = 1 << 24 };

/* What every reading function needs, and room for the names that it builds and that its messages show. It lives on the stack of
 * model_hyper only. */
struct reader {
    const struct gguf  *g;
    const char         *arch;
    struct quern_error *err;
    char                key[160];
    char                shown[200];
};

/* "llama.block_count"; valid until the next call. */
static const char *key_of(struct reader *r, const char *name)
{
    snprintf(r->key, sizeof r->key, "%s.%s", r->arch, name);
    return r->key;
}

/* The same for messages: "'llama.block_count' at byte 143". */
static const char *shown(struct reader *r, const char *name)
{
    const struct gguf_value *value = gguf_find(r->g, key_of(r, name));
    int n = snprintf(r->shown, sizeof r->shown, "'%s'", r->key);
    for (size_t i = 0; value && i < r->g->kv_count; i++)
        if (&r->g->kvs[i].value == value)
            snprintf(r->shown + n, sizeof r->shown - (size_t)n, " at byte %zu", r->g->kvs[i].offset);
    return r->shown;
}

static bool has(struct reader *r, const char *name)
{
    return gguf_find(r->g, key_of(r, name)) != NULL;
}

static bool missing(struct reader *r, const char *name)
{
    return ERR(r->err, QUERN_EFORMAT, "key %s is missing", shown(r, name));
}

/* A count in [low, high]; absent: *out stays. */
static bool count(struct reader *r, const char *name, size_t low, size_t high, size_t *out)
{
    uint32_t value = 0;
    if (!has(r, name))
        return true;
    if (!gguf_read_u32(r->g, r->key, &value, r->err))
        return false;
    if (value < low || value > high)
        return ERR(r->err, QUERN_EFORMAT, "key %s is %u, allowed is %zu to %zu", shown(r, name), value, low, high);
    *out = value;
    return true;
}

static bool need_count(struct reader *r, const char *name, size_t low, size_t high, size_t *out)
{
    return has(r, name) ? count(r, name, low, high, out) : missing(r, name);
}

/* A finite number; absent: *out stays. */
static bool number(struct reader *r, const char *name, float *out)
{
    float value = 0;
    if (!has(r, name))
        return true;
    if (!gguf_read_f32(r->g, r->key, &value, r->err))
        return false;
    if (!isfinite(value))
        return ERR(r->err, QUERN_EFORMAT, "key %s is %g, a finite number is needed", shown(r, name), (double)value);
    *out = value;
    return true;
}

/* A finite number above 0; absent: *out stays. */
static bool positive(struct reader *r, const char *name, float *out)
{
    float value = 1;
    if (!number(r, name, &value))
        return false;
    if (!(value > 0))
        return ERR(r->err, QUERN_EFORMAT, "key %s is %g, a number above 0 is needed", shown(r, name), (double)value);
    if (has(r, name))
        *out = value;
    return true;
}

static bool positive_double(struct reader *r, const char *name, double *out)
{
    float value = (float)*out;
    if (!positive(r, name, &value))
        return false;
    if (has(r, name))
        *out = value;
    return true;
}

/* One number for all layers or an array with one per layer. */
static bool per_layer(struct reader *r, const char *name, size_t layers, size_t high, size_t *out)
{
    const struct gguf_value *value = gguf_find(r->g, key_of(r, name));
    if (!value)
        return true;
    if (value->type != GGUF_ARRAY) {
        size_t one = 0;
        if (!count(r, name, 0, high, &one))
            return false;
        for (size_t i = 0; i < layers; i++)
            out[i] = one;
        return true;
    }
    if (value->as.array.n != layers)
        return ERR(r->err, QUERN_EFORMAT, "key %s has %zu elements, the model has %zu layers", shown(r, name),
                   value->as.array.n, layers);
    for (size_t i = 0; i < layers; i++) {
        int64_t element = 0;
        if (!gguf_array_i64(value, i, &element))
            return ERR(r->err, QUERN_EFORMAT, "key %s: element %zu is not an integer (array of %s)", shown(r, name), i,
                       gguf_type_name(value->as.array.type));
        if (element < 0 || (uint64_t)element > high)
            return ERR(r->err, QUERN_EFORMAT, "key %s: element %zu is %lld, allowed is 0 to %zu", shown(r, name), i,
                       (long long)element, high);
        out[i] = (size_t)element;
    }
    return true;
}

/* The list of architectures, as much as fits. */
static bool unknown_arch(struct quern_error *err, const char *name, size_t n)
{
    char text[80], list[700];
    size_t used = 0;
    list[0] = '\0';
    for (size_t i = 0; arch_at(i) && used < sizeof list; i++)
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", arch_at(i)->name);
    return ERR(err, QUERN_EUNSUPPORTED, "architecture '%s' is not supported; supported are %s",
               text_escape(text, sizeof text, name, n), list);
}

static bool read_arch(struct model *m, const struct gguf *g, struct quern_error *err)
{
    struct gguf_string name = { "", 0 };
    const struct gguf_value *value = gguf_find(g, "general.architecture");
    if (!value)
        return ERR(err, QUERN_EUNSUPPORTED, "key 'general.architecture' is missing: which architecture this is cannot be told");
    if (value->type != GGUF_STRING)
        return ERR(err, QUERN_EFORMAT, "key 'general.architecture' is of type %s, string is needed", gguf_type_name(value->type));
    if (!gguf_read_string(g, "general.architecture", &name, err))
        return false;
    m->arch = arch_find(name.text, name.n);
    return m->arch || unknown_arch(err, name.text, name.n);
}

/* Head counts of each layer, and whether they fit together. */
static bool read_heads(struct model *m, struct reader *r)
{
    struct hyper *h = &m->hyper;
    size_t *list = arena_take(&m->arena, h->layers, sizeof *list, "head counts", r->err);
    if (!list)
        return false;
    bool may_lack = m->arch->flags & ARCH_LAYERS_MAY_LACK, recurrent = m->arch->mixer != MIXERS_ATTENTION;
    if (m->arch->mixer != MIXERS_SSM && !has(r, "attention.head_count"))
        return missing(r, "attention.head_count");
    if (!per_layer(r, "attention.head_count", h->layers, MAX_HEADS, list))
        return false;
    for (size_t i = 0; i < h->layers; i++)
        m->layer[i].heads = m->layer[i].kv_heads = list[i];
    if (has(r, "attention.head_count_kv")) {
        if (!per_layer(r, "attention.head_count_kv", h->layers, MAX_HEADS, list))
            return false;
        for (size_t i = 0; i < h->layers; i++)
            m->layer[i].kv_heads = list[i];
    }
    if (m->arch->mixer == MIXERS_SSM)
        return true;
    for (size_t i = 0; i < h->layers; i++) {
        size_t heads = m->layer[i].heads, kv = m->layer[i].kv_heads;
        if (heads == 0 && !may_lack)
            return ERR(r->err, QUERN_EFORMAT, "key %s is 0 in layer %zu", shown(r, "attention.head_count"), i);
        if (kv == 0 && heads != 0 && !may_lack && !(recurrent && m->arch->mixer == MIXERS_CONV))
            return ERR(r->err, QUERN_EFORMAT, "key %s is 0 in layer %zu", shown(r, "attention.head_count_kv"), i);
        if (kv && heads % kv)
            return ERR(r->err, QUERN_EFORMAT, "layer %zu: %zu heads cannot share %zu key heads evenly (%s)", i, heads, kv,
                       key_of(r, "attention.head_count_kv"));
    }
    return true;
}

/* The size of a head: width / heads unless the file says otherwise. The first layer that has heads speaks for all: in files where
 * their number differs from layer to layer (Deci) the size does not. */
static bool read_head_dims(struct model *m, struct reader *r)
{
    struct hyper *h = &m->hyper;
    size_t heads = 0;
    for (size_t i = 0; i < h->layers && !heads; i++)
        heads = m->layer[i].heads;
    if (m->arch->mixer == MIXERS_SSM || !heads)
        return true;
    /* Gemma, Qwen3 and others have heads that do not add up to the width; their files say so by both keys. */
    bool explicit_dims = has(r, "attention.key_length") && has(r, "attention.value_length");
    if (!explicit_dims && h->width % heads)
        return ERR(r->err, QUERN_EFORMAT, "width %zu does not divide into %zu heads, and %s does not say their size", h->width,
                   heads, shown(r, "attention.key_length"));
    h->key_dim = h->value_dim = h->width / heads;
    return count(r, "attention.key_length", 1, MAX_HEAD_DIM, &h->key_dim) &&
           count(r, "attention.value_length", 1, MAX_HEAD_DIM, &h->value_dim);
}

/* How positions are stretched beyond the trained context. A factor without a type is linear, as in the oldest files. */
static bool read_rope_scaling(struct model *m, struct reader *r)
{
    struct rope_hyper *rope = &m->hyper.rope;
    struct gguf_string type = { "linear", 6 };
    char text[80];
    if (has(r, "rope.scaling.type") && !gguf_read_string(r->g, key_of(r, "rope.scaling.type"), &type, r->err))
        return false;
    bool none = gguf_string_is(type, "none");
    rope->yarn = gguf_string_is(type, "yarn");
    if (!none && !rope->yarn && !gguf_string_is(type, "linear") && !gguf_string_is(type, "longrope"))
        return ERR(r->err, QUERN_EUNSUPPORTED, "key %s is '%s'; supported are none, linear, yarn, longrope",
                   shown(r, "rope.scaling.type"), text_escape(text, sizeof text, type.text, type.n));
    if (has(r, "rope.scaling.factor") ? !positive_double(r, "rope.scaling.factor", &rope->factor)
                                      : !positive_double(r, "rope.scale_linear", &rope->factor))
        return false;
    /* "none" wins over a factor that a converter left behind. */
    if (none)
        rope->factor = 1;
    float log_multiplier = 0;
    if (!positive_double(r, "rope.scaling.attn_factor", &rope->attn_factor) ||
        !positive_double(r, "rope.scaling.yarn_beta_fast", &rope->beta_fast) ||
        !positive_double(r, "rope.scaling.yarn_beta_slow", &rope->beta_slow) ||
        !count(r, "rope.scaling.original_context_length", 1, UINT32_MAX, &rope->original_context))
        return false;
    if ((m->arch->flags & ARCH_YARN_LOG) && !number(r, "rope.scaling.yarn_log_multiplier", &log_multiplier))
        return false;
    /* YaRN (Peng et al. 2023) scales queries and keys by 1 + 0.1 ln(factor); DeepSeek divides by the same with its own multiplier,
     * which for MLA is folded into the scale of the scores instead (read_mla). Files of DeepSeek hold a tenth of the multiplier. */
    bool mla = m->arch->mixer == MIXERS_MLA;
    rope->log_multiplier = mla ? (double)log_multiplier / (double)0.1f : (double)log_multiplier;
    if (rope->yarn && rope->factor > 1) {
        double grow = 0.1 * log(rope->factor);
        rope->yarn_magnitude = mla && rope->log_multiplier != 0 ? 1 : (1 + grow) / (1 + rope->log_multiplier * grow);
    }
    return true;
}

/* Base and width of the rotation. Partial rotation (dims < key_dim) leaves the tail of each head as it is. */
static bool read_rope(struct model *m, struct reader *r)
{
    struct hyper *h = &m->hyper;
    struct rope_hyper *rope = &h->rope;
    *rope = (struct rope_hyper){ .base = 10000, .base_local = 10000, .factor = 1, .beta_fast = 32, .beta_slow = 1,
                                 .attn_factor = 1, .yarn_magnitude = 1, .original_context = h->context, .dims = h->key_dim };
    if (m->arch->rope == ROPE_NONE)
        return true;
    if (!positive_double(r, "rope.freq_base", &rope->base) || !count(r, "rope.dimension_count", 1, MAX_HEAD_DIM, &rope->dims))
        return false;
    if (rope->dims % 2 || rope->dims > h->key_dim)
        return ERR(r->err, QUERN_EFORMAT, "key %s is %zu, an even number up to the head size %zu is needed",
                   shown(r, "rope.dimension_count"), rope->dims, h->key_dim);
    /* Only Gemma 3 turns its windowed layers by another base, 10000 however large the other is. */
    if (m->arch->rope_local != LOCAL_OWN_BASE)
        rope->base_local = rope->base;
    return positive_double(r, "rope.freq_base_swa", &rope->base_local) && read_rope_scaling(m, r);
}

/* Which layers look through a window, and which rotate. */
static bool read_windows(struct model *m, struct reader *r)
{
    const struct arch *arch = m->arch;
    struct hyper *h = &m->hyper;
    size_t size = arch->window.size, period = arch->window.period;
    const struct gguf_value *pattern = NULL;
    if (period) {
        size_t low = arch->window.size || arch->window.required ? 1 : 0;
        if (arch->flags & ARCH_LLAMA4)
            low = 0;
        if (arch->window.required && !has(r, "attention.sliding_window"))
            return missing(r, "attention.sliding_window");
        if (!count(r, "attention.sliding_window", low, UINT32_MAX, &size))
            return false;
        /* Llama 4's chunks are always of 8192; the key only switches them off. */
        if ((arch->flags & ARCH_LLAMA4) && size)
            size = arch->window.size;
        h->chunked = arch->flags & ARCH_LLAMA4;
        pattern = gguf_find(r->g, key_of(r, "attention.sliding_window_pattern"));
        if (pattern && pattern->type == GGUF_ARRAY) {
            if (pattern->as.array.n != h->layers)
                return ERR(r->err, QUERN_EFORMAT, "key %s has %zu elements, the model has %zu layers",
                           shown(r, "attention.sliding_window_pattern"), pattern->as.array.n, h->layers);
        } else {
            pattern = NULL;
            if (!count(r, "attention.sliding_window_pattern", 0, MODEL_MAX_LAYERS, &period))
                return false;
        }
    }
    /* Of each period all layers but the last have the window, unless the file says it layer by layer. */
    for (size_t i = 0; i < h->layers; i++) {
        struct layer *l = &m->layer[i];
        bool windowed = size && (period == 0 || i % period < period - 1) && arch->window.period;
        int64_t flag = 0;
        if (pattern && size) {
            if (!gguf_array_i64(pattern, i, &flag))
                return ERR(r->err, QUERN_EFORMAT, "key %s: element %zu is no truth value",
                           shown(r, "attention.sliding_window_pattern"), i);
            windowed = flag != 0;
        }
        l->window = windowed ? size : 0;
        bool rotates = arch->rope != ROPE_NONE;
        if (arch->rope_where == ROPE_WINDOWED || arch->rope_where == ROPE_WINDOWED_IF_ANY)
            rotates = rotates && (windowed || (size == 0 && !arch->window.required));
        if (arch->rope_where == ROPE_THREE_OF_FOUR)
            rotates = rotates && (i + 1) % 4 != 0;
        l->rope = !rotates ? ROPE_TABLE_NONE
                : windowed && arch->rope_local != LOCAL_SAME ? ROPE_TABLE_LOCAL : ROPE_TABLE_MAIN;
    }
    return true;
}

/* Factors on embeddings, residuals, scores and logits, and the soft caps. */
static bool read_scales(struct model *m, struct reader *r)
{
    struct hyper *h = &m->hyper;
    uint32_t flags = m->arch->flags;
    float logit = 0, scale = 0;
    h->embed_scale = h->residual_scale = h->logit_scale = 1;
    if (flags & ARCH_EMBED_SQRT)
        h->embed_scale = sqrtf((float)h->width);
    /* MiniCPM's constants, for files from before the keys existed: scale_emb 12, scale_depth 1.4, dim_model_base 256. */
    if (flags & ARCH_MINICPM_SCALES) {
        h->embed_scale = 12;
        h->residual_scale = 1.4f / sqrtf((float)h->layers);
        logit = 256.0f / (float)h->width;
    }
    if (flags & ARCH_SCALES) {
        if (!positive(r, "embedding_scale", &h->embed_scale) || !positive(r, "residual_scale", &h->residual_scale) ||
            !positive(r, "attention.scale", &scale))
            return false;
    }
    /* Granite divides by its logit_scale, Command-R multiplies by a key of the same name. */
    if (flags & (ARCH_LOGITS_DIVIDED | ARCH_LOGITS_TIMES)) {
        if (!positive(r, "logit_scale", &logit))
            return false;
        if (logit == 0 && (flags & ARCH_LOGITS_DIVIDED))
            return missing(r, "logit_scale");
        if (logit != 0)
            h->logit_scale = flags & ARCH_LOGITS_DIVIDED ? 1 / logit : logit;
    }
    if (flags & ARCH_SOFTCAP) {
        h->attn_softcap = 50;
        h->logit_softcap = 30;
        if (!positive(r, "attn_logit_softcapping", &h->attn_softcap))
            return false;
    }
    if ((flags & (ARCH_SOFTCAP | ARCH_SOFTCAP_FINAL)) && !number(r, "final_logit_softcapping", &h->logit_softcap))
        return false;
    if (h->logit_softcap < 0)
        return ERR(r->err, QUERN_EFORMAT, "key %s is %g, negative", shown(r, "final_logit_softcapping"), (double)h->logit_softcap);
    if (flags & ARCH_ALIBI) {
        if (!has(r, "attention.max_alibi_bias"))
            return missing(r, "attention.max_alibi_bias");
        if (!number(r, "attention.max_alibi_bias", &h->alibi) || !number(r, "attention.clamp_kqv", &h->clamp_qkv))
            return false;
    }
    /* The two 27B Gemmas scale by width / heads, the others by the head size; the files do not say which. */
    size_t head = h->key_dim ? h->key_dim : 1;
    if ((flags & ARCH_NORM_BY_LAYERS) && (h->layers == (m->arch->window.period == 2 ? 46u : 62u)))
        head = h->width / m->layer[0].heads;
    h->attn_scale = scale != 0 ? scale : 1 / sqrtf((float)head);
    return true;
}

/* Llama 4 and Mistral 3 sharpen attention at far positions. */
static bool read_temperature(struct model *m, struct reader *r)
{
    struct hyper *h = &m->hyper;
    if ((m->arch->flags & ARCH_LLAMA4) && m->layer[0].window) {
        h->temperature = 0.1f;
        h->temperature_offset = 1;
        h->temperature_floor = 8192;
    }
    if (m->arch->flags & ARCH_TEMPERATURE) {
        h->temperature_floor = h->rope.original_context;
        return number(r, "attention.temperature_scale", &h->temperature);
    }
    return true;
}

/* Widths of the experts and of the shared one, which have keys of their own in some files and follow from others in the rest. */
static bool read_expert_widths(struct model *m, struct reader *r)
{
    struct hyper *h = &m->hyper;
    const struct arch *arch = m->arch;
    size_t ff = 0, shared = 0;
    for (size_t i = 0; i < h->layers; i++)
        if (m->layer[i].ff > ff)
            ff = m->layer[i].ff;
    /* Without a key Mixtral's experts are as wide as feed_forward_length says, Qwen's share it. */
    bool divided = arch->experts.shared_gate || arch->mixer == MIXERS_MLA || arch->qk_norm == QK_HEAD;
    h->expert_ff = divided ? ff / h->experts_used : ff;
    if (!count(r, "expert_feed_forward_length", 1, MAX_FF, &h->expert_ff))
        return false;
    if (h->expert_ff == 0)
        return missing(r, "expert_feed_forward_length");
    if (arch->experts.shared_gate)
        h->shared_ff = ff;
    if (arch->flags & ARCH_LLAMA4)
        h->shared_ff = h->expert_ff;
    if (arch->mixer == MIXERS_MLA) {
        if (!need_count(r, "expert_shared_count", 0, MODEL_MAX_EXPERTS, &shared))
            return false;
        h->shared_ff = shared * h->expert_ff;
    }
    return count(r, "expert_shared_feed_forward_length", 0, MAX_FF, &h->shared_ff);
}

/* How a token's experts are chosen and weighed. */
static bool read_gating(struct model *m, struct reader *r)
{
    struct hyper *h = &m->hyper;
    size_t gating = m->arch->experts.gating;
    h->expert_scale = 1;
    h->normalise_experts = m->arch->experts.normalise;
    if (m->arch->mixer == MIXERS_MLA) {
        if (!count(r, "expert_gating_func", 1, 2, &gating) || !number(r, "expert_weights_scale", &h->expert_scale))
            return false;
        if (has(r, "expert_weights_norm") && !gguf_read_bool(r->g, r->key, &h->normalise_experts, r->err))
            return false;
    }
    h->gating = (enum gating_kind)gating;
    if (!count(r, "expert_group_count", 0, h->experts, &h->expert_groups) ||
        !count(r, "expert_group_used_count", 0, h->experts, &h->groups_used))
        return false;
    if (h->expert_groups > 1 && (h->experts % h->expert_groups || h->groups_used == 0 || h->groups_used > h->expert_groups ||
                                 h->groups_used * (h->experts / h->expert_groups) < h->experts_used))
        return ERR(r->err, QUERN_EFORMAT, "%zu experts in %zu groups of which %zu are used cannot give %zu experts (%s)",
                   h->experts, h->expert_groups, h->groups_used, h->experts_used, shown(r, "expert_group_count"));
    return true;
}

static bool read_experts(struct model *m, struct reader *r)
{
    struct hyper *h = &m->hyper;
    if (!count(r, "expert_count", 0, MODEL_MAX_EXPERTS, &h->experts))
        return false;
    if (h->experts == 0) {
        if ((m->arch->flags & ARCH_EXPERTS) && !has(r, "expert_count"))
            return missing(r, "expert_count");
        if (m->arch->flags & ARCH_EXPERTS)
            return ERR(r->err, QUERN_EFORMAT, "key %s is 0, this architecture needs experts", shown(r, "expert_count"));
        if (gguf_find_tensor(r->g, "blk.0.ffn_gate_inp.weight") || gguf_find_tensor(r->g, "blk.0.ffn_down_exps.weight"))
            return ERR(r->err, QUERN_EFORMAT, "the file has tensors of experts, but key %s is 0 or missing",
                       shown(r, "expert_count"));
        return true;
    }
    if (m->arch->experts.gating == 0)
        return ERR(r->err, QUERN_EUNSUPPORTED, "key %s is %zu: experts are not supported in architecture '%s'",
                   shown(r, "expert_count"), h->experts, m->arch->name);
    return need_count(r, "expert_used_count", 1, h->experts, &h->experts_used) && read_expert_widths(m, r) && read_gating(m, r);
}

/* Which layers have which feed-forward part. */
static bool place_experts(struct model *m, struct reader *r)
{
    struct hyper *h = &m->hyper;
    size_t dense = 0, step = 1;
    if (h->experts == 0)
        return true;
    if (m->arch->mixer == MIXERS_MLA && !count(r, "leading_dense_block_count", 0, h->layers, &dense))
        return false;
    if ((m->arch->flags & ARCH_LLAMA4) && !need_count(r, "interleave_moe_layer_step", 0, MODEL_MAX_LAYERS, &step))
        return false;
    for (size_t i = 0; i < h->layers; i++)
        m->layer[i].experts = i >= dense && step && (i + 1) % step == 0;
    return true;
}

/* Latent attention. Files made since 2025 hold the decompressing matrices apart (key_length_mla is there) and are run absorbed:
 * all heads share one key head, whose rows are the latent and the rotated part. */
static bool read_mla(struct model *m, struct reader *r)
{
    struct hyper *h = &m->hyper;
    h->mla_key = h->key_dim;
    h->mla_value = h->value_dim;
    if (!count(r, "attention.q_lora_rank", 0, MAX_WIDTH, &h->q_lora) ||
        !need_count(r, "attention.kv_lora_rank", 1, MAX_WIDTH, &h->kv_lora))
        return false;
    h->mla_absorbed = has(r, "attention.key_length_mla");
    if (has(r, "attention.value_length_mla") != h->mla_absorbed)
        return missing(r, h->mla_absorbed ? "attention.value_length_mla" : "attention.key_length_mla");
    if (!count(r, "attention.key_length_mla", 1, MAX_HEAD_DIM, &h->mla_key) ||
        !count(r, "attention.value_length_mla", 1, MAX_HEAD_DIM, &h->mla_value))
        return false;
    if (h->mla_key <= h->rope.dims)
        return ERR(r->err, QUERN_EFORMAT, "heads of %zu values leave none beside the %zu that rotate (%s)", h->mla_key,
                   h->rope.dims, shown(r, "rope.dimension_count"));
    if (h->mla_absorbed) {
        if (h->key_dim != h->kv_lora + h->rope.dims || h->value_dim != h->kv_lora)
            return ERR(r->err, QUERN_EFORMAT, "keys of %zu and values of %zu do not fit a latent of %zu and a rotation of %zu (%s)",
                       h->key_dim, h->value_dim, h->kv_lora, h->rope.dims, shown(r, "attention.key_length"));
        for (size_t i = 0; i < h->layers; i++)
            m->layer[i].kv_heads = 1;
    } else {
        for (size_t i = 0; i < h->layers; i++)
            if (m->layer[i].kv_heads != m->layer[i].heads)
                return ERR(r->err, QUERN_EFORMAT, "key %s is %zu in layer %zu, %zu is needed without '%s.attention.key_length_mla'",
                           shown(r, "attention.head_count_kv"), m->layer[i].kv_heads, i, m->layer[i].heads, r->arch);
    }
    /* Every head's keys are scaled as if they had all been rotated with YaRN's magnitude. */
    double grow = log(h->rope.factor), all = 1 + 0.1 * h->rope.log_multiplier * grow;
    double base = h->rope.attn_factor * (h->rope.yarn ? h->rope.yarn_magnitude : 1 + 0.1 * grow);
    h->attn_scale = (float)(base * base * all * all / sqrt((double)h->mla_key));
    return true;
}

/* State space, delta net and convolution widths; and which mixer each layer has. */
static bool read_mixers(struct model *m, struct reader *r)
{
    struct hyper *h = &m->hyper;
    size_t interval = 4;
    switch (m->arch->mixer) {
    case MIXERS_ATTENTION:
        for (size_t i = 0; i < h->layers; i++)
            m->layer[i].mixer = m->layer[i].heads == 0 ? MIX_NONE : m->layer[i].kv_heads == 0 ? MIX_LINEAR : MIX_ATTENTION;
        return true;
    case MIXERS_MLA:
        for (size_t i = 0; i < h->layers; i++)
            m->layer[i].mixer = MIX_MLA;
        return read_mla(m, r);
    case MIXERS_SSM:
        for (size_t i = 0; i < h->layers; i++)
            m->layer[i].mixer = MIX_SSM;
        return need_count(r, "ssm.conv_kernel", 2, 64, &h->conv_taps) &&
               need_count(r, "ssm.inner_size", 1, MAX_WIDTH, &h->ssm_inner) &&
               need_count(r, "ssm.state_size", 1, MAX_HEAD_DIM, &h->ssm_state) &&
               need_count(r, "ssm.time_step_rank", 1, MAX_WIDTH, &h->ssm_rank);
    case MIXERS_CONV:
        for (size_t i = 0; i < h->layers; i++)
            m->layer[i].mixer = m->layer[i].kv_heads == 0 ? MIX_CONV : MIX_ATTENTION;
        return need_count(r, "shortconv.l_cache", 2, 64, &h->conv_taps);
    case MIXERS_DELTA:
        if (!count(r, "full_attention_interval", 1, MODEL_MAX_LAYERS, &interval) ||
            !need_count(r, "ssm.conv_kernel", 2, 64, &h->conv_taps) ||
            !need_count(r, "ssm.inner_size", 1, MAX_WIDTH, &h->ssm_inner) ||
            !need_count(r, "ssm.state_size", 1, MAX_HEAD_DIM, &h->ssm_state) ||
            !need_count(r, "ssm.time_step_rank", 1, MAX_HEADS, &h->ssm_rank) ||
            !need_count(r, "ssm.group_count", 1, MAX_HEADS, &h->ssm_groups))
            return false;
        if (h->ssm_rank % h->ssm_groups || h->ssm_inner != h->ssm_rank * h->ssm_state)
            return ERR(r->err, QUERN_EFORMAT, "%zu value heads of %zu on %zu key heads do not make an inner width of %zu (%s)",
                       h->ssm_rank, h->ssm_state, h->ssm_groups, h->ssm_inner, shown(r, "ssm.inner_size"));
        for (size_t i = 0; i < h->layers; i++)
            m->layer[i].mixer = (i + 1) % interval ? MIX_DELTA : MIX_ATTENTION;
        return true;
    }
    return true;
}

/* Whether attention and feed-forward read the same input, where the family leaves that to the file. */
static bool read_parallel(struct model *m, struct reader *r)
{
    bool parallel = m->arch->parallel == PARALLEL_ALWAYS;
    if (m->arch->parallel == PARALLEL_KEY) {
        if (!has(r, "use_parallel_residual"))
            return missing(r, "use_parallel_residual");
        if (!gguf_read_bool(r->g, r->key, &parallel, r->err))
            return false;
    }
    for (size_t i = 0; i < m->hyper.layers; i++)
        m->layer[i].parallel = parallel;
    return true;
}

bool model_hyper(struct model *m, const struct gguf *g, struct quern_error *err)
{
    struct hyper *h = &m->hyper;
    if (!read_arch(m, g, err))
        return false;
    struct reader reader = { .g = g, .arch = m->arch->name, .err = err }, *r = &reader;
    if (!need_count(r, "block_count", 1, MODEL_MAX_LAYERS, &h->layers) ||
        !need_count(r, "context_length", 1, UINT32_MAX, &h->context) ||
        !need_count(r, "embedding_length", 1, MAX_WIDTH, &h->width))
        return false;
    const char *eps = m->arch->norm == NORM_LAYER ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon";
    if (!has(r, eps))
        return missing(r, eps);
    if (!positive(r, eps, &h->eps))
        return false;
    m->layer = arena_take(&m->arena, h->layers, sizeof *m->layer, "layers", err);
    size_t *ff = m->layer ? arena_take(&m->arena, h->layers, sizeof *ff, "feed-forward widths", err) : NULL;
    if (!ff || !per_layer(r, "feed_forward_length", h->layers, MAX_FF, ff))
        return false;
    for (size_t i = 0; i < h->layers; i++)
        m->layer[i].ff = ff[i];
    return read_heads(m, r) && read_head_dims(m, r) && read_rope(m, r) && read_windows(m, r) && read_scales(m, r) &&
           read_temperature(m, r) && read_experts(m, r) && place_experts(m, r) && read_mixers(m, r) && read_parallel(m, r);
}
