/* quern logits: every logit after every token of a list, for comparing engines. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cmd.h"
#include "cmd_engine.h"
#include "output.h"
#include "runner.h"
#include "session.h"

struct logits_args {
    struct args        args;
    struct engine_args engine;
    const char        *tokens, *output;
    int                kv;
    bool               force;
};

#define OFFSET(field) offsetof(struct logits_args, field)
static const struct option options[] = {
    {.name = "tokens-file", .kind = OPTION_FILE, .offset = OFFSET(tokens), .arg = "FILE",
     .help = "token ids as decimal text, separated by blanks, line breaks or commas; - is standard input"},
    {.name = "output", .letter = 'o', .kind = OPTION_FILE, .offset = OFFSET(output), .arg = "FILE",
     .help = "where to write: raw little-endian 32-bit floats, one row per token; - is standard output"},
    {.name = "force", .kind = OPTION_SWITCH, .offset = OFFSET(force), .help = "replace an existing output that is not empty"},
    {.name = "kv", .kind = OPTION_CHOICE, .offset = OFFSET(kv), .arg = "TYPE", .fallback = "f32", .choices = KV_CHOICES,
     .help = KV_HELP},
    {.name = "engine", .kind = OPTION_GROUP, .offset = OFFSET(engine), .group = engine_options, .help = "Engine"},
    {0}
};
#undef OFFSET

static const struct example logits_examples[] = {
    {"quern tokenize model.gguf <text.txt | quern logits model.gguf --tokens-file - -o logits.f32",
     "every logit after each token of a text"},
    {NULL, NULL}
};

const struct verb verb_logits = {
    .name = "logits",
    .summary = "write the logits after each token of a list",
    .operands = "[MODEL]",
    .operands_max = 1,
    .examples = logits_examples,
    .options = options,
    .size = sizeof(struct logits_args),
    .main = cmd_logits,
    .details =
        "The tokens are fed exactly as given: no beginning token is added. --batch N feeds them N at a time, which must not "
        "change the result. The cache has room for --context tokens, or as many as there are; --context matters where a model "
        "chooses its rotation by the size of the context (longrope).\n"
        "The output appears, or with --force replaces what was there, when all rows are written and not before. An empty file (as "
        "mktemp makes) is replaced unasked.",
};

/* Decimal numbers into a growing list. */
static bool read_ids(FILE *in, const char *name, int32_t **ids, size_t *count, struct quern_error *err)
{
    size_t capacity = 0, at = 0;
    *ids = NULL;
    *count = 0;
    for (int c = getc(in); c != EOF; c = getc(in), at++) {
        if (c == ' ' || c == '\n' || c == '\t' || c == '\r' || c == ',')
            continue;
        long long value = 0;
        size_t start = at;
        /* The loop stops once past INT32_MAX, so `value` never overflows however many digits follow. */
        for (; c >= '0' && c <= '9' && value <= INT32_MAX; c = getc(in), at++)
            value = value * 10 + (c - '0');
        if (at == start || value > INT32_MAX || (c != EOF && !strchr(" \n\t\r,", c)))
            return ERR(err, QUERN_EUSAGE, "%s: no token id at byte %zu", name, start);
        if (*count == capacity) {
            capacity = capacity ? 2 * capacity : 1024;
            int32_t *bigger = realloc(*ids, capacity * sizeof **ids);
            if (!bigger)
                return ERR(err, QUERN_EMEM, "not enough memory for %zu token ids", capacity);
            *ids = bigger;
        }
        (*ids)[(*count)++] = (int32_t)value;
        if (c == EOF)
            break;
    }
    if (ferror(in))
        return ERR_ERRNO(err, "cannot read '%s'", name);
    return *count > 0 || ERR(err, QUERN_EUSAGE, "%s: no token ids", name);
}

/* All of them before the first is computed: nothing is written for a list that ends badly. */
static bool check_ids(const struct quern_model *model, const int32_t *ids, size_t count, const char *name, struct quern_error *err)
{
    size_t vocab = quern_model_vocabulary(model);
    for (size_t i = 0; i < count; i++)
        if (ids[i] < 0 || (size_t)ids[i] >= vocab)
            return ERR(err, QUERN_EUSAGE, "%s: token %zu has the id %d, allowed is 0 to %zu", name, i, (int)ids[i], vocab - 1);
    return true;
}

static bool load_ids(const char *name, int32_t **ids, size_t *count, struct quern_error *err)
{
    if (!name)
        return ERR(err, QUERN_EUSAGE, "--tokens-file is needed");
    if (strcmp(name, "-") == 0)
        return read_ids(stdin, "standard input", ids, count, err);
    FILE *in = fopen(name, "rbe");
    if (!in)
        return ERR_ERRNO(err, "cannot open '%s'", name);
    bool ok = read_ids(in, name, ids, count, err);
    fclose(in);
    return ok;
}

/* ---- where they go ---------------------------------------------------------------------------------------------- */

