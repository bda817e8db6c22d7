/* cpu_words.h - the words that cpu_cap (cpu.h) knows, on one machine or another: for help, messages and completions. */
#ifndef QUERN_CPU_WORDS_H
#define QUERN_CPU_WORDS_H

#define CPU_WORDS   "ref, avx2, avx_vnni, avx512, avx512_bf16, amx, neon, dotprod, i8mm"
#define CPU_CHOICES "ref|avx2|avx_vnni|avx512|avx512_bf16|amx|neon|dotprod|i8mm"

#endif
