/* grids.h - codebooks of the "i-quant" formats, constants of the file format.
 *
 * An entry packs one group of values as int8, the first value in the lowest byte: 8 values for IQ1 and IQ2, 4 for IQ3. IQ1_M
 * shares IQ1_S's grid (-1, 0, 1); the others hold magnitudes, the signs are stored apart. */
#ifndef QUERN_GRIDS_H
#define QUERN_GRIDS_H

#include <stdint.h>

extern const uint64_t grid_iq1_s[2048];
extern const uint64_t grid_iq2_xxs[256];
extern const uint64_t grid_iq2_xs[512];
extern const uint64_t grid_iq2_s[1024];
extern const uint32_t grid_iq3_xxs[256];
extern const uint32_t grid_iq3_s[512];

#endif
