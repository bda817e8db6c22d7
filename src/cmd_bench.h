/* cmd_bench.h - how `quern bench` prints what it measured. */
#ifndef QUERN_CMD_BENCH_H
#define QUERN_CMD_BENCH_H

#include "bench.h"

/* In the order of --format. */
enum bench_format { BENCH_TABLE, BENCH_MD, BENCH_CSV, BENCH_JSON, BENCH_JSONL };

struct bench_output {
    enum bench_format format;
    bool stages;                 /* every row is followed by its stages */
    bool any;                    /* a row has been printed */
};

/* A row, and before the first one what stands above it; with out->stages, `count` stages. */
void bench_print_row(struct bench_output *out, const struct bench_row *row, const struct bench_stage *stages, size_t count);
/* What belongs to the run: rows[n] are the last ones of each number of threads. */
void bench_print_foot(const struct bench_output *out, const struct bench_row *rows, size_t n);

#endif
