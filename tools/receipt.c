#include "receipt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calibration.h"
#include "sha256.h"
#include "written.h"

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

static void hash_text(const struct calibration *c, char out[65])
{
    struct sha256 h;
    sha256_begin(&h);
    sha256_add(&h, c->text, c->bytes);
    sha256_end(&h, out);
}

static void hash_source(const struct gguf *g, char out[65])
{
    struct sha256 h;
    sha256_begin(&h);
    for (size_t i = 0; i < g->part_count; i++)
        sha256_add(&h, g->parts[i].data, g->parts[i].size);
    sha256_end(&h, out);
}

/* Of what is in the file now: feedback and tuning move values away from where the search alone would have them. */
static bool tensor_errors(struct receipt *r, const struct quantize_job *job, const struct gguf *rounded, struct quern_error *err)
{
    if (rounded->tensor_count != job->input->tensor_count)
        return ERR(err, QUERN_EFORMAT, "the rounded file has %zu tensors, its source %zu", rounded->tensor_count,
                   job->input->tensor_count);
    r->error_count = job->input->tensor_count;
    r->errors = mem_take(r->error_count, sizeof *r->errors, "errors", err);
    for (size_t i = 0; r->errors && i < r->error_count; i++) {
        double error;
        if (!written_error(job, i, &rounded->tensors[i], &error, err))
            return false;
        r->errors[i] = (float)error;
    }
    return r->errors != NULL;
}

static size_t context_of(const struct quern_model *source)
{
    return source->model.hyper.context < 512 ? source->model.hyper.context : 512;
}

static bool measure(struct eval_result *result, const struct quern_model *model, const struct quern_model *source,
                    const struct calibration *held, const struct receipt_options *o, struct quern_error *err)
{
    size_t context = context_of(source);
    /* 7k tokens of a 1B model, all of quern's own text for small ones. */
    double most = 0x1p43 / ((double)source->model.parameters + 1) / (double)context;
    /* An F16 cache, whatever the processor would take: receipts are compared with each other and with repetitions elsewhere. */
    struct eval_options eval = { .context = context, .chunks = most < 8 ? 8 : most > 4096 ? 4096 : (size_t)most, .kv = KV_F16,
                                 .pool = o->pool, .stop = o->stop, .progress = o->show, .progress_arg = o->show_arg };
    return eval_tokens(result, model, source, held->tokens, held->count, &eval, err);
}

bool receipt_measure(struct eval_result *result, const struct quern_model *model, const struct quern_model *source,
                     const struct receipt_options *o, struct quern_error *err)
{
    struct calibration held = { 0 };
    bool ok = calibration_open(&held, o->heldout, CALIBRATION_HELDOUT, source, context_of(source), err) &&
              measure(result, model, source, &held, o, err);
    calibration_close(&held);
    return ok;
}

static const char SAME_TEXT[] = "the held-out text is the calibration text";

bool receipt_possible(const struct quern_model *source, const struct receipt_options *o, struct quern_error *err)
{
    return calibration_possible(o->calibration, o->heldout, CALIBRATION_HELDOUT, source, context_of(source), SAME_TEXT, err);
}

bool receipt_make(struct receipt *r, const struct quantize_job *job, const struct quern_model *rounded,
                  const struct quern_model *source, const struct receipt_options *o, struct quern_error *err)
{
    struct calibration fit, held;
    bool ok = calibration_open_two(&fit, o->calibration, &held, o->heldout, CALIBRATION_HELDOUT, source, context_of(source),
                                   SAME_TEXT, err);
    fallbacks_list(&r->fallbacks, job);
    if (ok) {
        hash_text(&fit, r->calibration_hash);
        hash_text(&held, r->heldout_hash);
        hash_source(&source->gguf, r->source_hash);
        r->calibration = fit.name, r->heldout = held.name;
    }
    ok = ok && tensor_errors(r, job, &rounded->gguf, err) && measure(&r->result, rounded, source, &held, o, err);
    calibration_close(&fit);
    calibration_close(&held);
    return ok;
}

void receipt_free(struct receipt *r)
{
    free(r->errors);
    r->errors = NULL;
}

