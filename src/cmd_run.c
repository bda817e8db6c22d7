/* quern run: a prompt in, the model's continuation out. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd.h"
#include "cmd_engine.h"
#include "machine.h"
#include "sampler.h"
#include "stops.h"
#include "stream.h"
#include "text.h"
#include "unicode.h"

struct run_args {
    struct args          args;
    struct engine_args   engine;
    struct sampling_args sampling;
    const char          *prompt, *file;
    int32_t              predict;
    size_t               logprobs;
    struct option_texts  stops;
    bool                 ignore_eos, special, json, quiet;
    int                  kv, overflow, utf8;
};

enum { OVERFLOW_ERROR, OVERFLOW_SHIFT };
enum { UTF8_ERROR, UTF8_REPLACE };

#define OFFSET(field) offsetof(struct run_args, field)
static const struct option options[] = {
    {.name = "prompt", .letter = 'p', .kind = OPTION_TEXT, .offset = OFFSET(prompt), .arg = "TEXT",
     .help = "the text to continue; an empty one starts from the model's beginning token"},
    {.name = "file", .letter = 'f', .kind = OPTION_FILE, .offset = OFFSET(file), .arg = "FILE",
     .help = "take the prompt from a file, - is standard input; without -p and -f standard input is read when it is no terminal"},
    {.name = "predict", .letter = 'n', .alias = "n-predict", .kind = OPTION_INT, .offset = OFFSET(predict), .arg = "N",
     .fallback = "-1",
     .help = "stop after N tokens; -1: when the model ends its text or the context is full"},
    {.name = "kv", .kind = OPTION_CHOICE, .offset = OFFSET(kv), .arg = "TYPE", .fallback = "auto", .choices = KV_CHOICES,
     .help = KV_HELP},
    {.name = "stop", .kind = OPTION_TEXTS, .offset = OFFSET(stops), .arg = "TEXT",
     .help = "end before this text, also when it is spread over tokens; may be given many times"},
    {.name = "ignore-eos", .kind = OPTION_SWITCH, .offset = OFFSET(ignore_eos), .help = "go on when the model ends its text"},
    {.name = "special", .kind = OPTION_SWITCH, .offset = OFFSET(special),
     .help = "texts of special tokens in the prompt become those tokens"},
    {.name = "on-overflow", .kind = OPTION_CHOICE, .offset = OFFSET(overflow), .arg = "WHAT", .fallback = "error",
     .choices = "error|shift",
     .help = "when prompt and -n do not fit the context: exit 8 before anything is computed, or forget the older half of it each "
             "time that it is full"},
    {.name = "utf8", .kind = OPTION_CHOICE, .offset = OFFSET(utf8), .arg = "WHAT", .fallback = "error", .choices = "error|replace",
     .help = "bytes in the prompt that are not UTF-8: exit 2, or U+FFFD in their place"},
    {.name = "logprobs", .kind = OPTION_COUNT, .offset = OFFSET(logprobs), .arg = "N", .fallback = "0",
     .help = "print each token as a line of JSON with its log probability and the N most likely ones, before any filter"},
    {.name = "json", .kind = OPTION_SWITCH, .offset = OFFSET(json), .help = "print one JSON object at the end instead of the text"},
    {.name = "quiet", .letter = 'q', .kind = OPTION_SWITCH, .offset = OFFSET(quiet),
     .help = "no plan of memory and no timings on stderr"},
    {.name = "engine", .kind = OPTION_GROUP, .offset = OFFSET(engine), .group = engine_options, .help = "Engine"},
    {.name = "sampling", .kind = OPTION_GROUP, .offset = OFFSET(sampling), .group = sampling_options, .help = "Sampling"},
    {0}
};
#undef OFFSET

static const struct example run_examples[] = {
    {"quern run -p 'It was a dark and stormy night' -n 80", "80 tokens of the small model inside the program"},
    {"quern run model.gguf -f text.txt -c 1024 --temp 0", "go on from a file, always with the most likely token"},
    {"quern run model.gguf --json -n 20 -c 1024 <text.txt",
     "the prompt from standard input; one object with text, tokens and timings"},
    {NULL, NULL}
};

const struct verb verb_run = {
    .name = "run",
    .summary = "continue a text",
    .operands = "[MODEL]",
    .operands_max = 1,
    .examples = run_examples,
    .options = options,
    .size = sizeof(struct run_args),
    .main = cmd_run,
    .details =
        "The answer goes to standard output as it is made, everything else to standard error. Without a model the one inside "
        "the program is used. The same program, model, prompt, seed and options give the same bytes for any number of threads.\n"
        "Without -n the answer ends where the model ends it, at the latest with the context (--context): exit 0 in both cases. The "
        "last line on standard error says which it was, and --json has it as \"ended\" (end, stop, length, context, interrupt, "
        "error) and as \"finish_reason\" (stop or length, null where the run broke off).",
};

/* Why the answer is over. `finish` is the word that servers with OpenAI's interface use: only a text that is complete is "stop". */
struct ending {
    const char *word, *finish, *sentence;
};
static const struct ending ENDED_TEXT = {"end", "\"stop\"", "the model ended its text"},
                           ENDED_STOP = {"stop", "\"stop\"", "a stop string came up"},
                           ENDED_LENGTH = {"length", "\"length\"", "all tokens of -n are made"},
                           ENDED_CONTEXT = {"context", "\"length\"", "the context is full"},
                           ENDED_INTERRUPT = {"interrupt", "null", "interrupted"},
                           ENDED_ERROR = {"error", "null", "an error"};

