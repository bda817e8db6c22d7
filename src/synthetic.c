#include "synthetic.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "formats.h"
#include "gguf.h"
#include "random.h"
#include "text.h"

struct shape {
    const char *name, *arch;
    uint32_t layers, width, ff, heads, kv_heads, head_dim, vocab, context;
    float    rope_base;
    bool     tied;
    uint32_t experts, used;              /* 0: a dense feed-forward part; otherwise ff is one expert's */
};

/* Llama 3.2 1B, 3B, 3.1 8B, Qwen3 0.6B, 4B and OLMoE 1B-7B as published; of Qwen3 30B-A3B 8 of 48 layers, which every machine has
 * room for. The small ones are for tests and for scaling curves. */
static const struct shape shapes[] = {
    {"tiny",         "llama",    2,  256,  512,   4,  2,  64,  512,    2048,   10000,   true,  0,   0},
    {"0.1b",         "llama",    12, 768,  2048,  12, 4,  64,  32000,  8192,   500000,  true,  0,   0},
    {"0.3b",         "llama",    16, 1024, 4096,  16, 4,  64,  64000,  8192,   500000,  true,  0,   0},
    {"0.5b",         "llama",    16, 1536, 6144,  24, 8,  64,  64000,  8192,   500000,  true,  0,   0},
    {"1b",           "llama",    16, 2048, 8192,  32, 8,  64,  128256, 131072, 500000,  true,  0,   0},
    {"3b",           "llama",    28, 3072, 8192,  24, 8,  128, 128256, 131072, 500000,  true,  0,   0},
    {"8b",           "llama",    32, 4096, 14336, 32, 8,  128, 128256, 131072, 500000,  false, 0,   0},
    {"qwen3-0.6b",   "qwen3",    28, 1024, 3072,  16, 8,  128, 151936, 40960,  1000000, true,  0,   0},
    {"qwen3-4b",     "qwen3",    36, 2560, 9728,  32, 8,  128, 151936, 40960,  1000000, true,  0,   0},
    {"tiny-moe",     "olmoe",    2,  256,  256,   4,  4,  64,  512,    2048,   10000,   false, 8,   2},
    {"olmoe-1b-7b",  "olmoe",    16, 2048, 1024,  16, 16, 128, 50304,  4096,   10000,   false, 64,  8},
    {"qwen3-a3b-8l", "qwen3moe", 8,  2048, 768,   32, 4,  128, 151936, 40960,  1000000, false, 128, 8},
};

/* What is being built: the header grows in `head`; tensors are listed first and filled once the header's size is known. */
struct tensor { char name[64]; uint32_t type; size_t shape[3], dims, offset, bytes; float factor; };
struct builder {
    const struct shape *shape;
    const struct format *base, *more;    /* of most matrices; of those that deserve more bits (NULL: the same) */
    struct text     head;
    uint64_t        keys;
    struct tensor  *tensors;
    size_t          count, bytes;
};

enum { ALIGNMENT = 64, TILE_BYTES = 1 << 20, LAYER_TENSORS = 12, OTHER_TENSORS = 3 };

/* ---- keys ------------------------------------------------------------------------------------------------------- */

static void put(struct builder *b, uint64_t value, size_t bytes)
{
    char little[8];
    for (size_t i = 0; i < bytes; i++)
        little[i] = (char)(value >> 8 * i);
    text_add(&b->head, little, bytes);
}

static void put_text(struct builder *b, const char *text)
{
    put(b, strlen(text), 8);
    text_add(&b->head, text, strlen(text));
}

/* A key of the architecture begins with '.', others stand as they are. */
static void key(struct builder *b, const char *name, enum gguf_type type)
{
    char full[100];
    snprintf(full, sizeof full, "%s%s", *name == '.' ? b->shape->arch : "", name);
    put_text(b, full);
    put(b, type, 4);
    b->keys++;
}

static void key_u32(struct builder *b, const char *name, uint32_t value) { key(b, name, GGUF_U32), put(b, value, 4); }
static void key_text(struct builder *b, const char *name, const char *value) { key(b, name, GGUF_STRING), put_text(b, value); }
static void put_f32(struct builder *b, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    put(b, bits, 4);
}
static void key_f32(struct builder *b, const char *name, float value) { key(b, name, GGUF_F32), put_f32(b, value); }

static void array(struct builder *b, const char *name, enum gguf_type type, size_t n)
{
    key(b, name, GGUF_ARRAY);
    put(b, type, 4);
    put(b, n, 8);
}

