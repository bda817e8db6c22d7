#include "written.h"

#include <stdlib.h>
#include <string.h>

/* Values per chunk of work, about. Sums are kept per chunk and added in the chunks' order, so threads do not change them. */
enum { CHUNK_VALUES = 16384 };

struct comparison {
    const struct quantize_job  *job;
    const struct gguf_tensor   *in, *out;
    const struct imatrix_entry *importances;     /* NULL: none */
    size_t  rows, per_chunk;
    float  *scratch;                             /* per thread 2 * cols: a row as it was, as it is */
    double *errors, *squares;                    /* [chunks] */
};

static void compare_chunk(void *arg, size_t index, size_t thread)
{
    struct comparison *c = arg;
    size_t n = c->in->shape[0], to = (index + 1) * c->per_chunk;
    size_t in_bytes = c->in->bytes / c->rows, out_bytes = c->out->bytes / c->rows;
    float *x = c->scratch + thread * 2 * n, *y = x + n;
    for (size_t row = index * c->per_chunk; row < to && row < c->rows; row++) {
        const float *importance = imatrix_row(c->importances, c->in, row);
        c->job->kernels->dequantize[c->in->type].fn(x, c->in->data + row * in_bytes, n);
        c->job->kernels->dequantize[c->out->type].fn(y, c->out->data + row * out_bytes, n);
        for (size_t i = 0; i < n; i++) {
            double weight = importance ? (double)importance[i] : 1.0, away = (double)x[i] - (double)y[i];
            c->squares[index] += weight * x[i] * x[i];
            c->errors[index] += weight * away * away;
        }
    }
}

bool written_error(const struct quantize_job *job, size_t i, const struct gguf_tensor *out, double *error, struct quern_error *err)
{
    const struct gguf_tensor *in = &job->input->tensors[i];
    struct comparison c = { .job = job, .in = in, .out = out, .rows = in->shape[1] * in->shape[2] * in->shape[3] };
    size_t n = in->shape[0], threads = pool_threads(job->pool);
    *error = 0;
    if (memcmp(in->shape, out->shape, sizeof in->shape) != 0)
        return ERR(err, QUERN_EFORMAT, "tensor %zu has another shape than its source", i);
    if (n == 0 || c.rows == 0 || (in->type == out->type && !memcmp(in->data, out->data, in->bytes)))
        return true;
    if (job->stop && *job->stop)
        return ERR(err, QUERN_EINTERRUPT, "interrupted");
    c.importances = job->matrix ? imatrix_find(job->matrix, in->name) : NULL;
    c.per_chunk = CHUNK_VALUES / n + 1;
    size_t chunks = (c.rows + c.per_chunk - 1) / c.per_chunk;
    c.scratch = mem_take_aligned(2 * threads, n * sizeof(float), "rows", err);
    c.errors = c.scratch ? mem_take(2 * chunks, sizeof *c.errors, "errors", err) : NULL;
    if (c.errors) {
        double sum = 0, square = 0;
        c.squares = c.errors + chunks;
        pool_run(job->pool, compare_chunk, &c, chunks);
        for (size_t k = 0; k < chunks; k++)
            sum += c.errors[k], square += c.squares[k];
        *error = square > 0 ? sum / square : 0;
    }
    bool ok = c.errors != NULL;
    free(c.scratch);
    free(c.errors);
    for (size_t k = 0; k < job->input->part_count; k++)
        map_forget(&job->input->parts[k], in->data, in->bytes);
    return ok;
}
