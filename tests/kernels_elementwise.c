/* Norms, rotations, gates, softmax: against the functions themselves in double. */
#include "kernels_check.h"

#include <float.h>
#include <math.h>
#include <string.h>

static const size_t sizes[] = { 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 127, 128, 255, 256, 257, 521, 2048 };
enum { SIZES = sizeof sizes / sizeof *sizes };
static const float eps = 1e-5f;

static float *floats(struct check *c, size_t n, enum fill fill)
{
    float *x = guard_alloc(c, n * sizeof *x);
    fill_floats(c, x, n, fill);
    return x;
}

static float *copy(struct check *c, const float *x, size_t n)
{
    float *y = guard_alloc(c, n * sizeof *y);
    memcpy(y, x, n * sizeof *y);
    return y;
}

/* ---- norms ------------------------------------------------------------------------------------------------------ */

static void check_rms_norm(struct check *c, bool verbose)
{
    check_begin(c, "rms_norm", "");
    for (size_t i = 0; i < SIZES; i++)
        for (enum fill fill = 0; fill < FILL_KINDS; fill++) {
            size_t n = sizes[i];
            bool weighted = (i + fill) % 3 != 0;
            float *x = floats(c, n, fill), *weight = floats(c, n, FILL_RANDOM), *out = guard_alloc(c, n * sizeof *out);
            double sum = 0;
            check_shape(c, "n %zu, x %s, %s", n, fill_names[fill], weighted ? "weighted" : "no weight");
            for (size_t j = 0; j < n; j++)
                sum += (double)x[j] * x[j];
            c->table->rms_norm.fn(out, x, weighted ? weight : NULL, n, eps);
            for (size_t j = 0; j < n; j++) {
                double exact = x[j] / sqrt(sum / (double)n + eps) * (weighted ? weight[j] : 1);
                check_value(c, j, out[j], exact, fabs(exact) * ((double)n + 8) * FLT_EPSILON + FLT_MIN);
            }
            float *place = copy(c, x, n);
            c->table->rms_norm.fn(place, place, weighted ? weight : NULL, n, eps);
            check_floats(c, place, out, n);
            guard_release(c);
        }
    check_finish(c, verbose);
}

/* The mean is off by at most (n + 8) eps mean|x| = delta; that moves each x - mean by delta, and the variance by (delta / sigma)^2
 * of itself and, through rounding, by (n + 8) eps. */
static void check_layer_norm(struct check *c, bool verbose)
{
    check_begin(c, "layer_norm", "");
    for (size_t i = 0; i < SIZES; i++)
        for (enum fill fill = 0; fill < FILL_KINDS; fill++) {
            size_t n = sizes[i];
            bool weighted = (i + fill) % 3 != 0, biased = (i + fill) % 4 != 0;
            float *x = floats(c, n, fill), *weight = floats(c, n, FILL_RANDOM), *bias = floats(c, n, FILL_RANDOM);
            float *out = guard_alloc(c, n * sizeof *out);
            double sum = 0, size = 0, squares = 0, unit = ((double)n + 8) * FLT_EPSILON;
            check_shape(c, "n %zu, x %s, weight %d, bias %d", n, fill_names[fill], weighted, biased);
            for (size_t j = 0; j < n; j++) {
                sum += x[j];
                size += fabs((double)x[j]);
            }
            double mean = sum / (double)n, delta = unit * size / (double)n;
            for (size_t j = 0; j < n; j++)
                squares += (x[j] - mean) * (x[j] - mean);
            double variance = squares / (double)n + eps, relative = unit + (delta * delta + delta * sqrt(variance)) / variance;
            c->table->layer_norm.fn(out, x, weighted ? weight : NULL, biased ? bias : NULL, n, eps);
            for (size_t j = 0; j < n; j++) {
                double w = weighted ? weight[j] : 1, b = biased ? bias[j] : 0, y = (x[j] - mean) / sqrt(variance) * w;
                double bound = fabs(y) * relative + fabs(w) * delta / sqrt(variance) + (fabs(y) + fabs(b)) * 4 * FLT_EPSILON;
                check_value(c, j, out[j], y + b, bound + FLT_MIN);
            }
            float *place = copy(c, x, n);
            c->table->layer_norm.fn(place, place, weighted ? weight : NULL, biased ? bias : NULL, n, eps);
            check_floats(c, place, out, n);
            guard_release(c);
        }
    check_finish(c, verbose);
}

