#include "plan.h"

#include <stdlib.h>

#include "variant.h"

/* Types that a plan may choose from, smallest first; those of 256 come before those of 32 that are as large. Below the first ones
 * nothing is gained on models that are to stay useful. */
static const uint32_t choices[] = {
    FORMAT_IQ2_XXS, FORMAT_IQ2_XS, FORMAT_IQ2_S, FORMAT_Q2_K, FORMAT_IQ3_XXS, FORMAT_IQ3_S, FORMAT_Q3_K, FORMAT_IQ4_XS,
    FORMAT_IQ4_NL,  FORMAT_Q4_0,   FORMAT_Q4_K,  FORMAT_Q5_0, FORMAT_Q5_K,    FORMAT_Q5_1,  FORMAT_Q6_K, FORMAT_Q8_0,
    FORMAT_BF16,    FORMAT_F16,
};

/* Worthless without importances, as llama.cpp too says. */
static bool wants_importance(uint32_t format)
{
    return format == FORMAT_IQ2_XXS || format == FORMAT_IQ2_XS || format == FORMAT_IQ2_S || format == FORMAT_IQ3_XXS;
}

static void add_types(struct plan_tensor *t, const struct quantize_job *job, bool draft)
{
    const struct gguf_tensor *tensor = &job->input->tensors[t->tensor];
    bool importance = draft || (job->matrix && imatrix_find(job->matrix, tensor->name));
    for (size_t c = 0; c < sizeof choices / sizeof *choices; c++) {
        const struct format *f = format_find(choices[c]);
        bool narrow = f->block == 32 && f->id != FORMAT_Q8_0;
        /* Whole values where a small tensor can have them for what is left of the budget; of the two kinds the source's own. */
        if (f->block == 1 && (f->id == FORMAT_BF16) != (tensor->type == FORMAT_BF16))
            continue;
        /* The 32-block types are for rows that take no others. */
        if (tensor->shape[0] % f->block || (narrow && tensor->shape[0] % 256 == 0) || (wants_importance(f->id) && !importance))
            continue;
        t->type[t->count] = f->id;
        t->choice[t->count++].bytes = quantize_bytes_as(job, t->tensor, f->id);
    }
}

bool plan_init(struct plan *p, const struct quantize_job *job, const struct quern_model *source, bool draft,
               struct quern_error *err)
{
    struct variant v;
    size_t n = job->input->tensor_count;
    *p = (struct plan){ .file = job->input };
    p->tensors = mem_take(n, sizeof *p->tensors, "the plan", err);
    p->items = p->tensors ? mem_take(n, sizeof *p->items, "the plan", err) : NULL;
    if (!p->items || !variant_init(&v, source, err)) {
        plan_free(p);
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        bool free_choice = job->plan[i].reason == PLAN_PRESET || job->plan[i].reason == PLAN_FALLBACK;
        if (!free_choice || !variant_set(&v, i, job->input->tensors[i].type, job->input->tensors[i].data))
            continue;
        struct plan_tensor *t = &p->tensors[p->count];
        t->tensor = i;
        t->plain[0] = t->plain[1] = t->fed[0] = t->fed[1] = -1;
        add_types(t, job, draft);
        if (t->count == 0)
            continue;
        p->items[p->count++] = (struct allocate_item){ .choices = t->choice, .count = t->count };
    }
    variant_free(&v);
    return true;
}

void plan_free(struct plan *p)
{
    free(p->tensors);
    free(p->items);
    *p = (struct plan){ 0 };
}

size_t plan_bytes(const struct plan *p)
{
    return allocate_bytes(p->items, p->count);
}

size_t plan_largest(const struct plan *p)
{
    size_t most = 0;
    for (size_t i = 0; i < p->count; i++)
        for (size_t c = 0; c < p->tensors[i].count; c++)
            most = p->tensors[i].choice[c].bytes > most ? p->tensors[i].choice[c].bytes : most;
    return most;
}

void plan_apply(const struct plan *p, struct plan_item *items)
{
    for (size_t i = 0; i < p->count; i++) {
        struct plan_item *item = &items[p->tensors[i].tensor];
        item->format = item->wanted = p->tensors[i].type[p->items[i].chosen];
        item->reason = PLAN_MEASURED;
        item->needs_importance = wants_importance(item->format);
    }
}

bool plan_allocate(struct plan *p, size_t budget, struct quern_error *err)
{
    if (!allocate(p->items, p->count, budget, NULL, err))
        return false;
    p->predicted = allocate_loss(p->items, p->count);
    p->measured = p->measured_error = 0;
    return true;
}
