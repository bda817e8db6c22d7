#include "preset.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "rounding.h"

/* File types with a mix of their own; the numbers are general.file_type's. */
enum file_type {
    ALL_F32 = 0, MOSTLY_F16 = 1, MOSTLY_Q4_0 = 2, MOSTLY_Q4_1 = 3, MOSTLY_Q8_0 = 7, MOSTLY_Q5_0 = 8, MOSTLY_Q5_1 = 9,
    MOSTLY_Q2_K = 10, MOSTLY_Q3_K_S = 11, MOSTLY_Q3_K_M = 12, MOSTLY_Q3_K_L = 13, MOSTLY_Q4_K_S = 14, MOSTLY_Q4_K_M = 15,
    MOSTLY_Q5_K_S = 16, MOSTLY_Q5_K_M = 17, MOSTLY_Q6_K = 18, MOSTLY_IQ2_XXS = 19, MOSTLY_IQ2_XS = 20, MOSTLY_Q2_K_S = 21,
    MOSTLY_IQ3_XS = 22, MOSTLY_IQ3_XXS = 23, MOSTLY_IQ1_S = 24, MOSTLY_IQ4_NL = 25, MOSTLY_IQ3_S = 26, MOSTLY_IQ3_M = 27,
    MOSTLY_IQ2_S = 28, MOSTLY_IQ2_M = 29, MOSTLY_IQ4_XS = 30, MOSTLY_IQ1_M = 31, MOSTLY_BF16 = 32, MOSTLY_TQ1_0 = 36,
    MOSTLY_TQ2_0 = 37, MOSTLY_MXFP4_MOE = 38
};

static const struct preset presets[] = {
    { "Q2_K", MOSTLY_Q2_K, FORMAT_Q2_K },          { "Q2_K_S", MOSTLY_Q2_K_S, FORMAT_Q2_K },
    { "Q3_K_S", MOSTLY_Q3_K_S, FORMAT_Q3_K },      { "Q3_K_M", MOSTLY_Q3_K_M, FORMAT_Q3_K },
    { "Q3_K_L", MOSTLY_Q3_K_L, FORMAT_Q3_K },      { "Q3_K", MOSTLY_Q3_K_M, FORMAT_Q3_K },
    { "Q4_K_S", MOSTLY_Q4_K_S, FORMAT_Q4_K },      { "Q4_K_M", MOSTLY_Q4_K_M, FORMAT_Q4_K },
    { "Q4_K", MOSTLY_Q4_K_M, FORMAT_Q4_K },        { "Q5_K_S", MOSTLY_Q5_K_S, FORMAT_Q5_K },
    { "Q5_K_M", MOSTLY_Q5_K_M, FORMAT_Q5_K },      { "Q5_K", MOSTLY_Q5_K_M, FORMAT_Q5_K },
    { "Q6_K", MOSTLY_Q6_K, FORMAT_Q6_K },          { "IQ1_S", MOSTLY_IQ1_S, FORMAT_IQ1_S },
    { "IQ1_M", MOSTLY_IQ1_M, FORMAT_IQ1_M },       { "IQ2_XXS", MOSTLY_IQ2_XXS, FORMAT_IQ2_XXS },
    { "IQ2_XS", MOSTLY_IQ2_XS, FORMAT_IQ2_XS },    { "IQ2_S", MOSTLY_IQ2_S, FORMAT_IQ2_XS },
    { "IQ2_M", MOSTLY_IQ2_M, FORMAT_IQ2_S },       { "IQ3_XXS", MOSTLY_IQ3_XXS, FORMAT_IQ3_XXS },
    { "IQ3_XS", MOSTLY_IQ3_XS, FORMAT_IQ3_S },     { "IQ3_S", MOSTLY_IQ3_S, FORMAT_IQ3_S },
    { "IQ3_M", MOSTLY_IQ3_M, FORMAT_IQ3_S },       { "IQ4_NL", MOSTLY_IQ4_NL, FORMAT_IQ4_NL },
    { "IQ4_XS", MOSTLY_IQ4_XS, FORMAT_IQ4_XS },    { "Q4_0", MOSTLY_Q4_0, FORMAT_Q4_0 },
    { "Q4_1", MOSTLY_Q4_1, FORMAT_Q4_1 },          { "Q5_0", MOSTLY_Q5_0, FORMAT_Q5_0 },
    { "Q5_1", MOSTLY_Q5_1, FORMAT_Q5_1 },          { "Q8_0", MOSTLY_Q8_0, FORMAT_Q8_0 },
    { "TQ1_0", MOSTLY_TQ1_0, FORMAT_TQ1_0 },       { "TQ2_0", MOSTLY_TQ2_0, FORMAT_TQ2_0 },
    { "MXFP4_MOE", MOSTLY_MXFP4_MOE, FORMAT_MXFP4 }, { "F16", MOSTLY_F16, FORMAT_F16 },
    { "BF16", MOSTLY_BF16, FORMAT_BF16 },          { "F32", ALL_F32, FORMAT_F32 },
};
enum { PRESETS = sizeof presets / sizeof *presets };

