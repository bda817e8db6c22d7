/* gen_edit IN OUT EDIT... - write a GGUF file again with edits, for files that are whole models but for one thing:
 *     drop TENSOR | transpose TENSOR | rows TENSOR N | extra TENSOR | fill TENSOR BLOCK BYTE | reverse
 *     unset KEY | u32 KEY N | f32 KEY X | text KEY TEXT
 * fill sets every byte of a block (255 makes its scale, or itself, NaN in most formats); rows keeps the first N rows; reverse
 * turns the order of keys and tensors round. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats.h"
#include "gguf.h"

enum { EDITS = 16 };

struct edit { const char *verb, *name, *value, *second; };

static const struct { const char *verb; int args; } verbs[] = {
    { "drop", 1 }, { "transpose", 1 }, { "rows", 2 }, { "extra", 1 }, { "fill", 3 }, { "reverse", 0 },
    { "unset", 1 }, { "u32", 2 }, { "f32", 2 }, { "text", 2 },
};

static size_t parse(int argc, char **argv, struct edit *edits)
{
    size_t n = 0;
    for (int i = 3; i < argc && n < EDITS; n++) {
        int args = -1;
        for (size_t k = 0; k < sizeof verbs / sizeof *verbs; k++)
            if (!strcmp(argv[i], verbs[k].verb))
                args = verbs[k].args;
        if (args < 0 || i + args >= argc) {
            fprintf(stderr, "gen_edit: what is '%s'?\n", argv[i]);
            exit(QUERN_EUSAGE);
        }
        edits[n] = (struct edit){ argv[i], args > 0 ? argv[i + 1] : "", args > 1 ? argv[i + 2] : "", args > 2 ? argv[i + 3] : "" };
        i += 1 + args;
    }
    return n;
}

static const struct edit *find(const struct edit *edits, size_t n, const char *verb, struct gguf_string name)
{
    for (size_t i = 0; i < n; i++)
        if (!strcmp(edits[i].verb, verb) && gguf_string_is(name, edits[i].name))
            return &edits[i];
    return NULL;
}

/* The new value of a key, false when it is to be left out. */
static bool edit_value(const struct edit *edits, size_t n, struct gguf_string key, struct gguf_value *value)
{
    const struct edit *e;
    if (find(edits, n, "unset", key))
        return false;
    if ((e = find(edits, n, "u32", key)) != NULL)
        *value = (struct gguf_value){ .type = GGUF_U32, .as.u = (uint32_t)strtoull(e->value, NULL, 0) };
    if ((e = find(edits, n, "f32", key)) != NULL)
        *value = (struct gguf_value){ .type = GGUF_F32, .as.f = strtod(e->value, NULL) };
    if ((e = find(edits, n, "text", key)) != NULL)
        *value = (struct gguf_value){ .type = GGUF_STRING, .as.string = { e->value, strlen(e->value) } };
    return true;
}

static bool write_keys(struct gguf_writer *w, const struct gguf *g, const struct edit *edits, size_t n, bool reverse,
                       struct quern_error *err)
{
    for (size_t i = 0; i < g->kv_count; i++) {
        const struct gguf_kv *kv = &g->kvs[reverse ? g->kv_count - 1 - i : i];
        struct gguf_value value = kv->value;
        if (edit_value(edits, n, kv->key, &value) && !gguf_writer_value(w, kv->key.text, kv->key.n, &value, err))
            return false;
    }
    for (size_t i = 0; i < n; i++) {       /* keys that were not there */
        struct gguf_value value;
        bool sets = !strcmp(edits[i].verb, "u32") || !strcmp(edits[i].verb, "f32") || !strcmp(edits[i].verb, "text");
        struct gguf_string key = { edits[i].name, strlen(edits[i].name) };
        if (sets && !gguf_find(g, edits[i].name) && edit_value(edits, n, key, &value) &&
            !gguf_writer_value(w, key.text, key.n, &value, err))
            return false;
    }
    return true;
}

static bool edit_tensor(const struct edit *edits, size_t n, struct gguf_tensor *t)
{
    const struct edit *e;
    if (find(edits, n, "drop", t->name))
        return false;
    if (find(edits, n, "transpose", t->name)) {
        size_t rows = t->shape[1];
        t->shape[1] = t->shape[0];
        t->shape[0] = rows;
    }
    if ((e = find(edits, n, "rows", t->name)) != NULL) {
        size_t rows = strtoul(e->value, NULL, 0);
        t->bytes = t->bytes / t->shape[1] * rows;
        t->shape[1] = rows;
    }
    return true;
}

static bool write_data(struct gguf_writer *w, const struct edit *edits, size_t n, const struct gguf_tensor *t,
                       struct quern_error *err)
{
    const struct edit *e = find(edits, n, "fill", t->name);
    if (!e)
        return gguf_writer_data(w, t->data, t->bytes, err);
    size_t block = format_find(t->type)->bytes, at = strtoul(e->value, NULL, 0) * block;
    uint8_t *copy = mem_take(t->bytes, 1, "a tensor", err);
    if (!copy)
        return false;
    memcpy(copy, t->data, t->bytes);
    for (size_t i = at; i < at + block && i < t->bytes; i++)
        copy[i] = (uint8_t)strtoul(e->second, NULL, 0);
    bool ok = gguf_writer_data(w, copy, t->bytes, err);
    free(copy);
    return ok;
}

static bool write_tensors(struct gguf_writer *w, const struct gguf *g, const struct edit *edits, size_t n, bool reverse,
                          struct quern_error *err)
{
    static const float nothing[8];
    for (int data = 0; data <= 1; data++) {
        for (size_t i = 0; i < g->tensor_count; i++) {
            struct gguf_tensor t = g->tensors[reverse ? g->tensor_count - 1 - i : i];
            if (edit_tensor(edits, n, &t) && !(data ? write_data(w, edits, n, &t, err) : gguf_writer_tensor(w, &t, err)))
                return false;
        }
        for (size_t i = 0; i < n; i++) {
            struct gguf_tensor t = { .name = { edits[i].name, strlen(edits[i].name) }, .type = FORMAT_F32, .dims = 1,
                                     .shape = { 8, 1, 1, 1 } };
            if (!strcmp(edits[i].verb, "extra") &&
                !(data ? gguf_writer_data(w, nothing, sizeof nothing, err) : gguf_writer_tensor(w, &t, err)))
                return false;
        }
    }
    return gguf_writer_commit(w, err);
}

int main(int argc, char **argv)
{
    struct quern_error err;
    struct edit edits[EDITS];
    struct gguf g;
    if (argc < 3) {
        fprintf(stderr, "usage: gen_edit IN OUT EDIT...\n");
        return QUERN_EUSAGE;
    }
    size_t n = parse(argc, argv, edits);
    bool reverse = false;
    for (size_t i = 0; i < n; i++)
        reverse = reverse || !strcmp(edits[i].verb, "reverse");
    if (!gguf_open(&g, argv[1], NULL, &err)) {
        fprintf(stderr, "gen_edit: %s\n", err.text);
        return (int)err.code;
    }
    struct gguf_writer_options options = { .force = true, .version = g.version, .inputs = g.parts, .input_count = g.part_count };
    struct gguf_writer *w = gguf_writer_open(argv[2], &options, &err);
    bool ok = w && write_keys(w, &g, edits, n, reverse, &err) && write_tensors(w, &g, edits, n, reverse, &err);
    if (!ok)
        fprintf(stderr, "gen_edit: %s\n", err.text);
    gguf_writer_close(w);
    gguf_close(&g);
    return ok ? 0 : (int)err.code;
}