/* Everything between opening the model and the last word. */
struct run {
    const struct run_args *a;
    struct quern_model    *model;
    struct quern_session  *session;
    struct quern_sampler  *sampler;
    struct quern_error    *err;
    const volatile int    *stop;
    size_t                 context, most;  /* tokens that are held, tokens to make (SIZE_MAX: no limit) */
    char                  *prompt;
    size_t                 prompt_bytes;
    int32_t               *tokens;         /* of the prompt */
    size_t                 prompt_tokens, made;
    struct stops           stops;
    struct stream          stream;
    struct text            shown;          /* what the stream let out last */
    struct text            all;            /* the whole answer, for --json */
    bool                   terminal, newline;   /* stdout is one; its last character so far */
    const struct ending   *ended;          /* NULL while the text goes on */
    double                 load, prefill, first, decode;     /* seconds */
};

/* ---- the prompt ------------------------------------------------------------------------------------------------- */

/* Doubling, since a pipe has no size; one byte stays free for a NUL. A pipe may have no end either: what no context holds is not
 * worth the machine's memory. An interruption while nothing comes is one, not an error of reading. */
static bool read_all(struct run *r, FILE *in, const char *name)
{
    const size_t most = (size_t)256 << 20;
    size_t capacity = 0;
    for (;;) {
        if (r->prompt_bytes > most)
            return ERR(r->err, QUERN_ELIMIT, "the prompt from '%s' is longer than 256 MiB", name);
        if (capacity - r->prompt_bytes < 2) {
            capacity = capacity ? 2 * capacity : 65536;
            char *bigger = capacity > r->prompt_bytes ? realloc(r->prompt, capacity) : NULL;
            if (!bigger)
                return ERR(r->err, QUERN_EMEM, "not enough memory for the prompt (%zu bytes so far)", r->prompt_bytes);
            r->prompt = bigger;
        }
        errno = 0;
        size_t n = fread(r->prompt + r->prompt_bytes, 1, capacity - r->prompt_bytes - 1, in);
        r->prompt_bytes += n;
        if (*r->stop)
            return ERR(r->err, QUERN_EINTERRUPT, "interrupted");
        if (n == 0)
            return !ferror(in) || ERR_ERRNO(r->err, "cannot read the prompt from '%s'", name);
    }
}

static bool read_prompt(struct run *r)
{
    const struct run_args *a = r->a;
    if (a->prompt && a->file)
        return ERR(r->err, QUERN_EUSAGE, "two prompts: --prompt and --file");
    if (a->prompt) {
        r->prompt_bytes = strlen(a->prompt);
        return (r->prompt = mem_copy_text(a->prompt, r->prompt_bytes, r->err)) != NULL;
    }
    if (!a->file && isatty(0))
        return ERR(r->err, QUERN_EUSAGE, "no prompt: give -p TEXT, -f FILE or standard input");
    if (!a->file || strcmp(a->file, "-") == 0)
        return read_all(r, stdin, "standard input");
    FILE *in = fopen(a->file, "rbe");
    if (!in)
        return ERR_ERRNO(r->err, "cannot open the prompt file '%s'", a->file);
    bool ok = read_all(r, in, a->file);
    fclose(in);
    return ok;
}

