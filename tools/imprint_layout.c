/* Which tensors meet which inputs, and the order in which their statistics stand in the file (models/FORMAT.md, "Statistics"). */
#include "imprint_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats.h"
#include "sha256.h"

/* Every fifth call is held out, and of those at most so many tokens are kept: what is judged by them is a sum over all columns. */
enum { HELD_EVERY = 5, HELD_MOST = 1024 };

size_t imprint_call_tokens(const struct imprint *m, size_t call)
{
    size_t first = call * m->per_call, n = m->sequences - first;
    return (n < m->per_call ? n : m->per_call) * m->length;
}

bool imprint_call_held(size_t call)
{
    return call % HELD_EVERY == HELD_EVERY - 1;
}

/* ---- inputs and maps --------------------------------------------------------------------------------------------------- */

/* The inputs of a layer, in the order in which the pass meets them. */
enum place { PLACE_ATTN, PLACE_OUT, PLACE_FFN, PLACE_DOWN, PLACE_SHARED_DOWN, PLACE_EXPERTS, PLACE_EXPERTS_DOWN, PLACES };
static const char *const place_names[PLACES] = { "attn", "attn_out", "ffn", "ffn_down", "ffn_shared_down", "ffn_experts",
                                                 "ffn_experts_down" };
static const enum place linear_places[LINEAR_KINDS] = { PLACE_ATTN, PLACE_ATTN, PLACE_ATTN, PLACE_OUT, PLACE_FFN, PLACE_FFN,
                                                        PLACE_DOWN };
static const enum place expert_places[EXPERT_KINDS] = { PLACE_FFN, PLACE_FFN, PLACE_FFN, PLACE_FFN, PLACE_SHARED_DOWN,
                                                        PLACE_EXPERTS,
                                                        PLACE_EXPERTS, PLACE_EXPERTS_DOWN };

/* Add the tensor of linear map `id` to the last input, or find it there: fused tensors come several times. */
static void add_map(struct imprint *m, size_t id)
{
    struct imprint_input *input = &m->inputs[m->input_count - 1];
    const struct matrix *w = backward_matrix(m->model, id);
    size_t at = input->first_map;
    while (at < m->map_count && m->maps[at].tensor != w->tensor)
        at++;
    if (at == m->map_count) {
        m->maps[m->map_count++] = (struct imprint_map){ .tensor = w->tensor, .input = m->input_count - 1,
            .rows = m->source->gguf.tensors[w->tensor].shape[1], .first_output = m->outputs, .first_guide = m->guides };
        m->outputs += m->maps[at].rows * input->experts;
        m->guides += input->per_token;
        input->map_count++;
    }
    m->map_of[id] = at;
    m->row_of[id] = w->first_row;
}

static void add_place(struct imprint *m, size_t layer, enum place place)
{
    const struct hyper *h = &m->model->hyper;
    bool experts = place >= PLACE_EXPERTS, begun = false;
    size_t begin = layer * LINEAR_KINDS, begin_experts = m->b.linears + layer * EXPERT_KINDS;
    for (size_t k = 0; k < LINEAR_KINDS + EXPERT_KINDS; k++) {
        bool expert = k >= LINEAR_KINDS;
        size_t id = expert ? begin_experts + k - LINEAR_KINDS : begin + k;
        if ((expert && !h->experts) || (expert ? expert_places[k - LINEAR_KINDS] : linear_places[k]) != place ||
            !backward_matrix(m->model, id)->data)
            continue;
        if (!begun) {
            struct imprint_input *input = &m->inputs[m->input_count++];
            *input = (struct imprint_input){ .layer = layer, .id = id, .cols = backward_matrix(m->model, id)->cols,
                .experts = experts ? h->experts : 1, .per_token = experts ? h->experts_used : 1, .first_map = m->map_count };
            snprintf(input->name, sizeof input->name, "blk.%zu.%s", layer, place_names[place]);
            begun = true;
        }
        add_map(m, id);
    }
}

static void add_head(struct imprint *m)
{
    size_t id = m->model->hyper.layers * LINEAR_KINDS;
    m->inputs[m->input_count++] = (struct imprint_input){ .name = "output", .layer = m->model->hyper.layers, .id = id,
        .cols = m->model->output.cols, .experts = 1, .per_token = 1, .first_map = m->map_count };
    add_map(m, id);
}

