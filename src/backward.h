/* backward.h - the forward pass again, in f32 and with its mirror: what a loss on the logits says about every weight.
 *
 * One call takes a few sequences of equal length through the model, keeps each layer's input, and on the way back recomputes a
 * layer at a time. The caller sees every linear map's inputs on the way forth, and its inputs together with the gradient of its
 * outputs on the way back: enough for second moments (calibration), Fisher information, and gradients of anything that makes
 * the weights.
 *
 * Weights come from the model's file, decoded a matrix at a time, or from the caller (rounded and trained ones): `weights[id]`.
 * Supported: decoders with RMS norms, attention and gated feed-forward parts, dense or mixtures of experts (llama, mixtral, qwen2,
 * qwen3 and their mixtures, gemma, gemma2, gemma3, olmo2, olmoe, smollm3, granite, granitemoe, exaone4, gpt-oss and others of that
 * shape); the others are refused by name. Who a router chooses is taken as fixed: gradients flow through the weights.
 * The way back costs about twice the way forth, what is computed again included: 7.9 against 3.9 million instructions per token of
 * tiny-books (BF16, 48 tokens, AVX2; callgrind, 2026-11-21). */
#ifndef QUERN_BACKWARD_H
#define QUERN_BACKWARD_H

#include "dense.h"
#include "model.h"
#include "rope.h"

/* Linear maps: layer * LINEAR_KINDS + kind; the head comes last. */
enum linear_kind { LINEAR_Q, LINEAR_K, LINEAR_V, LINEAR_OUT, LINEAR_GATE, LINEAR_UP, LINEAR_DOWN, LINEAR_KINDS };
/* Mixtures of experts: backward.linears + layer * EXPERT_KINDS + kind. Router, shared expert and its factor see every token, the
 * three stacks only those that were sent to them. */
enum expert_kind { EXPERT_ROUTER, EXPERT_FACTOR, EXPERT_SHARED_GATE, EXPERT_SHARED_UP, EXPERT_SHARED_DOWN, EXPERT_GATE, EXPERT_UP,
                   EXPERT_DOWN, EXPERT_KINDS };
/* Norm weights: layer * NORM_KINDS + kind; the output norm comes last. */
enum norm_place { NORM_ATTN, NORM_Q, NORM_K, NORM_POST_ATTN, NORM_FFN, NORM_POST_FFN, NORM_KINDS };

/* Rows of x and dy stand dense_stride(cols), dense_stride(rows) apart; n of them, sequence after sequence. */
struct backward_hooks {
    void *arg;
    /* On the way forth: what linear map `id` is multiplied with. NULL: not wanted. */
    void (*input)(void *arg, size_t id, const float *x, size_t n);
    /* On the way back: inputs and gradients of the outputs. */
    void (*linear)(void *arg, size_t id, const float *x, const float *dy, size_t n);
    /* One expert of a stack: x, dy (NULL on the way forth) of the tokens that it got; slots[i] = token * experts_used + choice.
     * NULL: as above. */
    void (*expert)(void *arg, size_t id, size_t expert, const uint32_t *slots, const float *x, const float *dy, size_t n);
    /* Gradient of a norm's weights, f32 [width of the norm]. */
    void (*norm)(void *arg, size_t id, const float *gradient);
    /* Gradient of the embedding's output, one row per token. */
    void (*embedding)(void *arg, const int32_t *tokens, const float *dx, size_t n);
};

struct backward_layer;

struct backward {
    const struct model *m;
    struct dense   dense;
    struct pool   *pool;
    const float  **weights;      /* [all] by id: f32 [slices][rows][dense_stride(cols)], the caller's, or NULL: the file's */
    const float   *embedding;    /* f32 [vocab][dense_stride(width)], the caller's, or NULL */
    const float  **norms;        /* [norms] by id; NULL where the model has none */
    size_t         linears, norm_count;
    size_t         all;          /* linear maps with those of experts: ids are below it */
    size_t         most;         /* tokens per call */
    size_t         bytes;        /* that it took */
    size_t         band;         /* values of a matrix that are decoded together; may be made smaller, not larger */
    size_t         n, length;    /* of the call at hand: tokens, tokens per sequence */
    const int32_t *tokens;
    struct rope_table rope[ROPE_TABLES];
    float         *angles[ROPE_TABLES], *inverse[ROPE_TABLES];   /* [most][pairs][2]; inverse: sines negated */
    float        **kept;         /* [layers + 1] residual before each layer and after the last: [most][stride(width)] */
    struct backward_layer *buffers;
    void          *memory;
};

/* Room for calls of at most `most_tokens` tokens in sequences of at most `most_length`. QUERN_EUNSUPPORTED names what the mirror
 * does not know. The model, pool and kernels must outlive it. */
bool backward_init(struct backward *b, const struct model *m, const struct kernels *kernels, struct pool *pool, size_t most_tokens,
                   size_t most_length, struct quern_error *err);
void backward_free(struct backward *b);

/* The matrix behind a linear map. */
const struct matrix *backward_matrix(const struct model *m, size_t id);
/* Decode it: out f32 [slices][rows][dense_stride(cols)], the gap zero. Its scale is in the result. */
void backward_decode(const struct backward *b, const struct matrix *w, float *out);
/* The model's own weights of norm `id`, NULL where it has none, and how many they are. */
const float *backward_norm(const struct model *m, size_t id);
size_t backward_norm_width(const struct model *m, size_t id);

/* tokens: sequences * length ids, each sequence from position 0. logits: [n][dense_stride(vocab)], may be NULL when only the
 * inputs are wanted. `tokens` must stay until backward_run. */
void backward_forward(struct backward *b, const int32_t *tokens, size_t sequences, size_t length, float *logits,
                      const struct backward_hooks *hooks);
/* The way forth in steps, for callers who hold the residuals of more tokens than one call takes: x [n][dense_stride(width)] are
 * those of one call. backward_embed makes them, backward_layer replaces them by the result of layer `index`, backward_last tells
 * the hook of the head's input. Not to be mixed with backward_run. */
void backward_embed(struct backward *b, const int32_t *tokens, size_t sequences, size_t length, float *x);
void backward_layer(struct backward *b, size_t index, float *x, size_t sequences, size_t length,
                    const struct backward_hooks *hooks);
void backward_last(struct backward *b, const float *x, size_t sequences, size_t length, const struct backward_hooks *hooks);
/* dlogits: gradient of the loss by the logits that backward_forward gave, same layout; is overwritten. `logits`: those, needed
 * where the model caps them (else may be NULL). Sums over tokens, no mean is taken. */
void backward_run(struct backward *b, const float *logits, float *dlogits, const struct backward_hooks *hooks);

#endif