const struct preset *preset_find(const char *name)
{
    for (size_t i = 0; i < PRESETS; i++)
        if (!strcasecmp(presets[i].name, name))
            return &presets[i];
    return NULL;
}

const struct preset *preset_at(size_t i)
{
    return i < PRESETS ? &presets[i] : NULL;
}

bool type_rule_parse(struct type_rule *rule, const char *text, struct quern_error *err)
{
    const char *equals = strrchr(text, '=');
    char pattern[512], shown[200];
    text_escape(shown, sizeof shown, text, strlen(text));
    if (!equals || equals == text || (size_t)(equals - text) >= sizeof pattern)
        return ERR(err, QUERN_EUSAGE, "'%s' is no REGEX=TYPE", shown);
    const struct format *format = format_by_name(equals + 1);
    if (!format || !format->weights) {
        char list[300] = "";
        for (uint32_t id = 0, at = 0; id < FORMAT_COUNT; id++)
            if (rounding_supports(id))
                at += (uint32_t)snprintf(list + at, sizeof list - at, "%s%s", at ? ", " : "", format_find(id)->name);
        return ERR(err, QUERN_EUSAGE, "'%.60s': unknown tensor type '%.20s' (%s)", shown, equals + 1, list);
    }
    if (!rounding_supports(format->id))
        return ERR(err, QUERN_EUSAGE, "'%s': %s can be read but not made", shown, format->name);
    memcpy(pattern, text, (size_t)(equals - text));
    pattern[equals - text] = '\0';
    int code = regcomp(&rule->pattern, pattern, REG_EXTENDED | REG_NOSUB);
    if (code) {
        char why[120];
        regerror(code, &rule->pattern, why, sizeof why);
        return ERR(err, QUERN_EUSAGE, "'%s': bad regular expression: %s", shown, why);
    }
    rule->text = text;
    rule->format = format->id;
    return true;
}

/* ---- what a tensor is, by its name --------------------------------------------------------------------------------- */

enum role { ROLE_EMBEDDING, ROLE_OUTPUT, ROLE_VALUE, ROLE_KEY, ROLE_QUERY, ROLE_PROJECTION, ROLE_UP, ROLE_GATE, ROLE_DOWN,
            ROLE_OTHER };

/* GGUF names as text: at most 64 bytes. */
struct name { char text[80]; };

static struct name tensor_name(const struct gguf_tensor *t)
{
    struct name name;
    snprintf(name.text, sizeof name.text, "%.*s", (int)(t->name.n < 79 ? t->name.n : 79), t->name.text);
    return name;
}

static enum role role_of(const char *name)
{
    static const struct { const char *part; enum role role; } parts[] = {
        { "attn_qkv.weight", ROLE_VALUE },  { "attn_kv_b.weight", ROLE_VALUE },       { "attn_v.weight", ROLE_VALUE },
        { "attn_k.weight", ROLE_KEY },      { "attn_q.weight", ROLE_QUERY },          { "attn_output.weight", ROLE_PROJECTION },
        { "ffn_up", ROLE_UP },              { "ffn_gate", ROLE_GATE },                { "ffn_down", ROLE_DOWN },
    };
    if (!strcmp(name, "output.weight"))
        return ROLE_OUTPUT;
    if (!strcmp(name, "token_embd.weight") || !strcmp(name, "per_layer_token_embd.weight"))
        return ROLE_EMBEDDING;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (strstr(name, parts[i].part))
            return parts[i].role;
    return ROLE_OTHER;
}

