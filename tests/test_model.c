/* Bad inputs, section C (and B12, B13, D3): hyper-parameters and tensors that do not fit each other. Every row is a valid tiny
 * model with one thing changed. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "test.h"
#include "tiny.h"
#include "session.h"

struct row {
    const char     *id, *what;
    enum tiny_kind  kind;
    const char     *key;            /* set to ... */
    enum gguf_type  type;           /* ... this; ARRAY: `number` elements of 2 */
    double          number;
    const char     *text;
    void          (*edit)(struct tiny *t);   /* instead of a key */
    enum quern_code code;
    const char     *words;          /* that the message must contain */
};

static void no_arch(struct tiny *t) { tiny_drop_key(t, "general.architecture"); }
static void no_layers(struct tiny *t) { tiny_drop_key(t, "block_count"); }
static void no_head_dim(struct tiny *t)
{
    tiny_drop_key(t, "attention.key_length");
    tiny_u32(t, "attention.head_count", 3);
    tiny_u32(t, "attention.head_count_kv", 1);
}
static void no_eps(struct tiny *t) { tiny_drop_key(t, "attention.layer_norm_rms_epsilon"); }
static void no_used(struct tiny *t) { tiny_drop_key(t, "expert_used_count"); }
static void no_count(struct tiny *t) { tiny_drop_key(t, "expert_count"); }
static void no_head(struct tiny *t) { tiny_drop_tensor(t, "output.weight"); }
static void no_down(struct tiny *t) { tiny_drop_tensor(t, "blk.1.ffn_down.weight"); tiny_drop_tensor(t, "blk.0.attn_k.weight"); }
static void no_bias(struct tiny *t) { tiny_drop_tensor(t, "blk.1.attn_k.bias"); }
static void no_embed(struct tiny *t) { tiny_drop_tensor(t, "token_embd.weight"); }
static void extra(struct tiny *t) { tiny_add(t, "blk.0.unknown.weight", 64, 3, 1, 0, 1); }
static void small_embed(struct tiny *t) { tiny_find(t, "token_embd.weight")->shape[0] = 32; }
static void turned(struct tiny *t)
{
    struct tiny_tensor *d = tiny_find(t, "blk.0.ffn_down.weight");
    d->shape[0] = 64;
    d->shape[1] = 96;
}
static void other_vocab(struct tiny *t) { tiny_find(t, "output.weight")->shape[1] = TINY_VOCAB + 1; }
static void heads_of_other(struct tiny *t) { tiny_find(t, "blk.1.attn_q.weight")->shape[1] = 96; }
static void deep_norm(struct tiny *t) { tiny_find(t, "blk.1.attn_norm.weight")->shape[1] = 2; }
static void fewer_experts(struct tiny *t) { tiny_find(t, "blk.0.ffn_up_exps.weight")->shape[2] = 5; }
static void wide_conv(struct tiny *t) { tiny_find(t, "blk.0.ssm_conv1d.weight")->shape[0] = 5; }
static void more_tokens(struct tiny *t) { t->tokens = TINY_VOCAB + 8; }
static void fewer_tokens(struct tiny *t) { t->tokens = TINY_VOCAB - 8; }
static void factors(struct tiny *t) { tiny_add(t, "rope_freqs.weight", 15, 1, 1, 1, 0); }
static void integer_weights(struct tiny *t) { tiny_find(t, "blk.0.attn_q.weight")->type = FORMAT_I32; }

static char long_name[1 << 20];
static void long_arch(struct tiny *t)
{
    memset(long_name, 'x', sizeof long_name - 1);
    tiny_text(t, "general.architecture", long_name);
}