/* Refuse or replace what is not UTF-8. A tokenizer would take such bytes one by one, and the model would answer something else than
 * the user believes to have asked. The prompt is copied only when something has to be replaced. */
static bool check_utf8(struct run *r)
{
    struct text clean = {0};
    bool bad = false;
    uint32_t c;
    for (size_t i = 0, n; i < r->prompt_bytes; i += n) {
        n = unicode_decode(r->prompt + i, r->prompt_bytes - i, &c);
        if (c == UNICODE_REPLACEMENT && n == 1) {
            if (r->a->utf8 == UTF8_ERROR) {
                text_free(&clean);
                return ERR(r->err, QUERN_EUSAGE, "the prompt is not UTF-8 at byte %zu (0x%02x); --utf8 replace puts U+FFFD there",
                           i, (unsigned char)r->prompt[i]);
            }
            if (!bad)
                text_add(&clean, r->prompt, i);
            bad = true;
            text_add(&clean, "\xef\xbf\xbd", 3);
        } else if (bad) {
            text_add(&clean, r->prompt + i, n);
        }
    }
    if (!bad)
        return true;
    if (clean.failed) {
        text_free(&clean);
        return ERR(r->err, QUERN_EMEM, "not enough memory for the prompt");
    }
    free(r->prompt);
    r->prompt = clean.data;
    r->prompt_bytes = clean.n;
    return true;
}

/* ---- output ----------------------------------------------------------------------------------------------------- */

/* Write what the stream let out, at once: who waits for a word should not wait for a buffer. */
static bool write_shown(struct run *r)
{
    bool ok = !r->shown.failed || ERR(r->err, QUERN_EMEM, "not enough memory for the answer");
    if (ok && r->shown.n && (fwrite(r->shown.data, 1, r->shown.n, stdout) != r->shown.n || fflush(stdout) != 0))
        ok = ERR_ERRNO(r->err, "cannot write to standard output");
    r->newline = r->shown.n ? r->shown.data[r->shown.n - 1] == '\n' : r->newline;
    r->shown.n = 0;
    return ok;
}

/* Text on its way out: kept for --json, dropped for --logprobs (the lines have it), else through the stream, which holds back
 * incomplete characters and escapes controls on a terminal. */
static bool show(struct run *r, const char *text, size_t n)
{
    if (r->a->json) {
        text_add(&r->all, text, n);
        return !r->all.failed || ERR(r->err, QUERN_EMEM, "not enough memory for the answer");
    }
    if (r->a->logprobs)
        return true;
    stream_add(&r->stream, text, n, &r->shown);
    return write_shown(r);
}

/* log sum exp over the vocabulary; in double, because it is subtracted from logits of its own size. */
static double log_total(const float *logits, size_t n, float *max)
{
    double sum = 0;
    *max = logits[0];
    for (size_t i = 1; i < n; i++)
        *max = logits[i] > *max ? logits[i] : *max;
    for (size_t i = 0; i < n; i++)
        sum += exp((double)logits[i] - *max);
    return *max + log(sum);
}

/* id, text and log probability, as the inside of a JSON object. */
static void add_token(struct run *r, struct text *line, int32_t id, double logprob)
{
    char piece[1024];
    size_t n = quern_decode_token(r->model, id, piece, sizeof piece);
    n = n < sizeof piece ? n : sizeof piece;
    text_addf(line, "\"token\":%d,\"text\":", (int)id);
    text_add_json(line, piece, n);
    text_addf(line, ",\"logprob\":");
    text_add_number(line, logprob);
}

