/* Calibration in two passes, each in bounded memory, each taken up where a killed run ended:
 *
 *     backward (with `fisher`)  call after call, all layers forth and back: per token and map the mean squared gradient of the
 *                               map's outputs (a guide), per output the sum over the call's tokens
 *     forward                   layer after layer: the residuals of all tokens are held, and the second moments of one layer's
 *                               inputs at a time, which go to the file before the next layer begins
 *
 * A call is a few sequences. What a call adds does not depend on threads, memory or on what an earlier run did. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "imprint_parts.h"
#include "labels.h"
#include "random.h"

/* Tokens per call, about, and bytes of its logits at most. */
enum { CALL_TOKENS = 2048 };
static const size_t LOGIT_BYTES = (size_t)512 << 20;
/* An input counts in full up to so many times the call's median square, a squared gradient up to so many times the mean one. */
static const float MASSIVE = 16, GRADIENT_MOST = 16;
/* Multiplications that the default number of tokens may cost, about: a quarter of an hour on four cores, when there are
 * gradients. */
static const double DEFAULT_WORK = 3e13;
enum { FEWEST_TOKENS = 8192, MOST_TOKENS = 131072 };

size_t imprint_tokens(const struct quern_model *model)
{
    double n = DEFAULT_WORK / ((double)model->model.parameters + 1);
    return n < FEWEST_TOKENS ? FEWEST_TOKENS : n > MOST_TOKENS ? MOST_TOKENS : (size_t)n;
}

/* ---- weights of tokens -------------------------------------------------------------------------------------------------- */

enum { BLOCK = 32 };

struct square_stage { float *out; const float *x; size_t cols, n; };

static void square_rows(void *arg, size_t index, size_t thread)
{
    const struct square_stage *s = arg;
    size_t to = (index + 1) * BLOCK < s->n ? (index + 1) * BLOCK : s->n;
    (void)thread;
    for (size_t t = index * BLOCK; t < to; t++) {
        const float *x = s->x + t * dense_stride(s->cols);
        float sum = 0;
        for (size_t i = 0; i < s->cols; i++)
            sum += x[i] * x[i];
        s->out[t] = sum;
    }
}

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* weight[i] of row i, which belongs to slot slots[i] (NULL: i): 0 at the first position of a sequence, where models put what they
 * have no other place for, and less than 1 where the input is massive. */
static void weigh_tokens(struct imprint *m, const float *x, size_t cols, const uint32_t *slots, size_t per_token, size_t n)
{
    struct square_stage s = { m->weight, x, cols, n };
    pool_run(m->options->pool, square_rows, &s, (n + BLOCK - 1) / BLOCK);
    memcpy(m->square, m->weight, n * sizeof *m->square);
    qsort(m->square, n, sizeof *m->square, by_value);
    float most = MASSIVE * m->square[n / 2];
    for (size_t i = 0; i < n; i++) {
        size_t token = (slots ? slots[i] : i) / per_token;
        m->weight[i] = token % m->length == 0 ? 0 : m->weight[i] > most ? most / m->weight[i] : 1;
    }
}

/* ---- the backward pass --------------------------------------------------------------------------------------------------- */

/* Where the guides of a map's slots stand for the call at hand. */
static float *guides_of(const struct imprint *m, const struct imprint_map *map)
{
    return m->guide + m->guides * m->first_token + map->first_guide * m->call_tokens;
}

enum { OUTPUTS = 512, LANES = 16 };

struct gradient_stage { struct imprint *m; const float *dy; float *sums; size_t rows, n; };

/* A chunk of outputs: sums over tokens for each output, and for each token the sum over the chunk. */
static void add_gradients(void *arg, size_t index, size_t thread)
{
    const struct gradient_stage *s = arg;
    size_t r = index * OUTPUTS, rows = s->rows - r < OUTPUTS ? s->rows - r : OUTPUTS, stride = dense_stride(s->rows);
    float *sums = s->sums + r;
    (void)thread;
    for (size_t t = 0; t < s->n; t++) {
        const float *dy = s->dy + t * stride + r;
        float lanes[LANES] = { 0 }, weight = s->m->weight[t], sum = 0;
        size_t i = 0;
        for (; i + LANES <= rows; i += LANES)
            for (size_t k = 0; k < LANES; k++) {
                float g = dy[i + k] * dy[i + k];
                lanes[k] += g;
                sums[i + k] += weight * g;
            }
        for (; i < rows; i++) {
            sum += dy[i] * dy[i];
            sums[i] += weight * dy[i] * dy[i];
        }
        for (size_t k = 0; k < LANES; k++)
            sum += lanes[k];
        s->m->partial[index * s->n + t] = sum;
    }
}

