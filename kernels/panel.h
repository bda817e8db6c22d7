/* panel.h - how weight formats and matrix products meet: the shape of a format's runs, and the panels made of them.
 *
 * All products work on runs of 256 columns. A format brings one function per instruction set that decodes a row's run to unsigned
 * bytes (value + offset) and the scales they share; everything else is shared:
 *
 *   one to four tokens   the run stays in registers and is multiplied at once; four of some formats as the next (few)
 *   five to sixteen      on AVX-512 rows stay bytes, lanes are tokens of arranged activations; some formats up to 48 so; on CPUs
 *                        that shuffle faster (job->wide) some formats up to 64 by panels made between the dots of others (woven),
 *                        Q6_K and formats with codebooks two rows at a time, lanes are their sub-blocks (subs)
 *   more                 16 rows' runs are turned into a panel (below), in which a vector's lanes are rows; the panel stays in the
 *                        first-level cache while all tokens of the batch pass by
 *
 * A row whose columns are no multiple of 256 ends in a run padded with zero bytes, which decode to nothing.
 *
 * Two kinds, whose sums are defined so that every path and every batch size gives the same bits:
 *
 *   super   sub-scales are integers below one float. With total = sum over s of scale[s] * idot[s], low = sum over s of min[s] *
 *           sum of x over s, both exact in int32, a run adds
 *               acc = fma(d * dx, (float)total, acc), then acc = fma(-(dmin * dx), (float)low, acc)
 *   small   a float scale per sub-block: in order of s,
 *               acc = fma(scale[s] * dx[s], (float)idot[s], acc), then with minimums
 *               acc = fma(-min[s], dx[s] * (float)sum of x over s, acc)
 *
 * idot[s] is the integer dot of the values (offset taken off) and the int8 activations. Super formats take ACT_Q8_256, small ones
 * ACT_Q8_32. */
#ifndef QUERN_PANEL_H
#define QUERN_PANEL_H

#include <stdbool.h>
#include <stdint.h>

enum { PANEL_ROWS = 16, PANEL_COLS = 256 };

enum panel_kind { PANEL_SUPER, PANEL_SMALL };

/* In which order an unpacker delivers a run's sixteen units of 16 columns, four to a group of 64: as they come, or as packed
 * nibbles fall out, the low ones of 64 bytes and then the high ones.
 *   halves     0 1 4 5, 2 3 6 7, ...    nibbles of 32 bytes stand 32 columns apart (the k-quants)
 *   quarters   0 2 4 6, 1 3 5 7, ...    nibbles of 16 bytes stand 16 columns apart (the blocks of 32)
 *   planes     0 1 8 9, 2 3 10 11, ...  pairs of bits of 64 bytes: twice 32 bytes whose pairs stand 32 columns apart */
enum panel_order { ORDER_PLAIN, ORDER_HALVES, ORDER_QUARTERS, ORDER_PLANES };

/* What the shared parts must know of a format. Compile-time constants: they choose code. */
struct panel_shape {
    enum panel_kind kind;
    unsigned        sub;        /* columns per scale and minimum: 16 or 32                             */
    unsigned        offset;     /* added to the values: a power of two, 0 where they are unsigned; scaled: any */
    bool            mins;
    enum panel_order order;
    bool            narrow;     /* the dot of four values and activations fits int16: values up to 63, or eight up to 15 */
    bool            nibbles;    /* values are nibbles as they stand in the file, no more to be done    */
    unsigned        planes;     /* super, sub 16: bits of values whose lower two stand four to a byte; 0: otherwise. AVX-512 */
    bool            scaled;     /* super: the bytes of panels and where lanes are tokens are value times scale, plus the
                                 * offset, so that a run has one dot; `sub` counts for the minimums alone. AVX-512, AMX */
    unsigned        few;        /* AVX-512: tokens from which lanes are tokens, 0: five; with VBMI IQ2 and IQ3 decide themselves */
    bool            insist;     /* AVX-512, while the run stays in registers: lines are asked for twice */
    float           factor;     /* super: of d and dmin                                                */
    unsigned        top;        /* the largest value with its offset, at most 255; used on AVX2        */
    unsigned        bytes;      /* of a run in the file                                                */
    bool            exponents;  /* small: scales are E8M0, not F16; on AVX-512 panels hold their exponents */
    bool            vnni;       /* AVX2 with AVX-VNNI                                                  */
};

/* 16 rows by 256 columns. q[c][r]: columns 4c to 4c + 3 of row r, one lane of a byte dot product. */
struct panel {
    uint8_t q[PANEL_COLS / 4][PANEL_ROWS][4];
    union { int32_t i[16][PANEL_ROWS]; float f[16][PANEL_ROWS]; } scale;         /* [sub-block][row]; AVX-512: or powers of two */
    union { int16_t i[8][PANEL_ROWS][2]; float f[8][PANEL_ROWS]; } min;          /* super: pairs of sub-blocks, [0, 63] */
    float   d[PANEL_ROWS], dmin[PANEL_ROWS];                                     /* super                               */
};

#endif
