/* Frequencies of rotary positions: each way to scale them against values that were made apart from it. */
#include "test.h"

#include <math.h>
#include <string.h>

#include "rope.h"

enum { MOST = 32 };

static struct rope_hyper plain_of(size_t dims, double base)
{
    return (struct rope_hyper){ .dims = dims, .base = base, .base_local = base, .factor = 1, .beta_fast = 32, .beta_slow = 1,
                                .attn_factor = 1, .yarn_magnitude = 1, .original_context = 4096 };
}

static void init(struct rope_table *table, double room[MOST], const struct rope_hyper *rope, enum rope_table_kind kind,
                 enum rope_local local, size_t context)
{
    *table = (struct rope_table){ .frequency = room };
    rope_init(table, rope, kind, local, context);
}

static size_t wrong(const double *got, const double *want, double factor, size_t n)
{
    size_t bad = 0;
    for (size_t i = 0; i < n; i++)
        bad += !(fabs(got[i] - want[i] * factor) <= 1e-14 * want[i]);
    return bad;
}

/* base^(-2i / dims), divided by the factor of linear scaling. The angles of a position: cosine, sine, cosine, ... */
static void test_plain(void)
{
    struct rope_hyper rope = plain_of(8, 10000);
    struct rope_table table;
    double room[MOST], want[4] = { 1, 0.1, 0.01, 0.001 };
    float cs[8];
    init(&table, room, &rope, ROPE_TABLE_MAIN, LOCAL_SAME, 512);
    CHECK(table.pairs == 4 && table.magnitude == 1 && wrong(room, want, 1, 4) == 0, "%g %g %g %g", room[0], room[1], room[2],
          room[3]);
    rope.attn_factor = 2;
    rope.factor = 4;
    init(&table, room, &rope, ROPE_TABLE_MAIN, LOCAL_SAME, 512);
    CHECK(wrong(room, want, 0.25, 4) == 0 && table.magnitude == 2, "by a factor of 4");
    rope_angles(cs, &table, 100);
    for (size_t i = 0; i < 4; i++)
        CHECK(cs[2 * i] == (float)(2 * cos(25 * want[i])) && cs[2 * i + 1] == (float)(2 * sin(25 * want[i])), "pair %zu", i);
}

/* LongRoPE: the short factors up to the trained context itself, the long ones from the next token on. Factors of Llama 3's kind
 * stand in the file and hold for every context. */
static void test_factors(void)
{
    static const float few[4] = { 1, 2, 4, 8 }, many[4] = { 3, 5, 7, 9 };
    const double by_few[4] = { 1, 0.05, 0.0025, 0.000125 }, by_many[4] = { 1 / 3.0, 0.02, 0.01 / 7, 0.001 / 9 };
    struct rope_hyper rope = plain_of(8, 10000);
    struct rope_table table;
    double room[MOST];
    rope.short_factors = few;
    rope.long_factors = many;
    for (size_t context = 4095; context <= 4097; context++) {
        init(&table, room, &rope, ROPE_TABLE_MAIN, LOCAL_SAME, context);
        CHECK(wrong(room, context <= 4096 ? by_few : by_many, 1, 4) == 0, "context of %zu", context);
    }
    rope.freq_factors = few;
    init(&table, room, &rope, ROPE_TABLE_MAIN, LOCAL_SAME, 4097);
    CHECK(wrong(room, by_few, 1, 4) == 0, "factors of the file come first");
}

/* YaRN by the formulas of the paper in double precision, made with another program. The ramp of the first runs from pair 10 to 23;
 * that of the second would begin behind its end, at 21 of 15. */
