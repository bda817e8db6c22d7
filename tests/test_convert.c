/* quern-convert: what comes out of checkpoints and of GGUF files, tensor for tensor and key for key. */
#include "convert.h"
#include "formats.h"
#include "gguf.h"
#include "hf_folder.h"
#include "kernels.h"
#include "quern.h"
#include "test.h"

#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct quern_error err;
static struct kernels kernels;

static const char *named(struct gguf_string s)
{
    static char text[80];
    snprintf(text, sizeof text, "%.*s", (int)s.n, s.text);
    return text;
}

/* A fresh path in the temporary folder. */
static void out_path(char *out, size_t size, const char *name)
{
    snprintf(out, size, "%s", temp_path(name));
    unlink(out);
}

static bool convert(const char *in, const char *out, uint32_t type)
{
    struct convert_options how = { .type = type, .force = true };
    return convert_model(in, out, &how, &err);
}

static bool same_value(const struct gguf_value *a, const struct gguf_value *b)
{
    if (a->type != b->type)
        return false;
    switch (a->type) {
    case GGUF_STRING: return a->as.string.n == b->as.string.n && !memcmp(a->as.string.text, b->as.string.text, a->as.string.n);
    case GGUF_ARRAY:  return a->as.array.type == b->as.array.type && a->as.array.bytes == b->as.array.bytes &&
                             !memcmp(a->as.array.data, b->as.array.data, a->as.array.bytes);
    case GGUF_F32:
    case GGUF_F64:    return a->as.f == b->as.f;
    default:          return a->as.u == b->as.u;
    }
}

static bool same_shape(const struct gguf_tensor *a, const struct gguf_tensor *b)
{
    return a->dims == b->dims && !memcmp(a->shape, b->shape, sizeof a->shape);
}

static size_t elements(const struct gguf_tensor *t)
{
    return t->shape[0] * t->shape[1] * t->shape[2] * t->shape[3];
}

static float *decode(const struct gguf_tensor *t)
{
    float *values = malloc(elements(t) * sizeof *values + 64);
    kernels.dequantize[t->type].fn(values, t->data, elements(t));
    return values;
}

/* ---- the project's own models ----------------------------------------------------------------------------------- */

/* Every tensor of `reference` in `got`, same type and shape, same bytes; with `through` not FORMAT_COUNT a checkpoint of that type
 * stands between the two: then ours must be the reference rounded to it. */
static void check_tensors(const struct gguf *got, const struct gguf *reference, uint32_t through)
{
    CHECK(got->tensor_count == reference->tensor_count, "%zu tensors, %zu expected", got->tensor_count, reference->tensor_count);
    for (size_t i = 0; i < reference->tensor_count; i++) {
        const struct gguf_tensor *b = &reference->tensors[i], *a = gguf_find_tensor(got, named(b->name));
        CHECK(a && a->type == b->type && same_shape(a, b), "%s is missing or of another type or shape", named(b->name));
        if (!a || a->bytes != b->bytes || !memcmp(a->data, b->data, b->bytes))
            continue;
        if (through == FORMAT_COUNT) {
            CHECK(false, "%s has other bytes", named(b->name));
            continue;
        }
        float *ours = decode(a), *theirs = decode(b), *rounded = malloc(elements(b) * 4 + 64);
        uint8_t *middle = malloc(elements(b) * 4 + 64);
        kernels.quantize[through].fn(middle, theirs, elements(b));
        kernels.dequantize[through].fn(rounded, middle, elements(b));
        CHECK(!memcmp(ours, rounded, elements(b) * 4), "%s is not the reference rounded to the checkpoint's type", named(b->name));
        free(ours);
        free(theirs);
        free(rounded);
        free(middle);
    }
}

/* Keys of `reference` that begin with `prefix` must be in `got` with the same value, but for those in `except` (comma-separated).
 * */
static void check_keys(const struct gguf *got, const struct gguf *reference, const char *prefix, const char *except)
{
    for (size_t i = 0; i < reference->kv_count; i++) {
        const struct gguf_kv *kv = &reference->kvs[i];
        const char *key = named(kv->key);
        if (strncmp(key, prefix, strlen(prefix)) || strstr(except, key))
            continue;
        const struct gguf_value *value = gguf_find(got, key);
        CHECK(value && same_value(value, &kv->value), "key '%s' is missing or another", key);
    }
}