static void check_rope(struct check *c, bool verbose)
{
    check_begin(c, "rope", "");
    for (size_t i = 0; i < SIZES; i++)
        for (size_t turn = 0; turn < 2 * FILL_KINDS; turn++) {
            size_t pairs = sizes[i];
            bool interleaved = turn % 2;
            float *x = floats(c, 2 * pairs, (enum fill)(turn / 2)), *cs = guard_alloc(c, 2 * pairs * sizeof *cs);
            for (size_t j = 0; j < pairs; j++) {
                double angle = random_float(&c->random, -1000, 1000), scale = turn > 8 ? 1.19 : 1;
                cs[2 * j] = (float)(cos(angle) * scale);
                cs[2 * j + 1] = (float)(sin(angle) * scale);
            }
            float *out = copy(c, x, 2 * pairs);
            check_shape(c, "pairs %zu, x %s, %s", pairs, fill_names[turn / 2], interleaved ? "interleaved" : "halves");
            c->table->rope.fn(out, cs, pairs, interleaved);
            for (size_t j = 0; j < pairs; j++) {
                size_t first = interleaved ? 2 * j : j, second = interleaved ? first + 1 : j + pairs;
                double a = x[first], b = x[second], cosine = cs[2 * j], sine = cs[2 * j + 1];
                double larger_a = fmax(fabs(a * cosine), fabs(b * sine)), larger_b = fmax(fabs(a * sine), fabs(b * cosine));
                check_value(c, first, out[first], a * cosine - b * sine, 2 * ulp_of(larger_a));
                check_value(c, second, out[second], a * sine + b * cosine, 2 * ulp_of(larger_b));
            }
            guard_release(c);
        }
    check_finish(c, verbose);
}

/* ---- gates ------------------------------------------------------------------------------------------------------ */

static double gelu_exponent(double x)
{
    return 2 * 0.79788456080286535588 * (x + 0.044715 * x * x * x);
}

static double silu(double x)
{
    return x / (1 + exp(-x));
}

static double gelu(double x)
{
    return x / (1 + exp(-gelu_exponent(x)));
}

/* Gates as they come, and a sweep over all that exp can meet. */
static void fill_gates(struct check *c, float *x, size_t n, size_t turn)
{
    if (turn < FILL_KINDS) {
        fill_floats(c, x, n, (enum fill)turn);
        return;
    }
    float range = turn == FILL_KINDS ? 10 : turn == FILL_KINDS + 1 ? 110 : 1e5f;
    for (size_t i = 0; i < n; i++)
        x[i] = random_float(&c->random, -range, range);
    if (turn == FILL_KINDS + 2) {
        static const float ends[] = { 0, -0.0f, INFINITY, 88.7228f, -88.7228f, -87.3365f, -103.98f, 1e-30f, -1e-38f, 3e38f,
                                      -3e38f };
        for (size_t i = 0; i < n; i++)
            x[i] = ends[random_size(c, 0, sizeof ends / sizeof *ends - 1)];
    }
}

static void gate_values(struct check *c, const float *out, const float *x, const float *up, size_t n, bool is_gelu)
{
    for (size_t j = 0; j < n; j++) {
        double exact = (is_gelu ? gelu(x[j]) : silu(x[j])) * (up ? up[j] : 1);
        double ulps = (up ? 5 : 4) + (is_gelu && x[j] < 0 ? 4 * fabs(gelu_exponent(x[j])) : 0);
        double flush = FLT_MIN * (up ? fmax(1, fabs(up[j])) : 1);
        check_value(c, j, out[j], exact, fabs(exact) < flush ? flush : ulps * ulp_of(exact));
    }
}

static void check_gate(struct check *c, const char *name, unary_fn *unary, gate_fn *gate, bool is_gelu, bool verbose)
{
    check_begin(c, name, "");
    for (size_t i = 0; i < SIZES; i++)
        for (size_t turn = 0; turn < FILL_KINDS + 3; turn++) {
            size_t n = sizes[i];
            float *x = guard_alloc(c, n * sizeof *x), *out = guard_alloc(c, n * sizeof *out), *up = NULL;
            float *pieces = guard_alloc(c, n * sizeof *out);
            fill_gates(c, x, n, turn);
            check_shape(c, "n %zu, kind %zu", n, turn);
            if (gate) {
                up = floats(c, n, FILL_RANDOM);
                gate(out, x, up, n);
            } else {
                unary(out, x, n);
            }
            gate_values(c, out, x, up, n, is_gelu);
            size_t cut = random_size(c, 0, n);              /* a value does not depend on where a piece begins */
            gate ? gate(pieces, x, up, cut) : unary(pieces, x, cut);
            gate ? gate(pieces + cut, x + cut, up + cut, n - cut) : unary(pieces + cut, x + cut, n - cut);
            check_floats(c, pieces, out, n);
            gate ? gate(x, x, up, n) : unary(x, x, n);
            check_floats(c, x, out, n);
            guard_release(c);
        }
    check_finish(c, verbose);
}

/* ---- vectors ---------------------------------------------------------------------------------------------------- */

