/* feedback.h - rounding a tensor so that its outputs change least: error feedback and descent with the full second moments.
 *
 * For rows w rounded to v the loss is (v - w) H (v - w)^T with H the second moments of the inputs. Three ways are computed for each
 * tensor, one after the other: the search alone (scales and codes by weighted error of each value), the search's scales with
 * codes chosen one by one while the error made so far is carried into the columns still open (GPTQ, LDLQ), and a descent from
 * that: codes, integer scales and block scales change while the loss falls. What a held-out H says is best is kept, for the whole
 * tensor. What a format's codes stand for is in lattice.h. */
#ifndef QUERN_FEEDBACK_H
#define QUERN_FEEDBACK_H

#include "cholesky.h"
#include "rounding.h"

enum feedback_way { FEEDBACK_SEARCH, FEEDBACK_CARRY, FEEDBACK_DESCENT, FEEDBACK_WAYS };

/* What error feedback needs of one H; many tensors and formats may be rounded with it. */
struct feedback {
    size_t n, stride;
    float *h, *held;           /* [n][stride]: damped; of the held-out text (NULL: none, then `h` judges) */
    float *upper;              /* [n][stride] as in cholesky.h */
    float *importance;         /* [n] diagonal, for the search */
    uint32_t *order;           /* columns as they are processed */
    double damping;            /* that was needed */
};

/* h, held: f32 [n][n], copied. Columns are taken in order of falling diagonal, groups of 8 together when `group` is 8.
 * QUERN_EFORMAT: H is not finite or cannot be made positive definite. */
bool feedback_init(struct feedback *f, const float *h, const float *held, size_t n, size_t group, double damping, struct pool *pool,
                   struct quern_error *err);
void feedback_free(struct feedback *f);

/* Losses of each way that was tried. fit of the search: 0 when there is a held-out H and other ways are tried. */
struct feedback_result { double fit[FEEDBACK_WAYS], held[FEEDBACK_WAYS]; enum feedback_way kept; };

/* Is this more than the search for this format? (Not IQ1_S, IQ1_M, MXFP4 and formats without blocks.) */
bool feedback_supports(uint32_t format);
/* Rows must come in groups of how many columns? 8 for formats with codebooks, else 1. */
size_t feedback_group(uint32_t format);

/* out: rows * format_row_bytes; w: f32 [rows][n]. Ways up to `most` are tried. The same bytes for any number of threads. */
bool feedback_round(const struct feedback *f, const struct rounding *rounding, uint32_t format, void *out, const float *w,
                    size_t rows, enum feedback_way most, enum rounding_weights rule, struct pool *pool,
                    struct feedback_result *result, struct quern_error *err);

#endif
