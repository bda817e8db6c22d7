#include "quantize.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Output of one batch: large enough that the threads rarely wait for the slowest, small enough for any laptop. */
static const size_t BATCH_BYTES = (size_t)4 << 20;
/* Values per chunk of work, about: a few milliseconds of the slowest encoder. */
static const size_t CHUNK_VALUES = 8192;
/* Values per batch with error feedback, about: 16 MiB of floats. */
static const size_t REFINE_VALUES = (size_t)1 << 22;

const struct gguf_tensor *quantize_rounded_twice(const struct quantize_job *job)
{
    for (size_t i = 0; i < job->input->tensor_count; i++) {
        const struct gguf_tensor *t = &job->input->tensors[i];
        if (job->plan[i].format != t->type && format_find(t->type)->block > 1)
            return t;
    }
    return NULL;
}

static size_t tensor_rows(const struct gguf_tensor *t)
{
    return t->shape[1] * t->shape[2] * t->shape[3];
}

size_t quantize_tensor_bytes(const struct quantize_job *job, size_t i)
{
    const struct gguf_tensor *t = &job->input->tensors[i];
    size_t row = 0;
    if (job->plan[i].format == t->type)
        return t->bytes;
    format_row_bytes(&row, format_find(job->plan[i].format), t->shape[0]);
    return row * tensor_rows(t);
}

/* Rows per batch, at least one. */
static size_t batch_rows(size_t rows, size_t row_bytes)
{
    size_t n = BATCH_BYTES / (row_bytes ? row_bytes : 1);
    return n < 1 ? 1 : n > rows ? rows : n;
}

/* The same with error feedback. Each batch is judged by itself, so its size must not depend on the memory at hand. */
static size_t refine_batch(size_t cols, size_t rows)
{
    size_t n = REFINE_VALUES / cols;
    return n < 16 ? 16 : n > rows ? rows : n;
}

size_t quantize_memory(const struct quantize_job *job, bool feedback)
{
    size_t most = 0;
    for (size_t i = 0; i < job->input->tensor_count; i++) {
        const struct gguf_tensor *t = &job->input->tensors[i];
        size_t rows = tensor_rows(t), row, bytes;
        if (job->plan[i].format == t->type || rows == 0 || t->shape[0] == 0)
            continue;
        row = quantize_tensor_bytes(job, i) / rows;
        bytes = batch_rows(rows, row) * row + pool_threads(job->pool) * t->shape[0] * 2 * sizeof(float);
        most = bytes > most ? bytes : most;
        bytes = feedback ? refine_memory(t->shape[0], refine_batch(t->shape[0], rows), row) : 0;
        if (feedback && feedback_supports(job->plan[i].format) && (!job->mem_limit || bytes <= job->mem_limit))
            most = bytes > most ? bytes : most;
    }
    return most;
}

/* ---- rounding one batch of rows -------------------------------------------------------------------------------------- */

struct batch {
    const struct quantize_job  *job;
    const struct gguf_tensor   *tensor;
    const struct imatrix_entry *importances;     /* NULL: none */
    const struct format        *format;
    size_t                      first, rows;     /* of the batch */
    size_t                      per_chunk;
    size_t                      row_in, row_out; /* bytes */
    uint8_t                    *out;
    float                      *scratch;         /* per thread 2 * cols; with feedback the rows' values */
    size_t                     *bad;             /* per chunk: 1 + position of a value that is not finite; 0: none */
};

static size_t first_bad(const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return i;
    return n;
}

static void round_chunk(void *arg, size_t index, size_t thread)
{
    struct batch *b = arg;
    size_t n = b->tensor->shape[0], to = (index + 1) * b->per_chunk;
    float *x = b->scratch + thread * 2 * n, *weight = x + n;
    for (size_t r = index * b->per_chunk; r < to && r < b->rows; r++) {
        size_t row = b->first + r;
        b->job->kernels->dequantize[b->tensor->type].fn(x, b->tensor->data + row * b->row_in, n);
        size_t at = first_bad(x, n);
        if (at < n) {
            b->bad[index] = 1 + row * n + at;
            return;
        }
        const float *importance = imatrix_row(b->importances, b->tensor, row);
        if (importance)
            rounding_weigh(weight, x, importance, n, b->job->weights);
        rounding_row(b->job->rounding, b->format->id, b->out + r * b->row_out, x, importance ? weight : NULL, n);
    }
}

