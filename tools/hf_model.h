/* hf_model.h - how a published model's config and tensors become a GGUF's keys and tensors.
 *
 * Known families: llama, mistral, mixtral, qwen2, qwen3, gemma, gemma2, gemma3 (the text part), phi3. Keys, names and layouts are
 * those of llama.cpp's converter: q and k rows of the llama family are reordered for rope over neighbours, gemma's norms get their
 * 1 added, experts are stacked, rope factors become tensors. */
#ifndef QUERN_HF_MODEL_H
#define QUERN_HF_MODEL_H

#include "emit.h"
#include "hf.h"

enum family_flags {
    FAMILY_INTERLEAVED = 1,      /* rope pairs neighbours, the checkpoint pairs halves              */
    FAMILY_SHIFTED_NORMS = 2,    /* norm weights are stored as their difference from 1              */
    FAMILY_POST_NORMS = 4,       /* norms after attention and FFN too                               */
    FAMILY_TIED = 8,             /* the output is always the embedding                              */
    FAMILY_EXPERTS = 16
};

struct family {
    const char *hf;              /* architectures[0] of config.json */
    const char *arch;            /* general.architecture            */
    unsigned    flags;
    const char *activation;      /* hidden_act that the architecture has in GGUF */
};

struct hf_plan {
    const struct family *family;
    struct emit_tensor  *tensors;      /* [count], in the order in which they are written */
    size_t               count;
    size_t               vocabulary;   /* rows of the embedding */
    uint32_t             hidden, layers, heads, kv_heads, head_dim, context, experts;
    float                rope_theta;
    size_t               kept;         /* tensors that could not get the asked type and kept their own */
};

/* Everything about the result but its bytes. `type`: a format id for the matrices. Lives in h's arena. QUERN_EUNSUPPORTED for
 * families, tensors and settings that are not known (nothing is left out silently), QUERN_EFORMAT for what does not fit together.
 * */
bool hf_plan(struct hf_plan *plan, struct hf *h, uint32_t type, const struct kernels *kernels, struct quern_error *err);
/* general.* and ARCH.* keys. `name`: general.name. */
bool hf_write_keys(const struct hf_plan *plan, const struct hf *h, const char *name, uint32_t file_type, struct gguf_writer *w,
                   struct quern_error *err);

/* Members of rope_parameters or rope_scaling (also below full_attention), else of the config; NULL when absent. (hf_config.c) */
const struct json *hf_rope(const struct hf *h, const char *key);
/* Values of freq factors: the llama3 scaling, or long_factor/short_factor. *out is [head_dim / 2] or NULL when there are none.
 * In h's arena. (hf_config.c) */
bool hf_rope_factors(const struct hf_plan *plan, struct hf *h, const char *which, float **out, size_t *n, struct quern_error *err);

/* general.file_type for a format id. */
uint32_t file_type_of(uint32_t type);

#endif
