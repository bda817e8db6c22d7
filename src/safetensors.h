/* safetensors.h - tensors by name from model.safetensors, or from an index with its shards.
 *
 * safetensors_open maps the file (a folder's shards through model.safetensors.index.json), checks every number of the header
 * against the bytes that are there, and gives views into the mapping. After it has succeeded every tensor lies wholly inside
 * its file, its bytes are what dtype and shape say, none overlaps another, nothing is left over between them, and names are
 * unique over all shards.
 *
 * Format: u64 length of the header, little-endian; the header, JSON: name -> { dtype, shape, data_offsets }; the data. */
#ifndef QUERN_SAFETENSORS_H
#define QUERN_SAFETENSORS_H

#include "arena.h"
#include "error.h"
#include "map.h"

enum { SAFETENSORS_DIMS = 8 };

struct safetensor {
    const char    *name;          /* NUL-terminated, without NULs inside */
    const char    *dtype;         /* as the file calls it: "BF16", "F32" ... */
    uint32_t       format;        /* FORMAT_F32, F16 or BF16 of kernels/formats.h; FORMAT_COUNT for what we do not compute with */
    size_t         dims;          /* 0..8 */
    size_t         shape[SAFETENSORS_DIMS];   /* outermost first, as the file has it */
    size_t         elements;      /* product of the shape */
    const uint8_t *data;          /* no alignment promised */
    size_t         bytes;
    uint32_t       part;          /* which shard */
};

struct safetensors {
    struct safetensor *tensors;   /* sorted by name */
    size_t             count;
    struct map        *parts;
    size_t             part_count;
    struct arena       arena;
};

/* `path`: a .safetensors file, or an index (a file that ends in .json) whose shards lie beside it: a shard's name may not hold a
 * slash. QUERN_EFORMAT for what the format forbids and for missing shards, QUERN_EIO, QUERN_EMEM; the message begins with the
 * path and names tensor, found and allowed. On failure nothing is held. */
bool safetensors_open(struct safetensors *s, const char *path, struct quern_error *err);
/* One file from memory that the caller keeps (tests, fuzzing). */
bool safetensors_view(struct safetensors *s, const void *data, size_t size, const char *name, struct quern_error *err);
void safetensors_close(struct safetensors *s);

/* NULL when absent. */
const struct safetensor *safetensors_find(const struct safetensors *s, const char *name);

#endif