static bool report_bad(const struct batch *b, size_t chunks, struct quern_error *err)
{
    char shown[100];
    for (size_t c = 0; c < chunks; c++)
        if (b->bad[c]) {
            size_t at = b->bad[c] - 1, n = b->tensor->shape[0];
            text_escape(shown, sizeof shown, b->tensor->name.text, b->tensor->name.n);
            return ERR(err, QUERN_EFORMAT, "tensor '%s': the value in row %zu, column %zu is not finite", shown, at / n, at % n);
        }
    return true;
}

/* Where rounded rows go. */
typedef bool sink_fn(void *arg, const void *rows, size_t bytes, struct quern_error *err);

/* What a tensor is rounded into, and how far the whole file is. */
struct target {
    sink_fn *sink;
    void    *arg;
    size_t  *done, total;      /* bytes of the result, for the progress; done NULL: none is shown */
};

/* One batch is done: hand it over. */
static bool deliver(const struct batch *b, const struct target *to, size_t chunks, struct quern_error *err)
{
    const struct quantize_job *job = b->job;
    if (!report_bad(b, chunks, err) || !to->sink(to->arg, b->out, b->rows * b->row_out, err))
        return false;
    if (to->done && job->show) {
        *to->done += b->rows * b->row_out;
        job->show(job->show_arg, (double)*to->done / (double)to->total);
    }
    return true;
}

/* Room for `step` rows of the result and `floats` of scratch. */
static bool take_batch(struct batch *b, size_t step, size_t floats, struct quern_error *err)
{
    b->out = mem_take_aligned(step, b->row_out, "a batch of rows", err);
    b->scratch = b->out ? mem_take_aligned(floats, sizeof(float), "rows", err) : NULL;
    b->bad = b->scratch ? mem_take((step + b->per_chunk - 1) / b->per_chunk, sizeof *b->bad, "a batch", err) : NULL;
    return b->bad != NULL;
}

static void free_batch(struct batch *b)
{
    free(b->out);
    free(b->scratch);
    free(b->bad);
    b->out = NULL, b->scratch = NULL, b->bad = NULL;
}

static bool interrupted(const struct quantize_job *job, struct quern_error *err)
{
    return job->stop && *job->stop ? !ERR(err, QUERN_EINTERRUPT, "interrupted") : false;
}

/* Rows [from, to), each by itself. */
static bool search_rows(struct batch *b, size_t from, size_t to, const struct target *target, struct quern_error *err)
{
    const struct quantize_job *job = b->job;
    size_t n = b->tensor->shape[0], step = batch_rows(to - from, b->row_out);
    bool ok = take_batch(b, step, 2 * n * pool_threads(job->pool), err);
    for (b->first = from; ok && b->first < to; b->first += step) {
        b->rows = to - b->first < step ? to - b->first : step;
        size_t chunks = (b->rows + b->per_chunk - 1) / b->per_chunk;
        if ((ok = !interrupted(job, err))) {
            pool_run(job->pool, round_chunk, b, chunks);
            ok = deliver(b, target, chunks, err);
        }
    }
    free_batch(b);
    return ok;
}

static void decode_chunk(void *arg, size_t index, size_t thread)
{
    struct batch *b = arg;
    size_t n = b->tensor->shape[0], to = (index + 1) * b->per_chunk;
    (void)thread;
    for (size_t r = index * b->per_chunk; r < to && r < b->rows; r++) {
        size_t row = b->first + r, at;
        b->job->kernels->dequantize[b->tensor->type].fn(b->scratch + r * n, b->tensor->data + row * b->row_in, n);
        if ((at = first_bad(b->scratch + r * n, n)) < n) {
            b->bad[index] = 1 + row * n + at;
            return;
        }
    }
}

