/* Angles are computed in double for every token: at position 100,000 a float would leave an error of 4e-3 radians in the
 * fastest pair. In a profile of 512 tokens through a 0.3B model the sines stayed below 0.1 %. */
#include "rope.h"

#include <math.h>

/* The pair whose wave turns `turns` times within the original context, as a fraction of an index. */
static double yarn_pair(const struct rope_hyper *rope, double base, double turns)
{
    double pi = 3.14159265358979323846;
    return (double)rope->dims * log((double)rope->original_context / (turns * 2 * pi)) / (2 * log(base));
}

/* YaRN: how much of pair i keeps its own frequency (1) rather than the interpolated one (0). */
static double yarn_keep(const struct rope_hyper *rope, double base, size_t i)
{
    double low = floor(yarn_pair(rope, base, rope->beta_fast)), high = ceil(yarn_pair(rope, base, rope->beta_slow));
    if (low < 0)
        low = 0;
    if (high > (double)rope->dims - 1)
        high = (double)rope->dims - 1;
    double ramp = ((double)i - low) / fmax(0.001, high - low);
    return 1 - fmin(1, fmax(0, ramp));
}

void rope_init(struct rope_table *table, const struct rope_hyper *rope, enum rope_table_kind kind, enum rope_local local,
               size_t context)
{
    bool own = kind == ROPE_TABLE_LOCAL, unscaled = own && local != LOCAL_SAME;
    bool plain = own && local == LOCAL_UNSCALED;
    double base = own ? rope->base_local : rope->base;
    double factor = unscaled ? 1 : rope->factor;
    /* LongRoPE has one set of factors for contexts within the trained one and another beyond. It is the size of the context that
     * decides, not the number of tokens in it: the angles of what is cached must not change when the text grows. */
    const float *divisors = rope->freq_factors;
    if (!divisors)
        divisors = context > rope->original_context ? rope->long_factors : rope->short_factors;
    table->pairs = rope->dims / 2;
    table->magnitude = plain ? 1 : rope->attn_factor * rope->yarn_magnitude;
    for (size_t i = 0; i < table->pairs; i++) {
        double own_frequency = pow(base, -2.0 * (double)i / (double)rope->dims);
        if (divisors)
            own_frequency /= divisors[i];
        /* The pair turns by a mix of its own angle and the one with positions divided by the factor. */
        double keep = rope->yarn && !unscaled ? yarn_keep(rope, base, i) : 0;
        table->frequency[i] = own_frequency * (keep + (1 - keep) / factor);
    }
}

void rope_angles(float *cs, const struct rope_table *table, size_t pos)
{
    for (size_t i = 0; i < table->pairs; i++) {
        double angle = (double)pos * table->frequency[i];
        cs[2 * i] = (float)(cos(angle) * table->magnitude);
        cs[2 * i + 1] = (float)(sin(angle) * table->magnitude);
    }
}