bool preset_may_round(const struct gguf_tensor *t)
{
    static const char *const kept[] = {
        "_norm.weight", "ffn_gate_inp.weight", "ffn_gate_tid2eid.weight", "altup", "laurel", "per_layer_model_proj", "ssm_conv1d",
        "shortconv.conv.weight", "indexer.k_proj.weight", "indexer.q_proj.weight", "time_mix_first.weight", "time_mix_w0.weight",
        "time_mix_w1.weight", "time_mix_w2.weight", "time_mix_v0.weight", "time_mix_v1.weight", "time_mix_v2.weight",
        "time_mix_a0.weight", "time_mix_a1.weight", "time_mix_a2.weight", "time_mix_g1.weight", "time_mix_g2.weight",
        "time_mix_decay_w1.weight", "time_mix_decay_w2.weight", "time_mix_lerp_fused.weight", "attn_rel_b.weight",
        ".position_embd", "sam.pos_embd", "sam.neck.", "sam.net_", ".rel_pos", ".patch_embd", ".patch_merger", "a.rvq.codebook",
        "mm.a.code_embd",
    };
    struct name name = tensor_name(t);
    size_t n = strlen(name.text);
    const struct format *format = format_find(t->type);
    if (!format || !format->weights || t->shape[0] * t->shape[1] * t->shape[2] * t->shape[3] == t->shape[0])
        return false;
    if (n < 6 || strcmp(name.text + n - 6, "weight"))
        return false;
    if (!strcmp(name.text, "position_embd.weight") || !strcmp(name.text, "token_types.weight"))
        return false;
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        if (strstr(name.text, kept[i]))
            return false;
    return true;
}

/* ---- the mixes ----------------------------------------------------------------------------------------------------- */

struct mix {
    enum file_type type;
    uint32_t       base;
    bool           importance, tied, falcon, large;     /* large: the 80-layer models with shared values   */
    int            layers, sharing, experts;            /* sharing: query heads per key head               */
    int            values;                              /* tensors of ROLE_VALUE                           */
    int            value, down, gate, up;               /* how many of each have had their turn            */
};

static bool below_two_and_a_half(enum file_type t)
{
    return t == MOSTLY_IQ1_S || t == MOSTLY_IQ1_M || t == MOSTLY_IQ2_XXS || t == MOSTLY_IQ2_XS || t == MOSTLY_IQ2_S ||
           t == MOSTLY_IQ2_M;
}

static bool iq2_large(enum file_type t)
{
    return t == MOSTLY_IQ2_S || t == MOSTLY_IQ2_M;
}

/* The first and last eighth of the layers and every third between. */
static bool favoured(int i, int n)
{
    return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
}

static uint32_t output_type(const struct mix *m, size_t cols)
{
    if (m->type == MOSTLY_MXFP4_MOE || m->falcon || cols % format_find(m->base)->block || m->base == FORMAT_Q8_0)
        return FORMAT_Q8_0;
    return below_two_and_a_half(m->type) || m->type == MOSTLY_IQ3_XXS ? FORMAT_Q5_K : FORMAT_Q6_K;
}

static uint32_t embedding_type(const struct mix *m)
{
    switch (m->type) {
    case MOSTLY_IQ1_S: case MOSTLY_IQ1_M: case MOSTLY_IQ2_XXS: case MOSTLY_IQ2_XS: return FORMAT_Q2_K;
    case MOSTLY_IQ2_S: case MOSTLY_IQ2_M: case MOSTLY_IQ3_XXS:                     return FORMAT_IQ3_S;
    case MOSTLY_TQ1_0: case MOSTLY_TQ2_0:                                          return FORMAT_Q4_K;
    default:                                                                       return m->base;
    }
}

/* The six mixes below 2.5 bits have rules of their own. */
static uint32_t low_type(struct mix *m, enum role role)
{
    uint32_t better = iq2_large(m->type) ? FORMAT_IQ3_S : FORMAT_Q2_K;
    switch (role) {
    case ROLE_VALUE:
        m->value++;
        return m->sharing >= 4 || m->experts >= 4 ? FORMAT_Q4_K : better;
    case ROLE_KEY:
        return m->experts == 8 ? FORMAT_Q4_K : m->base;
    case ROLE_DOWN:
        return m->down++ < m->layers / 8 ? better : m->base;
    case ROLE_PROJECTION:
        if (m->experts == 8)
            return FORMAT_Q5_K;
        return m->type == MOSTLY_IQ1_S || m->type == MOSTLY_IQ1_M ? FORMAT_IQ2_XXS : iq2_large(m->type) ? FORMAT_IQ3_S : m->base;
    default:
        return m->base;
    }
}

