/* tune_codes.h - the integers of a rounded tensor, moved by gradients.
 *
 * Each integer gets a position, a real number whose nearest integer it is. At the start that is where the original's weight lies
 * between its neighbours, so that values which were rounded with doubt change first. Adam moves the positions by the gradient of
 * the rounded weights (straight through the rounding), and the file holds the nearest integers. Scales are tune_parts.h's.
 * For formats whose codes rise with the value: Q2_K to Q6_K, Q4_0 to Q5_1, IQ4_NL, IQ4_XS. */
#ifndef QUERN_TUNE_CODES_H
#define QUERN_TUNE_CODES_H

#include "formats.h"
#include "kernels.h"
#include "pool.h"

/* Where the bits of one value's code are within its block. */
struct code_place { uint8_t low, low_shift, high, high_shift; };

struct code_layout {
    size_t levels;                  /* codes are [0, levels)             */
    unsigned low_bits, high_bits;   /* code = low | high << low_bits     */
    struct code_place place[256];   /* by value of the block             */
};

struct tune_codes {
    struct code_layout layout;
    size_t   rows, cols, row_bytes;
    uint32_t format;
    uint8_t *data, *best;           /* in the file's bytes; a copy of the best state */
    float   *position, *gradient, *mean, *square;     /* [rows][cols] */
};

/* False for formats without such codes. */
bool code_layout_of(struct code_layout *layout, uint32_t format);
unsigned code_get(const struct code_layout *layout, const uint8_t *block, size_t i);
void code_put(const struct code_layout *layout, uint8_t *block, size_t i, unsigned code);

/* Codes of a tensor at `data`, its positions from the original's weights: `original` [rows] of the same columns in its format. NULL
 * members and true for formats without codes. */
bool tune_codes_init(struct tune_codes *c, uint32_t format, uint8_t *data, size_t rows, size_t cols, const uint8_t *original,
                     uint32_t original_format, const struct kernels *kernels, struct pool *pool, struct quern_error *err);
void tune_codes_free(struct tune_codes *c);

/* One step of Adam; `rate` in codes. `count` steps were made before. */
bool tune_codes_step(struct tune_codes *c, double rate, size_t count, const struct kernels *kernels, struct pool *pool,
                     struct quern_error *err);
/* Codes that differ between the file's bytes and `then`, a tensor's bytes. */
size_t tune_codes_changed(const struct tune_codes *c, const uint8_t *then);

#endif