/* ---- pieces -------------------------------------------------------------------------------------------------------------- */

static void add_piece(struct imprint *m, enum piece_kind kind, size_t of, size_t cols, size_t rows)
{
    m->pieces[m->piece_count++] = (struct piece){ kind, of, { cols, rows } };
}

static void add_pieces(struct imprint *m)
{
    bool fisher = m->options->fisher;
    for (size_t c = 0; fisher && c < m->calls; c++) {
        add_piece(m, PIECE_GUIDES, c, imprint_call_tokens(m, c), m->guides);
        add_piece(m, PIECE_GRADIENTS, c, m->outputs, 1);
    }
    for (size_t i = 0; i < m->input_count; i++) {
        const struct imprint_input *in = &m->inputs[i];
        size_t held = m->held_rows * in->per_token, triangle = hessian_size(in->cols);
        add_piece(m, PIECE_TOKENS, i, in->experts, STATS_PARTS);
        add_piece(m, PIECE_MOMENTS, i, triangle, in->experts);
        add_piece(m, PIECE_HELD_INPUTS, i, in->cols, held);
        add_piece(m, PIECE_HELD, i, held, in->experts);
        for (size_t k = in->first_map; fisher && k < in->first_map + in->map_count; k++) {
            add_piece(m, PIECE_GUIDED, k, triangle, in->experts);
            add_piece(m, PIECE_HELD_GUIDED, k, held, in->experts);
        }
    }
}

bool imprint_layout(struct imprint *m, struct quern_error *err)
{
    size_t layers = m->model->hyper.layers, held = 0;
    for (size_t c = 0; c < m->calls; c++)
        held += imprint_call_held(c) ? imprint_call_tokens(m, c) : 0;
    m->held_every = held / HELD_MOST + 1;
    m->held_rows = (held + m->held_every - 1) / m->held_every;
    m->inputs = mem_take(layers * PLACES + 1, sizeof *m->inputs, "the inputs", err);
    m->maps = m->inputs ? mem_take(m->b.all, sizeof *m->maps, "the maps", err) : NULL;
    m->map_of = m->maps ? mem_take(m->b.all, sizeof *m->map_of, "the maps", err) : NULL;
    m->row_of = m->map_of ? mem_take(m->b.all, sizeof *m->row_of, "the maps", err) : NULL;
    if (!m->row_of)
        return false;
    for (size_t id = 0; id < m->b.all; id++)
        m->map_of[id] = SIZE_MAX;
    for (size_t i = 0; i < layers; i++)
        for (int place = 0; place < PLACES; place++)
            add_place(m, i, (enum place)place);
    add_head(m);
    m->pieces = mem_take(2 * m->calls + 4 * m->input_count + 2 * m->map_count, sizeof *m->pieces, "the pieces", err);
    if (m->pieces)
        add_pieces(m);
    return m->pieces != NULL;
}

void imprint_layout_free(struct imprint *m)
{
    free(m->inputs);
    free(m->maps);
    free(m->map_of);
    free(m->row_of);
    free(m->pieces);
}

/* ---- the file's beginning ---------------------------------------------------------------------------------------------------- */

static void piece_name(const struct imprint *m, const struct piece *p, char *out, size_t size)
{
    static const char *const suffix[] = { "guides", "gradients", "tokens", "h", "x_held", "w_held", "hg", "wg_held" };
    if (p->kind == PIECE_GUIDES || p->kind == PIECE_GRADIENTS) {
        snprintf(out, size, "call.%zu.%s", p->of, suffix[p->kind]);
    } else if (p->kind == PIECE_GUIDED || p->kind == PIECE_HELD_GUIDED) {
        const struct imprint_map *map = &m->maps[p->of];
        /* Numbered, because names may be as long as the format allows already. */
        snprintf(out, size, "%s.%zu.%s", m->inputs[map->input].name, p->of - m->inputs[map->input].first_map, suffix[p->kind]);
    } else {
        snprintf(out, size, "%s.%s", m->inputs[p->of].name, suffix[p->kind]);
    }
}

