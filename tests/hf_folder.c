#include "hf_folder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "formats.h"
#include "text.h"

struct folder {
    const struct gguf *g;
    const char *path;
    const struct hf_folder_options *options;
    char arch[32];
    uint32_t layers, heads, kv_heads, head_dim, experts;
};

void write_text_file(const char *folder, const char *name, const char *text, size_t n)
{
    char path[1200];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(text, 1, n, file) != n || fclose(file) != 0)
        abort();
}

static uint32_t get_u32(const struct folder *f, const char *name, uint32_t fallback)
{
    struct quern_error err;
    char key[96];
    snprintf(key, sizeof key, "%s.%s", f->arch, name);
    if (!gguf_read_u32(f->g, key, &fallback, &err))
        abort();
    return fallback;
}

static bool has(const struct folder *f, const char *name)
{
    char key[96];
    snprintf(key, sizeof key, "%s.%s", f->arch, name);
    return gguf_find(f->g, key) != NULL;
}

/* ,"member": value of ARCH.name, when it is there. */
static void number(struct text *t, const struct folder *f, const char *member, const char *name)
{
    char key[96];
    snprintf(key, sizeof key, "%s.%s", f->arch, name);
    const struct gguf_value *v = gguf_find(f->g, key);
    if (!v)
        return;
    text_addf(t, ",\"%s\":", member);
    text_add_number(t, v->type == GGUF_F32 || v->type == GGUF_F64 ? v->as.f : (double)v->as.u);
}

/* ---- config.json ------------------------------------------------------------------------------------------------ */

static const char *class_of(const struct folder *f)
{
    static const char *const classes[][2] = { { "llama", "LlamaForCausalLM" }, { "qwen2", "Qwen2ForCausalLM" },
        { "qwen3", "Qwen3ForCausalLM" }, { "gemma", "GemmaForCausalLM" }, { "gemma2", "Gemma2ForCausalLM" },
        { "gemma3", "Gemma3ForCausalLM" }, { "phi3", "Phi3ForCausalLM" } };
    if (f->experts)
        return "MixtralForCausalLM";
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
        if (!strcmp(classes[i][0], f->arch))
            return classes[i][1];
    abort();
}

static void factors(struct text *t, const struct folder *f, const char *member, const char *tensor)
{
    const struct gguf_tensor *from = gguf_find_tensor(f->g, tensor);
    text_addf(t, ",\"%s\":[", member);
    for (size_t i = 0; i < from->shape[0]; i++) {
        float value;
        memcpy(&value, from->data + 4 * i, 4);
        if (i)
            text_add(t, ",", 1);
        text_add_number(t, value);
    }
    text_add(t, "]", 1);
}

static void scaling(struct text *t, const struct folder *f)
{
    if (gguf_find_tensor(f->g, "rope_factors_long.weight")) {
        text_addf(t, ",\"original_max_position_embeddings\":%u,\"rope_scaling\":{\"type\":\"longrope\"",
                  get_u32(f, "rope.scaling.original_context_length", 0));
        factors(t, f, "long_factor", "rope_factors_long.weight");
        factors(t, f, "short_factor", "rope_factors_short.weight");
        text_addf(t, "}");
        return;
    }
    if (!has(f, "rope.scaling.type"))
        return;
    char key[96];
    snprintf(key, sizeof key, "%s.rope.scaling.type", f->arch);
    const struct gguf_value *type = gguf_find(f->g, key);
    text_addf(t, ",\"rope_scaling\":{\"rope_type\":\"%.*s\"", (int)type->as.string.n, type->as.string.text);
    number(t, f, "factor", "rope.scaling.factor");
    number(t, f, "original_max_position_embeddings", "rope.scaling.original_context_length");
    text_addf(t, "}");
}

