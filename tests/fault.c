#include "fault.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include "hf_folder.h"
#include "test.h"

static struct {
    atomic_bool armed;
    enum fault_kind kind;
    enum fault_mode mode;
    atomic_long left;                  /* calls before the one that fails; negative after it */
    _Atomic(const char *) struck;
    int error;
    size_t most;
    atomic_long blocks;
    atomic_size_t traced;
    char trace[FAULT_TRACE + 1];
} fault = { .error = EIO };

void fault_arm(enum fault_kind kind, size_t n, enum fault_mode mode)
{
    fault.kind = kind;
    fault.mode = mode;
    fault.left = (long)n;
    fault.struck = NULL;
    fault.traced = 0;
    memset(fault.trace, 0, sizeof fault.trace);
    fault.armed = true;
}

const char *fault_disarm(void)
{
    fault.armed = false;
    return fault.struck;
}

void fault_error(int number)
{
    fault.error = number;
}

void fault_short_io(size_t most)
{
    fault.most = most;
}

long fault_live_blocks(void)
{
    return fault.blocks;
}

const char *fault_trace(void)
{
    return fault.trace;
}

static void trace(const char *name)
{
    size_t at = atomic_fetch_add(&fault.traced, 1);
    if (at < FAULT_TRACE)
        fault.trace[at] = !strcmp(name, "rename") ? 'N' : !strcmp(name, "ftruncate") ? 't' : !strcmp(name, "fstat") ? 's' : name[0];
}

static bool strikes(enum fault_kind kind, const char *name)
{
    if (fault.armed && kind == FAULT_IO)
        trace(name);
    if (!fault.armed || fault.kind != kind)
        return false;
    long left = atomic_fetch_sub(&fault.left, 1);
    if (left > 0 || (left < 0 && fault.mode == FAULT_ONCE))
        return false;
    if (left == 0)
        fault.struck = name;
    errno = kind == FAULT_MEMORY ? ENOMEM : fault.error;
    return true;
}

static void *counted(void *block)
{
    if (block)
        atomic_fetch_add(&fault.blocks, 1);
    return block;
}

static size_t shorter(size_t n)
{
    return fault.most && n > fault.most ? fault.most : n;
}

/* ---- memory --------------------------------------------------------------------------------------------------- */

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *block, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
int   __real_posix_memalign(void **out, size_t alignment, size_t size);
char *__real_strdup(const char *text);
char *__real_realpath(const char *path, char *out);
void  __real_free(void *block);

void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *block, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);
int   __wrap_posix_memalign(void **out, size_t alignment, size_t size);
char *__wrap_strdup(const char *text);
char *__wrap_realpath(const char *path, char *out);
void  __wrap_free(void *block);

void *__wrap_malloc(size_t size)
{
    return strikes(FAULT_MEMORY, "malloc") ? NULL : counted(__real_malloc(size));
}

void *__wrap_calloc(size_t count, size_t size)
{
    return strikes(FAULT_MEMORY, "calloc") ? NULL : counted(__real_calloc(count, size));
}

void *__wrap_realloc(void *block, size_t size)
{
    if (strikes(FAULT_MEMORY, "realloc"))
        return NULL;
    void *bigger = __real_realloc(block, size);
    return block ? bigger : counted(bigger);
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    return strikes(FAULT_MEMORY, "aligned_alloc") ? NULL : counted(__real_aligned_alloc(alignment, size));
}

int __wrap_posix_memalign(void **out, size_t alignment, size_t size)
{
    if (strikes(FAULT_MEMORY, "posix_memalign"))
        return ENOMEM;
    int status = __real_posix_memalign(out, alignment, size);
    if (status == 0)
        counted(*out);
    return status;
}

char *__wrap_strdup(const char *text)
{
    return strikes(FAULT_MEMORY, "strdup") ? NULL : counted(__real_strdup(text));
}

/* Only counted: what it gives is freed through here. */
char *__wrap_realpath(const char *path, char *out)
{
    char *real = __real_realpath(path, out);
    return out ? real : counted(real);
}

void __wrap_free(void *block)
{
    if (block)
        atomic_fetch_sub(&fault.blocks, 1);
    __real_free(block);
}

/* ---- files ---------------------------------------------------------------------------------------------------- */

int     __real_open(const char *path, int flags, ...);
ssize_t __real_read(int fd, void *data, size_t n);
ssize_t __real_pread(int fd, void *data, size_t n, off_t at);
ssize_t __real_write(int fd, const void *data, size_t n);
int     __real_fsync(int fd);
int     __real_close(int fd);
int     __real_rename(const char *from, const char *to);
void   *__real_mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset);
int     __real_ftruncate(int fd, off_t size);
int     __real_fstat(int fd, struct stat *st);

