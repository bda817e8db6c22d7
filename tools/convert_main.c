/* quern-convert: a published checkpoint, or another GGUF, to a GGUF. */
#include <stddef.h>

#include "cli.h"
#include "convert.h"
#include "formats.h"

struct convert_args {
    struct args args;
    int         type;                /* index of TYPES */
    bool        force;
    const char *name, *pre, *vocab_from;
};

#define TYPES "auto|f32|f16|bf16|q8_0"
static const uint32_t type_ids[] = { FORMAT_COUNT, FORMAT_F32, FORMAT_F16, FORMAT_BF16, FORMAT_Q8_0 };

static const struct option options[] = {
    { .name = "type", .kind = OPTION_CHOICE, .offset = offsetof(struct convert_args, type), .arg = "TYPE", .fallback = "auto",
      .choices = TYPES, .help = "type of the matrices; auto: what the input has" },
    { .name = "force", .kind = OPTION_SWITCH, .offset = offsetof(struct convert_args, force),
      .help = "replace OUTPUT if it exists" },
    { .name = "name", .kind = OPTION_TEXT, .offset = offsetof(struct convert_args, name), .arg = "NAME",
      .help = "general.name to write; without it the folder's name" },
    { .name = "tokenizer-pre", .kind = OPTION_TEXT, .offset = offsetof(struct convert_args, pre), .arg = "NAME",
      .help = "tokenizer.ggml.pre to write, where tokenizer.json's is not recognised" },
    { .name = "vocab-from", .kind = OPTION_FILE, .offset = offsetof(struct convert_args, vocab_from), .arg = "FILE",
      .help = "take the tokenizer from this GGUF" },
    { .name = NULL },
};

static int convert(int argc, char **argv);

static const struct example convert_examples[] = {
    {"quern-convert checkpoint converted.gguf", "a folder as it is published, in its own precision"},
    {"quern-convert model.gguf half.gguf --type f16", "a GGUF in another type"},
    {NULL, NULL}
};

static const struct verb verb = {
    .name = "quern-convert",
    .summary = "convert a checkpoint's folder, or another GGUF, to a GGUF",
    .operands = "INPUT OUTPUT",
    .operands_min = 2,
    .operands_max = 2,
    .details = "INPUT is a folder with config.json, safetensors and a tokenizer (families: llama, mistral, mixtral, qwen2, qwen3, "
               "gemma, gemma2, gemma3, phi3), or a GGUF of any architecture (all parts of a split one).\n\n"
               "Matrices get the asked type; norms, biases and routers stay F32. A matrix whose rows do not divide into blocks of "
               "the type stays what it is, and is named. OUTPUT appears only when it is complete.",
    .examples = convert_examples,
    .options = options,
    .size = sizeof(struct convert_args),
    .main = convert,
};
static const struct verb *const verbs[] = { &verb };
static const struct program program = { .name = "quern-convert", .summary = "convert checkpoints to GGUF", .verbs = verbs,
                                        .count = 1, .single = true };

static int convert(int argc, char **argv)
{
    struct convert_args args;
    struct quern_error err;
    int code = 0;
    if (!cli_begin(&program, &verb, argc, argv, &args, &code))
        return code;
    struct convert_options how = { .type = type_ids[args.type], .force = args.force, .name = args.name, .pre = args.pre,
                                   .vocab_from = args.vocab_from, .stop = cli_catch_signals() };
    bool ok = convert_model(args.args.operands[0], args.args.operands[1], &how, &err);
    return cli_end(&verb, &args, ok ? 0 : cli_fail(&err));
}

int main(int argc, char **argv)
{
    return cli_main(&program, argc, argv);
}
