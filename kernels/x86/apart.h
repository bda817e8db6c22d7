/* apart.h - the order in which a product with one token reads its rows.
 *
 * A call's rows are eight stretches of neighbours, and the n-th rows of all eight pass by together: eight streams, far apart, which
 * the machine's own prefetchers follow across row ends, with no request of ours. On a Zen 4, whose one core reads 31 GB/s in order:
 *
 *   streams far apart, 256 bytes of each in turn                1: 90 %, 2: 90, 4: 100, 8: 96 to 104, 16: 64 to 74
 *   the same, 64 bytes of each in turn                          4: 100, 8: 88, 16: 71 (99 when the streams' distances are no
 *                                                               multiples of 4 KiB: sixteen lines in one set of the first cache)
 *   two places of each stream in one page                       50
 *   sixteen neighbouring rows side by side, nothing asked for   64 bytes each: 77, 256: 72, 512: 60, 2048: 27
 *   the same, the next rows asked for by prefetches             68 (t0), 84 (t1), 88 (t2), 64 (nta); by plain loads 50
 *   one stream, prefetches 1 to 16 KiB ahead                    72 to 100; by plain loads 75 to 90; without any 105
 *   rows one after the other, 192 bytes a run kept in memory    53 to 70; 64 bytes 89 to 93 (perhaps because weights that pass by
 *                                                               push the kept sums out of the first-level cache)
 *   rows copied in order, worked on from the copy               38 to 55
 *
 * (1 GiB in huge pages, 48 MiB at a time, rows of 1152 to 16384 bytes, five vector instructions per line.)
 *
 * It serves kernels of few instructions per line. With about 14 (too many to see far ahead out of order?) streams read
 * less: 2: 80 %, 4: 86, 8: 77 (rows of 272 bytes a run; 144 bytes: 66, 72, 67), and with 25 the same, so it is not the arithmetic
 * itself. Whether all streams share an instruction or each has its own makes no difference. Q8_0, Q4_0 and Q4_K, which take more
 * (estimated), read 64, 50 and 60 % on eight streams, 83 to 88, 80 to 82 and 92 to 94 by decode_rows; prefetches within the streams
 * (t0 and nta 46 to 65; t1 a row ahead 84, 57, 77) and plain loads of the next lines (46 to 59) did not make up for it. F32 rows of
 * 2048 columns read 87 % instead of 90, of 8192 93 instead of 83. */
#ifndef QUERN_APART_H
#define QUERN_APART_H

#include "inline.h"
#include "kernels.h"

enum { APART_ROWS = 8 };

/* Up to eight rows: row, row + step ... `later`: so many steps follow; `end`: of the call. */
struct apart { size_t row, step, rows, later, end; };

/* What does not divide by eight comes last, as neighbours. */
static inline struct apart apart_rest(size_t row, size_t end)
{
    return (struct apart){ .row = row, .step = 1, .rows = end - row, .end = end };
}

static inline struct apart apart_first(size_t begin, size_t end)
{
    const size_t step = (end - begin) / APART_ROWS;
    if (step == 0)
        return apart_rest(begin, end);
    return (struct apart){ .row = begin, .step = step, .rows = APART_ROWS, .later = step - 1, .end = end };
}

/* `rows` is 0 after the last. */
static inline struct apart apart_next(struct apart a)
{
    if (a.later)
        return (struct apart){ .row = a.row + 1, .step = a.step, .rows = APART_ROWS, .later = a.later - 1, .end = a.end };
    const size_t last = a.row + (a.rows - 1) * a.step;
    return apart_rest(last + 1, a.end);
}

/* The rows' first bytes; a missing row repeats the last one. */
static inline void apart_weights(const uint8_t *w[APART_ROWS], const struct matmul_job *job, struct apart a)
{
    for (size_t r = 0; r < APART_ROWS; r++)
        w[r] = (const uint8_t *)job->weights + (a.row + (r < a.rows ? r : a.rows - 1) * a.step) * job->row_bytes;
}

/* The sums of eight rows; `width`: whatever tells the caller's formats apart. */
typedef void apart_sums_fn(float sums[APART_ROWS], const struct matmul_job *job, const uint8_t *const w[APART_ROWS], int width);

static ALWAYS_INLINE void apart_product(const struct matmul_job *job, size_t row_begin, size_t row_end, apart_sums_fn *add,
                                        int width)
{
    for (struct apart a = apart_first(row_begin, row_end); a.rows; a = apart_next(a)) {
        const uint8_t *w[APART_ROWS];
        float sums[APART_ROWS];
        apart_weights(w, job, a);
        add(sums, job, w, width);
        for (size_t r = 0; r < a.rows; r++)
            job->out[a.row + r * a.step] = sums[r];
    }
}

#endif
