#include "gguf_plan.h"

#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "hf_model.h"

/* Ends of the names of matrices that every program reads as F32: norms, routers, convolutions, positions. */
static const char *const exact[] = {
    "_norm.weight", "ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight", "position_embd.weight", "token_types.weight",
    "ssm_conv1d.weight", "ssm_conv1d_q.weight", "ssm_conv1d_k.weight", "ssm_conv1d_v.weight", "shortconv.conv.weight",
    "time_mix_first.weight", "time_mix_w1.weight", "time_mix_w2.weight", "time_mix_decay_w1.weight", "time_mix_decay_w2.weight",
    "time_mix_lerp_fused.weight", "altup_correct_coef.weight", "altup_predict_coef.weight",
};

static bool ends_with(const char *text, const char *with)
{
    size_t n = strlen(text), m = strlen(with);
    return n >= m && !strcmp(text + n - m, with);
}

static bool wants_type(const struct emit_tensor *t, uint32_t type)
{
    const struct format *format = format_find(t->source_type);
    if (type == FORMAT_COUNT || !format->weights)
        return false;
    if (type == FORMAT_F32)
        return true;
    if (t->dims < 2 || !ends_with(t->name, ".weight"))
        return false;
    for (size_t i = 0; i < sizeof exact / sizeof *exact; i++)
        if (ends_with(t->name, exact[i]))
            return false;
    return true;
}

static void choose(struct gguf_plan *plan, struct emit_tensor *t, uint32_t type, const struct kernels *kernels)
{
    t->type = t->source_type;
    if (!wants_type(t, type) || type == t->source_type)
        return;
    if (emit_possible(t, type, kernels)) {
        t->type = type;
        plan->changed++;
        return;
    }
    char shown[160];
    plan->kept++;
    text_escape(shown, sizeof shown, t->name, strlen(t->name));
    cli_warn("'%s': rows of %zu values do not divide into blocks of %s; it stays %s", shown, t->shape[0],
             format_find(type)->name, format_find(t->source_type)->name);
}

bool gguf_plan(struct gguf_plan *plan, const struct gguf *in, uint32_t type, const struct kernels *kernels, struct quern_error *err)
{
    *plan = (struct gguf_plan){ .count = in->tensor_count };
    plan->tensors = mem_take(plan->count, sizeof *plan->tensors, "the tensors", err);
    plan->slices = plan->tensors ? mem_take(plan->count, sizeof *plan->slices, "the tensors", err) : NULL;
    if (!plan->slices) {
        gguf_plan_free(plan);
        return false;
    }
    for (size_t i = 0; i < plan->count; i++) {
        const struct gguf_tensor *from = &in->tensors[i];
        struct emit_tensor *t = &plan->tensors[i];
        memcpy(t->name, from->name.text, from->name.n);
        memcpy(t->shape, from->shape, sizeof t->shape);
        t->dims = from->dims;
        t->source_type = from->type;
        plan->slices[i] = from->data;
        t->slices = &plan->slices[i];
        t->slice_count = 1;
        choose(plan, t, type, kernels);
    }
    return true;
}

void gguf_plan_free(struct gguf_plan *plan)
{
    free(plan->tensors);
    free(plan->slices);
    *plan = (struct gguf_plan){ 0 };
}

bool gguf_copy_keys(const struct gguf *in, uint32_t type, struct gguf_writer *w, struct quern_error *err)
{
    bool said = type == FORMAT_COUNT;
    for (size_t i = 0; i < in->kv_count; i++) {
        const struct gguf_kv *kv = &in->kvs[i];
        bool split = gguf_string_is(kv->key, "split.no") || gguf_string_is(kv->key, "split.count") ||
                     gguf_string_is(kv->key, "split.tensors.count");
        bool file_type = gguf_string_is(kv->key, "general.file_type");
        if (split)
            continue;
        if (file_type && type != FORMAT_COUNT) {
            said = true;
            if (!gguf_writer_u32(w, "general.file_type", file_type_of(type), err))
                return false;
        } else if (!gguf_writer_value(w, kv->key.text, kv->key.n, &kv->value, err)) {
            return false;
        }
    }
    return said || gguf_writer_u32(w, "general.file_type", file_type_of(type), err);
}
