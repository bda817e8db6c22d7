/* grid_codes.h - the codebooks of grids.h in the forms in which vectors look them up.
 *
 * IQ1's is loaded by index: entries of eight values in eighths, plus 16 and the delta, as if that were always plus one.
 * It is also there as names of half entries: a name is the number, 0 to 80, whose four digits of base three are the values plus
 * one, the first column's the lowest. The book is sorted by its last columns, so that among entries 16 c to 16 c + 15 no more than
 * two different second halves occur, with names that follow each other: lasts_iq1[0][c] and that plus one. firsts_iq1[j][c]
 * names the first half of entry 16 c + j, and its bit 7 says that the second half is the later one. values_iq1[f] has the f-th
 * value plus one of a name, in eighths.
 *
 * The others are small enough for tables in registers.
 *
 * A value is named by its place among the values that occur: 8, 25, 43 in IQ2 (two bits); 4, 12, 20, 28, 36, 44, 52, 62 in IQ3_XXS
 * and 1, 3, .. 15 in IQ3_S (three bits). A byte of code holds
 *   IQ2   four columns: places of the first at bits 2-3, of the second at 4-5, of the third at 0-1, of the fourth at 6-7.
 *         [0]: an entry's columns 0 to 3; [1]: 4 to 7
 *   IQ3   two columns, the earlier one's place at bits 3-5, the later one's at 0-2. [0]: an entry's columns 0 and 2; [1]: 1 and 3
 *
 * Values with sign, plus 128, by six bits: a byte of code in which one bit that belongs to the other columns has been replaced by
 * the column's sign. The sign of the f-th of four columns goes to bit 1 + f, for which the tables values_*[f] are made; IQ2's
 * fourth is looked up like the second, after a shift by two. */
#ifndef QUERN_GRID_CODES_H
#define QUERN_GRID_CODES_H

#include <stdint.h>

extern const uint8_t codes_iq2_xxs[2][256], codes_iq2_xs[2][512], codes_iq2_s[2][1024], codes_iq3_xxs[2][256], codes_iq3_s[2][512];
extern const uint64_t eighths_iq1[2048];
extern const uint8_t firsts_iq1[16][128], lasts_iq1[1][128], values_iq1[4][128];
extern const uint8_t values_iq2[3][64], values_iq3_xxs[4][64], values_iq3_s[4][64];

#endif