int     __wrap_open(const char *path, int flags, ...);
ssize_t __wrap_read(int fd, void *data, size_t n);
ssize_t __wrap_pread(int fd, void *data, size_t n, off_t at);
ssize_t __wrap_write(int fd, const void *data, size_t n);
int     __wrap_fsync(int fd);
int     __wrap_close(int fd);
int     __wrap_rename(const char *from, const char *to);
void   *__wrap_mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset);
int     __wrap_ftruncate(int fd, off_t size);
int     __wrap_fstat(int fd, struct stat *st);

int __wrap_open(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
    va_end(args);
    return strikes(FAULT_IO, "open") ? -1 : __real_open(path, flags, mode);
}

ssize_t __wrap_read(int fd, void *data, size_t n)
{
    return strikes(FAULT_IO, "read") ? -1 : __real_read(fd, data, shorter(n));
}

ssize_t __wrap_pread(int fd, void *data, size_t n, off_t at)
{
    return strikes(FAULT_IO, "pread") ? -1 : __real_pread(fd, data, shorter(n), at);
}

ssize_t __wrap_write(int fd, const void *data, size_t n)
{
    return strikes(FAULT_IO, "write") ? -1 : __real_write(fd, data, shorter(n));
}

int __wrap_fsync(int fd)
{
    return strikes(FAULT_IO, "fsync") ? -1 : __real_fsync(fd);
}

/* The descriptor is gone all the same, as Linux does it. */
int __wrap_close(int fd)
{
    bool fails = strikes(FAULT_IO, "close");
    int status = __real_close(fd);
    if (fails)
        errno = fault.error;
    return fails ? -1 : status;
}

int __wrap_rename(const char *from, const char *to)
{
    return strikes(FAULT_IO, "rename") ? -1 : __real_rename(from, to);
}

void *__wrap_mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset)
{
    return strikes(FAULT_IO, "mmap") ? MAP_FAILED : __real_mmap(at, n, protection, flags, fd, offset);
}

int __wrap_ftruncate(int fd, off_t size)
{
    return strikes(FAULT_IO, "ftruncate") ? -1 : __real_ftruncate(fd, size);
}

int __wrap_fstat(int fd, struct stat *st)
{
    return strikes(FAULT_IO, "fstat") ? -1 : __real_fstat(fd, st);
}

/* ---- sweeps ----------------------------------------------------------------------------------------------------- */

bool fault_holds(const char *path, const char *data, size_t n)
{
    size_t size = 0;
    char *found = read_whole_file(path, &size);
    bool same = found && size == n && !memcmp(found, data, n);
    free(found);
    return same;
}

size_t fault_sweep_file(const char *folder, const char *name, fault_work_fn *work, const void *arg, enum fault_kind kind,
                        enum fault_mode mode)
{
    struct quern_error err = { 0 };
    char out[4096];
    size_t whole_n = 0, failures = 0;
    snprintf(out, sizeof out, "%s/%s", folder, name);
    write_text_file(folder, name, "old", 3);
    bool right = work(arg, &err);
    CHECK(right, "without faults: %s", err.text);
    char *whole = read_whole_file(out, &whole_n);
    for (size_t n = 0; whole; n++) {
        write_text_file(folder, name, "old", 3);
        long before = fault_live_blocks();
        err = (struct quern_error){ 0 };
        fault_arm(kind, n, mode);
        bool ok = work(arg, &err);
        const char *struck = fault_disarm(), *where = struck ? struck : "none";
        CHECK(fault_live_blocks() == before, "%zu (%s): %ld blocks leak", n, where, fault_live_blocks() - before);
        CHECK(temps_left(folder) == 0, "%zu (%s): a temporary file stays", n, where);
        /* A failed fsync of the folder comes after the rename: an error, but the new file is in its place. */
        bool renamed = !ok && !strcmp(where, "fsync") && !fault_holds(out, "old", 3);
        CHECK(ok || renamed ? fault_holds(out, whole, whole_n) : fault_holds(out, "old", 3),
              "%zu (%s): the output is broken", n, where);
        CHECK(ok || err.code == QUERN_EMEM || (kind == FAULT_IO && err.code == QUERN_EIO), "%zu (%s): code %d, %s", n, where,
              err.code, err.text);
        failures += !ok;
        if (!struck)
            break;
    }
    free(whole);
    return failures;
}
