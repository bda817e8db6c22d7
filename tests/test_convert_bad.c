/* quern-convert on folders that are wrong in one thing, and on outputs that cannot or must not be written (bad-inputs I10,
 * G10-G12). */
#include "convert.h"
#include "formats.h"
#include "hf_folder.h"
#include "sentencepiece.h"
#include "test.h"
#include "text.h"
#include "tokenizer.h"
#include "vocab.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct quern_error err;
static char folder[600], output[700];

static bool convert_with(const char *pre)
{
    struct convert_options how = { .type = FORMAT_COUNT, .force = true, .pre = pre };
    err = (struct quern_error){ 0 };
    return convert_model(folder, output, &how, &err);
}

/* The embedded model as a folder of two layers: that is enough, and quick. */
static void make_folder(void)
{
    struct gguf g;
    char half[600];
    snprintf(folder, sizeof folder, "%s", temp_path("bad-folder"));
    snprintf(output, sizeof output, "%s", temp_path("bad-out.gguf"));
    snprintf(half, sizeof half, "%s", temp_path("bad-bf16.gguf"));
    struct convert_options how = { .type = FORMAT_BF16, .force = true };
    if (!convert_model("models/tiny-books-q8_0.gguf", half, &how, &err) || !gguf_open(&g, half, NULL, &err))
        abort();
    hf_folder_write(&g, folder, &(struct hf_folder_options){ .shards = true });
    gguf_close(&g);
    unlink(half);
}

/* Replace the first `find` in FOLDER/FILE by `with` (find NULL: the whole file; with NULL: remove the file); the old text comes
 * back. */
static char *edit(const char *file, const char *find, const char *with, size_t *n)
{
    char path[1400];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    char *old = read_whole_file(path, n);
    if (!with) {
        unlink(path);
        return old;
    }
    struct text t = { 0 };
    char *at = find && old ? strstr(old, find) : NULL;
    if (find && !at) {
        printf("no '%s' in %s\n", find, file);
        abort();
    }
    if (at) {
        text_add(&t, old, (size_t)(at - old));
        text_addf(&t, "%s%s", with, at + strlen(find));
    } else {
        text_addf(&t, "%s", with);
    }
    write_text_file(folder, file, t.data, t.n);
    text_free(&t);
    return old;
}

static void restore(const char *file, char *old, size_t n)
{
    char path[1400];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    if (old)
        write_text_file(folder, file, old, n);
    else
        unlink(path);
    free(old);
}

