/* What of this machine the process may use: CPUs, cores, fast cores, quota, memory. See machine.h. */
#include "machine.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sched.h>
#endif

enum { PATH_BYTES = 4096, TEXT_BYTES = 4096 };

/* `root` stands before every path so that tests can show this code other machines; "" is the real one. Whatever cannot be read
 * (containers without /sys, other kernels) falls back to what sysconf says.
 *
 * The start of a small text file; false when it cannot be read. Never more than size - 1 bytes, always closed by a NUL. */
static bool read_text(char *out, size_t size, const char *root, const char *path)
{
    char full[PATH_BYTES];
    int n = snprintf(full, sizeof full, "%s%s", root, path);
    if (n < 0 || (size_t)n >= sizeof full)
        return false;
    FILE *f = fopen(full, "re");
    if (!f)
        return false;
    size_t got = fread(out, 1, size - 1, f);
    out[got] = 0;
    fclose(f);
    return got > 0;
}

/* "0-3,8,10-11" sets those bytes of mask; false for text of another form. */
static bool parse_list(uint8_t *mask, size_t cpus, const char *text)
{
    memset(mask, 0, cpus);
    for (const char *p = text; *p && *p != '\n';) {
        char *end;
        if (!isdigit((unsigned char)*p))
            return false;
        unsigned long first = strtoul(p, &end, 10), last = first;
        if (*end == '-') {
            if (!isdigit((unsigned char)end[1]))
                return false;
            last = strtoul(end + 1, &end, 10);
        }
        for (unsigned long i = first; i <= last && i < cpus; i++)
            mask[i] = 1;
        p = *end == ',' ? end + 1 : end;
        if (*end != ',' && *end != '\n' && *end)
            return false;
    }
    return true;
}

/* The affinity mask, or the first _SC_NPROCESSORS_ONLN CPUs. */
static void own_mask(uint8_t *mask)
{
    memset(mask, 0, MACHINE_CPUS);
#ifdef __linux__
    cpu_set_t *set = CPU_ALLOC(MACHINE_CPUS);
    size_t bytes = CPU_ALLOC_SIZE(MACHINE_CPUS);
    bool known = set && sched_getaffinity(0, bytes, set) == 0;
    if (known)
        for (size_t i = 0; i < MACHINE_CPUS; i++)
            mask[i] = CPU_ISSET_S(i, bytes, set) != 0;
    CPU_FREE(set);
    if (known)
        return;
#endif
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    for (long i = 0; i < online && i < MACHINE_CPUS; i++)
        mask[i] = 1;
}

/* Is `cpu` the first allowed one of its core? True when the file system does not say. */
static bool leads_core(const char *root, size_t cpu, const uint8_t *mask)
{
    char path[128], text[TEXT_BYTES];
    uint8_t siblings[MACHINE_CPUS];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%zu/topology/thread_siblings_list", cpu);
    if (!read_text(text, sizeof text, root, path) || !parse_list(siblings, MACHINE_CPUS, text))
        return true;
    for (size_t i = 0; i < cpu; i++)
        if (siblings[i] && mask[i])
            return false;
    return true;
}

/* Arm gives each CPU a capacity: a core with less than half of the largest among `leaders` is a little one. */
static void fast_by_capacity(uint8_t *fast, const char *root, const uint8_t *leaders)
{
    char path[128], text[TEXT_BYTES];
    uint16_t capacity[MACHINE_CPUS] = {0};       /* of 1024 */
    long most = 0;
    for (size_t i = 0; i < MACHINE_CPUS; i++) {
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%zu/cpu_capacity", i);
        if (leaders[i] && read_text(text, sizeof text, root, path)) {
            long read = strtol(text, NULL, 10);
            capacity[i] = (uint16_t)(read < 0 ? 0 : read > UINT16_MAX ? UINT16_MAX : read);
        }
        most = capacity[i] > most ? capacity[i] : most;
    }
    for (size_t i = 0; i < MACHINE_CPUS; i++)
        fast[i] = capacity[i] * 2 >= most;
}