static const struct row ROWS[] = {
    { "C1", "architecture missing", TINY_LLAMA, .edit = no_arch, .code = QUERN_EUNSUPPORTED, .words = "general.architecture" },
    { "C1", "architecture empty", TINY_LLAMA, "general.architecture", GGUF_STRING, .text = "",
      .code = QUERN_EUNSUPPORTED, .words = "'' is not supported" },
    { "C1", "architecture unknown", TINY_LLAMA, "general.architecture", GGUF_STRING, .text = "llamb",
      .code = QUERN_EUNSUPPORTED, .words = "'llamb' is not supported; supported are llama, " },
    { "C1", "architecture with escape", TINY_LLAMA, "general.architecture", GGUF_STRING, .text = "\033[2Jx\n",
      .code = QUERN_EUNSUPPORTED, .words = "'\\x1B[2Jx\\x0A'" },
    { "C1", "architecture of 1 MB", TINY_LLAMA, .edit = long_arch, .code = QUERN_EUNSUPPORTED, .words = "xxx...'" },
    { "C2", "no block_count", TINY_LLAMA, .edit = no_layers, .code = QUERN_EFORMAT, .words = "llama.block_count" },
    { "C2", "block_count 0", TINY_LLAMA, "block_count", GGUF_U32, 0,
      .code = QUERN_EFORMAT, .words = "block_count' at byte 143 is 0" },
    { "C2", "block_count 513", TINY_LLAMA, "block_count", GGUF_U32, 513,
      .code = QUERN_EFORMAT, .words = "is 513, allowed is 1 to 512" },
    { "C2", "block_count 2^31", TINY_LLAMA, "block_count", GGUF_U32, 2147483648.0, .code = QUERN_EFORMAT, .words = "2147483648" },
    { "C2", "block_count above the tensors'", TINY_LLAMA, "block_count", GGUF_U32, 3,
      .code = QUERN_EFORMAT, .words = "blk.2.attn_norm.weight" },
    { "C3", "head_count 0", TINY_LLAMA, "attention.head_count", GGUF_U32, 0, .code = QUERN_EFORMAT, .words = "head_count" },
    { "C3", "head_count_kv 0", TINY_LLAMA, "attention.head_count_kv", GGUF_U32, 0,
      .code = QUERN_EFORMAT, .words = "is 0 in layer 0" },
    { "C3", "head_count_kv 3 of 4", TINY_LLAMA, "attention.head_count_kv", GGUF_U32, 3,
      .code = QUERN_EFORMAT, .words = "4 heads cannot share 3" },
    { "C3", "3 heads of width 64", TINY_LLAMA, .edit = no_head_dim,
      .code = QUERN_EFORMAT, .words = "64 does not divide into 3 heads" },
    { "C3", "head_count 2^31", TINY_LLAMA, "attention.head_count", GGUF_U32, 2147483648.0,
      .code = QUERN_EFORMAT, .words = "2147483648" },
    { "C4", "array shorter than the layers", TINY_LLAMA, "attention.head_count_kv", GGUF_ARRAY, 1,
      .code = QUERN_EFORMAT, .words = "has 1 elements, the model has 2" },
    { "C4", "array longer than the layers", TINY_LLAMA, "feed_forward_length", GGUF_ARRAY, 3,
      .code = QUERN_EFORMAT, .words = "has 3 elements, the model has 2" },
    { "C5", "experts' tensors without count", TINY_LLAMA, "expert_count", GGUF_U32, 4,
      .code = QUERN_EFORMAT, .words = "expert_used_count" },
    { "C5", "expert_count missing", TINY_EXPERTS, .edit = no_count, .code = QUERN_EFORMAT, .words = "expert_count" },
    { "C5", "expert_count 0", TINY_EXPERTS, "expert_count", GGUF_U32, 0, .code = QUERN_EFORMAT, .words = "is 0, this" },
    { "C5", "more used than there are", TINY_EXPERTS, "expert_used_count", GGUF_U32, 7,
      .code = QUERN_EFORMAT, .words = "is 7, allowed" },
    { "C5", "none used", TINY_EXPERTS, "expert_used_count", GGUF_U32, 0, .code = QUERN_EFORMAT, .words = "is 0, allowed" },
    { "C5", "expert_used_count missing", TINY_EXPERTS, .edit = no_used,
      .code = QUERN_EFORMAT, .words = "expert_used_count' is missing" },
    { "C5", "groups that do not divide", TINY_LATENT, "expert_group_count", GGUF_U32, 4,
      .code = QUERN_EFORMAT, .words = "6 experts in 4 groups" },
    { "C6", "freq_base 0", TINY_LLAMA, "rope.freq_base", GGUF_F32, 0, .code = QUERN_EFORMAT, .words = "is 0, a number above 0" },
    { "C6", "freq_base negative", TINY_LLAMA, "rope.freq_base", GGUF_F32, -10, .code = QUERN_EFORMAT, .words = "is -10" },
    { "C6", "freq_base NaN", TINY_LLAMA, "rope.freq_base", GGUF_F32, NAN, .code = QUERN_EFORMAT, .words = "nan" },
    { "C6", "freq_base Inf", TINY_LLAMA, "rope.freq_base", GGUF_F32, INFINITY, .code = QUERN_EFORMAT, .words = "inf" },
    { "C6", "dimension_count odd", TINY_LLAMA, "rope.dimension_count", GGUF_U32, 15,
      .code = QUERN_EFORMAT, .words = "is 15, an even" },
    { "C6", "dimension_count above the head", TINY_LLAMA, "rope.dimension_count", GGUF_U32, 64,
      .code = QUERN_EFORMAT, .words = "is 64, an even" },
    { "C6", "dimension_count 0", TINY_LLAMA, "rope.dimension_count", GGUF_U32, 0, .code = QUERN_EFORMAT, .words = "is 0, allowed" },
    { "C6", "scaling factor 0", TINY_LLAMA, "rope.scaling.factor", GGUF_F32, 0,
      .code = QUERN_EFORMAT, .words = "is 0, a number above" },
    { "C6", "scaling factor NaN", TINY_LLAMA, "rope.scaling.factor", GGUF_F32, NAN, .code = QUERN_EFORMAT, .words = "is nan" },
    { "C6", "unknown scaling", TINY_LLAMA, "rope.scaling.type", GGUF_STRING, .text = "magic\033",
      .code = QUERN_EUNSUPPORTED, .words = "'magic\\x1B'; supported are none, linear, yarn" },
    { "C6", "factors of another rotation", TINY_LLAMA, .edit = factors, .code = QUERN_EFORMAT, .words = "expected [16], got [15]" },
    { "C7", "eps missing", TINY_LLAMA, .edit = no_eps, .code = QUERN_EFORMAT, .words = "epsilon' is missing" },
    { "C7", "eps 0", TINY_LLAMA, "attention.layer_norm_rms_epsilon", GGUF_F32, 0,
      .code = QUERN_EFORMAT, .words = "is 0, a number above" },
    { "C7", "eps negative", TINY_LLAMA, "attention.layer_norm_rms_epsilon", GGUF_F32, -1e-5,
      .code = QUERN_EFORMAT, .words = "is -1e-05" },
    { "C7", "eps NaN", TINY_LLAMA, "attention.layer_norm_rms_epsilon", GGUF_F32, NAN, .code = QUERN_EFORMAT, .words = "nan" },
    { "C8", "context_length 0", TINY_LLAMA, "context_length", GGUF_U32, 0, .code = QUERN_EFORMAT, .words = "is 0, allowed" },
    { "C8", "context_length 2^32 - 1", TINY_LLAMA, "context_length", GGUF_U32, 4294967295.0, .code = QUERN_OK },
    { "C9", "window 0", TINY_WINDOWS, "attention.sliding_window", GGUF_U32, 0, .code = QUERN_OK },
    { "C9", "window above the context", TINY_WINDOWS, "attention.sliding_window", GGUF_U32, 100000, .code = QUERN_OK },
    { "C9", "window negative", TINY_WINDOWS, "attention.sliding_window", GGUF_I32, -1,
      .code = QUERN_EFORMAT, .words = "sliding_window" },
    { "C10", "string for a count", TINY_LLAMA, "block_count", GGUF_STRING, .text = "two",
      .code = QUERN_EFORMAT, .words = "block_count" },
    { "C10", "f32 for a count", TINY_LLAMA, "embedding_length", GGUF_F32, 64, .code = QUERN_EFORMAT, .words = "embedding_length" },
    { "C10", "i32 for a count", TINY_LLAMA, "embedding_length", GGUF_I32, 64, .code = QUERN_OK },
    { "C10", "negative i32 for a count", TINY_LLAMA, "embedding_length", GGUF_I32, -64,
      .code = QUERN_EFORMAT, .words = "embedding_length" },
    { "C10", "f64 for f32", TINY_LLAMA, "rope.freq_base", GGUF_F64, 10000, .code = QUERN_OK },
    { "C10", "bool for a number", TINY_LLAMA, "rope.freq_base", GGUF_BOOL, 1, .code = QUERN_EFORMAT, .words = "rope.freq_base" },
    { "C10", "number for the architecture", TINY_LLAMA, "general.architecture", GGUF_U32, 1,
      .code = QUERN_EFORMAT, .words = "general.architecture" },
    { "C", "width 2^31", TINY_LLAMA, "embedding_length", GGUF_U32, 2147483648.0,
      .code = QUERN_EFORMAT, .words = "embedding_length" },
    { "C", "value heads that do not fit", TINY_DELTA, "ssm.inner_size", GGUF_U32, 96,
      .code = QUERN_EFORMAT, .words = "inner width of 96" },
    { "C", "a convolution of one tap", TINY_MAMBA, "ssm.conv_kernel", GGUF_U32, 1,
      .code = QUERN_EFORMAT, .words = "is 1, allowed" },
    { "C", "keys that do not fit the latent", TINY_LATENT, "attention.kv_lora_rank", GGUF_U32, 16,
      .code = QUERN_EFORMAT, .words = "do not fit a latent" },
    { "B2", "no tensor of the embedding", TINY_LLAMA, .edit = no_embed, .code = QUERN_EFORMAT, .words = "token_embd.weight" },
    { "B12", "no head, tied", TINY_LLAMA, .edit = no_head, .code = QUERN_OK },
    { "B12", "no head, architecture without tie", TINY_EXPERTS, .edit = no_head,
      .code = QUERN_EFORMAT, .words = "1 tensor is missing: output.weight" },
    { "B12", "two tensors missing", TINY_LLAMA, .edit = no_down,
      .code = QUERN_EFORMAT, .words = "2 tensors are missing: blk.0.attn_k.weight, blk.1.ffn_down.weight" },
    { "B12", "a bias missing", TINY_EXPERTS, .edit = no_bias, .code = QUERN_EFORMAT, .words = "blk.1.attn_k.bias" },
    { "B13", "embedding narrow", TINY_LLAMA, .edit = small_embed, .code = QUERN_EFORMAT, .words = "token_embd.weight' at byte" },
    { "B13", "transposed", TINY_LLAMA, .edit = turned, .code = QUERN_EFORMAT, .words = "expected [96, 64], got [64, 96" },
    { "B13", "head of another vocabulary", TINY_LLAMA, .edit = other_vocab,
      .code = QUERN_EFORMAT, .words = "expected [64, 272], got [64, 273" },
    { "B13", "queries of fewer heads", TINY_LLAMA, .edit = heads_of_other,
      .code = QUERN_EFORMAT, .words = "expected [64, 128], got [64, 96" },
    { "B13", "norm of two dimensions", TINY_LLAMA, .edit = deep_norm, .code = QUERN_EFORMAT, .words = "blk.1.attn_norm.weight" },
    { "B13", "an expert less", TINY_EXPERTS, .edit = fewer_experts, .code = QUERN_EFORMAT, .words = "got [64, 32, 5" },
    { "B13", "convolution of 5 taps", TINY_MAMBA, .edit = wide_conv, .code = QUERN_EFORMAT, .words = "blk.0.ssm_conv1d.weight" },
    { "B13", "feed-forward width", TINY_LLAMA, "feed_forward_length", GGUF_U32, 128,
      .code = QUERN_EFORMAT, .words = "expected [64, 128], got [64, 96" },
    { "B14", "an unknown tensor", TINY_LLAMA, .edit = extra, .code = QUERN_OK },
    { "B", "weights of integers", TINY_LLAMA, .edit = integer_weights, .code = QUERN_EUNSUPPORTED, .words = "blk.0.attn_q.weight" },
    { "D3", "more tokens than rows", TINY_LLAMA, .edit = more_tokens,
      .code = QUERN_EFORMAT, .words = "280 tokens, the embedding only 272" },
    { "D3", "fewer tokens than rows", TINY_LLAMA, .edit = fewer_tokens, .code = QUERN_OK },
};

