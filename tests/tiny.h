/* tiny.h - small models with seeded random weights, made by the tests themselves: valid ones of several families, whose keys and
 * tensors can then be changed one by one. */
#ifndef QUERN_TINY_H
#define QUERN_TINY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bytes.h"
#include "gguf.h"

enum { TINY_KEYS = 48, TINY_TENSORS = 96, TINY_VOCAB = 272, TINY_LAYERS = 2 };

struct tiny_key {
    char           name[64];       /* without the architecture's prefix, unless it begins with "general." */
    enum gguf_type type;           /* U32, I32, F32, F64, BOOL, STRING; ARRAY: of U32 */
    double         number;
    const char    *text;
    size_t         text_n;
    uint32_t       list[16];
    size_t         list_n;
};

struct tiny_tensor {
    char     name[64];
    uint32_t type;                 /* F32, F16, BF16, Q8_0, Q4_0; zeros in any other */
    uint64_t shape[3];
    float    mean, spread;         /* of the weights */
};

struct tiny {
    const char *arch;              /* prefix of the keys */
    struct tiny_key    key[TINY_KEYS];
    size_t             keys;
    struct tiny_tensor tensor[TINY_TENSORS];
    size_t             tensors;
    uint64_t           seed;
    size_t             tokens;     /* of the tokenizer, TINY_VOCAB unless changed */
};

enum tiny_kind { TINY_LLAMA, TINY_WINDOWS, TINY_EXPERTS, TINY_MAMBA, TINY_DELTA, TINY_LATENT, TINY_CONV, TINY_KINDS };
extern const char *const tiny_names[TINY_KINDS];

/* llama (grouped heads), gemma3 (windows, norms), qwen2moe (experts, one of them shared), mamba, qwen3next (delta net, gated
 * attention, experts), deepseek2 (latent attention), lfm2 (short convolution). Width 64, two layers, three for lfm2. */
void tiny_model(struct tiny *t, enum tiny_kind kind);

/* Change a key or add it. */
void tiny_u32(struct tiny *t, const char *key, uint32_t value);
void tiny_number(struct tiny *t, const char *key, enum gguf_type type, double value);
void tiny_text(struct tiny *t, const char *key, const char *text);
void tiny_list(struct tiny *t, const char *key, const uint32_t *list, size_t n);
void tiny_drop_key(struct tiny *t, const char *key);
/* The tensor of that name; aborts when there is none. */
struct tiny_tensor *tiny_find(struct tiny *t, const char *name);
void tiny_add(struct tiny *t, const char *name, uint64_t a, uint64_t b, uint64_t c, float mean, float spread);
void tiny_drop_tensor(struct tiny *t, const char *name);
/* Weights of all two-dimensional tensors of the layers, embedding and head in this format. */
void tiny_format(struct tiny *t, uint32_t type);

/* The file's bytes; *data_offset is where the weights begin. The weights of a tensor depend on the seed and its name only. */
void tiny_bytes(const struct tiny *t, struct bytes *b, size_t *data_offset);
/* Write them as a file. */
void tiny_save(const struct tiny *t, const char *path);

#endif
