/* Importances that quern gathers itself, of a model with experts: every expert has its own sums and counts, in the form of
 * llama-imatrix's files (stacks: [inputs][experts] sums, [1][experts] counts). */
#include "importance.h"
#include "test.h"
#include "tiny.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LENGTH = 64, TOKENS = 20 * LENGTH, EXPERTS = 6, USED = 2 };

struct subject { struct quern_model *model; struct pool *pool; struct calibration text; };

/* `starved`: one router selects by a bias, so that some experts see nobody. */
static bool open_subject(struct subject *s, bool starved, size_t threads)
{
    struct quern_error err;
    struct quern_model_options how = { .threads = 1 };
    struct tiny t;
    tiny_model(&t, TINY_EXPERTS);
    if (starved)
        tiny_add(&t, "blk.1.exp_probs_b.bias", EXPERTS, 1, 1, 0, 0.9f);
    tiny_save(&t, temp_path("experts.gguf"));
    s->model = quern_open_model(temp_path("experts.gguf"), &how, &err);
    s->pool = s->model ? pool_open(threads, &err) : NULL;
    bool ok = s->pool && calibration_open(&s->text, NULL, CALIBRATION_FIT, s->model, LENGTH, &err);
    CHECK(ok, "%s", err.text);
    return ok;
}

static void close_subject(struct subject *s)
{
    calibration_close(&s->text);
    pool_close(s->pool);
    quern_close_model(s->model);
}

static bool gather(struct imatrix *m, struct subject *s, bool fisher)
{
    struct importance_options o = { .fisher = fisher, .tokens = TOKENS, .pool = s->pool };
    struct quern_error err;
    bool ok = importance_gather(m, s->model, &s->text, &o, &err);
    CHECK(ok, "%s", err.text);
    return ok;
}

static const struct imatrix_entry *entry(const struct imatrix *m, const char *name)
{
    const struct imatrix_entry *e = imatrix_find(m, (struct gguf_string){ name, strlen(name) });
    CHECK(e != NULL, "no entry for %s", name);
    return e;
}

/* The shared expert and the stack read the same vectors; each goes to the stack as often as experts are used. */
static void each_expert_has_its_own(void)
{
    struct subject s;
    struct imatrix m;
    if (!open_subject(&s, false, 2) || !gather(&m, &s, false))
        return;
    const struct imatrix_entry *whole = entry(&m, "blk.1.ffn_up_shexp.weight"), *stack = entry(&m, "blk.1.ffn_up_exps.weight");
    if (!whole || !stack)
        return;
    float tokens = 0, most = 0;
    CHECK(stack->experts == EXPERTS && whole->experts == 1, "%zu experts", stack->experts);
    CHECK(whole->tokens[0] == TOKENS - TOKENS / LENGTH, "%g tokens", (double)whole->tokens[0]);
    for (size_t e = 0; e < stack->experts; e++) {
        tokens += stack->tokens[e];
        most = fmaxf(most, stack->tokens[e]);
    }
    CHECK(tokens == USED * whole->tokens[0], "%g tokens in the stack", (double)tokens);
    CHECK(most <= whole->tokens[0] && most < tokens, "nobody gets a token twice");
    for (size_t i = 0; i < whole->inputs; i++) {
        double sum = 0, expected = (double)USED * whole->mean[i] * whole->tokens[0];
        for (size_t e = 0; e < stack->experts; e++)
            sum += (double)stack->mean[e * stack->inputs + i] * stack->tokens[e];
        CHECK(fabs(sum - expected) < 1e-5 * expected, "input %zu: %g in the stack, %g expected", i, sum, expected);
    }
    imatrix_close(&m);
    close_subject(&s);
}

/* Every matrix of the layers and the head, by the tensors' names and shapes; written, read back, and fit for the model. */
static void the_file_is_llama_imatrix_s(void)
{
    struct subject s;
    struct imatrix m, back;
    struct quern_error err;
    size_t stacks = 0;
    if (!open_subject(&s, true, 2) || !gather(&m, &s, false))
        return;
    const struct gguf *g = &s.model->gguf;
    bool *needs = calloc(g->tensor_count, sizeof *needs);
    for (size_t i = 0; i < g->tensor_count; i++)
        needs[i] = g->tensors[i].dims > 1 && !gguf_string_is(g->tensors[i].name, "token_embd.weight");
    CHECK(imatrix_write(temp_path("experts.imatrix"), &m, true, &err), "%s", err.text);
    CHECK(imatrix_open(&back, temp_path("experts.imatrix"), &err), "%s", err.text);
    CHECK(imatrix_check(&back, g, needs, false, &err), "%s", err.text);
    CHECK(back.count == m.count, "%zu entries, %zu gathered", back.count, m.count);
    for (size_t i = 0; i < back.count; i++) {
        CHECK(back.entries[i].experts == m.entries[i].experts, "%s", back.entries[i].name);
        CHECK(!memcmp(back.entries[i].tokens, m.entries[i].tokens, m.entries[i].experts * sizeof(float)),
              "%s", back.entries[i].name);
        stacks += back.entries[i].experts == EXPERTS;
    }
    CHECK(stacks == 3 * TINY_LAYERS, "%zu stacks", stacks);
    const struct imatrix_entry *e = entry(&m, "blk.1.ffn_down_exps.weight");
    size_t starved = 0;
    for (size_t x = 0; e && x < EXPERTS; x++) {
        starved += e->tokens[x] == 0;
        for (size_t i = 0; i < e->inputs; i++)
            CHECK(e->mean[x * e->inputs + i] > 0 && isfinite(e->mean[x * e->inputs + i]), "expert %zu, input %zu", x, i);
    }
    CHECK(starved > 0 && starved < EXPERTS - USED + 1, "%zu experts saw nobody", starved);
    free(needs);
    imatrix_close(&back);
    imatrix_close(&m);
    close_subject(&s);
}

/* With gradients the counts are the same, and no result depends on the threads. */
static void gradients_weigh_tokens(void)
{
    struct subject one, three;
    struct imatrix plain, a, b;
    if (!open_subject(&one, false, 1) || !open_subject(&three, false, 3) ||
        !gather(&plain, &one, false) || !gather(&a, &one, true) || !gather(&b, &three, true))
        return;
    CHECK(a.count == plain.count && a.count == b.count, "%zu, %zu and %zu entries", plain.count, a.count, b.count);
    for (size_t i = 0; i < a.count; i++) {
        size_t n = a.entries[i].experts, values = n * a.entries[i].inputs * sizeof(float);
        CHECK(!memcmp(a.entries[i].tokens, plain.entries[i].tokens, n * sizeof(float)), "%s: counts", a.entries[i].name);
        CHECK(!memcmp(a.entries[i].mean, b.entries[i].mean, values), "%s: one thread and three", a.entries[i].name);
        CHECK(memcmp(a.entries[i].mean, plain.entries[i].mean, values), "%s: gradients change nothing", a.entries[i].name);
    }
    imatrix_close(&plain), imatrix_close(&a), imatrix_close(&b);
    close_subject(&one);
    close_subject(&three);
}

int main(void)
{
    TEST(each_expert_has_its_own);
    TEST(the_file_is_llama_imatrix_s);
    TEST(gradients_weigh_tokens);
    return test_end();
}
