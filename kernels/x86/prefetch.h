/* prefetch.h - asking for weights before they are read. */
#ifndef QUERN_PREFETCH_H
#define QUERN_PREFETCH_H

#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>

#include "inline.h"

/* Ask for the lines of a run that will be read soon: into the first-level cache (`near`: job->wide) or the second. */
static ALWAYS_INLINE void prefetch_run(const uint8_t *bytes, unsigned size, bool near)
{
    if (near)
        for (unsigned i = 0; i < size; i += 64)
            _mm_prefetch((const char *)(bytes + i), _MM_HINT_T0);
    else
        for (unsigned i = 0; i < size; i += 64)
            _mm_prefetch((const char *)(bytes + i), _MM_HINT_T1);
}

#endif
