/* emit.h - a tensor from wherever it lies into a GGUF, in another type if asked, a piece of a row at a time.
 *
 * Memory does not grow with the tensor: its bytes are read through the mapping and leave through the writer. Where source and
 * target have the same type the bytes are copied as they are. */
#ifndef QUERN_EMIT_H
#define QUERN_EMIT_H

#include "gguf.h"
#include "kernels.h"

struct emit_tensor {
    char            name[65];
    uint32_t        type;            /* what it is written as                                                  */
    uint32_t        dims;
    size_t          shape[4];        /* innermost first, 1 past dims                                           */
    uint32_t        source_type;     /* format of the source's bytes                                           */
    const uint8_t **slices;          /* [slice_count]: equal parts of the outermost dimension, each contiguous */
    size_t          slice_count;
    size_t          head_rows;       /* 0, or: within each group of so many rows the two halves become interleaved (rope by
                                        neighbours instead of halves): row 2i comes from i, row 2i + 1 from head_rows / 2 + i.
                                        A vector counts as rows of one value. */
    float           shift;           /* added to every value */
};

/* What goes on while data is written. */
struct emit_report {
    size_t odd;                                  /* values that are NaN or Inf                                    */
    bool (*tick)(void *arg, size_t bytes);       /* so many source bytes more are done; false: stop. May be NULL. */
    void  *arg;
};

/* Describe it to the writer. */
bool emit_describe(const struct emit_tensor *t, struct gguf_writer *w, struct quern_error *err);
/* Write its data. QUERN_EINTERRUPT when tick says so; QUERN_EFAIL naming tensor, row and column for a value that the target type
 * cannot hold (too large for F16; NaN and Inf for quantized types); `report` counts those that it could. */
bool emit_data(const struct emit_tensor *t, const struct kernels *kernels, struct gguf_writer *w, struct emit_report *report,
               struct quern_error *err);
/* Can rows of `shape[0]` values be written as `type`, from this source? */
bool emit_possible(const struct emit_tensor *t, uint32_t type, const struct kernels *kernels);
/* Bytes of the written tensor; false when they do not fit size_t. */
bool emit_bytes(const struct emit_tensor *t, size_t *out);

#endif
