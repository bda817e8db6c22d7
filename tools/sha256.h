/* sha256.h - SHA-256 (FIPS 180-4) of bytes that come in pieces. */
#ifndef QUERN_SHA256_H
#define QUERN_SHA256_H

#include <stddef.h>
#include <stdint.h>

struct sha256 { uint32_t state[8]; uint64_t bytes; uint8_t block[64]; };

void sha256_begin(struct sha256 *h);
void sha256_add(struct sha256 *h, const void *data, size_t n);
/* 64 hexadecimal digits and a NUL. */
void sha256_end(struct sha256 *h, char out[65]);

#endif
