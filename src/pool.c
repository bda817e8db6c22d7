/* How chunks are handed out: `ticket` holds a generation in its upper half and the chunks that nobody has taken yet in its lower
 * half. A thread takes one by counting down; only after that does it read the job. The job cannot end before the chunk is
 * done, so what it reads is the job that the chunk belongs to, however late the thread came. The caller therefore waits for the
 * chunks, never for threads that took none: with more threads than cores the caller does most of the work itself instead of
 * waiting for each thread to be scheduled once per stage. */
#include "pool.h"

#include <pthread.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "machine.h"

/* How long a thread looks for work before it sleeps. Stages of a decode step follow each other within a few microseconds; a
 * sleeping thread takes 20 to 50 to come back. */
#define SPIN_SECONDS 50e-6

enum { STACK_BYTES = 512 * 1024, THREADS_MOST = 1024, LINE = 64 };

/* The lower half of a ticket is the number of chunks left plus this, so that threads which find none may still count down, once
 * each, without borrowing from the generation. */
enum { BIAS = 1 << 20, CHUNKS_MOST = 1 << 30 };

/* What a thread fetches while it waits; only the thread itself looks at it. */
struct soon {
    struct { const char *at; size_t lines; } piece[2];
    char apart[LINE - 2 * (sizeof(char *) + sizeof(size_t))];
};

struct worker {
    struct pool *pool;
    size_t       index;      /* 1.. ; 0 is the caller of pool_run */
    pthread_t    id;
};

struct pool {
    size_t           threads;
    bool             spin;           /* every thread has a core of its own */
    struct worker   *workers;        /* [threads - 1] */
    struct soon     *soon;           /* [threads] */
    pthread_mutex_t  lock;
    pthread_cond_t   work, idle;

    /* The job: written by the caller before it stores the ticket. */
    pool_fn *fn;
    void    *arg;
    size_t   base;                   /* index of the first chunk */
    uint32_t chunks;
    struct pool_lane *lanes;         /* NULL unless somebody measures */

    _Alignas(LINE) atomic_uint_least64_t ticket;   /* generation << 32 | (BIAS + chunks not taken) */
    _Alignas(LINE) atomic_uint_least32_t done;     /* chunks finished                      */
    _Alignas(LINE) atomic_uint sleepers;           /* threads in, or on their way into, cond_wait on work */
    atomic_uint waiting;                           /* the caller is in cond_wait on idle   */
    atomic_bool closing;
};

/* Chunks that nobody has taken yet; zero or less: none. */
static int64_t left(uint_least64_t ticket) { return (int64_t)(ticket & UINT32_MAX) - BIAS; }

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Take chunks of the current job until none is left. What this thread did is added once, at the end: until then the job cannot be
 * over, so every chunk that it takes meanwhile is of the same job. */
static void take_chunks(struct pool *p, size_t thread)
{
    uint32_t chunks = 0, mine = 0;
    double begin = 0;
    while (left(atomic_load_explicit(&p->ticket, memory_order_relaxed)) > 0) {
        uint_least64_t ticket = atomic_fetch_sub_explicit(&p->ticket, 1, memory_order_acq_rel);
        if (left(ticket) <= 0)
            break;
        chunks = p->chunks;
        if (mine == 0)
            p->soon[thread] = (struct soon){0};
        if (mine == 0 && p->lanes)
            begin = machine_clock();
        p->fn(p->arg, p->base + (chunks - (uint32_t)left(ticket)), thread);
        mine++;
    }
    if (mine && p->lanes)
        p->lanes[thread].busy += machine_clock() - begin;
    /* After this addition the job may be over and p->chunks another's. */
    if (mine && atomic_fetch_add(&p->done, mine) + mine == chunks && atomic_load(&p->waiting)) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_signal(&p->idle);
        pthread_mutex_unlock(&p->lock);
    }
}

static bool has_work(struct pool *p)
{
    return left(atomic_load(&p->ticket)) > 0 || atomic_load(&p->closing);
}

static bool job_done(struct pool *p) { return atomic_load(&p->done) == p->chunks; }

void pool_soon(struct pool *p, size_t thread, const void *at, size_t bytes)
{
    if (!p->soon)
        return;
    struct soon *s = &p->soon[thread];
    int free_one = s->piece[0].lines ? 1 : 0;
    s->piece[free_one].at = (const char *)((uintptr_t)at & ~(uintptr_t)(LINE - 1));
    s->piece[free_one].lines = (bytes + LINE - 1) / LINE;
}

/* Ask for a few lines of what comes soon, into the second-level cache; false when there is nothing more. */
static bool fetch_some(struct soon *s)
{
    int which = s->piece[0].lines ? 0 : 1;
    size_t n = s->piece[which].lines < 4 ? s->piece[which].lines : 4;
    for (size_t i = 0; i < n; i++)
        __builtin_prefetch(s->piece[which].at + i * LINE, 0, 2);
    s->piece[which].at += n * LINE;
    s->piece[which].lines -= n;
    return n > 0;
}

/* Look for the condition for a while; false when it did not come. */
static bool spin_until(struct pool *p, bool (*condition)(struct pool *), size_t thread)
{
    if (condition(p))
        return true;
    if (!p->spin)
        return false;
    double end = machine_clock() + SPIN_SECONDS;
    do {
        for (int i = 0; i < 32; i++) {
            if (condition(p))
                return true;
            if (!fetch_some(&p->soon[thread]))
                relax();
        }
    } while (machine_clock() < end);
    return false;
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct pool *p = w->pool;
    while (!atomic_load(&p->closing)) {
        if (!spin_until(p, has_work, w->index)) {
            /* The count is raised before the last look, and the caller looks at it after storing the ticket: one of the two
             * sees the other. */
            pthread_mutex_lock(&p->lock);
            atomic_fetch_add(&p->sleepers, 1);
            while (!has_work(p))
                pthread_cond_wait(&p->work, &p->lock);
            atomic_fetch_sub(&p->sleepers, 1);
            pthread_mutex_unlock(&p->lock);
        }
        take_chunks(p, w->index);
    }
    return NULL;
}

