/* adaptive.h - the one-shot command's work between "this model, so many bytes" and "this tensor, that type".
 *
 *     importances from text (unless given) -> plan: measured, allocated, searched -> the job's items
 *
 * How much is looked at depends on the model's size alone, never on the clock, so that the same command gives the same file. */
#ifndef QUERN_ADAPTIVE_H
#define QUERN_ADAPTIVE_H

#include "importance.h"
#include "plan.h"

struct adaptive_options {
    const char *calibration;         /* a file; NULL: quern's own text */
    bool        fisher;              /* importances count tokens by their squared gradient */
    bool        guided;              /* second moments too */
    bool        search;
    size_t      mem_limit;           /* bytes of buffers, 0: any; a lower one means less text at once, or QUERN_EMEM */
    struct journal *journal;         /* results of earlier runs, and this one's; NULL: none */
    void (*show)(void *arg, const char *what, double share);
    void  *show_arg;
};

/* About the bytes on the disk beside the rounded file: the search's results in the journal, second moments. */
size_t adaptive_disk(const struct quern_model *source, bool search, bool moments);
/* Bytes of buffers that gathering (`gather`) and planning take; `budget`: of all tensors that are decided about. */
bool adaptive_memory(size_t *out, const struct quern_model *source, const struct plan *p, size_t budget, bool gather,
                     struct pool *pool, const struct adaptive_options *options, struct quern_error *err);
/* Gather importances into *out. */
bool adaptive_gather(struct imatrix *out, const struct quern_model *source, struct pool *pool, const volatile int *stop,
                     const struct adaptive_options *options, struct quern_error *err);
/* Write second moments for error feedback to `path`, replacing what is there. QUERN_EUSAGE: the text is too short for them. */
bool adaptive_imprint(const char *path, const struct quern_model *source, size_t mem_limit, struct pool *pool,
                      const volatile int *stop, const struct adaptive_options *options, struct quern_error *err);
/* Decide. `p` is plan_init's; `measure` false: its predictions stand already (from a recipe). */
bool adaptive_plan(struct plan *p, const struct quantize_job *job, const struct quern_model *source, size_t budget, bool measure,
                   const struct adaptive_options *options, struct quern_error *err);

#endif
