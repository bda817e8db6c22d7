/* forward.h - a batch of tokens through the model.
 *
 * A batch has one part per sequence: tokens that follow what the sequence's cache holds. The pass goes layer by layer over all
 * tokens of all parts together; a layer is a handful of stages, each spread over the pool in chunks that threads take as they
 * finish. No result depends on how a sequence was cut into batches, on what else is in the batch or on the number of threads:
 * every sum that belongs to one token has one order (kernels.h promises it for products, attention.c for its tiles).
 *
 * Everything a pass needs is carved from one allocation when the struct is made; forward_run allocates nothing. */
#ifndef QUERN_FORWARD_H
#define QUERN_FORWARD_H

#include <stdatomic.h>

#include "kv.h"
#include "model.h"
#include "pool.h"
#include "rope.h"
#include "stages.h"

struct batch_part {
    struct kv     *kv;         /* the sequence; its `used` grows by `count` when the pass has succeeded */
    const int32_t *tokens;     /* [count] */
    size_t         count;
    size_t         wanted;     /* logits after the last `wanted` tokens, <= count */
};

/* Vectors made ready for products, in each form that some weight format of the model asks for. */
struct acts {
    unsigned char *data[ACT_KINDS];     /* [vectors][stride] */
    size_t         stride[ACT_KINDS];   /* bytes, for the number of columns at hand */
    size_t         bytes[ACT_KINDS];    /* capacity; 0: the form is not in use */
};

enum { MIX_BUFFERS = 5, NEXT_PRODUCTS = 3 };

struct thread_scratch {
    void  *kernel;      /* kernels_scratch bytes */
    float *rows;        /* a chunk of a product before it is gated or added */
    float *vector;      /* one token's vector */
    float *attention;   /* queries, scores, sums (attention.c) */
    _Atomic uint64_t *run;      /* on a cache line of its own: pieces of a stage's products that nobody has taken yet, of those that
                                 * this thread begins with (products.c) */
};

/* For those who look into passes: begin in the middle, keep what layers read, take logits a few rows at a time. The caches of the
 * layers that are left out are not written, so a pass that begins in the middle takes whole sequences. */
struct forward_trail {
    size_t       first;        /* the layer to begin with; the number of layers: only the head */
    const float *input;        /* what it reads, f32 [tokens][width] (the head: [wanted][width]); NULL: from the tokens, first: 0 */
    float      **keep;         /* [layers + 1] where to copy what each layer (last: the head) reads; NULL entries: not wanted */
    size_t       rows;         /* `logits` has room for so many */
    void       (*see)(void *arg, size_t row, size_t count);    /* rows [row, row + count) of the pass stand at `logits` */
    void        *arg;
};

struct forward {
    const struct model   *m;
    const struct kernels *k;
    struct pool          *pool;
    size_t threads, context, max_tokens, max_parts;
    const volatile int *stop;            /* may be NULL; not zero: the pass ends between layers with QUERN_EINTERRUPT */
    struct stage_clock *clock;           /* NULL unless somebody measures */
    const struct forward_trail *trail;   /* NULL: the whole pass, all logits at once */

    void  *memory;                       /* everything below points into it */
    struct rope_table rope[ROPE_TABLES];
    float *x, *h, *h2, *y;               /* [max_tokens][width]: residual, normed, the other norm, a part's output */
    float *mix[MIX_BUFFERS];             /* what a mixer works on, widths as mixer_widths says */
    float *hidden;                       /* feed-forward, [tokens][ff] or [slots][expert_ff] then [tokens][shared_ff] */
    float *angles[ROPE_TABLES];          /* [max_tokens][pairs][2] */
    float *partial;                      /* attention.c: of long contexts, cut into spans */
    atomic_uint *spans_left;             /* attention.c: of each block, those that are not in `partial` yet */
    struct acts in, mid;                 /* a layer's input; a mixer's and the feed-forward part's inner vectors */
    struct product *products;
    struct product *next;                /* [NEXT_PRODUCTS], expect_product */
    size_t next_count;
    struct moe *moe;                     /* moe.c */
    struct thread_scratch *scratch;      /* [threads] */

