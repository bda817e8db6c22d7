/* The checkpoint's tensors under their GGUF names, in GGUF's layout. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "hf_model.h"
#include "text.h"

enum { EXPERTS_MOST = 4096 };

static const struct family families[] = {
    { "LlamaForCausalLM", "llama", FAMILY_INTERLEAVED, "silu" },
    { "LLaMAForCausalLM", "llama", FAMILY_INTERLEAVED, "silu" },
    { "MistralForCausalLM", "llama", FAMILY_INTERLEAVED, "silu" },
    { "MixtralForCausalLM", "llama", FAMILY_INTERLEAVED | FAMILY_EXPERTS, "silu" },
    { "Qwen2ForCausalLM", "qwen2", 0, "silu" },
    { "Qwen3ForCausalLM", "qwen3", 0, "silu" },
    { "GemmaForCausalLM", "gemma", FAMILY_SHIFTED_NORMS | FAMILY_TIED, "gelu" },
    { "Gemma2ForCausalLM", "gemma2", FAMILY_SHIFTED_NORMS | FAMILY_POST_NORMS | FAMILY_TIED, "gelu" },
    { "Gemma3ForCausalLM", "gemma3", FAMILY_SHIFTED_NORMS | FAMILY_POST_NORMS, "gelu" },
    { "Gemma3ForConditionalGeneration", "gemma3", FAMILY_SHIFTED_NORMS | FAMILY_POST_NORMS, "gelu" },
    { "Phi3ForCausalLM", "phi3", 0, "silu" },
};

enum rule_kind { RULE_MATRIX, RULE_NORM, RULE_ROUTER, RULE_Q, RULE_K };

/* Names without "model.layers.N." and ".weight". The order is the one in which a layer is written. */
static const struct rule { const char *hf, *gguf; enum rule_kind kind; } layer_rules[] = {
    { "input_layernorm", "attn_norm", RULE_NORM },
    { "self_attn.q_proj", "attn_q", RULE_Q },
    { "self_attn.k_proj", "attn_k", RULE_K },
    { "self_attn.v_proj", "attn_v", RULE_MATRIX },
    { "self_attn.qkv_proj", "attn_qkv", RULE_MATRIX },
    { "self_attn.o_proj", "attn_output", RULE_MATRIX },
    { "self_attn.q_norm", "attn_q_norm", RULE_NORM },
    { "self_attn.k_norm", "attn_k_norm", RULE_NORM },
    { "post_attention_layernorm", "ffn_norm", RULE_NORM },          /* another one with FAMILY_POST_NORMS */
    { "pre_feedforward_layernorm", "ffn_norm", RULE_NORM },
    { "mlp.gate_proj", "ffn_gate", RULE_MATRIX },
    { "mlp.up_proj", "ffn_up", RULE_MATRIX },
    { "mlp.gate_up_proj", "ffn_up", RULE_MATRIX },
    { "mlp.down_proj", "ffn_down", RULE_MATRIX },
    { "post_feedforward_layernorm", "post_ffw_norm", RULE_NORM },
    { "block_sparse_moe.gate", "ffn_gate_inp", RULE_ROUTER },
    { "w1", "ffn_gate_exps", RULE_MATRIX },                         /* of block_sparse_moe.experts.E */
    { "w2", "ffn_down_exps", RULE_MATRIX },
    { "w3", "ffn_up_exps", RULE_MATRIX },
};
enum { LAYER_RULES = sizeof layer_rules / sizeof *layer_rules };

static const struct rule global_rules[] = {
    { "embed_tokens", "token_embd", RULE_MATRIX }, { "norm", "output_norm", RULE_NORM }, { "lm_head", "output", RULE_MATRIX },
};
enum { GLOBAL_RULES = sizeof global_rules / sizeof *global_rules };

/* Tensors that carry nothing: tables that the program computes itself. */
static const char *const needless[] = { ".rotary_emb.inv_freq", ".attention.masked_bias", ".attention.bias" };
/* Parts of a picture-and-text model that are not its text part. */
static const char *const other_parts[] = { "vision_tower.", "multi_modal_projector.", "vision_model." };

/* Where a tensor goes. layer: -1 for the global ones. */
struct place {
    const struct rule *rule;
    int64_t layer, expert;       /* -1: none */
    bool    bias;
    size_t  order;               /* of the rule */
};

struct entry {
    struct emit_tensor tensor;
    int64_t layer;
    size_t  order;
    bool    bias;
    enum rule_kind kind;
};

