/* Scoring of choices by the probability that the model gives them: see choices_score.h.
 *
 * The choices of an item share its context, often hundreds of tokens: it is computed once, and the session goes back to its end
 * for each choice. */
#include "choices_score.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "log_sum.h"

/* Logits of one pass are held for at most so many bytes. */
enum { LOGITS_BYTES = 64 << 20 };

/* ---- tokens of an item ---------------------------------------------------------------------------------------------- */

struct sequence {
    int32_t *tokens;
    size_t   count, start;       /* tokens [start, count) are scored; start >= 1 */
};

struct item_tokens {
    struct sequence choice[CHOICES_MOST];
    size_t          count, longest;
};

static void free_tokens(struct item_tokens *t)
{
    for (size_t i = 0; i < t->count; i++)
        free(t->choice[i].tokens);
    t->count = 0;
}

/* Tokens of lead + context + blank + choice behind the beginning token. */
static bool encode_choice(struct sequence *out, const struct choice_item *item, const struct choice *c, const struct tokenizer *t,
                          struct quern_error *err)
{
    size_t before = item->lead_n + c->context_n, bos = tokenizer_adds_bos(t) && tokenizer_bos(t) >= 0, all, only = 0;
    int32_t *ids = NULL, *context = NULL;
    char *text = mem_take(before + 1 + c->text_n, 1, "a prompt", err);
    if (!text)
        return false;
    memcpy(text, item->lead, item->lead_n);
    memcpy(text + item->lead_n, c->context, c->context_n);
    text[before] = ' ';
    memcpy(text + before + 1, c->text, c->text_n);
    /* The context is tokenized without its last blanks, for only its length in tokens counts: BPE puts a blank into the token
     * of the word behind it, and those tokens belong to the choice. */
    while (before && strchr(" \t\r\n", text[before - 1]) && text[before - 1])
        before--;
    bool ok = tokenizer_encode(t, text, item->lead_n + c->context_n + 1 + c->text_n, 0, &ids, &all, err) &&
              tokenizer_encode(t, text, before, 0, &context, &only, err);
    free(context);
    free(text);
    if (ok && bos + all < 2)
        ok = ERR(err, QUERN_EFORMAT, "the text has %zu tokens, 2 are needed", bos + all);
    if (ok && (out->tokens = mem_take(bos + all, sizeof *out->tokens, "tokens", err)) == NULL)
        ok = false;
    if (ok) {
        out->tokens[0] = tokenizer_bos(t);
        memcpy(out->tokens + bos, ids, all * sizeof *ids);
        out->count = bos + all;
        out->start = bos + (only < all ? only : all - 1);
        out->start += out->start == 0;
    }
    free(ids);
    return ok;
}

static bool encode_item(struct item_tokens *out, const struct choice_item *item, const struct tokenizer *t, struct quern_error *err)
{
    out->longest = 0;
    for (out->count = 0; out->count < item->count; out->count++) {
        struct sequence *s = &out->choice[out->count];
        if (!encode_choice(s, item, &item->choices[out->count], t, err)) {
            free_tokens(out);
            return false;
        }
        out->longest = s->count > out->longest ? s->count : out->longest;
    }
    return true;
}

/* Drop tokens behind the first `keep` until there are `limit`. False when the scored ones do not fit. */
static bool cut_left(struct sequence *s, size_t limit, size_t keep)
{
    if (s->count <= limit)
        return true;
    size_t drop = s->count - limit;
    if (drop + (keep ? keep : 1) > s->start)
        return false;
    memmove(s->tokens + keep, s->tokens + keep + drop, (s->count - keep - drop) * sizeof *s->tokens);
    s->count -= drop;
    s->start -= drop;
    return true;
}

static size_t limit_of(const struct quern_model *model, const struct choice_run *run)
{
    return run->context ? run->context : model->model.hyper.context;
}

bool choices_measure(const struct choice_set *set, const struct quern_model *model, const struct choice_run *run, size_t *longest,
                     size_t *cut, struct quern_error *err)
{
    size_t limit = limit_of(model, run);
    struct item_tokens t;
    char place[500];
    *longest = *cut = 0;
    for (size_t i = 0; i < set->count; i++) {
        choices_place(place, sizeof place, set, &set->items[i]);
        if (run->stop && *run->stop)
            return ERR(err, QUERN_EINTERRUPT, "interrupted");
        if (!encode_item(&t, &set->items[i], model->tokenizer, err))
            return error_prefix(err, place);
        free_tokens(&t);
        if (t.longest > limit && !run->cut)
            return ERR(err, QUERN_ELIMIT, "%s: the item has %zu tokens, the context holds %zu (--on-overflow cut drops the begin)",
                       place, t.longest, limit);
        *cut += t.longest > limit;
        *longest = t.longest > *longest ? t.longest : *longest;
    }
    if (*longest > limit)
        *longest = limit;
    return true;
}

/* ---- log-probabilities ---------------------------------------------------------------------------------------------- */

