/* Attention: queries against the cache, tile by tile, with an online softmax.
 *
 * Keys are taken in tiles of ATTN_TILE positions that begin at multiples of ATTN_TILE (what a query may not see gets the weight 0,
 * which changes no sum), and the tiles of each SPAN of positions are summed apart and then merged in order. So a query's sum has
 * one order, whatever else is in the batch; and a long context can be cut over threads at the spans without changing a bit. */
#include "forward.h"

#include <math.h>
#include <string.h>

/* QUERIES: rows that share a tile of keys, at least one token's group of heads. SPLIT_TOKENS: batches up to this size may be cut at
 * spans; larger ones have enough heads and blocks to keep the threads busy. */
enum { SPAN = 1024, QUERIES = 64, SPLIT_TOKENS = 4 };

/* Running softmax of some rows: out is not yet divided by sum. */
struct rows {
    float *out;        /* [rows][value_dim] */
    float *max, *sum;  /* [rows] */
    float *factor;     /* [at most QUERIES, or rows] what each tile asks `out` to be multiplied by */
};

struct attend_stage {
    struct forward         *f;
    const struct attention *a;
    const struct kv_layer  *shape;
    size_t group, block;       /* heads per key head; tokens per block of queries */
    size_t blocks, spans;      /* of the batch; in f->partial, when cut at spans */
};

/* A block of queries: tokens [first, first + toks) of one sequence, all heads of one key head. */
struct block {
    const struct kv *kv;
    size_t first, toks, head;
};

static size_t group_of(const struct layer *l)
{
    return l->kv_heads ? l->heads / l->kv_heads : 0;
}

static size_t most_rows(const struct model *m)
{
    size_t most = QUERIES;
    for (size_t i = 0; i < m->hyper.layers; i++)
        if (group_of(&m->layer[i]) > most)
            most = group_of(&m->layer[i]);
    return most;
}

static size_t widest_value(const struct model *m)
{
    return m->hyper.value_dim > m->hyper.mla_value ? m->hyper.value_dim : m->hyper.mla_value;
}

static size_t widest_key(const struct model *m)
{
    return m->hyper.key_dim > m->hyper.mla_key ? m->hyper.key_dim : m->hyper.mla_key;
}

size_t attend_scratch_floats(const struct model *m)
{
    return most_rows(m) * (widest_key(m) + ATTN_TILE + 2 * widest_value(m) + 6);
}

size_t attend_partial_floats(const struct model *m, size_t context)
{
    size_t heads = 0, spans = context / SPAN + 1;
    for (size_t i = 0; i < m->hyper.layers; i++)
        if (m->layer[i].heads > heads)
            heads = m->layer[i].heads;
    return spans < 2 ? 0 : heads * SPLIT_TOKENS * spans * (widest_value(m) + 2);
}

size_t attend_blocks(const struct model *m)
{
    size_t heads = 0;
    for (size_t i = 0; i < m->hyper.layers; i++)
        if (m->layer[i].kv_heads > heads)
            heads = m->layer[i].kv_heads;
    return heads * SPLIT_TOKENS;
}

/* Tiles that are weighed before their values are mixed: of scratch they take what a block of QUERIES rows does. */
static size_t tiles_at_once(size_t rows)
{
    return rows < QUERIES ? QUERIES / rows : 1;
}

/* First position that a query at `pos` sees. */
static size_t first_seen(const struct forward *f, const struct layer *l, size_t pos)
{
    if (l->window == 0)
        return 0;
    if (f->m->hyper.chunked)
        return pos - pos % l->window;
    return pos + 1 > l->window ? pos + 1 - l->window : 0;
}

/* Slope of head h (ALiBi, Press et al. 2022): geometric over the heads, odd steps for those past the last power of two. */
static float alibi_slope(const struct hyper *hyper, size_t heads, size_t h)
{
    size_t power = 1;
    while (power * 2 <= heads)
        power *= 2;
    if (h < power)
        return powf(powf(2, -hyper->alibi / (float)power), (float)(h + 1));
    return powf(powf(2, -hyper->alibi / 2 / (float)power), (float)(2 * (h - power) + 1));
}

