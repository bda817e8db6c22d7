/* gen_vocab FOLDER: small vocabularies as files, and some texts: seeds for fuzz_tokenizer. */
#include <stdio.h>
#include <string.h>

#include "tiny_vocab.h"

static void save(struct vocab *v, const char *folder, const char *name)
{
    struct quern_error err;
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (vocab_view(v, &err))
        bytes_save(&v->b, path);
    else
        fprintf(stderr, "%s\n", err.text);
    vocab_free(v);
}

/* Kind of vocabulary, flags, text: see fuzz_tokenizer.c. */
static void save_text(const char *folder, unsigned kind, const char *text)
{
    struct bytes b = { 0 };
    char path[4096];
    snprintf(path, sizeof path, "%s/text-%u", folder, kind);
    put_u8(&b, (uint8_t)kind);
    put_u8(&b, 3);
    put_raw(&b, text, strlen(text));
    bytes_save(&b, path);
    bytes_free(&b);
}

int main(int argc, char **argv)
{
    struct vocab v;
    if (argc != 2) {
        fprintf(stderr, "usage: gen_vocab FOLDER\n");
        return 2;
    }
    /* The smallest of each kind, so that a mutation hits what matters. */
    static const char *const few[] = { "<unk>", "<s>", "a", "b", "ab", "\xE2\x96\x81", "<tool>" }, *const merges[] = { "a b" };
    static const int32_t types[] = { 2, 3, 1, 1, 1, 1, 4 };
    static const float scores[] = { 0, 0, -1, -2, -3, -4, 0 };
    static const char *const models[] = { "llama", "gpt2", "bert", "gemma4" };
    for (size_t i = 0; i < 4; i++) {
        vocab_begin(&v);
        vocab_text(&v, "tokenizer.ggml.model", models[i]);
        vocab_text(&v, "tokenizer.ggml.pre", "default");
        vocab_texts(&v, "tokenizer.ggml.tokens", few, 7);
        vocab_array(&v, "tokenizer.ggml.token_type", GGUF_I32, types, 7, 28);
        vocab_array(&v, "tokenizer.ggml.scores", GGUF_F32, scores, 7, 28);
        vocab_texts(&v, "tokenizer.ggml.merges", merges, 1);
        vocab_u32(&v, "tokenizer.ggml.bos_token_id", 1);
        vocab_u32(&v, "tokenizer.ggml.eos_token_id", 1);
        vocab_u32(&v, "tokenizer.ggml.unknown_token_id", 0);
        vocab_u32(&v, "tokenizer.ggml.seperator_token_id", 1);
        vocab_bool(&v, "tokenizer.ggml.add_bos_token", true);
        vocab_bool(&v, "tokenizer.ggml.add_space_prefix", true);
        save(&v, argv[1], models[i]);
    }
    for (unsigned kind = 0; kind < 20; kind++)
        save_text(argv[1], kind,
                  "a 12 'LL <tool>><|end|>\r\n  \xE4\xBD\xA0\xCC\x81\xF0\x9F\x98\x80 <sentinel:1>IMGIMGAZ Ab\xE2\x96\x81");
    return 0;
}
