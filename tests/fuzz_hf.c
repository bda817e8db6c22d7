/* Any bytes as tokenizer.model, tokenizer.json, tokenizer_config.json or config.json, the rest of the folder being whole: no crash,
 * no leak, no endless loop. The first byte says which file the others are. */
#include <stdlib.h>
#include <string.h>

#include "hf_model.h"
#include "sentencepiece.h"
#include "text.h"
#include "vocab.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char config_text[] =
    "{\"architectures\":[\"MixtralForCausalLM\"],\"num_hidden_layers\":1,\"num_attention_heads\":2,\"hidden_size\":4,"
    "\"intermediate_size\":4,\"max_position_embeddings\":8,\"num_local_experts\":1,\"num_experts_per_tok\":1,"
        "\"tie_word_embeddings\":true,"
    "\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8}}";
static const char json_text[] =
    "{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,"
        "\"ab\":2},"
    "\"merges\":[\"a b\"]},\"added_tokens\":[{\"id\":3,\"content\":\"<s>\",\"special\":true}]}";

/* One layer, 4 wide, 8 tokens; all tensors F32 and zero. */
static const struct { const char *name; size_t rows, cols; } tensors[] = {
    { "model.embed_tokens.weight", 8, 4 }, { "model.norm.weight", 0, 4 }, { "model.layers.0.input_layernorm.weight", 0, 4 },
    { "model.layers.0.post_attention_layernorm.weight", 0, 4 }, { "model.layers.0.self_attn.q_proj.weight", 4, 4 },
    { "model.layers.0.self_attn.k_proj.weight", 4, 4 }, { "model.layers.0.self_attn.v_proj.weight", 4, 4 },
    { "model.layers.0.self_attn.o_proj.weight", 4, 4 }, { "model.layers.0.block_sparse_moe.gate.weight", 1, 4 },
    { "model.layers.0.block_sparse_moe.experts.0.w1.weight", 4, 4 },
    { "model.layers.0.block_sparse_moe.experts.0.w2.weight", 4, 4 },
    { "model.layers.0.block_sparse_moe.experts.0.w3.weight", 4, 4 },
};

static void make_weights(struct text *out)
{
    static const char zeros[128];
    struct text header = { 0 };
    size_t at = 0;
    char length[8];
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) {
        size_t bytes = 4 * tensors[i].cols * (tensors[i].rows ? tensors[i].rows : 1);
        text_addf(&header, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[", i ? "," : "{", tensors[i].name);
        if (tensors[i].rows)
            text_addf(&header, "%zu,", tensors[i].rows);
        text_addf(&header, "%zu],\"data_offsets\":[%zu,%zu]}", tensors[i].cols, at, at + bytes);
        at += bytes;
    }
    text_addf(&header, "}");
    for (int i = 0; i < 8; i++)
        length[i] = (char)(header.n >> (8 * i));
    text_add(out, length, 8);
    text_add(out, header.data, header.n);
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
        text_add(out, zeros, 4 * tensors[i].cols * (tensors[i].rows ? tensors[i].rows : 1));
    text_free(&header);
}

static const struct json *object(struct hf *h, const char *text, size_t n)
{
    struct quern_error err;
    const struct json *j = json_parse(&h->arena, text, n, "fuzz", NULL, &err);
    return j && j->type == JSON_OBJECT ? j : NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    static struct kernels kernels;        /* these three are made once and stay */
    static struct safetensors weights;
    static struct text file;
    struct quern_error err;
    struct hf h = { .path = "fuzz" };
    const char *text = (const char *)data + 1;
    if (!file.data) {
        kernels_init(&kernels, &(struct cpu){ 0 });
        make_weights(&file);
        if (!safetensors_view(&weights, file.data, file.n, "weights", &err))
            abort();
    }
    arena_init(&h.arena, (size_t)64 << 20);
    h.weights = weights;
    unsigned which = data[0] % 4;
    h.config = h.text_config = which == 0 ? object(&h, text, size - 1) : object(&h, config_text, sizeof config_text - 1);
    h.tokenizer = which == 1 ? object(&h, text, size - 1) : object(&h, json_text, sizeof json_text - 1);
    h.tokenizer_config = which == 2 ? object(&h, text, size - 1) : NULL;
    if (which == 3)
        h.pieces = (struct map){ .data = data + 1, .size = size - 1 };
    struct hf_plan plan;
    struct vocab vocab;
    if (h.config && hf_plan(&plan, &h, FORMAT_F16, &kernels, &err)) {
        for (size_t i = 0; i < plan.count; i++) {
            size_t bytes;
            if (!plan.tensors[i].slice_count || !plan.tensors[i].slices[0] || !emit_bytes(&plan.tensors[i], &bytes))
                abort();
        }
        if (vocab_read(&vocab, &h, plan.vocabulary, data[0] & 128 ? "gpt-2" : NULL, &err))
            for (size_t i = 0; i < vocab.count; i++)
                if (!vocab.tokens[i].text || vocab.tokens[i].text[0] == 1)
                    continue;
    } else if (which != 0) {
        abort();
    }
    arena_free(&h.arena);
    return 0;
}
