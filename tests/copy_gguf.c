#include "copy_gguf.h"

static bool copy_all(const struct gguf *g, struct gguf_writer *w, size_t piece, struct quern_error *err)
{
    for (size_t i = 0; i < g->kv_count; i++)
        if (!gguf_writer_value(w, g->kvs[i].key.text, g->kvs[i].key.n, &g->kvs[i].value, err))
            return false;
    for (size_t i = 0; i < g->tensor_count; i++)
        if (!gguf_writer_tensor(w, &g->tensors[i], err))
            return false;
    for (size_t i = 0; i < g->tensor_count; i++) {
        const struct gguf_tensor *t = &g->tensors[i];
        for (size_t at = 0; at < t->bytes; at += piece)
            if (!gguf_writer_data(w, t->data + at, t->bytes - at < piece ? t->bytes - at : piece, err))
                return false;
    }
    return gguf_writer_commit(w, err);
}

bool copy_gguf(const char *from, const char *to, bool force, size_t piece, struct quern_error *err)
{
    struct gguf g;
    if (!gguf_open(&g, from, &(struct gguf_options){ .header_only = true }, err))
        return false;
    struct gguf_writer_options options = {
        .force = force, .version = g.version, .inputs = g.parts, .input_count = g.part_count, .unpadded = g.unpadded,
    };
    struct gguf_writer *w = gguf_writer_open(to, &options, err);
    bool ok = w && copy_all(&g, w, piece, err);
    gguf_writer_close(w);
    gguf_close(&g);
    return ok;
}
