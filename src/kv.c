/* The cache of keys and values and the states of recurrent layers: one plan, one allocation, see kv.h.
 *
 * Rows of one head lie together, a span of tokens at a time ([span][head][token][dim]): attention walks one head over all tokens,
 * and a step of it is then one stream of memory instead of one per token. */
#include "kv.h"
#include "tile16.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Caches from this size on are asked for in huge pages: with small ones the prefetchers of a core stop at every 4 KiB, and four
 * threads read a cache of 4096 tokens at three quarters of the speed (bench/results/2026-11-21-wait.md). */
enum { HUGE_LEAST = 4 << 20, HUGE_PAGE = 2 << 20 };

/* Floats of a layer's recurrent state: the last taps - 1 inputs of the convolution, then the state proper. */
static size_t state_floats(const struct model *m, const struct layer *l)
{
    const struct hyper *h = &m->hyper;
    switch (l->mixer) {
    case MIX_CONV:
        return (h->conv_taps - 1) * h->width;
    case MIX_SSM:
        return (h->conv_taps - 1) * h->ssm_inner + h->ssm_inner * h->ssm_state;
    case MIX_DELTA:
        return (h->conv_taps - 1) * (h->ssm_inner + 2 * h->ssm_groups * h->ssm_state) + h->ssm_inner * h->ssm_state;
    default:
        return 0;
    }
}

/* Heads and row sizes of one layer's cache. Absorbed MLA keeps one latent row for all heads (l->kv_heads is 1 then), the other form
 * keys and values per head. */
static bool plan_layer(struct kv_layer *out, const struct model *m, const struct layer *l, enum kv_type type,
                       struct quern_error *err)
{
    size_t multiple = kv_multiple(type);
    *out = (struct kv_layer){ .state_floats = state_floats(m, l) };
    if (l->mixer != MIX_ATTENTION && l->mixer != MIX_MLA)
        return true;
    out->heads = l->kv_heads;
    out->key_dim = l->mixer == MIX_MLA && !m->hyper.mla_absorbed ? m->hyper.mla_key : m->hyper.key_dim;
    out->value_dim = l->mixer == MIX_MLA && !m->hyper.mla_absorbed ? m->hyper.mla_value : m->hyper.value_dim;
    if (out->key_dim % multiple || out->value_dim % multiple)
        return ERR(err, QUERN_EUNSUPPORTED, "a cache of type %s needs heads of a multiple of %zu values, these have %zu and %zu",
                   kv_name(type), multiple, out->key_dim, out->value_dim);
    if (type == KV_I16 && l->mixer == MIX_MLA && m->hyper.mla_absorbed)
        return ERR(err, QUERN_EUNSUPPORTED, "a cache of type %s keeps values apart from keys, latent attention keeps them together",
                   kv_name(type));
    out->key_row = kv_row_bytes(type, out->key_dim);
    out->value_row = kv_row_bytes(type, out->value_dim);
    return true;
}

/* By trying: what a type asks of the heads stands in one place. */
enum kv_type kv_choose(const struct model *m, const struct kernels *k)
{
    struct kv_layer layer;
    struct quern_error ignored;
    for (size_t i = 0; i < m->hyper.layers; i++)
        if (!plan_layer(&layer, m, &m->layer[i], k->cache, &ignored))
            return KV_F16;
    return k->cache;
}

/* Fill everything but the memory itself; `layer` has room for all layers. `total`: bytes of one allocation that holds data, then
 * states, wherever in a cache line it begins. */
static bool plan(struct kv *kv, size_t *total, struct kv_layer *layer, const struct model *m, enum kv_type type, size_t context,
                 struct quern_error *err)
{
    size_t offset = 0, floats = 0, rows, bytes;
    *kv = (struct kv){ .type = type, .limit = context, .layers = m->hyper.layers, .layer = layer, .recurrent = m->recurrent };
    /* Whole tiles: attention reads a tile's rows without asking where the sequence ends. What lies beyond gets the weight 0, which
     * is harmless only while the rows are finite (0 * Inf is NaN): zeroed at first, and clear_values sees to it later. */
    bool fits = checked_align(&kv->capacity, context, ATTN_TILE);
    for (size_t i = 0; i < m->hyper.layers; i++) {
        struct kv_layer *l = &layer[i];
        if (!plan_layer(l, m, &m->layer[i], type, err))
            return false;
        l->state = floats;
        fits = fits && checked_add(&floats, floats, l->state_floats);
        fits = fits && checked_mul(&rows, kv->capacity, l->heads);
        l->keys = l->values = offset;
        fits = fits && checked_mul(&bytes, rows, l->key_row) && checked_add(&offset, offset, bytes) &&
               checked_align(&offset, offset, 64);
        if (m->layer[i].mixer == MIX_MLA && m->hyper.mla_absorbed) {      /* values are the first part of the keys */
            l->value_row = l->key_row;
            continue;
        }
        l->values = offset;
        fits = fits && checked_mul(&bytes, rows, l->value_row) && checked_add(&offset, offset, bytes) &&
               checked_align(&offset, offset, 64);
    }
    kv->data_bytes = offset;
    kv->state_floats = floats;
    fits = fits && checked_mul(&bytes, floats, sizeof(float)) && checked_add(total, offset, bytes) &&
           checked_add(total, *total, 64);
    return fits || ERR(err, QUERN_EMEM, "a cache of %zu tokens is larger than the address space", context);
}

