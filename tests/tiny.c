#include "tiny.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels.h"
#include "test.h"

const char *const tiny_names[TINY_KINDS] = {
    "llama", "gemma3", "qwen2moe", "mamba", "qwen3next", "deepseek2", "lfm2",
};

/* ---- keys and tensors --------------------------------------------------------------------------------------------- */

static struct tiny_key *find_key(struct tiny *t, const char *key, bool add)
{
    for (size_t i = 0; i < t->keys; i++)
        if (!strcmp(t->key[i].name, key))
            return &t->key[i];
    if (!add || t->keys == TINY_KEYS)
        abort();
    struct tiny_key *k = &t->key[t->keys++];
    *k = (struct tiny_key){ 0 };
    snprintf(k->name, sizeof k->name, "%s", key);
    return k;
}

void tiny_number(struct tiny *t, const char *key, enum gguf_type type, double value)
{
    struct tiny_key *k = find_key(t, key, true);
    k->type = type;
    k->number = value;
}

void tiny_u32(struct tiny *t, const char *key, uint32_t value)
{
    tiny_number(t, key, GGUF_U32, value);
}

void tiny_text(struct tiny *t, const char *key, const char *text)
{
    struct tiny_key *k = find_key(t, key, true);
    k->type = GGUF_STRING;
    k->text = text;
    k->text_n = strlen(text);
}

void tiny_list(struct tiny *t, const char *key, const uint32_t *list, size_t n)
{
    struct tiny_key *k = find_key(t, key, true);
    k->type = GGUF_ARRAY;
    memcpy(k->list, list, n * sizeof *list);
    k->list_n = n;
}

void tiny_drop_key(struct tiny *t, const char *key)
{
    struct tiny_key *k = find_key(t, key, false);
    *k = t->key[--t->keys];
}

struct tiny_tensor *tiny_find(struct tiny *t, const char *name)
{
    for (size_t i = 0; i < t->tensors; i++)
        if (!strcmp(t->tensor[i].name, name))
            return &t->tensor[i];
    abort();
}

void tiny_drop_tensor(struct tiny *t, const char *name)
{
    struct tiny_tensor *gone = tiny_find(t, name);
    *gone = t->tensor[--t->tensors];
}

void tiny_add(struct tiny *t, const char *name, uint64_t a, uint64_t b, uint64_t c, float mean, float spread)
{
    if (t->tensors == TINY_TENSORS)
        abort();
    struct tiny_tensor *tensor = &t->tensor[t->tensors++];
    *tensor = (struct tiny_tensor){ .type = 0, .shape = { a, b, c }, .mean = mean, .spread = spread };
    snprintf(tensor->name, sizeof tensor->name, "%s", name);
}

void tiny_format(struct tiny *t, uint32_t type)
{
    for (size_t i = 0; i < t->tensors; i++)
        if (t->tensor[i].shape[1] > 1 && t->tensor[i].shape[0] % format_find(type)->block == 0 &&
            !strstr(t->tensor[i].name, "conv") && !strstr(t->tensor[i].name, "ssm_a"))
            t->tensor[i].type = type;
}

/* ---- families ----------------------------------------------------------------------------------------------------- */

enum { WIDTH = 64, HEADS = 4, KV = 2, DIM = 32, FF = 96, EXPERTS = 6, EXPERT_FF = 32 };

static char *in_layer(size_t layer, const char *name)
{
    static char full[4][64];
    static unsigned next;
    char *text = full[next++ % 4];
    snprintf(text, 64, "blk.%zu.%s", layer, name);
    return text;
}

/* Spreads keep the values near 1 from layer to layer. */
static void matrix(struct tiny *t, size_t layer, const char *name, uint64_t cols, uint64_t rows, uint64_t slices)
{
    tiny_add(t, in_layer(layer, name), cols, rows, slices, 0, cols > 64 ? 0.17f : 0.25f);
}

static void norm(struct tiny *t, size_t layer, const char *name, uint64_t n)
{
    tiny_add(t, in_layer(layer, name), n, 1, 1, 1, 0.2f);
}