static void see_gradient(struct imprint *m, size_t id, size_t expert, const uint32_t *slots, const float *x, const float *dy,
                         size_t n)
{
    if (m->map_of[id] == SIZE_MAX)
        return;
    const struct imprint_map *map = &m->maps[m->map_of[id]];
    const struct imprint_input *in = &m->inputs[map->input];
    const struct matrix *w = backward_matrix(m->model, id);
    size_t chunks = (w->rows + OUTPUTS - 1) / OUTPUTS;
    float *guides = guides_of(m, map);
    struct gradient_stage s = { m, dy, m->gradients + map->first_output + expert * map->rows + m->row_of[id], w->rows, n };
    weigh_tokens(m, x, in->cols, slots, in->per_token, n);
    pool_run(m->options->pool, add_gradients, &s, chunks);
    for (size_t i = 0; i < n; i++)
        for (size_t c = 0; c < chunks; c++)
            guides[slots ? slots[i] : i] += m->partial[c * n + i] / (float)map->rows;
}

static void on_linear(void *arg, size_t id, const float *x, const float *dy, size_t n)
{
    see_gradient(arg, id, 0, NULL, x, dy, n);
}

static void on_expert_back(void *arg, size_t id, size_t expert, const uint32_t *slots, const float *x, const float *dy, size_t n)
{
    if (dy)
        see_gradient(arg, id, expert, slots, x, dy, n);
}

/* Nothing at first positions. One token has a seed of its own, so that calls and threads may come in any order. */
static void draw_label(void *arg, size_t token, size_t thread)
{
    struct imprint *m = arg;
    size_t vocab = m->model->hyper.vocab, stride = dense_stride(vocab);
    float *gradient = m->dlogits + token * stride;
    uint64_t seed = (m->options->seed + 1) * 0x9e3779b97f4a7c15u ^ (m->first_token + token) << 20;
    (void)thread;
    if (token % m->length)
        label_gradient(gradient, m->logits + token * stride, vocab, random_unit(&seed));
    else
        memset(gradient, 0, vocab * sizeof *gradient);
}

/* Set the call at hand; gives its tokens. */
static const int32_t *begin_call(struct imprint *m, size_t call)
{
    m->call = call;
    m->first_token = call * m->per_call * m->length;
    m->call_tokens = imprint_call_tokens(m, call);
    return m->text.tokens + m->first_token;
}

static bool stopped(const struct imprint *m, struct quern_error *err)
{
    return m->options->stop && *m->options->stop && !ERR(err, QUERN_EINTERRUPT, "interrupted");
}

static void show(const struct imprint *m, const char *what, double share)
{
    if (m->options->show)
        m->options->show(m->options->show_arg, what, share);
}

/* Write a piece when it is the next one; those before it stand already. */
static bool write_piece(struct imprint *m, size_t index, const float *data, struct quern_error *err)
{
    if (index < m->next)
        return true;
    m->next = index + 1;
    return gguf_writer_data(m->writer, data, m->pieces[index].shape[0] * m->pieces[index].shape[1] * sizeof *data, err);
}

static bool backward_calls(struct imprint *m, struct quern_error *err)
{
    struct backward_hooks hooks = { .arg = m, .linear = on_linear, .expert = on_expert_back };
    for (size_t c = 0; c < m->calls; c++) {
        const int32_t *tokens = begin_call(m, c);
        float *guides = m->guide + m->guides * m->first_token;
        if (stopped(m, err))
            return false;
        if (m->next >= 2 * c + 2) {
            if (!gguf_writer_read(m->writer, 2 * c, guides, err))
                return false;
            continue;
        }
        memset(guides, 0, m->guides * m->call_tokens * sizeof *guides);
        memset(m->gradients, 0, m->outputs * sizeof *m->gradients);
        backward_forward(&m->b, tokens, m->call_tokens / m->length, m->length, m->logits, NULL);
        pool_run(m->options->pool, draw_label, m, m->call_tokens);
        backward_run(&m->b, m->logits, m->dlogits, &hooks);
        if (imprint_call_held(c))
            memset(m->gradients, 0, m->outputs * sizeof *m->gradients);
        if (!write_piece(m, 2 * c, guides, err) || !write_piece(m, 2 * c + 1, m->gradients, err))
            return false;
        show(m, "gradients", (double)(c + 1) / (double)m->calls);
    }
    return true;
}

