/* arch.h - what distinguishes one model family from another: one row per architecture.
 *
 * The forward pass is written once; a row says which of its choices a family takes. Biases, fused q|k|v and fused gate|up
 * are seen from the tensors that the file has and need no column, except where a family cannot do without them. */
#ifndef QUERN_ARCH_H
#define QUERN_ARCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum norm_kind { NORM_RMS, NORM_LAYER };

/* How pairs of values are rotated: neighbours (2i, 2i+1), or (i, i + half). */
enum rope_kind { ROPE_NONE, ROPE_PAIRS, ROPE_HALVES };

/* Normalisation of queries and keys before (L2: after) the rotation. */
enum qk_norm_kind {
    QK_NONE,
    QK_HEAD,        /* RMS over each head, one weight vector for all heads  */
    QK_WHOLE,       /* RMS over all heads together                          */
    QK_HEAD_LAYER,  /* LayerNorm over each head, weights per head; optional */
    QK_L2           /* RMS over each head without weights, after the rotation, only where the layer rotates */
};

enum activation_kind { FFN_SILU, FFN_GELU, FFN_RELU2, FFN_SWIGLU_CLAMPED };

/* Does the feed-forward part read the layer's input instead of the attention's result? */
enum parallel_kind { PARALLEL_NEVER, PARALLEL_ALWAYS, PARALLEL_KEY, PARALLEL_WITHOUT_FFN_NORM };

/* Which layers rotate. */
enum rope_where { ROPE_ALL, ROPE_WINDOWED, ROPE_WINDOWED_IF_ANY, ROPE_THREE_OF_FOUR };

/* The rotation of layers with a window: as the others; with a base of its own and no scaling; without scaling. */
enum rope_local { LOCAL_SAME, LOCAL_OWN_BASE, LOCAL_UNSCALED };

enum gating_kind { GATING_SOFTMAX = 1, GATING_SIGMOID = 2, GATING_SOFTMAX_CHOSEN = 3 };   /* numbers of *.expert_gating_func */

enum arch_mixer { MIXERS_ATTENTION, MIXERS_MLA, MIXERS_SSM, MIXERS_CONV, MIXERS_DELTA };

enum arch_flags {
    ARCH_NO_PRE_NORM    = 1 << 0,   /* attention and feed-forward read the residual as it is             */
    ARCH_POST_NORM      = 1 << 1,   /* post_attention_norm, post_ffw_norm before the residual            */
    ARCH_NORM_BIAS      = 1 << 2,   /* LayerNorms must have a bias                                       */
    ARCH_QKV_BIAS       = 1 << 3,   /* q, k, v must have a bias                                          */
    ARCH_ALL_BIAS       = 1 << 4,   /* every projection must have a bias                                 */
    ARCH_UNTIED         = 1 << 5,   /* output.weight must be there                                       */
    ARCH_NO_GATE        = 1 << 6,   /* feed-forward: activation(up), no gate                             */
    ARCH_POSITIONS      = 1 << 7,   /* learned positions                                                 */
    ARCH_EMBED_SQRT     = 1 << 8,   /* embeddings times sqrt(width)                                      */
    ARCH_SCALES         = 1 << 9,   /* keys embedding_scale, residual_scale, attention.scale             */
    ARCH_MINICPM_SCALES = 1 << 10,  /* and defaults for them                                             */
    ARCH_LOGITS_DIVIDED = 1 << 11,  /* logits divided by logit_scale                                     */
    ARCH_LOGITS_TIMES   = 1 << 12,  /* logits times logit_scale                                          */
    ARCH_SOFTCAP        = 1 << 13,  /* of attention scores and of logits, with defaults                  */
    ARCH_SOFTCAP_FINAL  = 1 << 14,  /* of logits, when the key is there                                  */
    ARCH_SINKS          = 1 << 15,  /* attn_sinks                                                        */
    ARCH_ALIBI          = 1 << 16,
    ARCH_SUB_NORM       = 1 << 17,  /* attn_sub_norm, ffn_sub_norm before the last projections           */
    ARCH_FFN_NORM_IS_POST = 1 << 18,/* the feed-forward norm is called post_attention_norm               */
    ARCH_TWO_NORMS      = 1 << 19,  /* attn_norm_2, when there, norms the attention's input              */
    ARCH_OUTPUT_NORM_EMBD = 1 << 20,/* the last norm is called token_embd_norm                           */
    ARCH_Q_GATE         = 1 << 21,  /* q rows hold query and gate of each head                           */
    ARCH_TEMPERATURE    = 1 << 22,  /* queries grow with the position: attention.temperature_scale       */
    ARCH_LLAMA4         = 1 << 23,  /* chunked windows, temperature where there is no rotation, weight before the experts */
    ARCH_LAYERS_MAY_LACK = 1 << 24, /* head counts and feed-forward widths may be 0 in some layers       */
    ARCH_YARN_LOG       = 1 << 25,  /* reads rope.scaling.yarn_log_multiplier                            */
    ARCH_EXPERTS        = 1 << 26,  /* cannot be without experts                                         */
    ARCH_NORM_BY_LAYERS = 1 << 27   /* attention scale from width / heads at 46 or 62 layers (Gemma 27B) */
};

/* Window of the layers of a period: all but the last of each `period` layers. */
struct arch_window {
    uint32_t period;      /* 0: no windows in this family            */
    uint32_t size;        /* when the key is absent; 0: then there is none, or an error where `required` */
    bool     required;
};

struct arch_experts {
    enum gating_kind gating;
    bool normalise;       /* the chosen weights add up to 1          */
    bool shared_gate;     /* the shared expert has a sigmoid gate    */
};

struct arch {
    const char          *name;      /* general.architecture */
    enum arch_mixer      mixer;
    enum norm_kind       norm;
    enum rope_kind       rope;
    enum qk_norm_kind    qk_norm;
    enum activation_kind activation;
    enum parallel_kind   parallel;
    enum rope_where      rope_where;
    enum rope_local      rope_local;
    struct arch_window   window;
    struct arch_experts  experts;
    uint32_t             flags;
};

/* NULL when unknown. `n` bytes of name. */
const struct arch *arch_find(const char *name, size_t n);
/* The i-th row, NULL past the end: for lists. */
const struct arch *arch_at(size_t i);

#endif
