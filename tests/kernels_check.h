/* kernels_check.h - what the parts of check_kernels share: guarded memory, adversarial inputs, comparing and counting. */
#ifndef QUERN_KERNELS_CHECK_H
#define QUERN_KERNELS_CHECK_H

#include "kernels.h"
#include "test.h"

struct guard;

struct check {
    const struct kernels *table;       /* the rung under test                                          */
    const struct kernels *ref;
    const char   *rung;
    uint64_t      random;              /* state of the generator; the seed is printed with a failure   */
    uint64_t      seed;
    const char   *op;                  /* being compared                                               */
    char          shape[160];          /* of the current comparison                                    */
    size_t        comparisons;         /* values compared for this op                                  */
    size_t        failures;            /* of this op                                                   */
    size_t        all_comparisons, all_failures;   /* of all ops so far                                */
    double        worst;               /* largest error / bound of this op ...                         */
    char          worst_shape[160];    /* ... and where it was                                         */
    struct guard *guards;              /* live guarded buffers                                         */
};

/* Begin and end an op: one test case. The end prints a line when `verbose`, and fails when nothing was compared. */
void check_begin(struct check *c, const char *op, const char *detail);
void check_finish(struct check *c, bool verbose);
/* Say what is being compared next. */
void check_shape(struct check *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* `bytes` of memory whose end is the last byte before an unmapped page; filled with 0xa5. Aligned to what `bytes` is a multiple of
 * (4096 at most). Lives until guard_release, which also fails the op when anything before the buffer was written. */
void *guard_alloc(struct check *c, size_t bytes);
void guard_release(struct check *c);

/* |got - exact| <= bound; where exact is NaN or Inf, got must be no number either. */
void check_value(struct check *c, size_t index, double got, double exact, double bound);
/* Bytes equal; two NaNs count as equal in check_floats. */
void check_bytes(struct check *c, const void *got, const void *expected, size_t bytes);
void check_floats(struct check *c, const float *got, const float *expected, size_t n);
/* Every value of out[begin, end) is still what guard_alloc filled in. */
void check_untouched(struct check *c, const float *out, size_t begin, size_t end);
void check_failed(struct check *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* One unit in the last place of a float near `value`. */
double ulp_of(double value);

/* Vectors that arithmetic finds hard. */
enum fill { FILL_RANDOM, FILL_ZERO, FILL_MAX, FILL_MIN, FILL_ALTERNATING, FILL_ONE_HOT, FILL_TINY, FILL_LARGE, FILL_KINDS };
extern const char *const fill_names[FILL_KINDS];
void fill_floats(struct check *c, float *x, size_t n, enum fill fill);
/* Blocks of a format: quants and scales filled independently. */
void fill_blocks(struct check *c, void *blocks, const struct format *format, size_t n_blocks, enum fill quants, enum fill scales);
/* Make the block's first scale a NaN (or +Inf); false for the types whose scales have none. */
bool spoil_scale(void *block, const struct format *format, bool inf);
/* A random number in [low, high]. */
size_t random_size(struct check *c, size_t low, size_t high);

/* The parts. Each compares the slots of c->table that differ from those of `below` (all when NULL); gives how many those were. */
size_t check_matmuls(struct check *c, const struct kernels *below, bool verbose);
size_t check_conversions(struct check *c, const struct kernels *below, bool verbose);
size_t check_elementwise(struct check *c, const struct kernels *below, bool verbose);
size_t check_attention(struct check *c, const struct kernels *below, bool verbose);
/* All of them. */
size_t check_table(struct check *c, const struct kernels *below, bool verbose);

/* Plant each fault into a copy of the reference table and see that the checks catch it. */
void check_faults(const struct kernels *ref, uint64_t seed);
/* Time the slots. */
void bench_table(const struct kernels *table, const struct kernels *below, const char *rung);

#endif
