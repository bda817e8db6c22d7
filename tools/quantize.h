/* quantize.h - from a model file and a plan to a file of rounded tensors, in bounded memory.
 *
 * Tensors are read from the mapped input, rounded batch by batch by the threads of a pool, and streamed to the output, which stands
 * under its name only when it is complete. The same input, plan and importances give the same bytes for any number of threads. */
#ifndef QUERN_QUANTIZE_H
#define QUERN_QUANTIZE_H

#include "imatrix.h"
#include "journal.h"
#include "kernels.h"
#include "pool.h"
#include "preset.h"
#include "refine.h"
#include "rounding.h"

struct quantize_job {
    const struct gguf      *input;     /* opened for this alone: pages that have been read are given back (map_forget) */
    const struct plan_item *plan;          /* [input->tensor_count]                                 */
    uint32_t                file_type;     /* general.file_type of the result                       */
    const struct imatrix   *matrix;        /* NULL: none                                            */
    const char             *matrix_path;   /* noted in the file                                     */
    enum rounding_weights   weights;
    const struct rounding  *rounding;
    struct refine          *refine;        /* NULL: no error feedback                               */
    struct refine_note     *notes;         /* [input->tensor_count] what became of it; NULL: no one asks */
    const struct kernels   *kernels;
    struct pool            *pool;
    struct journal         *journal;       /* go on where an earlier run with the same one ended; NULL: start anew */
    size_t                  mem_limit;     /* bytes of buffers; 0: none                             */
    const volatile int     *stop;          /* non-zero: end with QUERN_EINTERRUPT; NULL: none       */
    void                  (*show)(void *arg, double share);   /* progress, 0..1; NULL: none         */
    void                   *show_arg;
};

/* Tensors of the input that are rounded already and would be rounded again: the first one, or NULL. */
const struct gguf_tensor *quantize_rounded_twice(const struct quantize_job *job);
/* Bytes of tensor i in the result. */
size_t quantize_tensor_bytes(const struct quantize_job *job, size_t i);
/* Bytes of the buffers that quantize_write takes; `feedback`: with error feedback, of which job->refine need not stand yet. */
size_t quantize_memory(const struct quantize_job *job, bool feedback);

/* Bytes of tensor i in another format. */
size_t quantize_bytes_as(const struct quantize_job *job, size_t i, uint32_t format);
/* Round the whole of tensor i to `format` into memory of quantize_bytes_as bytes. QUERN_EFORMAT, QUERN_EMEM, QUERN_EINTERRUPT. */
bool quantize_tensor(const struct quantize_job *job, size_t i, uint32_t format, void *out, struct quern_error *err);
/* errors[f]: importance-weighted squared error of tensor i in formats[f] over its weighted square, from about `values` values in
 * rows spread over the tensor. */
bool quantize_errors(const struct quantize_job *job, size_t i, const uint32_t *formats, size_t count, size_t values, double *errors,
                     struct quern_error *err);

/* Write the result. QUERN_EUSAGE: the output is the input, or exists and `force` is not set; QUERN_EFORMAT: a value that is not
 * finite (tensor, row and column named); QUERN_EMEM, QUERN_EIO, QUERN_EINTERRUPT. No file is left behind then; but with a journal
 * an interrupted run leaves what it has, under a hidden name, for the next. */
bool quantize_write(const struct quantize_job *job, const char *path, bool force, struct quern_error *err);
/* Fill job->notes for a file that an earlier run with the same journal wrote. */
bool quantize_recall(const struct quantize_job *job, struct quern_error *err);

#endif