/* Clear in `leaders` the cores of the slow kind, which Intel names and Arm shows. When only slow cores are allowed they stay. */
static void keep_performance(const char *root, uint8_t *leaders)
{
    char text[TEXT_BYTES];
    uint8_t fast[MACHINE_CPUS];
    bool any = false;
    if (!read_text(text, sizeof text, root, "/sys/devices/cpu_core/cpus") || !parse_list(fast, MACHINE_CPUS, text))
        fast_by_capacity(fast, root, leaders);
    for (size_t i = 0; i < MACHINE_CPUS; i++)
        any = any || (leaders[i] && fast[i]);
    for (size_t i = 0; any && i < MACHINE_CPUS; i++)
        leaders[i] = leaders[i] && fast[i];
}

static size_t count(const uint8_t *mask)
{
    size_t n = 0;
    for (size_t i = 0; i < MACHINE_CPUS; i++)
        n += mask[i] != 0;
    return n;
}

/* Walk from this process's group of a controller up to the root of the hierarchy, calling visit with each folder. `controller`
 * NULL: the unified (v2) hierarchy. In a container the path may belong to the host; the walk then finds only its root. */
typedef void visit_fn(const char *root, const char *folder, void *arg);
static void each_group(const char *root, const char *controller, visit_fn *visit, void *arg)
{
    char text[TEXT_BYTES], folder[PATH_BYTES] = "";
    if (!read_text(text, sizeof text, root, "/proc/self/cgroup"))
        return;
    for (char *line = text, *next; line && *line; line = next) {
        next = strchr(line, '\n');
        if (next)
            *next++ = 0;
        char *names = strchr(line, ':'), *path = names ? strchr(names + 1, ':') : NULL;
        if (!path)
            continue;
        *path++ = 0;
        names++;
        if (!controller && !*names) {
            snprintf(folder, sizeof folder, "/sys/fs/cgroup%s", path);
        } else if (controller) {
            size_t n = strlen(controller);
            for (char *name = names; name; name = strchr(name, ',')) {
                name += *name == ',';
                if (strncmp(name, controller, n) == 0 && (name[n] == 0 || name[n] == ','))
                    snprintf(folder, sizeof folder, "/sys/fs/cgroup/%s%s", controller, path);
            }
        }
    }
    size_t base = strlen("/sys/fs/cgroup") + (controller ? strlen(controller) + 1 : 0);
    for (size_t n = strlen(folder); n > base || (n && n == base); n--)
        if (!folder[n] || folder[n] == '/') {
            folder[n] = 0;
            if (folder[n - 1] != '/')
                visit(root, folder, arg);
        }
}

/* Every group above the process limits it too: the least of them counts. */
static void lower_quota(double *quota, double limit, double period)
{
    if (limit > 0 && period > 0 && (*quota == 0 || limit / period < *quota))
        *quota = limit / period;
}

static void visit_cpu_v2(const char *root, const char *folder, void *arg)
{
    char path[PATH_BYTES + 16], text[64], *end;
    snprintf(path, sizeof path, "%s/cpu.max", folder);
    if (!read_text(text, sizeof text, root, path) || !isdigit((unsigned char)text[0]))
        return;
    double limit = (double)strtoull(text, &end, 10);
    lower_quota(arg, limit, *end == ' ' ? (double)strtoull(end + 1, NULL, 10) : 100000.0);
}

static void visit_cpu_v1(const char *root, const char *folder, void *arg)
{
    char path[PATH_BYTES + 32], limit[64], period[64];
    snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", folder);
    if (!read_text(limit, sizeof limit, root, path))
        return;
    snprintf(path, sizeof path, "%s/cpu.cfs_period_us", folder);
    if (read_text(period, sizeof period, root, path))
        lower_quota(arg, (double)strtoll(limit, NULL, 10), (double)strtoll(period, NULL, 10));
}

void machine_read(struct machine *machine, const char *root, const uint8_t *mask, size_t cpus)
{
    uint8_t own[MACHINE_CPUS] = {0}, leaders[MACHINE_CPUS] = {0};
    if (mask)
        memcpy(own, mask, cpus < MACHINE_CPUS ? cpus : MACHINE_CPUS);
    else
        own_mask(own);
    for (size_t i = 0; i < MACHINE_CPUS; i++)
        leaders[i] = own[i] && leads_core(root, i, own);
    machine->allowed = count(own) ? count(own) : 1;
    machine->cores = count(leaders) ? count(leaders) : 1;
    keep_performance(root, leaders);
    machine->performance = count(leaders) ? count(leaders) : 1;

    machine->quota = 0;
    each_group(root, NULL, visit_cpu_v2, &machine->quota);
    each_group(root, "cpu", visit_cpu_v1, &machine->quota);
    /* One thread per fast core: a core's second thread shares its vector units and its bandwidth and only adds waiting. A stage
     * ends with its slowest thread, so a slow core would set the pace, and a thread beyond the quota would be put to sleep. */
    machine->threads = machine->performance;
    machine->parallel = machine->allowed;
    if (machine->quota > 0) {
        /* Down for computing, as said; up for `parallel`, which only asks how many may run at once. */
        size_t whole = machine->quota < 1 ? 1 : (size_t)machine->quota, up = (size_t)ceil(machine->quota);
        machine->threads = whole < machine->threads ? whole : machine->threads;
        machine->parallel = up < machine->parallel ? up : machine->parallel;
    }
}

