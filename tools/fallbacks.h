/* fallbacks.h - tensors that got less than was meant for them, and why: for the receipt.
 *
 * A tensor falls back where its rows do not divide into the blocks of the type that it should have, and where error feedback was
 * wanted but could not be (too few tokens, singular moments, a type without it, the memory limit), for one expert or all. That the
 * search alone was better on held-out text is no fallback: it was tried and judged. */
#ifndef QUERN_FALLBACKS_H
#define QUERN_FALLBACKS_H

#include "quantize.h"

enum { FALLBACK_NAMES = 1000,        /* bytes of names that are listed; the rest is counted */
       FALLBACK_BYTES = 1700 };      /* of `packed`, at most */

struct fallbacks {
    size_t   refined;                /* tensors with error feedback */
    size_t   count;                  /* tensors that fell back, each counted once */
    size_t   reasons, bytes;
    uint8_t  packed[FALLBACK_BYTES]; /* `reasons` strings as a GGUF array has them:
                                        "REASON: NAME, NAME (experts 1, 4 to 6) and 3 more" */
};

/* After quantize_write or quantize_recall: job->notes stand, or are NULL where feedback was not asked for. */
void fallbacks_list(struct fallbacks *f, const struct quantize_job *job);

#endif