static void apply(struct tiny *t, const struct row *row)
{
    static const uint32_t TWOS[16] = { 2, 2, 2, 2 };
    if (row->edit)
        row->edit(t);
    else if (row->type == GGUF_STRING)
        tiny_text(t, row->key, row->text);
    else if (row->type == GGUF_ARRAY)
        tiny_list(t, row->key, TWOS, (size_t)row->number);
    else
        tiny_number(t, row->key, row->type, row->number);
}

static void check_row(const struct row *row)
{
    static struct tiny t;
    struct quern_error err = { .code = QUERN_OK };
    const char *path = temp_path("model.gguf");
    tiny_model(&t, row->kind);
    apply(&t, row);
    tiny_save(&t, path);
    clock_t start = clock();
    struct quern_model *model = quern_open_model(path, NULL, &err);
    double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    CHECK((model != NULL) == (row->code == QUERN_OK), "%s", model ? "opened" : err.text);
    if (!model) {
        CHECK(err.code == row->code, "code %d, expected %d: %s", err.code, row->code, err.text);
        CHECK(!row->words || strstr(err.text, row->words), "no '%s' in: %s", row->words, err.text);
        CHECK(!strncmp(err.text, path, strlen(path)), "the file is not named: %s", err.text);
        for (const char *c = err.text; *c; c++)
            CHECK((unsigned char)*c >= 0x20 && *c != 0x7f, "a control byte in the message");
    }
    CHECK(seconds < 2, "took %.1f s", seconds);
    printf("%-4s %-36s %d  %s\n", row->id, row->what, err.code, model ? "opened" : err.text + strlen(path) + 2);
    quern_close_model(model);
    unlink(path);
}

