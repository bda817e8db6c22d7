/* bench.h - time a model's passes, and set them against what the machine gives at the same moment.
 *
 * A bench holds a model with caches of its own and a buffer larger than the caches of the CPU. bench_measure times one test some
 * times over, with the roofs measured before and after; bench_profile does the same test with a clock that says where the time
 * goes. The neighbours of a virtual machine take memory bandwidth without a trace in the load, hence the roofs around every row. */
#ifndef QUERN_BENCH_H
#define QUERN_BENCH_H

#include "cost.h"
#include "runner.h"

struct bench_plan {
    size_t       threads, sequences;
    size_t       pass;               /* tokens per pass when prefilling */
    size_t       context;            /* tokens per cache */
    enum kv_type kv;
    double       load;               /* seconds that opening the model took, for the rows */
    const volatile int *stop;
    void (*show)(void *arg, const char *what, double share);   /* progress, never while time is taken; NULL: none */
    void        *show_arg;
};

struct bench {
    const struct quern_model *model;
    struct bench_plan plan;
    struct pool   *pool;
    struct runner  runner;
    struct stage_clock clock;
    struct roof    loops;
    bool           used[ROOF_KINDS]; /* the model multiplies such numbers */
    unsigned char *buffer;           /* read for the memory roof */
    size_t         buffer_bytes;
    int32_t       *tokens;           /* [context] */
    struct batch_part *parts;        /* [sequences] */
    struct rates   roof;             /* of the last probe */
};

struct bench_row {
    const char *test;                /* "prefill", "decode" */
    size_t n, batch, depth, reps;    /* asked for */
    size_t threads;                  /* found */
    double tps_median, tps_min, tps_max;   /* tokens per second, all sequences together */
    double seconds;                  /* median of a repetition */
    double bytes_per_token;          /* bytes that must be read / tokens */
    double gbps, gops;               /* reached */
    double roof_gbps, roof_gops;     /* mean of the probes before and after; gops: for this mix of operations */
    double share;                    /* ideal time / time */
    double ttft, load;               /* seconds: load + prefill (or one step); opening the model */
    double first;                    /* seconds of the repetition that is not counted: pages of a new file are read in it */
    double huge, copied;             /* part of the weights in huge pages; in those that are copies of the page cache's */
    size_t peak_memory;              /* without the buffer of the roof */
    bool   noisy;
    char   verdict[96];              /* "quiet", or what moved by how much */
    const char *isa, *kv;
    struct rates roof;
};

/* A stage in one repetition of a prefill, or in one step of a decode test. */
struct bench_stage {
    enum stage stage;
    double seconds, share;           /* of the whole */
    double waiting;                  /* part of the threads' time that they stood still: late, early, or a stage of one thread */
    double bytes, ops, gbps, gops;
    double roof_share;               /* ideal time / time; 0 for stages whose data lies in caches */
};

/* Bytes that bench_open will take. */
bool bench_bytes(size_t *cache, size_t *scratch, const struct quern_model *model, const struct bench_plan *plan,
                 struct quern_error *err);
bool bench_open(struct bench *b, const struct quern_model *model, const struct bench_plan *plan, struct quern_error *err);
void bench_close(struct bench *b);
/* row->test, n, batch, depth, reps say what to do. QUERN_EINTERRUPT when the stop flag was set. */
bool bench_measure(struct bench *b, struct bench_row *row, struct quern_error *err);
/* The same test again as often, by a row that was measured. out: what the repetition of median time spent, largest first; *count
 * stages of it took any time. out[STAGES]. */
bool bench_profile(struct bench *b, const struct bench_row *row, struct bench_stage *out, size_t *count, struct quern_error *err);

#endif
