/* verify: is a file what a model file must be? Every check is made, every fault is named.
 *
 * A fault found by one check does not end the others: whoever repairs a file wants the whole list. Only what the machine lacks
 * (memory, a readable disk) ends the run, with that as its reason. */
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "cmd.h"
#include "cpu_words.h"
#include "gguf.h"
#include "model.h"
#include "pool.h"
#include "scan.h"
#include "text.h"
#include "tokenizer.h"

enum { SHOWN_TOKENS = 5, PIECE_BYTES = 4096 };

struct verify_args {
    struct args args;
    bool   json, allow_aliased;
    size_t threads, limit_metadata;
};

#define AT(field) offsetof(struct verify_args, field)

static const struct option verify_options[] = {
    { "json", 0, OPTION_SWITCH, AT(json), NULL, NULL, "one JSON object instead of text", NULL, NULL, NULL },
    { "threads", 't', OPTION_COUNT, AT(threads), "N", "0", "threads, 0 for as many as pay", NULL, NULL, NULL },
    { "limit-metadata", 0, OPTION_BYTES, AT(limit_metadata), "SIZE", "256M", "most that keys and values may take", NULL, NULL,
      NULL },
    { "allow-aliased", 0, OPTION_SWITCH, AT(allow_aliased), NULL, NULL, "tensors may share bytes", NULL, NULL, NULL },
    { NULL, 0, OPTION_SWITCH, 0, NULL, NULL, NULL, NULL, NULL, NULL }
};

static const struct example verify_examples[] = {
    {"quern verify model.gguf", "whether the file is sound, and if not, every reason"},
    {NULL, NULL}
};

const struct verb verb_verify = {
    .name = "verify", .summary = "check a GGUF file from end to end", .operands = "FILE", .operands_min = 1, .operands_max = 1,
    .details = "Checks the file's structure, every tensor's shape against the hyper-parameters, every block of every tensor for "
               "NaN and Inf, and that the text of every token comes back from the tokenizer.\n"
               "Ends with 0 when all is well, with 3 and all the reasons when something is wrong, and with 4 when nothing is wrong "
               "but the architecture or tokenizer is one that quern does not know, so that it could not be checked.",
    .examples = verify_examples,
    .options = verify_options, .size = sizeof(struct verify_args), .main = cmd_verify,
};

/* ---- what was found ------------------------------------------------------------------------------------------- */

/* UNKNOWN is not WRONG: a file for a newer engine may be perfectly sound. The exit code keeps them apart (4 and 3). */
enum outcome { FINE, NOTE, UNKNOWN, WRONG };

struct report {
    struct text lines;         /* of text, or the members of a JSON array */
    bool        json;
    size_t      wrong, unknown;
};