/* A session with room for the logits of many tokens at once: they are normalised in parallel, a row per thread. */
struct scorer {
    struct quern_session *session;
    size_t  vocab, rows;
    float  *logits;              /* [rows][vocab] */
    double *sums;                /* [rows]: log of the sum of exponentials */
    size_t *tops;                /* [rows] */
};

static void normalize_row(void *arg, size_t index, size_t thread)
{
    struct scorer *s = arg;
    (void)thread;
    s->sums[index] = log_sum(s->logits + index * s->vocab, s->vocab, &s->tops[index]);
}

/* Rows of the logits after the tokens from `first` on: add what they say to the choices [begin, end). */
static void count_rows(struct scorer *s, size_t first, size_t n, const struct item_tokens *t, size_t begin, size_t end,
                     struct choice_score *scores)
{
    pool_run(s->session->pool, normalize_row, s, n);
    for (size_t row = 0; row < n; row++)
        for (size_t c = begin; c < end; c++) {
            size_t next = first + row + 1;
            if (next < t->choice[c].start || next >= t->choice[c].count)
                continue;
            size_t token = (size_t)t->choice[c].tokens[next];
            scores[c].log_p += s->logits[row * s->vocab + token] - s->sums[row];
            scores[c].greedy &= s->tops[row] == token;
            scores[c].tokens++;
        }
}

/* Make the session hold tokens [0, to) of choice `begin`, reading the logits after each from `first` on for the choices
 * [begin, end), which are alike up to there. */
static bool feed(struct scorer *s, const struct item_tokens *t, size_t begin, size_t end, size_t first, size_t to,
                 struct choice_score *scores, struct quern_error *err)
{
    const int32_t *tokens = t->choice[begin].tokens, *held;
    size_t used = quern_session_tokens(s->session, &held), same = 0;
    while (same < used && same < to && same < first && held[same] == tokens[same])
        same++;
    if (same < used && s->session->kv.recurrent)
        same = 0;
    if (!quern_rewind_session(s->session, same, err))
        return false;
    size_t quiet = first < to ? first : to;
    if (same < quiet && !session_score(s->session, tokens + same, quiet - same, 0, s->logits, err))
        return false;
    for (size_t at = quiet, n; at < to; at += n) {
        n = to - at < s->rows ? to - at : s->rows;
        if (!session_score(s->session, tokens + at, n, n, s->logits, err))
            return false;
        count_rows(s, at, n, t, begin, end, scores);
    }
    return true;
}

/* All choices of an item. What they begin with alike is computed once, the rest choice by choice. */
static bool score_item(struct scorer *s, const struct item_tokens *t, struct choice_score *scores, struct quern_error *err)
{
    size_t alike = t->choice[0].count - 1, start = t->choice[0].start;
    for (size_t c = 0; c < t->count; c++) {
        const struct sequence *q = &t->choice[c];
        size_t most = alike < q->count - 1 ? alike : q->count - 1;
        for (alike = 0; alike < most && q->tokens[alike] == t->choice[0].tokens[alike];)
            alike++;
        start = q->start < start ? q->start : start;
        scores[c] = (struct choice_score){.greedy = true};
    }
    if (alike && !feed(s, t, 0, t->count, start - 1, alike, scores, err))
        return false;
    for (size_t c = 0; c < t->count; c++) {
        const struct sequence *q = &t->choice[c];
        size_t first = q->start - 1 > alike ? q->start - 1 : alike;
        if (first < q->count - 1 && !feed(s, t, c, c + 1, first, q->count - 1, scores, err))
            return false;
    }
    return true;
}

/* Three rules at once, since the literature has all of them: the sum favours short choices; per byte does not depend on the
 * tokenizer; per token is what llama.cpp's HellaSwag does. At a tie the first choice wins, as an argmax does. */
static void decide(struct choice_answer *answer, const struct choice_item *item, const struct choice_score *scores)
{
    double best[CHOICE_RULES];
    *answer = (struct choice_answer){.log_p = scores[item->gold].log_p};
    for (size_t c = 0; c < item->count; c++) {
        double values[CHOICE_RULES] = {
            [CHOICE_SUM] = scores[c].log_p, [CHOICE_PER_BYTE] = scores[c].log_p / (double)item->choices[c].text_n,
            [CHOICE_PER_TOKEN] = scores[c].log_p / (double)scores[c].tokens};
        for (size_t rule = 0; rule < CHOICE_RULES; rule++)
            if (c == 0 || values[rule] > best[rule]) {
                best[rule] = values[rule];
                answer->pick[rule] = (uint8_t)c;
            }
    }
    if (item->count == 1)
        memset(answer->pick, !scores[0].greedy, sizeof answer->pick);
}

/* ---- all items ------------------------------------------------------------------------------------------------------ */

static size_t rows_of(const struct quern_model *model, size_t batch)
{
    size_t row = model->model.hyper.vocab * sizeof(float), rows = row < LOGITS_BYTES ? LOGITS_BYTES / row : 1;
    return rows < batch ? rows : batch;
}

