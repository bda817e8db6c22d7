/* Named weights: every tensor that the architecture needs, its shape checked against the hyper-parameters.
 *
 * Loading goes on after a tensor that is missing, so that one message can list them all; it ends at the first that is wrong.
 * Nothing is copied but vectors that the file does not hold as aligned f32, which are few and small. */
#include "model.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct loader {
    struct model         *m;
    const struct gguf    *g;
    const struct kernels *kernels;
    struct quern_error   *err;
    bool   failed;             /* err is filled; later calls do nothing */
    size_t layer;              /* names without a layer: LAYER_NONE */
    size_t missing_count;
    char   missing[600];       /* names, as many as fit */
};

enum { REQUIRED = 1, OPTIONAL = 0 };
static const size_t LAYER_NONE = (size_t)-1;

static void note_missing(struct loader *ld, const char *name)
{
    size_t used = strlen(ld->missing);
    ld->missing_count++;
    if (used + strlen(name) + 8 < sizeof ld->missing)
        snprintf(ld->missing + used, sizeof ld->missing - used, "%s%s", used ? ", " : "", name);
}

/* "[64, 272]": without trailing ones, but for the first. */
static const char *show_shape(char out[96], const size_t *shape, size_t n)
{
    size_t used = (size_t)snprintf(out, 96, "[%zu", shape[0]);
    while (n > 1 && shape[n - 1] == 1)
        n--;
    for (size_t i = 1; i < n; i++)
        used += (size_t)snprintf(out + used, 96 - used, ", %zu", shape[i]);
    snprintf(out + used, 96 - used, "]");
    return out;
}

/* The tensor, or NULL: absent (noted when it is required) or already failed. Its shape must be the one given; trailing ones do
 * not count. */
static const struct gguf_tensor *find(struct loader *ld, const char *name, int required, size_t a, size_t b, size_t c)
{
    char full[128], want[96], got[96];
    size_t shape[3] = { a, b, c };
    if (ld->failed)
        return NULL;
    if (ld->layer == LAYER_NONE)
        snprintf(full, sizeof full, "%s", name);
    else
        snprintf(full, sizeof full, "blk.%zu.%s", ld->layer, name);
    const struct gguf_tensor *t = gguf_find_tensor(ld->g, full);
    if (!t) {
        if (required)
            note_missing(ld, full);
        return NULL;
    }
    if (memcmp(t->shape, shape, sizeof shape) != 0 || t->shape[3] != 1) {
        ld->failed = !ERR(ld->err, QUERN_EFORMAT, "tensor '%s' at byte %zu: expected %s, got %s", full, t->offset,
                          show_shape(want, shape, 3), show_shape(got, t->shape, 4));
        return NULL;
    }
    size_t index = (size_t)(t - ld->g->tensors);
    if (!ld->m->used[index]) {
        ld->m->used[index] = true;
        ld->m->parameters += a * b * c;
        ld->m->weight_bytes += t->bytes;
    }
    return t;
}

/* f32 [a * b * c], decoded when the file holds something else or does not align it. */
static const float *vector3(struct loader *ld, const char *name, int required, size_t a, size_t b, size_t c)
{
    const struct gguf_tensor *t = find(ld, name, required, a, b, c);
    if (!t)
        return NULL;
    if (t->type == FORMAT_F32 && (uintptr_t)t->data % sizeof(float) == 0)
        return (const float *)(const void *)t->data;
    dequantize_fn *decode = t->type < FORMAT_COUNT ? ld->kernels->dequantize[t->type].fn : NULL;
    if (!decode) {
        ld->failed = !ERR(ld->err, QUERN_EUNSUPPORTED, "tensor '%.*s': type %u cannot be decoded", (int)t->name.n, t->name.text,
                          t->type);
        return NULL;
    }
    float *out = arena_take(&ld->m->arena, a * b * c, sizeof *out, "a decoded vector", ld->err);
    if (!out) {
        ld->failed = true;
        return NULL;
    }
    if (t->type == FORMAT_F32)
        memcpy(out, t->data, t->bytes);
    else
        decode(out, t->data, a * b * c);
    return out;
}

