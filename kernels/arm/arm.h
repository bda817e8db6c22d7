/* arm.h - the Arm kernels, for dispatch.c, and what their files share. Levels: neon (Armv8.0), dotprod (sdot), i8mm (smmla).
 *
 * Never timed on silicon: everything here has run under qemu only. The shapes follow from the instructions' documented rates. */
#ifndef QUERN_ARM_H
#define QUERN_ARM_H

#include "kernels.h"
#include "panel.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))

/* ---- a format's side: up to 256 columns of a row as signed bytes and their scales ------------------------------- */

/* Sub-blocks s are of shape.sub columns; those beyond the row's end are zero. */
struct run_arm {
    int8_t  q[256];
    int32_t sub[16];                   /* super: integer scales                        */
    int32_t low[16];                   /* super with minimums                          */
    float   scale[16];                 /* small                                        */
    float   min[8];                    /* small with minimums                          */
    float   d, dmin;                   /* super                                        */
};

/* As panel.h's shape, which has more for x86's unsigned dots. */
struct shape_arm {
    enum panel_kind kind;
    unsigned        sub;               /* columns per scale: 16 or 32  */
    bool            mins;
    unsigned        bytes;             /* of one block                 */
};

/* `blocks` blocks from `bytes` on; 256 columns at most. */
typedef void run_arm_fn(struct run_arm *out, const uint8_t *bytes, size_t blocks);

struct format_arm {
    struct shape_arm shape;
    size_t           values;           /* per block                    */
    run_arm_fn      *run;
};

extern const struct format_arm format_q1_0_arm, format_q2_0_arm, format_q4_0_arm, format_q4_1_arm, format_q5_0_arm, format_q5_1_arm,
                               format_q8_0_arm, format_iq4_nl_arm, format_mxfp4_arm, format_nvfp4_arm;
extern const struct format_arm format_q2_k_arm, format_q3_k_arm, format_q4_k_arm, format_q5_k_arm, format_q6_k_arm,
                               format_iq1_s_arm, format_iq1_m_arm, format_iq2_xxs_arm, format_iq2_xs_arm, format_iq2_s_arm,
                               format_iq3_xxs_arm, format_iq3_s_arm, format_iq4_xs_arm, format_tq1_0_arm, format_tq2_0_arm;

/* ---- an instruction set's side: four rows by some tokens -------------------------------------------------------- */

enum { QUAD = 4, TOKS_ARM = 4 };

/* Four rows' run. Scales stand side by side, a vector's lanes are rows. */
struct quad {
    int8_t  lanes[256 * QUAD];         /* the values in the order that the micro kernel wants, if it wants one   */
    struct run_arm run[QUAD];
    int32_t sub[16][QUAD], low[16][QUAD];
    float   scale[16][QUAD], min[8][QUAD], d[QUAD], dmin[QUAD];
};

/* A token's run: x, and per sub-block (shape.sub columns; floats per 32) what goes with the scales. */
struct token_arm {
    const int8_t *x;
    int32_t sums[16];                  /* super with minimums: sum of x per sub-block  */
    float   dx[8];                     /* super: dx[0]                                 */
    float   dsum[8];                   /* small with minimums: dx * sum of x           */
};

/* acc[t * stride + row] += the run's part, for `toks` <= TOKS_ARM tokens; panel.h says in which order. */
typedef void micro_arm_fn(float *acc, size_t stride, const struct quad *quad, const struct token_arm *token, int toks,
                          const struct shape_arm *shape);
typedef void arrange_arm_fn(struct quad *quad);

struct level_arm {
    micro_arm_fn   *few;               /* from the rows as they are            */
    micro_arm_fn   *many;              /* from quad->lanes; NULL: `few` always */
    arrange_arm_fn *arrange;           /* fills quad->lanes                    */
    size_t          many_from;         /* tokens                               */
};
extern const struct level_arm level_neon, level_dotprod, level_i8mm;
micro_arm_fn micro_few_dotprod;