/* Two arrays of strings, one entry per map: the tensor's name in the model, and its input's name. */
static bool write_names(struct imprint *m, struct gguf_writer *w, struct quern_error *err)
{
    size_t room = 0, n[2] = { 0, 0 };
    for (size_t k = 0; k < m->map_count; k++)
        room += 8 + m->source->gguf.tensors[m->maps[k].tensor].name.n + 8 + sizeof m->inputs->name;
    uint8_t *list[2] = { mem_take(room, 1, "names", err), NULL };
    list[1] = list[0] ? mem_take(room, 1, "names", err) : NULL;
    for (size_t k = 0; list[1] && k < m->map_count; k++) {
        const struct imprint_input *in = &m->inputs[m->maps[k].input];
        struct gguf_string text[2] = { m->source->gguf.tensors[m->maps[k].tensor].name, { in->name, strlen(in->name) } };
        for (int which = 0; which < 2; which++) {
            gguf_pack(list[which] + n[which], text[which].n, 8);
            memcpy(list[which] + n[which] + 8, text[which].text, text[which].n);
            n[which] += 8 + text[which].n;
        }
    }
    uint8_t *numbers = list[1] ? mem_take(m->map_count, 8, "numbers", err) : NULL;
    for (size_t k = 0; numbers && k < m->map_count; k++) {
        gguf_pack(numbers + 4 * k, m->maps[k].rows, 4);
        gguf_pack(numbers + 4 * (m->map_count + k), m->inputs[m->maps[k].input].experts, 4);
    }
    bool ok = numbers && gguf_writer_array(w, "quern.stats.maps", GGUF_STRING, list[0], m->map_count, n[0], err) &&
              gguf_writer_array(w, "quern.stats.inputs", GGUF_STRING, list[1], m->map_count, n[1], err) &&
              gguf_writer_array(w, "quern.stats.rows", GGUF_U32, numbers, m->map_count, 4 * m->map_count, err) &&
              gguf_writer_array(w, "quern.stats.experts", GGUF_U32, numbers + 4 * m->map_count, m->map_count, 4 * m->map_count,
                                err);
    free(list[0]);
    free(list[1]);
    free(numbers);
    return ok;
}

static bool write_keys(struct imprint *m, struct gguf_writer *w, struct quern_error *err)
{
    char model[65], text[65];
    struct sha256 hash;
    if (!stats_model_hash(&m->source->gguf, m->options->pool, model, err))
        return false;
    sha256_begin(&hash);
    sha256_add(&hash, m->text.text, m->text.bytes);
    sha256_end(&hash, text);
    return gguf_writer_text(w, "general.type", "quern.stats", err) && gguf_writer_u32(w, "quern.stats.version", STATS_VERSION,
                                                                                      err) &&
           gguf_writer_text(w, "quern.stats.model_sha256", model, err) && gguf_writer_bool(w, "quern.stats.guided",
                                                                                           m->options->fisher, err) &&
           gguf_writer_text(w, "quern.stats.calibration", m->text.name, err) &&
           gguf_writer_text(w, "quern.stats.calibration_sha256", text, err) &&
           gguf_writer_u32(w, "quern.stats.context", (uint32_t)m->length, err) &&
           gguf_writer_u32(w, "quern.stats.tokens", (uint32_t)m->tokens, err) &&
           gguf_writer_u32(w, "quern.stats.calls", (uint32_t)m->calls, err) &&
           gguf_writer_u32(w, "quern.stats.seed", (uint32_t)m->options->seed, err) && write_names(m, w, err);
}

bool imprint_describe(struct imprint *m, struct quern_error *err)
{
    if (!write_keys(m, m->writer, err))
        return false;
    for (size_t i = 0; i < m->piece_count; i++) {
        char name[96];
        piece_name(m, &m->pieces[i], name, sizeof name);
        struct gguf_tensor t = { .name = { name, strlen(name) }, .type = FORMAT_F32, .dims = 2,
                                 .shape = { m->pieces[i].shape[0], m->pieces[i].shape[1], 1, 1 } };
        if (!gguf_writer_tensor(m->writer, &t, err))
            return false;
    }
    return gguf_writer_begin(m->writer, &m->next, err);
}