static const float *vector(struct loader *ld, const char *name, int required, size_t n)
{
    return vector3(ld, name, required, n, 1, 1);
}

/* A matrix under "NAME.weight" with, when present, "NAME.bias" and "NAME.scale". */
static bool matrix3(struct loader *ld, struct matrix *w, const char *name, int required, int bias, size_t cols, size_t rows,
                    size_t slices)
{
    char full[80];
    snprintf(full, sizeof full, "%s.weight", name);
    const struct gguf_tensor *t = find(ld, full, required, cols, rows, slices);
    if (!t)
        return false;
    const struct format *format = format_find(t->type);
    if (!format || !format->weights || !ld->kernels->matmul[t->type].matmul || !ld->kernels->dequantize[t->type].fn) {
        ld->failed = !ERR(ld->err, QUERN_EUNSUPPORTED, "tensor '%.*s': type %s cannot be multiplied", (int)t->name.n, t->name.text,
                          format ? format->name : "?");
        return false;
    }
    *w = (struct matrix){ .data = t->data, .type = t->type, .cols = cols, .rows = rows, .slices = slices, .scale = 1,
                          .tensor = (size_t)(t - ld->g->tensors) };
    if (!format_row_bytes(&w->row_bytes, format, cols)) {
        ld->failed = !ERR(ld->err, QUERN_EFORMAT, "tensor '%.*s': rows of %zu values do not divide into blocks of %u",
                          (int)t->name.n, t->name.text, cols, format->block);
        return false;
    }
    snprintf(full, sizeof full, "%s.bias", name);
    w->bias = vector3(ld, full, bias, rows, slices, 1);
    snprintf(full, sizeof full, "%s.scale", name);
    const float *scale = vector(ld, full, OPTIONAL, 1);
    if (scale)
        w->scale = *scale;
    return !ld->failed;
}

static bool matrix(struct loader *ld, struct matrix *w, const char *name, int required, int bias, size_t cols, size_t rows)
{
    return matrix3(ld, w, name, required, bias, cols, rows, 1);
}

/* `rows` rows of `whole` from `first` on, as a matrix of their own. */
static struct matrix rows_of(const struct matrix *whole, size_t first, size_t rows)
{
    struct matrix part = *whole;
    part.data += first * whole->row_bytes;
    part.rows = rows;
    part.first_row = first;
    if (part.bias)
        part.bias += first;
    return part;
}

/* Weight of a norm and, for LayerNorms, its bias. */
static void norm(struct loader *ld, struct norm *out, const char *name, int required, size_t n)
{
    char full[80];
    snprintf(full, sizeof full, "%s.weight", name);
    out->weight = vector(ld, full, required, n);
    if (ld->m->arch->norm != NORM_LAYER || !out->weight)
        return;
    snprintf(full, sizeof full, "%s.bias", name);
    out->bias = vector(ld, full, ld->m->arch->flags & ARCH_NORM_BIAS ? REQUIRED : OPTIONAL, n);
}

static bool has_tensor(struct loader *ld, const char *name)
{
    char full[128];
    snprintf(full, sizeof full, "blk.%zu.%s", ld->layer, name);
    return gguf_find_tensor(ld->g, full) != NULL;
}

/* q, k and v, apart or fused in attn_qkv (rows of q first, then k, then v). */
static void load_qkv(struct loader *ld, struct layer *l, int bias)
{
    const struct hyper *h = &ld->m->hyper;
    size_t q = l->heads * h->key_dim * (ld->m->arch->flags & ARCH_Q_GATE ? 2 : 1);
    size_t k = l->kv_heads * h->key_dim, v = l->kv_heads * h->value_dim;
    if (!has_tensor(ld, "attn_qkv.weight")) {
        matrix(ld, &l->q, "attn_q", REQUIRED, bias, h->width, q);
        matrix(ld, &l->k, "attn_k", REQUIRED, bias, h->width, k);
        matrix(ld, &l->v, "attn_v", REQUIRED, bias, h->width, v);
        return;
    }
    struct matrix all = { 0 };
    if (!matrix(ld, &all, "attn_qkv", REQUIRED, bias, h->width, q + k + v))
        return;
    l->q = rows_of(&all, 0, q);
    l->k = rows_of(&all, q, k);
    l->v = rows_of(&all, q + k, v);
}