/* Whether all queries of a block see a whole tile and nothing else is done to their scores, as in most tiles of a long context. */
static bool scores_stand(const struct attend_stage *s, size_t first_pos, size_t last_pos, size_t tile)
{
    const struct hyper *hyper = &s->f->m->hyper;
    return hyper->attn_softcap == 0 && hyper->alibi == 0 && first_pos >= tile + ATTN_TILE - 1 &&
           first_seen(s->f, s->a->layer, last_pos) <= tile;
}

/* Keys of a tile that are read: none behind the sixteen of the block's last token. Of a short context's caches, many sequences'
 * at once, most is what no token has written yet. */
static size_t keys_of(const struct attend_stage *s, const struct block *b, size_t tile)
{
    size_t keys = s->f->pos[b->first + b->toks - 1] + 1 - tile;
    return keys < ATTN_TILE ? (keys + 15) / 16 * 16 : ATTN_TILE;
}

/* What is done to the scores of one query before the softmax, of which `keys` are there: soft cap, position bias, mask. */
static void shape_scores(const struct attend_stage *s, float *scores, size_t keys, size_t pos, size_t tile, size_t head)
{
    const struct hyper *hyper = &s->f->m->hyper;
    size_t from = first_seen(s->f, s->a->layer, pos);
    if (hyper->attn_softcap != 0)
        for (size_t t = 0; t < keys; t++)
            scores[t] = hyper->attn_softcap * tanhf(scores[t] / hyper->attn_softcap);
    if (hyper->alibi != 0) {
        float slope = alibi_slope(hyper, s->a->layer->heads, head);
        for (size_t t = 0; t < ATTN_TILE && tile + t <= pos; t++)
            scores[t] -= slope * (float)(pos - tile - t);
    }
    for (size_t t = 0; t < ATTN_TILE && tile + t < from; t++)
        scores[t] = -INFINITY;
    for (size_t t = pos + 1 > tile ? pos + 1 - tile : 0; t < ATTN_TILE; t++)
        scores[t] = -INFINITY;
}

static void scale_row(float *x, float factor, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] *= factor;
}

/* The rows of the block's queries that see some of a tile. */
struct seen { size_t first, count; };

/* The softmax of a tile's scores. */
static void step_rows(const struct forward *f, struct rows *rows, struct seen seen, float *scores, float *factor)
{
    if (f->k->softmax_rows.fn) {
        f->k->softmax_rows.fn(scores + seen.first * ATTN_TILE, seen.count, rows->max + seen.first, rows->sum + seen.first,
                              factor + seen.first);
        return;
    }
    for (size_t i = seen.first; i < seen.first + seen.count; i++)
        factor[i] = f->k->softmax_step.fn(scores + i * ATTN_TILE, ATTN_TILE, &rows->max[i], &rows->sum[i]);
}

/* Positions ascend: the first tokens may stand before the tile, the last may have it behind their window. */
static struct seen rows_seeing(const struct attend_stage *s, const struct block *b, size_t tile)
{
    const size_t *pos = s->f->pos + b->first;
    size_t begin = 0, end = b->toks;
    while (begin < end && pos[begin] < tile)
        begin++;
    while (end > begin && first_seen(s->f, s->a->layer, pos[end - 1]) >= tile + ATTN_TILE)
        end--;
    return (struct seen){ .first = begin * s->group, .count = (end - begin) * s->group };
}

/* A tile's scores become its weights; rows->max and sum move on, factor[rows] is what the outputs so far must be multiplied by. */
static void weigh_tile(const struct attend_stage *s, const struct block *b, size_t tile, const float *q, float *scores,
                       struct rows *rows, float *factor)
{
    struct forward *f = s->f;
    const size_t *pos = f->pos + b->first;
    size_t kd = s->shape->key_dim, keys = keys_of(s, b, tile);
    struct seen seen = rows_seeing(s, b, tile);
    if (seen.count == 0)
        return;
    f->k->attn_scores[b->kv->type].fn(scores + seen.first * ATTN_TILE, q + seen.first * kd, kd, seen.count,
                                      kv_key(b->kv, s->shape, b->head, tile), s->shape->key_row, keys, kd,
                                      f->m->hyper.attn_scale);
    bool stand = scores_stand(s, pos[0], pos[b->toks - 1], tile);
    for (size_t i = seen.first; !stand && i < seen.first + seen.count; i++)
        shape_scores(s, scores + i * ATTN_TILE, keys, pos[i / s->group], tile, b->head * s->group + i % s->group);
    step_rows(f, rows, seen, scores, factor);
}