/* ---- the forward pass ------------------------------------------------------------------------------------------------------ */

/* weight * guide of each row, the guide up to GRADIENT_MOST times the mean of those rows. */
static void guide_rows(struct imprint *m, const struct imprint_map *map, const uint32_t *slots, size_t n)
{
    const float *guides = guides_of(m, map);
    double mean = 0;
    for (size_t i = 0; i < n; i++)
        mean += guides[slots ? slots[i] : i];
    float most = GRADIENT_MOST * (float)(mean / (double)n);
    for (size_t i = 0; i < n; i++)
        m->scaled[i] = m->weight[i] * fminf(guides[slots ? slots[i] : i], most);
}

static void keep_held(struct imprint *m, struct imprint_input *in, size_t expert, const uint32_t *slots, const float *x, size_t n)
{
    size_t before = 0, held = m->held_rows * in->per_token;
    for (size_t c = 0; c < m->call; c++)
        before += imprint_call_held(c) ? imprint_call_tokens(m, c) : 0;
    for (size_t k = 0; k <= in->map_count; k++) {
        struct imprint_map *map = k ? &m->maps[in->first_map + k - 1] : NULL;
        float *out = (map ? map->held : in->held) + expert * held;
        if (map && !m->options->fisher)
            break;
        if (map)
            guide_rows(m, map, slots, n);
        for (size_t i = 0; i < n; i++) {
            size_t slot = slots ? slots[i] : i, token = before + slot / in->per_token;
            if (token % m->held_every)
                continue;
            size_t row = token / m->held_every * in->per_token + slot % in->per_token;
            out[row] = map ? m->scaled[i] : m->weight[i];
            if (!map) {
                memcpy(in->x_held + row * in->cols, x + i * dense_stride(in->cols), in->cols * sizeof *x);
                in->tokens[STATS_HELD * in->experts + expert] += m->weight[i] > 0;
            }
        }
    }
}

static void see_input(struct imprint *m, size_t id, size_t expert, const uint32_t *slots, const float *x, size_t n)
{
    size_t at = m->map_of[id] == SIZE_MAX ? SIZE_MAX : m->maps[m->map_of[id]].input;
    if (at < m->from || at >= m->to || m->inputs[at].id != id)
        return;
    struct imprint_input *in = &m->inputs[at];
    size_t triangle = hessian_size(in->cols);
    weigh_tokens(m, x, in->cols, slots, in->per_token, n);
    if (imprint_call_held(m->call)) {
        keep_held(m, in, expert, slots, x, n);
        return;
    }
    for (size_t i = 0; i < n; i++)
        in->tokens[STATS_FIT * in->experts + expert] += m->weight[i] > 0;
    hessian_inputs(&m->work, x, in->cols, n);
    hessian_add(&m->work, in->h + expert * triangle, m->weight);
    for (size_t k = in->first_map; m->options->fisher && k < in->first_map + in->map_count; k++) {
        guide_rows(m, &m->maps[k], slots, n);
        hessian_add(&m->work, m->maps[k].hg + expert * triangle, m->scaled);
    }
}

static void on_input(void *arg, size_t id, const float *x, size_t n)
{
    see_input(arg, id, 0, NULL, x, n);
}

static void on_expert(void *arg, size_t id, size_t expert, const uint32_t *slots, const float *x, const float *dy, size_t n)
{
    (void)dy;
    see_input(arg, id, expert, slots, x, n);
}

/* Bytes that gathering input `at` takes. */
static size_t input_bytes(const struct imprint *m, size_t at)
{
    const struct imprint_input *in = &m->inputs[at];
    size_t sets = 1 + (m->options->fisher ? in->map_count : 0), held = m->held_rows * in->per_token;
    return (sets * in->experts * (hessian_size(in->cols) + held) + held * in->cols + STATS_PARTS * in->experts) * sizeof(float);
}

