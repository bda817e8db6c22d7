#include "adaptive.h"

#include <stdio.h>
#include <string.h>

#include "imprint.h"

enum { CHUNK = 256 };

static size_t clamp(double x, size_t low, size_t high)
{
    return x < (double)low ? low : x > (double)high ? high : (size_t)x;
}

struct work { size_t gather_tokens, chunk, anchor_chunks, search_chunks, trials, fed; };

/* What is looked at of a model with so many tensors to decide about. Small models get as much as the text has. A 1B model of 113
 * tensors gets 4k tokens of importances, 512 per anchor and 1280 for each of 27 trials, which is a quarter of an hour on four
 * cores. That few tokens will do: KL of a position varies about twice as much as its mean, so 384 positions know an anchor to a
 * tenth, and the plan is asked for four tenths. */
static struct work work_for(const struct quern_model *source, size_t tensors)
{
    double parameters = (double)source->model.parameters + 1;
    size_t row = source->model.hyper.vocab * sizeof(float) * measure_scored(CHUNK);
    struct work w = { .chunk = CHUNK };
    w.gather_tokens = clamp(0x1p42 / parameters, 4096, 32768);
    w.anchor_chunks = clamp(0x1p46 / parameters / (double)(tensors + 1) / CHUNK, 2, 8);
    w.search_chunks = clamp(0x1p42 / parameters / CHUNK, 8, 32);
    w.trials = clamp(0x1p35 / parameters, 24, 80);
    /* Error feedback costs inputs times values: little beside measuring in small models, several times as much in large ones. */
    w.fed = parameters < 0x1p27 ? 0 : 3;
    /* The teacher's probabilities: at most 512 MiB. */
    size_t most = ((size_t)512 << 20) / row;
    w.anchor_chunks = w.anchor_chunks > most ? (most ? most : 1) : w.anchor_chunks;
    w.search_chunks = w.search_chunks > most ? (most ? most : 1) : w.search_chunks;
    return w;
}

/* Bytes of second moments: one triangle for each input (k, v and gate share those of q and up) and its held-out vectors. */
static size_t moments_bytes(const struct gguf *g)
{
    static const char *const shared[] = { "attn_k.", "attn_v.", "ffn_gate", "_embd." };
    double bytes = 0;
    for (size_t i = 0; i < g->tensor_count; i++) {
        const struct gguf_tensor *t = &g->tensors[i];
        bool counts = preset_may_round(t);
        for (size_t k = 0; k < sizeof shared / sizeof *shared; k++)
            counts = counts && !memmem(t->name.text, t->name.n, shared[k], strlen(shared[k]));
        if (counts)
            bytes += (double)t->shape[0] * ((double)t->shape[0] + 1) * 2 * (double)t->shape[2] + 4096.0 * (double)t->shape[0];
    }
    return bytes < 0x1p62 ? (size_t)bytes : SIZE_MAX;
}

size_t adaptive_disk(const struct quern_model *source, bool search, bool moments)
{
    struct work work = work_for(source, source->gguf.tensor_count);
    size_t journal = search ? (work.trials + 2) * work.search_chunks * work.chunk * sizeof(double) : 0;
    return journal + (moments ? moments_bytes(&source->gguf) : 0);
}

struct shower { const struct adaptive_options *o; const char *what; };

static void show_share(void *arg, double share)
{
    const struct shower *s = arg;
    if (s->o->show)
        s->o->show(s->o->show_arg, s->what, share);
}

/* Counts of what the journal holds of an importance matrix; its record is the last of them. */
struct kept_counts { uint64_t count; uint32_t chunks, chunk_size; };

static bool keep_importances(struct journal *j, const struct imatrix *m, struct quern_error *err)
{
    struct kept_counts counts = { m->count, m->chunks, m->chunk_size };
    char name[160];
    for (size_t i = 0; j && i < m->count; i++) {
        const struct imatrix_entry *e = &m->entries[i];
        snprintf(name, sizeof name, "importance %.120s", e->name);
        if (!journal_add(j, name, e->mean, e->inputs * e->experts * sizeof *e->mean, err))
            return false;
        snprintf(name, sizeof name, "seen %.120s", e->name);
        if (!journal_add(j, name, e->tokens, e->experts * sizeof *e->tokens, err))
            return false;
    }
    return journal_add(j, "importances", &counts, sizeof counts, err);
}

/* *found: the matrix is there, as importance_gather made it. */
static bool find_importances(struct imatrix *m, struct journal *j, const struct gguf *g, const char *dataset, bool *found,
                             struct quern_error *err)
{
    struct kept_counts counts;
    *m = (struct imatrix){ 0 };
    if (!(*found = journal_find(j, "importances", &counts, sizeof counts)))
        return true;
    arena_init(&m->arena, 0);
    m->entries = arena_take(&m->arena, g->tensor_count, sizeof *m->entries, "importances", err);
    m->dataset = m->entries ? arena_text(&m->arena, dataset, strlen(dataset), err) : NULL;
    bool ok = m->dataset != NULL;
    for (size_t i = 0; ok && i < g->tensor_count; i++) {
        const struct gguf_tensor *t = &g->tensors[i];
        struct imatrix_entry *e = &m->entries[m->count];
        char name[160];
        *e = (struct imatrix_entry){ .inputs = t->shape[0], .experts = t->shape[2] };
        e->tokens = arena_take(&m->arena, e->experts, sizeof *e->tokens, "importances", err);
        snprintf(name, sizeof name, "seen %.*s", (int)(t->name.n < 120 ? t->name.n : 120), t->name.text);
        if (!(ok = e->tokens != NULL) || !journal_find(j, name, e->tokens, e->experts * sizeof *e->tokens))
            continue;
        e->name = arena_text(&m->arena, t->name.text, t->name.n, err);
        e->mean = e->name ? arena_take(&m->arena, e->inputs * e->experts, sizeof *e->mean, "importances", err) : NULL;
        if (!(ok = e->mean != NULL))
            break;
        snprintf(name, sizeof name, "importance %.120s", e->name);
        m->count += journal_find(j, name, e->mean, e->inputs * e->experts * sizeof *e->mean);
    }
    if (ok)
        imatrix_sort(m);
    m->chunks = counts.chunks, m->chunk_size = counts.chunk_size;
    *found = ok && m->count == counts.count;
    if (!*found)
        imatrix_close(m);
    return ok;
}