/* And the values by these weights. */
static void mix_tile(const struct attend_stage *s, const struct block *b, size_t tile, const float *scores, const float *factor,
                     float *out)
{
    size_t vd = s->shape->value_dim;
    struct seen seen = rows_seeing(s, b, tile);
    if (seen.count == 0)
        return;
    for (size_t i = seen.first; i < seen.first + seen.count; i++)
        if (factor[i] != 1)
            scale_row(out + i * vd, factor[i], vd);
    s->f->k->attn_mix[b->kv->type].fn(out + seen.first * vd, vd, scores + seen.first * ATTN_TILE, seen.count,
                                      kv_value(b->kv, s->shape, b->head, tile), s->shape->value_row, keys_of(s, b, tile), vd);
}

/* One head's row of keys or values, at `row`, from f32. */
static void store_row(const struct forward *f, const struct kv *kv, unsigned char *row, const float *x, size_t dim,
                      size_t row_bytes)
{
    if (kv->type == KV_F32)
        memcpy(row, x, row_bytes);
    else
        f->k->quantize[kv_format(kv->type)].fn(row, x, dim);
}

static void store_head(const struct forward *f, size_t index, size_t tok, size_t head, const float *k, const float *v)
{
    const struct kv *kv = f->parts[f->part_of[tok]].kv;
    const struct kv_layer *l = &kv->layer[index];
    size_t pos = f->pos[tok], place = pos % ATTN_TILE;
    if (kv->type == KV_I16) {
        f->k->attn_store_key.fn(kv_key(kv, l, head, pos - place), place, k, l->key_dim);
        f->k->attn_store_value.fn(kv_value(kv, l, head, pos - place), place, v, l->value_dim);
        return;
    }
    store_row(f, kv, kv_key(kv, l, head, pos), k, l->key_dim, l->key_row);
    if (v)
        store_row(f, kv, kv_value(kv, l, head, pos), v, l->value_dim, l->value_row);
}

void store_keys(const struct forward *f, size_t index, size_t tok, const float *k, size_t k_step, const float *v, size_t v_step)
{
    size_t heads = f->parts[f->part_of[tok]].kv->layer[index].heads;
    for (size_t head = 0; head < heads; head++)
        store_head(f, index, tok, head, k + head * k_step, v ? v + head * v_step : NULL);
}

/* The rows of the block's own tokens that lie in a span. */
static void store_block(const struct attend_stage *s, const struct block *b, size_t span)
{
    size_t heads = s->a->layer->kv_heads;
    for (size_t tok = b->first; tok < b->first + b->toks; tok++)
        if (s->f->pos[tok] / SPAN == span)
            store_head(s->f, s->a->index, tok, b->head, s->a->k + (tok * heads + b->head) * s->shape->key_dim,
                       s->a->v + (tok * heads + b->head) * s->shape->value_dim);
}

/* Tokens per block of queries. */
static size_t block_tokens(size_t group) { return QUERIES / group ? QUERIES / group : 1; }

bool attend_stores(const struct forward *f, const struct layer *l)
{
    for (size_t p = 0; p < f->part_count; p++)
        if (f->parts[p].count > block_tokens(group_of(l)))
            return false;
    return true;
}

/* All tiles of one span, from nothing. With few queries, which wait for memory, several tiles are weighed before their values are
 * mixed: keys and values are then longer streams, and a tile's scores are under way during the softmax of the one before. */
static void attend_span(const struct attend_stage *s, const struct block *b, size_t span, const float *q, float *scores,
                        struct rows *rows)
{
    struct forward *f = s->f;
    size_t n = b->toks * s->group, last = f->pos[b->first + b->toks - 1], most = tiles_at_once(n);
    size_t begin = span * SPAN, end = begin + SPAN < last + 1 ? begin + SPAN : last + 1;
    size_t seen = first_seen(f, s->a->layer, f->pos[b->first]);
    if (s->a->k)
        store_block(s, b, span);
    memset(rows->out, 0, n * s->shape->value_dim * sizeof *rows->out);
    for (size_t i = 0; i < n; i++) {
        rows->max[i] = -INFINITY;
        rows->sum[i] = 0;
    }
    if (seen > begin)
        begin = seen - seen % ATTN_TILE;
    for (size_t tile = begin; tile < end; tile += most * ATTN_TILE) {
        size_t tiles = (end - tile + ATTN_TILE - 1) / ATTN_TILE;
        tiles = tiles < most ? tiles : most;
        for (size_t i = 0; i < tiles; i++)
            weigh_tile(s, b, tile + i * ATTN_TILE, q, scores + i * n * ATTN_TILE, rows, rows->factor + i * n);
        for (size_t i = 0; i < tiles; i++)
            mix_tile(s, b, tile + i * ATTN_TILE, scores + i * n * ATTN_TILE, rows->factor + i * n, rows->out);
    }
}