/* A file appears whole or not at all: half a matrix would compare as wrong logits, not as a failed run. Pipes, devices and standard
 * output get the rows as they come. */
struct sink {
    struct output file;
    FILE         *stream;        /* NULL: the file */
    const char   *name;
};

static bool open_sink(struct sink *to, const struct logits_args *a, const struct gguf *model, struct quern_error *err)
{
    const char *name = a->output;
    struct stat target, out;
    bool dash = strcmp(name, "-") == 0, there = !dash && stat(name, &target) == 0;
    *to = (struct sink){.file = {.fd = -1}, .name = name};
    /* /dev/stdout may lead to a file, which somebody else has open and goes on with: it must not get another inode. */
    if (dash || (there && fstat(1, &out) == 0 && out.st_dev == target.st_dev && out.st_ino == target.st_ino)) {
        to->stream = stdout;
        to->name = "standard output";
        return true;
    }
    if (there && !S_ISREG(target.st_mode))
        return (to->stream = fopen(name, "wbe")) != NULL || ERR_ERRNO(err, "cannot write '%s'", name);
    struct output_options how = {.force = a->force || (there && target.st_size == 0), .inputs = model->parts,
                                 .input_count = model->part_count, .texts = &a->tokens, .text_count = 1};
    return output_open(&to->file, name, &how, err);
}

static bool put(struct sink *to, const float *x, size_t n, struct quern_error *err)
{
    if (!to->stream)
        return output_write(&to->file, x, n * sizeof *x, err);
    return fwrite(x, sizeof *x, n, to->stream) == n || ERR_ERRNO(err, "cannot write '%s'", to->name);
}

/* What went to stdout is flushed when the program ends. */
static bool close_sink(struct sink *to, bool ok, struct quern_error *err)
{
    if (!to->stream) {
        ok = ok && output_commit(&to->file, err);
        output_close(&to->file);
    } else if (to->stream != stdout && fclose(to->stream) != 0 && ok) {
        ok = ERR_ERRNO(err, "cannot write '%s'", to->name);
    }
    return ok;
}

/* This machine's floats are little-endian or the build would not read GGUF files. */
static bool compute(struct runner *r, const int32_t *ids, size_t count, struct sink *to, struct quern_error *err)
{
    size_t vocab = r->model->model.hyper.vocab, n;
    for (size_t at = 0; at < count; at += n) {
        n = count - at < r->shape.batch ? count - at : r->shape.batch;
        struct batch_part part = {.kv = &r->kv[0], .tokens = ids + at, .count = n, .wanted = n};
        if (!forward_run(&r->forward, &part, 1, r->logits, err) || !put(to, r->logits, n * vocab, err))
            return false;
    }
    return true;
}

static bool write_logits(struct runner *r, const int32_t *ids, size_t count, const struct logits_args *a, struct quern_error *err)
{
    struct sink to;
    bool ok = open_sink(&to, a, &r->model->gguf, err) && compute(r, ids, count, &to, err);
    return close_sink(&to, ok, err);
}

static bool run(const struct logits_args *a, struct quern_error *err)
{
    struct runner runner = {0};
    struct pool *pool = NULL;
    struct quern_model *model = NULL;
    int32_t *ids = NULL;
    size_t count, cache, scratch;
    bool ok = (a->output || ERR(err, QUERN_EUSAGE, "--output is needed")) && load_ids(a->tokens, &ids, &count, err) &&
              (model = engine_open(&a->engine, &a->args, err)) && check_ids(model, ids, count, a->tokens, err) &&
              (pool = pool_open(model->threads, err));
    if (ok) {
        /* A cache as large as the list at least. A row of logits per token of a batch is the largest piece of memory here
         * (512 rows of 128,000 are 250 MB), which is why a batch is never larger than the list. */
        size_t batch = a->engine.batch ? a->engine.batch : 512, context = a->engine.context > count ? a->engine.context : count;
        batch = batch < count ? batch : count;
        struct runner_shape shape = {.context = context, .sequences = 1, .batch = batch, .rows = batch,
                                     .kv = session_kv(model, (enum quern_kv)a->kv)};
        ok = runner_bytes(&cache, &scratch, model, &shape, pool_threads(pool), err) &&
             engine_plan_bytes(model, &a->engine, shape.kv, cache, scratch, err) &&
             runner_open(&runner, model, &shape, pool, cli_catch_signals(), err) &&
             write_logits(&runner, ids, count, a, err);
    }
    runner_close(&runner);
    pool_close(pool);
    quern_close_model(model);
    free(ids);
    return ok;
}

int cmd_logits(int argc, char **argv)
{
    struct logits_args a;
    struct quern_error err = {0};
    int code;
    if (!cli_begin(&quern_program, &verb_logits, argc, argv, &a, &code))
        return code;
    code = run(&a, &err) ? 0 : cli_fail(&err);
    return cli_end(&verb_logits, &a, code);
}
