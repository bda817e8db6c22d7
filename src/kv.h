/* kv.h - the memory of a sequence: keys and values of the tokens seen so far, and the states of recurrent layers.
 *
 * A `struct kv` holds one sequence's cache for all layers in one allocation whose size is known before it is made. Positions are
 * absolute and without holes. Within a layer the rows of one key head and KV_SPAN positions lie together, so that attention reads
 * them in one stream, and the heads of a span lie beside each other, so that a sequence takes memory as it grows (in huge pages,
 * too, where the system has them):
 *
 *     keys   [spans][kv_heads][KV_SPAN][key_dim]     in blocks of `type`; the last span ends with the capacity
 *     values [spans][kv_heads][KV_SPAN][value_dim]   or the first value_dim of each key (latent attention)
 *
 * In a cache of type I16 the rows of each ATTN_TILE positions are one tile with an order of its own (tile16.h): kv_key and kv_value
 * of the tile's first position give its address, those of other positions mean nothing.
 *
 * Rows at and beyond `used` are always finite, zero until written: attention reads sixteens of them, and tiles of ATTN_TILE where a
 * later token of the block wants these, and gives those beyond the query the weight 0. One thread at a time may append. */
#ifndef QUERN_KV_H
#define QUERN_KV_H

#include "model.h"

/* Positions whose rows of one head lie together: a multiple of ATTN_TILE. */
enum { KV_SPAN = 1024 };

struct kv_layer {
    size_t keys, values;        /* byte offsets in `data`; equal where values are the first part of the keys */
    size_t key_row, value_row;  /* bytes from row to row */
    size_t heads;               /* 0: the layer has no cache */
    size_t key_dim, value_dim;
    size_t state;               /* offset of its recurrent state in `state`, in floats */
    size_t state_floats;
};

struct kv {
    enum kv_type     type;
    size_t           capacity;  /* tokens, a multiple of ATTN_TILE */
    size_t           limit;     /* tokens that were asked for, <= capacity */
    size_t           used;      /* tokens appended so far */
    size_t           layers;
    struct kv_layer *layer;     /* [layers] */
    void            *memory;    /* the allocation; data is the first multiple of 64 in it */
    unsigned char   *data;
    float           *state;     /* f32, all recurrent layers */
    size_t           data_bytes, state_floats;
    bool             recurrent;
};

/* The type of a cache for which none was asked: the kernels' favourite, F16 where the model's heads do not allow that one. */
enum kv_type kv_choose(const struct model *m, const struct kernels *k);
/* Bytes that kv_init will take for `context` tokens. QUERN_EMEM when the product does not fit, QUERN_EUNSUPPORTED when heads are
 * no multiple of the type's block. */
bool kv_bytes(size_t *out, const struct model *m, enum kv_type type, size_t context, struct quern_error *err);
bool kv_init(struct kv *kv, const struct model *m, enum kv_type type, size_t context, struct quern_error *err);
void kv_free(struct kv *kv);

/* Cut back to `count` tokens. Recurrent states can only be kept or cleared: QUERN_EUSAGE for anything but 0 and `used`. */
bool kv_rewind(struct kv *kv, size_t count, struct quern_error *err);
/* After a pass over `count` tokens that did not end well: what it wrote beyond `used` is cleared; where states were changed there
 * is no way back, and the cache is empty then. */
void kv_abort(struct kv *kv, size_t count);

/* Where head `head`'s row of token `pos` stands among the rows of a layer. */
static inline size_t kv_place(const struct kv *kv, const struct kv_layer *l, size_t head, size_t pos)
{
    size_t before = pos - pos % KV_SPAN, rows = kv->capacity - before < KV_SPAN ? kv->capacity - before : KV_SPAN;
    return before * l->heads + head * rows + pos % KV_SPAN;
}

/* Row of token `pos` for a key head. */
static inline unsigned char *kv_key(const struct kv *kv, const struct kv_layer *l, size_t head, size_t pos)
{
    return kv->data + l->keys + kv_place(kv, l, head, pos) * l->key_row;
}

static inline unsigned char *kv_value(const struct kv *kv, const struct kv_layer *l, size_t head, size_t pos)
{
    return kv->data + l->values + kv_place(kv, l, head, pos) * l->value_row;
}

#endif