bool adaptive_gather(struct imatrix *out, const struct quern_model *source, struct pool *pool, const volatile int *stop,
                     const struct adaptive_options *o, struct quern_error *err)
{
    struct calibration text;
    struct shower shower = { o, "importances" };
    struct work work = work_for(source, 1);
    struct importance_options options = { .fisher = o->fisher, .tokens = work.gather_tokens, .mem_limit = o->mem_limit,
                                          .pool = pool, .stop = stop,
                                          .show = show_share, .show_arg = &shower };
    if (!calibration_open(&text, o->calibration, CALIBRATION_FIT, source, CHUNK, err))
        return false;
    bool found, ok = find_importances(out, o->journal, &source->gguf, text.name, &found, err);
    if (ok && !found && (ok = importance_gather(out, source, &text, &options, err)) && !keep_importances(o->journal, out, err)) {
        imatrix_close(out);
        ok = false;
    }
    calibration_close(&text);
    return ok;
}

bool adaptive_imprint(const char *path, const struct quern_model *source, size_t mem_limit, struct pool *pool,
                      const volatile int *stop, const struct adaptive_options *o, struct quern_error *err)
{
    struct imprint_options options = { .calibration = o->calibration, .fisher = o->guided, .mem_limit = mem_limit, .force = true,
                                       .pool = pool, .stop = stop, .show = o->show, .show_arg = o->show_arg };
    return imprint_write(source, path, &options, err);
}

bool adaptive_memory(size_t *out, const struct quern_model *source, const struct plan *p, size_t budget, bool gather,
                     struct pool *pool, const struct adaptive_options *o, struct quern_error *err)
{
    struct work work = work_for(source, p->count);
    size_t passes = 0, anchors = 0, trials = 0, largest = plan_largest(p);
    if ((gather && !importance_bytes(&passes, source, work.chunk, o->fisher, pool, err)) ||
        !measure_bytes(&anchors, source, work.chunk, work.anchor_chunks, pool_threads(pool), err) ||
        (o->search && !measure_bytes(&trials, source, work.chunk, work.search_chunks, pool_threads(pool), err)))
        return false;
    anchors += largest;
    trials += o->search ? budget + 2 * largest : 0;
    *out = passes > anchors ? passes : anchors;
    *out = trials > *out ? trials : *out;
    return true;
}

/* Measuring holds the source's probabilities, what its layers read, a pass and the tensors that stand in for the source's: one, or
 * with the search all that are chosen. Under a limit fewer chunks are looked at, down to one. */
static bool fit_chunks(size_t *chunks, const struct quern_model *source, size_t chunk, size_t fixed,
                       const struct adaptive_options *o, struct pool *pool, struct quern_error *err)
{
    for (size_t needed;; --*chunks) {
        if (!measure_bytes(&needed, source, chunk, *chunks, pool_threads(pool), err))
            return false;
        if (fixed <= o->mem_limit && needed <= o->mem_limit - fixed)
            return true;
        if (*chunks <= 1)
            return ERR(err, QUERN_EMEM, "planning takes at least %zu bytes, the limit is %zu%s", fixed + needed, o->mem_limit,
                       o->search ? " (less with --no-search)" : "");
    }
}

static bool fit_memory(struct plan_options *options, const struct plan *p, const struct quern_model *source, size_t chunk,
                       const struct adaptive_options *o, struct pool *pool, struct quern_error *err)
{
    size_t largest = plan_largest(p);
    return !o->mem_limit ||
           (fit_chunks(&options->chunks, source, chunk, largest, o, pool, err) &&
            (!o->search || fit_chunks(&options->search_chunks, source, chunk, options->budget + 2 * largest, o, pool, err)));
}

bool adaptive_plan(struct plan *p, const struct quantize_job *job, const struct quern_model *source, size_t budget, bool measure,
                   const struct adaptive_options *o, struct quern_error *err)
{
    struct calibration text;
    struct work work = work_for(source, p->count);
    struct plan_options options = { .budget = budget, .chunks = work.anchor_chunks, .search_chunks = work.search_chunks,
                                    .trials = work.trials, .fed = work.fed, .journal = o->journal,
                                    .show = o->show, .show_arg = o->show_arg };
    if (!calibration_open(&text, o->calibration, CALIBRATION_FIT, source, work.chunk, err))
        return false;
    bool ok = fit_memory(&options, p, source, work.chunk, o, job->pool, err) &&
              (!measure || plan_measure(p, job, source, &text, &options, err)) && plan_allocate(p, budget, err) &&
              (!o->search || plan_search(p, job, source, &text, &options, err));
    calibration_close(&text);
    return ok;
}
