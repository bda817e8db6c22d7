/* prefetch.h - asking for weights before they are read. */
#ifndef QUERN_PREFETCH_H
#define QUERN_PREFETCH_H

#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>

#include "inline.h"
#include "kernels.h"

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

/* Weights that are asked for in the order of their addresses, a piece at a time, into the second-level cache: where tokens are
 * more than one, requests for each row's next run reach memory too late (matmul_woven_avx512.h). */
struct requests {
    const uint8_t *at, *end;
};

/* `count` rows from `row` on, but none from `soon` on. */
static inline struct requests requests_for(const struct matmul_job *job, size_t row, size_t count, size_t soon)
{
    const uint8_t *weights = job->weights;
    const size_t end = row + count < soon ? row + count : soon;
    return (struct requests){ weights + row * job->row_bytes, weights + end * job->row_bytes };
}

/* Up to a line more than `bytes`. */
static ALWAYS_INLINE void ask_next(struct requests *ahead, size_t bytes)
{
    for (size_t i = 0; i < bytes && ahead->at < ahead->end; i += 64, ahead->at += 64)
        _mm_prefetch((const char *)ahead->at, _MM_HINT_T1);
}

#endif
