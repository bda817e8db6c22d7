/* Importance matrices: llama-imatrix's file read, written and read again; wrong files refused. */
#include "imatrix.h"
#include "bytes.h"
#include "formats.h"
#include "test.h"

#include <stdlib.h>
#include <string.h>

/* One matrix "a.weight" of 4 inputs and `experts` experts. */
struct parts { const char *type, *sums, *counts; uint64_t inputs, experts, counted; float value, tokens; uint32_t format; };
static const struct parts good = { "imatrix", "a.weight.in_sum2", "a.weight.counts", 4, 2, 2, 6, 3, FORMAT_F32 };

static const char *save(const struct parts *p, const char *name)
{
    struct bytes b = { 0 };
    uint64_t sums[2] = { p->inputs, p->experts }, counts[2] = { 1, p->counted };
    const char *path = temp_path(name);
    put_header(&b, 2, 1);
    put_key_text(&b, "general.type", p->type);
    put_tensor(&b, p->sums, 2, sums, p->format, 0);
    put_tensor(&b, p->counts, 2, counts, FORMAT_F32, 32);
    put_pad(&b, 32);
    for (int i = 0; i < 8; i++)
        put_f32(&b, i == 3 ? p->value : 6);
    put_f32(&b, p->tokens);
    put_f32(&b, 0);
    put_zeros(&b, 24);
    bytes_save(&b, path);
    bytes_free(&b);
    return path;
}

static void sums_become_means(void)
{
    struct imatrix m;
    struct quern_error err;
    if (!imatrix_open(&m, save(&good, "good.gguf"), &err)) {
        CHECK(false, "%s", err.text);
        return;
    }
    const struct imatrix_entry *e = imatrix_find(&m, (struct gguf_string){ "a.weight.x", 8 });
    CHECK(e && e->inputs == 4 && e->experts == 2, "the entry");
    CHECK(e && e->mean[0] == 2 && e->mean[7] == 1, "means; an expert without tokens counts as 1");
    CHECK(!imatrix_find(&m, (struct gguf_string){ "a.weigh", 7 }) && !imatrix_find(&m, (struct gguf_string){ "b", 1 }), "others");
    imatrix_close(&m);
}

static void wrong_files_are_refused(void)
{
    struct parts cases[] = { good, good, good, good, good, good, good, good };
    cases[0].type = "model";
    cases[1].counts = "b.weight.counts";
    cases[2].value = -1;
    cases[3].value = __builtin_nanf("");
    cases[4].tokens = 0;
    cases[5].tokens = -1;
    cases[6].format = FORMAT_I32;
    cases[7].sums = "a.weight.sum";
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct imatrix m;
        struct quern_error err;
        bool open = imatrix_open(&m, save(&cases[i], "wrong.gguf"), &err);
        CHECK(!open && err.code == QUERN_EFORMAT, "case %zu", i);
        if (open)
            imatrix_close(&m);
    }
}

static void llama_imatrix_s_file(void)
{
    struct imatrix m, again;
    struct quern_error err;
    const char *copy = temp_path("copy.imatrix.gguf");
    if (!imatrix_open(&m, shared_path("models/tiny-books/peers/tiny-books.imatrix.gguf"), &err)) {
        CHECK(false, "%s", err.text);
        return;
    }
    CHECK(m.count == 42 && m.chunk_size == 512 && m.chunks > 0, "%zu entries, chunks of %u", m.count, m.chunk_size);
    CHECK(imatrix_write(copy, &m, true, &err), "%s", err.text);
    bool open = imatrix_open(&again, copy, &err);
    CHECK(open, "%s", err.text);
    for (size_t i = 0; open && i < m.count; i++) {
        const struct imatrix_entry *a = &m.entries[i], *b = &again.entries[i];
        CHECK(!strcmp(a->name, b->name) && a->inputs == b->inputs && a->tokens[0] == b->tokens[0], "%s", a->name);
        for (size_t j = 0; j < a->inputs; j++)
            CHECK(__builtin_fabsf(a->mean[j] - b->mean[j]) <= 2e-7f * a->mean[j], "%s, input %zu", a->name, j);
    }
    CHECK(open && !strcmp(m.dataset, again.dataset) && m.chunks == again.chunks, "keys");
    if (open)
        imatrix_close(&again);
    imatrix_close(&m);
}

int main(void)
{
    TEST(sums_become_means);
    TEST(wrong_files_are_refused);
    if (shared_path("models/tiny-books/peers/tiny-books.imatrix.gguf"))
        TEST(llama_imatrix_s_file);
    else
        test_skip("llama_imatrix_s_file", "shared/ is not here");
    return test_end();
}
