/* dequantize.c - blocks to floats: the float formats directly, all others through their unpacker (unpack.h).
 *
 * Here floats, not doubles: the value of a block is defined by the format in float arithmetic, and EXACT means those very bits. */
#include "numbers.h"
#include "ref.h"

/* values, bytes: of one block. A product and a difference, each rounded; a fused one would give other bits. */
static void expand_small(float *out, const void *blocks, size_t n, unpack_small_fn *unpack, size_t values, size_t bytes)
{
    const char *block = blocks;
    for (size_t at = 0; at < n; at += values, block += bytes) {
        struct small_block b;
        unpack(&b, block);
        for (size_t i = 0; i < values; i++)
            out[at + i] = b.scale[i / 16] * b.q[i] - b.min[i / 16];
    }
}

/* d * sub and dmin * min are exact (unpack.h), so that grouping them first changes nothing but the count of roundings. */
static void expand_super(float *out, const void *blocks, size_t n, unpack_super_fn *unpack, size_t bytes)
{
    const char *block = blocks;
    for (size_t at = 0; at < n; at += 256, block += bytes) {
        struct super_block b;
        unpack(&b, block);
        for (size_t i = 0; i < 256; i++)
            out[at + i] = b.d * b.sub[i / 16] * b.q[i] - b.dmin * b.min[i / 16];
    }
}

void dequantize_f32_ref(float *out, const void *blocks, size_t n)
{
    memcpy(out, blocks, n * sizeof *out);
}

void dequantize_f16_ref(float *out, const void *blocks, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = f16_to_f32(load_u16((const char *)blocks + 2 * i));
}

void dequantize_bf16_ref(float *out, const void *blocks, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = bf16_to_f32(load_u16((const char *)blocks + 2 * i));
}

void dequantize_q1_0_ref(float *out, const void *blocks, size_t n)
{
    expand_small(out, blocks, n, unpack_q1_0_ref, 128, 18);
}

void dequantize_q2_0_ref(float *out, const void *blocks, size_t n)
{
    expand_small(out, blocks, n, unpack_q2_0_ref, 64, 18);
}

void dequantize_q4_0_ref(float *out, const void *blocks, size_t n)
{
    expand_small(out, blocks, n, unpack_q4_0_ref, 32, 18);
}

void dequantize_q4_1_ref(float *out, const void *blocks, size_t n)
{
    expand_small(out, blocks, n, unpack_q4_1_ref, 32, 20);
}

void dequantize_q5_0_ref(float *out, const void *blocks, size_t n)
{
    expand_small(out, blocks, n, unpack_q5_0_ref, 32, 22);
}

void dequantize_q5_1_ref(float *out, const void *blocks, size_t n)
{
    expand_small(out, blocks, n, unpack_q5_1_ref, 32, 24);
}

void dequantize_q8_0_ref(float *out, const void *blocks, size_t n)
{
    expand_small(out, blocks, n, unpack_q8_0_ref, 32, 34);
}

void dequantize_iq4_nl_ref(float *out, const void *blocks, size_t n)
{
    expand_small(out, blocks, n, unpack_iq4_nl_ref, 32, 18);
}

void dequantize_mxfp4_ref(float *out, const void *blocks, size_t n)
{
    expand_small(out, blocks, n, unpack_mxfp4_ref, 32, 17);
}

void dequantize_nvfp4_ref(float *out, const void *blocks, size_t n)
{
    expand_small(out, blocks, n, unpack_nvfp4_ref, 64, 36);
}

void dequantize_q2_k_ref(float *out, const void *blocks, size_t n)
{
    expand_super(out, blocks, n, unpack_q2_k_ref, 84);
}

void dequantize_q3_k_ref(float *out, const void *blocks, size_t n)
{
    expand_super(out, blocks, n, unpack_q3_k_ref, 110);
}

void dequantize_q4_k_ref(float *out, const void *blocks, size_t n)
{
    expand_super(out, blocks, n, unpack_q4_k_ref, 144);
}

void dequantize_q5_k_ref(float *out, const void *blocks, size_t n)
{
    expand_super(out, blocks, n, unpack_q5_k_ref, 176);
}

void dequantize_q6_k_ref(float *out, const void *blocks, size_t n)
{
    expand_super(out, blocks, n, unpack_q6_k_ref, 210);
}

void dequantize_iq1_s_ref(float *out, const void *blocks, size_t n)
{
    expand_super(out, blocks, n, unpack_iq1_s_ref, 50);
}

void dequantize_iq1_m_ref(float *out, const void *blocks, size_t n)
{
    expand_super(out, blocks, n, unpack_iq1_m_ref, 56);
}

void dequantize_iq2_xxs_ref(float *out, const void *blocks, size_t n)
{
    expand_super(out, blocks, n, unpack_iq2_xxs_ref, 66);
}

void dequantize_iq2_xs_ref(float *out, const void *blocks, size_t n)
{
    expand_super(out, blocks, n, unpack_iq2_xs_ref, 74);
}

void dequantize_iq2_s_ref(float *out, const void *blocks, size_t n)
{
    expand_super(out, blocks, n, unpack_iq2_s_ref, 82);
}

void dequantize_iq3_xxs_ref(float *out, const void *blocks, size_t n)
{
    expand_super(out, blocks, n, unpack_iq3_xxs_ref, 98);
}

void dequantize_iq3_s_ref(float *out, const void *blocks, size_t n)
{
    expand_super(out, blocks, n, unpack_iq3_s_ref, 110);
}

void dequantize_iq4_xs_ref(float *out, const void *blocks, size_t n)
{
    expand_super(out, blocks, n, unpack_iq4_xs_ref, 136);
}

void dequantize_tq1_0_ref(float *out, const void *blocks, size_t n)
{
    expand_super(out, blocks, n, unpack_tq1_0_ref, 54);
}

void dequantize_tq2_0_ref(float *out, const void *blocks, size_t n)
{
    expand_super(out, blocks, n, unpack_tq2_0_ref, 66);
}