/* Projections of plain attention, and what the family adds to them. */
static void load_attention(struct loader *ld, struct layer *l)
{
    const struct arch *arch = ld->m->arch;
    const struct hyper *h = &ld->m->hyper;
    int bias = arch->flags & (ARCH_QKV_BIAS | ARCH_ALL_BIAS) ? REQUIRED : OPTIONAL;
    load_qkv(ld, l, bias);
    matrix(ld, &l->out, "attn_output", REQUIRED, arch->flags & ARCH_ALL_BIAS ? REQUIRED : OPTIONAL,
           l->heads * h->value_dim, h->width);
    switch (arch->qk_norm) {
    case QK_NONE: case QK_L2:
        break;
    case QK_HEAD:
        l->q_norm = vector(ld, "attn_q_norm.weight", REQUIRED, h->key_dim);
        l->k_norm = vector(ld, "attn_k_norm.weight", REQUIRED, h->key_dim);
        break;
    case QK_WHOLE:
        l->q_norm = vector(ld, "attn_q_norm.weight", REQUIRED, l->heads * h->key_dim);
        l->k_norm = vector(ld, "attn_k_norm.weight", REQUIRED, l->kv_heads * h->key_dim);
        break;
    case QK_HEAD_LAYER:
        l->q_norm = vector3(ld, "attn_q_norm.weight", OPTIONAL, h->key_dim, l->heads, 1);
        l->k_norm = vector3(ld, "attn_k_norm.weight", l->q_norm ? REQUIRED : OPTIONAL, h->key_dim, l->kv_heads, 1);
        break;
    }
    if (arch->flags & ARCH_SINKS)
        l->sinks = vector(ld, "attn_sinks.weight", REQUIRED, l->heads);
    if (arch->flags & ARCH_SUB_NORM)
        l->attn_sub_norm = vector(ld, "attn_sub_norm.weight", REQUIRED, l->heads * h->value_dim);
}

/* Latent attention; q goes through a latent of its own in the larger models. */
static void load_mla(struct loader *ld, struct layer *l)
{
    const struct hyper *h = &ld->m->hyper;
    size_t nope = h->mla_key - h->rope.dims;
    if (h->q_lora && has_tensor(ld, "attn_q_a.weight")) {
        matrix(ld, &l->q_a, "attn_q_a", REQUIRED, OPTIONAL, h->width, h->q_lora);
        l->q_a_norm = vector(ld, "attn_q_a_norm.weight", REQUIRED, h->q_lora);
        matrix(ld, &l->q_b, "attn_q_b", REQUIRED, OPTIONAL, h->q_lora, l->heads * h->mla_key);
    } else {
        matrix(ld, &l->q, "attn_q", REQUIRED, OPTIONAL, h->width, l->heads * h->mla_key);
    }
    matrix(ld, &l->kv_a, "attn_kv_a_mqa", REQUIRED, OPTIONAL, h->width, h->kv_lora + h->rope.dims);
    l->kv_a_norm = vector(ld, "attn_kv_a_norm.weight", REQUIRED, h->kv_lora);
    if (h->mla_absorbed) {
        matrix3(ld, &l->k_b, "attn_k_b", REQUIRED, OPTIONAL, nope, h->kv_lora, l->heads);
        matrix3(ld, &l->v_b, "attn_v_b", REQUIRED, OPTIONAL, h->kv_lora, h->mla_value, l->heads);
    } else {
        matrix(ld, &l->kv_b, "attn_kv_b", REQUIRED, OPTIONAL, h->kv_lora, l->heads * (nope + h->mla_value));
    }
    matrix(ld, &l->out, "attn_output", REQUIRED, OPTIONAL, l->heads * h->mla_value, h->width);
}