static void attention(struct tiny *t, size_t layer, bool gated, bool qk_norm)
{
    matrix(t, layer, "attn_q.weight", WIDTH, HEADS * DIM * (gated ? 2 : 1), 1);
    matrix(t, layer, "attn_k.weight", WIDTH, KV * DIM, 1);
    matrix(t, layer, "attn_v.weight", WIDTH, KV * DIM, 1);
    matrix(t, layer, "attn_output.weight", HEADS * DIM, WIDTH, 1);
    if (qk_norm) {
        norm(t, layer, "attn_q_norm.weight", DIM);
        norm(t, layer, "attn_k_norm.weight", DIM);
    }
}

static void dense(struct tiny *t, size_t layer)
{
    matrix(t, layer, "ffn_gate.weight", WIDTH, FF, 1);
    matrix(t, layer, "ffn_up.weight", WIDTH, FF, 1);
    matrix(t, layer, "ffn_down.weight", FF, WIDTH, 1);
}

static void experts(struct tiny *t, size_t layer, bool shared_gate)
{
    matrix(t, layer, "ffn_gate_inp.weight", WIDTH, EXPERTS, 1);
    matrix(t, layer, "ffn_gate_exps.weight", WIDTH, EXPERT_FF, EXPERTS);
    matrix(t, layer, "ffn_up_exps.weight", WIDTH, EXPERT_FF, EXPERTS);
    matrix(t, layer, "ffn_down_exps.weight", EXPERT_FF, WIDTH, EXPERTS);
    matrix(t, layer, "ffn_gate_shexp.weight", WIDTH, EXPERT_FF, 1);
    matrix(t, layer, "ffn_up_shexp.weight", WIDTH, EXPERT_FF, 1);
    matrix(t, layer, "ffn_down_shexp.weight", EXPERT_FF, WIDTH, 1);
    if (shared_gate)
        tiny_add(t, in_layer(layer, "ffn_gate_inp_shexp.weight"), WIDTH, 1, 1, 0, 0.25f);
}

static void expert_keys(struct tiny *t)
{
    tiny_u32(t, "expert_count", EXPERTS);
    tiny_u32(t, "expert_used_count", 2);
    tiny_u32(t, "expert_feed_forward_length", EXPERT_FF);
    tiny_u32(t, "expert_shared_feed_forward_length", EXPERT_FF);
}

static void start(struct tiny *t, const char *arch, uint32_t layers)
{
    *t = (struct tiny){ .arch = arch, .seed = 7, .tokens = TINY_VOCAB };
    tiny_text(t, "general.architecture", arch);
    tiny_u32(t, "context_length", 512);
    tiny_u32(t, "embedding_length", WIDTH);
    tiny_u32(t, "block_count", layers);
    tiny_u32(t, "feed_forward_length", FF);
    tiny_u32(t, "attention.head_count", HEADS);
    tiny_u32(t, "attention.head_count_kv", KV);
    tiny_u32(t, "attention.key_length", DIM);
    tiny_u32(t, "attention.value_length", DIM);
    tiny_number(t, "attention.layer_norm_rms_epsilon", GGUF_F32, 1e-5);
    tiny_number(t, "rope.freq_base", GGUF_F32, 10000);
    tiny_u32(t, "rope.dimension_count", DIM);
    tiny_add(t, "token_embd.weight", WIDTH, TINY_VOCAB, 1, 0, 1);
    tiny_add(t, "output_norm.weight", WIDTH, 1, 1, 1, 0.2f);
    tiny_add(t, "output.weight", WIDTH, TINY_VOCAB, 1, 0, 0.4f);
}

static void family_windows(struct tiny *t)
{
    start(t, "gemma3", TINY_LAYERS);
    tiny_drop_tensor(t, "output.weight");
    tiny_u32(t, "attention.sliding_window", 40);
    tiny_u32(t, "attention.sliding_window_pattern", 2);
    for (size_t i = 0; i < TINY_LAYERS; i++) {
        norm(t, i, "attn_norm.weight", WIDTH);
        norm(t, i, "post_attention_norm.weight", WIDTH);
        norm(t, i, "ffn_norm.weight", WIDTH);
        norm(t, i, "post_ffw_norm.weight", WIDTH);
        attention(t, i, false, true);
        dense(t, i);
    }
}