static uint32_t value_type(struct mix *m)
{
    int i = m->value++;
    bool shared = m->sharing >= 4;
    uint32_t f = m->base;
    switch (m->type) {
    case MOSTLY_Q2_K:    f = shared ? FORMAT_Q4_K : FORMAT_Q3_K; break;
    case MOSTLY_Q2_K_S:
    case MOSTLY_IQ3_XS:
    case MOSTLY_IQ3_S:   f = shared ? FORMAT_Q4_K : m->base; break;
    case MOSTLY_IQ3_XXS: f = shared ? FORMAT_Q4_K : m->importance ? FORMAT_IQ3_XXS : FORMAT_IQ3_S; break;
    case MOSTLY_IQ3_M:   f = FORMAT_Q4_K; break;
    case MOSTLY_Q3_K_M:  f = i < 2 ? FORMAT_Q5_K : FORMAT_Q4_K; break;
    case MOSTLY_Q3_K_L:  f = FORMAT_Q5_K; break;
    case MOSTLY_IQ4_NL:
    case MOSTLY_IQ4_XS:  f = shared ? FORMAT_Q5_K : m->base; break;
    case MOSTLY_Q4_K_M:
    case MOSTLY_Q5_K_M:  f = favoured(i, m->values) ? FORMAT_Q6_K : m->base; break;
    case MOSTLY_Q4_K_S:  f = i < 4 ? FORMAT_Q5_K : m->base; break;
    default: break;
    }
    if (m->large && (f == FORMAT_Q3_K || f == FORMAT_Q4_K))
        f = FORMAT_Q5_K;
    return m->experts == 8 ? FORMAT_Q8_0 : f;
}

/* `i` of m->layers: which layer's down projection. */
static uint32_t down_type(const struct mix *m, int i)
{
    int n = m->layers;
    switch (m->type) {
    case MOSTLY_Q2_K:    return FORMAT_Q3_K;
    case MOSTLY_Q2_K_S:  return i < n / 8 ? FORMAT_Q4_K : m->base;
    case MOSTLY_IQ3_XXS: return m->importance ? m->base : i < n / 8 ? FORMAT_Q4_K : FORMAT_Q3_K;
    case MOSTLY_Q3_K_M:  return i < n / 16 ? FORMAT_Q5_K : !m->falcon || favoured(i, n) ? FORMAT_Q4_K : FORMAT_Q3_K;
    case MOSTLY_IQ3_M:   return i < n / 8 || (m->experts == 8 && favoured(i, n)) ? FORMAT_Q4_K : m->base;
    case MOSTLY_Q3_K_L:  return m->falcon ? FORMAT_Q4_K : FORMAT_Q5_K;
    case MOSTLY_Q4_K_M:
        if (m->falcon)
            return i < n / 16 ? FORMAT_Q6_K : favoured(i, n) ? FORMAT_Q5_K : FORMAT_Q4_K;
        return favoured(i, n) ? FORMAT_Q6_K : m->base;
    case MOSTLY_IQ4_NL:
    case MOSTLY_IQ4_XS:  return i < n / 8 && !m->importance ? FORMAT_Q5_K : m->base;
    case MOSTLY_Q5_K_M:  return favoured(i, n) ? FORMAT_Q6_K : m->base;
    case MOSTLY_Q4_K_S:  return i < n / 8 && !m->falcon ? FORMAT_Q5_K : m->base;
    case MOSTLY_Q4_0:    return i < n / 8 && m->importance ? FORMAT_Q4_1 : m->base;
    case MOSTLY_Q5_0:    return i < n / 8 && m->importance ? FORMAT_Q5_1 : m->base;
    default:             return m->base;
    }
}

static uint32_t projection_type(const struct mix *m)
{
    enum file_type t = m->type;
    if (m->falcon)
        return t == MOSTLY_Q3_K_L ? FORMAT_Q4_K : m->base;
    if (m->experts == 8)
        return t == MOSTLY_Q2_K || t == MOSTLY_IQ3_XS || t == MOSTLY_IQ3_XXS || t == MOSTLY_Q3_K_S || t == MOSTLY_Q3_K_M ||
               t == MOSTLY_IQ4_NL || t == MOSTLY_Q4_K_S || t == MOSTLY_Q4_K_M || t == MOSTLY_IQ3_S || t == MOSTLY_IQ3_M ||
               t == MOSTLY_IQ4_XS ? FORMAT_Q5_K : m->base;
    switch (t) {
    case MOSTLY_Q2_K:    return FORMAT_Q3_K;
    case MOSTLY_IQ3_XXS: return FORMAT_IQ3_S;
    case MOSTLY_Q3_K_M:
    case MOSTLY_IQ3_M:   return FORMAT_Q4_K;
    case MOSTLY_Q3_K_L:  return FORMAT_Q5_K;
    default:             return m->base;
    }
}