void matmul_rows_arm(const struct matmul_job *job, size_t row_begin, size_t row_end, void *scratch, const struct format_arm *format,
                     const struct level_arm *level);
size_t matmul_scratch_arm(void);

matmul_fn matmul_f32_neon, matmul_f16_neon, matmul_bf16_neon, matmul_q1_0_neon, matmul_q2_0_neon, matmul_q4_0_neon,
          matmul_q4_1_neon, matmul_q5_0_neon, matmul_q5_1_neon, matmul_q8_0_neon, matmul_iq4_nl_neon, matmul_mxfp4_neon,
          matmul_nvfp4_neon, matmul_q2_k_neon, matmul_q3_k_neon, matmul_q4_k_neon, matmul_q5_k_neon, matmul_q6_k_neon,
          matmul_iq1_s_neon, matmul_iq1_m_neon, matmul_iq2_xxs_neon, matmul_iq2_xs_neon, matmul_iq2_s_neon, matmul_iq3_xxs_neon,
          matmul_iq3_s_neon, matmul_iq4_xs_neon, matmul_tq1_0_neon, matmul_tq2_0_neon;
matmul_fn matmul_q1_0_dotprod, matmul_q2_0_dotprod, matmul_q4_0_dotprod, matmul_q4_1_dotprod, matmul_q5_0_dotprod,
          matmul_q5_1_dotprod, matmul_q8_0_dotprod, matmul_iq4_nl_dotprod, matmul_mxfp4_dotprod, matmul_nvfp4_dotprod,
          matmul_q2_k_dotprod, matmul_q3_k_dotprod, matmul_q4_k_dotprod, matmul_q5_k_dotprod, matmul_q6_k_dotprod,
          matmul_iq1_s_dotprod, matmul_iq1_m_dotprod, matmul_iq2_xxs_dotprod, matmul_iq2_xs_dotprod, matmul_iq2_s_dotprod,
          matmul_iq3_xxs_dotprod, matmul_iq3_s_dotprod, matmul_iq4_xs_dotprod, matmul_tq1_0_dotprod, matmul_tq2_0_dotprod;
matmul_fn matmul_q1_0_i8mm, matmul_q2_0_i8mm, matmul_q4_0_i8mm, matmul_q4_1_i8mm, matmul_q5_0_i8mm, matmul_q5_1_i8mm,
          matmul_q8_0_i8mm, matmul_iq4_nl_i8mm, matmul_mxfp4_i8mm, matmul_nvfp4_i8mm, matmul_q2_k_i8mm, matmul_q3_k_i8mm,
          matmul_q4_k_i8mm, matmul_q5_k_i8mm, matmul_q6_k_i8mm, matmul_iq1_s_i8mm, matmul_iq1_m_i8mm, matmul_iq2_xxs_i8mm,
          matmul_iq2_xs_i8mm, matmul_iq2_s_i8mm, matmul_iq3_xxs_i8mm, matmul_iq3_s_i8mm, matmul_iq4_xs_i8mm, matmul_tq1_0_i8mm,
          matmul_tq2_0_i8mm;

act_prepare_fn act_prepare_q8_32_neon, act_prepare_q8_256_neon;
dequantize_fn dequantize_f16_neon, dequantize_bf16_neon;
quantize_fn quantize_f16_neon, quantize_q8_0_neon;

rms_norm_fn rms_norm_neon;
layer_norm_fn layer_norm_neon;
rope_fn rope_neon;
gate_fn silu_mul_neon, gelu_mul_neon;
unary_fn silu_neon, gelu_neon;
axpy_fn axpy_neon;
dot_fn dot_neon;
softmax_fn softmax_neon;
softmax_step_fn softmax_step_neon;

attn_scores_fn attn_scores_f32_neon, attn_scores_f16_neon, attn_scores_bf16_neon, attn_scores_q8_0_neon;
attn_mix_fn attn_mix_f32_neon, attn_mix_f16_neon, attn_mix_bf16_neon, attn_mix_q8_0_neon;

#endif
