#include "tune.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "source.h"
#include "tune_pass.h"

/* Rates are those that served tiny-books best between two neighbours each: bench/results, 2026-11-21-tune.md. */
void tune_default(struct tune_options *options)
{
    *options = (struct tune_options){ .tokens = 131072, .length = 256, .batch = 8, .scale_rate = 0.0012, .norm_rate = 0.0012,
                                      .code_rate = 0.004, .checks = 8, .held_out_tokens = 6144, .patience = 3 };
}

/* A text's tokens, from which sequences are cut. */
struct stream { int32_t *ids; size_t count; };

struct tuning {
    const struct tune_options *options;
    const struct model     *teacher;
    const struct tokenizer *tokenizer;
    const struct kernels   *kernels;
    struct gguf       gguf;           /* the student's bytes */
    struct model      student;
    struct tune_parts parts;
    struct tune_pass  pass;
    struct stream    *streams, held_out;
    size_t            sequences;      /* of the calibration, in all */
    bool              have_gguf, have_student;
};

/* ---- texts --------------------------------------------------------------------------------------------------------------- */

static bool read_text(struct stream *s, const struct tuning *t, const struct tune_text *text, const char *what,
                      struct quern_error *err)
{
    if (!tokenizer_encode(t->tokenizer, text->text, text->bytes, 0, &s->ids, &s->count, err))
        return false;
    return s->count >= t->options->length ||
           ERR(err, QUERN_EUSAGE, "%s has %zu tokens, a sequence takes %zu", what, s->count, t->options->length);
}

/* Sequence `index` of `of`, spread evenly over the stream; with the beginning token first where the model has that habit. */
static void cut_sequence(const struct tuning *t, const struct stream *s, size_t index, size_t of, int32_t *out)
{
    size_t length = t->options->length, room = s->count - length;
    size_t from = of > 1 ? (size_t)((double)room * ((double)index / (double)(of - 1))) : 0;
    memcpy(out, s->ids + (from < room ? from : room), length * sizeof *out);
    if (tokenizer_adds_bos(t->tokenizer) && tokenizer_bos(t->tokenizer) >= 0)
        out[0] = tokenizer_bos(t->tokenizer);
}

/* Calibration sequence `index`: the domains take turns, and within a domain the places are visited with a stride that is prime to
 * their number, so that every step sees the whole text. */
static void cut_calibration(const struct tuning *t, size_t index, int32_t *out)
{
    size_t domains = t->options->text_count, of = (t->sequences + domains - 1) / domains, turn = index / domains, stride;
    for (stride = (size_t)((double)of * 0.618) | 1; stride > 1; stride -= 2) {
        size_t a = of, b = stride;
        while (b) {
            size_t rest = a % b;
            a = b, b = rest;
        }
        if (a == 1)
            break;
    }
    cut_sequence(t, &t->streams[index % domains], turn * stride % of, of, out);
}

/* ---- steps -------------------------------------------------------------------------------------------------------------- */

/* Gradients of one step's sequences, summed; the mean loss of its tokens. */
static double gather(struct tuning *t, size_t first, size_t count)
{
    size_t length = t->options->length;
    double sum = 0;
    tune_parts_clear(&t->parts);
    for (size_t done = 0; done < count; done += t->pass.most) {
        size_t now = count - done < t->pass.most ? count - done : t->pass.most;
        for (size_t i = 0; i < now; i++)
            cut_calibration(t, first + done + i, t->pass.tokens + i * length);
        sum += tune_pass_run(&t->pass, now, true);
    }
    return sum / (double)(count * length);
}

static double measure(struct tuning *t)
{
    size_t length = t->options->length, count = t->options->held_out_tokens / length;
    double sum = 0;
    count = count ? count : 1;
    for (size_t done = 0; done < count; done += t->pass.most) {
        size_t now = count - done < t->pass.most ? count - done : t->pass.most;
        for (size_t i = 0; i < now; i++)
            cut_sequence(t, &t->held_out, done + i, count, t->pass.tokens + i * length);
        sum += tune_pass_run(&t->pass, now, false);
    }
    return sum / (double)(count * length);
}

/* ---- the course ----------------------------------------------------------------------------------------------------------- */

