/* compare.h - is the rounded model nearer to its source than one that was rounded without any of this?
 *
 * Plain rounding: the same types, every value by itself, no importances, no error feedback, no tuning; the same text and the same
 * tokens as the receipt. Importances of another text, moments of another model or tuning gone wrong can make a file worse than
 * that; one cannot see it from the file's own figures (bad-inputs I5). */
#ifndef QUERN_COMPARE_H
#define QUERN_COMPARE_H

#include "receipt.h"

/* Could it be worse at all? Not if plain rounding is all that was done. */
bool compare_needed(const struct quantize_job *job, const struct receipt *r);
/* Write the plainly rounded model at `scratch` (as large as the result; removed again) and measure it. QUERN_EQUALITY when the mean
 * KL divergence of the receipt is above the plain one by more than its own standard error; with `force` that is a warning.
 * `source`: the open model; `o` as for receipt_make. */
bool compare_with_plain(const struct receipt *r, const struct quantize_job *job, const struct quern_model *source,
                        const char *scratch, bool force, const struct receipt_options *o, struct quern_error *err);

#endif
