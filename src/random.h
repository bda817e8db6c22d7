/* random.h - a generator whose whole state is one number: splitmix64 (Steele, Lea and Flood 2014).
 *
 * The same on every machine, so what is drawn from a seed can be drawn again. Any state is a good one, 0 too; neighbouring seeds
 * give streams that have nothing in common. Not for secrets. */
#ifndef QUERN_RANDOM_H
#define QUERN_RANDOM_H

#include <stdint.h>

/* 64 random bits; the state moves on. */
static inline uint64_t random_bits(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* One of the 2^53 multiples of 2^-53 in [0, 1). */
static inline double random_unit(uint64_t *state)
{
    return (double)(random_bits(state) >> 11) * 0x1p-53;
}

#endif