static bool take_input(struct imprint *m, struct imprint_input *in, struct quern_error *err)
{
    size_t held = m->held_rows * in->per_token, triangle = hessian_size(in->cols);
    bool ok = (in->h = mem_take(in->experts, triangle * sizeof(float), "second moments", err)) &&
              (in->x_held = mem_take(held, in->cols * sizeof(float), "held-out inputs", err)) &&
              (in->held = mem_take(in->experts, held * sizeof(float), "held-out inputs", err)) &&
              (in->tokens = mem_take(STATS_PARTS, in->experts * sizeof(float), "counts", err));
    for (size_t k = in->first_map; ok && m->options->fisher && k < in->first_map + in->map_count; k++)
        ok = (m->maps[k].hg = mem_take(in->experts, triangle * sizeof(float), "second moments", err)) &&
             (m->maps[k].held = mem_take(in->experts, held * sizeof(float), "held-out inputs", err));
    return ok;
}

static void drop_input(struct imprint *m, struct imprint_input *in)
{
    free(in->h), free(in->x_held), free(in->held), free(in->tokens);
    in->h = in->x_held = in->held = in->tokens = NULL;
    for (size_t k = in->first_map; k < in->first_map + in->map_count; k++) {
        free(m->maps[k].hg), free(m->maps[k].held);
        m->maps[k].hg = m->maps[k].held = NULL;
    }
}

static void take_means(const struct imprint_input *in, float *sums)
{
    size_t n = hessian_size(in->cols);
    for (size_t e = 0; e < in->experts; e++) {
        float tokens = in->tokens[STATS_FIT * in->experts + e];
        for (size_t i = 0; i < n && tokens > 0; i++)
            sums[e * n + i] /= tokens;
    }
}

/* The first piece of input `at`. */
static size_t first_piece(const struct imprint *m, size_t at)
{
    size_t i = 0;
    while (m->pieces[i].kind != PIECE_TOKENS || m->pieces[i].of != at)
        i++;
    return i;
}

static bool write_input(struct imprint *m, size_t at, struct quern_error *err)
{
    struct imprint_input *in = &m->inputs[at];
    size_t piece = first_piece(m, at);
    take_means(in, in->h);
    bool ok = write_piece(m, piece, in->tokens, err) && write_piece(m, piece + 1, in->h, err) &&
              write_piece(m, piece + 2, in->x_held, err) && write_piece(m, piece + 3, in->held, err);
    for (size_t k = 0; ok && m->options->fisher && k < in->map_count; k++) {
        struct imprint_map *map = &m->maps[in->first_map + k];
        take_means(in, map->hg);
        ok = write_piece(m, piece + 4 + 2 * k, map->hg, err) && write_piece(m, piece + 5 + 2 * k, map->held, err);
    }
    return ok;
}

/* All calls through a layer; the residuals move on only when nothing of it is left to gather. */
static bool run_layer(struct imprint *m, size_t layer, bool last, const struct backward_hooks *hooks, struct quern_error *err)
{
    size_t layers = m->model->hyper.layers, stride = dense_stride(m->model->hyper.width);
    for (size_t c = 0; c < m->calls; c++) {
        begin_call(m, c);
        float *x = m->residuals + m->first_token * stride;
        if (stopped(m, err))
            return false;
        if (!last) {
            memcpy(m->b.kept[0], x, m->call_tokens * stride * sizeof *x);
            x = m->b.kept[0];
        }
        if (layer == layers)
            backward_last(&m->b, x, m->call_tokens / m->length, m->length, hooks);
        else
            backward_layer(&m->b, layer, x, m->call_tokens / m->length, m->length, hooks);
        show(m, "moments", ((double)layer + (double)(c + 1) / (double)m->calls) / (double)(layers + 1));
    }
    return true;
}

/* Gather as many of a layer's inputs at a time as the memory allows (`room` bytes; at least one). */
static bool gather_layer(struct imprint *m, size_t layer, size_t begin, size_t end, size_t room, struct quern_error *err)
{
    struct backward_hooks hooks = { .arg = m, .input = on_input, .expert = on_expert };
    bool ok = true;
    /* What an earlier run has written whole is not gathered again. */
    while (begin < end && first_piece(m, begin) + 4 + (m->options->fisher ? 2 * m->inputs[begin].map_count : 0) <= m->next)
        begin++;
    m->from = begin;
    do {
        size_t bytes = 0;
        for (m->to = m->from; m->to < end && (m->to == m->from || bytes + input_bytes(m, m->to) <= room); m->to++)
            bytes += input_bytes(m, m->to);
        for (size_t i = m->from; ok && i < m->to; i++)
            ok = take_input(m, &m->inputs[i], err);
        ok = ok && run_layer(m, layer, m->to == end, m->from < m->to ? &hooks : NULL, err);
        for (size_t i = m->from; i < m->to; i++) {
            ok = ok && write_input(m, i, err);
            drop_input(m, &m->inputs[i]);
        }
        m->from = m->to;
    } while (ok && m->from < end);
    return ok;
}