/* Rows [from, to) with error feedback; refine_begin has said that it can be done. */
static bool refined_rows(struct batch *b, size_t from, size_t to, const struct target *target, struct refine_note *note,
                         struct quern_error *err)
{
    const struct quantize_job *job = b->job;
    size_t n = b->tensor->shape[0], step = refine_batch(n, to - from);
    bool ok = take_batch(b, step, step * n, err);
    for (b->first = from; ok && b->first < to; b->first += step) {
        b->rows = to - b->first < step ? to - b->first : step;
        size_t chunks = (b->rows + b->per_chunk - 1) / b->per_chunk;
        if ((ok = !interrupted(job, err))) {
            pool_run(job->pool, decode_chunk, b, chunks);
            ok = report_bad(b, chunks, err) &&
                 refine_rows(job->refine, job->rounding, b->format->id, b->out, b->scratch, b->rows, job->weights, job->pool,
                             note, err) &&
                 deliver(b, target, chunks, err);
        }
    }
    free_batch(b);
    return ok;
}

/* Each expert with its own moments, or without where it has none that will do. */
static bool round_experts(struct batch *b, const struct target *target, struct refine_note *all, struct quern_error *err)
{
    const struct quantize_job *job = b->job;
    const struct gguf_tensor *t = b->tensor;
    size_t experts = stats_experts(&job->refine->stats, t->name), rows = tensor_rows(t), each = experts ? rows / experts : rows;
    size_t memory = refine_memory(t->shape[0], refine_batch(t->shape[0], each), b->row_out);
    if (experts == 0 || rows % experts)
        experts = 1, each = rows;
    for (size_t e = 0; e < experts; e++) {
        struct refine_note note;
        bool ok = refine_begin(job->refine, t->name, e, t->shape[0], b->format->id, memory, job->pool, &note, err);
        if (ok && note.outcome == REFINE_DONE)
            ok = refined_rows(b, e * each, (e + 1) * each, target, &note, err);
        else if (ok)
            ok = search_rows(b, e * each, (e + 1) * each, target, err);
        if (!ok)
            return false;
        refine_add(all, &note, e);
    }
    return true;
}

/* Round a tensor batch by batch into a sink. */
static bool round_tensor(const struct quantize_job *job, size_t i, uint32_t format, const struct target *target,
                         struct quern_error *err)
{
    const struct gguf_tensor *t = &job->input->tensors[i];
    struct batch b = { .job = job, .tensor = t, .format = format_find(format) };
    struct refine_note note = { .outcome = REFINE_NONE };
    size_t rows = tensor_rows(t);
    if (rows == 0 || t->shape[0] == 0)
        return true;
    if (!format_row_bytes(&b.row_out, b.format, t->shape[0]))
        return ERR(err, QUERN_EUSAGE, "rows of %zu values do not divide into blocks of %s", t->shape[0], b.format->name);
    b.importances = job->matrix ? imatrix_find(job->matrix, t->name) : NULL;
    b.row_in = t->bytes / rows;
    b.per_chunk = CHUNK_VALUES / t->shape[0] + 1;
    bool ok = job->refine ? round_experts(&b, target, &note, err) : search_rows(&b, 0, rows, target, err);
    if (job->notes)
        job->notes[i] = note;
    /* The model that is run maps the weights as well; twice, they would be most of what is used. */
    for (size_t k = 0; k < job->input->part_count; k++)
        map_forget(&job->input->parts[k], t->data, t->bytes);
    return ok;
}

static bool sink_writer(void *arg, const void *rows, size_t bytes, struct quern_error *err)
{
    return gguf_writer_data(arg, rows, bytes, err);
}

static bool sink_memory(void *arg, const void *rows, size_t bytes, struct quern_error *err)
{
    uint8_t **at = arg;
    (void)err;
    memcpy(*at, rows, bytes);
    *at += bytes;
    return true;
}

size_t quantize_bytes_as(const struct quantize_job *job, size_t i, uint32_t format)
{
    const struct gguf_tensor *t = &job->input->tensors[i];
    size_t row = 0;
    format_row_bytes(&row, format_find(format), t->shape[0]);
    return row * tensor_rows(t);
}

bool quantize_tensor(const struct quantize_job *job, size_t i, uint32_t format, void *out, struct quern_error *err)
{
    uint8_t *at = out;
    struct target to = { .sink = sink_memory, .arg = &at };
    return round_tensor(job, i, format, &to, err);
}

/* ---- errors of a sample of rows ------------------------------------------------------------------------------------------ */

struct sample {
    struct batch   batch;
    const uint32_t *formats;
    size_t          format_count, every;     /* rows 0, every, 2 * every, ... */
    double         *errors, *squares;        /* [chunks][formats], [chunks] */
    uint8_t        *blocks;                  /* per thread: a row in any format */
    size_t          row_most;
};

