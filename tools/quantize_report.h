/* quantize_report.h - what quern-quantize tells people about a plan, its time, and error feedback. */
#ifndef QUERN_QUANTIZE_REPORT_H
#define QUERN_QUANTIZE_REPORT_H

#include "measure.h"
#include "plan.h"
#include "quantize.h"

/* On stdout one line per tensor, and the sums. `choice`: count 0 where nothing was measured. */
void report_plan(const struct quantize_job *job, const struct plan *choice);
/* What a run would do after its plan. */
struct report_work {
    const struct quern_model *model;         /* NULL: nothing is run (a plain mix)      */
    const char *calibration, *heldout;       /* as receipt_options                      */
    double      planned;                     /* seconds that the plan took              */
    size_t      planning;                    /* bytes of buffers that the plan took     */
    bool        moments, feedback, receipt;  /* moments: they are to be gathered still  */
};
/* On stdout, about how long it would take: each type's rounding timed on a sample of rows, one chunk of text run through the model,
 * the rest counted in multiplications. A few seconds at most. */
bool report_time(const struct quantize_job *job, const struct report_work *work, struct quern_error *err);
/* On stderr: what error feedback did, and every tensor that goes without, with the reason. Silent where none was asked for. */
void report_feedback(const struct quantize_job *job);

#endif
