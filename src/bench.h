/* bench.h - time a model's passes, and set them against what the machine gives at the same moment. */
#ifndef QUERN_BENCH_H
#define QUERN_BENCH_H

#include "roof.h"
#include "runner.h"

struct bench_plan {
    size_t       threads, sequences;
    size_t       pass;               /* tokens per pass when prefilling */
    size_t       context;            /* tokens per cache */
    enum kv_type kv;
    double       load;               /* seconds that opening the model took, for the rows */
    const volatile int *stop;
};

struct bench {
    const struct quern_model *model;
    struct bench_plan plan;
    struct pool   *pool;
    struct runner  runner;
    struct roof    roof;
    unsigned char *buffer;           /* read for the memory roof */
    size_t         buffer_bytes;
    int32_t       *tokens;           /* [context] */
    struct batch_part *parts;        /* [sequences] */
    double         roof_gbps, roof_gops;   /* the last probe */
};

struct bench_row {
    const char *test;                /* "prefill", "decode" */
    size_t n, batch, depth, reps;    /* asked for */
    size_t threads;                  /* found */
    double tps_median, tps_min, tps_max;   /* tokens per second, all sequences together */
    double bytes_per_token;          /* bytes that must be read / tokens */
    double gbps, gops;               /* reached */
    double roof_gbps, roof_gops;     /* mean of the probes before and after */
    double share;                    /* ideal time / time */
    double ttft, load;               /* seconds: load + prefill; opening the model */
    size_t peak_memory;
    bool   noisy;
    const char *isa, *kv;
};

bool bench_bytes(size_t *cache, size_t *scratch, const struct quern_model *model, const struct bench_plan *plan,
                 struct quern_error *err);
bool bench_open(struct bench *b, const struct quern_model *model, const struct bench_plan *plan, struct quern_error *err);
void bench_close(struct bench *b);
/* row->test, n, batch, depth, reps say what to do. QUERN_EINTERRUPT when the stop flag was set. */
bool bench_measure(struct bench *b, struct bench_row *row, struct quern_error *err);

#endif