static void test_yarn(void)
{
    static const double first[32] = {
        1, 0.74989420933245587, 0.56234132519034907, 0.42169650342858223, 0.31622776601683794, 0.23713737056616552,
        0.17782794100389229, 0.1333521432163324, 0.10000000000000001, 0.074989420933245579, 0.056234132519034911,
        0.039736785900001015, 0.02797399468610489, 0.019609436412202148, 0.01367907238491479, 0.009488517882700576,
        0.006538461538461539, 0.0044705231710204093, 0.0030279917510249565, 0.002027387035714338, 0.0013378867023789295,
        0.00086646346937637418, 0.00054716289539659152, 0.00033338035804083102, 0.00025000000000000001, 0.00018747355233311396,
        0.00014058533129758727, 0.00010542412585714556, 7.9056941504209485e-05, 5.9284342641541385e-05, 4.4456985250973067e-05,
        3.3338035804083099e-05,
    };
    struct rope_hyper rope = plain_of(64, 10000);
    struct rope_table table;
    double room[MOST];
    rope.yarn = true;
    rope.factor = 4;
    rope.yarn_magnitude = 1.25;
    rope.attn_factor = 0.5;
    init(&table, room, &rope, ROPE_TABLE_MAIN, LOCAL_SAME, 512);
    CHECK(wrong(room, first, 1, 32) == 0 && table.magnitude == 0.625, "%zu of 32, magnitude %g", wrong(room, first, 1, 32),
          table.magnitude);
    rope.dims = 16, rope.base = 10, rope.original_context = 100000, rope.factor = 8;
    init(&table, room, &rope, ROPE_TABLE_MAIN, LOCAL_SAME, 512);
    for (size_t i = 0; i < 8; i++)
        CHECK(fabs(room[i] - pow(10, -(double)i / 8)) < 1e-15, "pair %zu is not interpolated: %g", i, room[i]);
    /* Ramps that end behind the last pair: with the last dimension, pairs 0 to 7 of 0 to 15, and before it. */
    rope.base = 100, rope.beta_fast = 1e9;
    for (int end = 15; end >= 10; end -= 5) {
        rope.original_context = end == 15 ? 1000000000 : 1500;
        init(&table, room, &rope, ROPE_TABLE_MAIN, LOCAL_SAME, 512);
        for (size_t i = 0; i < 8; i++) {
            double keep = 1 - (double)i / end, own = pow(100, -(double)i / 8);
            CHECK(fabs(room[i] - own * (keep + (1 - keep) / 8)) < 1e-15, "pair %zu, ramp to %d: %g", i, end, room[i]);
        }
    }
}

/* Layers with windows: as the others but for the base; without any scaling; or with the scaling's length, but own frequencies. */
static void test_local(void)
{
    const double by_base[4] = { 1, 0.5, 0.25, 0.125 }, by_main[4] = { 1, 0.1, 0.01, 0.001 };
    struct rope_hyper rope = plain_of(8, 10000);
    struct rope_table table, main_table;
    double room[MOST], main_room[MOST];
    rope.base_local = 16;
    rope.factor = 8;
    rope.attn_factor = 3;
    init(&table, room, &rope, ROPE_TABLE_LOCAL, LOCAL_SAME, 512);
    CHECK(wrong(room, by_base, 0.125, 4) == 0 && table.magnitude == 3, "scaled as the others");
    for (int yarn = 0; yarn < 2; yarn++) {
        rope.yarn = yarn;
        init(&table, room, &rope, ROPE_TABLE_LOCAL, LOCAL_OWN_BASE, 512);
        CHECK(wrong(room, by_base, 1, 4) == 0 && table.magnitude == 3, "a base of their own");
        init(&table, room, &rope, ROPE_TABLE_LOCAL, LOCAL_UNSCALED, 512);
        CHECK(wrong(room, by_base, 1, 4) == 0 && table.magnitude == 1, "unscaled");
    }
    rope.yarn = false;
    init(&main_table, main_room, &rope, ROPE_TABLE_MAIN, LOCAL_UNSCALED, 512);
    CHECK(main_table.magnitude == 3 && wrong(main_room, by_main, 0.125, 4) == 0, "the others are scaled");
}

int main(void)
{
    TEST(test_plain);
    TEST(test_factors);
    TEST(test_yarn);
    TEST(test_local);
    return test_end();
}