/* One finding of a check: a sentence whose text from the file is escaped already. */
static void add_finding(struct report *r, enum outcome outcome, const char *check, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static void add_finding(struct report *r, enum outcome outcome, const char *check, const char *format, ...)
{
    static const char *const words[] = { "ok", "note", "not checked", "WRONG" };
    char sentence[1400];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    r->wrong += outcome == WRONG;
    r->unknown += outcome == UNKNOWN;
    if (!r->json) {
        text_addf(&r->lines, "%-11s%s: %s\n", check, words[outcome], sentence);
        return;
    }
    text_addf(&r->lines, "%s{\"check\": \"%s\", \"outcome\": \"%s\", \"text\": ", r->lines.n ? ",\n" : "\n", check,
              outcome == WRONG ? "wrong" : words[outcome]);
    text_add_json(&r->lines, sentence, strlen(sentence));
    text_add(&r->lines, "}", 1);
}

/* An error of a module: unsupported is not wrong; what the machine lacks ends the whole run (false). */
static bool add_error(struct report *r, const char *check, const struct quern_error *err)
{
    if (err->code != QUERN_EFORMAT && err->code != QUERN_EUNSUPPORTED)
        return false;
    add_finding(r, err->code == QUERN_EUNSUPPORTED ? UNKNOWN : WRONG, check, "%s", err->text);
    return true;
}

/* ---- the checks ----------------------------------------------------------------------------------------------- */

/* What gguf_open lets pass and a person may want to know. */
static void check_structure(struct report *r, const struct gguf *g)
{
    if (g->gaps)
        add_finding(r, NOTE, "structure", "%zu bytes lie between tensors and belong to none", g->gaps);
    if (g->trailing)
        add_finding(r, NOTE, "structure", "%zu bytes after the last tensor are not part of the model", g->trailing);
    add_finding(r, FINE, "structure", "GGUF version %u, %zu keys, %zu tensors", g->version, g->kv_count, g->tensor_count);
}

/* A block lies within one row; its place is given as the row and the values of that row, counted from 0 as everywhere. */
static void add_bad_tensor(struct report *r, const struct gguf_tensor *t, const struct scan *scan)
{
    char name[160];
    const struct format *format = format_find(t->type);
    size_t row = scan->first_value / t->shape[0], first = scan->first_block * format->block % t->shape[0];
    text_escape(name, sizeof name, t->name.text, t->name.n);
    add_finding(r, WRONG, "numbers",
                "tensor '%s' (%s) block %zu (row %zu, values %zu to %zu) holds %s; %zu of its %zu blocks are bad", name,
                format->name, scan->first_block, row, first, first + format->block - 1, isnan(scan->value) ? "NaN" : "Inf",
                scan->bad_blocks, scan->blocks);
}

/* Last, because it reads the whole file. One tensor at a time, spread over the threads. */
static bool check_numbers(struct report *r, const struct gguf *g, const struct kernels *kernels, struct pool *pool,
                          struct quern_error *err)
{
    size_t blocks = 0, bad = 0, left_out = 0, done = 0;
    struct progress progress;
    progress_begin(&progress, "numbers");
    for (size_t i = 0; i < g->tensor_count; i++) {
        struct scan scan;
        if (!scan_tensor(&scan, &g->tensors[i], kernels, pool, err)) {
            progress_end(&progress);
            return false;
        }
        if (scan.bad_blocks)
            add_bad_tensor(r, &g->tensors[i], &scan);
        bad += scan.bad_blocks;
        blocks += scan.scanned ? scan.blocks : 0;
        left_out += !scan.scanned;
        progress_show(&progress, (double)++done / (double)g->tensor_count);
    }
    progress_end(&progress);
    if (left_out)
        add_finding(r, NOTE, "numbers", "%zu tensors hold integers or intermediate formats and were not scanned", left_out);
    if (!bad)
        add_finding(r, FINE, "numbers", "no NaN or Inf in %zu blocks of %zu tensors", blocks, g->tensor_count - left_out);
    return true;
}

/* model_init knows every shape that an architecture wants; what it refuses is the finding. */
static bool check_shapes(struct report *r, const struct gguf *g, const struct kernels *kernels, bool *fine, struct quern_error *err)
{
    struct model model;
    *fine = false;
    if (g->tensor_count == 0) {
        add_finding(r, NOTE, "shapes", "there are no tensors: this is a vocabulary, not a model");
        return true;
    }
    if (!model_init(&model, g, kernels, err))
        return add_error(r, "shapes", err);
    if (model.extra_tensors)
        add_finding(r, NOTE, "shapes", "%zu tensors are not known to this architecture and not used", model.extra_tensors);
    add_finding(r, FINE, "shapes", "%s: %zu layers, width %zu, vocabulary of %zu; all tensors fit", model.arch->name,
                model.hyper.layers, model.hyper.width, model.hyper.vocab);
    model_free(&model);
    *fine = true;
    return true;
}

/* text -> ids -> text. SPM puts a blank before the text; WPM and the like change it (case, blanks), but then the ids must stay. */
static bool comes_back(const struct tokenizer *t, const char *text, size_t n, bool *same, struct quern_error *err)
{
    int32_t *ids = NULL, *again = NULL;
    size_t count, again_count, used = 0, length;
    char joined[2 * PIECE_BYTES];
    if (!tokenizer_encode(t, text, n, 0, &ids, &count, err))
        return false;
    *same = true;
    for (size_t i = 0; i < count && *same; i++) {
        length = tokenizer_piece(t, ids[i], false, joined + used, sizeof joined - used);
        *same = length <= sizeof joined - used;
        used += *same ? length : 0;
    }
    /* First by pieces, which is exact; only where that differs by the whole round trip, which forgives what the tokenizer itself
     * cleans. */
    size_t blank = used == n + 1 && joined[0] == ' ';
    *same = *same && used - blank == n && !memcmp(joined + blank, text, n);
    bool ok = true;
    if (!*same) {
        char *decoded = NULL;
        ok = tokenizer_decode(t, ids, count, false, &decoded, &length, err) &&
             tokenizer_encode(t, decoded, length, 0, &again, &again_count, err);
        *same = ok && again_count == count && (count == 0 || !memcmp(ids, again, count * sizeof *ids));
        free(decoded);
    }
    free(ids);
    free(again);
    return ok;
}

/* Every token's own text must survive encoding. A broken merge table or a wrong score shows here before it shows in a
 * model's answers. */
static bool check_tokenizer(struct report *r, const struct gguf *g, bool *fine, struct quern_error *err)
{
    char piece[PIECE_BYTES], shown[80];
    size_t bad = 0, tried = 0;
    *fine = false;
    struct tokenizer *t = tokenizer_open(g, NULL, err);
    if (!t)
        return add_error(r, "tokenizer", err);
    for (size_t id = 0; id < tokenizer_size(t); id++) {
        size_t n = tokenizer_piece(t, (int32_t)id, false, piece, sizeof piece);
        bool same;
        if (n == 0 || n > sizeof piece)      /* control tokens have no text */
            continue;
        if (!comes_back(t, piece, n, &same, err)) {
            tokenizer_close(t);
            return false;
        }
        tried++;
        if (!same && bad++ < SHOWN_TOKENS)
            add_finding(r, WRONG, "tokenizer", "token %zu: its text \"%s\" does not come back", id,
                        text_escape(shown, sizeof shown, piece, n));
    }
    if (bad > SHOWN_TOKENS)
        add_finding(r, WRONG, "tokenizer", "and %zu more tokens", bad - SHOWN_TOKENS);
    if (!bad)
        add_finding(r, FINE, "tokenizer", "%s%s%s: the texts of %zu of %zu tokens come back (the rest are control tokens)",
                    tokenizer_model(t), *tokenizer_pre(t) ? ", " : "", tokenizer_pre(t), tried, tokenizer_size(t));
    *fine = bad == 0;
    tokenizer_close(t);
    return true;
}

/* What only shows when model and tokenizer come together. */
static bool check_together(struct report *r, const char *path, const struct gguf_options *reading, struct quern_error *err)
{
    struct quern_model_options options = { .threads = 1, .limit_metadata = reading->limit_metadata,
                                           .allow_aliased = reading->allow_aliased };
    struct quern_model *model = quern_open_model(path, &options, err);
    if (!model)
        return add_error(r, "together", err);
    quern_close_model(model);
    return true;
}

static bool check_all(struct report *r, const struct gguf *g, const struct gguf_options *reading, size_t threads,
                      struct quern_error *err)
{
    struct kernels kernels;
    struct cpu cpu;
    bool shapes, tokenizer;
    if (!cpu_choose(&cpu, NULL, err))
        return false;
    kernels_init(&kernels, &cpu);
    struct pool *pool = pool_open(threads ? threads : pool_default_threads(NULL, 0), err);
    if (!pool)
        return false;
    check_structure(r, g);
    bool ok = check_shapes(r, g, &kernels, &shapes, err) && check_tokenizer(r, g, &tokenizer, err) &&
              (!shapes || !tokenizer || check_together(r, g->path, reading, err)) && check_numbers(r, g, &kernels, pool, err);
    pool_close(pool);
    return ok;
}

/* ---- the verb ------------------------------------------------------------------------------------------------- */

static void print_report(struct report *r, const struct gguf *g, enum quern_code code)
{
    struct text out = { 0 };
    if (r->json) {
        text_addf(&out, "{\"file\": ");
        text_add_json(&out, g->path, strlen(g->path));
        text_addf(&out, ", \"code\": %d, \"wrong\": %zu, \"findings\": [", code, r->wrong);
        fwrite(out.data, 1, out.n, stdout);
    }
    if (r->lines.n)
        fwrite(r->lines.data, 1, r->lines.n, stdout);
    if (r->json)
        fputs("]}\n", stdout);
    text_free(&out);
}

static int verify(const struct verify_args *args)
{
    struct gguf_options reading = { .limit_metadata = args->limit_metadata, .allow_aliased = args->allow_aliased };
    struct report report = { .json = args->json };
    struct quern_error err;
    struct gguf g;
    if (!gguf_open(&g, args->args.operands[0], &reading, &err))
        return cli_fail(&err);
    enum quern_code code;
    bool ok = check_all(&report, &g, &reading, args->threads, &err);
    if (ok && report.lines.failed)
        ok = ERR(&err, QUERN_EMEM, "not enough memory for the report");
    if (!ok) {
        code = (enum quern_code)cli_fail(&err);
    } else {
        code = report.wrong ? QUERN_EFORMAT : report.unknown ? QUERN_EUNSUPPORTED : QUERN_OK;
        print_report(&report, &g, code);
        if (report.wrong)
            ERR(&err, code, "%s: %zu %s wrong", g.path, report.wrong, report.wrong == 1 ? "thing is" : "things are");
        else if (report.unknown)
            ERR(&err, code, "%s: nothing is wrong, but not everything could be checked", g.path);
        if (code != QUERN_OK)
            cli_fail(&err);
    }
    text_free(&report.lines);
    gguf_close(&g);
    return code;
}

int cmd_verify(int argc, char **argv)
{
    struct verify_args args;
    int code;
    if (!cli_begin(&quern_program, &verb_verify, argc, argv, &args, &code))
        return code;
    return cli_end(&verb_verify, &args, verify(&args));
}
