#include "tiny_vocab.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "unicode.h"

const char *const tiny_pieces[] = {
    "\xE2\x96\x81", "a", "b", "c", "\xC3\xA9", "s", "<", ">", "/", "ab", "\xE2\x96\x81" "a", "\xE2\x96\x81" "ab", "aa", "aaaa",
    "aaaaaaaa",
    "\xE2\x96\x81\xE2\x96\x81", "\xE2\x96\x81\xE2\x96\x81\xE2\x96\x81\xE2\x96\x81", "<s", "abc", NULL
};

/* The byte-level spelling: U+0120 is a blank. */
const char *const tiny_merges[] = {
    "a b", "\xC4\xA0 a", "\xC4\xA0 ab", "a a", "aa aa", "ab c", "\xC4\xA0 \xC4\xA0", "\xC4\xA0\xC4\xA0 \xC4\xA0\xC4\xA0", "1 2",
    "12 3", "< t", "\xC3\x83 \xC2\xA9",
    "\xC4\x8A \xC4\x8A", "h e", "l l", "he ll", "hell o", NULL
};

void vocab_begin(struct vocab *v)
{
    *v = (struct vocab){ .keys = 0 };
    put_header(&v->b, 0, 0);
}

void vocab_text(struct vocab *v, const char *key, const char *value)
{
    put_key_text(&v->b, key, value);
    v->keys++;
}

void vocab_u32(struct vocab *v, const char *key, uint32_t value)
{
    put_key_u32(&v->b, key, value);
    v->keys++;
}

void vocab_bool(struct vocab *v, const char *key, bool value)
{
    put_string(&v->b, key);
    put_u32(&v->b, GGUF_BOOL);
    put_u8(&v->b, value);
    v->keys++;
}

static void put_array_head(struct vocab *v, const char *key, uint32_t type, size_t n)
{
    put_string(&v->b, key);
    put_u32(&v->b, GGUF_ARRAY);
    put_u32(&v->b, type);
    put_u64(&v->b, n);
    v->keys++;
}

void vocab_texts(struct vocab *v, const char *key, const char *const *texts, size_t n)
{
    put_array_head(v, key, GGUF_STRING, n);
    for (size_t i = 0; i < n; i++)
        put_string(&v->b, texts[i]);
}

void vocab_array(struct vocab *v, const char *key, uint32_t type, const void *values, size_t n, size_t bytes)
{
    put_array_head(v, key, type, n);
    put_raw(&v->b, values, bytes);
}

bool vocab_view(struct vocab *v, struct quern_error *err)
{
    for (size_t i = 0; i < 8; i++)      /* magic, version and the count of tensors stand before the count of keys */
        v->b.data[16 + i] = (uint8_t)(v->keys >> (8 * i));
    return gguf_view(&v->g, v->b.data, v->b.n, "tiny.gguf", NULL, err);
}

void vocab_free(struct vocab *v)
{
    gguf_close(&v->g);
    bytes_free(&v->b);
}

/* ---- whole vocabularies ---- */

enum { MOST = 400, NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER = 4, BYTE = 6 };

struct list {
    size_t n;
    char text[MOST][32];
    int32_t type[MOST];
    float score[MOST];
};

static void add(struct list *list, const char *text, int32_t type, float score)
{
    snprintf(list->text[list->n], sizeof list->text[0], "%s", text);
    list->type[list->n] = type;
    list->score[list->n++] = score;
}

static void put_list(struct vocab *v, const struct list *list)
{
    const char *texts[MOST];
    for (size_t i = 0; i < list->n; i++)
        texts[i] = list->text[i];
    vocab_texts(v, "tokenizer.ggml.tokens", texts, list->n);
    vocab_array(v, "tokenizer.ggml.token_type", GGUF_I32, list->type, list->n, list->n * 4);
    vocab_array(v, "tokenizer.ggml.scores", GGUF_F32, list->score, list->n, list->n * 4);
}

void vocab_spm(struct vocab *v, bool bytes)
{
    struct list list = { 0 };
    vocab_begin(v);
    vocab_text(v, "tokenizer.ggml.model", "llama");
    add(&list, "<unk>", UNKNOWN, 0);
    add(&list, "<s>", CONTROL, 0);
    add(&list, "</s>", CONTROL, 0);
    for (unsigned byte = 0; bytes && byte < 256; byte++) {
        char text[16];
        snprintf(text, sizeof text, "<0x%02X>", byte);
        add(&list, text, BYTE, 0);
    }
    for (size_t i = 0; tiny_pieces[i]; i++)
        add(&list, tiny_pieces[i], NORMAL, -(float)i);
    add(&list, "<|user|>", CONTROL, 0);
    add(&list, "<tool>", USER, 0);
    put_list(v, &list);
}

void vocab_bpe(struct vocab *v, const char *pre)
{
    struct list list = { 0 };
    size_t merges = 0;
    vocab_begin(v);
    vocab_text(v, "tokenizer.ggml.model", "gpt2");
    if (pre)
        vocab_text(v, "tokenizer.ggml.pre", pre);
    /* Printable bytes stand for themselves, the others are U+0100 onwards; written anew here, so that the library's own
     * table is checked. */
    for (unsigned byte = 0, other = 0; byte < 256; byte++) {
        char text[8] = "";
        bool itself = (byte > 0x20 && byte < 0x7F) || (byte > 0xA0 && byte != 0xAD);
        unicode_encode(itself ? byte : 0x100 + other, text);
        other += !itself;
        add(&list, text, NORMAL, 0);
    }
    for (; tiny_merges[merges]; merges++) {
        char joined[32] = "";
        const char *blank = strchr(tiny_merges[merges], ' ');
        snprintf(joined, sizeof joined, "%.*s%s", (int)(blank - tiny_merges[merges]), tiny_merges[merges], blank + 1);
        add(&list, joined, NORMAL, 0);
    }
    add(&list, "<|end|>", CONTROL, 0);
    add(&list, "<|endoftext|>", CONTROL, 0);
    add(&list, "<tool>", USER, 0);
    add(&list, "<tool>>", USER, 0);
    put_list(v, &list);
    vocab_texts(v, "tokenizer.ggml.merges", tiny_merges, merges);
}

void vocab_wpm(struct vocab *v)
{
    static const char *const words[] = { "\xE2\x96\x81" "a", "\xE2\x96\x81" "ab", "a", "b", "\xE2\x96\x81,",
                                         "\xE2\x96\x81\xE4\xBD\xA0", "\xE2\x96\x81" "e", "\xE2\x96\x81#" };
    struct list list = { 0 };
    vocab_begin(v);
    vocab_text(v, "tokenizer.ggml.model", "bert");
    add(&list, "[PAD]", CONTROL, 0);
    add(&list, "[UNK]", UNKNOWN, 0);
    add(&list, "[CLS]", CONTROL, 0);
    add(&list, "[SEP]", CONTROL, 0);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        add(&list, words[i], NORMAL, 0);
    put_list(v, &list);
    vocab_u32(v, "tokenizer.ggml.unknown_token_id", 1);
    vocab_u32(v, "tokenizer.ggml.cls_token_id", 2);
    vocab_u32(v, "tokenizer.ggml.seperator_token_id", 3);
}