/* The models that the rows change are themselves right; and unknown tensors are counted. */
static void test_valid(void)
{
    static struct tiny t;
    struct quern_error err = { .code = QUERN_OK };
    for (int kind = 0; kind < TINY_KINDS; kind++) {
        tiny_model(&t, (enum tiny_kind)kind);
        tiny_add(&t, "one.more", 8, 1, 1, 0, 1);
        tiny_save(&t, temp_path("model.gguf"));
        struct quern_model *model = quern_open_model(temp_path("model.gguf"), NULL, &err);
        CHECK(model != NULL, "%s: %s", tiny_names[kind], err.text);
        if (model)
            CHECK(model->model.extra_tensors == 1 && !strcmp(quern_model_architecture(model), tiny_names[kind]) &&
                  quern_model_vocabulary(model) == TINY_VOCAB && quern_model_context(model) == 512, "%s", tiny_names[kind]);
        quern_close_model(model);
    }
    unlink(temp_path("model.gguf"));
}

/* Whatever loads must also run: three tokens through the model, with caches and scratch as small as they get. */
static bool run_bytes(const struct bytes *b, struct pool *pool, const struct kernels *kernels)
{
    static const int32_t TOKENS[] = { 1, 0, 1 };
    struct quern_error err = { .code = QUERN_OK };
    struct gguf g;
    struct model m;
    struct kv kv = { 0 };
    struct forward f = { 0 };
    if (!gguf_view(&g, b->data, b->n, "changed", NULL, &err))
        return false;
    bool loaded = model_init(&m, &g, kernels, &err);
    if (loaded && m.hyper.vocab > 1 && kv_init(&kv, &m, KV_F32, 8, &err) && forward_init(&f, &m, kernels, pool, 3, 1, 8, &err)) {
        float *logits = malloc(m.hyper.vocab * sizeof *logits);
        struct batch_part part = { .kv = &kv, .tokens = TOKENS, .count = 3, .wanted = 1 };
        if (logits && (!m.positions || m.hyper.context >= 3))
            forward_run(&f, &part, 1, logits, &err);
        free(logits);
    }
    forward_free(&f);
    kv_free(&kv);
    if (loaded)
        model_free(&m);
    gguf_close(&g);
    return loaded;
}

