/* libFuzzer target: any bytes as a GGUF file. What opens must keep the promises of gguf.h, which are checked here by use. */
#include <stdlib.h>
#include <string.h>

#include "formats.h"
#include "gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool condition)
{
    if (!condition)
        abort();
}

static void use_key(const struct gguf *g, const struct gguf_kv *kv)
{
    struct quern_error err;
    uint32_t u;
    float f;
    bool yes;
    struct gguf_string s;
    char *key = malloc(kv->key.n + 1);
    must(key != NULL);
    memcpy(key, kv->key.text, kv->key.n);
    key[kv->key.n] = '\0';
    must(gguf_find_kv(g, key) == kv);
    (void)gguf_read_u32(g, key, &u, &err);
    (void)gguf_read_f32(g, key, &f, &err);
    (void)gguf_read_bool(g, key, &yes, &err);
    if (gguf_read_string(g, key, &s, &err) && s.n)
        (void)*(const volatile char *)&s.text[s.n - 1];
    free(key);
}

static void use_array(const struct gguf_value *value)
{
    size_t n = value->as.array.n, cursor = 0;
    int64_t i64;
    double f64;
    for (size_t i = 0; i < n && value->as.array.type == GGUF_STRING; i++) {
        struct gguf_string s = gguf_array_string(value, &cursor);
        if (s.n)
            (void)*(const volatile char *)&s.text[s.n - 1];
    }
    must(value->as.array.type != GGUF_STRING || cursor == value->as.array.bytes);
    if (n) {
        (void)gguf_array_i64(value, n - 1, &i64);
        (void)gguf_array_f64(value, n - 1, &f64);
    }
}

static void use_tensor(const struct gguf *g, const struct gguf_tensor *t)
{
    char name[64];
    size_t values = 1, row;
    must(t->name.n > 0 && t->name.n < sizeof name && t->dims >= 1 && t->dims <= 4 && t->part == 0);
    memcpy(name, t->name.text, t->name.n);
    name[t->name.n] = '\0';
    must(gguf_find_tensor(g, name) == t);
    for (size_t i = 0; i < 4; i++)
        must(t->shape[i] > 0 && checked_mul(&values, values, t->shape[i]));
    must(format_row_bytes(&row, format_find(t->type), t->shape[0]) && row * (values / t->shape[0]) == t->bytes && t->bytes > 0);
    must(t->offset < g->parts[0].size && t->bytes <= g->parts[0].size - t->offset && t->data == g->parts[0].data + t->offset);
    (void)*(const volatile uint8_t *)&t->data[t->bytes - 1];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct gguf_options options[2] = { { .limit_metadata = 0 }, { .limit_metadata = 512, .allow_aliased = true } };
    for (size_t k = 0; k < 2; k++) {
        struct quern_error err = { .code = QUERN_OK };
        struct gguf g;
        if (!gguf_view(&g, data, size, "fuzz", &options[k], &err)) {
            must(err.code == QUERN_EFORMAT || err.code == QUERN_EUNSUPPORTED || err.code == QUERN_EMEM);
            must(!strncmp(err.text, "fuzz: ", 6));
            for (const char *p = err.text; *p; p++)
                must((unsigned char)*p >= 0x20 && *p != 0x7f);
            continue;
        }
        for (size_t i = 0; i < g.kv_count; i++) {
            use_key(&g, &g.kvs[i]);
            if (g.kvs[i].value.type == GGUF_ARRAY)
                use_array(&g.kvs[i].value);
        }
        for (size_t i = 0; i < g.tensor_count; i++)
            use_tensor(&g, &g.tensors[i]);
        gguf_close(&g);
    }
    return 0;
}
