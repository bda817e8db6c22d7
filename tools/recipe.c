#include "recipe.h"

#include <stdio.h>
#include <string.h>

#include "formats.h"
#include "json.h"
#include "output.h"
#include "text.h"

static const struct gguf_tensor *tensor_at(const struct plan *p, size_t i)
{
    return &p->file->tensors[p->tensors[i].tensor];
}

static void add_tensor(struct text *out, const struct plan *p, size_t i)
{
    const struct plan_tensor *t = &p->tensors[i];
    text_addf(out, "  ");
    text_add_json(out, tensor_at(p, i)->name.text, tensor_at(p, i)->name.n);
    text_addf(out, ": {\"type\": \"%s\", \"loss\": {", format_find(t->type[p->items[i].chosen])->name);
    for (size_t c = 0; c < t->count; c++) {
        text_addf(out, "%s\"%s\": ", c ? ", " : "", format_find(t->type[c])->name);
        text_add_number(out, (float)t->choice[c].loss);
    }
    text_addf(out, "}}%s\n", i + 1 < p->count ? "," : "");
}

bool recipe_write(const struct plan *p, const char *path, const char *source, bool force, struct quern_error *err)
{
    struct text out = { 0 };
    text_addf(&out, "{\"quern_recipe\": 1, \"source\": ");
    text_add_json(&out, source, strlen(source));
    text_addf(&out, ", \"predicted\": ");
    text_add_number(&out, (float)p->predicted);
    text_addf(&out, ", \"measured\": ");
    text_add_number(&out, (float)p->measured);
    text_addf(&out, ", \"feedback\": %s", p->feedback ? "true" : "false");
    text_addf(&out, ",\n \"tensors\": {\n");
    for (size_t i = 0; i < p->count; i++)
        add_tensor(&out, p, i);
    text_addf(&out, " }}\n");
    if (out.failed) {
        text_free(&out);
        return ERR(err, QUERN_EMEM, "no memory for the recipe");
    }
    struct output file;
    struct output_options options = { .force = force, .inputs = p->file->parts, .input_count = p->file->part_count };
    bool ok = output_open(&file, path, &options, err) && output_write(&file, out.data, out.n, err) &&
              output_commit(&file, err);
    output_close(&file);
    text_free(&out);
    return ok;
}

/* Which of the tensor's types is called so; count when none. */
static size_t type_named(const struct plan_tensor *t, const struct json *name)
{
    const struct format *f = name && name->type == JSON_STRING ? format_by_name(name->text) : NULL;
    for (size_t c = 0; f && c < t->count; c++)
        if (t->type[c] == f->id)
            return c;
    return t->count;
}

static bool read_losses(struct plan_tensor *t, const struct json *losses)
{
    for (size_t c = 0; c < t->count; c++) {
        const struct json *loss = json_get(losses, format_find(t->type[c])->name);
        if (!loss || loss->type != JSON_NUMBER || !(loss->number >= 0))
            return false;
        t->choice[c].loss = (float)loss->number;
    }
    return true;
}

static bool read_tensor(struct plan *p, size_t i, const struct json *tensors, bool *measured, struct quern_error *err)
{
    char name[128], shown[128];
    const struct gguf_string full = tensor_at(p, i)->name;
    snprintf(name, sizeof name, "%.*s", (int)(full.n < 100 ? full.n : 100), full.text);
    text_escape(shown, sizeof shown, full.text, full.n);
    const struct json *row = json_get(tensors, name);
    if (!row)
        return ERR(err, QUERN_EFORMAT, "the recipe has no tensor '%s': made for another model?", shown);
    const struct json *type = row->type == JSON_OBJECT ? json_get(row, "type") : row;
    p->items[i].chosen = type_named(&p->tensors[i], type);
    if (p->items[i].chosen == p->tensors[i].count)
        return ERR(err, QUERN_EFORMAT, "the recipe's type for '%s' is none that this tensor can have", shown);
    *measured = *measured && read_losses(&p->tensors[i], json_get(row, "loss"));
    return true;
}

bool recipe_read(struct plan *p, const char *path, bool *measured, struct quern_error *err)
{
    struct map map;
    struct arena arena;
    if (!map_open(&map, path, err))
        return false;
    arena_init(&arena, (size_t)256 << 20);
    const struct json *root = json_parse(&arena, (const char *)map.data, map.size, path, NULL, err);
    bool ok = root != NULL;
    if (ok) {
        const struct json *version = json_get(root, "quern_recipe"), *tensors = json_get(root, "tensors");
        const struct json *feedback = json_get(root, "feedback");
        p->feedback = feedback && feedback->type == JSON_BOOL && feedback->boolean;
        if (!version || !version->integral || version->integer != 1 || !tensors || tensors->type != JSON_OBJECT)
            ok = ERR(err, QUERN_EFORMAT, "'%s' is no recipe (\"quern_recipe\": 1 and \"tensors\" are expected)", path);
        *measured = true;
        for (size_t i = 0; ok && i < p->count; i++)
            ok = read_tensor(p, i, tensors, measured, err);
        for (size_t i = 0; ok && i < tensors->n; i++) {
            const char *key = tensors->items[i]->key;
            char shown[100];
            if (!gguf_find_tensor(p->file, key))
                ok = ERR(err, QUERN_EFORMAT, "the recipe names a tensor '%s' that the model lacks",
                         text_escape(shown, sizeof shown, key, strlen(key)));
        }
        if (ok)
            p->predicted = allocate_loss(p->items, p->count);
    }
    arena_free(&arena);
    map_close(&map);
    return ok;
}
