/* tokenizer.h - text to token ids and back, as the model's file says: SPM, BPE or WPM.
 *
 * A tokenizer is immutable once open and may be shared between threads. It views the strings of the gguf it was opened
 * from, which must outlive it. Encoding takes time linear (times log) in the text, whatever the text is.
 *
 * Sources: SentencePiece (Kudo and Richardson 2018), byte-level BPE (GPT-2), WordPiece (BERT); the behaviour to match is the
 * reference vectors in shared/vectors/vocab. */
#ifndef QUERN_TOKENIZER_H
#define QUERN_TOKENIZER_H

#include "gguf.h"

struct tokenizer;

struct tokenizer_options {
    const char *pre;             /* overrides tokenizer.ggml.pre; NULL: what the file says */
};

/* QUERN_EUNSUPPORTED without a tokenizer, for an unknown model or pre-tokenizer (the message has the list); QUERN_EFORMAT for
 * arrays of wrong type or length, ids out of range, bad byte tokens. `options` may be NULL. */
struct tokenizer *tokenizer_open(const struct gguf *g, const struct tokenizer_options *options, struct quern_error *err);
void tokenizer_close(struct tokenizer *t);    /* NULL is allowed */

enum tokenizer_flags {
    TOKENIZE_ADD_SPECIAL   = 1,  /* BOS/EOS/CLS/SEP as the file asks                         */
    TOKENIZE_PARSE_SPECIAL = 2   /* texts of special tokens become those tokens              */
};

/* Ids of text[0..n). *out is malloc'ed (NULL when there are none) and the caller's to free. */
bool tokenizer_encode(const struct tokenizer *t, const char *text, size_t n, unsigned flags, int32_t **out, size_t *count,
                      struct quern_error *err);

/* Bytes of one token as it appears in running text (SPM: U+2581 becomes a blank; byte tokens give their byte; control tokens
 * give nothing unless `special`). Gives the length, writes at most `size` bytes; a length above `size` means: call again with
 * more. */
size_t tokenizer_piece(const struct tokenizer *t, int32_t id, bool special, char *out, size_t size);
/* Whole text of n ids with the vocabulary's own rules (blank at the start, clean_spaces); malloc'ed, NUL-terminated. */
bool tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool special, char **out, size_t *bytes,
                      struct quern_error *err);

size_t  tokenizer_size(const struct tokenizer *t);
/* -1 where the file has none. */
int32_t tokenizer_bos(const struct tokenizer *t);
/* Does this token end generation: EOS, EOT, EOM and the like? */
bool    tokenizer_is_end(const struct tokenizer *t, int32_t id);
bool    tokenizer_adds_bos(const struct tokenizer *t);
/* Id of exactly this token text, or -1. */
int32_t tokenizer_find(const struct tokenizer *t, const char *text, size_t n);
/* "llama", "gpt2", "bert": as the file calls it; and the pre-tokenizer's name ("" for SPM and WPM). */
const char *tokenizer_model(const struct tokenizer *t);
const char *tokenizer_pre(const struct tokenizer *t);

#endif