/* (max, sum, out) of a row += those of the next span. */
static void merge_row(float *max, float *sum, float *out, float next_max, float next_sum, const float *next, size_t n)
{
    if (next_sum == 0)
        return;
    if (*sum == 0) {
        *max = next_max;
        *sum = next_sum;
        memcpy(out, next, n * sizeof *out);
        return;
    }
    float top = next_max > *max ? next_max : *max;
    float old = expf(*max - top), new = expf(next_max - top);
    *max = top;
    *sum = *sum * old + next_sum * new;
    for (size_t i = 0; i < n; i++)
        out[i] = out[i] * old + next[i] * new;
}

/* Divide by the sum, in which a sink takes part without a value. */
static void finish_row(const struct attend_stage *s, float *to, const float *out, float max, float sum, size_t head)
{
    float factor = 1 / sum;
    if (s->a->layer->sinks) {
        float sink = s->a->layer->sinks[head], top = sink > max ? sink : max;
        factor = expf(max - top) / (sum * expf(max - top) + expf(sink - top));
    }
    for (size_t i = 0; i < s->shape->value_dim; i++)
        to[i] = out[i] * factor;
}

/* The block's queries, row after row: token, then head of the group. */
static void gather_queries(const struct attend_stage *s, const struct block *b, float *q)
{
    const struct attention *a = s->a;
    for (size_t i = 0; i < b->toks * s->group; i++) {
        size_t tok = b->first + i / s->group, head = b->head * s->group + i % s->group;
        memcpy(q + i * s->shape->key_dim, a->q + tok * a->q_stride + head * a->head_step, s->shape->key_dim * sizeof *q);
        if (b->kv->type == KV_I16)
            s->f->k->attn_query.fn(q + i * s->shape->key_dim, s->shape->key_dim);
    }
}

static size_t blocks_of(const struct attend_stage *s, size_t part)
{
    return (s->f->parts[part].count + s->block - 1) / s->block;
}

/* Block number `index` of the batch: part by part, then blocks from the last (the longest) to the first, key heads innermost. */
static struct block find_block(const struct attend_stage *s, size_t index)
{
    struct forward *f = s->f;
    size_t heads = s->a->layer->kv_heads, part = 0;
    while (index >= blocks_of(s, part) * heads) {
        index -= blocks_of(s, part) * heads;
        part++;
    }
    size_t at = (blocks_of(s, part) - 1 - index / heads) * s->block, left = f->parts[part].count - at;
    return (struct block){ .kv = f->parts[part].kv, .first = f->first[part] + at, .toks = left < s->block ? left : s->block,
                           .head = index % heads };
}

/* Carve the thread's scratch: queries, scores, and two sets of rows. */
static float *carve_rows(struct rows *rows, float *at, size_t n, size_t value_dim)
{
    rows->out = at;
    rows->max = rows->out + n * value_dim;
    rows->sum = rows->max + n;
    rows->factor = rows->sum + n;
    return rows->factor + n * tiles_at_once(n);
}

static void attend_chunk(void *arg, size_t index, size_t thread)
{
    const struct attend_stage *s = arg;
    const struct attention *a = s->a;
    struct block b = find_block(s, index);
    struct rows span, all;
    size_t n = b.toks * s->group, vd = s->shape->value_dim;
    float *q = s->f->scratch[thread].attention, *scores = q + n * s->shape->key_dim;
    carve_rows(&all, carve_rows(&span, scores + n * tiles_at_once(n) * ATTN_TILE, n, vd), n, vd);
    gather_queries(s, &b, q);
    memset(all.sum, 0, n * sizeof *all.sum);
    size_t from = first_seen(s->f, a->layer, s->f->pos[b.first]) / SPAN, to = s->f->pos[b.first + b.toks - 1] / SPAN;
    for (size_t i = from; i <= to; i++) {
        attend_span(s, &b, i, q, scores, &span);
        for (size_t row = 0; row < n; row++)
            merge_row(&all.max[row], &all.sum[row], all.out + row * vd, span.max[row], span.sum[row], span.out + row * vd, vd);
    }
    for (size_t row = 0; row < n; row++) {
        size_t head = b.head * s->group + row % s->group;
        finish_row(s, a->out + (b.first + row / s->group) * a->out_stride + head * vd, all.out + row * vd, all.max[row],
                   all.sum[row], head);
    }
}