static void write_config(const struct folder *f)
{
    struct text t = { 0 };
    bool gemma = !strncmp(f->arch, "gemma", 5);
    text_addf(&t, "{\"architectures\":[\"%s\"],\"num_hidden_layers\":%u,\"num_attention_heads\":%u,\"num_key_value_heads\":%u",
              class_of(f), f->layers, f->heads, f->kv_heads);
    number(&t, f, "hidden_size", "embedding_length");
    number(&t, f, "intermediate_size", "feed_forward_length");
    number(&t, f, "max_position_embeddings", "context_length");
    number(&t, f, "rope_theta", "rope.freq_base");
    number(&t, f, "rms_norm_eps", "attention.layer_norm_rms_epsilon");
    number(&t, f, "head_dim", "attention.key_length");
    number(&t, f, "num_local_experts", "expert_count");
    number(&t, f, "num_experts_per_tok", "expert_used_count");
    number(&t, f, "sliding_window", "attention.sliding_window");
    number(&t, f, "attn_logit_softcapping", "attn_logit_softcapping");
    number(&t, f, "final_logit_softcapping", "final_logit_softcapping");
    scaling(&t, f);
    text_addf(&t, ",\"hidden_act\":\"%s\",\"tie_word_embeddings\":%s%s}", gemma ? "gelu_pytorch_tanh" : "silu",
              gguf_find_tensor(f->g, "output.weight") ? "false" : "true", f->options->config ? f->options->config : "");
    write_text_file(f->path, "config.json", t.data, t.n);
    text_free(&t);
}

/* ---- model.safetensors ------------------------------------------------------------------------------------------ */

static const char *const layer_names[][2] = {
    { "attn_norm", "input_layernorm" }, { "attn_q", "self_attn.q_proj" }, { "attn_k", "self_attn.k_proj" },
    { "attn_v", "self_attn.v_proj" }, { "attn_qkv", "self_attn.qkv_proj" }, { "attn_output", "self_attn.o_proj" },
    { "attn_q_norm", "self_attn.q_norm" }, { "attn_k_norm", "self_attn.k_norm" }, { "ffn_gate", "mlp.gate_proj" },
    { "ffn_up", "mlp.up_proj" }, { "ffn_down", "mlp.down_proj" }, { "post_attention_norm", "post_attention_layernorm" },
    { "post_ffw_norm", "post_feedforward_layernorm" }, { "ffn_gate_inp", "block_sparse_moe.gate" },
    { "ffn_gate_exps", "block_sparse_moe.experts.%u.w1" }, { "ffn_down_exps", "block_sparse_moe.experts.%u.w2" },
    { "ffn_up_exps", "block_sparse_moe.experts.%u.w3" },
};

/* "blk.3.attn_q.weight" -> "model.layers.3.self_attn.q_proj.weight". False for what config.json holds instead. */
static bool hf_name(const struct folder *f, const char *name, unsigned expert, char *out, size_t size)
{
    unsigned layer;
    char base[64], suffix[16], middle[80];
    if (!strncmp(name, "rope_", 5))
        return false;
    if (sscanf(name, "blk.%u.%63[^.].%15s", &layer, base, suffix) != 3) {
        const char *global = !strcmp(name, "token_embd.weight") ? "model.embed_tokens.weight" :
                             !strcmp(name, "output_norm.weight") ? "model.norm.weight" : "lm_head.weight";
        snprintf(out, size, "%s", global);
        return true;
    }
    bool post = !strcmp(f->arch, "gemma2") || !strcmp(f->arch, "gemma3");
    const char *found = !strcmp(base, "ffn_norm") ? post ? "pre_feedforward_layernorm" : "post_attention_layernorm" :
                        !strcmp(base, "ffn_up") && !strcmp(f->arch, "phi3") ? "mlp.gate_up_proj" : NULL;
    for (size_t i = 0; !found && i < sizeof layer_names / sizeof *layer_names; i++)
        if (!strcmp(layer_names[i][0], base))
            found = layer_names[i][1];
    if (!found)
        abort();
    const char *number_at = strstr(found, "%u");
    if (number_at)
        snprintf(middle, sizeof middle, "%.*s%u%s", (int)(number_at - found), found, expert, number_at + 2);
    else
        snprintf(middle, sizeof middle, "%s", found);
    snprintf(out, size, "model.layers.%u.%s.%s", layer, middle, suffix);
    return true;
}

