#include "refine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Share of the mean diagonal that is added to the diagonal. With fewer than TOKENS_EACH tokens per input the moments are noisy and
 * the share grows in proportion; with fewer than one token per input they have no full rank and the tensor is left alone. */
static const double DAMPING = 0.01;
enum { TOKENS_EACH = 4 };
/* The same for an embedding that is the output matrix, too. As output its errors count as the second moments say, but as embedding
 * its rows are read one by one, and carrying makes their errors longer: with a share of 0.01 the KL of tiny-books' embedding alone
 * was 1.09 and 1.14 times that of the search at 3.4 and 5.5 bits, with 3 it was 0.89 and 0.98, with 30 0.97 and 0.81. */
static const double DAMPING_TIED = 10;

bool refine_open(struct refine *r, const char *path, const struct gguf *model, const struct kernels *kernels, struct pool *pool,
                 const struct refine_options *options, struct quern_error *err)
{
    *r = (struct refine){ .options = *options };
    return stats_open(&r->stats, path, model, kernels, pool, err);
}

void refine_close(struct refine *r)
{
    feedback_free(&r->factor);
    stats_close(&r->stats);
    *r = (struct refine){ 0 };
}

size_t refine_memory(size_t n, size_t rows, size_t row_bytes)
{
    /* While the factor is made: moments as read and as kept, of both texts, the factor, and two matrices of doubles. */
    double square = (double)n * (double)n * (5 * sizeof(float) + 2 * sizeof(double));
    double batch = (double)rows * ((double)n * sizeof(float) + FEEDBACK_WAYS * (double)row_bytes);
    double sum = square + batch;
    return sum < 0x1p62 ? (size_t)sum : SIZE_MAX;
}

/* The factor at hand belongs to these moments: q, k and v have the same inputs. */
static bool same_moments(const struct refine *r, const float *h, const float *held, size_t n, size_t group)
{
    const struct feedback *f = &r->factor;
    if (f->n != n || r->group != group || !f->held != !held)
        return false;
    for (size_t i = 0; i < n; i++) {
        size_t above = i + 1;      /* the diagonal of f->h is damped; f->importance is what it was */
        bool same = memcmp(&f->importance[i], &h[i * n + i], sizeof *h) == 0 &&
                    memcmp(f->h + i * f->stride, h + i * n, i * sizeof *h) == 0 &&
                    memcmp(f->h + i * f->stride + above, h + i * n + above, (n - above) * sizeof *h) == 0 &&
                    (!held || memcmp(f->held + i * f->stride, held + i * n, n * sizeof *held) == 0);
        if (!same)
            return false;
    }
    return true;
}

static size_t dead_inputs(const float *h, size_t n)
{
    size_t dead = 0;
    for (size_t i = 0; i < n; i++)
        dead += !(h[i * n + i] > 0);
    return dead;
}

/* The factor of h, unless it is at hand already. */
static bool make_factor(struct refine *r, const float *h, const float *held, size_t n, size_t group, double damping,
                        struct pool *pool, struct refine_note *note, struct quern_error *err)
{
    double wanted = TOKENS_EACH * (double)n / (double)note->tokens;
    note->dead = dead_inputs(h, n);
    note->outcome = REFINE_DONE;
    if (note->dead == n)
        note->outcome = REFINE_UNSEEN;
    if (note->dead == n || (same_moments(r, h, held, n, group) && r->tokens == note->tokens))
        return true;
    feedback_free(&r->factor);
    if (feedback_init(&r->factor, h, held, n, group, wanted > 1 ? damping * wanted : damping, pool, err)) {
        r->group = group, r->tokens = note->tokens;
        return true;
    }
    note->outcome = REFINE_SINGULAR;
    return err->code != QUERN_EMEM;
}

