/* tokenize, detokenize: text to ids and back, as the model's file says. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd.h"
#include "stream.h"
#include "text.h"
#include "tokenizer.h"

struct tokenize_args {
    struct args args;
    const char *separator, *pre;
    bool no_add_special, special;
};

#define AT(field) offsetof(struct tokenize_args, field)

static const struct option tokenize_options[] = {
    { "separator", 0, OPTION_TEXT, AT(separator), "TEXT", NULL, "the input is several strings, with TEXT after each", NULL, NULL,
      NULL },
    { "no-add-special", 0, OPTION_SWITCH, AT(no_add_special), NULL, NULL, "no BOS, EOS, CLS or SEP around a string", NULL, NULL,
      NULL },
    { "special", 0, OPTION_SWITCH, AT(special), NULL, NULL, "texts of special tokens become those tokens", NULL, NULL, NULL },
    { "tokenizer-pre", 0, OPTION_TEXT, AT(pre), "NAME", NULL, "use this pre-tokenizer, not the one that the file names", NULL,
      NULL, NULL },
    { NULL, 0, OPTION_SWITCH, 0, NULL, NULL, NULL, NULL, NULL, NULL }
};

static const struct example tokenize_examples[] = {
    {"quern tokenize model.gguf <text.txt >ids.txt", "the ids of a text, with those that the model wants around it"},
    {NULL, NULL}
};

const struct verb verb_tokenize = {
    .name = "tokenize", .summary = "text on standard input to token ids", .operands = "MODEL",
    .operands_min = 1, .operands_max = 1,
    .details = "Reads standard input as one string, or as several with --separator (what stands after the last one is a string, "
               "too, unless it is empty). Writes one line for each: its ids with a blank between them.",
    .examples = tokenize_examples,
    .options = tokenize_options, .size = sizeof(struct tokenize_args), .main = cmd_tokenize,
};

static const struct option detokenize_options[] = {
    { "separator", 0, OPTION_TEXT, AT(separator), "TEXT", NULL, "each line of ids is a string; write TEXT after each", NULL, NULL,
      NULL },
    { "special", 0, OPTION_SWITCH, AT(special), NULL, NULL, "write the texts of special tokens instead of nothing", NULL, NULL,
      NULL },
    { "tokenizer-pre", 0, OPTION_TEXT, AT(pre), "NAME", NULL, "use this pre-tokenizer, not the one that the file names", NULL,
      NULL, NULL },
    { NULL, 0, OPTION_SWITCH, 0, NULL, NULL, NULL, NULL, NULL, NULL }
};

static const struct example detokenize_examples[] = {
    {"quern detokenize model.gguf <ids.txt", "the text that those ids stand for"},
    {NULL, NULL}
};

const struct verb verb_detokenize = {
    .name = "detokenize", .summary = "token ids on standard input to text", .operands = "MODEL",
    .operands_min = 1, .operands_max = 1,
    .details = "Reads ids with white space between them and writes their text; on a terminal control characters are shown as "
               "\\xNN.",
    .examples = detokenize_examples,
    .options = detokenize_options, .size = sizeof(struct tokenize_args), .main = cmd_detokenize,
};

/* ---- input and output ---- */

/* All of standard input: a token may span any place at which one could cut. */
static bool read_input(struct text *in, struct quern_error *err)
{
    char part[16384];
    ssize_t n;
    while ((n = read(STDIN_FILENO, part, sizeof part)) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return ERR_ERRNO(err, "cannot read standard input");
        text_add(in, part, (size_t)n);
        if (in->failed)
            return ERR(err, QUERN_EMEM, "not enough memory for the input (%zu bytes so far)", in->n);
    }
    return true;
}

static bool print_ids(const struct tokenizer *t, const char *text, size_t n, unsigned flags, struct quern_error *err)
{
    int32_t *ids;
    size_t count;
    if (!tokenizer_encode(t, text, n, flags, &ids, &count, err))
        return false;
    for (size_t i = 0; i < count; i++)
        printf(i ? " %d" : "%d", ids[i]);
    printf("\n");
    free(ids);
    return true;
}

/* Calls one() for each string of the input, separator after separator; without one, for the whole. */
static bool tokenize_all(const struct tokenizer *t, const struct tokenize_args *args, const struct text *in,
                         struct quern_error *err)
{
    unsigned flags = (args->no_add_special ? 0 : TOKENIZE_ADD_SPECIAL) | (args->special ? TOKENIZE_PARSE_SPECIAL : 0);
    const char *at = in->n ? in->data : "", *end = at + in->n;
    size_t n = args->separator ? strlen(args->separator) : 0;
    for (const char *next; n > 0 && (next = memmem(at, (size_t)(end - at), args->separator, n)); at = next + n)
        if (!print_ids(t, at, (size_t)(next - at), flags, err))
            return false;
    return (n > 0 && at == end) || print_ids(t, at, (size_t)(end - at), flags, err);
}

