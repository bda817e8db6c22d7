/* show: what a GGUF file says about itself.
 *
 * Everything from the file goes through text_escape: a key or a name may hold terminal control sequences. The text is built in
 * memory and written at once, so that a failure half-way never looks like a short file. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd.h"
#include "formats.h"
#include "gguf.h"
#include "session.h"
#include "text.h"

enum {
    SHOWN_ELEMENTS = 6,       /* of an array, unless --full  */
    SHOWN_BYTES    = 120,     /* of a string, unless --full  */
    PLAN_CONTEXT   = 4096     /* a session's when the user names none, or the model's if that is less */
};

struct show_args {
    struct args args;
    bool   tensors, full, json, allow_aliased;
    size_t limit_metadata;
};

#define AT(field) offsetof(struct show_args, field)

static const struct option show_options[] = {
    { "tensors", 0, OPTION_SWITCH, AT(tensors), NULL, NULL, "list every tensor", NULL, NULL, NULL },
    { "full", 0, OPTION_SWITCH, AT(full), NULL, NULL, "show arrays and long strings whole", NULL, NULL, NULL },
    { "json", 0, OPTION_SWITCH, AT(json), NULL, NULL, "one JSON object instead of text", NULL, NULL, NULL },
    { "limit-metadata", 0, OPTION_BYTES, AT(limit_metadata), "SIZE", "256M", "most that keys and values may take", NULL, NULL,
      NULL },
    { "allow-aliased", 0, OPTION_SWITCH, AT(allow_aliased), NULL, NULL, "tensors may share bytes", NULL, NULL, NULL },
    { NULL, 0, OPTION_SWITCH, 0, NULL, NULL, NULL, NULL, NULL, NULL }
};

static const struct example show_examples[] = {
    {"quern show model.gguf --tensors", "what the model is, and each of its tensors"},
    {"quern show model.gguf --json --full", "the same for programs, with all of the vocabulary"},
    {NULL, NULL}
};

const struct verb verb_show = {
    .name = "show", .summary = "what is in a GGUF file", .operands = "FILE", .operands_min = 1, .operands_max = 1,
    .details = "Architecture, size, types, every key and, with --tensors, every tensor. Any GGUF file can be shown, whether "
               "quern can run it or not. Text from the file is shown with control characters and invalid UTF-8 as \\xNN.",
    .examples = show_examples,
    .options = show_options, .size = sizeof(struct show_args), .main = cmd_show,
};

/* ---- what is counted ------------------------------------------------------------------------------------------ */

struct type_count { size_t tensors, values, bytes; };

struct summary {
    struct type_count  types[FORMAT_COUNT], all;
    struct gguf_string architecture, name;       /* text NULL: the file has none */
    size_t             file_bytes;               /* of all parts */
    bool               has_context;
    uint32_t           context;
    bool               planned;                  /* quern can run it; else `reason` says why not */
    size_t             plan_context, cache, scratch;
    const char        *kv;                       /* the cache's type */
    char               reason[sizeof ((struct quern_error *)NULL)->text];
};

/* Only what stands in the file: this works for architectures that quern does not know. */
static void summarise(struct summary *s, const struct gguf *g)
{
    struct quern_error ignored;
    char key[256];
    memset(s, 0, sizeof *s);
    for (size_t i = 0; i < g->tensor_count; i++) {
        const struct gguf_tensor *t = &g->tensors[i];
        struct type_count *count = &s->types[t->type];
        /* The product was checked when the file was opened; a sum of lengths that all lie in files cannot wrap. */
        size_t values = t->shape[0] * t->shape[1] * t->shape[2] * t->shape[3];
        count->tensors++, s->all.tensors++;
        count->values += values, s->all.values += values;
        count->bytes += t->bytes, s->all.bytes += t->bytes;
    }
    for (size_t i = 0; i < g->part_count; i++)
        s->file_bytes += g->parts[i].size;
    (void)gguf_read_string(g, "general.architecture", &s->architecture, &ignored);
    (void)gguf_read_string(g, "general.name", &s->name, &ignored);
    if (s->architecture.text && s->architecture.n < sizeof key - 32) {
        snprintf(key, sizeof key, "%.*s.context_length", (int)s->architecture.n, s->architecture.text);
        s->has_context = gguf_find(g, key) && gguf_read_u32(g, key, &s->context, &ignored);
    }
}