static const struct { const char *file, *find, *with; enum quern_code code; const char *words; } edits[] = {
    { "config.json", NULL, NULL, QUERN_EFORMAT, "no config.json" },
    { "config.json", NULL, "", QUERN_EFORMAT, "config.json: line 1" },
    { "config.json", NULL, "[1]", QUERN_EFORMAT, "not a JSON object" },
    { "config.json", NULL, "{}", QUERN_EUNSUPPORTED, "architecture 'none'" },
    { "config.json", "LlamaForCausalLM", "Llama\\u001b[31mX", QUERN_EUNSUPPORTED, "'Llama\\x1B[31mX'; known are LlamaForCausalLM" },
    { "config.json", "\"silu\"", "\"relu2\"", QUERN_EUNSUPPORTED, "activation 'relu2'" },
    { "config.json", "\"num_hidden_layers\":6", "\"num_hidden_layers\":7", QUERN_EFORMAT, "layer 6 has not what layer 0 has" },
    { "config.json", "\"num_hidden_layers\":6", "\"num_hidden_layers\":5", QUERN_EFORMAT, "num_hidden_layers is 5" },
    { "config.json", "\"num_hidden_layers\":6", "\"num_hidden_layers\":4000000000", QUERN_EFORMAT, "only 56 tensors" },
    { "config.json", "\"num_hidden_layers\":6", "\"num_hidden_layers\":\"6\"", QUERN_EFORMAT, "'num_hidden_layers' must be" },
    { "config.json", "\"num_hidden_layers\":6", "\"num_hidden_layers\":0", QUERN_EFORMAT, "must be there and positive" },
    { "config.json", "\"num_attention_heads\":8", "\"num_attention_heads\":-8", QUERN_EFORMAT, "'num_attention_heads' must be" },
    { "config.json", "\"num_attention_heads\":8", "\"num_attention_heads\":9", QUERN_EFORMAT, "do not divide" },
    { "config.json", "\"num_attention_heads\":8", "\"num_attention_heads\":4", QUERN_EFORMAT,
      "has 256 rows, 4 heads of 32 need 128" },
    { "config.json", "\"head_dim\":32", "\"head_dim\":31", QUERN_EFORMAT, "head_dim 31 must be even" },
    { "config.json", "\"hidden_size\":256", "\"hidden_size\":128", QUERN_EFORMAT, "the embedding has 256 columns" },
    { "config.json", "\"rope_theta\":10000", "\"rope_theta\":-1", QUERN_EFORMAT, "rope_theta must be" },
    { "config.json", "\"rope_theta\":10000", "\"rope_theta\":1e999", QUERN_EFORMAT, "beyond the range" },
    { "config.json", "\"intermediate_size\":768,", "", QUERN_EFORMAT, "intermediate_size" },
    { "config.json", "\"tie_word_embeddings\":true", "\"tie_word_embeddings\":false", QUERN_EFORMAT, "lm_head.weight is missing" },
    { "config.json", "\"rope_theta\":", "\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2},\"rope_theta\":", QUERN_EUNSUPPORTED,
      "rope scaling 'dynamic'" },
    { "config.json", "\"rope_theta\":", "\"rope_scaling\":{\"type\":\"linear\"},\"rope_theta\":", QUERN_EFORMAT,
      "without its factor" },
    { "config.json", "\"rope_theta\":", "\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":0},\"rope_theta\":", QUERN_EFORMAT,
      "needs factor > 0" },
    { "config.json", "\"rope_theta\":", "\"rope_scaling\":{\"rope_type\":\"longrope\",\"long_factor\":[0]},\"rope_theta\":",
      QUERN_EFORMAT, "something else than positive numbers" },
    { "config.json", "\"rope_theta\":", "\"rope_scaling\":{\"rope_type\":\"longrope\",\"long_factor\":2},\"rope_theta\":",
      QUERN_EFORMAT, "'long_factor' must be a list of at most 16 numbers" },
    { "config.json", "\"rope_theta\":", "\"rope_scaling\":{\"type\":\"linear\",\"factor\":\"2\"},\"rope_theta\":", QUERN_EFORMAT,
      "rope's 'factor' must be a number" },
    { "config.json", "\"rope_theta\":",
      "\"rope_scaling\":{\"type\":\"yarn\",\"factor\":2,\"original_max_position_embeddings\":0},\"rope_theta\":", QUERN_EFORMAT,
      "original_max_position_embeddings 0" },
    { "config.json", "\"rms_norm_eps\":", "\"rms_norm_eps\":\"1\",\"x\":", QUERN_EFORMAT, "'rms_norm_eps' must be a number" },
    { "config.json", "LlamaForCausalLM\"]", "Phi3ForCausalLM\"],\"partial_rotary_factor\":1.5", QUERN_EFORMAT,
      "partial_rotary_factor 1.5" },
    { "config.json", "LlamaForCausalLM", "MixtralForCausalLM", QUERN_EFORMAT, "num_local_experts 0" },
    { "config.json", "LlamaForCausalLM", "Phi3ForCausalLM", QUERN_OK, "" },
    { "model.safetensors.index.json", NULL, NULL, QUERN_EUNSUPPORTED, "neither model.safetensors nor" },
    { "model.safetensors.index.json", "model-00002.safetensors", "model-00009.safetensors", QUERN_EFORMAT, "is missing" },
    { "model.safetensors.index.json", "model-00002.safetensors", "../x.safetensors", QUERN_EFORMAT, "not a plain file name" },
    { "model.safetensors.index.json", "model.layers.3.mlp.up_proj", "model.layers.3.mlp.yp_proj", QUERN_EFORMAT, "is in no shard" },
    { "tokenizer.model", NULL, NULL, QUERN_EUNSUPPORTED, "neither tokenizer.model nor tokenizer.json" },
    { "tokenizer.model", NULL, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", QUERN_EFORMAT, "more than 64 bits" },
    { "tokenizer_config.json", NULL, "{\"added_tokens_decoder\":{\"x\":{\"content\":\"a\"}}}", QUERN_EFORMAT, "no id" },
    { "tokenizer_config.json", NULL, "{\"added_tokens_decoder\":{\"7\":{\"special\":true}}}", QUERN_EFORMAT, "has no text" },
    { "added_tokens.json", NULL, "{\"a\":\"b\"}", QUERN_EFORMAT, "is no id" },
    { "generation_config.json", NULL, "{", QUERN_EFORMAT, "generation_config.json: line 1" },
};

static void test_one_thing_wrong(void)
{
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        size_t n = 0;
        char *old = edit(edits[i].file, edits[i].find, edits[i].with, &n);
        unlink(output);
        bool ok = convert_with(NULL);
        CHECK(err.code == edits[i].code && ok == (edits[i].code == QUERN_OK), "row %zu (%s, %s): code %d, '%s'", i, edits[i].file,
              edits[i].words, err.code, err.text);
        CHECK(ok || strstr(err.text, edits[i].words), "row %zu: '%s'", i, err.text);
        CHECK(ok == (access(output, F_OK) == 0), "row %zu: the output", i);
        restore(edits[i].file, old, n);
    }
    CHECK(convert_with(NULL), "the folder is whole again: %s", err.text);
}