bool kv_bytes(size_t *out, const struct model *m, enum kv_type type, size_t context, struct quern_error *err)
{
    struct kv kv;
    struct kv_layer *layer = mem_take(m->hyper.layers, sizeof *layer, "a cache's plan", err);
    bool ok = layer && plan(&kv, out, layer, m, type, context, err);
    free(layer);
    return ok;
}

bool kv_init(struct kv *kv, const struct model *m, enum kv_type type, size_t context, struct quern_error *err)
{
    size_t bytes = 0;
    *kv = (struct kv){ 0 };
    struct kv_layer *layer = mem_take(m->hyper.layers, sizeof *layer, "a cache's plan", err);
    if (!layer)
        return false;
    bool ok = plan(kv, &bytes, layer, m, type, context, err);
    /* calloc gives large pieces untouched from the system: pages that no token reaches are never taken. */
    if (ok)
        ok = (kv->memory = mem_take(bytes, 1, "the key and value cache", err)) != NULL;
#ifdef MADV_HUGEPAGE
    if (ok && bytes >= HUGE_LEAST) {
        size_t into = (HUGE_PAGE - (uintptr_t)kv->memory % HUGE_PAGE) % HUGE_PAGE;
        (void)madvise((unsigned char *)kv->memory + into, (bytes - into) / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
    }
#endif
    if (!ok) {
        kv_free(kv);
        return false;
    }
    /* 64 bytes more were taken than needed: rows begin at cache lines, so that no vector load touches two. */
    kv->data = (unsigned char *)kv->memory + (64 - (uintptr_t)kv->memory % 64) % 64;
    kv->state = (float *)(void *)(kv->data + kv->data_bytes);
    return true;
}

void kv_free(struct kv *kv)
{
    free(kv->memory);
    free(kv->layer);
    *kv = (struct kv){ 0 };
}

/* A row whose scale is 0 is one of zeros. */
static void clear_scales(struct kv *kv, const struct kv_layer *l, size_t head, size_t from, size_t to)
{
    for (size_t pos = from; pos < to; pos++)
        tile16_scales(kv_value(kv, l, head, pos - pos % ATTN_TILE), l->value_dim)[pos % ATTN_TILE] = 0;
}

/* Values of [from, to) become 0, so that the rows beyond `used` stay finite whatever stood there. */
static void clear_values(struct kv *kv, size_t from, size_t to)
{
    for (size_t i = 0; i < kv->layers; i++) {
        const struct kv_layer *l = &kv->layer[i];
        for (size_t head = 0; head < l->heads; head++) {
            if (kv->type == KV_I16)
                clear_scales(kv, l, head, from, to);
            for (size_t at = from, end; kv->type != KV_I16 && at < to; at = end) {
                end = at - at % KV_SPAN + KV_SPAN < to ? at - at % KV_SPAN + KV_SPAN : to;
                memset(kv_value(kv, l, head, at), 0, (end - at) * l->value_row);
            }
        }
    }
}

/* Going back in attention is forgetting rows; a recurrent state has absorbed its past and can only be emptied. */
bool kv_rewind(struct kv *kv, size_t count, struct quern_error *err)
{
    if (count > kv->used)
        return ERR(err, QUERN_EUSAGE, "cannot go back to %zu tokens, there are %zu", count, kv->used);
    if (count == kv->used)
        return true;
    if (kv->recurrent && count != 0)
        return ERR(err, QUERN_EUSAGE, "a recurrent model can only go back to 0 tokens, not to %zu of %zu", count, kv->used);
    clear_values(kv, count, kv->used);
    if (kv->recurrent)
        memset(kv->state, 0, kv->state_floats * sizeof *kv->state);
    kv->used = count;
    return true;
}

/* A pass that failed may have written the rows of any of its tokens: none of them may stay behind `used`. */
void kv_abort(struct kv *kv, size_t count)
{
    size_t end = count < kv->capacity - kv->used ? kv->used + count : kv->capacity;
    clear_values(kv, kv->used, end);
    if (kv->recurrent) {
        memset(kv->state, 0, kv->state_floats * sizeof *kv->state);
        clear_values(kv, 0, kv->used);
        kv->used = 0;
    }
}
