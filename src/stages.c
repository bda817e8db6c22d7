#include "stages.h"

#include <stdlib.h>
#include <string.h>

#include "machine.h"

const char *stage_name(enum stage stage)
{
    static const char *const names[STAGES] = {
        [STAGE_OTHER] = "embedding and rest", [STAGE_NORM] = "norm + quantize", [STAGE_QKV] = "q|k|v",
        [STAGE_POSITION] = "rotation + cache", [STAGE_ATTENTION] = "attention", [STAGE_OUT] = "out + residual",
        [STAGE_RECURRENT] = "recurrent mixer", [STAGE_ROUTE] = "routing", [STAGE_UP] = "gate|up + activation",
        [STAGE_DOWN] = "down + residual", [STAGE_HEAD] = "output",
    };
    return names[stage];
}

bool stages_open(struct stage_clock *clock, struct pool *pool, struct quern_error *err)
{
    *clock = (struct stage_clock){.pool = pool};
    clock->lanes = mem_take_aligned(pool_threads(pool), sizeof *clock->lanes, "a clock of stages", err);
    return clock->lanes != NULL;
}

void stages_close(struct stage_clock *clock)
{
    free(clock->lanes);
    *clock = (struct stage_clock){0};
}

static double busy(const struct stage_clock *clock)
{
    double sum = 0;
    for (size_t i = 0; i < pool_threads(clock->pool); i++)
        sum += clock->lanes[i].busy;
    return sum;
}

void stages_start(struct stage_clock *clock)
{
    memset(clock->lanes, 0, pool_threads(clock->pool) * sizeof *clock->lanes);
    memset(clock->seconds, 0, sizeof clock->seconds);
    memset(clock->worked, 0, sizeof clock->worked);
    pool_watch(clock->pool, clock->lanes);
    clock->now = STAGE_OTHER;
    clock->busy = 0;
    clock->since = machine_clock();
}

void stages_enter(struct stage_clock *clock, enum stage stage)
{
    double now = machine_clock(), done = busy(clock);
    clock->seconds[clock->now] += now - clock->since;
    clock->worked[clock->now] += done - clock->busy;
    clock->now = stage;
    clock->since = now;
    clock->busy = done;
}

void stages_stop(struct stage_clock *clock)
{
    stages_enter(clock, STAGE_OTHER);
    pool_watch(clock->pool, NULL);
}