/* Bytes of a shard's header, which holds NULs: the first `find` of all shards becomes `with`, of the same length. */
static bool convert_with_header(const char *find, const char *with)
{
    for (int shard = 1; shard <= 3; shard++) {
        char name[40], path[1400];
        size_t n, at = 0, length = strlen(find);
        snprintf(name, sizeof name, "model-%05d.safetensors", shard);
        snprintf(path, sizeof path, "%s/%s", folder, name);
        char *bytes = read_whole_file(path, &n);
        while (bytes && at + length <= n && memcmp(bytes + at, find, length))
            at++;
        if (bytes && at + length <= n) {
            memcpy(bytes + at, with, length);
            write_text_file(folder, name, bytes, n);
            unlink(output);
            bool ok = convert_with(NULL);
            memcpy(bytes + at, find, length);
            write_text_file(folder, name, bytes, n);
            free(bytes);
            return ok;
        }
        free(bytes);
    }
    printf("no '%s' in any shard\n", find);
    abort();
}

/* Tensors that are whole, and still not what a model has. */
static void test_tensors(void)
{
    size_t n;
    CHECK(!convert_with_header("\"BF16\"", "\"I16\" ") && err.code == QUERN_EUNSUPPORTED &&
              strstr(err.text, "I16; F32, F16 and BF16"), "%s", err.text);
    CHECK(!convert_with_header("[256]", "[1]  ") && err.code == QUERN_EFORMAT, "%s", err.text);
    CHECK(!convert_with_header("[768,256]", "[196608] ") && err.code == QUERN_EFORMAT &&
              strstr(err.text, "has 1 dimensions, 2 expected"), "%s", err.text);
    char *old = edit("model.safetensors.index.json", "layers.0.mlp.up_proj", "layers.0.mlp.yp_proj", &n);
    CHECK(!convert_with_header("layers.0.mlp.up_proj", "layers.0.mlp.yp_proj") && err.code == QUERN_EUNSUPPORTED &&
              strstr(err.text, "yp_proj.weight' has no place in a GGUF of 'llama'"), "%s", err.text);
    restore("model.safetensors.index.json", old, n);
    CHECK(access(output, F_OK) != 0 && convert_with(NULL), "the folder is whole again: %s", err.text);
}

/* ---- tokenizer.model -------------------------------------------------------------------------------------------- */

/* A small model by hand, so that fields can be bent. */
static void put_varint(struct text *t, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        text_add(t, &(char){ (char)(value | 0x80) }, 1);
    text_add(t, &(char){ (char)value }, 1);
}

static void put_bytes(struct text *t, unsigned field, const struct text *body)
{
    put_varint(t, field << 3 | 2);
    put_varint(t, body->n);
    text_add(t, body->data ? body->data : "", body->n);
}

struct model { uint64_t type, piece_type, bos; uint32_t score; };

static void make_model(struct text *out, const struct model *m)
{
    struct text piece = { 0 }, trainer = { 0 }, normalizer = { 0 }, name = { .data = (char[]){ "ab" }, .n = 2 };
    put_bytes(&piece, 1, &name);
    put_varint(&piece, 2 << 3 | 5);
    text_add(&piece, (const char *)&m->score, 4);
    put_varint(&piece, 3 << 3);
    put_varint(&piece, m->piece_type);
    put_varint(&piece, 99 << 3);             /* a field of the future */
    put_varint(&piece, 5);
    for (int i = 0; i < 3; i++)
        put_bytes(out, 1, &piece);
    put_varint(&trainer, 3 << 3);
    put_varint(&trainer, m->type);
    put_varint(&trainer, 41 << 3);
    put_varint(&trainer, m->bos);
    put_bytes(out, 2, &trainer);
    put_varint(&normalizer, 3 << 3);
    put_varint(&normalizer, 0);
    put_bytes(out, 3, &normalizer);
    text_free(&piece);
    text_free(&trainer);
    text_free(&normalizer);
}