static void wake_workers(struct pool *p, size_t wanted)
{
    size_t sleepers = atomic_load(&p->sleepers);
    if (sleepers == 0)
        return;
    pthread_mutex_lock(&p->lock);
    if (wanted >= sleepers) {
        pthread_cond_broadcast(&p->work);
    } else {
        for (size_t i = 0; i < wanted; i++)
            pthread_cond_signal(&p->work);
    }
    pthread_mutex_unlock(&p->lock);
}

/* One job of at most CHUNKS_MOST chunks. */
static void run_job(struct pool *p, uint32_t chunks)
{
    uint_least64_t generation = (atomic_load_explicit(&p->ticket, memory_order_relaxed) >> 32) + 1;
    p->chunks = chunks;
    atomic_store_explicit(&p->done, 0, memory_order_relaxed);
    atomic_store(&p->ticket, generation << 32 | (chunks + BIAS));
    wake_workers(p, chunks - 1);
    take_chunks(p, 0);
    if (spin_until(p, job_done, 0))
        return;
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->waiting, 1);
    while (!job_done(p))
        pthread_cond_wait(&p->idle, &p->lock);
    atomic_store(&p->waiting, 0);
    pthread_mutex_unlock(&p->lock);
}

void pool_run(struct pool *p, pool_fn *fn, void *arg, size_t chunks)
{
    if (p->threads == 1 || chunks == 1) {
        double begin = p->lanes ? machine_clock() : 0;
        for (size_t i = 0; i < chunks; i++)
            fn(arg, i, 0);
        if (p->lanes)
            p->lanes[0].busy += machine_clock() - begin;
        return;
    }
    p->fn = fn;
    p->arg = arg;
    p->base = 0;
    while (chunks > 0) {
        uint32_t now = chunks < CHUNKS_MOST ? (uint32_t)chunks : CHUNKS_MOST;
        run_job(p, now);
        p->base += now;
        chunks -= now;
    }
}

/* Start workers until the system refuses; they take no signals but those that a fault of their own raises. */
static void start_workers(struct pool *p, size_t wanted)
{
    pthread_attr_t attr;
    sigset_t mask, old;
    if (pthread_attr_init(&attr) != 0)
        return;
    size_t stack = STACK_BYTES;
#ifdef PTHREAD_STACK_MIN
    if (stack < (size_t)PTHREAD_STACK_MIN)
        stack = (size_t)PTHREAD_STACK_MIN;
#endif
    pthread_attr_setstacksize(&attr, stack);     /* a refusal leaves the default */
    sigfillset(&mask);
    sigdelset(&mask, SIGBUS);
    sigdelset(&mask, SIGSEGV);
    sigdelset(&mask, SIGFPE);
    sigdelset(&mask, SIGILL);
    pthread_sigmask(SIG_SETMASK, &mask, &old);
    while (p->threads < wanted) {
        struct worker *w = &p->workers[p->threads - 1];
        w->pool = p;
        w->index = p->threads;
        if (pthread_create(&w->id, &attr, worker_main, w) != 0)
            break;
        p->threads++;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
}

bool pool_allows(size_t threads, struct quern_error *err)
{
    return (threads >= 1 && threads <= THREADS_MOST) ||
           ERR(err, QUERN_EUSAGE, "%zu threads asked for, 1 to %d are possible", threads, THREADS_MOST);
}

struct pool *pool_open(size_t threads, struct quern_error *err)
{
    if (!pool_allows(threads, err))
        return NULL;
    struct pool *p = mem_take_aligned(1, (sizeof *p + LINE - 1) / LINE * LINE, "a thread pool", err);
    if (!p)
        return NULL;
    *p = (struct pool){.threads = 1};
    if (threads == 1)
        return p;
    p->workers = mem_take(threads - 1, sizeof *p->workers, "the threads of a pool", err);
    if (p->workers)
        p->soon = mem_take_aligned(threads, sizeof *p->soon, "the threads of a pool", err);
    if (!p->soon) {
        free(p->workers);
        free(p);
        return NULL;
    }
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->work, NULL);
    pthread_cond_init(&p->idle, NULL);
    struct machine machine;
    machine_read(&machine, "", NULL, 0);
    p->spin = threads <= machine.parallel;
    start_workers(p, threads);
    return p;
}

void pool_close(struct pool *p)
{
    if (!p)
        return;
    if (p->workers) {
        pthread_mutex_lock(&p->lock);
        atomic_store(&p->closing, true);
        pthread_cond_broadcast(&p->work);
        pthread_mutex_unlock(&p->lock);
        for (size_t i = 0; i + 1 < p->threads; i++)
            pthread_join(p->workers[i].id, NULL);
        pthread_cond_destroy(&p->work);
        pthread_cond_destroy(&p->idle);
        pthread_mutex_destroy(&p->lock);
        free(p->workers);
        free(p->soon);
    }
    free(p);
}

void pool_watch(struct pool *p, struct pool_lane *lanes) { p->lanes = lanes; }

size_t pool_threads(const struct pool *p) { return p->threads; }

size_t pool_default_threads(char *why, size_t size)
{
    struct machine machine;
    machine_read(&machine, "", NULL, 0);
    if (why)
        machine_explain(&machine, why, size);
    return machine.threads;
}
