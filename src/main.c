/* quern: its verbs, and --cpu. */
#include <string.h>

#include "cmd.h"
#include "cpu_words.h"
#include "kernels.h"

/* One row per verb, in the order in which --help shows them. */
static const struct verb *const verbs[] = {
    &verb_run, &verb_eval, &verb_bench, &verb_logits,
    &verb_show, &verb_verify,
    &verb_tokenize, &verb_detokenize,
};

const struct program quern_program = {
    .name = "quern",
    .summary = "run language models from GGUF files on the processor that you have",
    .verbs = verbs,
    .count = sizeof verbs / sizeof *verbs,
};

/* What the machine offers, and who serves each operation. */
static int show_cpu(void)
{
    struct cpu cpu;
    struct kernels table;
    struct quern_error err;
    char text[16384];
    if (!cpu_choose(&cpu, NULL, &err))
        return cli_fail(&err);
    kernels_init(&table, &cpu);
    kernels_describe(text, sizeof text, &table);
    fputs(text, stdout);
    return cli_finish(0);
}

int main(int argc, char **argv)
{
    if (argc < 2 || strcmp(argv[1], "--cpu") != 0)
        return cli_main(&quern_program, argc, argv);
    cli_start(quern_program.name);
    return argc > 2 ? cli_surplus(argv[2]) : show_cpu();
}