/* One line of JSON for a token and the most likely ones, found by n passes: n is small. */
static bool show_logprobs(struct run *r, int32_t chosen, const float *logits)
{
    size_t vocabulary = quern_model_vocabulary(r->model), n = r->a->logprobs < vocabulary ? r->a->logprobs : vocabulary;
    struct text line = {0};
    float max;
    double total = log_total(logits, vocabulary, &max), above = INFINITY;
    int32_t last = -1;
    text_addf(&line, "{");
    add_token(r, &line, chosen, logits[chosen] - total);
    text_addf(&line, ",\"top\":[");
    for (size_t i = 0; i < n; i++) {
        int32_t best = -1;
        for (size_t t = 0; t < vocabulary; t++)
            if ((logits[t] < above || (logits[t] == above && (int32_t)t > last)) && (best < 0 || logits[t] > logits[best]))
                best = (int32_t)t;
        if (best < 0)
            break;
        text_addf(&line, i ? ",{" : "{");
        add_token(r, &line, best, logits[best] - total);
        text_addf(&line, "}");
        above = logits[best];
        last = best;
    }
    text_addf(&line, "]}\n");
    bool ok = !line.failed || ERR(r->err, QUERN_EMEM, "not enough memory for log probabilities");
    if (ok && fwrite(line.data, 1, line.n, stdout) != line.n)
        ok = ERR_ERRNO(r->err, "cannot write to standard output");
    text_free(&line);
    return ok;
}

/* Decode rates count one token less than were made: the first comes out of the prefill. */
static double rate(size_t tokens, double seconds) { return seconds > 0 ? (double)tokens / seconds : 0; }

static bool show_object(struct run *r)
{
    struct text t = {0};
    text_addf(&t, "{\"model\":");
    const char *name = engine_model_name(&r->a->engine, &r->a->args);
    text_add_json(&t, name, strlen(name));
    text_addf(&t, ",\"text\":");
    text_add_json(&t, r->all.data ? r->all.data : "", r->all.n);
    text_addf(&t,
              ",\"ended\":\"%s\",\"finish_reason\":%s,\"prompt_tokens\":%zu,\"tokens\":%zu,\"seed\":%llu,\"load_seconds\":%.6f,"
              "\"prefill_seconds\":%.6f,\"prefill_tps\":%.3f,\"first_token_seconds\":%.6f,\"decode_seconds\":%.6f,"
              "\"decode_tps\":%.3f}\n",
              r->ended->word, r->ended->finish, r->prompt_tokens, r->made, (unsigned long long)r->a->sampling.options.seed,
              r->load, r->prefill, rate(r->prompt_tokens, r->prefill), r->first, r->decode,
              rate(r->made ? r->made - 1 : 0, r->decode));
    bool ok = !t.failed || ERR(r->err, QUERN_EMEM, "not enough memory for the answer");
    if (ok && fwrite(t.data, 1, t.n, stdout) != t.n)
        ok = ERR_ERRNO(r->err, "cannot write to standard output");
    text_free(&t);
    return ok;
}

static void show_timings(const struct run *r)
{
    fprintf(stderr, "load %.3f s, prefill %zu tokens at %.1f/s", r->load, r->prompt_tokens, rate(r->prompt_tokens, r->prefill));
    if (r->made > 0)
        fprintf(stderr, ", first token after %.3f s", r->first);
    /* The first token is prefill's; a rate needs another one. */
    if (r->made > 1)
        fprintf(stderr, ", decode %zu tokens at %.1f/s", r->made, rate(r->made - 1, r->decode));
    fputc('\n', stderr);
    if (r->ended == &ENDED_CONTEXT)
        fprintf(stderr, "ended: the context of %zu tokens is full (--context, --on-overflow shift)\n", r->context);
    else
        fprintf(stderr, "ended: %s\n", r->ended->sentence);
}

/* ---- the run ---------------------------------------------------------------------------------------------------- */

