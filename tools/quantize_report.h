/* quantize_report.h - what quern-quantize tells people about a plan and about error feedback. */
#ifndef QUERN_QUANTIZE_REPORT_H
#define QUERN_QUANTIZE_REPORT_H

#include "plan.h"
#include "quantize.h"

/* On stdout one line per tensor, and the sums. `choice`: count 0 where nothing was measured. */
void report_plan(const struct quantize_job *job, const struct plan *choice);
/* On stderr: what error feedback did, and every tensor that goes without, with the reason. Silent where none was asked for. */
void report_feedback(const struct quantize_job *job);

#endif
