#include "cpu_words.h"

#include <stdlib.h>
#include <string.h>

bool cpu_choose(struct cpu *cpu, const char *word, struct quern_error *err)
{
    char shown[64];
    const char *where = word ? "" : "QUERN_CPU: ";
    cpu_detect(cpu);
    if (!word)
        word = getenv("QUERN_CPU");
    if (!word || !*word || cpu_cap(cpu, word))
        return true;
    return ERR(err, QUERN_EUSAGE, "%sinstruction set '%s' is unknown or above this machine's '%s' (" CPU_WORDS ")", where,
               text_escape(shown, sizeof shown, word, strlen(word)), cpu_level_name(cpu->level));
}