static bool write_receipt(const struct receipt *r, struct gguf_writer *w, struct quern_error *err)
{
    const struct eval_result *e = &r->result;
    const struct { const char *key, *text; } texts[] = {
        { "quern.receipt.tool", "quern-quantize " QUERN_VERSION }, { "quern.receipt.source", base_name(r->source) },
        { "quern.receipt.source_sha256", r->source_hash },         { "quern.receipt.calibration", r->calibration },
        { "quern.receipt.calibration_sha256", r->calibration_hash }, { "quern.receipt.heldout", r->heldout },
        { "quern.receipt.heldout_sha256", r->heldout_hash },
    };
    const struct { const char *key; double value; } numbers[] = {
        { "quern.receipt.kld_mean", e->kl_mean },          { "quern.receipt.kld_error", e->kl_error },
        { "quern.receipt.kld_median", e->kl_median },      { "quern.receipt.kld_999", e->kl_999 },
        { "quern.receipt.kld_predicted", r->predicted },   { "quern.receipt.top1", e->same_top },
        { "quern.receipt.top1_error", e->same_top_error }, { "quern.receipt.perplexity", e->perplexity },
        { "quern.receipt.source_perplexity", e->base_perplexity },
        { "quern.receipt.ppl_ratio", e->perplexity / e->base_perplexity },
    };
    if (!gguf_writer_u32(w, "quern.receipt.version", 1, err))
        return false;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (!gguf_writer_text(w, texts[i].key, texts[i].text, err))
            return false;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (!gguf_writer_f32(w, numbers[i].key, (float)numbers[i].value, err))
            return false;
    if (r->tuned.tokens && !(gguf_writer_u32(w, "quern.receipt.tune_tokens", (uint32_t)r->tuned.tokens, err) &&
                             gguf_writer_f32(w, "quern.receipt.tune_kld_before", (float)r->tuned.before, err) &&
                             gguf_writer_f32(w, "quern.receipt.tune_kld_after", (float)r->tuned.after, err)))
        return false;
    const struct fallbacks *f = &r->fallbacks;
    if (!gguf_writer_u32(w, "quern.receipt.feedback", (uint32_t)f->refined, err) ||
        !gguf_writer_u32(w, "quern.receipt.fallbacks", (uint32_t)f->count, err) ||
        (f->reasons && !gguf_writer_array(w, "quern.receipt.fallback_tensors", GGUF_STRING, f->packed, f->reasons, f->bytes, err)))
        return false;
    uint8_t *packed = mem_take(r->error_count, 4, "errors", err);
    for (size_t i = 0; packed && i < r->error_count; i++) {
        uint32_t bits;
        memcpy(&bits, &r->errors[i], 4);
        gguf_pack(packed + 4 * i, bits, 4);
    }
    bool ok = packed && gguf_writer_u32(w, "quern.receipt.heldout_tokens", (uint32_t)e->scored, err) &&
              gguf_writer_array(w, "quern.receipt.tensor_errors", GGUF_F32, packed, r->error_count, 4 * r->error_count, err);
    free(packed);
    return ok;
}

bool receipt_stamp(const struct receipt *r, const struct gguf *rounded, const struct gguf *source, const char *path, bool force,
                   struct quern_error *err)
{
    struct gguf_writer_options options = { .force = force, .inputs = source->parts, .input_count = source->part_count };
    struct gguf_writer *w = gguf_writer_open(path, &options, err);
    bool ok = w && gguf_writer_keys(w, rounded, err) && write_receipt(r, w, err) && gguf_writer_tensors(w, rounded, err) &&
              gguf_writer_commit(w, err);
    gguf_writer_close(w);
    return ok;
}

bool receipt_gate(const struct receipt *r, const char *gate, struct quern_error *err)
{
    static const char *const names[] = { "kld_median", "kld_999", "kld", "ppl_ratio", "top1", "fallbacks" };
    const struct eval_result *e = r ? &r->result : NULL;
    const double values[] = { e ? e->kl_median : 0, e ? e->kl_999 : 0, e ? e->kl_mean : 0,
                              e ? e->perplexity / e->base_perplexity : 0, e ? e->same_top : 0,
                              r ? (double)r->fallbacks.count : 0 };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        size_t n = strlen(names[i]);
        const char *sign = gate + n;
        if (strncmp(gate, names[i], n) || (*sign != '<' && *sign != '>'))
            continue;
        bool equal = sign[1] == '=', above = *sign == '>';
        char *end;
        double limit = strtod(sign + 1 + equal, &end), v = values[i];
        if (end == sign + 1 + equal || *end || limit != limit)
            break;
        if (e && ((equal && v <= limit && v >= limit) || (above ? v > limit : v < limit)))
            return ERR(err, QUERN_EQUALITY, "%s is %.6g: the gate '%s' refuses the file", names[i], v, gate);
        return true;
    }
    return ERR(err, QUERN_EUSAGE,
               "--fail-if: '%s' is no gate such as kld>0.02 (kld, kld_median, kld_999, ppl_ratio, top1, fallbacks)", gate);
}

void receipt_print(const struct receipt *r)
{
    const struct eval_result *e = &r->result;
    char predicted[40] = "";
    if (r->predicted > 0)
        snprintf(predicted, sizeof predicted, " (predicted %.5f)", r->predicted);
    printf("held out: KL %.5f +- %.5f%s, median %.5f, 99.9 %% %.5f; top-1 %.2f %%; perplexity %.4f, source %.4f; "
           "%zu tokens\n", e->kl_mean, e->kl_error, predicted, e->kl_median, e->kl_999, 100 * e->same_top, e->perplexity,
           e->base_perplexity, e->scored);
}