static void check_axpy(struct check *c, bool verbose)
{
    static const float factors[] = { 0, 1, -1, 0.37f, 1e-20f, 65504 };
    check_begin(c, "axpy", "");
    for (size_t i = 0; i < SIZES; i++)
        for (size_t turn = 0; turn < 6 * FILL_KINDS; turn++) {
            size_t n = sizes[i];
            float a = factors[turn % 6], *x = floats(c, n, (enum fill)(turn / 6)), *y = floats(c, n, FILL_RANDOM);
            float *out = copy(c, y, n);
            check_shape(c, "n %zu, x %s, a %g", n, fill_names[turn / 6], a);
            c->table->axpy.fn(out, x, a, n);
            for (size_t j = 0; j < n; j++) {
                double exact = y[j] + (double)a * x[j];
                check_value(c, j, out[j], exact, ulp_of(exact));
            }
            size_t cut = random_size(c, 0, n);
            c->table->axpy.fn(y, x, a, cut);
            c->table->axpy.fn(y + cut, x + cut, a, n - cut);
            check_floats(c, y, out, n);
            guard_release(c);
        }
    check_finish(c, verbose);
}

static void check_dot(struct check *c, bool verbose)
{
    check_begin(c, "dot", "");
    for (size_t i = 0; i < SIZES; i++)
        for (size_t turn = 0; turn < FILL_KINDS * FILL_KINDS; turn++) {
            size_t n = sizes[i];
            float *a = floats(c, n, (enum fill)(turn / FILL_KINDS)), *b = floats(c, n, (enum fill)(turn % FILL_KINDS));
            double sum = 0, terms = 0;
            check_shape(c, "n %zu, %s . %s", n, fill_names[turn / FILL_KINDS], fill_names[turn % FILL_KINDS]);
            for (size_t j = 0; j < n; j++) {
                sum += (double)a[j] * b[j];
                terms += fabs((double)a[j] * b[j]);
            }
            check_value(c, 0, c->table->dot.fn(a, b, n), sum, terms * (double)n * FLT_EPSILON + (double)n * FLT_MIN);
            guard_release(c);
        }
    check_finish(c, verbose);
}

/* ---- softmax ---------------------------------------------------------------------------------------------------- */

static void fill_scores(struct check *c, float *x, size_t n, size_t turn)
{
    if (turn < FILL_KINDS)
        fill_floats(c, x, n, (enum fill)turn);
    else
        for (size_t i = 0; i < n; i++)
            x[i] = random_float(&c->random, -30, turn == FILL_KINDS ? 30 : 1000);
    if (turn == FILL_KINDS + 2)
        for (size_t i = 0; i < n; i++)
            x[i] = random_u64(&c->random) % 2 ? -INFINITY : x[i];
    if (turn == FILL_KINDS + 3)
        for (size_t i = 0; i < n; i++)
            x[i] = -INFINITY;
}

enum { SCORE_KINDS = FILL_KINDS + 4 };

/* exp(x - max) and its allowed error: the difference is rounded, which exp turns into |x - max| / 2 ulps. */
static double exact_exp(double *bound, float x, double max)
{
    double value = x == -INFINITY ? 0 : exp(x - max);
    *bound = (8 + (x == -INFINITY ? 0 : fabs(x - max))) * FLT_EPSILON * value;
    return value;
}

static void check_softmax(struct check *c, bool verbose)
{
    check_begin(c, "softmax", "");
    for (size_t i = 0; i < SIZES; i++)
        for (size_t turn = 0; turn < SCORE_KINDS; turn++) {
            size_t n = sizes[i];
            float *x = guard_alloc(c, n * sizeof *x);
            double max = -INFINITY, sum = 0, bound;
            fill_scores(c, x, n, turn);
            check_shape(c, "n %zu, kind %zu", n, turn);
            for (size_t j = 0; j < n; j++)
                max = x[j] > max ? x[j] : max;
            for (size_t j = 0; j < n; j++)
                sum += exact_exp(&bound, x[j], max);
            float *out = copy(c, x, n);
            c->table->softmax.fn(out, n);
            for (size_t j = 0; j < n; j++) {
                double e = exact_exp(&bound, x[j], max);
                check_value(c, j, out[j], sum > 0 ? e / sum : 0, sum > 0 ? bound / sum + FLT_MIN : 0);
            }
            guard_release(c);
        }
    check_finish(c, verbose);
}

