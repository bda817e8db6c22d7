/* The thread pool, and how many threads it should have. */
#include "test.h"

#include <ftw.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "machine.h"
#include "pool.h"

enum { CHUNKS = 4096 };

struct marks {
    atomic_uint seen[CHUNKS];
    atomic_uint by_thread[64];
    size_t      threads;
    atomic_bool bad_thread;
};

static void mark(void *arg, size_t index, size_t thread)
{
    struct marks *m = arg;
    if (thread >= m->threads || index >= CHUNKS)
        atomic_store(&m->bad_thread, true);
    else
        atomic_fetch_add(&m->by_thread[thread], 1), atomic_fetch_add(&m->seen[index], 1);
}

/* Every chunk exactly once, whatever the numbers of threads and chunks, and pool_run returns only after the last. */
static void test_each_chunk_once(void)
{
    static const size_t threads[] = {1, 2, 3, 4, 7, 16, 33}, chunks[] = {0, 1, 2, 3, 5, 64, 1000, CHUNKS};
    for (size_t t = 0; t < sizeof threads / sizeof *threads; t++) {
        struct quern_error err;
        struct pool *pool = pool_open(threads[t], &err);
        CHECK(pool && pool_threads(pool) == threads[t], "%zu threads", threads[t]);
        if (!pool)
            continue;
        static struct marks m;
        for (size_t round = 0; round < 40; round++)
            for (size_t c = 0; c < sizeof chunks / sizeof *chunks; c++) {
                size_t wrong = 0;
                memset(&m, 0, sizeof m);
                m.threads = threads[t];
                pool_run(pool, mark, &m, chunks[c]);
                for (size_t i = 0; i < CHUNKS; i++)
                    wrong += atomic_load(&m.seen[i]) != (i < chunks[c]);
                CHECK(!wrong && !m.bad_thread, "%zu threads, %zu chunks: %zu wrong", threads[t], chunks[c], wrong);
            }
        pool_close(pool);
    }
}

static void add_index(void *arg, size_t index, size_t thread)
{
    (void)thread;
    atomic_fetch_add((atomic_size_t *)arg, index);
}

/* Stages that follow each other at once: a thread that comes late to one must neither miss chunks of the next nor run an old
 * job's function. Far more threads than cores makes lateness common. */
static void test_stages_in_quick_succession(void)
{
    struct quern_error err;
    struct pool *pool = pool_open(24, &err);
    CHECK(pool != NULL, "open");
    size_t wrong = 0;
    for (size_t i = 0; pool && i < 20000; i++) {
        atomic_size_t sum;
        size_t n = 2 + i % 7;
        atomic_init(&sum, 0);
        pool_run(pool, add_index, &sum, n);
        wrong += atomic_load(&sum) != n * (n - 1) / 2;
    }
    CHECK(wrong == 0, "%zu stages", wrong);
    pool_close(pool);
}

/* With many more threads than cores a stage must not wait until each thread was scheduled: 2000 empty stages on 64 threads
 * take well under a second even on one core; a barrier that spins takes minutes. */
static void test_no_spin_collapse(void)
{
    struct quern_error err;
    struct pool *pool = pool_open(64, &err);
    CHECK(pool != NULL, "open");
    double begin = machine_clock();
    for (size_t i = 0; pool && i < 2000; i++) {
        atomic_size_t sum;
        atomic_init(&sum, 0);
        pool_run(pool, add_index, &sum, 64);
    }
    double seconds = machine_clock() - begin;
    CHECK(seconds < 10, "%.1f s", seconds);
    pool_close(pool);
}

static void announce(void *arg, size_t index, size_t thread)
{
    static const char bytes[4096];
    (void)index;
    pool_soon(arg, thread, bytes, sizeof bytes);
    pool_soon(arg, thread, (const void *)(uintptr_t)(thread << 40 | 123), SIZE_MAX / 2);
}

/* What is announced is only asked into the cache: addresses of nothing are no harm, and the next job is not kept waiting. */
static void test_soon_is_a_hint(void)
{
    for (size_t threads = 1; threads <= 4; threads++) {
        struct quern_error err;
        struct pool *pool = pool_open(threads, &err);
        size_t wrong = 0;
        for (size_t i = 0; pool && i < 1000; i++) {
            atomic_size_t sum;
            atomic_init(&sum, 0);
            pool_run(pool, announce, pool, 4);
            pool_run(pool, add_index, &sum, 64);
            wrong += atomic_load(&sum) != 64 * 63 / 2;
        }
        CHECK(pool && wrong == 0, "%zu threads: %zu jobs", threads, wrong);
        pool_close(pool);
    }
}