static void test_model_fields(void)
{
    static const struct { struct model m; const char *words; } cases[] = {
        { { 2, 4, 1, 0x3f800000 }, NULL },
        { { 2, 4, UINT64_MAX, 0x3f800000 }, NULL },
        { { 9, 4, 1, 0x3f800000 }, "model type is unknown" },
        { { 2, 0, 1, 0x3f800000 }, "type is unknown" },
        { { 2, 7, 1, 0x3f800000 }, "type is unknown" },
        { { 2, 4, 3, 0x3f800000 }, "the begin token has id 3, there are 3 pieces" },
        { { 2, 4, 0xffffffff, 0x3f800000 }, "out of range" },
        { { 2, 4, 1, 0x7fc00000 }, "score is not finite" },
        { { 2, 4, 1, 0x7f800000 }, "score is not finite" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct text t = { 0 };
        struct arena arena;
        struct sentencepiece s;
        arena_init(&arena, 0);
        make_model(&t, &cases[i].m);
        bool ok = sentencepiece_read(&s, &arena, t.data, t.n, "m", &err);
        CHECK(ok == !cases[i].words && (ok || (err.code == QUERN_EFORMAT && strstr(err.text, cases[i].words))), "case %zu: %s", i,
              err.text);
        if (ok) {
            CHECK(s.count == 3 && s.pieces[2].n == 2 && s.pieces[2].score == 1 && s.pieces[2].type == PIECE_USER_DEFINED, "pieces");
            CHECK(s.model == MODEL_BPE && s.bos == (int32_t)cases[i].m.bos && !s.add_dummy_prefix, "flags");
        }
        /* Every prefix and every changed byte: an answer, and no read beyond the end. */
        for (size_t n = 0; n < t.n && i == 0; n++) {
            char *cut = malloc(n ? n : 1);
            memcpy(cut, t.data, n);
            sentencepiece_read(&s, &arena, cut, n, "m", &err);
            free(cut);
            for (int bit = 0; bit < 8; bit++) {
                char *bent = malloc(t.n);
                memcpy(bent, t.data, t.n);
                bent[n] = (char)(bent[n] ^ 1 << bit);
                sentencepiece_read(&s, &arena, bent, t.n, "m", &err);
                free(bent);
            }
        }
        arena_free(&arena);
        text_free(&t);
    }
}

/* ---- tokenizer.json --------------------------------------------------------------------------------------------- */

#define BYTES ",{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}"
#define SPLIT(regex) "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" regex "\"},\"behavior\":\"Isolated\",\"invert\":false}"
#define SEQUENCE(list) "{\"type\":\"Sequence\",\"pretokenizers\":[" list "]}"

/* The trees as the published files have them. */
static const struct { const char *name, *tree; bool ignore_merges; } trees[] = {
    { "gpt-2", "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":true}", false },
    { "gpt-2", "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true}", false },
    { "llama-bpe", SEQUENCE(SPLIT("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}| "
                                  "?[^\\\\s\\\\p{L}\\\\p{N}]+"
                                  "[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+") BYTES), true },
    { "qwen2", SEQUENCE(SPLIT("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}| "
                              "?[^\\\\s\\\\p{L}\\\\p{N}]+"
                              "[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+") BYTES), false },
    { "qwen2", SEQUENCE(SPLIT("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}| "
                              "?[^\\\\s\\\\p{L}\\\\p{N}]+"
                              "[\\r\\n]*|\\\\s*[\\r\\n]+|\\\\s+(?!\\\\S)|\\\\s+") BYTES), false },
    { "tekken", SEQUENCE(SPLIT("[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?[\\\\p{Lu}\\\\p{Lt}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]*"
                               "[\\\\p{Ll}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]+|"
                               "[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?[\\\\p{Lu}\\\\p{Lt}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]+"
                               "[\\\\p{Ll}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]*|"
                               "\\\\p{N}| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n/]*"
                               "|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+") BYTES), true },
    { "starcoder", SEQUENCE("{\"type\":\"Digits\",\"individual_digits\":true},{\"type\":\"ByteLevel\",\"add_prefix_space\":false}"),
      false },
    { "falcon", SEQUENCE("{\"type\":\"Punctuation\",\"behavior\":\"Contiguous\"},{\"type\":\"ByteLevel\","
                         "\"add_prefix_space\":false},"
                         "{\"type\":\"Digits\",\"individual_digits\":false}," SPLIT("[0-9][0-9][0-9]")), false },
    { "deepseek-coder", SEQUENCE(SPLIT("[\\r\\n]") "," SPLIT("\\\\s?\\\\p{L}+") "," SPLIT("\\\\s?\\\\p{P}+") ","
                                 SPLIT("[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+") ",{\"type\":\"Digits\","
                                     "\"individual_digits\":true}" BYTES), false },
    { "deepseek-v3", SEQUENCE(SPLIT("\\\\p{N}{1,3}") "," SPLIT("[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+") ","
        SPLIT("[!\\\"#$%&'()*+,"
              "\\\\-./:;<=>?@\\\\[\\\\\\\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\\\p{L}\\\\p{P}\\\\p{S}]?[\\\\p{L}\\\\p{M}]+| ?"
              "[\\\\p{P}\\\\p{S}]+[\\r\\n]*|\\\\s*[\\r\\n]+|\\\\s+(?!\\\\S)|\\\\s+") BYTES), false },
    /* Near misses: never a guess. */
    { NULL, SEQUENCE(SPLIT("\\\\p{N}{1,2}") BYTES), false },
    { NULL, "{\"type\":\"ByteLevel\",\"add_prefix_space\":true}", false },
    { NULL, "{\"type\":\"Whitespace\"}", false },
    { NULL, SEQUENCE("{\"type\":\"Split\","
                     "\"pattern\":{\"Regex\":\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}| ?"
                     "[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},"
                         "\"behavior\":\"Removed\"}" BYTES), false },
    { NULL, "null", false },
    { NULL, "{}", false },
};

static void test_pretokenizers(void)
{
    for (size_t i = 0; i < sizeof trees / sizeof *trees; i++) {
        struct text t = { 0 };
        struct arena arena;
        arena_init(&arena, 0);
        text_addf(&t, "{\"pre_tokenizer\":%s,\"model\":{\"ignore_merges\":%s}}", trees[i].tree, trees[i].ignore_merges ? "true" :
                  "false");
        const struct json *tokenizer = json_parse(&arena, t.data, t.n, "t", NULL, &err);
        CHECK(tokenizer, "%s", err.text);
        const char *name = tokenizer ? vocab_pre_name(tokenizer, "f", &err) : NULL;
        CHECK(trees[i].name ? name && !strcmp(name, trees[i].name) : !name && err.code == QUERN_EUNSUPPORTED, "tree %zu: %s, %s", i,
              name ? name : "none", err.text);
        arena_free(&arena);
        text_free(&t);
    }
}

/* tokenizer.json of the embedded model's vocabulary: BPE with byte fallback, its merges in the order of the scores. What the text
 * becomes must be the same as with the scores themselves. */
static struct gguf_string *read_tokens(const struct gguf *g, size_t *n)
{
    const struct gguf_value *tokens = gguf_find(g, "tokenizer.ggml.tokens");
    struct gguf_string *list = malloc(tokens->as.array.n * sizeof *list);
    size_t cursor = 0;
    *n = tokens->as.array.n;
    for (size_t i = 0; i < *n; i++)
        list[i] = gguf_array_string(tokens, &cursor);
    return list;
}

static bool known_token(const struct tokenizer *t, const char *text, size_t n)
{
    return n && tokenizer_find(t, text, n) >= 0;
}

static void write_fallback_json(const struct gguf *g, bool pairs)
{
    struct tokenizer *tok = tokenizer_open(g, NULL, &err);
    size_t n;
    struct gguf_string *tokens = read_tokens(g, &n);
    struct text t = { 0 };
    bool first = true;
    text_addf(&t, "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"\u2581\"},"
              "{\"type\":\"Replace\","
              "\"pattern\":{\"String\":\" "
                  "\"},\"content\":\"\u2581\"}]},\"pre_tokenizer\":null,\"added_tokens\":[{\"id\":0,\"content\":\"<unk>\","
              "\"special\":true},{\"id\":1,\"content\":\"<s>\",\"special\":true},{\"id\":2,\"content\":\"</s>\",\"special\":true}],"
                  "\"model\":{"
              "\"type\":\"BPE\",\"unk_token\":\"<unk>\",\"byte_fallback\":true,\"vocab\":{");
    for (size_t i = 0; i < n; i++) {
        text_addf(&t, i ? "," : "");
        text_add_json(&t, tokens[i].text, tokens[i].n);
        text_addf(&t, ":%zu", i);
    }
    text_addf(&t, "},\"merges\":[");
    /* In this vocabulary ids stand in the order of the scores. */
    for (size_t i = 259; i < n; i++)
        for (size_t cut = 1; cut < tokens[i].n; cut++) {
            if (!known_token(tok, tokens[i].text, cut) || !known_token(tok, tokens[i].text + cut, tokens[i].n - cut))
                continue;
            text_addf(&t, first ? "" : ",");
            first = false;
            struct text left = { 0 }, right = { 0 };
            text_add_json(&left, tokens[i].text, cut);
            text_add_json(&right, tokens[i].text + cut, tokens[i].n - cut);
            if (pairs)
                text_addf(&t, "[%s,%s]", left.data, right.data);
            else
                text_addf(&t, "%.*s %s", (int)left.n - 1, left.data, right.data + 1);
            text_free(&left);
            text_free(&right);
        }
    text_addf(&t, "]},\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}},"
              "{\"Sequence\":{\"id\":"
              "\"A\"}}]}}");
    write_text_file(folder, "tokenizer.json", t.data, t.n);
    text_free(&t);
    free(tokens);
    tokenizer_close(tok);
}

static void compare_tokenizers(const struct gguf *a, const struct gguf *b)
{
    static const char *const texts[] = {
        "It was the best of times, it was the worst of times; and nobody knew which.", "  two  blanks\n\n\tand a tab",
            "caf\u00e9 \u4f60\u597d \U0001F600",
        "", "x", "Elizabeth said, \"I shall not be there!\" and went away into the night without another word to anybody at all.",
    };
    struct tokenizer *x = tokenizer_open(a, NULL, &err), *y = tokenizer_open(b, NULL, &err);
    CHECK(x && y, "%s", err.text);
    for (size_t i = 0; x && y && i < sizeof texts / sizeof *texts; i++) {
        int32_t *p = NULL, *q = NULL;
        size_t n = 0, m = 0;
        bool ok = tokenizer_encode(x, texts[i], strlen(texts[i]), TOKENIZE_ADD_SPECIAL, &p, &n, &err) &&
                  tokenizer_encode(y, texts[i], strlen(texts[i]), TOKENIZE_ADD_SPECIAL, &q, &m, &err);
        CHECK(ok && n == m && (!n || !memcmp(p, q, n * sizeof *p)), "'%s': %zu and %zu tokens", texts[i], n, m);
        free(p);
        free(q);
    }
    tokenizer_close(x);
    tokenizer_close(y);
}

static void test_byte_fallback(void)
{
    struct gguf a, b;
    size_t n;
    char *old = edit("tokenizer.model", NULL, NULL, &n);
    if (!gguf_open(&a, "models/tiny-books-q8_0.gguf", NULL, &err))
        abort();
    for (int pairs = 0; pairs < 2; pairs++) {
        write_fallback_json(&a, pairs);
        bool ok = convert_with(NULL) && gguf_open(&b, output, NULL, &err);
        CHECK(ok, "%s", err.text);
        if (!ok)
            continue;
        compare_tokenizers(&a, &b);
        bool prefix = false, bos = false;
        CHECK(gguf_read_bool(&b, "tokenizer.ggml.add_space_prefix", &prefix, &err) && prefix, "add_space_prefix");
        CHECK(gguf_read_bool(&b, "tokenizer.ggml.add_bos_token", &bos, &err) && bos, "add_bos_token");
        gguf_close(&b);
    }
    gguf_close(&a);
    size_t m;
    free(edit("tokenizer.json", NULL, NULL, &m));
    restore("tokenizer.model", old, n);
}

/* Byte-level BPE with holes, added tokens, ends of text in several files, templates by name; and what is refused. */
#define WORDS "\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]"
static const struct { const char *json, *pre; enum quern_code code; const char *words; } vocabularies[] = {
    { "{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},\"model\":{\"type\":\"BPE\"," WORDS "}}", NULL,
      QUERN_OK, "" },
    { "{\"pre_tokenizer\":{\"type\":\"Whitespace\"},\"model\":{\"type\":\"BPE\"," WORDS "}}", NULL, QUERN_EUNSUPPORTED,
      "unknown pre-tokenizer: Whitespace (--tokenizer-pre" },
    { "{\"pre_tokenizer\":{\"type\":\"Whitespace\"},\"model\":{\"type\":\"BPE\"," WORDS "}}", "gpt-2", QUERN_OK, "" },
    { "{\"model\":{\"type\":\"Unigram\"," WORDS "}}", NULL, QUERN_EUNSUPPORTED, "model type 'Unigram'" },
    { "{\"model\":{\"type\":\"WordPiece\"," WORDS "}}", "gpt-2", QUERN_EUNSUPPORTED, "model type 'WordPiece'" },
    { "{}", NULL, QUERN_EUNSUPPORTED, "model type 'none'" },
    { "{\"normalizer\":{\"type\":\"Lowercase\"},\"model\":{\"type\":\"BPE\"," WORDS "}}", NULL, QUERN_EUNSUPPORTED,
      "unknown normalizer" },
    { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}", "gpt-2", QUERN_EFORMAT,
      "two tokens have the id 0" },
    { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":4096},\"merges\":[]}}", "gpt-2", QUERN_EFORMAT,
      "outside the embedding's 4096 rows" },
    { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}", "gpt-2", QUERN_EFORMAT, "outside" },
    { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0.5},\"merges\":[]}}", "gpt-2", QUERN_EFORMAT, "outside" },
    { "{\"model\":{\"type\":\"BPE\",\"vocab\":[],\"merges\":[]}}", "gpt-2", QUERN_EFORMAT, "model.vocab is missing" },
    { "{\"model\":{\"type\":\"BPE\",\"vocab\":{}}}", "gpt-2", QUERN_EFORMAT, "model.merges is missing" },
    { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"ab\"]}}", "gpt-2", QUERN_EFORMAT, "merge 0 is not a pair" },
    { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]}}", "gpt-2", QUERN_EFORMAT, "merge 0 is not a pair" },
    { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[7]}}", "gpt-2", QUERN_EFORMAT, "merge 0 is not a pair" },
    { "{\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"vocab\":{\"a\":0},\"merges\":[\"a a\"]}}", NULL, QUERN_EFORMAT,
      "not in the vocabulary" },
    { "{\"pre_tokenizer\":{\"type\":\"Whitespace\"},\"model\":{\"type\":\"BPE\",\"byte_fallback\":true," WORDS "}}", NULL,
      QUERN_EUNSUPPORTED, "unknown pre-tokenizer before" },
    { "{\"normalizer\":{\"type\":\"NFKC\"},\"model\":{\"type\":\"BPE\",\"byte_fallback\":true," WORDS "}}", NULL,
      QUERN_EUNSUPPORTED, "unknown normalizer" },
    { "{\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\" "
      "\"},\"content\":\"\u2581\"},\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":"
      "{\"String\":\" \"},\"behavior\":\"MergedWithPrevious\",\"invert\":false},\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,"
          WORDS "}}", NULL,
      QUERN_OK, "" },
    { "{\"model\":{\"type\":\"BPE\"," WORDS "},\"added_tokens\":[{\"content\":\"x\"}]}", "gpt-2", QUERN_EFORMAT, "has no id" },
};