/* The next id of a line, which ends at `end`; false without an error at the end of it. */
static bool next_id(const char **at, const char *end, size_t line, int32_t *id, struct quern_error *err)
{
    const char *p = *at, *start;
    err->code = QUERN_OK;
    while (p < end && (*p == ' ' || (*p >= '\t' && *p <= '\r')))
        p++;
    long long value = 0;
    for (start = p; p < end && *p >= '0' && *p <= '9' && value <= INT32_MAX; p++)
        value = value * 10 + (*p - '0');
    *at = p;
    if (start == end)
        return false;
    bool closed = p == end || *p == ' ' || (*p >= '\t' && *p <= '\r');
    if (p == start || !closed || value > INT32_MAX) {
        char shown[40];
        while (p < end && *p != ' ' && *p != '\n')
            p++;
        return ERR(err, QUERN_EUSAGE, "line %zu: '%s' is not a token id", line,
                   text_escape(shown, sizeof shown, start, (size_t)(p - start)));
    }
    *id = (int32_t)value;
    return true;
}

/* What is written goes through a stream, so that a terminal sees no control characters. */
static bool print_text(const struct tokenizer *t, const struct tokenize_args *args, const int32_t *ids, size_t count,
                       struct quern_error *err)
{
    struct stream stream;
    struct text out = { 0 };
    char *text;
    size_t bytes;
    if (!tokenizer_decode(t, ids, count, args->special, &text, &bytes, err))
        return false;
    stream_init(&stream, cli_terminal(STDOUT_FILENO));
    stream_add(&stream, text, bytes, &out);
    stream_flush(&stream, &out);
    free(text);
    bool ok = !out.failed || ERR(err, QUERN_EMEM, "not enough memory for a text of %zu bytes", bytes);
    if (ok && out.n)
        fwrite(out.data, 1, out.n, stdout);
    if (ok && args->separator)
        fputs(args->separator, stdout);
    text_free(&out);
    return ok;
}

static bool detokenize_part(const struct tokenizer *t, const struct tokenize_args *args, const char *at, const char *end,
                            size_t line, struct quern_error *err)
{
    /* An id takes at least a digit and what parts it from the next. */
    int32_t *ids = mem_take((size_t)(end - at) / 2 + 1, sizeof *ids, "the ids", err);
    size_t count = 0;
    if (!ids)
        return false;
    while (next_id(&at, end, line, &ids[count], err))
        count++;
    bool ok = err->code == QUERN_OK && print_text(t, args, ids, count, err);
    free(ids);
    return ok;
}

static bool detokenize_all(const struct tokenizer *t, const struct tokenize_args *args, const struct text *in,
                           struct quern_error *err)
{
    const char *at = in->n ? in->data : "", *end = at + in->n;
    if (!args->separator)
        return detokenize_part(t, args, at, end, 1, err);
    for (size_t line = 1; at < end; line++) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        const char *stop = newline ? newline : end;
        if (!detokenize_part(t, args, at, stop, line, err))
            return false;
        at = newline ? newline + 1 : end;
    }
    return true;
}

/* ---- the verbs ---- */

typedef bool convert_all(const struct tokenizer *t, const struct tokenize_args *args, const struct text *in,
                         struct quern_error *err);

static int convert(const struct verb *verb, int argc, char **argv, convert_all *all)
{
    struct tokenize_args args;
    struct quern_error err;
    struct gguf g;
    int code;
    if (!cli_begin(&quern_program, verb, argc, argv, &args, &code))
        return code;
    struct tokenizer_options options = { .pre = args.pre };
    struct gguf_options reading = { .header_only = true, .allow_aliased = true };
    const char *path = args.args.operands[0];
    if (args.separator && !*args.separator) {
        ERR(&err, QUERN_EUSAGE, "--separator is empty");
        code = cli_fail(&err);
    } else if (!gguf_open(&g, path, &reading, &err)) {
        code = cli_fail(&err);
    } else {
        struct text in = { 0 };
        struct tokenizer *t = tokenizer_open(&g, &options, &err);
        if (!t)
            error_prefix(&err, path);
        bool ok = t && read_input(&in, &err) && all(t, &args, &in, &err);
        code = ok ? 0 : cli_fail(&err);
        text_free(&in);
        tokenizer_close(t);
        gguf_close(&g);
    }
    return cli_end(verb, &args, code);
}

int cmd_tokenize(int argc, char **argv)
{
    return convert(&verb_tokenize, argc, argv, tokenize_all);
}

int cmd_detokenize(int argc, char **argv)
{
    return convert(&verb_detokenize, argc, argv, detokenize_all);
}
