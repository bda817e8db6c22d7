/* tune_parts.h - what tune.c trains: vectors of numbers that live inside a file's bytes, their gradients and Adam's memory. */
#ifndef QUERN_TUNE_PARTS_H
#define QUERN_TUNE_PARTS_H

#include "backward.h"
#include "tune_codes.h"

enum tune_kind { TUNE_SCALE, TUNE_MINIMUM, TUNE_NORM, TUNE_CODE, TUNE_KINDS };

/* `n` numbers, `step` bytes apart from `at`: halves of blocks, or f32 norm weights. */
struct tune_part {
    enum tune_kind kind;
    uint8_t *at;
    size_t   n, step;
    bool     half;
    float   *value;           /* [n] what Adam moves; the file holds it rounded                */
    float   *unit;            /* [n] a step of 1; 0: stays                                     */
    float   *gradient, *mean, *square;   /* [n] each                                           */
    float   *best;            /* [n] value at the best state seen                              */
};

/* A tensor of blocks with a half-precision scale. value = scale * a + minimum * b, where a and b follow from its integers. */
struct tune_tensor {
    uint32_t format;
    uint8_t *data;            /* in the file's bytes                                           */
    size_t   rows, cols, row_bytes;
    size_t   per_row;         /* blocks                                                        */
    size_t   scale, minimum;  /* parts; SIZE_MAX: none                                         */
    struct tune_codes codes;  /* position NULL: they stay                                      */
};

struct tune_parts {
    struct tune_part   *part;
    size_t              count;
    struct tune_tensor *tensor;          /* by tensor of the file; rows 0: not trained         */
    size_t              tensor_count;
    size_t             *norm_part;       /* [norms] of the pass; SIZE_MAX: not trained */
    size_t              widest;          /* row of a tensor: cols, bytes                       */
    size_t              widest_bytes;
    size_t              step;            /* Adam's count                                       */
    void               *held;            /* one allocation behind all arrays                   */
};

/* Where a format keeps its half-precision scale and minimum within a block; SIZE_MAX: no minimum. False: it has no such scale. */
bool tune_places(uint32_t format, size_t *scale, size_t *minimum);

/* QUERN_EUNSUPPORTED for mixtures of experts: their stacks' gradients come expert by expert, which the parts do not collect. */
bool tune_parts_possible(const struct model *m, struct quern_error *err);
/* Collect the parts of a model whose file's bytes are `bytes` (the model's matrices and norms point into them). */
bool tune_parts_init(struct tune_parts *p, const struct model *m, uint8_t *bytes, const struct gguf *g, bool scales, bool norms,
                     struct quern_error *err);
/* Let codes move too, from where the original's weights lie among them. */
bool tune_parts_codes(struct tune_parts *p, const struct gguf *original, const struct gguf *g, const struct kernels *kernels,
                      struct pool *pool, struct quern_error *err);
void tune_parts_free(struct tune_parts *p);

/* Decode a row with scale 1 and minimum 0 (a), or scale 0 and minimum 1 (b). `blocks`: scratch of row_bytes. */
void tune_unit_row(float *out, uint8_t *blocks, const struct tune_tensor *t, size_t row, bool minimum,
                   const struct kernels *kernels);
/* Add a row's gradient by its weights to the gradients of its scales. `blocks`, `unit`: scratch of row_bytes and cols values. */
void tune_add_row(struct tune_parts *p, const struct tune_tensor *t, size_t row, const float *gradient, float factor,
                  uint8_t *blocks, float *unit, const struct kernels *kernels);

void tune_parts_clear(struct tune_parts *p);                   /* gradients to zero            */
/* One step of Adam (0.9, 0.99) and the values into the file's bytes. rate: per kind. */
bool tune_parts_step(struct tune_parts *p, const double rate[TUNE_KINDS], const struct kernels *kernels, struct pool *pool,
                     struct quern_error *err);
void tune_parts_keep(struct tune_parts *p);                    /* the present state is the best */
void tune_parts_recall(struct tune_parts *p);                  /* back to it                   */

#endif
