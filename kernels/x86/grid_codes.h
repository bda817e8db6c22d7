/* grid_codes.h - the codebooks of grids.h small enough for tables in registers.
 *
 * A value is named by its place among the values that occur: 8, 25, 43 in IQ2 (two bits); 4, 12, 20, 28, 36, 44, 52, 62 in IQ3_XXS
 * and 1, 3, .. 15 in IQ3_S (four bits). An entry's eight or four places, the first lowest, fit 16 bits: [0] holds the lower bytes
 * of all entries, [1] the upper ones. */
#ifndef QUERN_GRID_CODES_H
#define QUERN_GRID_CODES_H

#include <stdint.h>

extern const uint8_t codes_iq2_xxs[2][256], codes_iq2_xs[2][512], codes_iq2_s[2][1024], codes_iq3_xxs[2][256], codes_iq3_s[2][512];

#endif