static void family_mamba(struct tiny *t)
{
    enum { INNER = 96, STATE = 16, RANK = 4 };
    start(t, "mamba", TINY_LAYERS);
    tiny_u32(t, "ssm.conv_kernel", 4);
    tiny_u32(t, "ssm.inner_size", INNER);
    tiny_u32(t, "ssm.state_size", STATE);
    tiny_u32(t, "ssm.time_step_rank", RANK);
    tiny_u32(t, "feed_forward_length", 0);
    for (size_t i = 0; i < TINY_LAYERS; i++) {
        norm(t, i, "attn_norm.weight", WIDTH);
        matrix(t, i, "ssm_in.weight", WIDTH, 2 * INNER, 1);
        tiny_add(t, in_layer(i, "ssm_conv1d.weight"), 4, INNER, 1, 0, 0.5f);
        tiny_add(t, in_layer(i, "ssm_conv1d.bias"), INNER, 1, 1, 0, 0.2f);
        matrix(t, i, "ssm_x.weight", INNER, RANK + 2 * STATE, 1);
        matrix(t, i, "ssm_dt.weight", RANK, INNER, 1);
        tiny_add(t, in_layer(i, "ssm_dt.bias"), INNER, 1, 1, -1, 0.5f);
        tiny_add(t, in_layer(i, "ssm_a"), STATE, INNER, 1, -1, 0.5f);
        tiny_add(t, in_layer(i, "ssm_d"), INNER, 1, 1, 1, 0.2f);
        matrix(t, i, "ssm_out.weight", INNER, WIDTH, 1);
    }
}

static void family_delta(struct tiny *t)
{
    enum { STATE = 32, VALUE_HEADS = 4, KEY_HEADS = 2, INNER = STATE * VALUE_HEADS, CONV = INNER + 2 * KEY_HEADS * STATE };
    start(t, "qwen3next", TINY_LAYERS);
    expert_keys(t);
    tiny_u32(t, "full_attention_interval", 2);
    tiny_u32(t, "ssm.conv_kernel", 4);
    tiny_u32(t, "ssm.inner_size", INNER);
    tiny_u32(t, "ssm.state_size", STATE);
    tiny_u32(t, "ssm.time_step_rank", VALUE_HEADS);
    tiny_u32(t, "ssm.group_count", KEY_HEADS);
    tiny_u32(t, "rope.dimension_count", 8);
    for (size_t i = 0; i < TINY_LAYERS; i++) {
        norm(t, i, "attn_norm.weight", WIDTH);
        norm(t, i, "post_attention_norm.weight", WIDTH);
        experts(t, i, true);
    }
    matrix(t, 0, "attn_qkv.weight", WIDTH, CONV, 1);
    matrix(t, 0, "attn_gate.weight", WIDTH, INNER, 1);
    matrix(t, 0, "ssm_ba.weight", WIDTH, 2 * VALUE_HEADS, 1);
    tiny_add(t, "blk.0.ssm_conv1d.weight", 4, CONV, 1, 0, 0.5f);
    tiny_add(t, "blk.0.ssm_dt.bias", VALUE_HEADS, 1, 1, 0, 0.5f);
    tiny_add(t, "blk.0.ssm_a", VALUE_HEADS, 1, 1, -1, 0.5f);
    norm(t, 0, "ssm_norm.weight", STATE);
    matrix(t, 0, "ssm_out.weight", INNER, WIDTH, 1);
    attention(t, 1, true, true);
}

static void family_latent(struct tiny *t)
{
    enum { LORA = 32, ROT = 16, KEY = 40, VALUE = 20, Q_LORA = 48 };
    start(t, "deepseek2", TINY_LAYERS);
    expert_keys(t);
    tiny_u32(t, "expert_shared_count", 1);
    tiny_u32(t, "leading_dense_block_count", 1);
    tiny_u32(t, "attention.head_count_kv", 1);
    tiny_u32(t, "attention.key_length", LORA + ROT);
    tiny_u32(t, "attention.value_length", LORA);
    tiny_u32(t, "attention.key_length_mla", KEY);
    tiny_u32(t, "attention.value_length_mla", VALUE);
    tiny_u32(t, "attention.q_lora_rank", Q_LORA);
    tiny_u32(t, "attention.kv_lora_rank", LORA);
    tiny_u32(t, "rope.dimension_count", ROT);
    for (size_t i = 0; i < TINY_LAYERS; i++) {
        norm(t, i, "attn_norm.weight", WIDTH);
        norm(t, i, "ffn_norm.weight", WIDTH);
        matrix(t, i, "attn_q_a.weight", WIDTH, Q_LORA, 1);
        norm(t, i, "attn_q_a_norm.weight", Q_LORA);
        matrix(t, i, "attn_q_b.weight", Q_LORA, HEADS * KEY, 1);
        matrix(t, i, "attn_kv_a_mqa.weight", WIDTH, LORA + ROT, 1);
        norm(t, i, "attn_kv_a_norm.weight", LORA);
        matrix(t, i, "attn_k_b.weight", KEY - ROT, LORA, HEADS);
        matrix(t, i, "attn_v_b.weight", LORA, VALUE, HEADS);
        matrix(t, i, "attn_output.weight", HEADS * VALUE, WIDTH, 1);
    }
    dense(t, 0);
    experts(t, 1, false);
}