/* The three recurrent mixers. Their convolutions and decays are vectors, used one by one; only the projections are matrices. */
static void load_conv(struct loader *ld, struct layer *l)
{
    const struct hyper *h = &ld->m->hyper;
    l->conv = vector3(ld, "shortconv.conv.weight", REQUIRED, h->conv_taps, h->width, 1);
    matrix(ld, &l->in_proj, "shortconv.in_proj", REQUIRED, OPTIONAL, h->width, 3 * h->width);
    matrix(ld, &l->out_proj, "shortconv.out_proj", REQUIRED, OPTIONAL, h->width, h->width);
}

static void load_ssm(struct loader *ld, struct layer *l)
{
    const struct hyper *h = &ld->m->hyper;
    matrix(ld, &l->in_proj, "ssm_in", REQUIRED, OPTIONAL, h->width, 2 * h->ssm_inner);
    l->conv = vector3(ld, "ssm_conv1d.weight", REQUIRED, h->conv_taps, h->ssm_inner, 1);
    l->conv_bias = vector(ld, "ssm_conv1d.bias", REQUIRED, h->ssm_inner);
    matrix(ld, &l->ssm_x, "ssm_x", REQUIRED, OPTIONAL, h->ssm_inner, h->ssm_rank + 2 * h->ssm_state);
    matrix(ld, &l->ssm_dt, "ssm_dt", REQUIRED, REQUIRED, h->ssm_rank, h->ssm_inner);
    l->ssm_a = vector3(ld, "ssm_a", REQUIRED, h->ssm_state, h->ssm_inner, 1);
    l->ssm_d = vector(ld, "ssm_d", REQUIRED, h->ssm_inner);
    matrix(ld, &l->out_proj, "ssm_out", REQUIRED, OPTIONAL, h->ssm_inner, h->width);
}

static void load_delta(struct loader *ld, struct layer *l)
{
    const struct hyper *h = &ld->m->hyper;
    size_t conv = h->ssm_inner + 2 * h->ssm_groups * h->ssm_state;
    matrix(ld, &l->in_proj, "attn_qkv", REQUIRED, OPTIONAL, h->width, conv);
    matrix(ld, &l->gate_proj, "attn_gate", REQUIRED, OPTIONAL, h->width, h->ssm_inner);
    matrix(ld, &l->beta_alpha, "ssm_ba", REQUIRED, OPTIONAL, h->width, 2 * h->ssm_rank);
    l->conv = vector3(ld, "ssm_conv1d.weight", REQUIRED, h->conv_taps, conv, 1);
    l->ssm_dt_bias = vector(ld, "ssm_dt.bias", REQUIRED, h->ssm_rank);
    l->ssm_a = vector(ld, "ssm_a", REQUIRED, h->ssm_rank);
    l->ssm_norm = vector(ld, "ssm_norm.weight", REQUIRED, h->ssm_state);
    matrix(ld, &l->out_proj, "ssm_out", REQUIRED, OPTIONAL, h->ssm_inner, h->width);
}

/* gate and up, apart or fused in ffn_up (rows of gate first). */
static void load_dense_ffn(struct loader *ld, struct layer *l)
{
    const struct hyper *h = &ld->m->hyper;
    bool gated = !(ld->m->arch->flags & ARCH_NO_GATE);
    int bias = ld->m->arch->flags & ARCH_ALL_BIAS ? REQUIRED : OPTIONAL;
    if (gated && !has_tensor(ld, "ffn_gate.weight") && has_tensor(ld, "ffn_up.weight")) {
        struct matrix both = { 0 };
        if (matrix(ld, &both, "ffn_up", REQUIRED, bias, h->width, 2 * l->ff)) {
            l->gate = rows_of(&both, 0, l->ff);
            l->up = rows_of(&both, l->ff, l->ff);
        }
    } else {
        if (gated)
            matrix(ld, &l->gate, "ffn_gate", REQUIRED, bias, h->width, l->ff);
        matrix(ld, &l->up, "ffn_up", REQUIRED, bias, h->width, l->ff);
    }
    matrix(ld, &l->down, "ffn_down", REQUIRED, bias, l->ff, h->width);
    if (ld->m->arch->flags & ARCH_SUB_NORM)
        l->ffn_sub_norm = vector(ld, "ffn_sub_norm.weight", REQUIRED, l->ff);
}

