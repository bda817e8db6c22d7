/* tune.h - what a rounded model can still change within its bytes, trained until its logits are nearest to the original's.
 *
 * What is trained: the half-precision scales (and minimums) of the blocks and the f32 weights of the norms. With
 * code_rate the codes too, where a format allows it (tune_codes.h); that takes 16 bytes per weight. Sub-scales, layout, types and
 * sizes stay what they are, so the result runs wherever the rounded file runs.
 * The loss is KL(original || rounded) over all logits of a few hundred thousand calibration tokens, by Adam with steps relative to
 * each parameter's size. The pass always computes with the halves as they stand in the file: what is measured is what is written.
 * Now and then the loss on held-out text is measured; the best state seen, which may be the first, is the result.
 *
 * The same files, texts and options give the same bytes for any number of threads. Models that backward.h refuses are refused, and
 * mixtures of experts. */
#ifndef QUERN_TUNE_H
#define QUERN_TUNE_H

#include "backward.h"
#include "tokenizer.h"

struct tune_text {
    const char *text;         /* not copied                                                    */
    size_t      bytes;
};

struct tune_options {
    const struct tune_text *texts;       /* calibration, one per domain; each gets an equal share of the tokens */
    size_t                  text_count;
    struct tune_text        held_out;    /* of another domain; decides when to stop             */
    size_t   tokens;          /* to learn from, over all steps                                 */
    size_t   length;          /* of a sequence                                                 */
    size_t   batch;           /* sequences per step                                            */
    double   scale_rate;      /* first step of a block's scale, relative to its size; 0: keep  */
    double   norm_rate;       /* of norm weights, relative to the norm's largest; 0: keep      */
    double   code_rate;       /* of the codes, in steps between neighbours; 0: keep            */
    size_t   checks;          /* measurements on held-out text while training                  */
    size_t   held_out_tokens; /* of each                                                       */
    size_t   patience;        /* measurements without a new best before it stops; 0: never     */
    size_t   mem_limit;       /* bytes that tuning may take beside the files; 0: none          */
    struct pool        *pool;
    const volatile int *stop; /* non-zero: end with QUERN_EINTERRUPT; NULL: none               */
    void   (*show)(void *arg, double share);   /* progress, 0..1; NULL: none                   */
    void    *show_arg;
};

/* What works for models of a few million to a few hundred million weights; texts, held_out and pool are the caller's to set. */
void tune_default(struct tune_options *options);

struct tune_result {
    size_t parameters;        /* scales, minimums and norm weights trained                     */
    size_t codes, codes_changed;      /* integers that might change, and that did              */
    size_t steps, best_step;  /* done; the one after which the result stood, 0: nothing gained */
    size_t tokens;            /* learned from                                                  */
    double before, after;     /* mean KL on the held-out tokens, nats per token                */
    double train_first, train_last;   /* mean KL of the first and the last step's tokens       */
};

/* From file to file: `rounded` is read, `out` is written with its keys and tensors, in one step. Both may be the same path when
 * `force` is set; then nothing is written when nothing was gained. QUERN_EFORMAT: the models differ in architecture or shapes;
 * QUERN_EUSAGE: a text is shorter than one sequence, nothing to train; QUERN_EFAIL: the loss is no number; QUERN_EUNSUPPORTED:
 * split files; QUERN_EMEM, QUERN_EINTERRUPT. No file is left behind after a failure. */
bool tune_rounded(struct tune_result *result, const struct quern_model *original, const char *rounded, const char *out, bool force,
                  const struct tune_options *options, struct quern_error *err);
bool tune_file(struct tune_result *result, const char *original, const char *rounded, const char *out, bool force,
               const struct tune_options *options, struct quern_error *err);

#endif