static void test_vocabularies(void)
{
    size_t n, m, k;
    char *pieces = edit("tokenizer.model", NULL, NULL, &n), *config = edit("tokenizer_config.json", NULL, "{}", &m);
    for (size_t i = 0; i < sizeof vocabularies / sizeof *vocabularies; i++) {
        free(edit("tokenizer.json", NULL, vocabularies[i].json, &k));
        bool ok = convert_with(vocabularies[i].pre);
        CHECK(err.code == vocabularies[i].code && (ok || strstr(err.text, vocabularies[i].words)), "row %zu: code %d, '%s'", i,
              err.code, err.text);
    }
    free(edit("tokenizer.json", NULL, NULL, &k));
    restore("tokenizer.model", pieces, n);
    restore("tokenizer_config.json", config, m);
}

static uint32_t u32_of(const struct gguf *g, const char *key)
{
    uint32_t value = UINT32_MAX;
    gguf_read_u32(g, key, &value, &err);
    return value;
}

static void test_special_tokens(void)
{
    size_t n, m, k;
    struct gguf g;
    char *pieces = edit("tokenizer.model", NULL, NULL, &n), *config = edit("tokenizer_config.json", NULL, NULL, &m);
    free(edit("tokenizer.json", NULL, "{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
              "\"model\":{\"type\":\"BPE\"," WORDS
              "},\"added_tokens\":[{\"id\":5,\"content\":\"<s>\",\"special\":true},{\"id\":6,\"content\":\"<end>\","
                  "\"special\":true},"
              "{\"id\":7,\"content\":\"tool\",\"special\":false},{\"id\":8,\"content\":\"<|turn|>\"},{\"id\":9,"
                  "\"content\":\"<|eom_id|>\"},"
              "{\"id\":9999,\"content\":\"gone\"}],\"post_processor\":{\"type\":\"Sequence\","
                  "\"processors\":[{\"type\":\"TemplateProcessing\","
              "\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}},{\"Sequence\":{\"id\":\"A\"}},"
                  "{\"SpecialToken\":{\"id\":\"<end>\"}}]}]}}", &k));
    free(edit("tokenizer_config.json", NULL, "{\"eos_token\":\"<end>\",\"pad_token\":{\"content\":\"tool\"},"
              "\"chat_template\":[{\"name\":\"default\","
              "\"template\":\"D\"},{\"name\":\"tool_use\",\"template\":\"T\"}]}", &k));
    free(edit("generation_config.json", NULL, "{\"eos_token_id\":[6,8,9],\"bos_token_id\":5}", &k));
    bool ok = convert_with(NULL) && gguf_open(&g, output, NULL, &err);
    CHECK(ok, "%s", err.text);
    if (ok) {
        static const struct { const char *key; uint32_t id; } ids[] = {
            { "tokenizer.ggml.bos_token_id", 5 }, { "tokenizer.ggml.eos_token_id", 6 }, { "tokenizer.ggml.padding_token_id", 7 },
            { "tokenizer.ggml.eot_token_id", 8 }, { "tokenizer.ggml.eom_token_id", 9 },
        };
        static const int64_t types[] = { 1, 1, 1, 5, 5, 3, 3, 4, 3, 3, 5 };
        for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
            CHECK(u32_of(&g, ids[i].key) == ids[i].id, "%s is %u", ids[i].key, u32_of(&g, ids[i].key));
        for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
            int64_t type = 0;
            CHECK(gguf_array_i64(gguf_find(&g, "tokenizer.ggml.token_type"), i, &type) && type == types[i], "token %zu: type %d", i,
                  (int)type);
        }
        bool bos = false, eos = false;
        gguf_read_bool(&g, "tokenizer.ggml.add_bos_token", &bos, &err);
        gguf_read_bool(&g, "tokenizer.ggml.add_eos_token", &eos, &err);
        CHECK(bos && eos, "the template puts both around");
        const struct gguf_value *one = gguf_find(&g, "tokenizer.chat_template");
        const struct gguf_value *two = gguf_find(&g, "tokenizer.chat_template.tool_use");
        const struct gguf_value *list = gguf_find(&g, "tokenizer.chat_templates");
        CHECK(one && gguf_string_is(one->as.string, "D") && two && gguf_string_is(two->as.string, "T") && list &&
              list->as.array.n == 1, "chat templates");
        gguf_close(&g);
    }
    free(edit("generation_config.json", NULL, NULL, &k));
    free(edit("tokenizer.json", NULL, NULL, &k));
    restore("tokenizer.model", pieces, n);
    restore("tokenizer_config.json", config, m);
}

