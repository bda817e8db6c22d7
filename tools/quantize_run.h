/* quantize_run.h - one run of quern-quantize: what it was told, what it holds, and its steps in the order in which they are taken.
 *
 *     quantize_main.c     the options, the order of the steps
 *     quantize_inputs.c   source, importances, types as the user names them; what is refused before any work
 *     quantize_size.c     how many bytes the file may have, and whether the disk has room for them
 *     quantize_stages.c   the measured plan, second moments, rounding, tuning, the receipt
 *     quantize_report.c   what --dry-run prints
 *
 * Steps give false with the error in err; what they opened is closed at the end of main, whichever of them failed. */
#ifndef QUERN_QUANTIZE_RUN_H
#define QUERN_QUANTIZE_RUN_H

#include "cli.h"
#include "plan.h"
#include "preset.h"
#include "refine.h"
#include "source.h"
#include "workplace.h"

/* Filled by the option table of quantize_main.c; 0, NULL or false where nothing was said. */
struct quantize_args {
    struct args         args;
    struct option_texts types;                            /* the mix, and REGEX=TYPE */
    size_t              size;                             /* bytes of the file       */
    float               bpw;
    const char         *ratio;
    const char         *imatrix, *calibration, *heldout, *stats, *recipe, *save_recipe, *tune_stop;   /* files */
    const char         *fail_if;
    bool                lax_imatrix, plain, dry_run, force, requantize, no_search, no_feedback, tune;
    int                 weights;                          /* enum rounding_weights   */
    int                 gather;                           /* 0: fisher, 1: diagonal  */
    size_t              tune_tokens, threads, mem_limit;
};

struct run {
    const struct quantize_args *args;
    struct source        source;
    struct quern_model  *model;          /* NULL with --plain */
    struct plan          choice;         /* what was measured; count 0: nothing was */
    bool                 adaptive;       /* the types are found out, not a mix's */
    double               planned;        /* seconds that deciding took */
    struct gguf          input;
    struct imatrix       matrix;
    bool                 have_input, have_matrix;
    struct type_rule    *rules;
    size_t               rule_count;
    const struct preset *preset;         /* named, or nearest in size */
    struct plan_item    *plan;           /* [input.tensor_count] */
    struct rounding     *rounding;
    struct pool         *pool;
    struct kernels       kernels;
    struct progress      progress;
    struct quantize_job  job;
    struct refine        refine;
    bool                 have_refine;
    struct workplace     work;           /* empty with --dry-run */
    char                 cpu[sizeof ((struct cpu *)0)->features + 32];
};

/* Types and sizes of the command line, the output's hidden files, the source, the importances that the user has; threads. */
bool run_open_inputs(struct run *r, struct quern_error *err);
/* What would be found out only after the work: the output exists, or is the input. */
bool run_check_output(const struct run *r, struct quern_error *err);
/* The user's importances, if there are any, are another model's, or lack tensors that the plan rounds. `lax`: only their shapes are
 * looked at, as a recipe may leave whole what the draft rounds. */
bool run_check_matrix(const struct run *r, bool lax, struct quern_error *err);
/* The types of the plan need importances that are not there; and run_check_matrix. */
bool run_check_importances(const struct run *r, struct quern_error *err);
/* Is the source rounded already? */
bool run_check_twice(const struct run *r, struct quern_error *err);
/* Everything that the rounded file depends on: program, processor, command, files. */
void run_hash(const struct run *r, char key[65]);

/* What a tensor of so many bytes takes in the file: the next one begins at a multiple of the alignment. */
size_t run_padded_bytes(size_t bytes);
/* Bytes of the file with the types that the plan has now, without what the receipt adds. */
size_t run_file_bytes(const struct run *r);
/* How many bytes the file may have: as asked, or as many as the mix has. */
bool run_wanted_bytes(const struct run *r, size_t *out, struct quern_error *err);
/* r->preset for a run whose size is a number: the mix whose size is nearest. */
bool run_nearest_preset(struct run *r, struct quern_error *err);
/* Room on the disk, before hours of work. */
bool run_check_space(struct run *r, struct quern_error *err);

/* Find out what each tensor needs: r->model, r->choice, r->plan; second moments in r->refine. */
bool run_decide(struct run *r, struct quern_error *err);
/* The receipt and the tuning run the source too. Whether it can be tuned is found out before it is rounded. */
bool run_open_source_model(struct run *r, struct quern_error *err);
/* Round, tune, measure, write. */
bool run_write_output(struct run *r, struct quern_error *err);

#endif
