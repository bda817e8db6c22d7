/* What begins with "GGUF" is a file; else the first byte chooses: text through one of several small vocabularies, there and
 * back, or a vocabulary made of the rest. No crash, no leak, no id outside the vocabulary, and text that a lossless vocabulary took
 * comes back unchanged. */
#include "tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "stream.h"
#include "tiny_vocab.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const names[] = { "qwen2", "gpt-4o", "deepseek-llm", "deepseek-v3", "jais-2", "chameleon", "afmoe", "youtu",
                                     "superbpe", "tiny_aya", "kimi-k2",
                                     "exaone-moe", "granite-embed-multi-97m", "gemma4", "viking", "default", "llama3" };
enum { NAMES = sizeof names / sizeof *names, SPM = NAMES, SPM_BARE, WPM, KINDS };

static void build(struct vocab *v, int kind)
{
    switch (kind) {
    case SPM:      vocab_spm(v, true); vocab_bool(v, "tokenizer.ggml.add_space_prefix", false); break;
    case SPM_BARE: vocab_spm(v, false); break;
    case WPM:      vocab_wpm(v); break;
    default:       vocab_bpe(v, names[kind]); vocab_u32(v, "tokenizer.ggml.bos_token_id", 0); break;
    }
}

static void there_and_back(const struct tokenizer *t, const char *text, size_t n, unsigned flags, bool lossless)
{
    struct quern_error err;
    int32_t *ids;
    size_t count, bytes;
    char *back;
    if (!tokenizer_encode(t, text, n, flags, &ids, &count, &err))
        return;
    for (size_t i = 0; i < count; i++)
        if (ids[i] < 0 || (size_t)ids[i] >= tokenizer_size(t))
            abort();
    if (!tokenizer_decode(t, ids, count, true, &back, &bytes, &err))
        abort();
    if (lossless && (bytes != n || (n && memcmp(back, text, n) != 0)))
        abort();
    struct stream stream;
    struct text out = { 0 };
    stream_init(&stream, flags & TOKENIZE_PARSE_SPECIAL);
    for (size_t i = 0; i < count; i++) {
        char piece[64];
        size_t length = tokenizer_piece(t, ids[i], true, piece, sizeof piece);
        stream_add(&stream, piece, length < sizeof piece ? length : sizeof piece, &out);
    }
    stream_flush(&stream, &out);
    text_free(&out);
    free(back);
    free(ids);
}

/* Text for a vocabulary that is built once. */
static void fuzz_text(int kind, unsigned flags, const char *text, size_t n)
{
    static struct tokenizer *tokenizers[KINDS];
    static struct vocab vocabs[KINDS];
    struct quern_error err;
    if (!tokenizers[kind]) {
        build(&vocabs[kind], kind);
        if (!vocab_view(&vocabs[kind], &err) || !(tokenizers[kind] = tokenizer_open(&vocabs[kind].g, NULL, &err)))
            abort();
    }
    const char *name = tokenizer_pre(tokenizers[kind]);
    /* These spell every byte and clean no blanks; U+2581 comes back as a blank from SPM. */
    bool lossless = kind == SPM ? !memmem(text, n, "\xE2\x96\x81", 3)
                                : kind < NAMES && strcmp(name, "jais-2") && strcmp(name, "exaone-moe") && strcmp(name, "gemma4") &&
                                      strcmp(name, "default") && strcmp(name, "llama3");
    there_and_back(tokenizers[kind], text, n, flags & TOKENIZE_PARSE_SPECIAL, lossless);
    there_and_back(tokenizers[kind], text, n, flags, false);
}

/* The arrays of a vocabulary from the input: tokens with a length byte each, then their types and scores from the same bytes. */
static void fuzz_vocabulary(const uint8_t *data, size_t size)
{
    static const char *const models[] = { "llama", "gpt2", "bert", "gemma4" };
    struct quern_error err;
    struct vocab v;
    char texts[64][32] = { "" };
    const char *list[64], *merges[64];
    int32_t types[64];
    float scores[64];
    size_t n = 0, merge_count = 0, at = 2;
    for (; at < size && n < 64; n++) {
        size_t length = data[at] % 16;
        types[n] = data[at++] / 16 % 8;
        for (size_t i = 0; i < length && at < size; i++, at++)
            texts[n][i] = (char)data[at];
        list[n] = texts[n];
        scores[n] = (float)(at % 7);
        if (strchr(texts[n], ' '))
            merges[merge_count++] = texts[n];
    }
    if (n == 0)
        return;
    vocab_begin(&v);
    vocab_text(&v, "tokenizer.ggml.model", models[data[0] % 4]);
    vocab_text(&v, "tokenizer.ggml.pre", names[data[1] % NAMES]);
    vocab_texts(&v, "tokenizer.ggml.tokens", list, n);
    if (data[0] & 4)
        vocab_array(&v, "tokenizer.ggml.token_type", GGUF_I32, types, n, n * 4);
    vocab_array(&v, "tokenizer.ggml.scores", GGUF_F32, scores, n, n * 4);
    vocab_texts(&v, "tokenizer.ggml.merges", merges, merge_count);
    vocab_u32(&v, "tokenizer.ggml.bos_token_id", data[0] >> 4);
    vocab_u32(&v, "tokenizer.ggml.seperator_token_id", data[1] >> 6);
    if (vocab_view(&v, &err)) {
        struct tokenizer *t = tokenizer_open(&v.g, NULL, &err);
        if (t)
            there_and_back(t, (const char *)data, size, TOKENIZE_ADD_SPECIAL | TOKENIZE_PARSE_SPECIAL, false);
        tokenizer_close(t);
    }
    vocab_free(&v);
}

static void fuzz_file(const uint8_t *data, size_t size)
{
    struct quern_error err;
    struct gguf g;
    if (!gguf_view(&g, data, size, "fuzz.gguf", NULL, &err))
        return;
    struct tokenizer *t = tokenizer_open(&g, NULL, &err);
    if (t)
        there_and_back(t, "<s> a\n\xF0\x9F\x98\x80", 10, TOKENIZE_ADD_SPECIAL | TOKENIZE_PARSE_SPECIAL, false);
    tokenizer_close(t);
    gguf_close(&g);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 4)
        return 0;
    int what = data[0] % (KINDS + 1);
    if (memcmp(data, "GGUF", 4) == 0)
        fuzz_file(data, size);
    else if (what < KINDS)
        fuzz_text(what, data[1], (const char *)data + 2, size - 2);
    else
        fuzz_vocabulary(data + 1, size - 1);
    return 0;
}