/* ---- values that do not fit ------------------------------------------------------------------------------------- */

static void set_value(struct gguf *g, const char *path, float value)
{
    const struct gguf_tensor *t = gguf_find_tensor(g, "blk.1.ffn_down.weight");
    size_t n, at = t->offset + 4 * (t->shape[0] * 2 + 5);
    char *file = read_whole_file(path, &n);
    memcpy(file + at, &value, 4);
    FILE *out = fopen(path, "wb");
    if (!out || fwrite(file, 1, n, out) != n || fclose(out))
        abort();
    free(file);
}

static void test_values(void)
{
    static const struct { float value; uint32_t type; enum quern_code code; const char *words; } cases[] = {
        { 65504, FORMAT_F16, QUERN_OK, "" },
        { 65519.99f, FORMAT_F16, QUERN_OK, "" },
        { -65520, FORMAT_F16, QUERN_EFAIL, "'blk.1.ffn_down.weight', row 2, column 5: -65520 does not fit F16" },
        { 65520, FORMAT_BF16, QUERN_OK, "" },
        { __builtin_inff(), FORMAT_Q8_0, QUERN_EFAIL, "row 2, column 5 is infinite" },
        { __builtin_nanf(""), FORMAT_Q8_0, QUERN_EFAIL, "is NaN, which Q8_0 cannot hold" },
        { __builtin_nanf(""), FORMAT_BF16, QUERN_OK, "" },
    };
    char path[700];
    struct gguf g;
    snprintf(path, sizeof path, "%s", temp_path("values.gguf"));
    struct convert_options how = { .type = FORMAT_F32, .force = true };
    if (!convert_model("models/tiny-books-q8_0.gguf", path, &how, &err) || !gguf_open(&g, path, NULL, &err))
        abort();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        set_value(&g, path, cases[i].value);
        how.type = cases[i].type;
        unlink(output);
        err = (struct quern_error){ 0 };
        bool ok = convert_model(path, output, &how, &err);
        CHECK(err.code == cases[i].code && (ok || strstr(err.text, cases[i].words)), "case %zu: code %d, '%s'", i, err.code,
              err.text);
        CHECK(ok == (access(output, F_OK) == 0), "case %zu: the output", i);
    }
    gguf_close(&g);
}

