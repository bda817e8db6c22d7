/* The reference vectors: shared/vectors/vocab (its README says what is in each file). */
#include <stdlib.h>
#include <string.h>

#include "test.h"
#include "tokenizer.h"

struct list {
    char *data;
    struct gguf_string items[512];
    size_t n;
};

/* Pieces of a file, each of which ends in `separator`. False when there is no such file. */
static bool read_list(struct list *list, const char *path, const char *separator)
{
    size_t size, n = strlen(separator);
    list->n = 0;
    list->data = path ? read_whole_file(path, &size) : NULL;
    if (!list->data)
        return false;
    for (char *at = list->data, *end; (end = memmem(at, size - (size_t)(at - list->data), separator, n)) && list->n < 512;
         at = end + n)
        list->items[list->n++] = (struct gguf_string){ at, (size_t)(end - at) };
    return true;
}

static const char separator[] = "\n__ggml_vocab_test__\n";

static const char *vocab_path(const char *format, const char *name)
{
    char below[200] = "vectors/vocab/";
    snprintf(below + strlen(below), sizeof below - strlen(below), format, name);
    return shared_path(below);
}

/* " 12 34": equal to the ids? */
static bool same_ids(struct gguf_string line, const int32_t *ids, size_t n)
{
    const char *at = line.text, *end = line.text + line.n;
    for (size_t i = 0; i < n; i++) {
        char *next;
        if (at == end || strtol(at, &next, 10) != ids[i] || next > end)
            return false;
        at = next;
    }
    return at == end;
}

static void check_encode(const struct tokenizer *t, const struct list *in, const struct list *out, unsigned flags, const char *what)
{
    struct quern_error err;
    CHECK(in->n > 0 && in->n == out->n, "%s: %zu strings, %zu lines", what, in->n, out->n);
    size_t wrong = 0;
    for (size_t i = 0; i < in->n && i < out->n; i++) {
        int32_t *ids;
        size_t n;
        bool ok = tokenizer_encode(t, in->items[i].text, in->items[i].n, flags, &ids, &n, &err);
        if (!ok || !same_ids(out->items[i], ids, n)) {
            if (wrong++ < 3) {
                char shown[300] = "";
                for (size_t k = 0; ok && k < n && k < 40; k++)
                    snprintf(shown + strlen(shown), sizeof shown - strlen(shown), " %d", ids[k]);
                CHECK(false, "%s: string %zu gives%s instead of%.*s", what, i, ok ? shown : err.text, (int)out->items[i].n,
                      out->items[i].text);
            }
        }
        free(ids);
    }
    CHECK(wrong == 0, "%s: %zu of %zu strings differ", what, wrong, in->n);
}

static void check_decode(const struct tokenizer *t, const struct list *ids_of, const struct list *out, const char *what)
{
    struct quern_error err;
    size_t wrong = 0;
    CHECK(ids_of->n == out->n, "%s: %zu lines, %zu strings", what, ids_of->n, out->n);
    for (size_t i = 0; i < ids_of->n && i < out->n; i++) {
        int32_t ids[4096];
        size_t n = 0, bytes;
        char *at = (char *)ids_of->items[i].text, *end = at + ids_of->items[i].n, *text;
        while (at < end && n < 4096)
            ids[n++] = (int32_t)strtol(at, &at, 10);
        bool ok = tokenizer_decode(t, ids, n, true, &text, &bytes, &err);
        if (!ok || bytes != out->items[i].n || memcmp(text, out->items[i].text, bytes) != 0)
            if (wrong++ < 3)
                CHECK(false, "%s: string %zu gives '%s' instead of '%.*s'", what, i, ok ? text : err.text, (int)out->items[i].n,
                      out->items[i].text);
        if (ok)
            free(text);
    }
    CHECK(wrong == 0, "%s: %zu of %zu strings differ", what, wrong, out->n);
}

static struct tokenizer *open_vocab(struct gguf *g, const char *name, const char *pre)
{
    struct quern_error err;
    struct tokenizer_options options = { .pre = pre };
    const char *path = vocab_path("ggml-vocab-%s.gguf", name);
    if (!gguf_open(g, path, NULL, &err)) {
        CHECK(false, "%s", err.text);
        return NULL;
    }
    struct tokenizer *t = tokenizer_open(g, &options, &err);
    CHECK(t, "%s", t ? "" : err.text);
    if (!t)
        gguf_close(g);
    return t;
}

static const char *const vocabularies[] = {
    "baichuan", "bert-bge", "deepseek-coder", "deepseek-llm", "falcon", "gpt-2", "llama-spm", "mpt", "phi-3", "refact", "starcoder",
};