static void test_our_models(void)
{
    /* The checkpoints of the last four have the F32 originals rounded to BF16 or F16: their GGUFs were made from the originals, so
     * vectors (and with F32 all) are compared after the same rounding. */
    static const struct { const char *hf, *gguf; uint32_t type, through; const char *vocab; } cases[] = {
        { "models/tiny-books/hf", "models/tiny-books/tiny-books-BF16.gguf", FORMAT_COUNT, FORMAT_COUNT, NULL },
        { "models/tiny-books/hf", "models/tiny-books/tiny-books-BF16.gguf", FORMAT_BF16, FORMAT_COUNT, NULL },
        { "models/stories260K/hf", "models/stories260K/stories260K-BF16.gguf", FORMAT_BF16, FORMAT_BF16, NULL },
        { "models/stories260K/hf", "models/stories260K/stories260K-F32.gguf", FORMAT_F32, FORMAT_BF16, NULL },
        { "models/babyllama361/hf", "models/babyllama361/babyllama361-F32.gguf", FORMAT_F32, FORMAT_F16,
          "models/babyllama361/babyllama361-F32.gguf" },
        { "models/babyllama361/hf", "models/babyllama361/babyllama361-F32.gguf", FORMAT_F32, FORMAT_F16,
          "models/babyllama361/babyllama361-IQ4_NL.gguf" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char out[600];
        struct gguf got, reference;
        out_path(out, sizeof out, "ours.gguf");
        struct convert_options how = { .type = cases[i].type, .vocab_from = cases[i].vocab ? shared_path(cases[i].vocab) : NULL };
        bool ok = convert_model(shared_path(cases[i].hf), out, &how, &err) &&
                  gguf_open(&reference, shared_path(cases[i].gguf), NULL, &err);
        CHECK(ok, "case %zu: %s", i, err.text);
        if (!ok)
            continue;
        ok = gguf_open(&got, out, NULL, &err);
        CHECK(ok, "case %zu: %s", i, err.text);
        if (ok) {
            check_tensors(&got, &reference, cases[i].through);
            check_keys(&got, &reference, "llama.", "");
            check_keys(&got, &reference, "tokenizer.", "");
            check_keys(&got, &reference, "general.", "general.name");
            gguf_close(&got);
        }
        gguf_close(&reference);
    }
}

/* The embedded model is what the tool makes today, byte for byte. */
static void test_embedded_model(void)
{
    char out[600];
    size_t a_n = 0, b_n = 0;
    out_path(out, sizeof out, "embedded.gguf");
    struct convert_options how = { .type = FORMAT_Q8_0, .name = "tiny-books" };
    CHECK(convert_model(shared_path("models/tiny-books/hf"), out, &how, &err), "%s", err.text);
    char *a = read_whole_file(out, &a_n), *b = read_whole_file("models/tiny-books-q8_0.gguf", &b_n);
    CHECK(a && b && a_n == b_n && !memcmp(a, b, a_n), "models/tiny-books-q8_0.gguf (%zu bytes) is not what quern-convert makes "
          "(%zu): "
          "make model", b_n, a_n);
    free(a);
    free(b);
}

/* ---- folders made from GGUFs ------------------------------------------------------------------------------------ */

/* gemma's norms went through x - 1 and + 1: exact between 0.5 and 2, else rounded twice. */
static bool same_norm(const struct gguf_tensor *a, const struct gguf_tensor *b)
{
    for (size_t i = 0; i < b->shape[0]; i++) {
        volatile float x, y;
        memcpy((float *)&x, b->data + 4 * i, 4);
        memcpy((float *)&y, a->data + 4 * i, 4);
        x -= 1;
        x += 1;
        if (x != y)
            return false;
    }
    return true;
}

static bool close_factors(const struct gguf_tensor *a, const struct gguf_tensor *b)
{
    for (size_t i = 0; i < b->shape[0]; i++) {
        float x, y;
        memcpy(&x, b->data + 4 * i, 4);
        memcpy(&y, a->data + 4 * i, 4);
        if (fabsf(x - y) > 1e-6f * fabsf(x))
            return false;
    }
    return true;
}

static void compare_back(const char *name, const struct gguf *got, const struct gguf *original)
{
    bool gemma = strstr(name, "gemma") != NULL;
    CHECK(got->tensor_count == original->tensor_count, "%s: %zu tensors, %zu expected", name, got->tensor_count,
          original->tensor_count);
    for (size_t i = 0; i < original->tensor_count; i++) {
        const struct gguf_tensor *b = &original->tensors[i], *a = gguf_find_tensor(got, named(b->name));
        CHECK(a && a->type == b->type && same_shape(a, b), "%s: %s is missing or of another type or shape", name, named(b->name));
        if (!a || a->bytes != b->bytes)
            continue;
        bool norm = gemma && strstr(named(b->name), "norm"), factors = !strncmp(named(b->name), "rope_freqs", 10);
        CHECK(norm ? same_norm(a, b) : factors ? close_factors(a, b) : !memcmp(a->data, b->data, b->bytes),
              "%s: %s has other bytes", name,
              named(b->name));
    }
}

static const struct { const char *name; struct hf_folder_options how; const char *except; } back[] = {
    { "llama", { 0 }, "" },
    { "llama", { .shards = true }, "" },
    { "llama-tied", { 0 }, "" },
    { "llama-bias", { 0 }, "" },
    { "llama-mqa", { 0 }, "" },
    { "llama-f16", { 0 }, "" },
    { "llama-linear", { 0 }, "" },
    { "llama-yarn", { 0 }, "" },
    { "llama-rope3", { .config = ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,"
                       "\"high_freq_factor\":4.0,"
                                 "\"original_max_position_embeddings\":32}" }, "" },
    { "mixtral", { .shards = true }, "" },
    { "qwen2", { 0 }, "tokenizer.ggml.token_type" },
    { "qwen3", { .pair_merges = true }, "tokenizer.ggml.token_type" },
    { "qwen3-bf16", { 0 }, "tokenizer.ggml.token_type" },
    { "gemma", { 0 }, "" },
    { "gemma2", { 0 }, "" },
    { "gemma3", { 0 }, "" },
    { "phi3", { 0 }, "" },
    /* The vector has the factor of another context length than its own. */
    { "phi3-longrope-long", { 0 }, "phi3.rope.scaling.attn_factor" },
};

/* Types of tokens: tokenizer.json cannot say "unused" (5) of a word that it has. */
static void check_types(const char *name, const struct gguf *got, const struct gguf *original)
{
    const struct gguf_value *a = gguf_find(got, "tokenizer.ggml.token_type"), *b = gguf_find(original, "tokenizer.ggml.token_type");
    CHECK(a && b && a->as.array.n == b->as.array.n, "%s: no types, or too few", name);
    for (size_t i = 0; a && i < b->as.array.n; i++) {
        int64_t ours = 0, theirs = 0;
        bool read = gguf_array_i64(a, i, &ours) && gguf_array_i64(b, i, &theirs);
        CHECK(read && (ours == theirs || (theirs == 5 && ours == 1)), "%s: token %zu has type %d, not %d", name, i, (int)ours,
              (int)theirs);
    }
}

/* Logits after 20 tokens, malloc'ed. */
static float *logits_of(const char *path, size_t *n)
{
    int32_t tokens[20];
    float *copy = NULL;
    struct quern_session_options options = { .context = 64, .kv = QUERN_KV_F32 };
    struct quern_model *model = quern_open_model(path, NULL, &err);
    struct quern_session *session = model ? quern_open_session(model, &options, &err) : NULL;
    for (int i = 0; i < 20; i++)
        tokens[i] = 3 + i * 13;
    if (session && quern_sync_session(session, tokens, 20, &err)) {
        *n = quern_model_vocabulary(model);
        copy = malloc(*n * sizeof *copy);
        memcpy(copy, quern_session_logits(session), *n * sizeof *copy);
    }
    quern_close_session(session);
    quern_close_model(model);
    return copy;
}

static void compare_logits(const char *name, const char *a, const char *b, float allowed)
{
    size_t n = 0, m = 0;
    float *x = logits_of(a, &n), *y = logits_of(b, &m), worst = 0;
    CHECK(x && y && n == m, "%s: %s", name, err.text);
    for (size_t i = 0; x && y && i < n && i < m; i++)
        worst = fmaxf(worst, fabsf(x[i] - y[i]));
    CHECK(worst <= allowed, "%s: logits differ by %g, %g allowed", name, (double)worst, (double)allowed);
    free(x);
    free(y);
}

/* Take a GGUF apart into a folder and convert that: the same tensors and keys come back, and the same logits. */
static void test_there_and_back(void)
{
    for (size_t i = 0; i < sizeof back / sizeof *back; i++) {
        char path[200], folder[600], out[600], prefix[100];
        struct gguf original, got;
        snprintf(path, sizeof path, "vectors/archs/%s.gguf", back[i].name);
        snprintf(folder, sizeof folder, "%s-%zu", temp_path("folder"), i);
        out_path(out, sizeof out, "back.gguf");
        bool ok = gguf_open(&original, shared_path(path), NULL, &err);
        CHECK(ok, "%s", err.text);
        if (!ok)
            continue;
        hf_folder_write(&original, folder, &back[i].how);
        ok = convert(folder, out, FORMAT_COUNT) && gguf_open(&got, out, NULL, &err);
        CHECK(ok, "%s: %s", back[i].name, err.text);
        if (ok) {
            snprintf(prefix, sizeof prefix, "%s.", named(gguf_find(&original, "general.architecture")->as.string));
            compare_back(back[i].name, &got, &original);
            check_keys(&got, &original, prefix, back[i].except);
            check_keys(&got, &original, "tokenizer.", back[i].except);
            check_types(back[i].name, &got, &original);
            CHECK(gguf_find(&got, "tokenizer.chat_template"), "%s: no chat template", back[i].name);
            gguf_close(&got);
            if (!*back[i].except || strstr(back[i].except, "token_type"))
                compare_logits(back[i].name, original.path, out, strstr(back[i].name, "gemma") ? 1e-4f : 0);
        }
        gguf_close(&original);
    }
}

/* The model that the repo carries: to BF16, to a folder with shards, and back; to Q8_0 again, which must change nothing. */
static void test_own_model(void)
{
    static const char model[] = "models/tiny-books-q8_0.gguf";
    char half[600], folder[600], out[600];
    struct gguf a, b;
    out_path(half, sizeof half, "own-bf16.gguf");
    out_path(out, sizeof out, "own.gguf");
    snprintf(folder, sizeof folder, "%s", temp_path("own-folder"));
    CHECK(convert(model, out, FORMAT_Q8_0) && same_files(model, out), "Q8_0 to Q8_0: %s", err.text);
    bool ok = convert(model, half, FORMAT_BF16) && gguf_open(&a, half, NULL, &err);
    CHECK(ok, "%s", err.text);
    if (!ok)
        return;
    hf_folder_write(&a, folder, &(struct hf_folder_options){ .shards = true });
    ok = convert(folder, out, FORMAT_COUNT) && gguf_open(&b, out, NULL, &err);
    CHECK(ok, "%s", err.text);
    if (ok) {
        compare_back(model, &b, &a);
        check_keys(&b, &a, "llama.", "");
        check_keys(&b, &a, "tokenizer.", "");
        gguf_close(&b);
    }
    gguf_close(&a);
}

/* Part `no` of two: tensors [first, end) of `g`; the keys are in part 0. */
static void write_part(const struct gguf *g, const char *path, unsigned no, size_t first, size_t end)
{
    struct gguf_writer_options options = { .force = true };
    struct gguf_writer *w = gguf_writer_open(path, &options, &err);
    const struct { const char *key; enum gguf_type type; uint64_t value; } split[] = {
        { "split.no", GGUF_U16, no }, { "split.count", GGUF_U16, 2 }, { "split.tensors.count", GGUF_I32, g->tensor_count },
    };
    bool ok = w != NULL;
    for (size_t i = 0; ok && no == 0 && i < g->kv_count; i++)
        ok = gguf_writer_value(w, g->kvs[i].key.text, g->kvs[i].key.n, &g->kvs[i].value, &err);
    for (size_t i = 0; ok && i < 3; i++) {
        struct gguf_value value = { .type = split[i].type, .as.u = split[i].value };
        ok = gguf_writer_value(w, split[i].key, strlen(split[i].key), &value, &err);
    }
    for (size_t i = first; ok && i < end; i++)
        ok = gguf_writer_tensor(w, &g->tensors[i], &err);
    for (size_t i = first; ok && i < end; i++)
        ok = gguf_writer_data(w, g->tensors[i].data, g->tensors[i].bytes, &err);
    CHECK(ok && gguf_writer_commit(w, &err), "%s", err.text);
    gguf_writer_close(w);
}

/* The parts of a split file become one file again; none of them may be the output. */
static void test_split(void)
{
    static const char model[] = "models/tiny-books-q8_0.gguf";
    char one[600], two[600], out[600];
    struct gguf g;
    snprintf(one, sizeof one, "%s", temp_path("part-00001-of-00002.gguf"));
    snprintf(two, sizeof two, "%s", temp_path("part-00002-of-00002.gguf"));
    out_path(out, sizeof out, "whole.gguf");
    bool ok = gguf_open(&g, model, NULL, &err);
    CHECK(ok, "%s", err.text);
    if (!ok)
        return;
    write_part(&g, one, 0, 0, 20);
    write_part(&g, two, 1, 20, g.tensor_count);
    CHECK(convert(one, out, FORMAT_COUNT) && same_files(out, model), "not the same bytes: %s", err.text);
    CHECK(!convert(one, two, FORMAT_F16) && err.code == QUERN_EUSAGE, "onto its second part: %s", err.text);
    gguf_close(&g);
}

/* Context 1024 after 32: sqrt(1 + ln 32 / ln 32). */
static void test_longrope_scale(void)
{
    char folder[600];
    struct gguf got;
    float factor = 0;
    snprintf(folder, sizeof folder, "%s-%zu", temp_path("folder"), sizeof back / sizeof *back - 1);
    bool ok = convert(folder, temp_path("longrope.gguf"), FORMAT_COUNT) && gguf_open(&got, temp_path("longrope.gguf"), NULL, &err);
    CHECK(ok, "%s", err.text);
    if (ok) {
        CHECK(gguf_read_f32(&got, "phi3.rope.scaling.attn_factor", &factor, &err) && fabsf(factor - sqrtf(2)) < 1e-6f, "%g",
              (double)factor);
        gguf_close(&got);
    }
}

/* ---- GGUF to GGUF ----------------------------------------------------------------------------------------------- */

static bool is_exact(const char *name)
{
    return strstr(name, "_norm.weight") || strstr(name, "ffn_gate_inp") || strstr(name, "conv1d") ||
           strstr(name, "shortconv.conv") || strstr(name, "position_embd");
}

/* What the type of a tensor of `from` must be in a file of `type`. */
static uint32_t expected_type(const struct gguf_tensor *t, uint32_t type)
{
    char name[80];
    snprintf(name, sizeof name, "%s", named(t->name));
    size_t n = strlen(name);
    if (!format_find(t->type)->weights)
        return t->type;
    if (type == FORMAT_F32)
        return type;
    bool weight = t->dims >= 2 && n > 7 && !strcmp(name + n - 7, ".weight") && !is_exact(name);
    return weight && t->shape[0] % format_find(type)->block == 0 ? type : t->type;
}

static void check_conversion(const char *name, const struct gguf *from, const struct gguf *to, uint32_t type)
{
    CHECK(from->tensor_count == to->tensor_count, "%s: %zu tensors", name, to->tensor_count);
    for (size_t i = 0; i < from->tensor_count && i < to->tensor_count; i++) {
        const struct gguf_tensor *a = &from->tensors[i], *b = &to->tensors[i];
        uint32_t wanted = expected_type(a, type);
        CHECK(b->type == wanted && same_shape(a, b) && a->name.n == b->name.n && !memcmp(a->name.text, b->name.text, a->name.n),
              "%s: %s has type %u, %u expected", name, named(a->name), b->type, wanted);
        if (b->type != wanted)
            continue;
        uint8_t *expected = malloc(b->bytes + 64);
        memcpy(expected, a->data, a->bytes < b->bytes ? a->bytes : b->bytes);
        if (wanted != a->type) {
            float *values = decode(a);
            if (wanted == FORMAT_F32)
                memcpy(expected, values, b->bytes);
            else
                kernels.quantize[wanted].fn(expected, values, elements(a));
            free(values);
        }
        CHECK(!memcmp(expected, b->data, b->bytes), "%s: %s has other bytes", name, named(a->name));
        free(expected);
    }
    for (size_t i = 0; i < from->kv_count; i++) {
        const struct gguf_value *value = gguf_find(to, named(from->kvs[i].key));
        CHECK(!strcmp(named(from->kvs[i].key), "general.file_type") || (value && same_value(value, &from->kvs[i].value)),
              "%s: key '%s'", name,
              named(from->kvs[i].key));
    }
}

/* Every file of the folder to every type; unchanged, the same bytes come out. */
static void convert_folder_of(const char *below, const uint32_t *types, size_t type_count)
{
    char folder[600], in[900], out[600];
    snprintf(folder, sizeof folder, "%s", shared_path(below));
    DIR *dir = opendir(folder);
    out_path(out, sizeof out, "converted.gguf");
    for (struct dirent *e; dir && (e = readdir(dir)) != NULL;) {
        size_t n = strlen(e->d_name);
        if (n < 5 || strcmp(e->d_name + n - 5, ".gguf"))
            continue;
        snprintf(in, sizeof in, "%s/%s", folder, e->d_name);
        CHECK(convert(in, out, FORMAT_COUNT) && same_files(in, out), "%s: not the same bytes, %s", e->d_name, err.text);
        for (size_t t = 0; t < type_count; t++) {
            struct gguf from, to;
            bool ok = convert(in, out, types[t]) && gguf_open(&from, in, NULL, &err);
            CHECK(ok, "%s: %s", e->d_name, err.text);
            if (!ok)
                continue;
            ok = gguf_open(&to, out, NULL, &err);
            CHECK(ok, "%s: %s", e->d_name, err.text);
            if (ok) {
                check_conversion(e->d_name, &from, &to, types[t]);
                gguf_close(&to);
            }
            gguf_close(&from);
        }
    }
    if (dir)
        closedir(dir);
}

static void test_any_architecture(void)
{
    static const uint32_t types[] = { FORMAT_F32, FORMAT_F16, FORMAT_BF16, FORMAT_Q8_0 };
    /* Rows that do not divide are named on stderr, once per tensor: here that is thousands of lines. */
    fflush(stderr);
    int kept = dup(2);
    if (!freopen("/dev/null", "w", stderr))
        abort();
    convert_folder_of("vectors/archs", types, 4);
    fflush(stderr);
    dup2(kept, 2);
    close(kept);
}

/* llama.cpp's quantizer, the same input: the same Q8_0. */
static void test_q8_0_of_llama_cpp(void)
{
    struct gguf got, reference;
    char out[600];
    out_path(out, sizeof out, "q8_0.gguf");
    bool ok = convert(shared_path("models/babyllama361/babyllama361-F32.gguf"), out, FORMAT_Q8_0) &&
              gguf_open(&got, out, NULL, &err);
    CHECK(ok, "%s", err.text);
    if (!ok)
        return;
    ok = gguf_open(&reference, shared_path("models/babyllama361/babyllama361-Q8_0.gguf"), NULL, &err);
    CHECK(ok, "%s", err.text);
    if (ok) {
        check_tensors(&got, &reference, FORMAT_COUNT);
        gguf_close(&reference);
    }
    gguf_close(&got);
}

int main(void)
{
    struct cpu cpu;
    cpu_detect(&cpu);
    kernels_init(&kernels, &cpu);
    TEST(test_own_model);
    TEST(test_split);
    if (!shared_path("")) {
        test_skip("test_convert", "no ../shared: all but the embedded model");
        return test_end();
    }
    TEST(test_our_models);
    TEST(test_embedded_model);
    TEST(test_there_and_back);
    TEST(test_longrope_scale);
    TEST(test_any_architecture);
    TEST(test_q8_0_of_llama_cpp);
    return test_end();
}