/* Prompt to tokens, and does it fit? Before any compute. An open end (-n -1) asks for the prompt's own tokens only. */
static bool encode(struct run *r)
{
    const struct run_args *a = r->a;
    size_t need, coming = r->most == SIZE_MAX ? 0 : r->most;
    if (!quern_encode_text(r->model, r->prompt, r->prompt_bytes, true, a->special, &r->tokens, &r->prompt_tokens, r->err))
        return false;
    if (r->prompt_tokens == 0)
        return ERR(r->err, QUERN_EUSAGE, "the prompt is empty, and this model has no beginning token to start from");
    if (!checked_add(&need, r->prompt_tokens, coming))
        need = SIZE_MAX;
    if (need <= r->context || a->overflow == OVERFLOW_SHIFT)
        return true;
    if (coming)
        return ERR(r->err, QUERN_ELIMIT,
                   "%zu tokens of prompt and %zu to come need %zu, the context has %zu: see --context, --on-overflow",
                   r->prompt_tokens, coming, need, r->context);
    return ERR(r->err, QUERN_ELIMIT, "the prompt needs %zu tokens, the context has %zu: see --context, --on-overflow",
               r->prompt_tokens, r->context);
}

/* Keep the first token and the later half of `n`, at most half a context in all, and compute that. Half goes at once: dropping one
 * token per step would compute the whole context again for each, as keys are stored rotated for their old places. */
static bool shift(struct run *r, const int32_t *tokens, size_t n)
{
    size_t keep = r->context / 2 > 1 ? r->context / 2 : 1;
    if (keep > n)
        keep = n;
    int32_t *list = mem_take(keep, sizeof *list, "the shifted context", r->err);
    if (!list)
        return false;
    memcpy(list, tokens + n - keep, keep * sizeof *list);
    list[0] = tokens[0];
    fprintf(stderr, "quern: the context is full: going on with %zu of %zu tokens\n", keep, n);
    bool ok = quern_sync_session(r->session, list, keep, r->err);
    free(list);
    return ok;
}

/* The sampler sees the whole prompt, also what a shift forgets: penalties look back over the text, not over the cache. */
static bool prefill(struct run *r)
{
    for (size_t i = 0; i < r->prompt_tokens; i++)
        quern_accept_token(r->sampler, r->tokens[i]);
    if (r->prompt_tokens > r->context || (r->prompt_tokens == r->context && r->a->overflow == OVERFLOW_SHIFT))
        return shift(r, r->tokens, r->prompt_tokens);
    return quern_sync_session(r->session, r->tokens, r->prompt_tokens, r->err);
}

/* Show a token's text; true while the text goes on. */
static bool put_token(struct run *r, int32_t id)
{
    char piece[4096];
    const char *out;
    size_t n = quern_decode_token(r->model, id, piece, sizeof piece), out_n;
    if (n > sizeof piece)
        return ERR(r->err, QUERN_EUNSUPPORTED, "token %d has %zu bytes, %zu are the most", (int)id, n, sizeof piece);
    if (!stops_add(&r->stops, piece, n, &out, &out_n, r->err) || !show(r, out, out_n))
        return false;
    if (r->stops.stopped)
        r->ended = &ENDED_STOP;
    return true;
}

/* Room for one more token, or the end of the text: an -n that cannot fit was refused before (encode), so here nobody was promised
 * more. */
static bool make_room(struct run *r)
{
    const int32_t *tokens;
    size_t n = quern_session_tokens(r->session, &tokens);
    if (n < r->context)
        return true;
    if (r->a->overflow == OVERFLOW_SHIFT)
        return shift(r, tokens, n);
    r->ended = &ENDED_CONTEXT;
    return true;
}

/* Tokens until something ends the text. The last one is shown but never computed: its logits would serve nobody. */
static bool generate(struct run *r, double begin)
{
    double first = 0;
    if (r->most == 0)
        r->ended = &ENDED_LENGTH;
    while (!r->ended) {
        const float *logits = quern_session_logits(r->session);
        int32_t id = quern_sample_token(r->sampler, logits, r->err);
        if (id < 0)
            return false;
        if (r->made++ == 0) {
            first = machine_clock();
            r->first = first - begin;
        }
        if (quern_token_ends(r->model, id) && !r->a->ignore_eos) {
            r->ended = &ENDED_TEXT;
            r->made--;
        } else {
            if ((r->a->logprobs && !show_logprobs(r, id, logits)) || !put_token(r, id))
                return false;
            if (!r->ended && r->made == r->most)
                r->ended = &ENDED_LENGTH;
            if (!r->ended && !make_room(r))
                return false;
            if (!r->ended && !quern_step_session(r->session, &id, 1, r->err))
                return false;
        }
        r->decode = machine_clock() - first;
    }
    return true;
}

