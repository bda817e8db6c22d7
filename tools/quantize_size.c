#include "quantize_run.h"

#include <stdlib.h>
#include <string.h>

#include "adaptive.h"

size_t run_padded_bytes(size_t bytes)
{
    return (bytes + GGUF_ALIGNMENT - 1) / GGUF_ALIGNMENT * GGUF_ALIGNMENT;
}

size_t run_file_bytes(const struct run *r)
{
    size_t sum = r->input.data_offset;
    for (size_t i = 0; i < r->input.tensor_count; i++)
        sum += run_padded_bytes(quantize_tensor_bytes(&r->job, i));
    return sum;
}

bool run_wanted_bytes(const struct run *r, size_t *out, struct quern_error *err)
{
    const struct quantize_args *a = r->args;
    double values = 0, ratio;
    size_t before = 0;
    char *end;
    for (size_t i = 0; i < r->input.tensor_count; i++) {
        const size_t *s = r->input.tensors[i].shape;
        values += (double)s[0] * (double)s[1] * (double)s[2] * (double)s[3];
    }
    for (size_t i = 0; i < r->input.part_count; i++)
        before += r->input.parts[i].size;
    *out = run_file_bytes(r);
    if (a->size)
        *out = a->size;
    if (a->bpw > 0)
        *out = (size_t)(a->bpw * values / 8);
    if (a->ratio) {
        ratio = strtod(a->ratio, &end);
        if (end == a->ratio || (*end && strcmp(end, "x")) || !(ratio > 1 && ratio < 1000))
            return ERR(err, QUERN_EUSAGE, "--ratio: '%s' is no number above 1 (4x, say)", a->ratio);
        *out = (size_t)((double)before / ratio);
    }
    return true;
}

/* Without --type the mix whose size is nearest lends its name to general.file_type and its types to what is not measured. */
bool run_nearest_preset(struct run *r, struct quern_error *err)
{
    static const char *const names[] = { "IQ2_XS", "IQ2_M", "IQ3_XXS", "IQ3_S", "Q3_K_M", "IQ4_XS", "Q4_K_M", "Q5_K_M", "Q6_K",
                                         "Q8_0" };
    double nearest = 0;
    const struct preset *best = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const struct preset *preset = preset_find(names[i]);
        size_t wanted;
        if (!preset_plan(r->plan, &r->input, preset, r->rules, r->rule_count, true, err) || !run_wanted_bytes(r, &wanted, err))
            return false;
        double away = (double)run_file_bytes(r) - (double)wanted;
        away = away < 0 ? -away : away;
        if (!best || away < nearest)
            best = preset, nearest = away;
    }
    r->preset = best;
    return true;
}

/* Room on the disk, before hours of work: the file, the same before its receipt, second moments, the journal. */
bool run_check_space(struct run *r, struct quern_error *err)
{
    const struct quantize_args *a = r->args;
    size_t file, before = 0, more = 0;
    bool staged = r->adaptive || a->fail_if || a->tune;
    if (a->dry_run)
        return true;
    if (!preset_plan(r->plan, &r->input, r->preset ? r->preset : preset_find("Q4_K_M"), r->rules, r->rule_count, true, err) ||
        !run_wanted_bytes(r, &file, err))
        return false;
    for (size_t i = 0; i < r->input.part_count; i++)
        before += r->input.parts[i].size;
    /* More than everything as it is, is never written. */
    file = file < before ? file : before;
    if (r->adaptive)
        more = adaptive_disk(r->model, !a->no_search, !a->no_feedback && !a->stats);
    return workplace_space(&r->work, a->args.operands[1], file + (staged ? file + more : 0), err);
}