static void family_conv(struct tiny *t)
{
    start(t, "lfm2", 3);
    tiny_drop_tensor(t, "output.weight");
    snprintf(tiny_find(t, "output_norm.weight")->name, 64, "token_embd_norm.weight");
    tiny_list(t, "attention.head_count_kv", (uint32_t[]){ 0, KV, 0 }, 3);
    tiny_u32(t, "shortconv.l_cache", 3);
    for (size_t i = 0; i < 3; i++) {
        norm(t, i, "attn_norm.weight", WIDTH);
        norm(t, i, "ffn_norm.weight", WIDTH);
        dense(t, i);
        if (i == 1) {
            attention(t, i, false, true);
            continue;
        }
        tiny_add(t, in_layer(i, "shortconv.conv.weight"), 3, WIDTH, 1, 0, 0.5f);
        matrix(t, i, "shortconv.in_proj.weight", WIDTH, 3 * WIDTH, 1);
        matrix(t, i, "shortconv.out_proj.weight", WIDTH, WIDTH, 1);
    }
}

/* llama, and qwen2moe, which adds biases and a shared expert. */
static void family_plain(struct tiny *t, bool with_experts)
{
    start(t, with_experts ? "qwen2moe" : "llama", TINY_LAYERS);
    if (with_experts)
        expert_keys(t);
    for (size_t i = 0; i < TINY_LAYERS; i++) {
        norm(t, i, "attn_norm.weight", WIDTH);
        norm(t, i, "ffn_norm.weight", WIDTH);
        attention(t, i, false, false);
        if (!with_experts) {
            dense(t, i);
            continue;
        }
        tiny_add(t, in_layer(i, "attn_q.bias"), HEADS * DIM, 1, 1, 0, 0.3f);
        tiny_add(t, in_layer(i, "attn_k.bias"), KV * DIM, 1, 1, 0, 0.3f);
        tiny_add(t, in_layer(i, "attn_v.bias"), KV * DIM, 1, 1, 0, 0.3f);
        experts(t, i, true);
    }
}

void tiny_model(struct tiny *t, enum tiny_kind kind)
{
    switch (kind) {
    case TINY_LLAMA: family_plain(t, false); break;
    case TINY_EXPERTS: family_plain(t, true); break;
    case TINY_WINDOWS: family_windows(t); break;
    case TINY_MAMBA: family_mamba(t); break;
    case TINY_DELTA: family_delta(t); break;
    case TINY_LATENT: family_latent(t); break;
    case TINY_CONV: family_conv(t); break;
    case TINY_KINDS: abort();
    }
}

/* ---- the file ----------------------------------------------------------------------------------------------------- */

static void put_key(struct bytes *b, const struct tiny *t, const struct tiny_key *k)
{
    char name[200];
    bool general = !strncmp(k->name, "general.", 8);
    snprintf(name, sizeof name, "%s%s%s", general ? "" : t->arch, general ? "" : ".", k->name);
    put_string(b, name);
    put_u32(b, k->type);
    switch (k->type) {
    case GGUF_STRING:
        put_u64(b, k->text_n);
        put_raw(b, k->text, k->text_n);
        break;
    case GGUF_ARRAY:
        put_u32(b, GGUF_U32);
        put_u64(b, k->list_n);
        for (size_t i = 0; i < k->list_n; i++)
            put_u32(b, k->list[i]);
        break;
    case GGUF_F32: put_f32(b, (float)k->number); break;
    case GGUF_F64: put_raw(b, &k->number, sizeof k->number); break;
    case GGUF_I32: put_u32(b, (uint32_t)(int32_t)k->number); break;
    case GGUF_BOOL: put_u8(b, k->number != 0); break;
    default: put_u32(b, (uint32_t)k->number); break;
    }
}