bool refine_begin(struct refine *r, struct gguf_string name, size_t expert, size_t n, uint32_t format, size_t memory,
                  struct pool *pool, struct refine_note *note, struct quern_error *err)
{
    size_t group = feedback_group(format), square;
    *note = (struct refine_note){ .outcome = REFINE_TYPE };
    if (!feedback_supports(format))
        return true;
    note->outcome = REFINE_UNSEEN;
    note->tokens = (size_t)stats_tokens(&r->stats, name, expert, STATS_FIT);
    if (note->tokens == 0)
        return true;
    note->outcome = REFINE_FEW_TOKENS;
    if (note->tokens < n)
        return true;
    note->outcome = REFINE_MEMORY;
    if ((r->options.mem_limit && memory > r->options.mem_limit) || !checked_mul(&square, n, n))
        return true;
    bool guided = r->options.guided && r->stats.guided, judged = stats_tokens(&r->stats, name, expert, STATS_HELD) > 0;
    float *h = mem_take_aligned(square, sizeof *h, "second moments", err);
    float *held = h && judged ? mem_take_aligned(square, sizeof *held, "second moments", err) : NULL;
    bool ok = h && (held || !judged);
    if (ok && !stats_hessian(&r->stats, name, expert, STATS_FIT, guided, h, n))
        note->outcome = REFINE_UNSEEN;
    else if (ok)
        ok = make_factor(r, h, held && stats_hessian(&r->stats, name, expert, STATS_HELD, guided, held, n) ? held : NULL, n, group,
                         gguf_string_is(name, "token_embd.weight") ? DAMPING_TIED : DAMPING, pool, note, err);
    note->damping = note->outcome == REFINE_DONE ? r->factor.damping : 0;
    free(h);
    free(held);
    return ok;
}

bool refine_rows(struct refine *r, const struct rounding *rounding, uint32_t format, void *out, const float *w, size_t rows,
                 enum rounding_weights rule, struct pool *pool, struct refine_note *note, struct quern_error *err)
{
    struct feedback_result result;
    if (!feedback_round(&r->factor, rounding, format, out, w, rows, FEEDBACK_DESCENT, rule, pool, &result, err))
        return false;
    note->search += result.held[FEEDBACK_SEARCH];
    note->kept += result.held[result.kept];
    return true;
}

void refine_add(struct refine_note *all, const struct refine_note *note, size_t e)
{
    enum refine_outcome outcome = note->outcome;
    if (outcome == REFINE_DONE && !(note->kept < note->search))
        outcome = REFINE_SEARCH_BETTER;
    if (e == 0)
        *all = (struct refine_note){ .outcome = REFINE_NONE, .tokens = note->tokens };
    all->tokens = note->tokens < all->tokens ? note->tokens : all->tokens;
    all->dead += note->dead;
    all->damping = note->damping > all->damping ? note->damping : all->damping;
    all->search += note->search, all->kept += note->kept;
    all->experts++;
    bool fell = outcome != REFINE_DONE && outcome != REFINE_SEARCH_BETTER;
    /* One part without is worth telling, whatever became of the others. */
    if (outcome != REFINE_DONE && (all->without++ == 0 || (fell && all->outcome == REFINE_SEARCH_BETTER)))
        all->outcome = outcome;
    if (fell && e < REFINE_EXPERTS)
        all->fell[e / 64] |= (uint64_t)1 << e % 64;
    if (all->without == 0)
        all->outcome = REFINE_DONE;
}

static bool fell_back(const struct refine_note *note, size_t e)
{
    return e < note->experts && e < REFINE_EXPERTS && (note->fell[e / 64] >> e % 64 & 1);
}

void refine_experts(char *out, size_t size, const struct refine_note *note)
{
    size_t used = 0;
    *out = 0;
    if (note->experts < 2)
        return;
    for (size_t e = 0, last; e < note->experts; e = last + 1) {
        char run[64];
        last = e;
        if (!fell_back(note, e))
            continue;
        while (fell_back(note, last + 1))
            last++;
        snprintf(run, sizeof run, last > e ? "%s%zu to %zu" : "%s%zu", used ? ", " : "experts ", e, last);
        if (used + strlen(run) + sizeof ", ..." > size) {
            if (used)
                memcpy(out + used, ", ...", sizeof ", ...");
            return;
        }
        memcpy(out + used, run, strlen(run) + 1);
        used += strlen(run);
    }
}

const char *refine_reason(enum refine_outcome outcome)
{
    static const char *const reasons[REFINE_OUTCOMES] = {
        "no feedback asked for", "error feedback", "the search alone is better on held-out text", "a type without feedback",
        "no second moments of its inputs", "fewer tokens seen than it has inputs", "second moments are singular or not finite",
        "more memory than the limit",
    };
    return reasons[outcome];
}