/* Files with a few random bytes of the header changed: refused or run, nothing else. The sanitizers watch. */
static void test_changed_bytes(void)
{
    enum { TRIES = 3000 };
    static struct tiny t;
    struct quern_error err;
    struct cpu cpu;
    struct kernels kernels;
    struct pool *pool = pool_open(1, &err);
    uint64_t seed = 31;
    size_t loaded = 0;
    cpu_detect(&cpu);
    kernels_init(&kernels, &cpu);
    for (int kind = 0; kind < TINY_KINDS; kind++) {
        struct bytes b = { 0 };
        size_t header, keys;
        tiny_model(&t, (enum tiny_kind)kind);
        tiny_bytes(&t, &b, &header);
        /* The interesting bytes: hyper-parameters at the front, and the directory at the end. */
        for (keys = 0; keys < header && memcmp(b.data + keys, "tokenizer", 9) != 0;)
            keys++;
        for (int i = 0; i < TRIES; i++) {
            uint8_t old[3];
            size_t at[3], n = 1 + random_u64(&seed) % 3;
            for (size_t j = 0; j < n; j++) {
                at[j] = random_u64(&seed) % 3 ? random_u64(&seed) % keys : header - 1 - random_u64(&seed) % 4000;
                old[j] = b.data[at[j]];
                b.data[at[j]] = random_u64(&seed) % 2 ? (uint8_t)(old[j] + 1 - random_u64(&seed) % 3) : (uint8_t)random_u64(&seed);
            }
            loaded += run_bytes(&b, pool, &kernels);
            for (size_t j = n; j-- > 0;)
                b.data[at[j]] = old[j];
        }
        CHECK(run_bytes(&b, pool, &kernels), "%s: the model itself", tiny_names[kind]);
        bytes_free(&b);
    }
    CHECK(loaded > TINY_KINDS * TRIES / 20, "only %zu of %d changed files loaded", loaded, TINY_KINDS * TRIES);
    printf("of %d files with changed bytes %zu loaded and ran\n", TINY_KINDS * TRIES, loaded);
    pool_close(pool);
}

int main(void)
{
    TEST(test_valid);
    TEST(test_changed_bytes);
    for (size_t i = 0; i < sizeof ROWS / sizeof *ROWS; i++) {
        test_begin("%s: %s", ROWS[i].id, ROWS[i].what);
        check_row(&ROWS[i]);
        test_finish();
    }
    return test_end();
}
