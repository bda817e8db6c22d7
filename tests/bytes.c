#include "bytes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void bytes_free(struct bytes *b)
{
    free(b->data);
    *b = (struct bytes){ 0 };
}

void put_raw(struct bytes *b, const void *data, size_t n)
{
    if (b->n + n > b->room) {
        b->room = (b->n + n) * 2 + 256;
        b->data = realloc(b->data, b->room);
        if (!b->data)
            abort();
    }
    if (n)
        memcpy(b->data + b->n, data, n);
    b->n += n;
}

void put_zeros(struct bytes *b, size_t n)
{
    static const uint8_t zeros[256];
    for (; n > sizeof zeros; n -= sizeof zeros)
        put_raw(b, zeros, sizeof zeros);
    put_raw(b, zeros, n);
}

static void put_number(struct bytes *b, uint64_t value, size_t n)
{
    uint8_t packed[8];
    for (size_t i = 0; i < n; i++)
        packed[i] = (uint8_t)(value >> (8 * i));
    put_raw(b, packed, n);
}

void put_u8(struct bytes *b, uint8_t value)   { put_number(b, value, 1); }
void put_u16(struct bytes *b, uint16_t value) { put_number(b, value, 2); }
void put_u32(struct bytes *b, uint32_t value) { put_number(b, value, 4); }
void put_u64(struct bytes *b, uint64_t value) { put_number(b, value, 8); }

void put_f32(struct bytes *b, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    put_u32(b, bits);
}

void put_string(struct bytes *b, const char *text)
{
    put_u64(b, strlen(text));
    put_raw(b, text, strlen(text));
}

void put_pad(struct bytes *b, size_t alignment)
{
    put_zeros(b, (alignment - b->n % alignment) % alignment);
}

void put_header(struct bytes *b, uint64_t tensors, uint64_t keys)
{
    put_raw(b, "GGUF", 4);
    put_u32(b, 3);
    put_u64(b, tensors);
    put_u64(b, keys);
}

void put_key_u32(struct bytes *b, const char *key, uint32_t value)
{
    put_string(b, key);
    put_u32(b, 4);
    put_u32(b, value);
}

void put_key_u16(struct bytes *b, const char *key, uint16_t value)
{
    put_string(b, key);
    put_u32(b, 2);
    put_u16(b, value);
}

void put_key_f32(struct bytes *b, const char *key, float value)
{
    put_string(b, key);
    put_u32(b, 6);
    put_f32(b, value);
}

void put_key_text(struct bytes *b, const char *key, const char *value)
{
    put_string(b, key);
    put_u32(b, 8);
    put_string(b, value);
}

void put_tensor(struct bytes *b, const char *name, uint32_t dims, const uint64_t *shape, uint32_t type, uint64_t offset)
{
    put_string(b, name);
    put_u32(b, dims);
    for (uint32_t i = 0; i < dims; i++)
        put_u64(b, shape[i]);
    put_u32(b, type);
    put_u64(b, offset);
}

void bytes_save(const struct bytes *b, const char *path)
{
    FILE *file = fopen(path, "wb");
    if (!file || (b->n && fwrite(b->data, 1, b->n, file) != b->n) || fclose(file) != 0) {
        perror(path);
        abort();
    }
}