/* Warm for a twentieth of the way, then down along a cosine to a twentieth of the rate. */
static double rate_at(size_t step, size_t steps)
{
    double share = ((double)step + 0.5) / (double)steps;
    if (share < 0.05)
        return share / 0.05;
    return 0.05 + 0.95 * 0.5 * (1 + cos(3.14159265358979323846 * (share - 0.05) / 0.95));
}

static bool course(struct tuning *t, struct tune_result *r, struct quern_error *err)
{
    const struct tune_options *o = t->options;
    size_t steps = t->sequences / o->batch, since = 0, checks = 0;
    r->before = r->after = measure(t);
    for (size_t step = 0; step < steps; step++) {
        if (o->stop && *o->stop)
            return ERR(err, QUERN_EINTERRUPT, "interrupted");
        double factor = rate_at(step, steps), rate[TUNE_KINDS];
        rate[TUNE_SCALE] = rate[TUNE_MINIMUM] = factor * o->scale_rate, rate[TUNE_NORM] = factor * o->norm_rate;
        rate[TUNE_CODE] = factor * o->code_rate;
        r->train_last = gather(t, step * o->batch, o->batch);
        if (!isfinite(r->train_last))
            return ERR(err, QUERN_EFAIL, "the divergence is no number after %zu steps", step);
        r->train_first = step ? r->train_first : r->train_last;
        if (!tune_parts_step(&t->parts, rate, t->kernels, o->pool, err))
            return false;
        r->steps = step + 1, r->tokens += o->batch * o->length;
        if (o->show)
            o->show(o->show_arg, (double)r->steps / (double)steps);
        if (r->steps * o->checks < (checks + 1) * steps)
            continue;
        checks++;
        double now = measure(t);
        if (now < r->after) {
            r->after = now, r->best_step = r->steps, since = 0;
            tune_parts_keep(&t->parts);
        } else if (++since == o->patience) {
            break;
        }
    }
    tune_parts_recall(&t->parts);
    return true;
}

/* ---- beginning and end ------------------------------------------------------------------------------------------------------ */

static bool check_options(const struct tune_options *o, struct quern_error *err)
{
    if (!o->text_count || !o->length || !o->batch || o->tokens / o->length < o->batch)
        return ERR(err, QUERN_EUSAGE, "tuning takes at least one text and one step of tokens (%zu sequences of %zu)", o->batch,
                   o->length);
    return (o->scale_rate >= 0 && o->norm_rate >= 0 && o->code_rate >= 0 && o->scale_rate + o->norm_rate + o->code_rate > 0) ||
           ERR(err, QUERN_EUSAGE, "tuning takes rates of 0 or more, not all 0");
}

static bool check_shapes(const struct model *a, const struct model *b, struct quern_error *err)
{
    bool same = a->arch == b->arch && a->hyper.layers == b->hyper.layers && a->hyper.vocab == b->hyper.vocab;
    for (size_t id = 0; same && id <= a->hyper.layers * LINEAR_KINDS; id++)
        same = backward_matrix(a, id)->rows == backward_matrix(b, id)->rows &&
               backward_matrix(a, id)->cols == backward_matrix(b, id)->cols;
    return same || ERR(err, QUERN_EFORMAT, "the rounded model is no image of the original: architecture or shapes differ");
}

static void tuning_free(struct tuning *t)
{
    for (size_t i = 0; t->streams && i < t->options->text_count; i++)
        free(t->streams[i].ids);
    free(t->streams), free(t->held_out.ids);
    tune_pass_close(&t->pass);
    tune_parts_free(&t->parts);
    if (t->have_student)
        model_free(&t->student);
    if (t->have_gguf)
        gguf_close(&t->gguf);
}

static size_t count_codes(const struct tuning *t)
{
    size_t n = 0;
    for (size_t i = 0; i < t->parts.tensor_count; i++)
        if (t->parts.tensor[i].codes.position)
            n += t->parts.tensor[i].rows * t->parts.tensor[i].cols;
    return n;
}

