/* imatrix.h - importance matrices: for each weight matrix the mean square of every input, from calibration text.
 *
 * The files are those of llama.cpp's llama-imatrix (GGUF, general.type "imatrix"): per matrix NAME two F32 tensors,
 * NAME.in_sum2 [inputs][experts] with sums of squares and NAME.counts [1][experts] with the tokens that they were taken over. */
#ifndef QUERN_IMATRIX_H
#define QUERN_IMATRIX_H

#include "arena.h"
#include "gguf.h"

struct imatrix_entry {
    const char *name;          /* of the weight tensor                             */
    size_t      inputs, experts;
    float      *mean;          /* [experts][inputs]; all 1 for an expert that saw no token */
    float      *tokens;        /* [experts]                                        */
};

struct imatrix {
    struct imatrix_entry *entries;    /* by name */
    size_t                count;
    uint32_t              chunks, chunk_size;
    const char           *dataset;    /* the first one's name, "" when there is none */
    struct arena          arena;
};

/* QUERN_EFORMAT: not such a file, a sum without its count or the other way round, other types than F32, shapes that do not
 * belong together, values that are negative or not finite, an entry without a single token. */
bool imatrix_open(struct imatrix *m, const char *path, struct quern_error *err);
void imatrix_close(struct imatrix *m);
/* Entries into the order in which imatrix_find looks for them: for those who fill a matrix themselves. */
void imatrix_sort(struct imatrix *m);
/* NULL when absent. `name` need not end in NUL. */
const struct imatrix_entry *imatrix_find(const struct imatrix *m, struct gguf_string name);
/* The importances of row `row` of tensor t, f32 [shape[0]]: of the row's expert, or the one set that all experts share. NULL where
 * there is no entry. */
const float *imatrix_row(const struct imatrix_entry *e, const struct gguf_tensor *t, size_t row);
/* Does the matrix fit the model? QUERN_EFORMAT names the first tensor whose entry has another shape and, unless `lax`, the first
 * one in need (plan of `needs`: one flag per tensor of g) without an entry. */
bool imatrix_check(const struct imatrix *m, const struct gguf *g, const bool *needs, bool lax, struct quern_error *err);

/* Write entries (mean and tokens) in llama-imatrix's form. */
bool imatrix_write(const char *path, const struct imatrix *m, bool force, struct quern_error *err);

#endif