static void check_vocabulary(const char *name)
{
    struct gguf g;
    struct tokenizer *t = open_vocab(&g, name, NULL);
    if (!t)
        return;
    struct list in, out, detok, extra;
    bool there = read_list(&in, vocab_path("ggml-vocab-%s.gguf.inp", name), separator) &&
                 read_list(&out, vocab_path("ggml-vocab-%s.gguf.out", name), "\n");
    if (there) {
        check_encode(t, &in, &out, 0, "its own strings");
        free(in.data);
        free(out.data);
    } else {
        CHECK(strcmp(name, "baichuan") == 0, "no strings of its own");
    }
    if (!read_list(&extra, vocab_path("%s", "extra.inp"), separator) || !read_list(&out, vocab_path("%s.extra.out", name), "\n")) {
        CHECK(false, "no further strings");
        return;
    }
    check_encode(t, &extra, &out, 0, "further strings");
    if (read_list(&detok, vocab_path("%s.extra.detok", name), separator)) {
        check_decode(t, &out, &detok, "text of ids");
        free(detok.data);
    }
    free(out.data);
    if (read_list(&out, vocab_path("%s.extra.special.out", name), "\n")) {
        check_encode(t, &extra, &out, TOKENIZE_ADD_SPECIAL | TOKENIZE_PARSE_SPECIAL, "with special tokens");
        free(out.data);
    }
    free(extra.data);
    tokenizer_close(t);
    gguf_close(&g);
}

/* name, or name = the one whose output it shares */
static const char *const names[][2] = {
    { "kimi-k2" }, { "default" }, { "minicpm5" }, { "llama3" }, { "deepseek-llm" }, { "deepseek-coder" }, { "deepseek-v3" },
    { "youtu" },
    { "falcon" }, { "mpt" }, { "starcoder" }, { "jais-2" }, { "gemma4" }, { "qwen2" }, { "qwen35" }, { "poro-chat" }, { "viking" },
    { "tekken" }, { "exaone-moe" }, { "chameleon" }, { "gpt-4o" }, { "granite-embed-multi-97m" }, { "tiny_aya" }, { "superbpe" },
    { "seed-coder" }, { "afmoe" }, { "laguna" },
    { "llama-v3", "llama3" }, { "llama-bpe", "llama3" }, { "falcon3", "llama3" }, { "falcon-h1", "llama3" },
    { "pixtral", "llama3" },
    { "midm-2.0", "llama3" }, { "lfm2", "llama3" }, { "jina-v5-nano", "llama3" }, { "gpt-2", "mpt" }, { "phi-2", "mpt" },
    { "jina-es", "mpt" }, { "jina-de", "mpt" }, { "gigachat", "mpt" }, { "jina-v2-es", "mpt" }, { "jina-v2-de", "mpt" },
    { "a.x-4.0", "mpt" }, { "mellum", "mpt" }, { "modern-bert", "mpt" }, { "granite-embed-multi-311m", "gemma4" },
    { "sarvam-moe", "gemma4" }, { "jina-v1-en", "mpt" }, { "jina-v2-code", "mpt" }, { "roberta-bpe", "mpt" },
    { "refact", "starcoder" },
    { "command-r", "starcoder" }, { "deepseek-r1-qwen", "qwen2" }, { "kormo", "qwen2" }, { "f2llmv2", "qwen2" },
    { "stablelm2", "qwen2" }, { "olmo", "mpt" }, { "dbrx", "llama3" }, { "smaug-bpe", "llama3" }, { "glm4", "llama3" },
    { "chatglm-bpe", "llama3" }, { "jais", "mpt" }, { "smollm", "starcoder" }, { "codeshell", "starcoder" },
    { "bloom", "poro-chat" },
    { "gpt3-finnish", "poro-chat" }, { "exaone", "starcoder" }, { "exaone4", "mpt" }, { "minerva-7b", "starcoder" },
    { "megrez", "qwen2" }, { "llama4", "gpt-4o" }, { "kanana2", "gpt-4o" }, { "talkie", "gpt-4o" }, { "cohere2moe", "tiny_aya" },
    { "trillion", "mpt" }, { "granite-docling", "mpt" }, { "bailingmoe", "qwen2" }, { "bailingmoe2", "qwen2" },
    { "llada-moe", "qwen2" },
    { "hunyuan", "qwen2" }, { "hunyuan-dense", "deepseek-v3" }, { "joyai-llm", "deepseek-v3" }, { "grok-2", "qwen2" },
    { "minimax-m2", "gpt-4o" }, { "solar-open", "qwen2" }, { "mellum2", "starcoder" },
};

static void check_pretokenizer(const char *name, const char *same_as)
{
    struct gguf g;
    struct tokenizer *t = open_vocab(&g, "probe", name);
    struct list in, out;
    if (!t)
        return;
    CHECK(strcmp(tokenizer_pre(t), name) == 0, "'%s' instead of '%s'", tokenizer_pre(t), name);
    if (read_list(&in, vocab_path("%s", "extra.inp"), separator) &&
        read_list(&out, vocab_path("pre/%s.extra.out", same_as), "\n")) {
        check_encode(t, &in, &out, 0, name);
        free(in.data);
        free(out.data);
    } else {
        CHECK(false, "no output of %s", same_as);
    }
    tokenizer_close(t);
    gguf_close(&g);
}

int main(void)
{
    const char *path = vocab_path("%s", "extra.inp");
    FILE *file = path ? fopen(path, "rb") : NULL;
    if (!file) {
        test_skip("reference vocabularies", "no ../shared/vectors/vocab");
        return test_end();
    }
    fclose(file);
    for (size_t i = 0; i < sizeof vocabularies / sizeof *vocabularies; i++) {
        test_begin("%s", vocabularies[i]);
        check_vocabulary(vocabularies[i]);
        test_finish();
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        test_begin("%s", names[i][0]);
        check_pretokenizer(names[i][0], names[i][1] ? names[i][1] : names[i][0]);
        test_finish();
    }
    return test_end();
}
