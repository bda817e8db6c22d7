/* bytes.h - GGUF files built by hand, byte for byte, so that tests can also build wrong ones. */
#ifndef QUERN_BYTES_H
#define QUERN_BYTES_H

#include <stddef.h>
#include <stdint.h>

struct bytes {
    uint8_t *data;     /* malloc'ed */
    size_t   n, room;
};

void bytes_free(struct bytes *b);
void put_raw(struct bytes *b, const void *data, size_t n);
void put_zeros(struct bytes *b, size_t n);
void put_u8(struct bytes *b, uint8_t value);
void put_u16(struct bytes *b, uint16_t value);
void put_u32(struct bytes *b, uint32_t value);
void put_u64(struct bytes *b, uint64_t value);
void put_f32(struct bytes *b, float value);
/* u64 length and the bytes. */
void put_string(struct bytes *b, const char *text);
void put_pad(struct bytes *b, size_t alignment);

/* "GGUF", version 3, counts. */
void put_header(struct bytes *b, uint64_t tensors, uint64_t keys);
/* Whole keys. */
void put_key_u32(struct bytes *b, const char *key, uint32_t value);
void put_key_u16(struct bytes *b, const char *key, uint16_t value);
void put_key_f32(struct bytes *b, const char *key, float value);
void put_key_text(struct bytes *b, const char *key, const char *value);
/* One row of the directory. */
void put_tensor(struct bytes *b, const char *name, uint32_t dims, const uint64_t *shape, uint32_t type, uint64_t offset);

/* Write the bytes to `path`; aborts the test program when that fails. */
void bytes_save(const struct bytes *b, const char *path);

#endif