static bool forward_layers(struct imprint *m, size_t room, struct quern_error *err)
{
    size_t layers = m->model->hyper.layers, stride = dense_stride(m->model->hyper.width), begin = 0;
    for (size_t c = 0; c < m->calls; c++) {
        const int32_t *tokens = begin_call(m, c);
        backward_embed(&m->b, tokens, m->call_tokens / m->length, m->length, m->residuals + m->first_token * stride);
    }
    for (size_t layer = 0; layer <= layers && m->next < m->piece_count; layer++) {
        size_t end = begin;
        while (end < m->input_count && m->inputs[end].layer == layer)
            end++;
        if (!gather_layer(m, layer, begin, end, room, err))
            return false;
        begin = end;
    }
    return true;
}

/* ---- memory ------------------------------------------------------------------------------------------------------------------ */

struct need { size_t rows, widest, partial, fixed, input; };

/* What is taken beside the backward pass' own buffers. */
static void find_need(const struct imprint *m, struct need *n)
{
    size_t most = m->per_call * m->length, logits = dense_stride(m->model->hyper.vocab) * sizeof(float) * most, rows = 0;
    *n = (struct need){ .rows = most };
    for (size_t i = 0; i < m->input_count; i++) {
        const struct imprint_input *in = &m->inputs[i];
        n->rows = most * in->per_token > n->rows ? most * in->per_token : n->rows;
        n->widest = in->cols > n->widest ? in->cols : n->widest;
        n->input = input_bytes(m, i) > n->input ? input_bytes(m, i) : n->input;
    }
    for (size_t k = 0; k < m->map_count; k++)
        rows = m->maps[k].rows > rows ? m->maps[k].rows : rows;
    n->partial = (rows + OUTPUTS - 1) / OUTPUTS * n->rows;
    n->fixed = m->tokens * dense_stride(m->model->hyper.width) * sizeof(float) + n->rows * 3 * sizeof(float) +
               hessian_work_bytes(n->widest, n->rows, pool_threads(m->options->pool)) + m->b.bytes;
    if (m->options->fisher)
        n->fixed += logits * (m->model->hyper.logit_softcap != 0 ? 2 : 1) +
                    (m->guides * m->tokens + m->outputs + n->partial) * sizeof(float);
}

static bool take_buffers(struct imprint *m, const struct need *n, struct quern_error *err)
{
    size_t logits = dense_stride(m->model->hyper.vocab) * sizeof(float), most = m->per_call * m->length;
    size_t row = dense_stride(m->model->hyper.width) * sizeof(float);
    if (!(m->residuals = mem_take_aligned(m->tokens, row, "residuals", err)) ||
        !(m->weight = mem_take(3 * n->rows, sizeof(float), "weights of tokens", err)) ||
        !hessian_work_init(&m->work, &m->b.dense, n->widest, n->rows, err))
        return false;
    m->scaled = m->weight + n->rows, m->square = m->scaled + n->rows;
    if (!m->options->fisher)
        return true;
    if (!(m->logits = m->dlogits = mem_take_aligned(most, logits, "logits", err)))
        return false;
    /* Where logits are capped the mirror needs them beside their gradient. */
    if (m->model->hyper.logit_softcap != 0 && !(m->dlogits = mem_take_aligned(most, logits, "logits", err)))
        return false;
    memset(m->dlogits, 0, most * logits);
    return (m->guide = mem_take(m->guides, m->tokens * sizeof(float), "squared gradients", err)) &&
           (m->gradients = mem_take(m->outputs, sizeof(float), "squared gradients", err)) &&
           (m->partial = mem_take(n->partial, sizeof(float), "squared gradients", err));
}

