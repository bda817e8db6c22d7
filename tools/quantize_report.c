#include "quantize_report.h"

#include <math.h>
#include <stdio.h>

#include "backward.h"
#include "imprint.h"
#include "machine.h"

void report_plan(const struct quantize_job *job, const struct plan *choice)
{
    static const char *const reasons[] = { "kept", "mix", "rule", "rows do not divide", "measured" };
    size_t before = 0, after = 0, values = 0;
    for (size_t i = 0; i < job->input->tensor_count; i++) {
        const struct gguf_tensor *t = &job->input->tensors[i];
        const struct plan_item *item = &job->plan[i];
        char shown[100];
        size_t bytes = quantize_tensor_bytes(job, i);
        text_escape(shown, sizeof shown, t->name.text, t->name.n);
        printf("%-40s %6zu x %-6zu  %-5s -> %-7s  %12zu bytes  %s", shown, t->shape[0], t->shape[1] * t->shape[2] * t->shape[3],
               format_find(t->type)->name, format_find(item->format)->name, bytes, reasons[item->reason]);
        if (item->reason == PLAN_FALLBACK)
            printf(" into %s's blocks", format_find(item->wanted)->name);
        if (item->needs_importance && !job->matrix)
            printf(", needs --imatrix");
        printf("\n");
        before += t->bytes, after += bytes, values += t->shape[0] * t->shape[1] * t->shape[2] * t->shape[3];
    }
    if (choice->count)
        printf("KL: %.5f predicted", choice->predicted);
    if (choice->measured > 0)
        printf(", %.5f +- %.5f measured on calibration text, %zu of %zu swaps kept", choice->measured, choice->measured_error,
               choice->swaps, choice->tried);
    if (choice->count)
        printf("\n");
    printf("tensors: %zu bytes -> %zu bytes, %.3f bits per weight; buffers: %zu bytes\n", before, after,
           8.0 * (double)after / (double)(values ? values : 1), quantize_memory(job, job->refine != NULL));
}

/* ---- memory -------------------------------------------------------------------------------------------------------------- */

/* The stages do not overlap: the largest one is what the run takes, beside the weights of the model that is run. */
static bool report_memory(const struct quantize_job *job, const struct report_work *w, struct quern_error *err)
{
    static const char *const names[] = { "planning", "second moments", "rounding" };
    struct imprint_options imprint = { .calibration = w->calibration, .mem_limit = job->mem_limit, .pool = job->pool };
    size_t bytes[3] = { w->planning, 0, quantize_memory(job, w->feedback) }, most = 0, weights = 0;
    if (w->moments && !imprint_bytes(&bytes[1], w->model, &imprint, err)) {
        if (err->code != QUERN_EUSAGE)      /* too little text: no moments are gathered, as a run would say */
            return false;
        bytes[1] = 0;
    }
    for (size_t i = 0; i < 3; i++) {
        /* Under a limit, text is taken in smaller pieces until it is held. */
        bytes[i] = job->mem_limit && bytes[i] > job->mem_limit ? job->mem_limit : bytes[i];
        most = bytes[i] > bytes[most] ? i : most;
    }
    for (size_t i = 0; i < job->input->tensor_count; i++)
        weights += job->input->tensors[i].bytes;
    printf("memory: about %zu bytes of buffers (%s), beside %zu bytes of weights that are run\n", bytes[most], names[most],
           weights);
    return true;
}

/* ---- time ---------------------------------------------------------------------------------------------------------------- */

/* Error feedback per value and input, in multiplications of the f32 pass: four products of H, the carrying and a descent that moves
 * a part of the codes, all of them sums of vectors, which are slower than products of matrices. Rows of 2048 as Q4_K take 6.5e-10 s
 * per value and input on one core, a multiplication of the pass 2.1e-11 s. */
static const double FEEDBACK_PASSES = 32;
/* Values of a type that are timed. */
static const size_t TIMED_VALUES = (size_t)1 << 16;

static double tensor_values(const struct gguf_tensor *t)
{
    return (double)t->shape[0] * (double)t->shape[1] * (double)t->shape[2] * (double)t->shape[3];
}

/* Seconds to round a value of tensor i; the better of two, as the first reads the file. */
static bool time_value(const struct quantize_job *job, size_t i, double *seconds, struct quern_error *err)
{
    const struct gguf_tensor *t = &job->input->tensors[i];
    size_t rows = t->shape[1] * t->shape[2] * t->shape[3], wanted = TIMED_VALUES / t->shape[0] + 1;
    size_t every = rows > wanted ? rows / wanted : 1, sampled = (rows + every - 1) / every;
    for (int turn = 0; turn < 2; turn++) {
        double error, begin = machine_clock();
        if (!quantize_errors(job, i, &job->plan[i].format, 1, TIMED_VALUES, &error, err))
            return false;
        double each = (machine_clock() - begin) / ((double)sampled * (double)t->shape[0]);
        *seconds = turn && *seconds < each ? *seconds : each;
    }
    return true;
}

/* The search of all tensors, one of each type timed. */
static bool search_seconds(const struct quantize_job *job, double *seconds, struct quern_error *err)
{
    double each[FORMAT_COUNT] = { 0 };
    *seconds = 0;
    for (size_t i = 0; i < job->input->tensor_count; i++) {
        const struct gguf_tensor *t = &job->input->tensors[i];
        uint32_t format = job->plan[i].format;
        if (format == t->type || !(tensor_values(t) > 0))
            continue;
        if (!(each[format] > 0) && !time_value(job, i, &each[format], err))
            return false;
        *seconds += each[format] * tensor_values(t);
    }
    return true;
}