    /* the batch at hand */
    const struct batch_part *parts;
    size_t  part_count, n;               /* n: tokens that are still carried, all or, at the end, the wanted ones */
    size_t *pos;                         /* [n] absolute position */
    size_t *part_of;                     /* [n] */
    size_t *first;                       /* [parts] its first token in the batch */
    size_t *order;                       /* [wanted] token of each row of logits */
    size_t  wanted;
};

/* Bytes that forward_init will take for at most `max_tokens` tokens of at most `max_parts` sequences per pass. */
bool forward_bytes(size_t *out, const struct model *m, const struct kernels *k, size_t threads, size_t max_tokens, size_t max_parts,
                   size_t context, struct quern_error *err);
/* `context` is the size of the sessions' caches: it chooses among rotations and bounds the scratch of attention. The model, the
 * kernels and the pool must outlive it. */
bool forward_init(struct forward *f, const struct model *m, const struct kernels *k, struct pool *pool, size_t max_tokens,
                  size_t max_parts, size_t context, struct quern_error *err);
void forward_free(struct forward *f);

/* logits: f32 [sum of wanted][vocab], part after part. Errors before any compute: QUERN_ELIMIT when a part does not fit its
 * cache, QUERN_EUSAGE for ids outside the vocabulary or a batch larger than planned. Errors after: QUERN_EINTERRUPT,
 * QUERN_EFAIL for logits that are not finite, naming the position. After any error the caches are as before, recurrent ones
 * (which have no way back) empty if the pass had begun. */
bool forward_run(struct forward *f, const struct batch_part *parts, size_t part_count, float *logits, struct quern_error *err);

/* ---- for the parts of the pass (products.c, attention.c, mixer_*.c, moe.c) --------------------------------------- */

/* What follows is `stage`, for the clock if there is one. */
static inline void enter_stage(const struct forward *f, enum stage stage)
{
    if (f->clock)
        stages_enter(f->clock, stage);
}

/* Work on token `tok`; `thread` names the scratch. */
typedef void token_fn(struct forward *f, const void *arg, size_t tok, size_t thread);
/* Call fn for every token in [0, n). */
void run_tokens(struct forward *f, token_fn *fn, const void *arg, size_t n);

enum product_finish {
    FINISH_STORE,       /* out = W x + bias                                                   */
    FINISH_ADD,         /* out += factor * (W x + bias)                                       */
    FINISH_ACTIVATE     /* out = activation(gate x) * (W x), or activation(W x) without gate  */
};

/* One matrix (or a pair, gate and up) times vectors. */
struct product {
    const struct matrix *w, *gate;
    size_t slice;                        /* of both */
    const struct acts *in;
    size_t first, step;                  /* token t reads vector first + t * step */
    size_t toks;
    float *out;
    size_t out_stride;                   /* floats */
    enum product_finish finish;
    float  factor;
    size_t piece_rows, first_piece;      /* set by run_products */
};
/* All of them as one stage. Products with no tokens are allowed. */
void run_products(struct forward *f, struct product *list, size_t n);
/* After the stage that begins next comes one that starts with this matrix (and gate): a hint, so that its first rows are on their
 * way while threads wait. Up to NEXT_PRODUCTS per stage; a matrix without data is left out. */
void expect_product(struct forward *f, const struct matrix *w, const struct matrix *gate);
/* The first products of the layer behind this one; behind the last one the head. */
void expect_layer_after(struct forward *f, const struct layer *l);
/* For stages of few, large units: before pool_run a run of neighbouring ones for each thread; within it the next one for a
 * thread, of its own or from the back of the longest other run, false when all are taken. */
void share_units(struct forward *f, size_t units);
bool next_unit(const struct forward *f, size_t thread, size_t *unit);
size_t product_scratch_floats(const struct kernels *k, size_t max_tokens);

/* Say how wide the vectors of `acts` are from now on. */
void acts_shape(struct acts *acts, size_t cols);
/* Make vector `i` from x: f32 [cols]. */
void acts_prepare(const struct forward *f, struct acts *acts, size_t i, const float *x, size_t cols);
/* The same for tokens [0, n) at x + t * stride, as a stage; acts_shape is called. */
void prepare_tokens(struct forward *f, struct acts *acts, const float *x, size_t stride, size_t cols, size_t n);
/* out = norm(x), as the architecture says; in place allowed. Without weight: a copy. */
void norm_vector(const struct forward *f, float *out, const float *x, const struct norm *norm);
/* x += residual_scale * (W act + bias); with a post norm: of its result. The act vectors are in f->mid, one per token. */
void add_product(struct forward *f, const struct matrix *w, const struct norm *post);
/* x += residual_scale * norm(y), for one token, for all. */
void add_to_residual(struct forward *f, const struct norm *post, size_t tok);
void add_rows(struct forward *f, const struct norm *post);

