/* choices_score.h - how a model answers a set of questions (choices.h).
 *
 * Context and choice, with one blank between, are tokenized as one text; the tokens after as many as the context alone has (without
 * its trailing blanks) are scored, at least the last one. The beginning token stands first where the model has that habit, never
 * else; an end token never stands. Those are lm-evaluation-harness' rules. An item's choices share the computation of the tokens in
 * which they begin alike, and with those of the item before; recurrent states cannot be cut back, there each choice starts anew. */
#ifndef QUERN_CHOICES_SCORE_H
#define QUERN_CHOICES_SCORE_H

#include "choices.h"
#include "session.h"

struct choice_run {
    size_t        context;       /* tokens that the longest item may have; 0: the model's trained context */
    size_t        batch;         /* tokens per pass; 0: 512                                               */
    enum quern_kv kv;
    bool          cut;           /* longer ones lose the begin of their context (not the beginning token) */
    const volatile int *stop;    /* may be NULL                                                           */
    void        (*progress)(void *arg, double share);    /* may be NULL                                   */
    void         *progress_arg;
};

/* The three ways in which choices of different lengths are compared. */
enum choice_rule { CHOICE_SUM, CHOICE_PER_BYTE, CHOICE_PER_TOKEN, CHOICE_RULES };

struct choice_answer {
    uint8_t pick[CHOICE_RULES];  /* the most likely choice; LAMBADA: 0 when each token was the most likely one, else 1 */
    double  log_p;               /* of the right choice, nats                                              */
};

/* One choice's figures. */
struct choice_score {
    double log_p;                /* nats                                        */
    size_t tokens;               /* scored                                      */
    bool   greedy;               /* each of them was the most likely one        */
};

/* Tokens of the longest item with this model, at most the run's limit; and how many items lie above that. QUERN_ELIMIT, naming the
 * item, when there is one and they are not to be cut. */
bool choices_measure(const struct choice_set *set, const struct quern_model *model, const struct choice_run *run, size_t *longest,
                     size_t *cut, struct quern_error *err);
/* Cache and scratch that choices_answer takes for items of `longest` tokens. */
bool choices_bytes(size_t *cache, size_t *scratch, const struct quern_model *model, const struct choice_run *run, size_t longest,
                   struct quern_error *err);
/* Ask the model everything. `longest` from choices_measure; out: answers [set->count]; scores, unless NULL: [set->count]
 * [CHOICES_MOST]. */
bool choices_answer(struct choice_answer *answers, struct choice_score (*scores)[CHOICES_MOST], const struct choice_set *set,
                    struct quern_model *model, const struct choice_run *run, size_t longest, struct quern_error *err);

struct choice_sum {
    size_t items;
    double accuracy[CHOICE_RULES], error[CHOICE_RULES];   /* share of right answers, standard error (n - 1) */
    double chance;                                        /* accuracy of a guess; LAMBADA: 0                */
    double perplexity, perplexity_error;                  /* exp of the mean of -log_p of the right choice  */
};
/* Over the items of one group, or of all with group == SIZE_MAX. */
void choices_sum(struct choice_sum *out, const struct choice_set *set, const struct choice_answer *answers, size_t group);

#endif