struct builder {
    struct hf_plan *plan;
    struct hf *h;
    uint32_t type;
    const struct kernels *kernels;
    struct quern_error *err;
    struct entry *entries;       /* [room] */
    size_t count, room, skipped;
    /* [layers][3]: 1 + the entry that holds a layer's experts, 0 before the first; NULL without experts */
    size_t *stacks;
};

/* ---- names ------------------------------------------------------------------------------------------------------ */

static bool strip(const char **text, const char *with)
{
    size_t n = strlen(with);
    if (strncmp(*text, with, n))
        return false;
    *text += n;
    return true;
}

/* Digits and a point at *text, or -1. */
static int64_t strip_index(const char **text)
{
    int64_t value = 0;
    const char *at = *text;
    while (*at >= '0' && *at <= '9' && value < 1000000)
        value = value * 10 + (*at++ - '0');
    if (at == *text || *at != '.')
        return -1;
    *text = at + 1;
    return value;
}

/* `rest` is NAME.weight or NAME.bias: the rule for NAME, or NULL. */
static const struct rule *find_rule(const struct rule *rules, size_t count, const char *rest, bool *bias)
{
    const char *point = strrchr(rest, '.');
    if (!point || (strcmp(point, ".weight") && strcmp(point, ".bias")))
        return NULL;
    *bias = point[1] == 'b';
    for (size_t i = 0; i < count; i++)
        if (strlen(rules[i].hf) == (size_t)(point - rest) && !strncmp(rules[i].hf, rest, (size_t)(point - rest)))
            return &rules[i];
    return NULL;
}

static bool find_place(const struct builder *b, const char *name, struct place *place)
{
    const char *rest = name;
    *place = (struct place){ .layer = -1, .expert = -1 };
    strip(&rest, "model.");
    strip(&rest, "language_model.");
    strip(&rest, "model.");
    if (strip(&rest, "layers.")) {
        place->layer = strip_index(&rest);
        if (place->layer < 0)
            return false;
        if ((b->plan->family->flags & FAMILY_EXPERTS) && strip(&rest, "block_sparse_moe.experts.")) {
            place->expert = strip_index(&rest);
            if (place->expert < 0)
                return false;
        }
        place->rule = find_rule(layer_rules, LAYER_RULES, rest, &place->bias);
        if (!place->rule || (place->rule->hf[0] == 'w') != (place->expert >= 0))
            return false;
        place->order = (size_t)(place->rule - layer_rules);
        return true;
    }
    place->rule = find_rule(global_rules, GLOBAL_RULES, rest, &place->bias);
    place->order = place->rule ? (size_t)(place->rule - global_rules) : 0;
    return place->rule != NULL;
}

static void gguf_name(const struct builder *b, const struct place *place, char out[65])
{
    const char *base = place->rule->gguf, *suffix = place->bias ? "bias" : "weight";
    if ((b->plan->family->flags & FAMILY_POST_NORMS) && !strcmp(place->rule->hf, "post_attention_layernorm"))
        base = "post_attention_norm";
    if (place->layer >= 0)
        snprintf(out, 65, "blk.%lld.%s.%s", (long long)place->layer, base, suffix);
    else
        snprintf(out, 65, "%s.%s", base, suffix);
}

static bool is_other(const char *name)
{
    strip(&name, "model.");
    for (size_t i = 0; i < sizeof other_parts / sizeof *other_parts; i++)
        if (!strncmp(name, other_parts[i], strlen(other_parts[i])))
            return true;
    return false;
}

static bool is_needless(const char *name)
{
    size_t n = strlen(name);
    for (size_t i = 0; i < sizeof needless / sizeof *needless; i++)
        if (n > strlen(needless[i]) && !strcmp(name + n - strlen(needless[i]), needless[i]))
            return true;
    return false;
}

/* ---- one tensor ------------------------------------------------------------------------------------------------- */

static struct entry *new_entry(struct builder *b)
{
    if (b->count == b->room) {
        ERR(b->err, QUERN_EFORMAT, "%s: more tensors than names", b->h->path);
        return NULL;
    }
    return &b->entries[b->count++];
}

