#include "cpu_words.h"

#include <stdlib.h>
#include <string.h>

/* Whether the word is one of CPU_WORDS, on whatever machine. */
static bool known(const char *word)
{
    size_t n = strlen(word);
    for (const char *at = CPU_WORDS; at; at = strchr(at, ','), at = at ? at + 2 : NULL)
        if (n == strcspn(at, ",") && !memcmp(at, word, n))
            return true;
    return false;
}

bool cpu_choose(struct cpu *cpu, const char *word, struct quern_error *err)
{
    char shown[64];
    const char *where = word ? "" : "QUERN_CPU: ";
    cpu_detect(cpu);
    if (!word)
        word = getenv("QUERN_CPU");
    if (!word || !*word || cpu_cap(cpu, word))
        return true;
    if (known(word))
        return ERR(err, QUERN_EUNSUPPORTED, "%sthis machine does not have the instruction set '%s', its best is '%s'", where, word,
                   cpu_level_name(cpu->level));
    return ERR(err, QUERN_EUSAGE, "%sinstruction set '%s' is unknown (" CPU_WORDS ")", where,
               text_escape(shown, sizeof shown, word, strlen(word)));
}
