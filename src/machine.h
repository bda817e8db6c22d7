/* machine.h - what the system gives this process: cores, CPU quota, memory.
 *
 * Read from /proc and /sys; where they are not mounted the counts of sysconf stand alone. `root` is put before every path ("" for
 * the real system), so that tests can show made-up machines. Nothing here fails: what cannot be read is taken as no limit. */
#ifndef QUERN_MACHINE_H
#define QUERN_MACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MACHINE_CPUS = 4096 };    /* logical CPUs looked at; more are ignored */

struct machine {
    size_t allowed;       /* logical CPUs in the affinity mask, >= 1                                    */
    size_t cores;         /* physical cores among them                                                  */
    size_t performance;   /* of those, the fast kind of a hybrid machine; = cores where there is one kind */
    double quota;         /* CPUs that the control group may use; 0: no quota                           */
    size_t threads;       /* what to use when the user names none, >= 1                                 */
    size_t parallel;      /* how many threads can run at once: min(allowed, quota rounded up), >= 1     */
};

/* `mask`: one byte per logical CPU, non-zero when allowed; NULL asks the system. */
void machine_read(struct machine *machine, const char *root, const uint8_t *mask, size_t cpus);
/* One sentence: how `threads` came about. */
void machine_explain(const struct machine *machine, char *out, size_t size);

/* Bytes that this process may have: the least of physical memory and the control groups' limits; 0 when unknown. */
size_t machine_memory(const char *root);
/* Bytes that could be taken now without swapping (MemAvailable); 0 when unknown. */
size_t machine_available(const char *root);
/* Bytes of all last-level caches together; 0 when unknown. */
size_t machine_cache_bytes(const char *root);
/* Bytes of memory in use by this process at most so far (VmHWM), 0 when unknown. */
size_t machine_peak_memory(void);
/* Seconds since some fixed moment; never jumps. */
double machine_clock(void);

#endif
