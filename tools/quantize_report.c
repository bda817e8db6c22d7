#include "quantize_report.h"

#include <stdio.h>

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
           8.0 * (double)after / (double)(values ? values : 1), quantize_memory(job));
}

void report_feedback(const struct quantize_job *job)
{
    size_t done = 0;
    char shown[100];
    if (!job->refine)
        return;
    for (size_t i = 0; i < job->input->tensor_count; i++)
        done += job->notes[i].experts > job->notes[i].without;
    fprintf(stderr, "error feedback: %zu tensors\n", done);
    for (size_t i = 0; i < job->input->tensor_count; i++) {
        const struct refine_note *note = &job->notes[i];
        text_escape(shown, sizeof shown, job->input->tensors[i].name.text, job->input->tensors[i].name.n);
        if (note->without)
            fprintf(stderr, "  %s: %zu of %zu without: %s (%zu tokens, %zu inputs)\n", shown, note->without, note->experts,
                    refine_reason(note->outcome), note->tokens, job->input->tensors[i].shape[0]);
        if (note->dead)
            fprintf(stderr, "  %s: %zu inputs never moved\n", shown, note->dead);
    }
}
