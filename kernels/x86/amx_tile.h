/* amx_tile.h - the tile operations that the products use, on the tiles of the CPU or, with -DAMX_EMULATE, in plain C.
 *
 * The emulation proves correctness where no such CPU is at hand; it is stricter than the hardware, which allows some mismatches to
 * pass as faults only: an operation on an unconfigured tile, or on tiles whose shapes do not belong together, ends the program with
 * a sentence. Tile numbers are literals: they are part of the instruction. */
#ifndef QUERN_AMX_TILE_H
#define QUERN_AMX_TILE_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

/* What ldtilecfg reads: rows (at most 16) and bytes per row (at most 64) of eight tiles; zero: not in use. */
struct amx_config {
    uint8_t  palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t  rows[16];
};
_Static_assert(sizeof(struct amx_config) == 64, "the layout is the CPU's");

static inline void amx_config_tile(struct amx_config *config, int tile, size_t rows, size_t row_bytes)
{
    config->palette = 1;
    config->rows[tile] = (uint8_t)rows;
    config->row_bytes[tile] = (uint16_t)row_bytes;
}

#ifndef AMX_EMULATE

struct amx { char none; };

/* The compilers' own names are statements, some with the tile number as text. */
#define AMX_CONFIGURE(amx, config)              do { (void)(amx); _tile_loadconfig(config); } while (0)
#define AMX_RELEASE(amx)                        do { (void)(amx); _tile_release(); } while (0)
#define AMX_ZERO(amx, tile)                     do { (void)(amx); _tile_zero(tile); } while (0)
#define AMX_LOAD(amx, tile, from, stride)       do { (void)(amx); _tile_loadd(tile, from, stride); } while (0)
#define AMX_STORE(amx, tile, to, stride)        do { (void)(amx); _tile_stored(tile, to, stride); } while (0)
/* sum += a (int8) times b (uint8): a's row bytes are 4 times b's rows; b holds four consecutive k of a column together. */
#define AMX_DOT_SU(amx, sum, a, b)              do { (void)(amx); _tile_dpbsud(sum, a, b); } while (0)

#else

#include <stdio.h>
#include <stdlib.h>

struct amx {
    struct amx_config config;
    uint8_t           data[8][16][64];
};

#define AMX_CONFIGURE(amx, with)                amx_emulate_configure(amx, with)
#define AMX_RELEASE(amx)                        memset(&(amx)->config, 0, sizeof (amx)->config)
#define AMX_ZERO(amx, tile)                     amx_emulate_zero(amx, tile)
#define AMX_LOAD(amx, tile, from, stride)       amx_emulate_load(amx, tile, from, stride)
#define AMX_STORE(amx, tile, to, stride)        amx_emulate_store(amx, tile, to, stride)
#define AMX_DOT_SU(amx, sum, a, b)              amx_emulate_dot_su(amx, sum, a, b)

static inline void amx_emulate_require(int holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "amx: %s\n", what);
        abort();
    }
}

static inline void amx_emulate_configure(struct amx *amx, const struct amx_config *config)
{
    amx_emulate_require(config->palette == 1 && config->start_row == 0, "the palette is not 1");
    for (int t = 0; t < 16; t++) {
        amx_emulate_require(config->rows[t] <= 16 && config->row_bytes[t] <= 64 && (t < 8 || !config->rows[t]),
                            "a tile's shape is too large");
        amx_emulate_require(!config->rows[t] == !config->row_bytes[t], "a tile has rows without bytes or bytes without rows");
    }
    amx->config = *config;
    memset(amx->data, 0, sizeof amx->data);
}

static inline void amx_emulate_used(const struct amx *amx, int tile)
{
    amx_emulate_require(amx->config.palette == 1 && tile >= 0 && tile < 8 && amx->config.rows[tile], "a tile is not configured");
}

static inline void amx_emulate_zero(struct amx *amx, int tile)
{
    amx_emulate_used(amx, tile);
    memset(amx->data[tile], 0, sizeof amx->data[tile]);
}

static inline void amx_emulate_load(struct amx *amx, int tile, const void *from, size_t stride)
{
    amx_emulate_used(amx, tile);
    memset(amx->data[tile], 0, sizeof amx->data[tile]);
    for (size_t r = 0; r < amx->config.rows[tile]; r++)
        memcpy(amx->data[tile][r], (const char *)from + r * stride, amx->config.row_bytes[tile]);
}

static inline void amx_emulate_store(const struct amx *amx, int tile, void *to, size_t stride)
{
    amx_emulate_used(amx, tile);
    for (size_t r = 0; r < amx->config.rows[tile]; r++)
        memcpy((char *)to + r * stride, amx->data[tile][r], amx->config.row_bytes[tile]);
}

static inline void amx_emulate_dot_su(struct amx *amx, int sum, int a, int b)
{
    const struct amx_config *c = &amx->config;
    amx_emulate_used(amx, sum);
    amx_emulate_used(amx, a);
    amx_emulate_used(amx, b);
    amx_emulate_require(sum != a && sum != b && a != b, "a tile is used twice in one product");
    amx_emulate_require(c->rows[sum] == c->rows[a] && c->row_bytes[sum] == c->row_bytes[b] && c->row_bytes[a] == 4 * c->rows[b],
                        "the shapes of a product do not belong together");
    for (int m = 0; m < c->rows[sum]; m++)
        for (int n = 0; n < c->row_bytes[sum] / 4; n++) {
            int32_t total;
            memcpy(&total, amx->data[sum][m] + 4 * n, 4);
            for (int k = 0; k < c->row_bytes[a]; k++)
                total += (int8_t)amx->data[a][m][k] * amx->data[b][k / 4][4 * n + k % 4];
            memcpy(amx->data[sum][m] + 4 * n, &total, 4);
        }
}

#endif

#endif
