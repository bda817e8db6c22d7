/* cpu_words.h - which instruction set the kernels may use, as the user says it: the words of cpu_cap (cpu.h), on one machine or
 * another, for help, messages and completions; and the choice by them. */
#ifndef QUERN_CPU_WORDS_H
#define QUERN_CPU_WORDS_H

#include "cpu.h"
#include "error.h"

#define CPU_WORDS   "ref, avx2, avx_vnni, avx512, avx512_bf16, amx, neon, dotprod, i8mm"
#define CPU_CHOICES "ref|avx2|avx_vnni|avx512|avx512_bf16|amx|neon|dotprod|i8mm"

/* This machine, capped by `word`, or where that is NULL by the environment's QUERN_CPU; an empty word caps nothing. QUERN_EUSAGE
 * for one that is unknown, QUERN_EUNSUPPORTED for one that this machine lacks. */
bool cpu_choose(struct cpu *cpu, const char *word, struct quern_error *err);

#endif
