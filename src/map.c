#include "map.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Where mmap is refused: the whole file through read(). */
static bool read_to_heap(struct map *map, int fd, const char *path, struct quern_error *err)
{
    uint8_t *data = mem_take_aligned(map->size, 1, "a file that cannot be mapped", err);
    if (!data)
        return false;
    for (size_t used = 0; used < map->size;) {
        ssize_t got = read(fd, data + used, map->size - used);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            if (got < 0)
                ERR_ERRNO(err, "cannot read '%s' at byte %zu", path, used);
            else
                ERR(err, QUERN_EIO, "cannot read '%s': it ended at byte %zu of %zu while it was read", path, used, map->size);
            free(data);
            return false;
        }
        used += (size_t)got;
    }
    map->data = data;
    map->heap = true;
    return true;
}

static bool map_file(struct map *map, int fd, const char *path, struct quern_error *err)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return ERR_ERRNO(err, "cannot open '%s'", path);
    /* open() succeeds on a folder; the user should read the system's own words for it. */
    if (S_ISDIR(st.st_mode)) {
        errno = EISDIR;
        return ERR_ERRNO(err, "cannot open '%s'", path);
    }
    if (!S_ISREG(st.st_mode))
        return ERR(err, QUERN_EIO, "cannot open '%s': not a regular file (a pipe, a device or a socket)", path);
    if ((uintmax_t)st.st_size > SIZE_MAX)
        return ERR(err, QUERN_EMEM, "cannot open '%s': %ju bytes do not fit the address space", path, (uintmax_t)st.st_size);

    *map = (struct map){ .size = (size_t)st.st_size, .device = st.st_dev, .inode = st.st_ino };
    if (map->size == 0)
        return true;                  /* mmap refuses 0 bytes; what an empty file means is the reader's to say */
    /* Shared and read-only: engines on the same file share the page cache's copy, and a file that is cut short raises SIGBUS, which
     * the program turns into an error (cli.c). */
    void *data = mmap(NULL, map->size, PROT_READ, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED)
        return read_to_heap(map, fd, path, err);
    map->data = data;
    return true;
}

bool map_open(struct map *map, const char *path, struct quern_error *err)
{
    *map = (struct map){ 0 };
    /* O_NONBLOCK: opening a FIFO without a writer would wait for ever. It means nothing to a regular file. */
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return ERR_ERRNO(err, "cannot open '%s'", path);
    bool ok = map_file(map, fd, path, err);
    close(fd);
    if (!ok)
        *map = (struct map){ 0 };
    return ok;
}

void map_close(struct map *map)
{
    if (map->heap)
        free((void *)map->data);
    else if (map->data)
        munmap((void *)map->data, map->size);
    *map = (struct map){ 0 };
}

void map_advise(const struct map *map, enum map_advice advice)
{
    if (!map->data || map->heap)
        return;
    /* Advice that is refused changes nothing but speed. Read-ahead that is asked for (WILLNEED) fills the page cache with small
     * pages, so it is one or the other: under HUGEPAGE each fault brings two megabytes and begins to read the next two. */
#ifdef MADV_HUGEPAGE
    if (advice == MAP_HUGE) {
        (void)madvise((void *)map->data, map->size, MADV_HUGEPAGE);
        return;
    }
#endif
    (void)madvise((void *)map->data, map->size, MADV_WILLNEED);
}

void map_forget(const struct map *map, const uint8_t *from, size_t bytes)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), data = (uintptr_t)map->data, at = (uintptr_t)from;
    if (!map->data || map->heap || at < data || at - data > map->size || bytes > map->size - (at - data))
        return;
    uintptr_t begin = (at + page - 1) / page * page, end = (at + bytes) / page * page;
    if (end > begin)
        (void)madvise((void *)begin, end - begin, MADV_DONTNEED);
}
