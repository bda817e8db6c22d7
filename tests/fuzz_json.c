/* Any bytes as a JSON document: no crash, no leak; what was accepted is written and read again. */
#include "json.h"
#include "text.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void write_back(struct text *t, const struct json *j)
{
    switch (j->type) {
    case JSON_NULL:   text_addf(t, "null"); break;
    case JSON_BOOL:   text_addf(t, "%s", j->boolean ? "true" : "false"); break;
    case JSON_NUMBER: text_add_number(t, j->number); break;
    case JSON_STRING: text_add_json(t, j->text, j->n); break;
    default:
        text_add(t, j->type == JSON_ARRAY ? "[" : "{", 1);
        for (size_t i = 0; i < j->n; i++) {
            if (i)
                text_add(t, ",", 1);
            if (j->type == JSON_OBJECT) {
                text_add_json(t, j->items[i]->key, j->items[i]->key_n);
                text_add(t, ":", 1);
            }
            write_back(t, j->items[i]);
        }
        text_add(t, j->type == JSON_ARRAY ? "]" : "}", 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena, again;
    struct quern_error err;
    arena_init(&arena, (size_t)64 << 20);
    arena_init(&again, (size_t)64 << 20);
    const struct json *root = json_parse(&arena, (const char *)data, size, "fuzz", NULL, &err);
    if (root) {
        struct text t = { 0 };
        write_back(&t, root);
        if (!json_parse(&again, t.data, t.n, "again", NULL, &err))
            abort();
        text_free(&t);
    }
    arena_free(&again);
    arena_free(&arena);
    return 0;
}