static void check_softmax_step(struct check *c, bool verbose)
{
    static const float olds[] = { -INFINITY, 0, 5, -40, 900 };
    check_begin(c, "softmax_step", "");
    for (size_t n = 1; n <= ATTN_TILE; n++)
        for (size_t turn = 0; turn < SCORE_KINDS * 5; turn++) {
            float *x = guard_alloc(c, n * sizeof *x), max = olds[turn % 5], sum = max == -INFINITY ? 0 : 3.25f;
            double top = max, total = 0, error = 0, bound;
            fill_scores(c, x, n, turn / 5);
            check_shape(c, "n %zu, kind %zu, old max %g", n, turn / 5, max);
            for (size_t j = 0; j < n; j++)
                top = x[j] > top ? x[j] : top;
            double factor = max == top ? 1 : exact_exp(&bound, max, top), factor_bound = bound = 0;
            if (max != top)
                exact_exp(&factor_bound, max, top);
            float *out = copy(c, x, n);
            double old_sum = sum, got = c->table->softmax_step.fn(out, n, &max, &sum);
            check_value(c, 0, got, factor, factor_bound + FLT_MIN);
            check_value(c, 0, max, top, 0);
            for (size_t j = 0; j < n; j++) {
                double e = exact_exp(&bound, x[j], top);
                check_value(c, j, out[j], e, bound + FLT_MIN);
                total += e;
                error += bound;
            }
            total += old_sum * factor;
            check_value(c, 0, sum, total, error + old_sum * factor_bound + 8 * FLT_EPSILON * total + FLT_MIN);
            guard_release(c);
        }
    check_finish(c, verbose);
}

/* Rows at once must give what row by row does, to the bit: rows that see nothing yet or no more among them. */
static void check_softmax_rows(struct check *c, bool verbose)
{
    enum { MOST = 35 };
    static const float olds[] = { -INFINITY, 0, 5, -40, 900 };
    check_begin(c, "softmax_rows", "");
    for (size_t rows = 1; rows <= MOST; rows++) {
        float max[MOST], sum[MOST], factor[MOST];
        float *x = guard_alloc(c, rows * ATTN_TILE * sizeof *x);
        for (size_t i = 0; i < rows; i++) {
            max[i] = olds[(i + rows) % 5];
            sum[i] = max[i] == -INFINITY ? 0 : 3.25f;
            fill_scores(c, x + i * ATTN_TILE, ATTN_TILE, (i / 5 + rows) % SCORE_KINDS);
        }
        check_shape(c, "%zu rows", rows);
        float *out = copy(c, x, rows * ATTN_TILE), one[ATTN_TILE];
        c->table->softmax_rows.fn(out, rows, max, sum, factor);
        for (size_t i = 0; i < rows; i++) {
            float m = olds[(i + rows) % 5], s = m == -INFINITY ? 0 : 3.25f;
            memcpy(one, x + i * ATTN_TILE, sizeof one);
            check_value(c, i, factor[i], c->table->softmax_step.fn(one, ATTN_TILE, &m, &s), 0);
            check_value(c, i, max[i], m, 0);
            check_value(c, i, sum[i], s, 0);
            for (size_t j = 0; j < ATTN_TILE; j++)
                check_value(c, i * ATTN_TILE + j, out[i * ATTN_TILE + j], one[j], 0);
        }
        guard_release(c);
    }
    check_finish(c, verbose);
}

size_t check_elementwise(struct check *c, const struct kernels *below, bool verbose)
{
    const struct kernels *t = c->table;
    size_t slots = 0;
    if (!below || below->rms_norm.fn != t->rms_norm.fn)
        slots++, check_rms_norm(c, verbose);
    if (!below || below->layer_norm.fn != t->layer_norm.fn)
        slots++, check_layer_norm(c, verbose);
    if (!below || below->rope.fn != t->rope.fn)
        slots++, check_rope(c, verbose);
    if (!below || below->silu.fn != t->silu.fn)
        slots++, check_gate(c, "silu", t->silu.fn, NULL, false, verbose);
    if (!below || below->gelu.fn != t->gelu.fn)
        slots++, check_gate(c, "gelu", t->gelu.fn, NULL, true, verbose);
    if (!below || below->silu_mul.fn != t->silu_mul.fn)
        slots++, check_gate(c, "silu_mul", NULL, t->silu_mul.fn, false, verbose);
    if (!below || below->gelu_mul.fn != t->gelu_mul.fn)
        slots++, check_gate(c, "gelu_mul", NULL, t->gelu_mul.fn, true, verbose);
    if (!below || below->axpy.fn != t->axpy.fn)
        slots++, check_axpy(c, verbose);
    if (!below || below->dot.fn != t->dot.fn)
        slots++, check_dot(c, verbose);
    if (!below || below->softmax.fn != t->softmax.fn)
        slots++, check_softmax(c, verbose);
    if (!below || below->softmax_step.fn != t->softmax_step.fn)
        slots++, check_softmax_step(c, verbose);
    if (t->softmax_rows.fn && (!below || below->softmax_rows.fn != t->softmax_rows.fn))
        slots++, check_softmax_rows(c, verbose);
    return slots;
}
