/* quern logits: every logit after every token of a list, for comparing engines. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd.h"
#include "cmd_engine.h"
#include "runner.h"
#include "session.h"

struct logits_args {
    struct args        args;
    struct engine_args engine;
    const char        *tokens, *output;
    int                kv;
};

#define OFFSET(field) offsetof(struct logits_args, field)
static const struct option options[] = {
    {.name = "tokens-file", .kind = OPTION_FILE, .offset = OFFSET(tokens), .arg = "FILE",
     .help = "token ids as decimal text, separated by blanks, line breaks or commas; - is standard input"},
    {.name = "output", .letter = 'o', .kind = OPTION_FILE, .offset = OFFSET(output), .arg = "FILE",
     .help = "where to write: raw little-endian 32-bit floats, one row per token; - is standard output"},
    {.name = "kv", .kind = OPTION_CHOICE, .offset = OFFSET(kv), .arg = "TYPE", .fallback = "f32", .choices = KV_CHOICES,
     .help = KV_HELP},
    {.name = "engine", .kind = OPTION_GROUP, .offset = OFFSET(engine), .group = engine_options, .help = "Engine"},
    {0}
};
#undef OFFSET

const struct verb verb_logits = {
    .name = "logits",
    .summary = "write the logits after each token of a list",
    .operands = "[MODEL]",
    .operands_max = 1,
    .options = options,
    .size = sizeof(struct logits_args),
    .main = cmd_logits,
    .details =
        "The tokens are fed exactly as given: no beginning token is added. --batch N feeds them N at a time, which must not "
        "change the result. The cache has room for --context tokens, or as many as there are; --context matters where a model "
        "chooses its rotation by the size of the context (longrope).",
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

/* This machine's floats are little-endian or the build would not read GGUF files. */
static bool compute(struct runner *r, const int32_t *ids, size_t count, FILE *out, const char *name, struct quern_error *err)
{
    size_t vocab = r->model->model.hyper.vocab, n;
    for (size_t at = 0; at < count; at += n) {
        n = count - at < r->shape.batch ? count - at : r->shape.batch;
        struct batch_part part = {.kv = &r->kv[0], .tokens = ids + at, .count = n, .wanted = n};
        if (!forward_run(&r->forward, &part, 1, r->logits, err))
            return false;
        if (fwrite(r->logits, sizeof(float), n * vocab, out) != n * vocab)
            return ERR_ERRNO(err, "cannot write '%s'", name);
    }
    return true;
}

/* Is `name` the model or the list of tokens? Writing would destroy it. */
static bool is_input(const char *name, const struct quern_model *model, const char *tokens, struct quern_error *err)
{
    struct stat out, in;
    if (stat(name, &out) != 0)
        return false;
    for (size_t i = 0; i < model->gguf.part_count; i++)
        if (out.st_dev == model->gguf.parts[i].device && out.st_ino == model->gguf.parts[i].inode)
            return !ERR(err, QUERN_EUSAGE, "the output '%s' is the model", name);
    if (stat(tokens, &in) == 0 && in.st_dev == out.st_dev && in.st_ino == out.st_ino)
        return !ERR(err, QUERN_EUSAGE, "the output '%s' is the list of tokens", name);
    return false;
}

/* Half a matrix compares as wrong logits rather than as a failed run: the file that was written, `fd`, is emptied, and removed
 * where the name is its own. Links stay, since /dev/stdout is one; pipes and devices are not ours to remove. */
static void discard(const char *name, int fd)
{
    struct stat written, named;
    if (fd < 0 || fstat(fd, &written) != 0 || !S_ISREG(written.st_mode))
        return;
    if (ftruncate(fd, 0) != 0)
        cli_warn("what was written to '%s' cannot be taken back: %s", name, strerror(errno));
    if (lstat(name, &named) == 0 && named.st_dev == written.st_dev && named.st_ino == written.st_ino)
        unlink(name);
}

/* Nothing is left of a file that did not become whole. fclose may be what fails, and may write before it does, so the file is kept
 * open by a second descriptor. */
static bool write_logits(struct runner *r, const int32_t *ids, size_t count, const char *name, const char *tokens,
                         struct quern_error *err)
{
    if (strcmp(name, "-") == 0)
        return compute(r, ids, count, stdout, "standard output", err);
    if (is_input(name, r->model, tokens, err))
        return false;
    FILE *out = fopen(name, "wbe");
    if (!out)
        return ERR_ERRNO(err, "cannot create '%s'", name);
    int fd = fcntl(fileno(out), F_DUPFD_CLOEXEC, 0);
    bool ok = (fd >= 0 || ERR_ERRNO(err, "cannot create '%s'", name)) && compute(r, ids, count, out, name, err);
    errno = 0;
    if (fclose(out) != 0 && ok)
        ok = ERR_ERRNO(err, "cannot write '%s'", name);
    if (!ok)
        discard(name, fd);
    if (fd >= 0)
        close(fd);
    return ok;
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
             write_logits(&runner, ids, count, a->output, a->tokens, err);
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
