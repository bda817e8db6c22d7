/* plan.h - which tensor gets which type, by what each costs in KL: measured, predicted, allocated, then searched.
 *
 * Every tensor is rounded to two anchor types and the model is run with each such tensor alone: that KL, divided by the tensor's
 * weighted squared error, says what error in this tensor costs. For the other types the error of sampled rows times that cost
 * predicts the KL; predictions are summed and allocated under the byte budget. Swaps between tensors at equal bytes are then
 * tried on fresh tokens, and those that lower the measured KL by more than twice their standard error are kept. */
#ifndef QUERN_PLAN_H
#define QUERN_PLAN_H

#include "allocate.h"
#include "calibration.h"
#include "journal.h"
#include "measure.h"
#include "quantize.h"

enum { PLAN_TYPES = 18, PLAN_ANCHORS = 2 };

/* A tensor that the plan decides about. */
struct plan_tensor {
    size_t   tensor;                     /* index in the file                                             */
    size_t   count;                      /* of types that its rows divide into, smallest first            */
    uint32_t type[PLAN_TYPES];
    double   error[PLAN_TYPES];          /* weighted squared error relative to the weighted square itself */
    size_t   anchor[PLAN_ANCHORS];       /* the types that are measured: low, high; the same twice where there is one        */
    double   plain[PLAN_ANCHORS], fed[PLAN_ANCHORS];   /* their KL: each value by itself, with error feedback; negative: unknown */
    struct allocate_choice choice[PLAN_TYPES];   /* bytes, predicted KL                                   */
};

struct plan {
    const struct gguf  *file;
    struct plan_tensor *tensors;         /* [count] */
    struct allocate_item *items;         /* [count] what is chosen */
    size_t              count;
    double              predicted, measured, measured_error;   /* KL of the chosen types; measured 0: not yet */
    size_t              swaps, tried;    /* of the local search */
    bool                feedback;        /* losses are of tensors rounded with error feedback */
};

struct plan_options {
    size_t budget;                       /* bytes of all tensors that are decided about */
    size_t chunks, search_chunks;        /* of the text: for the anchors, and after those for the search */
    size_t trials;                       /* swaps that may be tried */
    size_t fed;                          /* tensors of each kind that are measured with error feedback; 0: all. See plan_measure */
    struct journal *journal;             /* of measurements; NULL: none */
    void (*show)(void *arg, const char *what, double share);   /* may be NULL */
    void  *show_arg;
};

/* The tensors that `job->plan` lets a mix decide about (reasons mix and fall-back) and that the model multiplies with. `draft`:
 * importances are still to be gathered, so no type is left out for want of them. */
bool plan_init(struct plan *p, const struct quantize_job *job, const struct quern_model *source, bool draft,
               struct quern_error *err);
void plan_free(struct plan *p);
/* Fill errors and predictions. With job->refine these are of tensors rounded with error feedback. Of large models, where that takes
 * longer than the measuring, only options->fed layers' tensors are so rounded, the first and last among them; they are measured
 * both ways, and the others' KL without feedback is taken times the ratio that lies between their neighbours'. */
bool plan_measure(struct plan *p, const struct quantize_job *job, const struct quern_model *source, const struct calibration *text,
                  const struct plan_options *options, struct quern_error *err);
/* Choose types for the budget, by the predictions alone. */
bool plan_allocate(struct plan *p, size_t budget, struct quern_error *err);
/* What feedback is predicted to do to the KL of the choice: times so much. 1 where nothing is known of its tensors without it. */
double plan_feedback_gain(const struct plan *p);
/* Improve the choice by measured swaps; sets measured. With options->fed swaps are tried on tensors rounded without feedback, and
 * what was measured of the last choice is taken times what feedback is predicted to do. */
bool plan_search(struct plan *p, const struct quantize_job *job, const struct quern_model *source, const struct calibration *text,
                 const struct plan_options *options, struct quern_error *err);
/* Put the chosen types into the items of the file's plan. */
void plan_apply(const struct plan *p, struct plan_item *items);
size_t plan_bytes(const struct plan *p);
/* Bytes of the largest tensor in the largest of its types. */
size_t plan_largest(const struct plan *p);

#endif