static void imprint_free(struct imprint *m)
{
    for (size_t i = 0; i < m->input_count; i++)
        drop_input(m, &m->inputs[i]);
    if (m->dlogits != m->logits)
        free(m->dlogits);
    free(m->logits), free(m->residuals), free(m->weight), free(m->guide), free(m->gradients), free(m->partial);
    hessian_work_free(&m->work);
    if (m->b.m)
        backward_free(&m->b);
    imprint_layout_free(m);
    gguf_writer_close(m->writer);
    calibration_close(&m->text);
}

/* ---- all of it -------------------- */

/* Sequences and calls. */
static bool cut_text(struct imprint *m, struct quern_error *err)
{
    size_t trained = m->model->hyper.context ? m->model->hyper.context : 512, vocab = m->model->hyper.vocab,
        most = m->options->tokens;
    size_t row = dense_stride(vocab) * sizeof(float), call = LOGIT_BYTES / row < CALL_TOKENS ? LOGIT_BYTES / row : CALL_TOKENS;
    m->length = m->options->context ? m->options->context : trained < 512 ? trained : 512;
    if (m->length < 2 || m->length > trained)
        return ERR(err, QUERN_EUSAGE, "sequences of %zu tokens, the model takes 2 to %zu", m->length, trained);
    if (!calibration_open(&m->text, m->options->calibration, CALIBRATION_FIT, m->source, m->length, err))
        return false;
    most = most ? most : imprint_tokens(m->source);
    m->sequences = (m->text.count < most ? m->text.count : most) / m->length;
    m->per_call = call / m->length ? call / m->length : 1;
    /* A fifth is held out, so there are five calls at least. */
    while (m->per_call > 1 && m->sequences / m->per_call < 5)
        m->per_call /= 2;
    m->calls = (m->sequences + m->per_call - 1) / m->per_call;
    m->tokens = m->sequences * m->length;
    return m->calls >= 5 || ERR(err, QUERN_EUSAGE, "%s: %zu tokens, at least %zu are needed", m->text.name, m->tokens,
                                5 * m->length);
}

static bool lay_out(struct imprint *m, struct quern_error *err)
{
    return cut_text(m, err) &&
           backward_init(&m->b, m->model, &m->source->kernels, m->options->pool, m->per_call * m->length, m->length, err) &&
           imprint_layout(m, err);
}

bool imprint_bytes(size_t *out, const struct quern_model *model, const struct imprint_options *options, struct quern_error *err)
{
    struct imprint m = { .options = options, .source = model, .model = &model->model };
    struct need need;
    bool ok = lay_out(&m, err);
    if (ok) {
        find_need(&m, &need);
        size_t most = 0, layer = 0;      /* all inputs of a layer are gathered together */
        for (size_t i = 0; i < m.input_count; i++) {
            layer = (i && m.inputs[i].layer == m.inputs[i - 1].layer ? layer : 0) + input_bytes(&m, i);
            most = layer > most ? layer : most;
        }
        *out = need.fixed + most;
    }
    imprint_free(&m);
    return ok;
}

static bool gather(struct imprint *m, const char *path, struct quern_error *err)
{
    const struct gguf *g = &m->source->gguf;
    struct gguf_writer_options options = { .force = m->options->force, .inputs = g->parts, .input_count = g->part_count,
                                           .texts = &m->options->calibration, .text_count = 1, .resume = true };
    struct need need;
    if (!lay_out(m, err))
        return false;
    find_need(m, &need);
    size_t limit = m->options->mem_limit, room = limit > need.fixed ? limit - need.fixed : 0;
    if (limit && room < need.input)
        return ERR(err, QUERN_EMEM, "imprint takes at least %zu bytes, the limit is %zu", need.fixed + need.input, limit);
    return (m->writer = gguf_writer_open(path, &options, err)) && imprint_describe(m, err) && take_buffers(m, &need, err) &&
           (!m->options->fisher || backward_calls(m, err)) && forward_layers(m, limit ? room : SIZE_MAX, err) &&
           gguf_writer_commit(m->writer, err);
}

bool imprint_write(const struct quern_model *model, const char *path, const struct imprint_options *options,
                   struct quern_error *err)
{
    struct imprint m = { .options = options, .source = model, .model = &model->model };
    bool ok = gather(&m, path, err);
    if (!ok && m.writer && err->code == QUERN_EINTERRUPT)
        gguf_writer_leave(m.writer);
    imprint_free(&m);
    return ok;
}
