/* imprint.h - calibration: one pass of a text through a model, and what each linear map met on the way.
 *
 * The text is cut into sequences of `context` tokens, each beginning with the model's beginning token where it has that habit; the
 * first position is left out everywhere, and a token whose input is much larger than usual counts as much as a usual one. Four of
 * five runs of sequences are for fitting, the fifth is held out. With `guided` each sequence goes back too, from labels drawn (seeded)
 * from the model's own distribution: gradients of the summed loss, whose squares are the true Fisher information. */
#ifndef QUERN_IMPRINT_H
#define QUERN_IMPRINT_H

#include "hessian.h"
#include "model.h"

struct imprint_options {
    size_t   context;         /* tokens per sequence; 0: 512 or what the model was trained for                   */
    size_t   sequences;       /* at most so many; 0: all                                                         */
    bool     guided;
    uint64_t seed;
    size_t   mem_limit;       /* bytes of moments per pass; 0: everything in one pass                            */
    bool     force;           /* the output may be replaced                                                      */
    const struct kernels *kernels;
    struct pool *pool;
    const volatile int *stop; /* non-zero: QUERN_EINTERRUPT; NULL: none                                          */
    void (*show)(void *arg, double share);
    void *show_arg;
};

/* Write the statistics of `model` (opened from g) over `text`. QUERN_EUSAGE: the text has too few tokens or only one of them (the counts are
 * told), or holds NUL bytes; QUERN_EUNSUPPORTED: an architecture that backward.h does not know. */
bool imprint_write(const struct gguf *g, const struct model *model, const char *text, size_t n, const char *path,
                   const struct imprint_options *options, struct quern_error *err);

#endif