/* Experts are stacked in one tensor per projection; the shared expert is a dense part beside them. */
static void load_experts(struct loader *ld, struct layer *l)
{
    const struct hyper *h = &ld->m->hyper;
    int bias = ld->m->arch->flags & ARCH_ALL_BIAS ? REQUIRED : OPTIONAL;
    matrix(ld, &l->router, "ffn_gate_inp", REQUIRED, bias, h->width, h->experts);
    l->router_bias = vector(ld, "exp_probs_b.bias", OPTIONAL, h->experts);
    matrix3(ld, &l->gate_exps, "ffn_gate_exps", REQUIRED, bias, h->width, h->expert_ff, h->experts);
    matrix3(ld, &l->up_exps, "ffn_up_exps", REQUIRED, bias, h->width, h->expert_ff, h->experts);
    matrix3(ld, &l->down_exps, "ffn_down_exps", REQUIRED, bias, h->expert_ff, h->width, h->experts);
    if (!h->shared_ff)
        return;
    matrix(ld, &l->gate_shared, "ffn_gate_shexp", REQUIRED, OPTIONAL, h->width, h->shared_ff);
    matrix(ld, &l->up_shared, "ffn_up_shexp", REQUIRED, OPTIONAL, h->width, h->shared_ff);
    matrix(ld, &l->down_shared, "ffn_down_shexp", REQUIRED, OPTIONAL, h->shared_ff, h->width);
    if (ld->m->arch->experts.shared_gate)
        matrix(ld, &l->shared_gate, "ffn_gate_inp_shexp", REQUIRED, OPTIONAL, h->width, 1);
}

/* Everything of one layer: norms, the mixer that hyper.c has chosen, the feed-forward part. */
static void load_layer(struct loader *ld, struct layer *l)
{
    const struct arch *arch = ld->m->arch;
    size_t width = ld->m->hyper.width;
    if (l->mixer != MIX_NONE && !(arch->flags & ARCH_NO_PRE_NORM))
        norm(ld, &l->attn_norm, "attn_norm", REQUIRED, width);
    if (arch->flags & ARCH_TWO_NORMS)
        norm(ld, &l->attn_norm_2, "attn_norm_2", OPTIONAL, width);
    switch (l->mixer) {
    case MIX_NONE: break;
    case MIX_ATTENTION: load_attention(ld, l); break;
    case MIX_MLA: load_mla(ld, l); break;
    case MIX_LINEAR: matrix(ld, &l->out, "attn_output", REQUIRED, OPTIONAL, width, width); break;
    case MIX_CONV: load_conv(ld, l); break;
    case MIX_SSM: load_ssm(ld, l); break;
    case MIX_DELTA: load_delta(ld, l); break;
    }
    if (arch->flags & ARCH_POST_NORM)
        norm(ld, &l->post_attn_norm, "post_attention_norm", REQUIRED, width);
    if (!l->experts && l->ff == 0) {
        if (arch->mixer != MIXERS_SSM && !(arch->flags & ARCH_LAYERS_MAY_LACK) && !ld->failed)
            ld->failed = !ERR(ld->err, QUERN_EFORMAT, "key '%s.feed_forward_length' is 0 or missing in layer %zu", arch->name,
                              ld->layer);
        return;
    }
    bool shares_norm = arch->flags & ARCH_TWO_NORMS || (arch->parallel == PARALLEL_ALWAYS && !has_tensor(ld, "ffn_norm.weight"));
    if (arch->parallel == PARALLEL_WITHOUT_FFN_NORM) {
        norm(ld, &l->ffn_norm, "ffn_norm", OPTIONAL, width);
        l->parallel = l->ffn_norm.weight == NULL;
    } else if (!shares_norm && !(arch->flags & ARCH_NO_PRE_NORM)) {
        norm(ld, &l->ffn_norm, arch->flags & ARCH_FFN_NORM_IS_POST ? "post_attention_norm" : "ffn_norm", REQUIRED, width);
    }
    if (l->experts)
        load_experts(ld, l);
    else
        load_dense_ffn(ld, l);
    if (arch->flags & ARCH_POST_NORM)
        norm(ld, &l->post_ffn_norm, "post_ffw_norm", REQUIRED, width);
}

