/* quern-quantize imprint: a model and a text to a file of statistics. */
#include <stdio.h>

#include "imprint.h"
#include "imprint_verb.h"
#include "source.h"

struct imprint_args {
    struct args args;
    const char *output;
    bool        fisher, force;
    size_t      tokens, context, threads, mem_limit;
};

#define AT(field) offsetof(struct imprint_args, field)
static const struct option imprint_options[] = {
    { "output", 'o', OPTION_FILE, AT(output), "FILE", NULL, "where the statistics go", NULL, NULL, NULL },
    { "fisher", 0, OPTION_SWITCH, AT(fisher), NULL, NULL,
      "a backward pass too: squared gradients of the outputs, and moments weighed by them", NULL, NULL, NULL },
    { "tokens", 0, OPTION_COUNT, AT(tokens), "N", NULL, "tokens of the text, at most (default: by the model's size)", NULL, NULL,
      NULL },
    { "context", 0, OPTION_COUNT, AT(context), "N", NULL, "tokens per sequence (default: 512, or what the model takes)", NULL, NULL,
      NULL },
    { "force", 'f', OPTION_SWITCH, AT(force), NULL, NULL, "replace an existing output", NULL, NULL, NULL },
    { "threads", 0, OPTION_COUNT, AT(threads), "N", NULL, "threads (default: the physical cores)", NULL, NULL, NULL },
    { "mem-limit", 0, OPTION_BYTES, AT(mem_limit), "SIZE", NULL, "most memory for buffers; less of it takes more passes", NULL,
      NULL, NULL },
    { .name = NULL }
};

static bool imprint(const struct imprint_args *a, const volatile int *stop, struct quern_error *err)
{
    struct progress progress = { 0 };
    struct imprint_options options = { .calibration = a->args.operand_count > 1 ? a->args.operands[1] : NULL, .context = a->context,
                                       .tokens = a->tokens, .fisher = a->fisher, .mem_limit = a->mem_limit, .force = a->force,
                                       .stop = stop, .show = progress_step, .show_arg = &progress };
    if (!a->output)
        return ERR(err, QUERN_EUSAGE, "where to? -o FILE");
    if (a->threads && !pool_allows(a->threads, err))
        return false;
    struct source source;
    if (!source_open(&source, a->args.operands[0], a->output, stop, err))
        return false;
    struct quern_model *model = source_model(source.path, a->threads, err);
    struct pool *pool = model ? pool_open(a->threads ? a->threads : pool_default_threads(NULL, 0), err) : NULL;
    options.pool = pool;
    bool ok = pool && imprint_write(model, a->output, &options, err);
    if (progress.what)
        progress_end(&progress);
    pool_close(pool);
    quern_close_model(model);
    source_close(&source);
    return ok;
}

static const struct verb *const verbs[] = { &verb_imprint };
static const struct program quantize_program = { .name = "quern-quantize", .verbs = verbs, .count = 1 };

static int run_imprint(int argc, char **argv)
{
    struct imprint_args args;
    struct quern_error err;
    int code;
    if (!cli_begin(&quantize_program, &verb_imprint, argc, argv, &args, &code))
        return code;
    code = imprint(&args, cli_catch_signals(), &err) ? 0 : cli_fail(&err);
    return cli_end(&verb_imprint, &args, code);
}

static const struct example imprint_examples[] = {
    {"quern-quantize imprint model.gguf text.txt -o model.stats", "what a text does inside the model, gathered once"},
    {"quern-quantize model.gguf fed.gguf --bpw 6 --stats model.stats --calibration text.txt --heldout other.txt",
     "a file rounded by those statistics"},
    {NULL, NULL}
};

const struct verb verb_imprint = {
    .name = "imprint",
    .summary = "gather what a text does inside a model: statistics to round it by",
    .operands = "MODEL [TEXT]",
    .operands_min = 1, .operands_max = 2,
    .details =
        "TEXT is a file; without it quern's own calibration text is taken. For the inputs of every weight matrix the statistics "
        "hold their second moments and how many tokens there were, of four fifths of the text and of a fifth that is held out; "
        "with --fisher also the squared gradients of the outputs, with labels drawn from the model itself. A run that was "
        "interrupted or killed is taken up again by the same command, and the file becomes the same. models/FORMAT.md "
        "describes it.",
    .examples = imprint_examples,
    .options = imprint_options,
    .size = sizeof(struct imprint_args),
    .main = run_imprint,
};