/* Matrices get the asked type, where their rows allow; vectors, norms and routers are F32. */
static void choose_type(struct builder *b, struct entry *e)
{
    struct emit_tensor *t = &e->tensor;
    t->type = FORMAT_F32;
    if (t->dims < 2 || e->bias || e->kind == RULE_NORM || e->kind == RULE_ROUTER)
        return;
    t->type = b->type;
    if (!emit_possible(t, b->type, b->kernels)) {
        t->type = t->source_type;
        b->plan->kept++;
        cli_warn("'%s': rows of %zu values do not divide into blocks of %s; it stays %s", t->name, t->shape[0],
                 format_find(b->type)->name, format_find(t->type)->name);
    }
}

/* q and k of the llama family: rows of a head in another order. */
static bool set_interleave(struct builder *b, struct entry *e)
{
    struct emit_tensor *t = &e->tensor;
    if (!(b->plan->family->flags & FAMILY_INTERLEAVED) || (e->kind != RULE_Q && e->kind != RULE_K))
        return true;
    size_t rows = t->dims == 1 ? t->shape[0] : t->shape[1], heads = e->kind == RULE_Q ? b->plan->heads : b->plan->kv_heads;
    if (rows != heads * b->plan->head_dim)
        return ERR(b->err, QUERN_EFORMAT, "tensor '%s' has %zu rows, %zu heads of %u need %zu", t->name, rows, heads,
                   b->plan->head_dim, heads * b->plan->head_dim);
    t->head_rows = b->plan->head_dim;
    return true;
}

static bool set_source(struct builder *b, struct entry *e, const struct safetensor *s)
{
    struct emit_tensor *t = &e->tensor;
    if (s->format == FORMAT_COUNT)
        return ERR(b->err, QUERN_EUNSUPPORTED, "tensor '%s' is %s; F32, F16 and BF16 are converted", s->name, s->dtype);
    if (s->dims < 1 || s->dims > 2 || !s->elements)
        return ERR(b->err, QUERN_EFORMAT, "tensor '%s' has %zu dimensions and %zu values; vectors and matrices are expected",
                   s->name, s->dims, s->elements);
    bool vector = e->bias || e->kind == RULE_NORM;
    if (vector != (s->dims == 1))
        return ERR(b->err, QUERN_EFORMAT, "tensor '%s' has %zu dimensions, %d expected", s->name, s->dims, vector ? 1 : 2);
    t->dims = (uint32_t)s->dims;
    t->shape[0] = s->shape[s->dims - 1];
    t->shape[1] = s->dims == 2 ? s->shape[0] : 1;
    t->shape[2] = t->shape[3] = 1;
    t->source_type = s->format;
    return true;
}

/* One of an expert's matrices: a slice of the stack, which its first one to come makes. */
static bool add_expert(struct builder *b, const struct place *place, const char *name, const struct safetensor *s)
{
    size_t experts = b->plan->experts;
    if ((uint64_t)place->expert >= experts)
        return ERR(b->err, QUERN_EFORMAT, "tensor '%s': num_local_experts is %zu", s->name, experts);
    struct entry one = { .layer = place->layer, .order = place->order, .kind = place->rule->kind }, *e = NULL;
    if (!set_source(b, &one, s))
        return false;
    size_t *stack = &b->stacks[3 * (size_t)place->layer + (size_t)(place->rule->hf[1] - '1')];
    if (*stack) {
        e = &b->entries[*stack - 1];
    } else {
        if (!(e = new_entry(b)))
            return false;
        *stack = b->count;
        *e = one;
        memcpy(e->tensor.name, name, sizeof e->tensor.name);
        e->tensor.dims = 3;
        e->tensor.shape[2] = experts;
        e->tensor.slice_count = experts;
        e->tensor.slices = arena_take(&b->h->arena, experts, sizeof *e->tensor.slices, "experts", b->err);
        if (!e->tensor.slices)
            return false;
    }
    struct emit_tensor *t = &e->tensor;
    if (t->shape[0] != one.tensor.shape[0] || t->shape[1] != one.tensor.shape[1] || t->source_type != one.tensor.source_type)
        return ERR(b->err, QUERN_EFORMAT, "tensor '%s' is not like those of the other experts", s->name);
    t->slices[place->expert] = s->data;
    return true;
}

