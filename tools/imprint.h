/* imprint.h - calibration: one pass of a text through a model, and what each linear map met on the way.
 *
 * The text is cut into sequences of `context` tokens, each beginning with the model's beginning token where it has that habit; the
 * first position is left out everywhere, and a token whose input is much larger than usual counts as much as a usual one. Four of
 * five runs of sequences are for fitting, the fifth is held out. With `fisher` each sequence goes back too, from labels drawn
 * (seeded) from the model's own distribution: gradients of the summed loss, whose squares are the true Fisher information. The
 * result is a file, read through stats.h. */
#ifndef QUERN_IMPRINT_H
#define QUERN_IMPRINT_H

#include "model.h"
#include "pool.h"

struct imprint_options {
    const char *calibration;  /* a text file; NULL: quern's own text                                             */
    size_t   context;         /* tokens per sequence; 0: 512 or what the model was trained for                   */
    size_t   tokens;          /* at most so many; 0: as the model's size allows in minutes (imprint_tokens)      */
    bool     fisher;
    uint64_t seed;            /* of the labels */
    size_t   mem_limit;       /* bytes of buffers; 0: none                                                       */
    bool     force;           /* the output may be replaced                                                      */
    struct pool *pool;
    const volatile int *stop; /* non-zero: QUERN_EINTERRUPT; NULL: none                                          */
    void (*show)(void *arg, const char *what, double share);
    void *show_arg;
};

/* Tokens that are looked at unless `tokens` says otherwise. */
size_t imprint_tokens(const struct quern_model *model);
/* Bytes of buffers that imprint_write takes without a limit. Errors as there, of the text and the architecture. */
bool imprint_bytes(size_t *out, const struct quern_model *model, const struct imprint_options *options, struct quern_error *err);
/* Write the statistics of `model` to `path`. QUERN_EUSAGE: the text has too few tokens or only one of them (the counts are told),
 * or holds NUL bytes; QUERN_EUNSUPPORTED: an architecture that backward.h does not know; QUERN_EMEM: the limit is too low (the
 * need is told). The same bytes for any number of threads. */
bool imprint_write(const struct quern_model *model, const char *path, const struct imprint_options *options,
                   struct quern_error *err);

#endif
