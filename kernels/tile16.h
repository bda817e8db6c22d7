/* tile16.h - how a cache of type KV_I16 lies in memory.
 *
 * ATTN_TILE keys (or values) of one head are one tile of ATTN_TILE * kv_row_bytes(KV_I16, head_dim) bytes, 64-byte aligned where
 * the first one is, in the order in which a multiplier of pairs of 16-bit integers wants them:
 *
 *   keys    int16_t q[4][head_dim / 2][16][2]    16 keys beside each other, two columns of each
 *           float   scale[64]
 *   values  int16_t q[32][head_dim][2]           two tokens of each column
 *           float   scale[64]
 *
 * Value c of row t is q * scale[t], q in [-8191, 8191]: 32 products of two such numbers fit an int32, and so do 64 with one of at
 * most 4095. scale = max|x| / 8191 over the row and q = x * (8191 / max|x|), both in float, rounded to nearest even; a row with a
 * NaN or Inf gets scale NaN and q = 0, one whose max|x| is below 2^-100 gets scale 0 and q = 0. On two small models such rows and
 * queries moved the distributions by a third to an eighth of what F16 rows do (bench/results/2026-11-21-depth.md). */
#ifndef QUERN_TILE16_H
#define QUERN_TILE16_H

#include "kernels.h"

/* Largest |q| of rows and queries, and of the weights of a mix; columns whose products are added as integers. */
enum { ROW_MOST = 8191, PROB_MOST = 4095, RUN = 32 };

static inline float *tile16_scales(void *tile, size_t head_dim)
{
    return (float *)(void *)((char *)tile + 2 * ATTN_TILE * head_dim);
}

static inline const float *tile16_const_scales(const void *tile, size_t head_dim)
{
    return (const float *)(const void *)((const char *)tile + 2 * ATTN_TILE * head_dim);
}

/* Place of column c of key t among the int16 of a tile of keys; of token t among those of a tile of values. */
static inline size_t tile16_key(size_t head_dim, size_t t, size_t c)
{
    return ((t / 16 * (head_dim / 2) + c / 2) * 16 + t % 16) * 2 + c % 2;
}

static inline size_t tile16_value(size_t head_dim, size_t t, size_t c)
{
    return (t / 2 * head_dim + c) * 2 + t % 2;
}

#endif
