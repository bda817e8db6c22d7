/* runs_others_avx2.h - the formats without an unpacker of their own on AVX2: the reference's (unpack.h) fills the run. */
#ifndef QUERN_RUNS_OTHERS_AVX2_H
#define QUERN_RUNS_OTHERS_AVX2_H

#include "matmul_avx2.h"

static ALWAYS_INLINE void copy_values(struct run *out, const int8_t q[256])
{
    for (int k = 0; k < 8; k++)
        out->q[k] = _mm256_loadu_si256((const __m256i *)(q + 32 * k));
}

/* d is in float there; as f16 times the shape's factor it is what the file holds. */
static ALWAYS_INLINE void super_run(struct run *out, const uint8_t *bytes, unpack_super_fn *unpack, uint32_t d)
{
    struct super_block block;
    unpack(&block, bytes);
    copy_values(out, block.q);
    out->scales = _mm_packs_epi16(_mm_loadu_si128((const __m128i *)block.sub), _mm_loadu_si128((const __m128i *)(block.sub + 8)));
    out->d = d;
}

/* `blocks` blocks of 256 / blocks values. */
static ALWAYS_INLINE void small_run(struct run *out, const uint8_t *bytes, unpack_small_fn *unpack, int blocks, size_t size)
{
    int8_t q[256];
    float scale[16];
    int each = 256 / blocks;
    for (int i = 0; i < blocks; i++) {
        struct small_block block;
        unpack(&block, bytes + (size_t)i * size);
        memcpy(q + i * each, block.q, (size_t)each);
        memcpy(scale + i * each / 16, block.scale, sizeof(float) * (size_t)each / 16);
    }
    copy_values(out, q);
    out->scale[0] = _mm256_loadu_ps(scale);
    out->scale[1] = _mm256_loadu_ps(scale + 8);
}

static ALWAYS_INLINE void run_tq1_0_avx2(struct run *out, const uint8_t *bytes)
{
    super_run(out, bytes, unpack_tq1_0_ref, u16_at(bytes + 52));
}

#define SHAPE_TQ1_0 { .kind = PANEL_SUPER, .sub = 16, .offset = 0, .top = 255, .bytes = 54, .factor = 1 }

static ALWAYS_INLINE void run_tq2_0_avx2(struct run *out, const uint8_t *bytes)
{
    super_run(out, bytes, unpack_tq2_0_ref, u16_at(bytes + 64));
}

#define SHAPE_TQ2_0 { .kind = PANEL_SUPER, .sub = 16, .offset = 0, .top = 255, .bytes = 66, .factor = 1 }

static ALWAYS_INLINE void run_q1_0_avx2(struct run *out, const uint8_t *bytes)
{
    small_run(out, bytes, unpack_q1_0_ref, 2, 18);
}

#define SHAPE_Q1_0 { .kind = PANEL_SMALL, .sub = 16, .offset = 0, .top = 255, .bytes = 36, .factor = 1 }

static ALWAYS_INLINE void run_q2_0_avx2(struct run *out, const uint8_t *bytes)
{
    small_run(out, bytes, unpack_q2_0_ref, 4, 18);
}

#define SHAPE_Q2_0 { .kind = PANEL_SMALL, .sub = 16, .offset = 0, .top = 255, .bytes = 72, .factor = 1 }

static ALWAYS_INLINE void run_nvfp4_avx2(struct run *out, const uint8_t *bytes)
{
    small_run(out, bytes, unpack_nvfp4_ref, 4, 36);
}

#define SHAPE_NVFP4 { .kind = PANEL_SMALL, .sub = 16, .offset = 0, .top = 255, .bytes = 144, .factor = 1 }

#endif