static struct quern_session_options session_of(const struct quern_model *model, const struct choice_run *run, size_t longest)
{
    struct quern_session_options o = {.context = longest, .batch = run->batch, .kv = run->kv, .stop = run->stop};
    session_defaults(model, &o);
    return o;
}

bool choices_bytes(size_t *cache, size_t *scratch, const struct quern_model *model, const struct choice_run *run, size_t longest,
                   struct quern_error *err)
{
    struct quern_session_options o = session_of(model, run, longest);
    size_t rows = rows_of(model, o.batch), more;
    if (!quern_plan_session(model, &o, cache, scratch, err))
        return false;
    return (checked_mul(&more, rows, model->model.hyper.vocab * sizeof(float) + sizeof(double) + sizeof(size_t)) &&
            checked_add(scratch, *scratch, more)) ||
           ERR(err, QUERN_EMEM, "%zu rows of logits are larger than the address space", rows);
}

static bool answer_item(struct scorer *s, const struct choice_item *item, const struct choice_run *run,
                        struct choice_answer *answer, struct choice_score *scores, struct quern_error *err)
{
    const struct tokenizer *tokenizer = s->session->model->tokenizer;
    size_t limit = limit_of(s->session->model, run), bos = tokenizer_adds_bos(tokenizer) && tokenizer_bos(tokenizer) >= 0;
    struct item_tokens t;
    bool ok = encode_item(&t, item, tokenizer, err);
    if (!ok)
        return false;
    for (size_t c = 0; ok && run->cut && c < t.count; c++)
        ok = cut_left(&t.choice[c], limit, bos) ||
             ERR(err, QUERN_ELIMIT, "choice %zu alone has %zu tokens, the context holds %zu", c + 1,
                 t.choice[c].count - t.choice[c].start, limit);
    ok = ok && score_item(s, &t, scores, err);
    free_tokens(&t);
    if (ok)
        decide(answer, item, scores);
    return ok;
}

static bool answer_all(struct scorer *s, struct choice_answer *answers, struct choice_score (*scores)[CHOICES_MOST],
                       const struct choice_set *set, const struct choice_run *run, struct quern_error *err)
{
    struct choice_score own[CHOICES_MOST];
    char place[500];
    for (size_t i = 0; i < set->count; i++) {
        if (!answer_item(s, &set->items[i], run, &answers[i], scores ? scores[i] : own, err))
            return error_prefix(err, choices_place(place, sizeof place, set, &set->items[i]));
        if (run->progress)
            run->progress(run->progress_arg, (double)(i + 1) / (double)set->count);
    }
    return true;
}

bool choices_answer(struct choice_answer *answers, struct choice_score (*scores)[CHOICES_MOST], const struct choice_set *set,
                    struct quern_model *model, const struct choice_run *run, size_t longest, struct quern_error *err)
{
    struct quern_session_options o = session_of(model, run, longest);
    struct scorer s = {.vocab = model->model.hyper.vocab, .rows = rows_of(model, o.batch)};
    bool ok = (s.session = quern_open_session(model, &o, err)) != NULL &&
              (s.logits = mem_take_aligned(s.rows * s.vocab, sizeof *s.logits, "logits", err)) != NULL &&
              (s.sums = mem_take(s.rows, sizeof *s.sums, "results", err)) != NULL &&
              (s.tops = mem_take(s.rows, sizeof *s.tops, "results", err)) != NULL && answer_all(&s, answers, scores, set, run, err);
    quern_close_session(s.session);
    free(s.logits);
    free(s.sums);
    free(s.tops);
    return ok;
}

void choices_sum(struct choice_sum *out, const struct choice_set *set, const struct choice_answer *answers, size_t group)
{
    double log_p = 0, squares = 0;
    *out = (struct choice_sum){0};
    for (size_t i = 0; i < set->count; i++) {
        const struct choice_item *item = &set->items[i];
        if (group != SIZE_MAX && item->group != group)
            continue;
        out->items++;
        for (size_t rule = 0; rule < CHOICE_RULES; rule++)
            out->accuracy[rule] += answers[i].pick[rule] == item->gold;
        out->chance += item->count > 1 ? 1 / (double)item->count : 0;
        log_p += answers[i].log_p;
    }
    /* The standard error of a mean of n zeros and ones, with n - 1 for the estimated mean. */
    double n = (double)out->items;
    if (out->items == 0)
        return;
    for (size_t rule = 0; rule < CHOICE_RULES; rule++) {
        out->accuracy[rule] /= n;
        out->error[rule] = out->items > 1 ? sqrt(out->accuracy[rule] * (1 - out->accuracy[rule]) / (n - 1)) : 0;
    }
    out->chance /= n;
    for (size_t i = 0; i < set->count; i++)
        if (group == SIZE_MAX || set->items[i].group == group)
            squares += (answers[i].log_p - log_p / n) * (answers[i].log_p - log_p / n);
    out->perplexity = exp(-log_p / n);
    out->perplexity_error = out->items > 1 ? out->perplexity * sqrt(squares / n / (n - 1)) : 0;
}
