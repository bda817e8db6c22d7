/* receipt.h - what rounding did to a model, measured on text that it never met, to stand in the file itself.
 *
 * Keys quern.receipt.*: models/FORMAT.md. A gate ("kld>0.02") refuses the file when it is true. */
#ifndef QUERN_RECEIPT_H
#define QUERN_RECEIPT_H

#include "eval.h"
#include "fallbacks.h"
#include "gguf.h"
#include "quantize.h"
#include "tune.h"

struct receipt {
    char   source_hash[65], calibration_hash[65], heldout_hash[65];
    const char *source, *calibration, *heldout;      /* names, without folders */
    double predicted;                                /* KL by the plan, 0: none */
    float *errors;                                   /* [tensor_count] relative squared error as written (written.h) */
    size_t error_count;
    struct fallbacks fallbacks;
    struct eval_result result;                       /* rounded against source */
    struct tune_result tuned;                        /* tokens 0: was not      */
};

struct receipt_options {
    const char  *calibration, *heldout;              /* files; NULL: quern's own */
    struct pool *pool;
    const volatile int *stop;
    void (*show)(void *arg, double share);
    void  *show_arg;
};

/* Before the work: are the texts long enough for this model, and two? QUERN_EUSAGE, QUERN_EIO. */
bool receipt_possible(const struct quern_model *source, const struct receipt_options *options, struct quern_error *err);
/* Measure. `rounded` and `source` are open models; names must outlive the receipt. */
bool receipt_make(struct receipt *r, const struct quantize_job *job, const struct quern_model *rounded,
                  const struct quern_model *source, const struct receipt_options *options, struct quern_error *err);
/* The measurement alone: another model against the source, on the receipt's tokens. */
bool receipt_measure(struct eval_result *result, const struct quern_model *model, const struct quern_model *source,
                     const struct receipt_options *options, struct quern_error *err);
void receipt_free(struct receipt *r);
/* The file `rounded` again at `path`, with the receipt among its keys; atomic, and never onto `source`'s files. */
bool receipt_stamp(const struct receipt *r, const struct gguf *rounded, const struct gguf *source, const char *path, bool force,
                   struct quern_error *err);
/* "kld>0.02": kld, kld_median, kld_999, ppl_ratio, top1 or fallbacks (tensors); > >= < <=. QUERN_EUSAGE for another text (check it
 * before the work: `r` NULL); QUERN_EQUALITY when the receipt is as described. */
bool receipt_gate(const struct receipt *r, const char *gate, struct quern_error *err);
/* For people. */
void receipt_print(const struct receipt *r);

#endif
