/* formats_small.h - a few reference blocks per tensor type, for where the full vectors are absent. */
#ifndef QUERN_FORMATS_SMALL_H
#define QUERN_FORMATS_SMALL_H

#include <stddef.h>
#include <stdint.h>

struct small_block_vector {
    uint32_t    id;                    /* of the format; 0 ends the table                    */
    uint64_t    hash;                  /* small_hash of the decoded floats, little-endian    */
    const char *hex;                   /* the packed bytes                                   */
};
extern const struct small_block_vector small_blocks[];

/* What the first SMALL_SOURCE floats of the vectors' source become. */
enum { SMALL_SOURCE = 64 };
struct small_encoding {
    uint32_t    id;                    /* 0 ends the table */
    const char *hex;
};
extern const struct small_encoding small_encodings[];
extern const char small_source[];      /* hex */

/* FNV-1a, 64 bits. */
static inline uint64_t small_hash(const void *bytes, size_t n)
{
    uint64_t hash = 0xcbf29ce484222325;
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ ((const unsigned char *)bytes)[i]) * 0x100000001b3;
    return hash;
}

#endif