/* ---- cut at spans: the same sums, merged by whoever ends a block's last span -------------------------------------- */

/* max, sum and out of one row and span. */
static float *partial_row(const struct attend_stage *s, size_t tok, size_t head, size_t span)
{
    return s->f->partial + ((tok * s->a->layer->heads + head) * s->spans + span) * (s->shape->value_dim + 2);
}

/* All spans of a block's rows, in the order in which attend_chunk adds them. */
static void merge_block(const struct attend_stage *s, const struct block *b, size_t thread)
{
    size_t vd = s->shape->value_dim;
    float *out = s->f->scratch[thread].attention;
    for (size_t row = 0; row < b->toks * s->group; row++) {
        size_t tok = b->first + row / s->group, head = b->head * s->group + row % s->group;
        float max = 0, sum = 0;
        for (size_t span = 0; span < s->spans; span++) {
            const float *p = partial_row(s, tok, head, span);
            merge_row(&max, &sum, out, p[0], p[1], p + 2, vd);
        }
        finish_row(s, s->a->out + tok * s->a->out_stride + head * vd, out, max, sum, head);
    }
}

static void attend_unit(const struct attend_stage *s, size_t block, size_t span, size_t thread)
{
    struct block b = find_block(s, block);
    struct rows rows;
    size_t n = b.toks * s->group, vd = s->shape->value_dim;
    float *q = s->f->scratch[thread].attention, *scores = q + n * s->shape->key_dim;
    carve_rows(&rows, scores + n * tiles_at_once(n) * ATTN_TILE, n, vd);
    gather_queries(s, &b, q);
    attend_span(s, &b, span, q, scores, &rows);
    for (size_t row = 0; row < n; row++) {
        float *to = partial_row(s, b.first + row / s->group, b.head * s->group + row % s->group, span);
        to[0] = rows.max[row];
        to[1] = rows.sum[row];
        memcpy(to + 2, rows.out + row * vd, vd * sizeof *to);
    }
    if (atomic_fetch_sub_explicit(&s->f->spans_left[block], 1, memory_order_acq_rel) == 1)
        merge_block(s, &b, thread);
}

/* One call per thread. Heads follow each other as they lie in memory: a thread then reads its units as one stream, and what is
 * asked for beyond one unit's end is the next one's. */
static void span_chunk(void *arg, size_t index, size_t thread)
{
    const struct attend_stage *s = arg;
    size_t unit;
    (void)index;
    while (next_unit(s->f, thread, &unit))
        attend_unit(s, unit % s->blocks, unit / s->blocks, thread);
}

void attend(struct forward *f, const struct attention *a)
{
    struct attend_stage s = { .f = f, .a = a, .shape = &f->parts[0].kv->layer[a->index], .group = group_of(a->layer) };
    size_t longest = 0;
    s.block = block_tokens(s.group);
    for (size_t p = 0; p < f->part_count; p++) {
        size_t end = f->parts[p].kv->used + f->parts[p].count;
        longest = f->parts[p].count && end > longest ? end : longest;
        s.blocks += blocks_of(&s, p) * a->layer->kv_heads;
    }
    s.spans = (longest + SPAN - 1) / SPAN;
    if (s.spans > 1 && f->n <= SPLIT_TOKENS && s.blocks < 4 * f->threads && f->threads > 1) {
        for (size_t i = 0; i < s.blocks; i++)
            atomic_store_explicit(&f->spans_left[i], (unsigned)s.spans, memory_order_relaxed);
        share_units(f, s.blocks * s.spans);
        pool_run(f->pool, span_chunk, &s, f->threads);
    } else {
        pool_run(f->pool, attend_chunk, &s, s.blocks);
    }
}