/* What is still held goes out, also after an error or an interruption: the half of a stop string, bytes that waited for the rest of
 * their character. A terminal's next prompt gets a line of its own; a pipe gets the model's bytes and nothing else. */
static bool finish_text(struct run *r)
{
    const char *out;
    size_t n;
    stops_end(&r->stops, &out, &n);
    bool ok = show(r, out, n);
    if (r->a->json || r->a->logprobs)
        return ok;
    stream_flush(&r->stream, &r->shown);
    ok = write_shown(r) && ok;
    if (r->terminal && r->made && !r->newline)
        putchar('\n');
    return ok;
}

/* Everything that can be wrong with the command, cheapest first: flags, prompt, model, sampler, fit of prompt and context, memory;
 * only then is memory taken. */
static bool open_all(struct run *r, struct run_args *a, struct quern_logit_bias **bias)
{
    const char *from_model[8];
    char chain[400];
    size_t count;
    double begin = machine_clock();
    if (a->predict < -1)
        return ERR(r->err, QUERN_EUSAGE, "--predict: %d is neither -1 nor a number of tokens", (int)a->predict);
    if (!stops_init(&r->stops, a->stops.items, a->stops.count, r->err) || !read_prompt(r) || !check_utf8(r) ||
        !(r->model = engine_open(&a->engine, &a->args, r->err)))
        return false;
    if (!sampling_settle(&a->sampling, &verb_run, a, engine_gguf(r->model), bias, from_model, &count, r->err) ||
        !(r->sampler = quern_open_sampler(r->model, &a->sampling.options, r->err)))
        return false;
    r->context = engine_context(r->model, &a->engine);
    if (r->context > quern_model_context(r->model))
        fprintf(stderr, "quern: warning: a context of %zu tokens, the model was trained for %zu\n", r->context,
                quern_model_context(r->model));
    if (a->engine.verbose) {
        options_settings(stderr, &verb_run, a, from_model, count);
        fprintf(stderr, "context: %zu of %zu trained\nsampler: %s\n", r->context, quern_model_context(r->model),
                sampler_describe(&a->sampling.options, chain, sizeof chain));
    }
    struct quern_session_options session = {
        .context = r->context, .batch = a->engine.batch, .kv = (enum quern_kv)a->kv, .stop = r->stop,
    };
    if (!encode(r) || !engine_plan(r->model, &a->engine, &session, r->err) ||
        !(r->session = quern_open_session(r->model, &session, r->err)))
        return false;
    r->load = machine_clock() - begin;
    return true;
}

static int run(struct run_args *a)
{
    struct quern_error err = {0}, later;
    struct quern_logit_bias *bias = NULL;
    a->engine.quiet = a->quiet;
    struct run r = {.a = a, .err = &err, .most = a->predict < 0 ? SIZE_MAX : (size_t)a->predict};
    r.stop = cli_catch_signals();
    r.terminal = isatty(1);
    stream_init(&r.stream, r.terminal);
    bool ok = open_all(&r, a, &bias);
    if (ok) {
        double begin = machine_clock();
        ok = prefill(&r);
        r.prefill = machine_clock() - begin;
        ok = ok && generate(&r, begin);
        if (!r.ended)
            r.ended = err.code == QUERN_EINTERRUPT ? &ENDED_INTERRUPT : &ENDED_ERROR;
        r.err = ok ? &err : &later;            /* the first error is the one to report */
        bool shown = finish_text(&r) && (!a->json || show_object(&r));
        ok = ok && shown;
        if (!a->quiet && (ok || r.made))
            show_timings(&r);
    }
    int code = ok ? 0 : cli_fail(&err);
    quern_close_session(r.session);
    quern_close_sampler(r.sampler);
    quern_close_model(r.model);
    stops_free(&r.stops);
    text_free(&r.shown);
    text_free(&r.all);
    free(bias);
    free(r.tokens);
    free(r.prompt);
    return code;
}

int cmd_run(int argc, char **argv)
{
    struct run_args a;
    int code;
    if (!cli_begin(&quern_program, &verb_run, argc, argv, &a, &code))
        return code;
    return cli_end(&verb_run, &a, run(&a));
}
