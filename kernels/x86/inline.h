/* inline.h - what becomes part of its caller always, so that its parameters are constants there. */
#ifndef QUERN_INLINE_H
#define QUERN_INLINE_H

#define ALWAYS_INLINE inline __attribute__((always_inline))

/* Before a loop that must be written out whole, so that the arrays its counter chooses from are registers. Its bound may be a
 * parameter of an ALWAYS_INLINE function. Clang 14 gives a function with a number for GCC's pragma so many turns of the loop before
 * it becomes part of a caller, and what is left over never goes: arrays stay in memory, at a half to a quarter of the speed (19
 * does not; bench/results/2026-11-22-compilers.md). Told to write out all, it waits until it knows the bound. */
#ifdef __clang__
#define UNROLL_ALL _Pragma("clang loop unroll(full)")
#else
#define UNROLL_ALL _Pragma("GCC unroll 64")
#endif

#endif