static bool add_tensor(struct builder *b, const struct safetensor *s)
{
    struct place place;
    char name[65];
    if (is_needless(s->name))
        return true;
    if (is_other(s->name)) {
        b->skipped++;
        return true;
    }
    if (!find_place(b, s->name, &place))
        return ERR(b->err, QUERN_EUNSUPPORTED, "tensor '%s' has no place in a GGUF of '%s'", s->name, b->plan->family->arch);
    const struct json *tied = hf_get(b->h, "tie_word_embeddings");
    if (!strcmp(place.rule->gguf, "output") && place.layer < 0 &&
        ((b->plan->family->flags & FAMILY_TIED) || (tied && tied->type == JSON_BOOL && tied->boolean)))
        return true;
    if (place.layer >= (int64_t)b->plan->layers)
        return ERR(b->err, QUERN_EFORMAT, "tensor '%s': num_hidden_layers is %u", s->name, b->plan->layers);
    gguf_name(b, &place, name);
    if (place.expert >= 0)
        return add_expert(b, &place, name, s);
    struct entry *e = new_entry(b);
    if (!e)
        return false;
    *e = (struct entry){ .layer = place.layer, .order = place.order, .bias = place.bias, .kind = place.rule->kind };
    memcpy(e->tensor.name, name, sizeof name);
    e->tensor.slice_count = 1;
    e->tensor.slices = arena_take(&b->h->arena, 1, sizeof *e->tensor.slices, "a tensor", b->err);
    if (!e->tensor.slices || !set_source(b, e, s) || !set_interleave(b, e))
        return false;
    e->tensor.slices[0] = s->data;
    if (e->kind == RULE_NORM && (b->plan->family->flags & FAMILY_SHIFTED_NORMS))
        e->tensor.shift = 1;
    return true;
}

/* Computed tensors: global, after the others. */
static bool add_factors(struct builder *b, const char *which, const char *name, size_t order)
{
    float *values;
    size_t n;
    if (!hf_rope_factors(b->plan, b->h, which, &values, &n, b->err))
        return false;
    if (!values)
        return true;
    struct entry *e = new_entry(b);
    if (!e)
        return false;
    *e = (struct entry){ .layer = -1, .order = GLOBAL_RULES + order, .kind = RULE_NORM };
    snprintf(e->tensor.name, sizeof e->tensor.name, "%s", name);
    e->tensor.slices = arena_take(&b->h->arena, 1, sizeof *e->tensor.slices, "a tensor", b->err);
    if (!e->tensor.slices)
        return false;
    e->tensor.slices[0] = (const uint8_t *)values;
    e->tensor.slice_count = 1;
    e->tensor.dims = 1;
    e->tensor.shape[0] = n;
    e->tensor.shape[1] = e->tensor.shape[2] = e->tensor.shape[3] = 1;
    e->tensor.source_type = FORMAT_F32;
    return true;
}

/* ---- the whole -------------------------------------------------------------------------------------------------- */

static int by_order(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->layer != y->layer)
        return x->layer < y->layer ? -1 : 1;
    if (x->order != y->order)
        return x->order < y->order ? -1 : 1;
    return (int)x->bias - (int)y->bias;
}

static const struct entry *find_entry(const struct builder *b, const char *name)
{
    for (size_t i = 0; i < b->count; i++)
        if (!strcmp(b->entries[i].tensor.name, name))
            return &b->entries[i];
    return NULL;
}

/* Every layer must have what the first has, each stack all its experts, and the first layer what no layer can do without. The
 * entries are sorted: layers are runs of equal length and order. */
static bool check_complete(const struct builder *b)
{
    static const char *const global[] = { "token_embd.weight", "output_norm.weight" };
    static const char *const layer[] = { "attn_norm", "attn_output", "ffn_norm" };
    char name[65];
    size_t first = 0;
    while (first < b->count && b->entries[first].layer < 0)
        first++;
    size_t run = 0;
    while (first + run < b->count && b->entries[first + run].layer == 0)
        run++;
    for (size_t i = 0; i < 2; i++)
        if (!find_entry(b, global[i]))
            return ERR(b->err, QUERN_EFORMAT, "%s: the tensor for '%s' is missing", b->h->path, global[i]);
    for (size_t i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "blk.0.%s.weight", layer[i]);
        if (!find_entry(b, name))
            return ERR(b->err, QUERN_EFORMAT, "%s: the tensor for '%s' is missing", b->h->path, name);
    }
    for (size_t i = first; i < b->count; i++) {
        const struct entry *e = &b->entries[i], *model = &b->entries[first + (i - first) % run];
        if (e->layer != (int64_t)((i - first) / run) || e->order != model->order || e->bias != model->bias)
            return ERR(b->err, QUERN_EFORMAT, "%s: around '%s' a tensor is missing: layer %zu has not what layer 0 has", b->h->path,
                       e->tensor.name, (i - first) / run);
        for (size_t s = 0; s < e->tensor.slice_count; s++)
            if (!e->tensor.slices[s])
                return ERR(b->err, QUERN_EFORMAT, "%s: expert %zu of '%s' is missing", b->h->path, s, e->tensor.name);
    }
    if ((b->count - first) / run < b->plan->layers || (b->count - first) % run)
        return ERR(b->err, QUERN_EFORMAT, "%s: layer %zu has not what layer 0 has", b->h->path, (b->count - first) / run);
    return true;
}