/* Weighted square and squared errors of one sampled row in each format. */
static void sample_row(void *arg, size_t index, size_t thread)
{
    struct sample *s = arg;
    const struct batch *b = &s->batch;
    size_t n = b->tensor->shape[0], row = index * s->every;
    float *x = b->scratch + thread * 3 * n, *weight = x + n, *y = weight + n;
    const float *importance = imatrix_row(b->importances, b->tensor, row);
    b->job->kernels->dequantize[b->tensor->type].fn(x, b->tensor->data + row * b->row_in, n);
    if (importance)
        rounding_weigh(weight, x, importance, n, b->job->weights);
    for (size_t i = 0; i < n; i++)
        s->squares[index] += (importance ? importance[i] : 1.0) * x[i] * x[i];
    for (size_t f = 0; f < s->format_count; f++) {
        uint8_t *blocks = s->blocks + thread * s->row_most;
        rounding_row(b->job->rounding, s->formats[f], blocks, x, importance ? weight : NULL, n);
        b->job->kernels->dequantize[s->formats[f]].fn(y, blocks, n);
        for (size_t i = 0; i < n; i++)
            s->errors[index * s->format_count + f] += (importance ? importance[i] : 1.0) * (x[i] - y[i]) * (x[i] - y[i]);
    }
}

bool quantize_errors(const struct quantize_job *job, size_t i, const uint32_t *formats, size_t count, size_t values, double *errors,
                     struct quern_error *err)
{
    const struct gguf_tensor *t = &job->input->tensors[i];
    size_t rows = tensor_rows(t), n = t->shape[0], wanted = n ? values / n + 1 : 1, threads = pool_threads(job->pool);
    struct sample s = { .batch = { .job = job, .tensor = t }, .formats = formats, .format_count = count };
    if (rows == 0 || n == 0)
        return ERR(err, QUERN_EFORMAT, "a tensor without values");
    s.every = rows > wanted ? rows / wanted : 1;
    size_t sampled = (rows + s.every - 1) / s.every;
    s.batch.importances = job->matrix ? imatrix_find(job->matrix, t->name) : NULL;
    s.batch.row_in = t->bytes / rows;
    s.row_most = n * sizeof(float) + 256;
    s.batch.scratch = mem_take_aligned(threads * 3, n * sizeof(float), "rows", err);
    s.blocks = s.batch.scratch ? mem_take_aligned(threads, s.row_most, "rows", err) : NULL;
    s.errors = s.blocks ? mem_take(sampled * count, sizeof *s.errors, "errors", err) : NULL;
    s.squares = s.errors ? mem_take(sampled, sizeof *s.squares, "errors", err) : NULL;
    if (s.squares) {
        double total = 0;
        pool_run(job->pool, sample_row, &s, sampled);
        memset(errors, 0, count * sizeof *errors);
        for (size_t r = 0; r < sampled; r++) {
            total += s.squares[r];
            for (size_t f = 0; f < count; f++)
                errors[f] += s.errors[r * count + f];
        }
        for (size_t f = 0; f < count; f++)
            errors[f] = total > 0 ? errors[f] / total : 0;
    }
    bool ok = s.squares != NULL;
    free(s.batch.scratch);
    free(s.blocks);
    free(s.errors);
    free(s.squares);
    return ok;
}

/* ---- keys ------------------------------------------------------------------------------------------------------------ */

static bool key_starts(struct gguf_string key, const char *text)
{
    size_t n = strlen(text);
    return key.n >= n && !memcmp(key.text, text, n);
}

