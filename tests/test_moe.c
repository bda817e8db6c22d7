/* How a token's experts are chosen and weighed: by hand, at the edges that random scores do not meet. */
#include "test.h"

#include <math.h>
#include <string.h>

#include "arch.h"
#include "forward.h"
#include "kernels.h"
#include "moe.h"

enum { EXPERTS = 8, GROUPS = 4, USED = 2 };

struct choice { uint32_t chosen[EXPERTS]; float weight[EXPERTS], score[EXPERTS]; };

static struct arch arch;
static struct model model = { .arch = &arch };
static struct layer layer;

static void reset(enum gating_kind gating)
{
    arch = (struct arch){ 0 };
    layer = (struct layer){ 0 };
    model.hyper = (struct hyper){ .experts = EXPERTS, .experts_used = USED, .gating = gating, .expert_scale = 1 };
}

static struct choice choose(const float logits[EXPERTS])
{
    static struct kernels kernels;
    static struct cpu cpu;
    struct choice c = { 0 };
    float select[EXPERTS + GROUPS];
    if (!kernels.softmax.fn)
        kernels_init(&kernels, &cpu);
    memcpy(c.score, logits, sizeof c.score);
    moe_choose(&model, &kernels, &layer, c.score, select, c.chosen, c.weight);
    return c;
}

/* The larger score first, of equals the smaller number: in every place of the list. */
static void test_ties(void)
{
    static const float equal[EXPERTS] = { 1, 1, 1, 1, 1, 1, 1, 1 }, two[EXPERTS] = { 0, 3, 0, 5, 3, 0, 5, 3 };
    reset(GATING_SOFTMAX);
    struct choice c = choose(equal);
    CHECK(c.chosen[0] == 0 && c.chosen[1] == 1 && c.weight[0] == 0.125f && c.weight[1] == 0.125f, "of eight equals %u, %u",
          c.chosen[0], c.chosen[1]);
    model.hyper.experts_used = 4;
    c = choose(two);
    CHECK(c.chosen[0] == 3 && c.chosen[1] == 6 && c.chosen[2] == 1 && c.chosen[3] == 4, "of pairs %u, %u, %u, %u", c.chosen[0],
          c.chosen[1], c.chosen[2], c.chosen[3]);
}

/* Two of four groups take part, those whose two best add up to the most: not the one with the best of all. Of equal groups the
 * first ones. */
static void test_groups(void)
{
    static const float best_alone[EXPERTS] = { 9, -9, 5, 5, 4, 4, 1, 1 }, equal[EXPERTS] = { 1, 2, 2, 1, 1, 2, 2, 1 };
    reset(GATING_SIGMOID);
    model.hyper.expert_groups = GROUPS;
    model.hyper.groups_used = 2;
    struct choice c = choose(best_alone);
    CHECK(c.chosen[0] == 2 && c.chosen[1] == 3, "%u, %u", c.chosen[0], c.chosen[1]);
    model.hyper.experts_used = 4;
    c = choose(best_alone);
    CHECK(c.chosen[2] == 4 && c.chosen[3] == 5, "%u, %u", c.chosen[2], c.chosen[3]);
    model.hyper.experts_used = 2;
    c = choose(equal);
    CHECK(c.chosen[0] == 1 && c.chosen[1] == 2, "of equal groups %u, %u", c.chosen[0], c.chosen[1]);
}

/* Sigmoids round to 1 from 17 on; Llama 4 chooses by what they are made of, the others by the sigmoids themselves. */
static void test_sigmoids(void)
{
    static const float large[EXPERTS] = { 0, 40, 41, 0, 42, 0, 0, 0 };
    reset(GATING_SIGMOID);
    struct choice c = choose(large);
    CHECK(c.chosen[0] == 1 && c.chosen[1] == 2 && c.weight[0] == 1, "by sigmoids %u, %u", c.chosen[0], c.chosen[1]);
    arch.flags = ARCH_LLAMA4;
    c = choose(large);
    CHECK(c.chosen[0] == 4 && c.chosen[1] == 2 && c.weight[0] == 1, "by logits %u, %u", c.chosen[0], c.chosen[1]);
}

/* The bias of the router moves the choice and not the weights. */
static void test_bias(void)
{
    static const float logits[EXPERTS] = { 0, 1, 2, 3, 0, 0, 0, 0 };
    static const float bias[EXPERTS] = { 0, 0, 0, 0, 0, 0, 0, 5 };
    reset(GATING_SIGMOID);
    layer.router_bias = bias;
    struct choice c = choose(logits);
    CHECK(c.chosen[0] == 7 && c.chosen[1] == 3 && c.weight[0] == 0.5f, "%u of weight %g, %u", c.chosen[0], (double)c.weight[0],
          c.chosen[1]);
}

/* Weights that are made to add up to 1, times the scale; vanishing ones are not blown up to it. */
static void test_weights(void)
{
    static const float logits[EXPERTS] = { 0, 0, 0, 3, 0, 2, 0, 0 }, none[EXPERTS] = { -80, -80, -80, -80, -80, -80, -80, -80 };
    const double e = exp(1);
    reset(GATING_SOFTMAX_CHOSEN);
    struct choice c = choose(logits);
    CHECK(fabs(c.weight[0] - e / (1 + e)) < 1e-6 && fabs(c.weight[0] + c.weight[1] - 1) < 1e-6, "softmax of the chosen: %g, %g",
          (double)c.weight[0], (double)c.weight[1]);
    reset(GATING_SOFTMAX);
    model.hyper.normalise_experts = true;
    model.hyper.expert_scale = 2.5f;
    c = choose(logits);
    CHECK(fabs(c.weight[0] - 2.5 * e / (1 + e)) < 1e-5 && fabs(c.weight[0] + c.weight[1] - 2.5) < 1e-5, "normalised: %g, %g",
          (double)c.weight[0], (double)c.weight[1]);
    reset(GATING_SIGMOID);
    model.hyper.normalise_experts = true;
    c = choose(none);
    CHECK(c.weight[0] >= 0 && c.weight[0] < 1e-20f, "vanishing weights become %g", (double)c.weight[0]);
}

int main(void)
{
    TEST(test_ties);
    TEST(test_groups);
    TEST(test_sigmoids);
    TEST(test_bias);
    TEST(test_weights);
    return test_end();
}
