/* tune_stage.h - tuning as a stage of quern-quantize: which texts, how many tokens, what it will cost.
 *
 *     rounded file, original -> tune.h on the calibration text, stopped by text of another kind -> tuned file, or the rounded one
 *
 * How much is learned from depends on the model's size and the options alone, never on the clock: same command, same file. */
#ifndef QUERN_TUNE_STAGE_H
#define QUERN_TUNE_STAGE_H

#include "tune.h"

struct tune_stage {
    const char  *calibration, *stop_text;            /* files; NULL: quern's own                             */
    size_t       tokens;                             /* to learn from; 0: by the model's size                */
    bool         feedback;                           /* the file was rounded with error feedback: codes stay */
    size_t       mem_limit;                          /* bytes beside the files; 0: none                      */
    struct pool *pool;
    const volatile int *stop;                        /* non-zero: end with QUERN_EINTERRUPT; NULL: none      */
    void (*show)(void *arg, double share);
    void  *show_arg;
};
/* Before the work: are the texts long enough for this model, and two? QUERN_EUSAGE, QUERN_EIO. */
bool tune_stage_texts(const struct quern_model *original, const struct tune_stage *stage, struct quern_error *err);

/* QUERN_EUNSUPPORTED with the reason when the gradients of this model are not known: asked before the work of rounding. */
bool tune_stage_possible(const struct quern_model *original, struct pool *pool, struct quern_error *err);
/* Tokens to learn from, `asked` or what the model's size and the way of rounding suggest. */
size_t tune_stage_tokens(const struct quern_model *original, bool feedback, size_t asked);
/* What that will take, roughly: seconds with so many threads, bytes beside the files. */
double tune_stage_seconds(const struct quern_model *original, size_t tokens, size_t threads);
size_t tune_stage_memory(const struct quern_model *original, bool feedback, size_t mem_limit);

/* Tune the file at `rounded` and replace it, in one step, when the divergence on the text to stop by fell; else it stays as it is
 * and result->best_step is 0. Errors as tune_rounded, or of the texts; the file is untouched then. */
bool tune_stage_run(struct tune_result *result, const struct quern_model *original, const char *rounded,
                    const struct tune_stage *stage, struct quern_error *err);
/* For people, one line on stdout. */
void tune_stage_print(const struct tune_result *result);

#endif