/* Everything that the input says, except what is no longer so. */
static bool write_keys(const struct quantize_job *job, struct gguf_writer *w, struct quern_error *err)
{
    const struct gguf *g = job->input;
    for (size_t i = 0; i < g->kv_count; i++) {
        const struct gguf_kv *kv = &g->kvs[i];
        bool stale = key_starts(kv->key, "split.") || key_starts(kv->key, "quantize.imatrix.") || key_starts(kv->key,
                                                                                                             "quern.receipt.") ||
                     gguf_string_is(kv->key, "general.file_type") || gguf_string_is(kv->key, "general.quantization_version");
        if (!stale && !gguf_writer_value(w, kv->key.text, kv->key.n, &kv->value, err))
            return false;
    }
    /* The version of the block layouts: 2 since 2023. */
    if (!gguf_writer_u32(w, "general.quantization_version", 2, err) ||
        !gguf_writer_u32(w, "general.file_type", job->file_type, err))
        return false;
    if (!job->matrix)
        return true;
    const char *slash = strrchr(job->matrix_path, '/');
    return gguf_writer_text(w, "quantize.imatrix.file", slash ? slash + 1 : job->matrix_path, err) &&
           gguf_writer_text(w, "quantize.imatrix.dataset", job->matrix->dataset, err) &&
           gguf_writer_u32(w, "quantize.imatrix.entries_count", (uint32_t)job->matrix->count, err) &&
           gguf_writer_u32(w, "quantize.imatrix.chunks_count", job->matrix->chunks, err);
}

static bool sink_nothing(void *arg, const void *rows, size_t bytes, struct quern_error *err)
{
    (void)arg, (void)rows, (void)bytes, (void)err;
    return true;
}

/* The note of a tensor that stands in the file already. A kill may have come between the tensor's last bytes and its note: then it
 * is rounded again, to nowhere. */
static bool recall_note(const struct quantize_job *job, size_t i, struct quern_error *err)
{
    struct target nowhere = { .sink = sink_nothing };
    char name[32];
    if (!job->notes || job->plan[i].format == job->input->tensors[i].type)
        return true;
    snprintf(name, sizeof name, "note %zu", i);
    return journal_find(job->journal, name, &job->notes[i], sizeof job->notes[i]) ||
           round_tensor(job, i, job->plan[i].format, &nowhere, err);
}

static bool keep_note(const struct quantize_job *job, size_t i, struct quern_error *err)
{
    char name[32];
    snprintf(name, sizeof name, "note %zu", i);
    return !job->notes || journal_add(job->journal, name, &job->notes[i], sizeof job->notes[i], err);
}

bool quantize_recall(const struct quantize_job *job, struct quern_error *err)
{
    for (size_t i = 0; i < job->input->tensor_count; i++)
        if (!recall_note(job, i, err))
            return false;
    return true;
}

static bool write_tensors(const struct quantize_job *job, struct gguf_writer *w, struct quern_error *err)
{
    const struct gguf *g = job->input;
    size_t done = 0, total = 1, standing;
    for (size_t i = 0; i < g->tensor_count; i++) {
        struct gguf_tensor t = g->tensors[i];
        t.type = job->plan[i].format;
        t.bytes = quantize_tensor_bytes(job, i);
        total += t.bytes;
        if (!gguf_writer_tensor(w, &t, err))
            return false;
    }
    if (!gguf_writer_begin(w, &standing, err))
        return false;
    for (size_t i = 0; i < standing; i++) {
        if (!recall_note(job, i, err))
            return false;
        done += quantize_tensor_bytes(job, i);
    }
    for (size_t i = standing; i < g->tensor_count; i++) {
        const struct gguf_tensor *t = &g->tensors[i];
        if (job->plan[i].format != t->type) {
            struct target to = { sink_writer, w, &done, total };
            if (!round_tensor(job, i, job->plan[i].format, &to, err) || !keep_note(job, i, err))
                return false;
            continue;
        }
        if (!gguf_writer_data(w, t->data, t->bytes, err))
            return false;
        done += t->bytes;
    }
    return true;
}

bool quantize_write(const struct quantize_job *job, const char *path, bool force, struct quern_error *err)
{
    struct gguf_writer_options options = { .force = force, .inputs = job->input->parts, .input_count = job->input->part_count,
                                           .resume = job->journal != NULL };
    size_t memory = quantize_memory(job, job->refine != NULL);
    if (job->mem_limit && memory > job->mem_limit)
        return ERR(err, QUERN_EMEM, "rounding takes %zu bytes of buffers, the limit is %zu", memory, job->mem_limit);
    struct gguf_writer *w = gguf_writer_open(path, &options, err);
    bool ok = w && write_keys(job, w, err) && write_tensors(job, w, err) && gguf_writer_commit(w, err);
    if (w && !ok && err->code == QUERN_EINTERRUPT)
        gguf_writer_leave(w);
    gguf_writer_close(w);
    return ok;
}