/* IQ3_XS and IQ3_XXS thin out queries and keys. */
static uint32_t attention_type(const struct mix *m, enum role role)
{
    if (role == ROLE_KEY && m->experts == 8)
        return FORMAT_Q8_0;
    return m->type == MOSTLY_IQ3_XS ? FORMAT_IQ3_XXS : m->type == MOSTLY_IQ3_XXS ? FORMAT_IQ2_S : m->base;
}

/* Gates and ups of IQ3_XS: the middle layers get less. */
static uint32_t middle_type(const struct mix *m, int i)
{
    return m->type == MOSTLY_IQ3_XS && i >= m->layers / 8 && i < 7 * m->layers / 8 ? FORMAT_IQ3_XXS : m->base;
}

static uint32_t mix_type(struct mix *m, const struct gguf_tensor *t, const char *name, enum role role)
{
    int layer = -1;
    if (role == ROLE_OUTPUT || (role == ROLE_EMBEDDING && m->tied))
        return output_type(m, t->shape[0]);
    if (m->type == MOSTLY_MXFP4_MOE)
        return t->shape[2] > 1 ? FORMAT_MXFP4 : FORMAT_Q8_0;
    if (role == ROLE_EMBEDDING)
        return embedding_type(m);
    if (below_two_and_a_half(m->type))
        return low_type(m, role);
    if (m->experts > 1)                    /* experts' tensors come in any order: their layer stands in the name */
        sscanf(name, "blk.%d.", &layer);
    switch (role) {
    case ROLE_VALUE:      return value_type(m);
    case ROLE_KEY:
    case ROLE_QUERY:      return attention_type(m, role);
    case ROLE_PROJECTION: return projection_type(m);
    case ROLE_DOWN:       m->down++; return down_type(m, m->experts > 1 ? layer : m->down - 1);
    case ROLE_GATE:       m->gate++; return middle_type(m, m->experts > 1 ? layer : m->gate - 1);
    case ROLE_UP:         m->up++; return middle_type(m, m->experts > 1 ? layer : m->up - 1);
    default:              return m->base;
    }
}

uint32_t preset_fallback(uint32_t format, size_t cols)
{
    if (cols % format_find(format)->block == 0)
        return format;
    uint32_t small;
    switch (format) {
    case FORMAT_IQ1_S: case FORMAT_IQ1_M: case FORMAT_IQ2_XXS: case FORMAT_IQ2_XS: case FORMAT_IQ2_S: case FORMAT_IQ3_XXS:
    case FORMAT_IQ3_S: case FORMAT_IQ4_XS:                                             small = FORMAT_IQ4_NL; break;
    case FORMAT_Q2_K: case FORMAT_Q3_K: case FORMAT_TQ1_0: case FORMAT_TQ2_0:          small = FORMAT_Q4_0; break;
    case FORMAT_Q4_K:                                                                  small = FORMAT_Q5_0; break;
    case FORMAT_Q5_K:                                                                  small = FORMAT_Q5_1; break;
    case FORMAT_Q6_K:                                                                  small = FORMAT_Q8_0; break;
    default:                                                                           return FORMAT_F16;
    }
    return cols % 32 == 0 ? small : FORMAT_F16;
}

/* llama.cpp refuses these without importances: what comes out is noise. */
static bool needs_importance(const struct preset *preset, uint32_t format, enum role role)
{
    if (role == ROLE_OUTPUT || role == ROLE_EMBEDDING)
        return false;
    return format == FORMAT_IQ3_XXS || format == FORMAT_IQ2_XXS || format == FORMAT_IQ2_XS || format == FORMAT_IQ2_S ||
           format == FORMAT_IQ1_M || format == FORMAT_IQ1_S || (format == FORMAT_Q2_K && preset->file_type == MOSTLY_Q2_K_S);
}

/* ---- the model's facts --------------------------------------------------------------------------------------------- */

/* A count that may be written as a number or as an array with one per layer (then the first counts). */
static bool read_count(const struct gguf *g, const char *arch, const char *key, int *out, struct quern_error *err)
{
    char full[200];
    uint32_t value = (uint32_t)*out;
    snprintf(full, sizeof full, "%s.%s", arch, key);
    const struct gguf_value *v = gguf_find(g, full);
    int64_t first;
    if (v && v->type == GGUF_ARRAY) {
        if (v->as.array.n == 0 || !gguf_array_i64(v, 0, &first) || first < 0 || first > 1 << 24)
            return ERR(err, QUERN_EFORMAT, "key '%s' is no array of counts", full);
        *out = (int)first;
        return true;
    }
    if (!gguf_read_u32(g, full, &value, err))
        return false;
    if (value > 1 << 24)
        return ERR(err, QUERN_EFORMAT, "key '%s' is %u, at most %d allowed", full, value, 1 << 24);
    *out = (int)value;
    return true;
}

