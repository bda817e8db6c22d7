/* refine.h - rows of a model's tensors rounded with error feedback, where what calibration saw allows it; and what came of it.
 *
 * Between the second moments of hessian.h and the rounding of feedback.h: finds a tensor's moments, decides whether they are good
 * enough, keeps their factor while tensors with the same inputs follow each other (q, k, v; gate, up), and notes for every tensor
 * what was done and why not more. One caller at a time; results do not depend on the number of threads. */
#ifndef QUERN_REFINE_H
#define QUERN_REFINE_H

#include "feedback.h"
#include "stats.h"

enum refine_outcome {
    REFINE_NONE,             /* not asked for: the tensor is kept, or no feedback was wanted                     */
    REFINE_DONE,             /* at least a part of the rows is better, on held-out text, with feedback           */
    REFINE_SEARCH_BETTER,    /* tried; held-out text prefers the search everywhere                               */
    REFINE_TYPE,             /* a type without feedback (IQ1_S, IQ1_M, MXFP4, F16, ...)                          */
    REFINE_UNSEEN,           /* no moments: not a linear map's own matrix, or its inputs never moved             */
    REFINE_FEW_TOKENS,       /* fewer tokens than inputs                                                         */
    REFINE_SINGULAR,         /* not finite, or not positive definite even with damping                           */
    REFINE_MEMORY,           /* more memory than the limit allows                                                */
    REFINE_OUTCOMES
};

enum { REFINE_EXPERTS = 1024 };     /* as many as a model may have */

struct refine_note {
    enum refine_outcome outcome;
    size_t tokens, dead;     /* tokens seen; inputs that never moved        */
    double damping;          /* that the factor needed                      */
    double search, kept;     /* losses on held-out text: of the search, of what is in the file */
    size_t experts, without; /* of a stack: how many went without feedback; `outcome` is the first one's reason then, one that it
                              * could not be had before one that the search was better                                      */
    uint64_t fell[REFINE_EXPERTS / 64];      /* those that could not have it, a bit each */
};

struct refine_options {
    bool   guided;           /* moments weighted by the outputs' squared gradients, where the file has them */
    size_t mem_limit;        /* bytes that one tensor may take; 0: any */
};

struct refine {
    struct stats stats;
    struct refine_options options;
    struct feedback factor;      /* n == 0: none at hand */
    size_t group;
    size_t tokens;
};

/* Open statistics (imprint.h) of `model`. Kernels and pool must outlive it. */
bool refine_open(struct refine *r, const char *path, const struct gguf *model, const struct kernels *kernels, struct pool *pool,
                 const struct refine_options *options, struct quern_error *err);
void refine_close(struct refine *r);

/* Bytes for a tensor with n inputs, rounded `rows` rows at a time to rows of `row_bytes`. */
size_t refine_memory(size_t n, size_t rows, size_t row_bytes);
/* Get ready for an expert of a tensor (0 where it is none). note->outcome says whether refine_rows may be called (REFINE_DONE) or
 * why not. False only for QUERN_EMEM without a limit. */
bool refine_begin(struct refine *r, struct gguf_string name, size_t expert, size_t n, uint32_t format, size_t memory,
                  struct pool *pool, struct refine_note *note, struct quern_error *err);
/* Some rows of that tensor: w f32 [rows][n], out as feedback_round; losses are added to the note. */
bool refine_rows(struct refine *r, const struct rounding *rounding, uint32_t format, void *out, const float *w, size_t rows,
                 enum rounding_weights rule, struct pool *pool, struct refine_note *note, struct quern_error *err);
/* Expert e (counted from 0) is rounded: was it worth it? Adds its note to the tensor's. */
void refine_add(struct refine_note *all, const struct refine_note *note, size_t e);

/* Which experts of a stack fell back: "experts 0, 3 to 5", or "" where it is no stack or none did. Cut short where it does not fit,
 * ending in "...". */
void refine_experts(char *out, size_t size, const struct refine_note *note);
/* "second moments of too few tokens" and the like, for reports. */
const char *refine_reason(enum refine_outcome outcome);

#endif
