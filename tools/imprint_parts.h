/* imprint_parts.h - what imprint.c and imprint_layout.c share: which tensors meet which inputs, and the order of the file.
 *
 * An input is a vector that one or more matrices of a layer are multiplied with (q, k and v share theirs); its second moments are
 * gathered once. A map is a tensor of the model's file; fused tensors (q|k|v) are one map. A stack of experts is one map whose
 * rows of inputs are slots: token * experts_used + choice. The file is a list of pieces in a fixed order, each a tensor of it. */
#ifndef QUERN_IMPRINT_PARTS_H
#define QUERN_IMPRINT_PARTS_H

#include "backward.h"
#include "calibration.h"
#include "hessian.h"
#include "imprint.h"
#include "stats.h"

struct imprint_map {
    size_t tensor;            /* of the model's file                                                   */
    size_t input;
    size_t rows;              /* outputs, of one expert                                                */
    size_t first_output;      /* of [outputs]                                                          */
    size_t first_guide;       /* of the guides per token                                               */
    float *hg, *held;         /* at work: [experts][triangle] guided moments; [experts][held rows]     */
};

struct imprint_input {
    char   name[48];          /* in the statistics */
    size_t layer;             /* where it occurs; the number of layers: before the head                */
    size_t id;                /* the first linear map that meets it: there it is gathered              */
    size_t cols, experts;
    size_t per_token;         /* rows per token: 1, or experts_used                                    */
    size_t first_map, map_count;
    float *h;                 /* at work: [experts][triangle]                                          */
    float *x_held, *held;     /* [held rows][cols], [experts][held rows] weights                       */
    float *tokens;            /* [STATS_PARTS][experts]                                                */
};

enum piece_kind { PIECE_GUIDES, PIECE_GRADIENTS, PIECE_TOKENS, PIECE_MOMENTS, PIECE_HELD_INPUTS, PIECE_HELD, PIECE_GUIDED,
                  PIECE_HELD_GUIDED };
struct piece {
    enum piece_kind kind;
    size_t of;                /* call, input or map */
    size_t shape[2];          /* f32 */
};

struct imprint {
    const struct imprint_options *options;
    const struct quern_model *source;
    const struct model *model;
    struct calibration text;
    size_t length, sequences, per_call, calls;      /* tokens per sequence, sequences, sequences per call       */
    size_t tokens;                                  /* length * sequences                                       */
    size_t held_every, held_rows;                   /* every so many-th token of the held-out calls is kept     */

    struct imprint_input *inputs;
    struct imprint_map   *maps;
    size_t input_count, map_count;
    size_t outputs, guides;                         /* of all maps, experts counted; per token, of all maps     */
    size_t *map_of, *row_of;                        /* [b.all] by id: map (SIZE_MAX: none), first row in it     */
    struct piece *pieces;
    size_t piece_count, next;                       /* next: the first that is not in the file                  */

    struct backward     b;
    struct hessian_work work;
    struct gguf_writer *writer;
    float *residuals;                               /* [tokens][stride(width)]                                  */
    float *logits, *dlogits;                        /* of one call; dlogits is logits unless they are capped    */
    float *guide;                                   /* [calls][guides][tokens of the call] mean squared gradient */
    float *gradients;                               /* [outputs] of the call at hand, summed over its tokens    */
    float *weight, *scaled, *square;                /* per row of a call's input                                */
    float *partial;                                 /* [chunks of outputs][rows]                                */
    size_t call, first_token, call_tokens;          /* at hand                                                  */
    size_t from, to;                                /* inputs that are gathered now                             */
};

/* Find the maps and inputs, plan the pieces. */
bool imprint_layout(struct imprint *m, struct quern_error *err);
void imprint_layout_free(struct imprint *m);
/* Write keys and the directory; m->next is where an earlier run ended. */
bool imprint_describe(struct imprint *m, struct quern_error *err);

/* Tokens of call c, and which part it is for. */
size_t imprint_call_tokens(const struct imprint *m, size_t call);
bool imprint_call_held(size_t call);

#endif