/* What a session with the defaults would take: for this the model is opened as `run` opens it. */
static void plan_memory(struct summary *s, const struct gguf *g, const struct show_args *args)
{
    struct quern_model_options options = { .limit_metadata = args->limit_metadata, .allow_aliased = args->allow_aliased };
    struct quern_error err;
    struct quern_model *model = quern_open_model(g->path, &options, &err);
    if (model) {
        size_t most = quern_model_context(model);
        s->plan_context = most < PLAN_CONTEXT ? most : PLAN_CONTEXT;
        struct quern_session_options session = { .context = s->plan_context };
        s->kv = kv_name(session_kv(model, session.kv));
        s->planned = quern_plan_session(model, &session, &s->cache, &s->scratch, &err);
        quern_close_model(model);
    }
    if (!s->planned) {
        size_t n = strlen(g->path);      /* which the reader of this knows */
        bool named = !strncmp(err.text, g->path, n) && !strncmp(err.text + n, ": ", 2);
        snprintf(s->reason, sizeof s->reason, "%s", named ? err.text + n + 2 : err.text);
    }
}

/* ---- as text -------------------------------------------------------------------------------------------------- */

/* A count with commas, "5,770,496": these are read by people. --json has the plain numbers. */
static const char *commas(char out[32], size_t n)
{
    char digits[24];
    int length = snprintf(digits, sizeof digits, "%zu", n), used = 0;
    for (int i = 0; i < length; i++) {
        if (i && (length - i) % 3 == 0)
            out[used++] = ',';
        out[used++] = digits[i];
    }
    out[used] = '\0';
    return out;
}

/* At most `most` bytes of it, escaped; 0: all. */
static void add_escaped(struct text *out, struct gguf_string s, size_t most)
{
    struct quern_error ignored;
    size_t n = most && s.n > most ? most : s.n, room;
    if (most && s.n > most)
        while (n > 0 && ((unsigned char)s.text[n] & 0xc0) == 0x80)     /* not within a character */
            n--;
    if (!checked_mul(&room, n, 4) || !checked_add(&room, room, 16)) {
        out->failed = true;
        return;
    }
    char *escaped = mem_take(room, 1, "a text", &ignored);
    if (!escaped) {
        out->failed = true;
        return;
    }
    text_escape(escaped, room, s.text, n);
    text_add(out, escaped, strlen(escaped));
    free(escaped);
}

static void add_string(struct text *out, struct gguf_string s, bool full)
{
    text_add(out, "\"", 1);
    add_escaped(out, s, full ? 0 : SHOWN_BYTES);
    if (full || s.n <= SHOWN_BYTES)
        text_add(out, "\"", 1);
    else
        text_addf(out, "...\" (%zu bytes)", s.n);
}

/* A number or a bool; the same in JSON. */
static void add_number(struct text *out, const struct gguf_value *value, bool json)
{
    switch (value->type) {
    case GGUF_BOOL:
        text_addf(out, "%s", value->as.u ? "true" : "false");
        break;
    case GGUF_I8: case GGUF_I16: case GGUF_I32: case GGUF_I64:
        text_addf(out, "%jd", (intmax_t)value->as.i);
        break;
    case GGUF_F32: case GGUF_F64:
        if (!json && value->as.f - value->as.f != 0.0)       /* NaN, Inf: JSON has no word for them */
            text_addf(out, "%f", value->as.f);
        else
            text_add_number(out, value->as.f);
        break;
    default:
        text_addf(out, "%ju", (uintmax_t)value->as.u);
    }
}

/* Vocabularies have a hundred thousand elements; a few tell what kind of array it is. */
static size_t shown_elements(const struct gguf_value *array, bool full)
{
    return full || array->as.array.n <= SHOWN_ELEMENTS ? array->as.array.n : SHOWN_ELEMENTS;
}

/* The elements with commas between them. */
static void add_elements(struct text *out, const struct gguf_value *array, bool full, bool json)
{
    size_t cursor = 0, n = shown_elements(array, full), step = gguf_type_bytes(array->as.array.type);
    for (size_t i = 0; i < n; i++) {
        if (i)
            text_add(out, ", ", 2);
        if (array->as.array.type == GGUF_STRING) {
            struct gguf_string s = gguf_array_string(array, &cursor);
            if (json)
                text_add_json(out, s.text, s.n);
            else
                add_string(out, s, full);
        } else {
            struct gguf_value element;
            gguf_scalar(&element, array->as.array.type, array->as.array.data + i * step);
            add_number(out, &element, json);
        }
    }
}

static void add_key(struct text *out, const struct gguf_kv *kv, bool full)
{
    const struct gguf_value *value = &kv->value;
    text_add(out, "  ", 2);
    add_escaped(out, kv->key, full ? 0 : SHOWN_BYTES);
    if (value->type == GGUF_ARRAY) {
        text_addf(out, "  %s[%zu] = ", gguf_type_name(value->as.array.type), value->as.array.n);
        add_elements(out, value, full, false);
        text_addf(out, "%s\n", shown_elements(value, full) < value->as.array.n ? ", ..." : "");
        return;
    }
    text_addf(out, "  %s = ", gguf_type_name(value->type));
    if (value->type == GGUF_STRING)
        add_string(out, value->as.string, full);
    else
        add_number(out, value, false);
    text_add(out, "\n", 1);
}

