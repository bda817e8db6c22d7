/* model.h - a model as the forward pass needs it: hyper-parameters and named weights, every shape checked.
 *
 * model_init reads both from an open file. It either succeeds wholly, and then nothing that runs the model needs to check a
 * shape again, or fails with the key or tensor at fault. Weights are views into the file; vectors that the file does not hold
 * as aligned f32 are decoded into the model's arena. A model is immutable once it stands. */
#ifndef QUERN_MODEL_H
#define QUERN_MODEL_H

#include "arch.h"
#include "arena.h"
#include "error.h"
#include "gguf.h"
#include "kernels.h"
#include "settle.h"
#include "tokenizer.h"

enum { MODEL_MAX_LAYERS = 512, MODEL_MAX_EXPERTS = 1024 };

/* A weight matrix, or a stack of them of one shape (experts, heads). out = scale * (W x) + bias. */
struct matrix {
    const uint8_t *data;        /* [slices][rows][row_bytes], blocks of the format; NULL: absent */
    uint32_t       type;        /* a format id */
    size_t         cols, rows;
    size_t         slices;
    size_t         row_bytes;
    const float   *bias;        /* f32 [slices][rows] or NULL */
    float          scale;       /* 1 but for families with a factor per tensor */
    size_t         tensor;      /* index in the file's directory; a tensor may serve several matrices */
    size_t         first_row;   /* of that tensor (fused q|k|v and gate|up) */
};

/* f32 [n]; data NULL: absent. bias only where the norm is a LayerNorm with one. */
struct norm {
    const float *weight, *bias;
};

enum mixer_kind { MIX_NONE, MIX_ATTENTION, MIX_MLA, MIX_LINEAR, MIX_CONV, MIX_SSM, MIX_DELTA };
enum rope_table_kind { ROPE_TABLE_NONE, ROPE_TABLE_MAIN, ROPE_TABLE_LOCAL, ROPE_TABLES };

struct layer {
    enum mixer_kind      mixer;
    enum rope_table_kind rope;
    size_t heads, kv_heads;     /* attention only */
    size_t window;              /* keys that a query sees, itself included; 0: all before it */
    size_t ff;                  /* width of the dense feed-forward part, 0: none */
    bool   experts;             /* the feed-forward part is a mixture of experts */
    bool   parallel;            /* it reads what the mixer reads */

    struct norm attn_norm, attn_norm_2, post_attn_norm, ffn_norm, post_ffn_norm;

    /* attention */
    struct matrix q, k, v, out;
    const float *q_norm, *k_norm;       /* f32 as arch.qk_norm says */
    const float *sinks;                 /* f32 [heads] */
    const float *attn_sub_norm, *ffn_sub_norm;
    /* multi-head latent attention: q or q_a, q_b; kv_a; k_b and v_b (absorbed) or kv_b (decompressed) */
    struct matrix q_a, q_b, kv_a, k_b, v_b, kv_b;
    const float *q_a_norm, *kv_a_norm;
    /* short convolution, state space, gated delta net */
    struct matrix in_proj, out_proj, ssm_x, ssm_dt, gate_proj, beta_alpha;
    const float *conv, *conv_bias;      /* f32 [channels][taps], [channels] */
    const float *ssm_a, *ssm_d, *ssm_dt_bias, *ssm_norm;

    /* feed-forward */
    struct matrix gate, up, down;
    struct matrix router, gate_exps, up_exps, down_exps;
    struct matrix gate_shared, up_shared, down_shared;
    const float *router_bias;           /* f32 [experts], added to the selection only */
    struct matrix shared_gate;          /* [1][width]: sigmoid factor of the shared expert */
};

struct rope_hyper {
    size_t dims;                /* values of a head that rotate */
    double base, base_local;
    double factor;              /* positions are divided by it; 1: none */
    bool   yarn;
    double beta_fast, beta_slow, log_multiplier, attn_factor;
    double yarn_magnitude;      /* of rotated pairs, beside attn_factor; 1 without YaRN */
    size_t original_context;
    const float *freq_factors;  /* f32 [dims / 2] or NULL, divides each frequency */
    const float *long_factors, *short_factors;   /* chosen by the size of the session's context */
};

struct hyper {
    size_t layers, width, vocab, context;
    size_t key_dim, value_dim;  /* of a head */
    float  eps;
    struct rope_hyper rope;
    float  attn_scale;          /* of the scores */
    float  attn_softcap, logit_softcap;          /* 0: none */
    float  embed_scale, residual_scale, logit_scale;   /* factors, 1: none */
    float  alibi;               /* largest bias, 0: none */
    float  clamp_qkv;           /* 0: none */
    bool   chunked;             /* windows begin at multiples of their size instead of sliding */
    float  temperature, temperature_offset; size_t temperature_floor;   /* temperature 0: none */

    size_t experts, experts_used, expert_ff, shared_ff, expert_groups, groups_used;
    enum gating_kind gating;
    bool   normalise_experts;
    float  expert_scale;

    size_t q_lora, kv_lora, mla_key, mla_value;        /* of a head when decompressed */
    bool   mla_absorbed;
    size_t conv_taps, ssm_inner, ssm_state, ssm_rank, ssm_groups;
};

struct model {
    const struct arch *arch;
    struct hyper  hyper;
    struct matrix embed;        /* [vocab][width] */
    const float  *positions;    /* f32 [context][width] or NULL */
    struct norm   output_norm;
    struct matrix output;       /* [vocab][width]; tied files: the same as embed */
    struct layer *layer;        /* [hyper.layers] */
    size_t        extra_tensors;/* in the file, not known here */
    size_t        parameters;   /* values of all tensors in use */
    size_t        weight_bytes; /* of them */
    bool          recurrent;    /* some layer has a state that cannot be cut back */
    bool         *used;         /* [tensor_count] of the file, while loading */
    struct arena  arena;
};

/* Check and collect. `kernels` decides which formats can be multiplied. QUERN_EFORMAT (a value or shape is wrong, tensors
 * are missing: all are listed), QUERN_EUNSUPPORTED (architecture, scaling type, tensor type), QUERN_EMEM. `g` must outlive the
 * model. On failure nothing is held. */
bool model_init(struct model *m, const struct gguf *g, const struct kernels *kernels, struct quern_error *err);
void model_free(struct model *m);

/* The parts of model_init (hyper.c, weights.c). model_hyper fills arch, hyper and each layer's counts; model_weights the rest. */
bool model_hyper(struct model *m, const struct gguf *g, struct quern_error *err);
bool model_weights(struct model *m, const struct gguf *g, const struct kernels *kernels, struct quern_error *err);

/* What quern_open_model gives. */
struct quern_model {
    struct gguf       gguf;
    struct kernels    kernels;
    struct model      model;
    struct tokenizer *tokenizer;
    struct settle    *settle;       /* NULL: nothing to do */
    size_t            threads;      /* of each session's pool */
};

#endif