static bool tuning_open(struct tuning *t, const struct gguf *original, uint8_t *bytes, size_t size, struct quern_error *err)
{
    const struct tune_options *o = t->options;
    if (!check_options(o, err) || !(t->have_gguf = gguf_view(&t->gguf, bytes, size, "the rounded model", NULL, err)) ||
        !(t->have_student = model_init(&t->student, &t->gguf, t->kernels, err)) || !check_shapes(t->teacher, &t->student, err) ||
        !tune_parts_init(&t->parts, &t->student, bytes, &t->gguf, o->scale_rate > 0, o->norm_rate > 0, err))
        return false;
    if (o->code_rate > 0 && !tune_parts_codes(&t->parts, original, &t->gguf, t->kernels, o->pool, err))
        return false;
    if (!t->parts.count && !count_codes(t))
        return ERR(err, QUERN_EUSAGE, "there is nothing to tune: no tensor has blocks with half-precision scales");
    t->streams = mem_take(o->text_count, sizeof *t->streams, "the texts", err);
    for (size_t i = 0; i < o->text_count; i++)
        if (!t->streams || !read_text(&t->streams[i], t, &o->texts[i], "a calibration text", err))
            return false;
    t->sequences = o->tokens / o->length;
    return read_text(&t->held_out, t, &o->held_out, "the held-out text", err) &&
           tune_pass_open(&t->pass, t->teacher, &t->student, &t->parts, t->kernels, o->pool, o->batch, o->length, o->mem_limit,
                          err);
}

/* Tune `student`, a rounded file's bytes, in place; after a failure they are void. */
static bool tune_bytes(struct tune_result *result, const struct quern_model *original, uint8_t *student, size_t student_bytes,
                       const struct kernels *kernels, const struct tune_options *options, struct quern_error *err)
{
    struct tuning t = { .options = options, .teacher = &original->model, .tokenizer = original->tokenizer, .kernels = kernels };
    *result = (struct tune_result){ 0 };
    uint8_t *before = mem_take(student_bytes, 1, "the rounded model", err);
    if (before)
        memcpy(before, student, student_bytes);
    bool ok = before && tuning_open(&t, &original->gguf, student, student_bytes, err);
    for (size_t i = 0; ok && i < t.parts.count; i++)
        result->parameters += t.parts.part[i].n;
    result->codes = ok ? count_codes(&t) : 0;
    ok = ok && course(&t, result, err);
    for (size_t i = 0; ok && i < t.parts.tensor_count; i++)
        if (t.parts.tensor[i].codes.position)
            result->codes_changed += tune_codes_changed(&t.parts.tensor[i].codes, before + (t.parts.tensor[i].data - student));
    tuning_free(&t);
    free(before);
    return ok;
}

/* ---- files ------------------------------------------------------------------------------------------------------------------ */

static bool write_file(const struct gguf *g, const struct gguf *source, const char *path, bool force, struct quern_error *err)
{
    struct gguf_writer_options options = {
        .force = force, .alignment = g->alignment, .version = g->version, .unpadded = source->unpadded };
    struct gguf_writer *w = gguf_writer_open(path, &options, err);
    bool ok = w && gguf_writer_keys(w, g, err) && gguf_writer_tensors(w, g, err) && gguf_writer_commit(w, err);
    gguf_writer_close(w);
    return ok;
}

bool tune_rounded(struct tune_result *result, const struct quern_model *original, const char *rounded, const char *out, bool force,
                  const struct tune_options *options, struct quern_error *err)
{
    struct gguf source, tuned;
    uint8_t *bytes = NULL;
    bool have = gguf_open(&source, rounded, NULL, err), ok = have;
    if (ok && source.part_count != 1)
        ok = ERR(err, QUERN_EUNSUPPORTED, "%s: tuning a model of several files is not supported", rounded);
    size_t size = ok ? source.parts[0].size : 0;
    if (ok && (bytes = mem_take_aligned(size, 1, "the rounded model", err))) {
        memcpy(bytes, source.parts[0].data, size);
        ok = tune_bytes(result, original, bytes, size, &original->kernels, options, err);
        /* Nothing gained: a file that is its own output stays untouched. */
        if (ok && (result->best_step || strcmp(rounded, out)) && (ok = gguf_view(&tuned, bytes, size, rounded, NULL, err))) {
            ok = write_file(&tuned, &source, out, force, err);
            gguf_close(&tuned);
        }
    }
    ok = ok && bytes;
    free(bytes);
    if (have)
        gguf_close(&source);
    return ok;
}

bool tune_file(struct tune_result *result, const char *original, const char *rounded, const char *out, bool force,
               const struct tune_options *options, struct quern_error *err)
{
    struct quern_model *teacher = source_model(original, 0, err);
    bool ok = teacher && tune_rounded(result, teacher, rounded, out, force, options, err);
    quern_close_model(teacher);
    return ok;
}
