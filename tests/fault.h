/* fault.h - make the n-th allocation or system call fail, and count what is still allocated.
 *
 * A program whose source is named tests/test_fault*.c is linked with this file and with the linker's --wrap for the functions of
 * WRAPPED in the Makefile, so the calls that quern's own objects make come through here; those inside libc do not. The usual sweep:
 *
 *     for (size_t n = 0;; n++) {
 *         long before = fault_live_blocks();
 *         fault_arm(FAULT_MEMORY, n, FAULT_ONCE);
 *         bool ok = work(&err);
 *         const char *where = fault_disarm();        NULL: there are no n calls, the sweep is over
 *         ...ok or not: what must hold then; fault_live_blocks() == before...
 *         if (!where) break;
 *     }
 *
 * An error is what must come of most faults, but not of all: a failed mmap has read() to fall back on, a failed close of
 * a file that was only read means nothing. Then the work must have succeeded in full.
 *
 * Counting is atomic, so threads may allocate; which call is the n-th is then not repeatable. */
#ifndef QUERN_FAULT_H
#define QUERN_FAULT_H

#include <stdbool.h>
#include <stddef.h>

#include "quern.h"

enum fault_kind {
    FAULT_MEMORY,      /* malloc, calloc, realloc, aligned_alloc, posix_memalign, strdup: NULL, ENOMEM                   */
    FAULT_IO           /* open, read, pread, write, fsync, close, rename, mmap, ftruncate, fstat: -1 with fault_error's errno */
};

enum fault_mode { FAULT_ONCE, FAULT_FROM_THERE_ON };

/* Call number n (from 0) of this kind fails, alone or with all that come after it. */
void fault_arm(enum fault_kind kind, size_t n, enum fault_mode mode);
/* What failing system calls say; EIO unless set. */
void fault_error(int number);
/* No more faults. The name of the function in which the first one struck, NULL when none did. */
const char *fault_disarm(void);

/* The system calls since the last fault_arm, as their first letters in order ("orwfc..."; m: mmap, t: ftruncate, s: fstat,
 * N: rename), the first FAULT_TRACE of them: so a test can see that data is synced before the file gets its name. */
enum { FAULT_TRACE = 4096 };
const char *fault_trace(void);

/* Every read and write moves at most this many bytes; 0: as many as asked for. */
void fault_short_io(size_t most);

/* Blocks that were allocated and not freed yet. */
long fault_live_blocks(void);

/* Does the file hold exactly these bytes? */
bool fault_holds(const char *path, const char *data, size_t n);

/* The usual sweep for work that writes folder/name over an old file of that name: checks that every run ends with the old file
 * and an error of memory or, where system calls fail, of input and output, or with success and the same whole new file; that
 * nothing leaks and no temporary file stays. Returns how many runs failed. */
typedef bool fault_work_fn(const void *arg, struct quern_error *err);
size_t fault_sweep_file(const char *folder, const char *name, fault_work_fn *work, const void *arg, enum fault_kind kind,
                        enum fault_mode mode);

#endif