static void add_shape(struct text *out, const struct gguf_tensor *t)
{
    for (uint32_t i = 0; i < t->dims; i++)
        text_addf(out, i ? ", %zu" : "[%zu", t->shape[i]);
    text_add(out, "]", 1);
}

static void add_tensor(struct text *out, const struct gguf *g, const struct gguf_tensor *t)
{
    char bytes[32];
    text_add(out, "  ", 2);
    add_escaped(out, t->name, 0);
    text_addf(out, "  %s ", format_find(t->type)->name);
    add_shape(out, t);
    text_addf(out, "  %s bytes at %zu", commas(bytes, t->bytes), t->offset);
    if (g->part_count > 1)
        text_addf(out, " of part %u", t->part + 1);
    text_add(out, "\n", 1);
}

static void add_row(struct text *out, const char *what, struct gguf_string s)
{
    text_addf(out, "%-14s", what);
    if (s.text)
        add_escaped(out, s, SHOWN_BYTES);
    else
        text_addf(out, "(not given)");
    text_add(out, "\n", 1);
}

/* The histogram that tells a Q4_K_M from a Q4_K_S: which types, how many tensors, and where the bytes are. */
static void add_types(struct text *out, const struct summary *s)
{
    char values[32], bytes[32];
    for (uint32_t id = 0; id < FORMAT_COUNT; id++) {
        const struct type_count *count = &s->types[id];
        if (count->tensors)
            text_addf(out, "  %-8s %6zu tensors %18s values %18s bytes  %5.1f %%\n", format_find(id)->name, count->tensors,
                      commas(values, count->values), commas(bytes, count->bytes),
                      100.0 * (double)count->bytes / (double)s->all.bytes);
    }
}

/* General things first, the long lists last; the order in which one looks for them. */
static void show_text(struct text *out, const struct gguf *g, const struct summary *s, const struct show_args *args)
{
    char a[32], b[32], c[32];
    add_row(out, "file", (struct gguf_string){ g->path, strlen(g->path) });
    text_addf(out, "%-14sGGUF version %u, %s bytes (%s)", "format", g->version, commas(a, s->file_bytes),
              cli_bytes(b, sizeof b, s->file_bytes));
    text_addf(out, g->part_count > 1 ? " in %zu files\n" : "\n", g->part_count);
    add_row(out, "architecture", s->architecture);
    add_row(out, "name", s->name);
    text_addf(out, "%-14s%s\n", "parameters", commas(a, s->all.values));
    if (s->has_context)
        text_addf(out, "%-14s%s tokens\n", "context", commas(a, s->context));
    if (s->planned)
        text_addf(out, "%-14sweights %s, cache %s (%zu tokens, %s), scratch %s\n", "memory", cli_bytes(a, sizeof a, s->all.bytes),
                  cli_bytes(b, sizeof b, s->cache), s->plan_context, s->kv, cli_bytes(c, sizeof c, s->scratch));
    else
        text_addf(out, "%-14sno plan: %s\n", "memory", s->reason);
    text_addf(out, "\n%zu tensors, %s bytes", g->tensor_count, commas(a, s->all.bytes));
    if (s->all.values)
        text_addf(out, ", %.2f bits per value", 8.0 * (double)s->all.bytes / (double)s->all.values);
    text_add(out, "\n", 1);
    add_types(out, s);
    text_addf(out, "\n%zu keys\n", g->kv_count);
    for (size_t i = 0; i < g->kv_count; i++)
        add_key(out, &g->kvs[i], args->full);
    if (args->tensors) {
        text_addf(out, "\ntensors\n");
        for (size_t i = 0; i < g->tensor_count; i++)
            add_tensor(out, g, &g->tensors[i]);
    }
}

/* ---- as JSON -------------------------------------------------------------------------------------------------- */

static void json_string(struct text *out, const char *name, struct gguf_string s)
{
    text_addf(out, "\"%s\": ", name);
    if (s.text)
        text_add_json(out, s.text, s.n);
    else
        text_addf(out, "null");
    text_add(out, ", ", 2);
}