static bool check_output(const struct builder *b)
{
    const struct json *tied = hf_get(b->h, "tie_word_embeddings");
    bool may_lack = (b->plan->family->flags & FAMILY_SHIFTED_NORMS) || (tied && tied->type == JSON_BOOL && tied->boolean);
    const struct entry *embedding = find_entry(b, "token_embd.weight"), *output = find_entry(b, "output.weight");
    if (!output && !may_lack)
        return ERR(b->err, QUERN_EFORMAT, "%s: lm_head.weight is missing, and config.json does not say tie_word_embeddings",
                   b->h->path);
    if (embedding->tensor.shape[0] != b->plan->hidden)
        return ERR(b->err, QUERN_EFORMAT, "%s: the embedding has %zu columns, hidden_size is %u", b->h->path,
                   embedding->tensor.shape[0], b->plan->hidden);
    if (output && output->tensor.shape[1] != embedding->tensor.shape[1])
        return ERR(b->err, QUERN_EFORMAT, "%s: lm_head has %zu rows, the embedding %zu", b->h->path, output->tensor.shape[1],
                   embedding->tensor.shape[1]);
    b->plan->vocabulary = embedding->tensor.shape[1];
    return true;
}

/* ---- the config's numbers --------------------------------------------------------------------------------------- */

static bool choose_family(struct hf_plan *plan, const struct hf *h, struct quern_error *err)
{
    const struct json *list = json_get(h->config, "architectures");
    const struct json *name = list && list->type == JSON_ARRAY && list->n ? list->items[0] : NULL;
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (hf_text_is(name, families[i].hf)) {
            plan->family = &families[i];
            return true;
        }
    char shown[80] = "none";
    if (name && name->type == JSON_STRING)
        text_escape(shown, sizeof shown, name->text, name->n);
    struct text known = { 0 };
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        text_addf(&known, "%s%s", i ? ", " : "", families[i].hf);
    ERR(err, QUERN_EUNSUPPORTED, "%s/config.json: architecture '%s'; known are %s", h->path, shown,
        known.data ? known.data : "others");
    text_free(&known);
    return false;
}

/* gelu and its tanh form are one word in gemma's configs: all of the family compute the latter. */
static bool check_activation(const struct hf_plan *plan, const struct hf *h, struct quern_error *err)
{
    const struct json *act = hf_get(h, "hidden_activation");
    if (!act)
        act = hf_get(h, "hidden_act");
    if (!act || hf_text_is(act, plan->family->activation) ||
        (!strcmp(plan->family->activation, "gelu") && hf_text_is(act, "gelu_pytorch_tanh")))
        return true;
    char shown[40] = "not a text";
    if (act->type == JSON_STRING)
        text_escape(shown, sizeof shown, act->text, act->n);
    return ERR(err, QUERN_EUNSUPPORTED, "%s/config.json: activation '%s', GGUF's '%s' has %s", h->path, shown, plan->family->arch,
               plan->family->activation);
}

/* Gemma 3's configs leave out what is the class's default. */
static void set_defaults(struct hf_plan *plan)
{
    plan->rope_theta = 10000;
    if (!strcmp(plan->family->arch, "gemma3")) {
        plan->context = 131072;
        plan->heads = 8;
        plan->kv_heads = 4;
        plan->head_dim = 256;
        plan->rope_theta = 1e6f;
    }
}