/* Word i of a, b, ... z, aa, ab, ...: every beginning of a word is a word, so each can be put together from its letters. */
static const char *word(char out[16], uint32_t i)
{
    char *p = out + 15;
    *p = 0;
    for (i++; i > 0; i = (i - 1) / 26)
        *--p = (char)('a' + (i - 1) % 26);
    return p;
}

/* A SentencePiece vocabulary: three control tokens, 256 bytes, the blank, and made-up words. */
static void add_tokenizer(struct builder *b)
{
    static const char *const control[] = {"<unk>", "<s>", "</s>"};
    enum { UNKNOWN = 2, CONTROL = 3, BYTE = 6, NORMAL = 1, BYTES = 3, BLANK = BYTES + 256, WORDS };
    uint32_t vocab = b->shape->vocab;
    char text[16];
    key_text(b, "tokenizer.ggml.model", "llama");
    key_text(b, "tokenizer.ggml.pre", "default");
    array(b, "tokenizer.ggml.tokens", GGUF_STRING, vocab);
    for (uint32_t i = 0; i < vocab; i++) {
        if (i >= BYTES && i < BLANK)
            snprintf(text, sizeof text, "<0x%02X>", i - BYTES);
        put_text(b, i < BYTES ? control[i] : i < BLANK ? text : i == BLANK ? "\xe2\x96\x81" : word(text, i - WORDS));
    }
    array(b, "tokenizer.ggml.scores", GGUF_F32, vocab);
    for (uint32_t i = 0; i < vocab; i++)
        put_f32(b, i < BLANK ? 0 : -(float)i);
    array(b, "tokenizer.ggml.token_type", GGUF_I32, vocab);
    for (uint32_t i = 0; i < vocab; i++)
        put(b, i == 0 ? UNKNOWN : i < BYTES ? CONTROL : i < BLANK ? BYTE : NORMAL, 4);
    key_u32(b, "tokenizer.ggml.bos_token_id", 1);
    key_u32(b, "tokenizer.ggml.eos_token_id", 2);
    key_u32(b, "tokenizer.ggml.unknown_token_id", 0);
    key(b, "tokenizer.ggml.add_space_prefix", GGUF_BOOL);
    put(b, 0, 1);
}

static void add_keys(struct builder *b, const char *name)
{
    const struct shape *s = b->shape;
    key_text(b, "general.architecture", s->arch);
    key_text(b, "general.name", name);
    key_u32(b, "general.alignment", ALIGNMENT);
    key_u32(b, ".block_count", s->layers);
    key_u32(b, ".context_length", s->context);
    key_u32(b, ".embedding_length", s->width);
    key_u32(b, ".feed_forward_length", s->ff);
    key_u32(b, ".attention.head_count", s->heads);
    key_u32(b, ".attention.head_count_kv", s->kv_heads);
    key_u32(b, ".attention.key_length", s->head_dim);
    key_u32(b, ".attention.value_length", s->head_dim);
    key_u32(b, ".rope.dimension_count", s->head_dim);
    key_u32(b, ".vocab_size", s->vocab);
    key_f32(b, ".rope.freq_base", s->rope_base);
    key_f32(b, ".attention.layer_norm_rms_epsilon", 1e-5f);
    if (s->experts) {
        key_u32(b, ".expert_count", s->experts);
        key_u32(b, ".expert_used_count", s->used);
        key_u32(b, ".expert_feed_forward_length", s->ff);
    }
    add_tokenizer(b);
}

/* ---- tensors ---------------------------------------------------------------------------------------------------- */

/* rows 0: a vector of `cols`; slices 0: a matrix, otherwise a stack of them, one per expert. */
struct extent { size_t cols, rows, slices; };