/* Multiplications per second of the pass in f32 that gathers second moments, its weights decoded on the way; the better of two. */
static bool moments_rate(const struct quantize_job *job, const struct report_work *w, double *rate, struct quern_error *err)
{
    const struct model *m = &w->model->model;
    size_t context = m->hyper.context ? m->hyper.context : 512, length = context < 512 ? context : 512, together = 1024 / length;
    struct calibration text = { 0 };
    struct backward b;
    double passed = (double)m->parameters - (double)m->output.rows * (double)m->output.cols;
    if (!calibration_open(&text, w->calibration, CALIBRATION_FIT, w->model, length, err))
        return false;
    together = text.count / length < together ? text.count / length : together;
    bool ok = backward_init(&b, m, &w->model->kernels, job->pool, together * length, length, err);
    for (int turn = 0; ok && turn < 2; turn++) {
        double begin = machine_clock();
        backward_forward(&b, text.tokens, together, length, NULL, NULL);
        double seen = passed * (double)(together * length) / (machine_clock() - begin);
        *rate = turn && *rate > seen ? *rate : seen;
    }
    if (ok)
        backward_free(&b);
    calibration_close(&text);
    return ok;
}

/* Multiplications per second of a forward pass, and the texts' tokens. The best of three: the first reads the file, and others use
 * the machine too. */
static bool forward_rate(const struct quantize_job *job, const struct report_work *w, double *rate, double *fit, double *held,
                         struct quern_error *err)
{
    struct calibration text = { 0 }, other = { 0 };
    struct measure m = { 0 };
    size_t context = w->model->model.hyper.context, chunk = context && context < 256 ? context : 256;
    bool ok = calibration_open(&text, w->calibration, CALIBRATION_FIT, w->model, chunk, err) &&
              calibration_open(&other, w->heldout, CALIBRATION_HELDOUT, w->model, chunk, err);
    *rate = 0;
    for (int turn = 0; ok && turn < 3; turn++) {
        double begin = machine_clock();
        ok = measure_init(&m, w->model, text.tokens, chunk, 1, job->pool, job->stop, err);
        double seen = (double)w->model->model.parameters * (double)chunk / (machine_clock() - begin);
        *rate = seen > *rate ? seen : *rate;
        measure_free(&m);
    }
    *fit = (double)text.count, *held = (double)other.count;
    calibration_close(&text);
    calibration_close(&other);
    return ok;
}

/* An input that another tensor of the layer has too (q and k, gate and up): its moments are gathered once. */
static bool shares_input(const struct gguf *g, size_t i)
{
    return i && g->tensors[i].dims > 1 && g->tensors[i - 1].dims > 1 && g->tensors[i].shape[0] == g->tensors[i - 1].shape[0];
}

struct seconds { double moments, feedback, receipt; };

static void count_work(struct seconds *s, const struct quantize_job *job, const struct report_work *w, double rate, double slow,
                       double fit, double held)
{
    double parameters = (double)w->model->model.parameters + 1, most = 0x1p43 / parameters;
    double tokens = (double)imprint_tokens(w->model);
    double head = (double)w->model->model.output.rows * (double)w->model->model.output.cols;
    tokens = tokens < fit ? tokens : fit;
    s->moments = w->moments ? tokens * (parameters - head) / slow : 0;
    for (size_t i = 0; i < job->input->tensor_count; i++) {
        const struct gguf_tensor *t = &job->input->tensors[i];
        double n = (double)t->shape[0];
        if (job->plan[i].format == t->type || !feedback_supports(job->plan[i].format) || t->dims < 2)
            continue;
        /* A triangle of products per token; the factor of each matrix in doubles. */
        s->moments += w->moments && !shares_input(job->input, i) ? tokens * n * n / 2 / slow : 0;
        s->feedback += w->feedback ? (FEEDBACK_PASSES * n * tensor_values(t) + 2 * n * n * n) / slow : 0;
    }
    s->receipt = w->receipt ? 2 * (held < most ? held : most) * parameters / rate : 0;
}

bool report_time(const struct quantize_job *job, const struct report_work *w, struct quern_error *err)
{
    double search, rate = 1, slow = 1, fit = 0, held = 0;
    struct seconds s = { 0 };
    if (!search_seconds(job, &search, err) || (w->model && !forward_rate(job, w, &rate, &fit, &held, err)) ||
        ((w->moments || w->feedback) && !moments_rate(job, w, &slow, err)))
        return false;
    if (w->model)
        count_work(&s, job, w, rate, slow, fit, held);
    printf("time: about %.0f s: plan %.0f s, second moments %.0f s, rounding %.1f s, error feedback %.0f s, receipt %.0f s\n",
           ceil(w->planned + s.moments + search + s.feedback + s.receipt), w->planned, s.moments, search, s.feedback, s.receipt);
    return !w->model || report_memory(job, w, err);
}

void report_feedback(const struct quantize_job *job)
{
    size_t done = 0;
    char shown[100], experts[200];
    if (!job->refine)
        return;
    for (size_t i = 0; i < job->input->tensor_count; i++)
        done += job->notes[i].experts > job->notes[i].without;
    fprintf(stderr, "error feedback: %zu tensors\n", done);
    for (size_t i = 0; i < job->input->tensor_count; i++) {
        const struct refine_note *note = &job->notes[i];
        text_escape(shown, sizeof shown, job->input->tensors[i].name.text, job->input->tensors[i].name.n);
        refine_experts(experts, sizeof experts, note);
        if (note->without)
            fprintf(stderr, "  %s: %zu of %zu without%s%s: %s (%zu tokens, %zu inputs)\n", shown, note->without, note->experts,
                    *experts ? ", " : "", experts, refine_reason(note->outcome), note->tokens, job->input->tensors[i].shape[0]);
        if (note->dead)
            fprintf(stderr, "  %s: %zu inputs never moved\n", shown, note->dead);
    }
}