/* An idle pool takes no processor time. */
static void test_idle_pool_sleeps(void)
{
    struct quern_error err;
    struct pool *pool = pool_open(4, &err);
    atomic_size_t sum;
    struct rusage before, after;
    atomic_init(&sum, 0);
    pool_run(pool, add_index, &sum, 64);
    usleep(20000);
    getrusage(RUSAGE_SELF, &before);
    usleep(200000);
    getrusage(RUSAGE_SELF, &after);
    double used = (double)(after.ru_utime.tv_sec - before.ru_utime.tv_sec) +
                  1e-6 * (double)(after.ru_utime.tv_usec - before.ru_utime.tv_usec);
    CHECK(used < 0.05, "%.3f s of user time in 0.2 s of idleness", used);
    pool_close(pool);
}

/* When the system refuses threads the pool is smaller and works. */
static void test_threads_refused(void)
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        /* The user id is changed because root is exempt from RLIMIT_NPROC. */
        struct rlimit none = {1, 1};
        struct quern_error err;
        atomic_size_t sum;
        if (getuid() == 0 && setuid(65534) != 0)
            _exit(77);
        if (setrlimit(RLIMIT_NPROC, &none) != 0)
            _exit(77);
        struct pool *pool = pool_open(8, &err);
        if (!pool)
            _exit(2);
        atomic_init(&sum, 0);
        pool_run(pool, add_index, &sum, 100);
        size_t threads = pool_threads(pool);
        pool_close(pool);
        _exit(atomic_load(&sum) != 4950 ? 3 : threads == 8 ? 77 : 0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    CHECK(WIFEXITED(status), "signal %d", WTERMSIG(status));
    CHECK(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 77, "exit %d", WEXITSTATUS(status));
    if (WEXITSTATUS(status) == 77)
        test_skip("test_threads_refused", "RLIMIT_NPROC does not bind here");
}

static void test_nonsense_thread_counts(void)
{
    struct quern_error err;
    CHECK(!pool_open(0, &err) && err.code == QUERN_EUSAGE, "0 threads");
    CHECK(!pool_open((size_t)-1, &err) && err.code == QUERN_EUSAGE, "2^64-1 threads");
}

/* ---- made-up machines ------------------------------------------------------------------------------------------- */

static void put(const char *root, const char *path, const char *text)
{
    char full[1024];
    snprintf(full, sizeof full, "%s%s", root, path);
    for (char *p = full + strlen(root) + 1; *p; p++)
        if (*p == '/')
            *p = 0, mkdir(full, 0755), *p = '/';
    FILE *f = fopen(full, "w");
    CHECK(f != NULL, "cannot write %s", full);
    if (f)
        fputs(text, f), fclose(f);
}

/* Of this run alone: what an earlier one left in /tmp is no part of a machine that shall be bare. */
static char machines[256];

static const char *new_root(const char *name)
{
    static char root[300];
    snprintf(root, sizeof root, "%s/%s", machines, name);
    CHECK(mkdir(root, 0755) == 0, "%s cannot be made", root);
    return root;
}

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *walk)
{
    (void)st, (void)kind, (void)walk;
    return remove(path);
}

static void put_siblings(const char *root, size_t cpu, const char *list)
{
    char path[200];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%zu/topology/thread_siblings_list", cpu);
    put(root, path, list);
}

static struct machine read_machine(const char *root, const char *mask)
{
    uint8_t bytes[64];
    struct machine m;
    for (size_t i = 0; mask[i]; i++)
        bytes[i] = mask[i] == '1';
    machine_read(&m, root, bytes, strlen(mask));
    return m;
}

#define CHECK_MACHINE(m, c, p, t) \
    CHECK((m).cores == (c) && (m).performance == (p) && (m).threads == (t), "%zu cores, %zu fast, %zu threads", (m).cores, \
          (m).performance, (m).threads)

static void test_nothing_mounted(void)
{
    const char *root = new_root("bare");
    struct machine m = read_machine(root, "1111");
    CHECK_MACHINE(m, 4, 4, 4);
    CHECK(machine_memory(root) == 0, "memory unknown");
    CHECK(pool_default_threads(NULL, 0) >= 1, "at least one");
}

static void test_hyperthreads_count_once(void)
{
    const char *root = new_root("smt");
    for (size_t i = 0; i < 8; i++) {
        char list[16];
        snprintf(list, sizeof list, "%zu,%zu\n", i % 4, i % 4 + 4);
        put_siblings(root, i, list);
    }
    CHECK_MACHINE(read_machine(root, "11111111"), 4, 4, 4);
    CHECK_MACHINE(read_machine(root, "00001111"), 4, 4, 4);   /* only the second halves are allowed */
    CHECK_MACHINE(read_machine(root, "10001000"), 1, 1, 1);
}

