#include "variant.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* Every matrix of a layer. */
static const size_t places[] = {
    offsetof(struct layer, q), offsetof(struct layer, k), offsetof(struct layer, v), offsetof(struct layer, out),
    offsetof(struct layer, q_a), offsetof(struct layer, q_b), offsetof(struct layer, kv_a), offsetof(struct layer, k_b),
    offsetof(struct layer, v_b), offsetof(struct layer, kv_b), offsetof(struct layer, in_proj), offsetof(struct layer, out_proj),
    offsetof(struct layer, ssm_x), offsetof(struct layer, ssm_dt), offsetof(struct layer, gate_proj), offsetof(struct layer,
                                                                                                               beta_alpha),
    offsetof(struct layer, gate), offsetof(struct layer, up), offsetof(struct layer, down), offsetof(struct layer, router),
    offsetof(struct layer, gate_exps), offsetof(struct layer, up_exps), offsetof(struct layer, down_exps),
    offsetof(struct layer, gate_shared), offsetof(struct layer, up_shared), offsetof(struct layer, down_shared),
    offsetof(struct layer, shared_gate),
};

bool variant_init(struct variant *v, const struct quern_model *source, struct quern_error *err)
{
    size_t layers = source->model.hyper.layers;
    *v = (struct variant){ .model = *source, .source = source };
    v->layers = mem_take(layers, sizeof *v->layers, "layers", err);
    if (!v->layers)
        return false;
    memcpy(v->layers, source->model.layer, layers * sizeof *v->layers);
    v->model.model.layer = v->layers;
    return true;
}

void variant_free(struct variant *v)
{
    free(v->layers);
    *v = (struct variant){ 0 };
}

static bool replace(struct matrix *w, const struct matrix *original, size_t tensor, uint32_t format, const void *data)
{
    if (!w->data || w->tensor != tensor)
        return false;
    if (!data) {
        *w = *original;
        return true;
    }
    format_row_bytes(&w->row_bytes, format_find(format), w->cols);
    w->type = format;
    w->data = (const uint8_t *)data + w->first_row * w->row_bytes;
    return true;
}

bool variant_set(struct variant *v, size_t tensor, uint32_t format, const void *data)
{
    const struct model *from = &v->source->model;
    struct model *to = &v->model.model;
    bool found = replace(&to->embed, &from->embed, tensor, format, data);
    found |= replace(&to->output, &from->output, tensor, format, data);
    for (size_t i = 0; i < from->hyper.layers; i++)
        for (size_t p = 0; p < sizeof places / sizeof *places; p++)
            found |= replace((struct matrix *)((char *)&to->layer[i] + places[p]),
                             (const struct matrix *)((const char *)&from->layer[i] + places[p]), tensor, format, data);
    return found;
}

size_t variant_layer(const struct variant *v, size_t tensor)
{
    const struct model *m = &v->source->model;
    if (m->embed.data && m->embed.tensor == tensor)
        return 0;
    for (size_t i = 0; i < m->hyper.layers; i++)
        for (size_t p = 0; p < sizeof places / sizeof *places; p++) {
            const struct matrix *w = (const struct matrix *)((const char *)&m->layer[i] + places[p]);
            if (w->data && w->tensor == tensor)
                return i;
        }
    return m->hyper.layers;
}