/* Embeddings, head, and what the rotation needs. The vocabulary is as large as the embedding has rows. */
static bool load_ends(struct loader *ld)
{
    struct model *m = ld->m;
    struct hyper *h = &m->hyper;
    size_t half = h->rope.dims / 2;
    ld->layer = LAYER_NONE;
    const struct gguf_tensor *embed = gguf_find_tensor(ld->g, "token_embd.weight");
    if (!embed)
        return ERR(ld->err, QUERN_EFORMAT, "1 tensor is missing: token_embd.weight");
    if (embed->shape[1] > INT32_MAX)
        return ERR(ld->err, QUERN_EFORMAT, "tensor 'token_embd.weight' has %zu rows, more than token ids can name",
                   embed->shape[1]);
    h->vocab = embed->shape[1];
    matrix(ld, &m->embed, "token_embd", REQUIRED, OPTIONAL, h->width, h->vocab);
    norm(ld, &m->output_norm, m->arch->flags & ARCH_OUTPUT_NORM_EMBD ? "token_embd_norm" : "output_norm", REQUIRED, h->width);
    if (!matrix(ld, &m->output, "output", m->arch->flags & ARCH_UNTIED ? REQUIRED : OPTIONAL, OPTIONAL, h->width, h->vocab))
        m->output = m->embed;
    if (m->arch->flags & ARCH_POSITIONS)
        m->positions = vector3(ld, "position_embd.weight", REQUIRED, h->width, h->context, 1);
    if (m->arch->rope != ROPE_NONE) {
        h->rope.freq_factors = vector(ld, "rope_freqs.weight", OPTIONAL, half);
        h->rope.long_factors = vector(ld, "rope_factors_long.weight", OPTIONAL, half);
        h->rope.short_factors = vector(ld, "rope_factors_short.weight", h->rope.long_factors ? REQUIRED : OPTIONAL, half);
    }
    return !ld->failed;
}

bool model_weights(struct model *m, const struct gguf *g, const struct kernels *kernels, struct quern_error *err)
{
    struct loader ld = { .m = m, .g = g, .kernels = kernels, .err = err };
    m->used = arena_take(&m->arena, g->tensor_count ? g->tensor_count : 1, sizeof *m->used, "marks of tensors", err);
    if (!m->used)
        return false;
    if (g->tensor_count == 0)
        return ERR(err, QUERN_EFORMAT, "the file has no tensors");
    if (!load_ends(&ld))
        return false;
    for (size_t i = 0; i < m->hyper.layers && !ld.failed; i++) {
        ld.layer = i;
        load_layer(&ld, &m->layer[i]);
        enum mixer_kind mixer = m->layer[i].mixer;
        m->recurrent = m->recurrent || mixer == MIX_CONV || mixer == MIX_SSM || mixer == MIX_DELTA;
    }
    if (ld.failed)
        return false;
    if (ld.missing_count)
        return ERR(err, QUERN_EFORMAT, "%zu tensor%s missing: %s%s", ld.missing_count, ld.missing_count == 1 ? " is" : "s are",
                   ld.missing, strlen(ld.missing) + 80 > sizeof ld.missing ? ", ..." : "");
    for (size_t i = 0; i < g->tensor_count; i++)
        m->extra_tensors += !m->used[i];
    return true;
}