/* 2 performance cores with two threads each, 4 efficiency cores. */
static void test_hybrid_intel(void)
{
    const char *root = new_root("hybrid");
    static const char *siblings[] = {"0-1", "0-1", "2-3", "2-3", "4", "5", "6", "7"};
    for (size_t i = 0; i < 8; i++)
        put_siblings(root, i, siblings[i]);
    put(root, "/sys/devices/cpu_core/cpus", "0-3\n");
    put(root, "/sys/devices/cpu_atom/cpus", "4-7\n");
    CHECK_MACHINE(read_machine(root, "11111111"), 6, 2, 2);
    CHECK_MACHINE(read_machine(root, "00001111"), 4, 4, 4);   /* nothing but efficiency cores */
}

static void test_hybrid_arm(void)
{
    const char *root = new_root("biglittle");
    static const char *capacity[] = {"300\n", "300\n", "300\n", "300\n", "900\n", "900\n", "1024\n"};
    for (size_t i = 0; i < 7; i++) {
        char path[200];
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%zu/cpu_capacity", i);
        put(root, path, capacity[i]);
    }
    CHECK_MACHINE(read_machine(root, "1111111"), 7, 3, 3);
}

static void test_quota_of_either_hierarchy(void)
{
    const char *root = new_root("v2");
    put(root, "/proc/self/cgroup", "0::/a/b\n");
    put(root, "/sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
    put(root, "/sys/fs/cgroup/a/cpu.max", "250000 100000\n");
    put(root, "/sys/fs/cgroup/a/b/memory.max", "max\n");
    put(root, "/sys/fs/cgroup/a/memory.max", "1073741824\n");
    struct machine m = read_machine(root, "11111111");
    CHECK(m.quota == 2.5 && m.threads == 2 && m.parallel == 3, "v2: quota %f, %zu threads, %zu parallel", m.quota, m.threads,
          m.parallel);
    CHECK(machine_memory(root) == 1073741824, "v2: %zu bytes", machine_memory(root));

    root = new_root("v1");
    put(root, "/proc/self/cgroup", "12:memory:/docker/x\n4:cpu,cpuacct:/docker/x\n0::/\n");
    put(root, "/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n");       /* in a container only the root is to be seen */
    put(root, "/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    put(root, "/sys/fs/cgroup/memory/memory.limit_in_bytes", "2147483648\n");
    m = read_machine(root, "1111");
    CHECK(m.quota == 0.5 && m.threads == 1 && m.parallel == 1, "v1: quota %f, %zu threads", m.quota, m.threads);
    CHECK(machine_memory(root) == 2147483648u, "v1: %zu bytes", machine_memory(root));
    root = new_root("free");
    put(root, "/proc/self/cgroup", "0::/\n");
    put(root, "/sys/fs/cgroup/cpu.max", "max 100000\n");
    CHECK(read_machine(root, "1111").quota == 0, "no quota");
}

static void test_explanation(void)
{
    char why[300];
    size_t n = pool_default_threads(why, sizeof why);
    char start[40];
    snprintf(start, sizeof start, "%zu thread", n);
    CHECK(!strncmp(why, start, strlen(start)), "%s", why);
}

/* Two sockets of two CPUs with an L3 each, and one CPU that has only an L2. */
static void test_caches(void)
{
    const char *root = new_root("caches");
    char path[128];
    CHECK(machine_cache_bytes(root) == 0, "unknown");
    put(root, "/sys/devices/system/cpu/online", "0-4\n");
    for (size_t i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%zu/cache/index3/size", i);
        put(root, path, "32768K\n");
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%zu/cache/index3/shared_cpu_list", i);
        put(root, path, i < 2 ? "0-1\n" : "2-3\n");
    }
    put(root, "/sys/devices/system/cpu/cpu4/cache/index2/size", "2M\n");
    put(root, "/sys/devices/system/cpu/cpu4/cache/index2/shared_cpu_list", "4\n");
    CHECK(machine_cache_bytes(root) == (size_t)66 << 20, "%zu bytes", machine_cache_bytes(root));
}

int main(void)
{
    snprintf(machines, sizeof machines, "%s", temp_path("machines.XXXXXX"));
    if (!mkdtemp(machines))
        return perror(machines), 1;
    TEST(test_each_chunk_once);
    TEST(test_stages_in_quick_succession);
    TEST(test_no_spin_collapse);
    TEST(test_soon_is_a_hint);
    TEST(test_idle_pool_sleeps);
    TEST(test_threads_refused);
    TEST(test_nonsense_thread_counts);
    TEST(test_nothing_mounted);
    TEST(test_hyperthreads_count_once);
    TEST(test_hybrid_intel);
    TEST(test_hybrid_arm);
    TEST(test_quota_of_either_hierarchy);
    TEST(test_explanation);
    TEST(test_caches);
    nftw(machines, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    return test_end();
}