static bool read_numbers(struct hf_plan *plan, const struct hf *h, struct quern_error *err)
{
    set_defaults(plan);
    uint32_t kv_default = plan->kv_heads, head_dim = plan->head_dim;
    const struct json *theta = hf_rope(h, "rope_theta");
    if (!hf_u32(h, "hidden_size", &plan->hidden, err) || !hf_u32(h, "num_hidden_layers", &plan->layers, err) ||
        !hf_u32(h, "num_attention_heads", &plan->heads, err) || !hf_u32(h, "max_position_embeddings", &plan->context, err) ||
        !hf_u32(h, "head_dim", &head_dim, err))
        return false;
    plan->kv_heads = kv_default ? kv_default : plan->heads;
    if (!hf_u32(h, "num_key_value_heads", &plan->kv_heads, err))
        return false;
    if (plan->family->flags & FAMILY_EXPERTS) {
        if (!hf_u32(h, "num_local_experts", &plan->experts, err))
            return false;
        if (!plan->experts || plan->experts > EXPERTS_MOST || !hf_get(h, "num_experts_per_tok"))
            return ERR(err, QUERN_EFORMAT, "%s/config.json: num_local_experts %u (1 to %d allowed), or no num_experts_per_tok",
                       h->path, plan->experts, EXPERTS_MOST);
    }
    if (theta && (theta->type != JSON_NUMBER || !(theta->number > 0) || theta->number > 1e30))
        return ERR(err, QUERN_EFORMAT, "%s/config.json: rope_theta must be a positive number", h->path);
    if (theta)
        plan->rope_theta = (float)theta->number;
    if (!plan->hidden || !plan->layers || !plan->heads || !plan->kv_heads || !plan->context)
        return ERR(err, QUERN_EFORMAT, "%s/config.json: hidden_size, num_hidden_layers, num_attention_heads and "
                   "max_position_embeddings "
                   "must be there and positive", h->path);
    if (plan->heads % plan->kv_heads || (!head_dim && plan->hidden % plan->heads))
        return ERR(err, QUERN_EFORMAT, "%s/config.json: %u heads, %u key-value heads and width %u do not divide", h->path,
                   plan->heads, plan->kv_heads, plan->hidden);
    plan->head_dim = head_dim ? head_dim : plan->hidden / plan->heads;
    if (plan->head_dim % 2 || plan->head_dim > 65536)
        return ERR(err, QUERN_EFORMAT, "%s/config.json: head_dim %u must be even and at most 65536", h->path, plan->head_dim);
    if (plan->layers > h->weights.count)
        return ERR(err, QUERN_EFORMAT, "%s/config.json: num_hidden_layers is %u, there are only %zu tensors", h->path, plan->layers,
                   h->weights.count);
    return true;
}

static bool build(struct builder *b)
{
    const struct safetensors *weights = &b->h->weights;
    for (size_t i = 0; i < weights->count; i++)
        if (!add_tensor(b, &weights->tensors[i]))
            return error_prefix(b->err, b->h->path);
    if (!add_factors(b, "llama3", "rope_freqs.weight", 0) || !add_factors(b, "long_factor", "rope_factors_long.weight", 1) ||
        !add_factors(b, "short_factor", "rope_factors_short.weight", 2))
        return false;
    qsort(b->entries, b->count, sizeof *b->entries, by_order);
    if (!check_complete(b) || !check_output(b))
        return false;
    for (size_t i = 0; i < b->count; i++)
        choose_type(b, &b->entries[i]);
    if (b->skipped)
        cli_warn("%zu tensors of the picture encoder are left out: the text model alone is written", b->skipped);
    return true;
}

bool hf_plan(struct hf_plan *plan, struct hf *h, uint32_t type, const struct kernels *kernels, struct quern_error *err)
{
    *plan = (struct hf_plan){ 0 };
    if (!choose_family(plan, h, err) || !check_activation(plan, h, err) || !read_numbers(plan, h, err))
        return false;
    struct builder b = { .plan = plan, .h = h, .type = type, .kernels = kernels, .err = err, .room = h->weights.count + 3 };
    b.entries = mem_take(b.room, sizeof *b.entries, "the tensors", err);
    bool ok = b.entries != NULL;
    if (ok && (plan->family->flags & FAMILY_EXPERTS))
        ok = (b.stacks = mem_take((size_t)plan->layers * 3, sizeof *b.stacks, "the experts", err)) != NULL;
    ok = ok && build(&b);
    if (ok) {
        plan->tensors = arena_take(&h->arena, b.count, sizeof *plan->tensors, "the tensors", err);
        ok = plan->tensors != NULL;
        for (size_t i = 0; ok && i < b.count; i++)
            plan->tensors[i] = b.entries[i].tensor;
        plan->count = b.count;
    }
    free(b.stacks);
    free(b.entries);
    return ok;
}