/* Rows of q and k back from neighbours to halves; gemma's norms less 1. */
static void undo(const struct folder *f, const char *name, const struct gguf_tensor *t, uint8_t *data, size_t bytes)
{
    bool q = strstr(name, ".attn_q.") != NULL, k = strstr(name, ".attn_k.") != NULL;
    if (!strcmp(f->arch, "llama") && (q || k)) {
        size_t rows = t->dims == 1 ? t->shape[0] : t->shape[1], row = bytes / rows, half = f->head_dim / 2;
        uint8_t *copy = malloc(bytes);
        memcpy(copy, data, bytes);
        for (size_t head = 0; head < rows / f->head_dim; head++)
            for (size_t i = 0; i < half; i++)
                for (size_t side = 0; side < 2; side++)
                    memcpy(data + (head * f->head_dim + side * half + i) * row, copy + (head * f->head_dim + 2 * i + side) * row,
                           row);
        free(copy);
    }
    if (!strncmp(f->arch, "gemma", 5) && strstr(name, "norm.weight"))
        for (size_t i = 0; i < bytes / 4; i++) {
            float value;
            memcpy(&value, data + 4 * i, 4);
            value -= 1;
            memcpy(data + 4 * i, &value, 4);
        }
}

struct shard { struct text header, data; };