void machine_explain(const struct machine *m, char *out, size_t size)
{
    char quota[80] = "";
    if (m->quota > 0)
        snprintf(quota, sizeof quota, ", a CPU quota of %.2f", m->quota);
    snprintf(out, size, "%zu thread%s: %zu logical CPU%s allowed, %zu physical core%s, %zu of the fast kind%s", m->threads,
             m->threads == 1 ? "" : "s", m->allowed, m->allowed == 1 ? "" : "s", m->cores, m->cores == 1 ? "" : "s",
             m->performance, quota);
}

static void lower_bytes(size_t *least, const char *root, const char *folder, const char *name)
{
    char path[PATH_BYTES + 32], text[64];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (!read_text(text, sizeof text, root, path) || !isdigit((unsigned char)text[0]))
        return;
    unsigned long long bytes = strtoull(text, NULL, 10);
    if (bytes < SIZE_MAX && (*least == 0 || bytes < *least))
        *least = (size_t)bytes;
}

static void visit_memory_v2(const char *root, const char *folder, void *arg) { lower_bytes(arg, root, folder, "memory.max"); }
static void visit_memory_v1(const char *root, const char *folder, void *arg)
{
    lower_bytes(arg, root, folder, "memory.limit_in_bytes");
}

size_t machine_memory(const char *root)
{
    size_t least = 0;
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    if (!*root && pages > 0 && page > 0)
        least = (size_t)pages * (size_t)page;
    each_group(root, NULL, visit_memory_v2, &least);
    each_group(root, "memory", visit_memory_v1, &least);
    return least;
}

size_t machine_available(const char *root)
{
    char text[TEXT_BYTES];
    if (!read_text(text, sizeof text, root, "/proc/meminfo"))
        return 0;
    const char *at = strstr(text, "MemAvailable:");
    unsigned long long kib = at ? strtoull(at + strlen("MemAvailable:"), NULL, 10) : 0;
    return kib < SIZE_MAX / 1024 ? (size_t)kib * 1024 : 0;
}

/* The last cache of a CPU, counted by the first CPU that shares it: "index3" of most machines, "index2" of small ones. */
static size_t led_cache(const char *root, size_t cpu)
{
    char path[128], text[TEXT_BYTES], *end;
    uint8_t sharers[MACHINE_CPUS];
    for (int index = 3; index >= 2; index--) {
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%zu/cache/index%d/size", cpu, index);
        if (!read_text(text, sizeof text, root, path) || !isdigit((unsigned char)text[0]))
            continue;
        size_t bytes = strtoul(text, &end, 10);      /* in a statement of its own: `end` is read below */
        bytes <<= *end == 'K' ? 10 : *end == 'M' ? 20 : 0;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%zu/cache/index%d/shared_cpu_list", cpu, index);
        bool known = read_text(text, sizeof text, root, path) && parse_list(sharers, MACHINE_CPUS, text);
        for (size_t i = 0; known && i < cpu && i < MACHINE_CPUS; i++)
            if (sharers[i])
                return 0;
        return bytes;
    }
    return 0;
}

size_t machine_cache_bytes(const char *root)
{
    char text[TEXT_BYTES];
    uint8_t online[MACHINE_CPUS];
    size_t sum = 0;
    if (!read_text(text, sizeof text, root, "/sys/devices/system/cpu/online") || !parse_list(online, MACHINE_CPUS, text))
        return 0;
    for (size_t i = 0; i < MACHINE_CPUS; i++)
        sum += online[i] ? led_cache(root, i) : 0;
    return sum;
}

size_t machine_peak_memory(void)
{
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0 || usage.ru_maxrss <= 0)
        return 0;
    return (size_t)usage.ru_maxrss * 1024;
}

double machine_clock(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
