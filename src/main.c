/* quern: find the verb, call it. */
#include <stdlib.h>
#include <string.h>

#include "cmd.h"
#include "cpu_words.h"
#include "kernels.h"

/* One row per verb, in the order in which --help shows them. */
static const struct verb *const verbs[] = {
    &verb_run, &verb_eval, &verb_bench, &verb_logits,
    &verb_show,
    &verb_verify,
    &verb_tokenize,
    &verb_detokenize,
    NULL
};

const struct program quern_program = {
    .name = "quern",
    .summary = "run language models from GGUF files on the processor that you have",
    .verbs = verbs,
    .count = sizeof verbs / sizeof *verbs - 1,
};

static const struct verb *find_verb(const char *name)
{
    for (size_t i = 0; i < quern_program.count; i++)
        if (strcmp(verbs[i]->name, name) == 0)
            return verbs[i];
    return NULL;
}

/* A word that is neither: said as what it looks like, with what it may have meant. It is shown as a terminal may show it: it can be
 * anything. */
static int unknown_word(const char *word)
{
    static const char *const options[] = { "--help", "--version", "--cpu", "--generate" };
    const char *names[sizeof verbs / sizeof *verbs] = {NULL};
    bool option = word[0] == '-';
    char shown[120];
    for (size_t i = 0; i < quern_program.count; i++)
        names[i] = verbs[i]->name;
    const char *kind = option ? "option" : "verb";
    const char *meant = option ? options_nearest(word, options, sizeof options / sizeof *options)
                               : options_nearest(word, names, quern_program.count);
    text_escape(shown, sizeof shown, word, strlen(word));
    if (meant)
        fprintf(stderr, "quern: unknown %s '%s': did you mean '%s'?\n", kind, shown, meant);
    else
        fprintf(stderr, "quern: unknown %s '%s'; 'quern --help' lists them%s\n", kind, shown,
                option ? "; those of a verb stand behind it: quern run -m FILE" : "");
    return QUERN_EUSAGE;
}

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
    cli_start("quern");
    if (argc < 2) {
        options_overview(stderr, &quern_program);
        return QUERN_EUSAGE;
    }
    /* Words before any verb are few; everything else is a verb's own business, --help of a verb too. */
    const char *word = argv[1];
    bool help = strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0;
    bool version = strcmp(word, "--version") == 0, cpu = strcmp(word, "--cpu") == 0, generate = strcmp(word, "--generate") == 0;
    int most = version || cpu ? 2 : help || generate ? 3 : argc;
    if (argc > most)
        return cli_surplus(argv[most]);
    if (help && argc > 2) {
        const struct verb *verb = find_verb(argv[2]);
        if (!verb)
            return unknown_word(argv[2]);
        options_help(stdout, &quern_program, verb);
    } else if (help) {
        options_overview(stdout, &quern_program);
    } else if (version) {
        printf("quern %s\n", QUERN_VERSION);
    } else if (cpu) {
        return show_cpu();
    } else if (generate) {
        return cli_generate(&quern_program, argv[2]);
    } else {
        const struct verb *verb = find_verb(word);
        return verb ? verb->main(argc - 1, argv + 1) : unknown_word(word);
    }
    return cli_finish(0);
}
