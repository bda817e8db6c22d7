#include "arch.h"

#include <string.h>

/* Names and behaviour are those of files made for llama.cpp (its key general.architecture). Fields that are not named take the
 * first value of their enum: RMS norm, no rotation, no qk-norm, SiLU with a gate, attention then feed-forward. */
static const struct arch ARCHS[] = {
    { .name = "llama", .rope = ROPE_PAIRS, .experts = { GATING_SOFTMAX, true, false } },
    { .name = "mistral3", .rope = ROPE_PAIRS, .experts = { GATING_SOFTMAX, true, false },
      .flags = ARCH_TEMPERATURE | ARCH_YARN_LOG },
    { .name = "deci", .rope = ROPE_PAIRS, .flags = ARCH_LAYERS_MAY_LACK },
    { .name = "llama4", .rope = ROPE_PAIRS, .qk_norm = QK_L2, .rope_where = ROPE_WINDOWED, .window = { 4, 8192, false },
      .experts = { GATING_SIGMOID, false, false }, .flags = ARCH_LLAMA4 | ARCH_EXPERTS },
    { .name = "smollm3", .rope = ROPE_PAIRS, .rope_where = ROPE_THREE_OF_FOUR },
    { .name = "arcee", .rope = ROPE_PAIRS, .activation = FFN_RELU2, .flags = ARCH_NO_GATE },
    { .name = "granite", .rope = ROPE_PAIRS, .flags = ARCH_SCALES | ARCH_LOGITS_DIVIDED },
    { .name = "granitemoe", .rope = ROPE_PAIRS, .experts = { GATING_SOFTMAX, true, false },
      .flags = ARCH_SCALES | ARCH_LOGITS_DIVIDED | ARCH_EXPERTS },
    { .name = "minicpm", .rope = ROPE_PAIRS, .flags = ARCH_SCALES | ARCH_MINICPM_SCALES | ARCH_LOGITS_DIVIDED },
    { .name = "command-r", .norm = NORM_LAYER, .rope = ROPE_PAIRS, .parallel = PARALLEL_ALWAYS, .qk_norm = QK_HEAD_LAYER,
      .flags = ARCH_LOGITS_TIMES },
    { .name = "cohere2", .norm = NORM_LAYER, .rope = ROPE_PAIRS, .parallel = PARALLEL_ALWAYS, .rope_where = ROPE_WINDOWED,
      .window = { 4, 0, true }, .flags = ARCH_LOGITS_TIMES },
    { .name = "deepseek2", .mixer = MIXERS_MLA, .rope = ROPE_PAIRS, .experts = { GATING_SOFTMAX, false, false },
      .flags = ARCH_YARN_LOG },
    { .name = "glm4", .rope = ROPE_PAIRS, .flags = ARCH_POST_NORM },

    { .name = "qwen2", .rope = ROPE_HALVES, .flags = ARCH_QKV_BIAS },
    { .name = "qwen2moe", .rope = ROPE_HALVES, .experts = { GATING_SOFTMAX, false, true },
      .flags = ARCH_QKV_BIAS | ARCH_EXPERTS | ARCH_UNTIED },
    { .name = "qwen3", .rope = ROPE_HALVES, .qk_norm = QK_HEAD },
    { .name = "qwen3moe", .rope = ROPE_HALVES, .qk_norm = QK_HEAD, .experts = { GATING_SOFTMAX, true, false },
      .flags = ARCH_EXPERTS },
    { .name = "qwen3next", .mixer = MIXERS_DELTA, .rope = ROPE_HALVES, .qk_norm = QK_HEAD,
      .experts = { GATING_SOFTMAX, true, true }, .flags = ARCH_Q_GATE | ARCH_FFN_NORM_IS_POST | ARCH_EXPERTS },
    { .name = "gemma", .rope = ROPE_HALVES, .activation = FFN_GELU, .flags = ARCH_EMBED_SQRT },
    { .name = "gemma2", .rope = ROPE_HALVES, .activation = FFN_GELU, .window = { 2, 4096, false },
      .flags = ARCH_EMBED_SQRT | ARCH_POST_NORM | ARCH_SOFTCAP | ARCH_NORM_BY_LAYERS },
    { .name = "gemma3", .rope = ROPE_HALVES, .qk_norm = QK_HEAD, .activation = FFN_GELU, .rope_local = LOCAL_OWN_BASE,
      .window = { 6, 0, false }, .flags = ARCH_EMBED_SQRT | ARCH_POST_NORM | ARCH_SOFTCAP_FINAL | ARCH_NORM_BY_LAYERS },
    { .name = "phi2", .norm = NORM_LAYER, .rope = ROPE_HALVES, .activation = FFN_GELU, .parallel = PARALLEL_ALWAYS,
      .flags = ARCH_NORM_BIAS | ARCH_ALL_BIAS | ARCH_NO_GATE | ARCH_UNTIED },
    { .name = "phi3", .rope = ROPE_HALVES },
    { .name = "gpt2", .norm = NORM_LAYER, .activation = FFN_GELU,
      .flags = ARCH_NORM_BIAS | ARCH_ALL_BIAS | ARCH_NO_GATE | ARCH_POSITIONS },
    { .name = "gptneox", .norm = NORM_LAYER, .rope = ROPE_HALVES, .activation = FFN_GELU, .parallel = PARALLEL_KEY,
      .flags = ARCH_NORM_BIAS | ARCH_ALL_BIAS | ARCH_NO_GATE | ARCH_UNTIED },
    { .name = "stablelm", .norm = NORM_LAYER, .rope = ROPE_HALVES, .qk_norm = QK_HEAD_LAYER,
      .parallel = PARALLEL_WITHOUT_FFN_NORM, .flags = ARCH_NORM_BIAS | ARCH_UNTIED },
    { .name = "starcoder2", .norm = NORM_LAYER, .rope = ROPE_HALVES, .activation = FFN_GELU,
      .flags = ARCH_NORM_BIAS | ARCH_ALL_BIAS | ARCH_NO_GATE },
    { .name = "olmo2", .rope = ROPE_HALVES, .qk_norm = QK_WHOLE, .rope_local = LOCAL_UNSCALED, .window = { 4, 0, false },
      .flags = ARCH_NO_PRE_NORM | ARCH_POST_NORM | ARCH_UNTIED },
    { .name = "olmoe", .rope = ROPE_HALVES, .qk_norm = QK_WHOLE, .experts = { GATING_SOFTMAX, false, false },
      .flags = ARCH_UNTIED | ARCH_EXPERTS },
    { .name = "gpt-oss", .rope = ROPE_HALVES, .activation = FFN_SWIGLU_CLAMPED, .window = { 2, 0, true },
      .experts = { GATING_SOFTMAX_CHOSEN, false, false },
      .flags = ARCH_SINKS | ARCH_ALL_BIAS | ARCH_FFN_NORM_IS_POST | ARCH_UNTIED | ARCH_EXPERTS },
    { .name = "falcon", .norm = NORM_LAYER, .rope = ROPE_HALVES, .activation = FFN_GELU, .parallel = PARALLEL_ALWAYS,
      .flags = ARCH_NORM_BIAS | ARCH_NO_GATE | ARCH_TWO_NORMS },
    { .name = "bitnet", .rope = ROPE_HALVES, .flags = ARCH_SUB_NORM },
    { .name = "nemotron", .norm = NORM_LAYER, .rope = ROPE_HALVES, .activation = FFN_RELU2,
      .flags = ARCH_NORM_BIAS | ARCH_NO_GATE | ARCH_UNTIED },
    { .name = "exaone4", .rope = ROPE_HALVES, .qk_norm = QK_HEAD, .rope_where = ROPE_WINDOWED_IF_ANY, .window = { 4, 0, false },
      .flags = ARCH_NO_PRE_NORM | ARCH_POST_NORM },
    { .name = "mpt", .norm = NORM_LAYER, .activation = FFN_GELU, .flags = ARCH_NO_GATE | ARCH_ALIBI },
    { .name = "mamba", .mixer = MIXERS_SSM },
    { .name = "lfm2", .mixer = MIXERS_CONV, .rope = ROPE_HALVES, .qk_norm = QK_HEAD, .flags = ARCH_OUTPUT_NORM_EMBD },
};

const struct arch *arch_find(const char *name, size_t n)
{
    for (size_t i = 0; i < sizeof ARCHS / sizeof *ARCHS; i++)
        if (strlen(ARCHS[i].name) == n && memcmp(ARCHS[i].name, name, n) == 0)
            return &ARCHS[i];
    return NULL;
}

const struct arch *arch_at(size_t i)
{
    return i < sizeof ARCHS / sizeof *ARCHS ? &ARCHS[i] : NULL;
}