static void put_array(struct bytes *b, const char *name, enum gguf_type type, size_t n)
{
    put_string(b, name);
    put_u32(b, GGUF_ARRAY);
    put_u32(b, type);
    put_u64(b, n);
}

/* SPM: three control tokens, the bytes, and letters. */
static void put_tokenizer(struct bytes *b, size_t tokens)
{
    char text[32];
    put_key_text(b, "tokenizer.ggml.model", "llama");
    put_key_u32(b, "tokenizer.ggml.bos_token_id", 1);
    put_key_u32(b, "tokenizer.ggml.eos_token_id", 2);
    put_key_u32(b, "tokenizer.ggml.unknown_token_id", 0);
    put_array(b, "tokenizer.ggml.tokens", GGUF_STRING, tokens);
    for (size_t i = 0; i < tokens; i++) {
        if (i < 3)
            snprintf(text, sizeof text, "%s", (const char *[]){ "<unk>", "<s>", "</s>" }[i]);
        else if (i < 259)
            snprintf(text, sizeof text, "<0x%02X>", (unsigned)(i - 3));
        else if (i < 285)
            snprintf(text, sizeof text, "%c", (char)('a' + (i - 259)));
        else
            snprintf(text, sizeof text, "t%zu", i);
        put_string(b, text);
    }
    put_array(b, "tokenizer.ggml.scores", GGUF_F32, tokens);
    for (size_t i = 0; i < tokens; i++)
        put_f32(b, -(float)i);
    put_array(b, "tokenizer.ggml.token_type", GGUF_I32, tokens);
    for (size_t i = 0; i < tokens; i++)
        put_u32(b, i == 0 ? 2 : i < 3 ? 3 : i < 259 ? 6 : 1);
}

static size_t tensor_values(const struct tiny_tensor *t)
{
    return t->shape[0] * t->shape[1] * t->shape[2];
}

static size_t tensor_bytes(const struct tiny_tensor *t)
{
    const struct format *format = format_find(t->type);
    return tensor_values(t) / format->block * format->bytes;
}

static void put_weights(struct bytes *b, const struct tiny *t, const struct tiny_tensor *tensor, const struct kernels *k)
{
    size_t n = tensor_values(tensor);
    uint64_t state = t->seed;
    float *values = malloc(n * sizeof *values);
    void *blocks = malloc(tensor_bytes(tensor) + 64);
    if (!values || !blocks)
        abort();
    for (const char *c = tensor->name; *c; c++)
        state = state * 31 + (unsigned char)*c;
    for (size_t i = 0; i < n; i++)
        values[i] = tensor->mean + tensor->spread * random_float(&state, -1, 1);
    if (tensor->type == FORMAT_F32)
        memcpy(blocks, values, n * sizeof *values);
    else if (k->quantize[tensor->type].fn)
        k->quantize[tensor->type].fn(blocks, values, n);
    else
        memset(blocks, 0, tensor_bytes(tensor));
    put_raw(b, blocks, tensor_bytes(tensor));
    put_pad(b, 32);
    free(values);
    free(blocks);
}

void tiny_bytes(const struct tiny *t, struct bytes *b, size_t *data_offset)
{
    struct kernels k;
    size_t offset = 0;
    kernels_init(&k, &(struct cpu){ .level = CPU_REF });
    put_header(b, t->tensors, t->keys + 7);
    for (size_t i = 0; i < t->keys; i++)
        put_key(b, t, &t->key[i]);
    put_tokenizer(b, t->tokens);
    for (size_t i = 0; i < t->tensors; i++) {
        const uint64_t *shape = t->tensor[i].shape;
        put_tensor(b, t->tensor[i].name, shape[2] > 1 ? 3 : shape[1] > 1 ? 2 : 1, shape, t->tensor[i].type, offset);
        offset += (tensor_bytes(&t->tensor[i]) + 31) / 32 * 32;
    }
    put_pad(b, 32);
    *data_offset = b->n;
    for (size_t i = 0; i < t->tensors; i++)
        put_weights(b, t, &t->tensor[i], &k);
}

void tiny_save(const struct tiny *t, const char *path)
{
    struct bytes b = { 0 };
    size_t data_offset;
    tiny_bytes(t, &b, &data_offset);
    bytes_save(&b, path);
    bytes_free(&b);
}