/* The mixers: read f->h (f32) and f->in (prepared), add to f->x. Each says what it needs per token: floats in f->mix[], the widest
 * vector that it prepares in f->mid, and where it prepares one per head, how many and how wide. */
struct mixer_need { size_t cols[MIX_BUFFERS]; size_t vector_cols, heads, head_cols; };
void attention_need(const struct model *m, const struct layer *l, struct mixer_need *need);
void attention_mix(struct forward *f, const struct layer *l, size_t index);
void mla_need(const struct model *m, const struct layer *l, struct mixer_need *need);
void mla_mix(struct forward *f, const struct layer *l, size_t index);
void conv_need(const struct model *m, const struct layer *l, struct mixer_need *need);
void conv_mix(struct forward *f, const struct layer *l, size_t index);
void ssm_need(const struct model *m, const struct layer *l, struct mixer_need *need);
void ssm_mix(struct forward *f, const struct layer *l, size_t index);
void delta_need(const struct model *m, const struct layer *l, struct mixer_need *need);
void delta_mix(struct forward *f, const struct layer *l, size_t index);

/* Attention proper. q: f32 [n][q_stride], head after head every head_step values, key_dim of each used. out: f32
 * [n][heads][value_dim]. The batch's keys and values are in the caches already (k NULL), or at k and v, f32 [n][kv_heads][key_dim]
 * and [value_dim], and attend stores them: where attend_stores allows it. */
struct attention {
    const struct layer *layer;
    size_t       index;
    const float *q;
    size_t       q_stride, head_step;
    float       *out;
    size_t       out_stride;
    const float *k, *v;
};
/* Whether no token of the batch needs a row of another block of queries: few tokens per sequence, as in decoding. The thread that
 * reads a head's last rows then writes them too, and a line of the cache is not passed from core to core twice a step. */
bool attend_stores(const struct forward *f, const struct layer *l);
void attend(struct forward *f, const struct attention *a);
/* Floats per thread, floats of f->partial, and counters in f->spans_left that attend needs. */
size_t attend_scratch_floats(const struct model *m);
size_t attend_partial_floats(const struct model *m, size_t context);
size_t attend_blocks(const struct model *m);
/* Write token tok's row for every key head: k f32 [kv_heads][k_step..], first key_dim of each;
 * v likewise (NULL: values lie in the keys). */
void store_keys(const struct forward *f, size_t index, size_t tok, const float *k, size_t k_step, const float *v, size_t v_step);

/* Causal convolution with `taps` taps over [n][channels] at x, per channel: out[t] = bias + sum over j of w[c][j] *
 * x[t - taps + 1 + j]; what lies before the batch comes from the state, which is renewed. out != x. silu: applied to the result. */
struct conv {
    const float *x;  size_t x_stride;
    float *out;      size_t out_stride;
    const float *weight, *bias;
    size_t taps, channels, layer;
    bool   silu;
};
void convolve(struct forward *f, const struct conv *c);

/* Mixture of experts (moe.c): reads f->h and f->in, adds to f->x. */
void moe_forward(struct forward *f, const struct layer *l);

/* Take `count * size` bytes, 64-byte aligned, at *offset of `base` (NULL: only count); false when the sum overflows. */
bool carve(unsigned char *base, size_t *offset, void *out, size_t count, size_t size);

/* The prepared form that a matrix multiplies: a bit per kind, none for a matrix without data. */
unsigned kinds_of(const struct kernels *k, const struct matrix *w);
/* Prepared bytes of one vector in each form. */
void act_bytes(size_t out[ACT_KINDS], size_t cols);
/* Take room for `vectors` vectors in the forms of `kinds` (a bit per kind). */
bool carve_acts(struct acts *acts, unsigned char *base, size_t *offset, unsigned kinds, size_t vectors,
                const size_t per_vector[ACT_KINDS]);

#endif