static void json_key(struct text *out, const struct gguf_kv *kv, bool full)
{
    const struct gguf_value *value = &kv->value;
    text_addf(out, "{\"key\": ");
    text_add_json(out, kv->key.text, kv->key.n);
    text_addf(out, ", \"type\": \"%s\", ", gguf_type_name(value->type));
    if (value->type == GGUF_ARRAY) {
        text_addf(out, "\"elements\": \"%s\", \"count\": %zu, \"shortened\": %s, \"value\": [",
                  gguf_type_name(value->as.array.type),
                  value->as.array.n, shown_elements(value, full) < value->as.array.n ? "true" : "false");
        add_elements(out, value, full, true);
        text_addf(out, "]}");
        return;
    }
    text_addf(out, "\"value\": ");
    if (value->type == GGUF_STRING)
        text_add_json(out, value->as.string.text, value->as.string.n);
    else
        add_number(out, value, true);
    text_add(out, "}", 1);
}

static void json_tensor(struct text *out, const struct gguf_tensor *t)
{
    text_addf(out, "{\"name\": ");
    text_add_json(out, t->name.text, t->name.n);
    text_addf(out, ", \"type\": \"%s\", \"shape\": ", format_find(t->type)->name);
    add_shape(out, t);
    text_addf(out, ", \"bytes\": %zu, \"offset\": %zu, \"part\": %u}", t->bytes, t->offset, t->part + 1);
}

/* The same things under fixed names. Members are only ever added to this, so scripts may rely on it. */
static void show_json(struct text *out, const struct gguf *g, const struct summary *s, const struct show_args *args)
{
    const char *comma = "";
    text_addf(out, "{");
    json_string(out, "file", (struct gguf_string){ g->path, strlen(g->path) });
    json_string(out, "architecture", s->architecture);
    json_string(out, "name", s->name);
    text_addf(out,
              "\"version\": %u, \"alignment\": %zu, \"files\": %zu, \"bytes\": %zu, \"trailing_bytes\": %zu, \"gap_bytes\": %zu, ",
              g->version, g->alignment, g->part_count, s->file_bytes, g->trailing, g->gaps);
    text_addf(out, "\"parameters\": %zu, \"weight_bytes\": %zu, \"context\": ", s->all.values, s->all.bytes);
    text_addf(out, s->has_context ? "%u" : "null", s->context);
    if (s->planned)
        text_addf(out, ", \"plan\": {\"weights\": %zu, \"cache\": %zu, \"scratch\": %zu, \"context\": %zu, \"kv\": \"%s\"}",
                  s->all.bytes, s->cache, s->scratch, s->plan_context, s->kv);
    else
        text_addf(out, ", \"plan\": null");
    text_addf(out, ",\n\"types\": [");
    for (uint32_t id = 0; id < FORMAT_COUNT; id++) {
        const struct type_count *count = &s->types[id];
        if (!count->tensors)
            continue;
        text_addf(out, "%s{\"type\": \"%s\", \"tensors\": %zu, \"values\": %zu, \"bytes\": %zu}", comma, format_find(id)->name,
                  count->tensors, count->values, count->bytes);
        comma = ", ";
    }
    text_addf(out, "],\n\"keys\": [");
    for (size_t i = 0; i < g->kv_count; i++) {
        text_addf(out, i ? ",\n" : "\n");
        json_key(out, &g->kvs[i], args->full);
    }
    text_addf(out, "],\n\"tensor_count\": %zu", g->tensor_count);
    for (size_t i = 0; args->tensors && i < g->tensor_count; i++) {
        text_addf(out, i ? ",\n" : ",\n\"tensors\": [\n");
        json_tensor(out, &g->tensors[i]);
    }
    text_addf(out, args->tensors && g->tensor_count ? "]}\n" : "}\n");
}

/* ---- the verb ------------------------------------------------------------------------------------------------- */

static bool show(const struct show_args *args, struct quern_error *err)
{
    struct gguf_options options = { .limit_metadata = args->limit_metadata, .allow_aliased = args->allow_aliased };
    struct summary summary;
    struct text out = { 0 };
    struct gguf g;
    if (!gguf_open(&g, args->args.operands[0], &options, err))
        return false;
    summarise(&summary, &g);
    plan_memory(&summary, &g, args);
    if (g.trailing)
        cli_warn("%s: %zu bytes after the last tensor are not part of the model", g.path, g.trailing);
    (args->json ? show_json : show_text)(&out, &g, &summary, args);
    bool ok = !out.failed || ERR(err, QUERN_EMEM, "not enough memory to show '%s'", g.path);
    if (ok)
        fwrite(out.data, 1, out.n, stdout);
    text_free(&out);
    gguf_close(&g);
    return ok;
}

int cmd_show(int argc, char **argv)
{
    struct show_args args;
    struct quern_error err;
    int code;
    if (!cli_begin(&quern_program, &verb_show, argc, argv, &args, &code))
        return code;
    code = show(&args, &err) ? 0 : cli_fail(&err);
    return cli_end(&verb_show, &args, code);
}
