/* dots_avxvnni.h - the dot products of AVX-VNNI: vpdpbusd and vpdpwssd in their VEX form, on vectors of 256 bits.
 *
 * They are written as assembly for two reasons. Functions that AVX2 and AVX-VNNI share are compiled into both levels' files, where
 * a constant of the format's shape chooses between the dots; an intrinsic would refuse to be there. And the check build
 * (-DAVXVNNI_EVEX), which proves results on CPUs that have AVX-512 VNNI but not this form, then differs by the encoding of these
 * two instructions and by nothing else: the compiler may still use 16 registers and AVX2 only. */
#ifndef QUERN_DOTS_AVXVNNI_H
#define QUERN_DOTS_AVXVNNI_H

#include <immintrin.h>

#include "inline.h"

#ifdef AVXVNNI_EVEX
#define VNNI_FORM "%{evex%} "
#else
#define VNNI_FORM "%{vex%} "
#endif

/* Each lane of *sum += its four unsigned bytes of u times those of s, signed; nothing saturates. */
static ALWAYS_INLINE void add_dots_of_4(__m256i *sum, __m256i u, __m256i s)
{
    __asm__(VNNI_FORM "vpdpbusd %2, %1, %0" : "+x"(*sum) : "x"(u), "x"(s));
}

/* Each lane of *sum += its two int16 of a times those of b. */
static ALWAYS_INLINE void add_dots_of_2(__m256i *sum, __m256i a, __m256i b)
{
    __asm__(VNNI_FORM "vpdpwssd %2, %1, %0" : "+x"(*sum) : "x"(a), "x"(b));
}

#endif