static void add_tensor(const struct folder *f, struct shard *shard, struct text *index, const char *file,
                       const struct gguf_tensor *t)
{
    char gguf_name[65], name[160];
    unsigned slices = t->dims == 3 ? (unsigned)t->shape[2] : 1;
    snprintf(gguf_name, sizeof gguf_name, "%.*s", (int)t->name.n, t->name.text);
    for (unsigned s = 0; s < slices; s++) {
        if (!hf_name(f, gguf_name, s, name, sizeof name))
            return;
        size_t bytes = t->bytes / slices;
        uint8_t *data = malloc(bytes);
        memcpy(data, t->data + s * bytes, bytes);
        undo(f, gguf_name, t, data, bytes);
        const char *dtype = t->type == FORMAT_F32 ? "F32" : t->type == FORMAT_F16 ? "F16" : t->type == FORMAT_BF16 ? "BF16" : NULL;
        if (!dtype)
            abort();
        text_addf(&shard->header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", shard->header.n ? "," : "{", name, dtype);
        if (t->dims == 1)
            text_addf(&shard->header, "%zu", t->shape[0]);
        else
            text_addf(&shard->header, "%zu,%zu", t->shape[1], t->shape[0]);
        text_addf(&shard->header, "],\"data_offsets\":[%zu,%zu]}", shard->data.n, shard->data.n + bytes);
        text_add(&shard->data, (const char *)data, bytes);
        text_addf(index, "%s\"%s\":\"%s\"", index->n ? "," : "{\"weight_map\":{", name, file);
        free(data);
    }
}

static void write_weights(const struct folder *f)
{
    struct shard shards[3] = { 0 };
    struct text index = { 0 };
    size_t count = f->options->shards ? 3 : 1;
    char file[64];
    for (size_t i = 0; i < f->g->tensor_count; i++) {
        size_t s = i % count;
        snprintf(file, sizeof file, count > 1 ? "model-%05zu.safetensors" : "model.safetensors", s + 1);
        add_tensor(f, &shards[s], &index, file, &f->g->tensors[i]);
    }
    for (size_t s = 0; s < count; s++) {
        struct text whole = { 0 };
        uint8_t length[8];
        text_addf(&shards[s].header, "}");
        for (int i = 0; i < 8; i++)
            length[i] = (uint8_t)(shards[s].header.n >> (8 * i));
        text_add(&whole, (const char *)length, 8);
        text_add(&whole, shards[s].header.data, shards[s].header.n);
        text_add(&whole, shards[s].data.data, shards[s].data.n);
        snprintf(file, sizeof file, count > 1 ? "model-%05zu.safetensors" : "model.safetensors", s + 1);
        write_text_file(f->path, file, whole.data, whole.n);
        text_free(&whole);
        text_free(&shards[s].header);
        text_free(&shards[s].data);
    }
    text_addf(&index, "}}");
    if (count > 1)
        write_text_file(f->path, "model.safetensors.index.json", index.data, index.n);
    text_free(&index);
}

/* ---- the tokenizer ---------------------------------------------------------------------------------------------- */

static void varint(struct text *t, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        text_add(t, &(char){ (char)(value | 0x80) }, 1);
    text_add(t, &(char){ (char)value }, 1);
}

/* Field `number` of wire type 2. */
static void message(struct text *t, unsigned number_, const struct text *body)
{
    varint(t, number_ << 3 | 2);
    varint(t, body->n);
    text_add(t, body->data ? body->data : "", body->n);
}

static struct gguf_string token_text(const struct gguf_value *tokens, size_t *cursor)
{
    return gguf_array_string(tokens, cursor);
}

static void write_pieces(const struct folder *f)
{
    const struct gguf_value *tokens = gguf_find(f->g, "tokenizer.ggml.tokens"), *scores = gguf_find(f->g, "tokenizer.ggml.scores");
    const struct gguf_value *types = gguf_find(f->g, "tokenizer.ggml.token_type");
    struct text model = { 0 }, trainer = { 0 }, normalizer = { 0 };
    size_t cursor = 0;
    for (size_t i = 0; i < tokens->as.array.n; i++) {
        struct gguf_string s = token_text(tokens, &cursor);
        struct text piece = { 0 }, body = { .data = (char *)(uintptr_t)s.text, .n = s.n };
        double score;
        int64_t type;
        if (!gguf_array_f64(scores, i, &score) || !gguf_array_i64(types, i, &type))
            abort();
        float value = (float)score;
        message(&piece, 1, &body);
        varint(&piece, 2 << 3 | 5);
        text_add(&piece, (const char *)&value, 4);
        varint(&piece, 3 << 3);
        varint(&piece, (uint64_t)type);
        message(&model, 1, &piece);
        text_free(&piece);
    }
    varint(&trainer, 3 << 3);
    varint(&trainer, 2);
    message(&model, 2, &trainer);
    varint(&normalizer, 3 << 3);
    varint(&normalizer, 1);
    message(&model, 3, &normalizer);
    write_text_file(f->path, "tokenizer.model", model.data, model.n);
    text_free(&model);
    text_free(&trainer);
    text_free(&normalizer);
}

static const char qwen2_split[] =
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
    "[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}| "
        "?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},"
    "\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]}";

static void add_merges(const struct folder *f, struct text *t)
{
    const struct gguf_value *merges = gguf_find(f->g, "tokenizer.ggml.merges");
    size_t cursor = 0;
    for (size_t i = 0; merges && i < merges->as.array.n; i++) {
        struct gguf_string s = gguf_array_string(merges, &cursor);
        const char *blank = memchr(s.text, ' ', s.n);
        if (i)
            text_add(t, ",", 1);
        if (!f->options->pair_merges) {
            text_add_json(t, s.text, s.n);
            continue;
        }
        text_add(t, "[", 1);
        text_add_json(t, s.text, (size_t)(blank - s.text));
        text_add(t, ",", 1);
        text_add_json(t, blank + 1, s.n - (size_t)(blank - s.text) - 1);
        text_add(t, "]", 1);
    }
}

static void write_bpe(const struct folder *f)
{
    const struct gguf_value *tokens = gguf_find(f->g, "tokenizer.ggml.tokens");
    const struct gguf_value *types = gguf_find(f->g, "tokenizer.ggml.token_type");
    struct text t = { 0 }, added = { 0 };
    size_t cursor = 0;
    bool first = true;
    text_addf(&t, "{\"version\":\"1.0\",\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":%s,\"model\":{\"type\":\"BPE\","
              "\"vocab\":{",
              qwen2_split);
    for (size_t i = 0; i < tokens->as.array.n; i++) {
        struct gguf_string s = token_text(tokens, &cursor);
        int64_t type;
        if (!gguf_array_i64(types, i, &type))
            abort();
        if (type != 1 && type != 5) {        /* "unused" cannot be said: it becomes a word like the others */
            text_addf(&added, "%s{\"id\":%zu,\"special\":%s,\"content\":", added.n ? "," : "", i, type == 3 ? "true" : "false");
            text_add_json(&added, s.text, s.n);
            text_addf(&added, "}");
            continue;
        }
        text_addf(&t, first ? "" : ",");
        text_add_json(&t, s.text, s.n);
        text_addf(&t, ":%zu", i);
        first = false;
    }
    text_addf(&t, "},\"merges\":[");
    add_merges(f, &t);
    text_addf(&t, "]},\"added_tokens\":[");
    text_add(&t, added.data ? added.data : "", added.n);
    text_addf(&t, "]}");
    write_text_file(f->path, "tokenizer.json", t.data, t.n);
    text_free(&t);
    text_free(&added);
}

/* bos_token, eos_token by their texts, and whether BOS is added. */
static void write_tokenizer_config(const struct folder *f)
{
    static const char *const kinds[] = { "bos", "eos" };
    const struct gguf_value *tokens = gguf_find(f->g, "tokenizer.ggml.tokens");
    struct text t = { 0 };
    struct quern_error err;
    bool add = false;
    gguf_read_bool(f->g, "tokenizer.ggml.add_bos_token", &add, &err);
    text_addf(&t, "{\"add_bos_token\":%s", add ? "true" : "false");
    for (int k = 0; k < 2; k++) {
        char key[64];
        uint32_t id = UINT32_MAX;
        snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", kinds[k]);
        gguf_read_u32(f->g, key, &id, &err);
        size_t cursor = 0;
        for (size_t i = 0; id != UINT32_MAX && i <= id; i++) {
            struct gguf_string s = token_text(tokens, &cursor);
            if (i < id)
                continue;
            text_addf(&t, k ? ",\"%s_token\":" : ",\"%s_token\":{\"content\":", kinds[k]);
            text_add_json(&t, s.text, s.n);
            text_addf(&t, k ? "" : "}");
        }
    }
    text_addf(&t, ",\"chat_template\":\"{{ messages }}\"}");
    write_text_file(f->path, "tokenizer_config.json", t.data, t.n);
    text_free(&t);
}

void hf_folder_write(const struct gguf *g, const char *folder, const struct hf_folder_options *options)
{
    static const struct hf_folder_options plain = { 0 };
    struct folder f = { .g = g, .path = folder, .options = options ? options : &plain };
    const struct gguf_value *arch = gguf_find(g, "general.architecture");
    mkdir(folder, 0777);
    snprintf(f.arch, sizeof f.arch, "%.*s", (int)arch->as.string.n, arch->as.string.text);
    f.layers = get_u32(&f, "block_count", 0);
    f.heads = get_u32(&f, "attention.head_count", 0);
    f.kv_heads = get_u32(&f, "attention.head_count_kv", f.heads);
    f.experts = get_u32(&f, "expert_count", 0);
    f.head_dim = get_u32(&f, "attention.key_length", get_u32(&f, "embedding_length", 0) / f.heads);
    write_config(&f);
    write_weights(&f);
    const struct gguf_value *model = gguf_find(g, "tokenizer.ggml.model");
    if (gguf_string_is(model->as.string, "llama"))
        write_pieces(&f);
    else
        write_bpe(&f);
    write_tokenizer_config(&f);
}
