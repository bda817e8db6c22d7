/* quern: its verbs, and --cpu. */
#include <stdlib.h>
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
    char text[16384], shown[64];
    const char *word = getenv("QUERN_CPU");
    cpu_detect(&cpu);
    if (word && *word && !cpu_cap(&cpu, word)) {
        fprintf(stderr, "quern: QUERN_CPU: '%s' is unknown or above this machine's '%s' (" CPU_WORDS ")\n",
                text_escape(shown, sizeof shown, word, strlen(word)), cpu_level_name(cpu.level));
        return QUERN_EUSAGE;
    }
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
