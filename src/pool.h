/* pool.h - a fixed set of threads that work through numbered chunks together.
 *
 * A pool is passed in, never global. Chunks are handed out as threads finish (one slow core does not end the stage
 * alone), so nothing that a chunk computes may depend on which thread ran it or on the order: that is what makes the
 * output the same for any thread count. Waiting threads spin for a few microseconds, then sleep. */
#ifndef QUERN_POOL_H
#define QUERN_POOL_H

#include "error.h"

struct pool;

/* Work on chunk `index` of [0, chunks). `thread` in [0, pool_threads) names the scratch that this call may use. */
typedef void pool_fn(void *arg, size_t index, size_t thread);

/* Is that a number of threads that a pool takes? Else QUERN_EUSAGE, before anything was read or taken for it. */
bool pool_allows(size_t threads, struct quern_error *err);

/* `threads` >= 1 counts the calling thread. Where the system refuses threads the pool is smaller (pool_threads tells);
 * QUERN_EUSAGE for 0 or more than 1024, QUERN_EMEM only when the pool itself cannot be allocated. Free with pool_close. */
struct pool *pool_open(size_t threads, struct quern_error *err);
void pool_close(struct pool *pool);      /* NULL is allowed */
size_t pool_threads(const struct pool *pool);

/* Run fn for every chunk and wait for all. One caller at a time; fn must not call pool_run on the same pool. */
void pool_run(struct pool *pool, pool_fn *fn, void *arg, size_t chunks);

/* From within a chunk: memory that this thread will likely read first in the next job. While it waits it asks for it into its
 * cache; a wrong or even an invalid address is no harm. At most two pieces are remembered, until the thread's next job. */
void pool_soon(struct pool *pool, size_t thread, const void *at, size_t bytes);

/* Where a thread's seconds in chunks are added, on a cache line of its own. */
struct pool_lane {
    double busy;
    char   apart[64 - sizeof(double)];
};
/* From now on count into lanes[pool_threads]; NULL: no longer. Between jobs only, and to be read between jobs only. */
void pool_watch(struct pool *pool, struct pool_lane *lanes);

/* How many threads to use when the user names none: physical (and, on hybrid machines, performance) cores within the
 * affinity mask and the cgroup's CPU quota, at least 1. `why` (may be NULL, capacity `size`) gets one sentence. */
size_t pool_default_threads(char *why, size_t size);

#endif