static bool mix_init(struct mix *m, const struct gguf *g, const struct preset *preset, bool importance, struct quern_error *err)
{
    struct gguf_string arch = { "", 0 };
    char name[100];
    int heads = 0, kv_heads;
    memset(m, 0, sizeof *m);
    m->type = (enum file_type)preset->file_type, m->base = preset->base, m->importance = importance, m->tied = true;
    if (!gguf_read_string(g, "general.architecture", &arch, err))
        return false;
    snprintf(name, sizeof name, "%.*s", (int)(arch.n < 90 ? arch.n : 90), arch.text);
    if (!read_count(g, name, "block_count", &m->layers, err) || !read_count(g, name, "attention.head_count", &heads, err))
        return false;
    kv_heads = heads;
    if (!read_count(g, name, "attention.head_count_kv", &kv_heads, err) || !read_count(g, name, "expert_count", &m->experts, err))
        return false;
    m->sharing = kv_heads ? heads / kv_heads : 0;
    m->falcon = !strcmp(name, "falcon");
    m->large = (!strcmp(name, "llama") && m->layers == 80 && heads != kv_heads) || (!strcmp(name, "jais2") && m->layers == 68) ||
               (m->layers == 80 && (!strcmp(name, "deci") || !strcmp(name, "olmo") || !strcmp(name, "qwen2")));
    for (size_t i = 0; i < g->tensor_count; i++) {
        enum role role = role_of(tensor_name(&g->tensors[i]).text);
        m->values += role == ROLE_VALUE;
        m->tied = m->tied && role != ROLE_OUTPUT;
    }
    return true;
}

/* The order in which tensors take their turns: those of no layer first, then layer by layer, by name within. */
struct turn { struct name name; int layer; size_t at; };

static int by_turn(const void *a, const void *b)
{
    const struct turn *l = a, *r = b;
    return l->layer != r->layer ? (l->layer > r->layer) - (l->layer < r->layer) : strcmp(l->name.text, r->name.text);
}

static void plan_tensor(struct plan_item *item, struct mix *m, const struct gguf_tensor *t, const char *name,
                        const struct preset *preset, const struct type_rule *rules, size_t rule_count)
{
    enum role role = role_of(name);
    item->format = item->wanted = t->type;
    item->reason = PLAN_KEPT;
    item->needs_importance = false;
    if (!preset_may_round(t))
        return;
    item->wanted = preset->base;
    item->reason = PLAN_PRESET;
    bool ruled = false;
    for (size_t i = 0; i < rule_count && !ruled; i++)
        if (!regexec(&rules[i].pattern, name, 0, NULL, 0))
            ruled = true, item->wanted = rules[i].format, item->reason = PLAN_RULE;
    if (!ruled && format_find(preset->base)->block > 1)
        item->wanted = mix_type(m, t, name, role);
    item->format = preset_fallback(item->wanted, t->shape[0]);
    if (item->format != item->wanted)
        item->reason = PLAN_FALLBACK;
    item->needs_importance = needs_importance(preset, item->format, role);
}

bool preset_plan(struct plan_item *items, const struct gguf *g, const struct preset *preset, const struct type_rule *rules,
                 size_t rule_count, bool importance, struct quern_error *err)
{
    struct mix mix;
    struct turn *turns = mem_take(g->tensor_count, sizeof *turns, "the plan", err);
    if (!turns || !mix_init(&mix, g, preset, importance, err)) {
        free(turns);
        return false;
    }
    for (size_t i = 0; i < g->tensor_count; i++) {
        turns[i] = (struct turn){ tensor_name(&g->tensors[i]), -1, i };
        sscanf(turns[i].name.text, "blk.%d.", &turns[i].layer);
    }
    qsort(turns, g->tensor_count, sizeof *turns, by_turn);
    for (size_t i = 0; i < g->tensor_count; i++)
        plan_tensor(&items[turns[i].at], &mix, &g->tensors[turns[i].at], turns[i].name.text, preset, rules, rule_count);
    free(turns);
    return true;
}
