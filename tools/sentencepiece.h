/* sentencepiece.h - tokenizer.model: the pieces of a SentencePiece vocabulary and the flags that change how text becomes pieces.
 *
 * The file is a protobuf message (sentencepiece_model.proto: ModelProto). Only the fields that a GGUF can express are read; the
 * others are stepped over, with every length checked. */
#ifndef QUERN_SENTENCEPIECE_H
#define QUERN_SENTENCEPIECE_H

#include "arena.h"
#include "error.h"

/* The file's numbers, which are GGUF's tokenizer.ggml.token_type too. */
enum piece_type { PIECE_NORMAL = 1, PIECE_UNKNOWN, PIECE_CONTROL, PIECE_USER_DEFINED, PIECE_UNUSED, PIECE_BYTE };
enum piece_model { MODEL_UNIGRAM = 1, MODEL_BPE, MODEL_WORD, MODEL_CHAR };

struct piece {
    const char     *text;         /* views the file's bytes */
    size_t          n;
    float           score;
    enum piece_type type;
};

struct sentencepiece {
    struct piece    *pieces;      /* [count], id = index */
    size_t           count;
    enum piece_model model;
    int32_t          unk, bos, eos, pad;    /* -1: none */
    bool             add_dummy_prefix, remove_extra_whitespaces;
    bool             has_charsmap;          /* a compiled normalization, which GGUF's "llama" tokenizer does not have */
};

/* `data` must outlive the result; the table lives in `arena`. QUERN_EFORMAT with `name`, byte and fault; QUERN_EMEM. */
bool sentencepiece_read(struct sentencepiece *s, struct arena *arena, const void *data, size_t size, const char *name,
                        struct quern_error *err);

#endif