/* A file that is read is no output, by whatever name and whatever --force says; nor is one that is there without it. */
static void test_outputs(void)
{
    static const char *const inside[] = { "config.json", "model-00001.safetensors", "tokenizer.model", "../outputs-hard" };
    char vocab[700], hard[700], target[1400];
    snprintf(vocab, sizeof vocab, "%s", temp_path("outputs-vocab.gguf"));
    snprintf(hard, sizeof hard, "%s", temp_path("outputs-hard"));
    snprintf(target, sizeof target, "%s/config.json", folder);
    unlink(hard);
    struct convert_options how = { .type = FORMAT_F16, .force = true };
    if (!convert_model("models/tiny-books-q8_0.gguf", vocab, &how, &err) || link(target, hard) != 0)
        abort();
    for (size_t i = 0; i < sizeof inside / sizeof *inside; i++) {
        size_t n, m;
        snprintf(target, sizeof target, "%s/%s", folder, inside[i]);
        char *before = read_whole_file(target, &n);
        err = (struct quern_error){ 0 };
        CHECK(!convert_model(folder, target, &how, &err) && err.code == QUERN_EUSAGE, "%s: %d %s", target, err.code, err.text);
        char *after = read_whole_file(target, &m);
        CHECK(before && after && n == m && !memcmp(before, after, n), "%s was changed", target);
        free(before);
        free(after);
    }
    size_t bytes = 0, kept = 0;
    free(read_whole_file(vocab, &bytes));
    how.vocab_from = vocab;
    err = (struct quern_error){ 0 };
    CHECK(!convert_model(folder, vocab, &how, &err) && err.code == QUERN_EUSAGE && strstr(err.text, "is an input itself"),
          "--vocab-from: %d %s", err.code, err.text);
    how.vocab_from = NULL;
    how.force = false;
    err = (struct quern_error){ 0 };
    CHECK(!convert_model(folder, vocab, &how, &err) && err.code == QUERN_EUSAGE && strstr(err.text, "exists already"),
          "exists: %d %s", err.code, err.text);
    free(read_whole_file(vocab, &kept));
    CHECK(kept == bytes && bytes > 0, "the file of --vocab-from was changed");
}

/* The flag that Ctrl-C sets: nothing stays. */
static void test_interrupt(void)
{
    volatile int stop = 1;
    struct convert_options how = { .type = FORMAT_F32, .force = true, .stop = &stop };
    unlink(output);
    CHECK(!convert_model("models/tiny-books-q8_0.gguf", output, &how, &err) && err.code == QUERN_EINTERRUPT, "code %d", err.code);
    CHECK(access(output, F_OK) != 0, "an output");
}

int main(void)
{
    /* What is left out is said on stderr, here hundreds of times; QUERN_TEST_VERBOSE shows it (and a sanitizer's report). */
    if (!getenv("QUERN_TEST_VERBOSE") && !freopen("/dev/null", "w", stderr))
        return 1;
    make_folder();
    TEST(test_one_thing_wrong);
    TEST(test_tensors);
    TEST(test_model_fields);
    TEST(test_pretokenizers);
    TEST(test_byte_fallback);
    TEST(test_vocabularies);
    TEST(test_special_tokens);
    TEST(test_values);
    TEST(test_outputs);
    TEST(test_interrupt);
    return test_end();
}