/* factor: the value of a vector's elements; of a matrix of floats; of other formats 1. */
static void add_tensor(struct builder *b, const char *name, const struct format *format, struct extent e, float factor)
{
    struct tensor *t = &b->tensors[b->count++];
    *t = (struct tensor){.type = format->id, .shape = {e.cols, e.rows ? e.rows : 1, e.slices ? e.slices : 1}, .offset = b->bytes,
                         .dims = e.slices ? 3 : e.rows ? 2 : 1, .factor = factor};
    snprintf(t->name, sizeof t->name, "%s", name);
    t->bytes = e.cols / format->block * format->bytes * t->shape[1] * t->shape[2];
    b->bytes += (t->bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* Which layers get more bits in the _m mixes: the first and last eighth and every third between. */
static bool deserves_more(size_t i, size_t n) { return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2; }

/* Names of experts' tensors end in "_exps"; their router is kept in full, as published files do.
 *
 * What random layers add is much the same for every token and would soon drown the embedding: the router would then send all
 * tokens to the same experts (8 of 64 in most layers of OLMoE's shape), where trained ones spread them. So the norms before both
 * parts make a layer's input, and with it what it adds, small; the router makes up for it. */
static void add_layer(struct builder *b, uint32_t i)
{
    const struct shape *s = b->shape;
    const struct format *f32 = format_find(FORMAT_F32), *more = b->more && deserves_more(i, s->layers) ? b->more : b->base;
    const size_t q = (size_t)s->heads * s->head_dim, kv = (size_t)s->kv_heads * s->head_dim;
    const bool norm_head = strncmp(s->arch, "qwen3", 5) == 0, norm_whole = strcmp(s->arch, "olmoe") == 0;
    const float before = s->experts ? 1.0f / 256 : 1, router = 256;
    const struct { const char *name; const struct format *format; struct extent extent; bool left_out; float factor; }
    list[LAYER_TENSORS] = {
        {"attn_norm", f32, {s->width, 0, 0}, false, before},
        {"attn_q", b->base, {s->width, q, 0}, false, 1},
        {"attn_k", b->base, {s->width, kv, 0}, false, 1},
        {"attn_v", more, {s->width, kv, 0}, false, 1},
        {"attn_output", b->base, {q, s->width, 0}, false, 1},
        {"ffn_norm", f32, {s->width, 0, 0}, false, before},
        {"ffn_gate_inp", f32, {s->width, s->experts, 0}, !s->experts, router},
        {"ffn_gate", b->base, {s->width, s->ff, s->experts}, false, 1},
        {"ffn_up", b->base, {s->width, s->ff, s->experts}, false, 1},
        {"ffn_down", more, {s->ff, s->width, s->experts}, false, 1},
        {"attn_q_norm", f32, {norm_whole ? q : s->head_dim, 0, 0}, !norm_whole && !norm_head, 1},
        {"attn_k_norm", f32, {norm_whole ? kv : s->head_dim, 0, 0}, !norm_whole && !norm_head, 1},
    };
    for (size_t k = 0; k < LAYER_TENSORS; k++) {
        char name[64];
        if (list[k].left_out)
            continue;
        snprintf(name, sizeof name, "blk.%u.%s%s.weight", i, list[k].name, list[k].extent.slices ? "_exps" : "");
        add_tensor(b, name, list[k].format, list[k].extent, list[k].factor);
    }
}

static void add_tensors(struct builder *b)
{
    const struct shape *s = b->shape;
    const struct format *f32 = format_find(FORMAT_F32), *head = b->more ? b->more : b->base;
    add_tensor(b, "token_embd.weight", s->tied ? head : b->base, (struct extent){s->width, s->vocab, 0}, 1);
    for (uint32_t i = 0; i < s->layers; i++)
        add_layer(b, i);
    add_tensor(b, "output_norm.weight", f32, (struct extent){s->width, 0, 0}, 1);
    if (!s->tied)
        add_tensor(b, "output.weight", head, (struct extent){s->width, s->vocab, 0}, 1);
}

/* ---- random blocks ---------------------------------------------------------------------------------------------- */

/* Where a block keeps numbers that random bytes would make huge or NaN, and what to put there. f16 scales are given as bit
 * patterns of powers of two such that the values have a standard deviation near 0.02; minimums of the k-quants such that
 * their mean is 0, since every product would make a mean of the weights larger. */
struct scale_field { uint32_t format; uint8_t offset; uint16_t f16; };
static const struct scale_field scale_fields[] = {
    {FORMAT_Q4_0, 0, 0x1c00}, {FORMAT_Q4_1, 0, 0x1c00}, {FORMAT_Q4_1, 2, 0xa800}, {FORMAT_Q5_0, 0, 0x1800},
    {FORMAT_Q5_1, 0, 0x1800}, {FORMAT_Q5_1, 2, 0xa800}, {FORMAT_Q8_0, 0, 0x0c00}, {FORMAT_Q2_K, 80, 0x1400},
    {FORMAT_Q2_K, 82, 0x1600}, {FORMAT_Q3_K, 108, 0x0800}, {FORMAT_Q4_K, 0, 0x0800}, {FORMAT_Q4_K, 2, 0x1380},
    {FORMAT_Q5_K, 0, 0x0400}, {FORMAT_Q5_K, 2, 0x13c0}, {FORMAT_Q6_K, 208, 0x0100}, {FORMAT_IQ2_XXS, 0, 0x0c00},
    {FORMAT_IQ2_XS, 0, 0x0c00}, {FORMAT_IQ2_S, 0, 0x0c00}, {FORMAT_IQ3_XXS, 0, 0x0800}, {FORMAT_IQ3_S, 0, 0x0400},
    {FORMAT_IQ1_S, 0, 0x1400}, {FORMAT_IQ4_NL, 0, 0x0c00}, {FORMAT_IQ4_XS, 0, 0x0200}, {FORMAT_TQ1_0, 52, 0x2400},
    {FORMAT_TQ2_0, 64, 0x2400}, {FORMAT_Q1_0, 0, 0x2400}, {FORMAT_Q2_0, 0, 0x2000},
};

/* A float near zero: uniform in +-0.035. */
static float small_float(uint64_t *state) { return 0.035f * ((float)(random_bits(state) >> 40) * 0x1p-23f - 1); }

/* Random blocks of a format: n bytes, a whole number of blocks. */
static void fill_blocks(uint8_t *out, size_t n, const struct format *format, uint64_t *state)
{
    for (size_t i = 0; i + 8 <= n; i += 8) {
        uint64_t r = random_bits(state);
        memcpy(out + i, &r, 8);
    }
    for (size_t i = n / 8 * 8; i < n; i++)
        out[i] = (uint8_t)random_bits(state);
    for (uint8_t *block = out; block < out + n; block += format->bytes) {
        for (size_t i = 0; i < sizeof scale_fields / sizeof *scale_fields; i++)
            if (scale_fields[i].format == format->id) {
                block[scale_fields[i].offset] = (uint8_t)scale_fields[i].f16;
                block[scale_fields[i].offset + 1] = (uint8_t)(scale_fields[i].f16 >> 8);
            }
        float x;
        uint32_t bits;
        switch (format->id) {
        case FORMAT_F32:
            x = small_float(state);
            memcpy(block, &x, 4);
            break;
        case FORMAT_BF16:
            x = small_float(state);
            memcpy(&bits, &x, 4);
            block[0] = (uint8_t)(bits >> 16), block[1] = (uint8_t)(bits >> 24);
            break;
        case FORMAT_F16:                       /* exponents 2^-8 .. 2^-5, any sign and fraction */
            block[1] = (uint8_t)((block[1] & 0x83) | (7 + (block[1] >> 2 & 3)) << 2);
            break;
        case FORMAT_IQ1_M:                     /* the scale's bits are the top nibbles of four 16-bit words: 0x1800 */
            for (int k = 0; k < 4; k++)
                block[48 + 2 * k + 1] = (uint8_t)((block[48 + 2 * k + 1] & 0x0f) | (0x1800 >> 4 * k & 15) << 4);
            break;
        case FORMAT_MXFP4:
            block[0] = 120;                    /* 2^-7, halved by the code */
            break;
        case FORMAT_NVFP4:                     /* four scales of 8 bits: exponent 2^-7 + fraction */
            for (int k = 0; k < 4; k++)
                block[k] = (uint8_t)(8 + (block[k] & 7));
            break;
        default:
            break;
        }
    }
}

/* One tile of random blocks per format, laid end to end over the tensor: as fast as memory. */
static void fill_tensor(uint8_t *out, const struct tensor *t)
{
    const struct format *format = format_find(t->type);
    if (t->dims == 1) {
        for (size_t i = 0; i < t->bytes; i += 4)
            memcpy(out + i, &t->factor, 4);
        return;
    }
    size_t tile = TILE_BYTES / format->bytes * format->bytes;
    tile = tile < t->bytes ? tile : t->bytes;
    uint64_t state = t->offset + format->id;
    fill_blocks(out, tile, format, &state);
    for (size_t i = 0; t->factor != 1 && i < tile; i += 4) {
        float x;
        memcpy(&x, out + i, 4);
        x *= t->factor;
        memcpy(out + i, &x, 4);
    }
    for (size_t at = tile; at < t->bytes; at += tile)
        memcpy(out + at, out, t->bytes - at < tile ? t->bytes - at : tile);
}

/* ---- all together ----------------------------------------------------------------------------------------------- */

static bool parse_spec(struct builder *b, const char *spec, struct quern_error *err)
{
    char type[32];
    size_t n = strcspn(spec, ":");
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (strlen(shapes[i].name) == n && strncmp(shapes[i].name, spec, n) == 0)
            b->shape = &shapes[i];
    if (!b->shape || !spec[n])
        return ERR(err, QUERN_EUSAGE, "'%s' is not SHAPE:TYPE with a shape of " SYNTHETIC_SHAPES, spec);
    snprintf(type, sizeof type, "%s", spec + n + 1);
    size_t length = strlen(type);
    if (length > 2 && (strcmp(type + length - 2, "_m") == 0 || strcmp(type + length - 2, "_M") == 0) &&
        toupper((unsigned char)type[0]) == 'Q') {
        type[length - 2] = 0;
        b->more = format_find(FORMAT_Q6_K);
    }
    b->base = format_by_name(type);
    bool mixed = b->base && (b->base->id == FORMAT_Q4_K || b->base->id == FORMAT_Q5_K);
    if (!b->base || !b->base->weights || (b->more && !mixed))
        return ERR(err, QUERN_EUSAGE, "'%s' is no type that matrices may have, nor q4_k_m or q5_k_m", spec + n + 1);
    if (b->shape->width % b->base->block || b->shape->ff % b->base->block)
        return ERR(err, QUERN_EUSAGE, "rows of %u values do not divide into blocks of %u (%s)", b->shape->width, b->base->block,
                   b->base->name);
    return true;
}

/* Header, directory, and the place of every tensor. */
static bool lay_out(struct builder *b, const char *name, struct text *head, struct quern_error *err)
{
    size_t most = OTHER_TENSORS + LAYER_TENSORS * (size_t)b->shape->layers;
    if (!(b->tensors = mem_take(most, sizeof *b->tensors, "a list of tensors", err)))
        return false;
    add_tensors(b);
    add_keys(b, name);
    struct text keys = b->head;
    b->head = (struct text){0};
    text_add(&b->head, "GGUF", 4);
    put(b, 3, 4);
    put(b, b->count, 8);
    put(b, b->keys, 8);
    text_add(&b->head, keys.data ? keys.data : "", keys.n);
    for (size_t i = 0; i < b->count; i++) {
        const struct tensor *t = &b->tensors[i];
        put_text(b, t->name);
        put(b, t->dims, 4);
        for (size_t d = 0; d < t->dims; d++)
            put(b, t->shape[d], 8);
        put(b, t->type, 4);
        put(b, t->offset, 8);
    }
    while (b->head.n % ALIGNMENT && !b->head.failed)
        put(b, 0, 1);
    bool ok = !keys.failed && !b->head.failed;
    text_free(&keys);
    *head = b->head;
    return ok || ERR(err, QUERN_EMEM, "not enough memory for the header of a synthetic model");
}

bool synthetic_make(struct synthetic *s, const char *spec, struct quern_error *err)
{
    struct builder b = {0};
    struct text head = {0};
    *s = (struct synthetic){0};
    if (!parse_spec(&b, spec, err))
        return false;
    snprintf(s->name, sizeof s->name, "%s %s (random weights)", b.shape->arch, spec);
    bool ok = lay_out(&b, s->name, &head, err);
    if (ok) {
        s->size = head.n + b.bytes;
        void *p = mmap(NULL, s->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) {
            ok = ERR(err, QUERN_EMEM, "not enough memory for a model of %zu bytes", s->size);
        } else {
            s->data = p;
            s->mapped = s->size;
#ifdef MADV_HUGEPAGE
            madvise(p, s->size, MADV_HUGEPAGE);
#endif
            memcpy(s->data, head.data, head.n);
            for (size_t i = 0; i < b.count; i++)
                fill_tensor(s->data + head.n + b.tensors[i].offset, &b.tensors[i]);
        }
    }
    text_free(&head);
    free(b.tensors);
    if (!ok)
        synthetic_free(s);
    return ok;
}

void synthetic_free(struct synthetic *s)
{
    if (s->data)
        munmap(s->data, s->mapped);
    *s = (struct synthetic){0};
}

bool synthetic_save(const struct synthetic *s, const char *path, bool force, struct quern_error *err)
{
    struct gguf_writer_options options = { .force = force };
    struct gguf g;
    if (!gguf_view(&g, s->data, s->size, s->name, NULL, err))
        return false;
    struct gguf_writer *w = gguf_writer_open(path, &options, err);
    bool ok = w != NULL;
    for (size_t i = 0; ok && i < g.kv_count; i++)
        ok = gguf_writer_value(w, g.kvs[i].key.text, g.kvs[i].key.n, &g.kvs[i].value, err);
    for (size_t i = 0; ok && i < g.tensor_count; i++)
        ok = gguf_writer_tensor(w, &g.tensors[i], err);
    for (size_t i = 0; ok && i < g.tensor_count; i++)
        ok = gguf_writer_data(w, g.tensors[i].data, g.tensors[i].bytes, err);
    ok = ok && gguf_writer_commit(w, err);
    gguf_writer_close(w);
    gguf_close(&g);
    return ok;
}
