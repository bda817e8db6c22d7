/* vocab.h - a vocabulary on its way into a GGUF: tokens, their scores and types, merges, special ids, chat templates.
 *
 * Read from tokenizer.model (SentencePiece) or tokenizer.json (byte-level BPE; BPE with byte fallback becomes the "llama" kind,
 * its scores made from the order of the merges). Key names and conventions are those of llama.cpp's converter, so that files of
 * both mean the same. */
#ifndef QUERN_VOCAB_H
#define QUERN_VOCAB_H

#include "gguf.h"
#include "hf.h"

struct vocab_token {
    const char *text;        /* NULL: not given by the files; becomes [PADn], unused */
    size_t      n;
    float       score;
    int32_t     type;        /* tokenizer.ggml.token_type */
};

enum vocab_special { SPECIAL_BOS, SPECIAL_EOS, SPECIAL_UNK, SPECIAL_PAD, SPECIAL_SEP, SPECIAL_CLS, SPECIAL_MASK, SPECIAL_EOT,
                     SPECIAL_EOM, SPECIAL_COUNT };

struct vocab {
    const char         *model;           /* "llama", "gpt2" */
    const char         *pre;
    struct vocab_token *tokens;          /* [count] */
    size_t              count;
    struct gguf_string *merges;          /* [merge_count], "left right"; gpt2 only */
    size_t              merge_count;
    int32_t             special[SPECIAL_COUNT];   /* ids, -1: none */
    bool                add_bos, add_eos, add_space_prefix;
    const struct json  *chat_template;   /* text, or a list of { name, template }; NULL: none */
    struct gguf_string  chat_file;       /* chat_template.jinja, wins */
};

/* `count`: tokens that the embedding has. `pre`: the user's word for the pre-tokenizer, or NULL to recognise it. The result views
 * the folder's documents and its arena. QUERN_EUNSUPPORTED for a tokenizer that is not known, and without one. */
bool vocab_read(struct vocab *v, struct hf *h, size_t count, const char *pre, struct quern_error *err);
/* tokenizer.* keys. */
bool vocab_write(const struct vocab *v, struct gguf_writer *w, struct quern_error *err);
/* The tokenizer.* keys of another GGUF, whose vocabulary must have `count` tokens. */
bool vocab_copy(const struct gguf *from, size_t count, struct gguf_writer *w, struct quern_error *err);

/* Name (tokenizer.ggml.pre) of a byte-level tokenizer.json's pre-tokenizer; NULL with QUERN_EUNSUPPORTED, the message showing what
 * was found. (vocab_pre.c) */
const char *vocab_pre_name(const struct json *tokenizer, const char *path, struct quern_error *err);
/* Is it a BPE over bytes (GPT-2's alphabet), rather than over characters with byte fallback? */
bool vocab_is_byte_level(const struct json *tokenizer);

#endif
