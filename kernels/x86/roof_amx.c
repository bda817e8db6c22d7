/* Never run on silicon so far. */
#include <immintrin.h>
#include <string.h>

#include "roof.h"

/* Tiles 0..3 are sums, 4 and 5 the factors, all 16 rows of 64 bytes. */
static void begin(const uint8_t factor[1024])
{
    struct { uint8_t palette, start; uint8_t reserved[14]; uint16_t columns[16]; uint8_t rows[16]; } config = {.palette = 1};
    for (int i = 0; i < 6; i++)
        config.columns[i] = 64, config.rows[i] = 16;
    _tile_loadconfig(&config);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_loadd(4, factor, 64);
    _tile_loadd(5, factor, 64);
}

static uint64_t end(void)
{
    uint32_t sums[256];
    _tile_stored(0, sums, 64);
    _tile_release();
    return sums[0];
}

uint64_t roof_dot_amx(size_t rounds)
{
    uint8_t factor[1024];
    memset(factor, 3, sizeof factor);
    begin(factor);
    for (size_t r = 0; r < rounds; r++) {
        _tile_dpbssd(0, 4, 5);
        _tile_dpbssd(1, 4, 5);
        _tile_dpbssd(2, 4, 5);
        _tile_dpbssd(3, 4, 5);
    }
    return end();
}

uint64_t roof_bf16_amx(size_t rounds)
{
    uint8_t factor[1024];
    for (size_t i = 0; i < sizeof factor; i += 2)
        factor[i] = 0x80, factor[i + 1] = 0x3f;          /* 1 in bfloat16 */
    begin(factor);
    for (size_t r = 0; r < rounds; r++) {
        _tile_dpbf16ps(0, 4, 5);
        _tile_dpbf16ps(1, 4, 5);
        _tile_dpbf16ps(2, 4, 5);
        _tile_dpbf16ps(3, 4, 5);
    }
    return end();
}
