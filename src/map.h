/* map.h - a file's bytes, read-only, through the page cache.
 *
 * Only regular files are mapped: a directory, a FIFO, a device or a socket is an error at once, never a hang. The
 * inode is held, so a file that is replaced by rename stays what it was; one that is cut short under the mapping
 * raises SIGBUS, which main.c turns into exit 6 (the library installs no signal handler). */
#ifndef QUERN_MAP_H
#define QUERN_MAP_H

#include <sys/types.h>

#include "error.h"

struct map {
    const uint8_t *data;     /* NULL for an empty file */
    size_t         size;     /* bytes */
    dev_t          device;   /* identity of the file, to refuse output onto input */
    ino_t          inode;
    bool           heap;     /* read into memory because mmap failed (a file system without it) */
};

/* Map the whole of `path`. QUERN_EIO with errno's sentence when it cannot be opened or is not a regular file. When
 * mmap fails the file is read into memory instead (QUERN_EMEM if that fails too). */
bool map_open(struct map *map, const char *path, struct quern_error *err);
void map_close(struct map *map);

/* What will be done with the whole map: all of it is wanted soon; or that, in huge pages if the file system can. Advice only: never
 * fails. */
enum map_advice { MAP_SOON, MAP_HUGE };
void map_advise(const struct map *map, enum map_advice advice);
/* Bytes [from, from + bytes) have been read and are not wanted soon: their whole pages need not stay in this process's memory. They
 * may lie anywhere; what is not in the map is left alone. They can be read again as before. Not for maps that
 * are settled (settle.h): those hold their bytes in memory of their own, and would lose them. */
void map_forget(const struct map *map, const uint8_t *from, size_t bytes);

#endif
