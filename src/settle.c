#include "settle.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "machine.h"

/* A piece is what is copied and moved at once: large enough that system calls do not count, small enough that readers who meet the
 * moment of the move wait for microseconds only. */
enum { HUGE = 2 << 20, PIECE = 16 << 20, AUTO_LEAST = 64 << 20 };

struct settle {
    const struct map *maps;
    size_t            count;
    bool              copy;
    int               pagemap;      /* -1: the system does not tell how pages are mapped */
    pthread_t         thread;
    bool              joined;
    atomic_bool       stop;
    atomic_size_t     huge, copied;
};

bool settle_affordable(size_t bytes, const char *root)
{
    /* What is available includes the page cache, and with it the file's own copy, which the next start of the program wants to
     * find: so twice the bytes, and an eighth of all for the caches of sessions and for everybody else. */
    size_t all = machine_memory(root), free_now = machine_available(root);
    free_now = all && all < free_now ? all : free_now;
    return bytes <= SIZE_MAX / 4 && free_now >= all / 8 && (free_now - all / 8) / 2 >= bytes;
}

#ifdef __linux__
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22       /* Linux 5.14 */
#endif

/* ioctl PAGEMAP_SCAN of Linux 6.7, whose header may be missing where this is built. */
struct scan_region { uint64_t start, end, categories; };
struct scan {
    uint64_t size, flags, start, end, walk_end, regions, region_count, max_pages;
    uint64_t inverted, all_of, any_of, report;
};
enum { SCAN_HUGE = 1 << 6 };

/* Do all `bytes` bytes at `at` lie in huge pages? `unknown` where the system does not say. */
static bool is_huge(int pagemap, const uint8_t *at, size_t bytes, bool unknown)
{
    struct scan_region region = {0};
    struct scan scan = {
        .size = sizeof scan, .start = (uintptr_t)at, .end = (uintptr_t)at + bytes, .regions = (uintptr_t)&region, .region_count = 1,
        .all_of = SCAN_HUGE, .report = SCAN_HUGE,
    };
    if (pagemap < 0)
        return unknown;
    int found = ioctl(pagemap, _IOWR('f', 16, struct scan), &scan);
    if (found < 0)
        return unknown;
    return found == 1 && region.start <= scan.start && region.end >= scan.end;
}

/* Put a copy of the piece at `to` in its place. `from`: reserved, not touched yet, in the same place relative to a huge page's
 * bounds. False: no huge pages are to be had, or the system refuses; the mapping is as it was. */
static bool replace(const struct settle *s, uint8_t *from, uint8_t *to, size_t bytes)
{
    memcpy(from, to, bytes);
    return is_huge(s->pagemap, from, bytes, true) && mprotect(from, bytes, PROT_READ) == 0 &&
           mremap(from, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to;
}

static uint8_t *next_huge(const uint8_t *p) { return (uint8_t *)(((uintptr_t)p + HUGE - 1) & ~(uintptr_t)(HUGE - 1)); }

/* One map, piece by piece. The copies come from one reservation in which they lie as in the map: then the system joins those that
 * follow each other to one area. A piece leaves the reservation as soon as it is dealt with, for its addresses may be another's
 * from then on. */
static void settle_map(struct settle *s, const struct map *map)
{
    uint8_t *begin = next_huge(map->data), *end = (uint8_t *)map->data + map->size;
    if (end < begin + HUGE)
        return;
    size_t bytes = (size_t)(end - begin) / HUGE * HUGE, reserved_bytes = bytes + HUGE, used = 0;
    uint8_t *reserved = MAP_FAILED;
    if (s->copy)
        reserved = mmap(NULL, reserved_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    bool copy = reserved != MAP_FAILED;
    size_t shift = copy ? (size_t)(next_huge(reserved) - reserved) : 0;
    if (copy)
        madvise(reserved, reserved_bytes, MADV_HUGEPAGE);
    for (size_t at = 0, now; at < bytes && !atomic_load(&s->stop); at += now) {
        now = bytes - at < PIECE ? bytes - at : PIECE;
        /* An error here is a file that was cut short, or an old system: whoever reads the piece will see. */
        bool there = madvise(begin + at, now, MADV_POPULATE_READ) == 0;
        bool huge = there && is_huge(s->pagemap, begin + at, now, false);
        if (there && !huge && copy) {
            copy = huge = replace(s, reserved + shift + at, begin + at, now);
            if (huge) {
                if (used < shift + at)
                    munmap(reserved + used, shift + at - used);
                used = shift + at + now;
                atomic_fetch_add(&s->copied, now);
            }
        }
        if (huge)
            atomic_fetch_add(&s->huge, now);
    }
    if (reserved != MAP_FAILED && used < reserved_bytes)
        munmap(reserved + used, reserved_bytes - used);
}

/* Copying is for idle cores. At the priority of the threads that compute it would take one of their cores in turn, and all others
 * wait for that one at every stage. A refusal is no harm. (Linux counts niceness per thread.) */
enum { NICE_LEAST = 19 };

static void *settle_main(void *arg)
{
    struct settle *s = arg;
    setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), NICE_LEAST);
    for (size_t i = 0; i < s->count; i++)
        if (s->maps[i].data && !s->maps[i].heap)
            settle_map(s, &s->maps[i]);
    if (s->pagemap >= 0)
        close(s->pagemap);
    return NULL;
}

/* A thread that takes no signals but those that a fault of its own raises. */
static bool start_thread(struct settle *s)
{
    sigset_t mask, old;
    sigfillset(&mask);
    sigdelset(&mask, SIGBUS);
    sigdelset(&mask, SIGSEGV);
    pthread_sigmask(SIG_SETMASK, &mask, &old);
    bool ok = pthread_create(&s->thread, NULL, settle_main, s) == 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return ok;
}

struct settle *settle_start(const struct map *maps, size_t count, enum settle_mode mode)
{
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++)
        if (maps[i].data && !maps[i].heap && !checked_add(&bytes, bytes, maps[i].size))
            return NULL;
    bool off = mode == SETTLE_OFF || bytes < (mode == SETTLE_ON ? HUGE : AUTO_LEAST);
    for (size_t i = 0; i < count; i++)
        map_advise(&maps[i], off ? MAP_SOON : MAP_HUGE);
    if (off)
        return NULL;
    struct quern_error err;
    struct settle *s = mem_take(1, sizeof *s, "a thread for huge pages", &err);
    if (!s)
        return NULL;
    s->maps = maps;
    s->count = count;
    s->copy = mode == SETTLE_ON || settle_affordable(bytes, "");
    s->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (start_thread(s))
        return s;
    if (s->pagemap >= 0)
        close(s->pagemap);
    free(s);
    return NULL;
}
#else
struct settle *settle_start(const struct map *maps, size_t count, enum settle_mode mode)
{
    (void)mode;
    for (size_t i = 0; i < count; i++)
        map_advise(&maps[i], MAP_SOON);
    return NULL;
}
#endif

void settle_wait(struct settle *s)
{
    if (s && !s->joined) {
        pthread_join(s->thread, NULL);
        s->joined = true;
    }
}

void settle_stop(struct settle *s)
{
    if (!s)
        return;
    atomic_store(&s->stop, true);
    settle_wait(s);
    free(s);
}

size_t settle_huge(const struct settle *s, size_t *copied)
{
    if (copied)
        *copied = s ? atomic_load(&s->copied) : 0;
    return s ? atomic_load(&s->huge) : 0;
}
