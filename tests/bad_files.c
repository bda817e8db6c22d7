#include "bad_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats.h"
#include "gguf.h"

/* ---- the small file, and where its fields are ----------------------------------------------------------------- */

struct field { size_t at, bytes; };

static void mark(struct field *fields, enum bad_field field, const struct bytes *b, size_t back, size_t bytes)
{
    fields[field] = (struct field){ b->n - back, bytes };
}

static void base(struct bytes *b, struct field *f, size_t *data_offset)
{
    put_header(b, 3, 7);
    f[VERSION] = (struct field){ 4, 4 };
    f[TENSORS] = (struct field){ 8, 8 };
    f[KEYS] = (struct field){ 16, 8 };
    put_key_text(b, "general.architecture", "llama");
    mark(f, STRING_LENGTH, b, 5 + 8, 8);
    put_key_u32(b, "general.alignment", 32);
    mark(f, ALIGNMENT, b, 4, 4);
    mark(f, ALIGNMENT_TYPE, b, 8, 4);
    put_string(b, "x.bool"), put_u32(b, GGUF_BOOL), put_u8(b, 1);
    mark(f, BOOL_VALUE, b, 1, 1);
    put_string(b, "x.array"), put_u32(b, GGUF_ARRAY), put_u32(b, GGUF_U32), put_u64(b, 4);
    mark(f, ARRAY_COUNT, b, 8, 8);
    mark(f, ARRAY_TYPE, b, 12, 4);
    for (unsigned i = 0; i < 4; i++)
        put_u32(b, i);
    put_string(b, "x.list"), put_u32(b, GGUF_ARRAY), put_u32(b, GGUF_STRING), put_u64(b, 2);
    mark(f, LIST_COUNT, b, 8, 8);
    put_string(b, "one"), put_string(b, "two");
    mark(f, KEY_LENGTH, b, 0, 8);
    put_string(b, "x.number");
    mark(f, KEY_TEXT, b, 6, 1);
    mark(f, VALUE_TYPE, b, 0, 4);
    put_u32(b, GGUF_U32), put_u32(b, 7);
    put_key_f32(b, "x.last", 1.0f);

    put_tensor(b, "first", 2, (uint64_t[]){ 8, 2 }, FORMAT_F32, 0);
    mark(f, FIRST_SHAPE, b, 28, 8);
    mark(f, NAME_LENGTH, b, 0, 8);
    put_string(b, "middle");
    mark(f, NAME_TEXT, b, 3, 1);
    mark(f, DIMS, b, 0, 4);
    put_u32(b, 3);
    mark(f, SHAPE_0, b, 0, 8);
    put_u64(b, 256);
    mark(f, SHAPE_1, b, 0, 8);
    put_u64(b, 2);
    mark(f, SHAPE_2, b, 0, 8);
    put_u64(b, 1);
    mark(f, TYPE, b, 0, 4);
    put_u32(b, FORMAT_Q4_K);
    mark(f, OFFSET, b, 0, 8);
    put_u64(b, 64);
    put_tensor(b, "last", 1, (uint64_t[]){ 32 }, FORMAT_F16, 352);
    mark(f, LAST_OFFSET, b, 8, 8);
    mark(f, LAST_SHAPE, b, 20, 8);
    put_pad(b, 32);
    if (data_offset)
        *data_offset = b->n;
    put_zeros(b, 416);                                    /* 64, 288 and 64 bytes */
}

void bad_base(struct bytes *b, size_t *data_offset)
{
    struct field fields[FIELD_COUNT];
    base(b, fields, data_offset);
}

/* ---- what patches do not reach -------------------------------------------------------------------------------- */

static void first_bytes(struct bytes *b, uint64_t n)
{
    put_raw(b, "GGUF", n);
}

static void other_file(struct bytes *b, uint64_t which)
{
#define TEXT(literal) { literal, sizeof literal - 1 }
    static const struct { const char *text; size_t n; } files[] = {
        TEXT("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935\nsize 4368438944\n"),
        TEXT("<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>\n"),
        TEXT("\n\n  <html lang=en>"),
        TEXT("\x40\0\0\0\0\0\0\0{\"weight\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}"),
        TEXT("PK\003\004\024\0\0\0\010\0archive/data.pkl"),
        TEXT("lmgg\0\175\0\0\0\020\0\0"),
        TEXT("tjgg\003\0\0\0\0\175\0\0"),
        TEXT("algg\001\0\0\0\010\0\0\0"),
        TEXT("{\"architectures\": [\"LlamaForCausalLM\"]}"),
        TEXT("\x80\002}q\0(X"),
        TEXT("\0\0\0\0\0\0\0\0\0\0\0\0"),
        TEXT("#!/bin/sh\nexit 1\n"),
        TEXT("fmgg\001\0\0\0\0\175\0\0"),
        TEXT("\x1f\x8b\010\010\0\0\0\0"),
        TEXT("\x28\xb5\x2f\xfd\044\0\0\0"),
        TEXT("FUGG\0\0\0\003"),
    };
#undef TEXT
    put_raw(b, files[which].text, files[which].n);
}

/* Without its last `n` bytes, or the other way round. */
static void cut(struct bytes *b, uint64_t n)
{
    bad_base(b, NULL);
    b->n -= n;
}

static void longer(struct bytes *b, uint64_t n)
{
    bad_base(b, NULL);
    put_zeros(b, n);
}

static void no_tensors(struct bytes *b, uint64_t unused)
{
    (void)unused;
    put_header(b, 0, 1);
    put_key_text(b, "general.architecture", "llama");
}

static void long_key(struct bytes *b, uint64_t n)
{
    put_header(b, 0, 1);
    put_u64(b, n);
    for (uint64_t i = 0; i < n; i++)
        put_u8(b, 'k');
    put_u32(b, GGUF_U8), put_u8(b, 0);
}

static void twice(struct bytes *b, uint64_t type)
{
    put_header(b, 0, 3);
    put_key_u32(b, "x.twice", 1);
    put_key_u32(b, "x.other", 1);
    if (type == GGUF_U32)
        put_key_u32(b, "x.twice", 1);
    else
        put_key_text(b, "x.twice", "1");
}

/* Arrays of one element each, which is the next array. */
static void nested(struct bytes *b, uint64_t depth)
{
    put_header(b, 0, 1);
    put_string(b, "x.deep"), put_u32(b, GGUF_ARRAY);
    for (uint64_t i = 0; i < depth; i++)
        put_u32(b, GGUF_ARRAY), put_u64(b, 1);
}

static void bool_array(struct bytes *b, uint64_t value)
{
    put_header(b, 0, 1);
    put_string(b, "x.flags"), put_u32(b, GGUF_ARRAY), put_u32(b, GGUF_BOOL), put_u64(b, 2), put_u8(b, 1), put_u8(b, (uint8_t)value);
}

static void alignment_array(struct bytes *b, uint64_t unused)
{
    (void)unused;
    put_header(b, 0, 1);
    put_string(b, "general.alignment"), put_u32(b, GGUF_ARRAY), put_u32(b, GGUF_U32), put_u64(b, 1), put_u32(b, 32);
}

static void shuffled(struct bytes *b, uint64_t unused)
{
    (void)unused;
    put_header(b, 1, 4);
    put_key_text(b, "zzz.not.known", "anything");
    put_key_u32(b, "general.alignment", 64);
    put_key_f32(b, "another.unknown", 0);
    put_key_text(b, "general.architecture", "llama");
    put_tensor(b, "t", 1, (uint64_t[]){ 8 }, FORMAT_F32, 0);
    put_pad(b, 64);
    put_zeros(b, 64);
}

static void long_name(struct bytes *b, uint64_t n)
{
    put_header(b, 1, 0);
    put_u64(b, n);
    for (uint64_t i = 0; i < n; i++)
        put_u8(b, 'n');
    put_u32(b, 1), put_u64(b, 8), put_u32(b, FORMAT_F32), put_u64(b, 0);
    put_pad(b, 32);
    put_zeros(b, 32);
}

/* Two tensors, in this order in the directory, at these offsets; 32 bytes each. */
static void two(struct bytes *b, const char *a, uint64_t a_at, const char *z, uint64_t z_at)
{
    put_header(b, 2, 0);
    put_tensor(b, a, 1, (uint64_t[]){ 8 }, FORMAT_F32, a_at);
    put_tensor(b, z, 1, (uint64_t[]){ 8 }, FORMAT_F32, z_at);
    put_pad(b, 32);
    put_zeros(b, (a_at > z_at ? a_at : z_at) + 32);
}

static void same_name(struct bytes *b, uint64_t unused) { (void)unused; two(b, "same", 0, "same", 32); }
static void with_gap(struct bytes *b, uint64_t gap)     { two(b, "a", 0, "z", 32 + gap); }
static void unsorted(struct bytes *b, uint64_t unused)  { (void)unused; two(b, "a", 32, "z", 0); }

/* Tensors of 2^62 bytes, each of which says a legal size and offset: the sum of four wraps to 0. */
static void sum_wraps(struct bytes *b, uint64_t n)
{
    char name[24];
    put_header(b, n, 0);
    for (uint64_t i = 0; i < n; i++) {
        snprintf(name, sizeof name, "t%u", (unsigned)i);
        put_tensor(b, name, 1, (uint64_t[]){ (uint64_t)1 << 60 }, FORMAT_F32, i << 62);
    }
    put_pad(b, 32);
    put_zeros(b, 64);
}

/* Names of one length that differ only at their ends: bad for weak hashes and for comparing from the front. */
static void many(struct bytes *b, uint64_t n)
{
    char name[64];
    put_header(b, n, 0);
    for (uint64_t i = 0; i < n; i++) {
        snprintf(name, sizeof name, "blk.000000000000000000000000000000000000000000000000.%07u", (unsigned)i);
        put_tensor(b, name, 1, (uint64_t[]){ 1 }, FORMAT_F32, i * 32);
    }
    put_pad(b, 32);
}

/* ---- the table ------------------------------------------------------------------------------------------------ */

#define MAX64 UINT64_MAX
#define LEFT  808          /* bytes behind the counts of the small file */

const struct bad_row bad_rows[] = {
    { "--", "the small file itself, unchanged", { { FIELD_NONE, 0 } }, cut, 0, QUERN_OK, "", 0 },
    { "A1", "0 bytes", { { FIELD_NONE, 0 } }, first_bytes, 0, QUERN_EFORMAT, "not a GGUF file (0 bytes)", 0 },
    { "A1", "1 byte", { { FIELD_NONE, 0 } }, first_bytes, 1, QUERN_EFORMAT, "not a GGUF file (1 bytes)", 0 },
    { "A1", "2 bytes", { { FIELD_NONE, 0 } }, first_bytes, 2, QUERN_EFORMAT, "not a GGUF file (2 bytes)", 0 },
    { "A1", "3 bytes", { { FIELD_NONE, 0 } }, first_bytes, 3, QUERN_EFORMAT, "not a GGUF file (3 bytes)", 0 },
    { "A2", "git-lfs pointer", { { FIELD_NONE, 0 } }, other_file, 0, QUERN_EFORMAT, "git-lfs pointer", 0 },
    { "A2", "HTML page", { { FIELD_NONE, 0 } }, other_file, 1, QUERN_EFORMAT, "HTML page", 0 },
    { "A2", "HTML after blank lines", { { FIELD_NONE, 0 } }, other_file, 2, QUERN_EFORMAT, "HTML page", 0 },
    { "A2", "safetensors", { { FIELD_NONE, 0 } }, other_file, 3, QUERN_EFORMAT, "safetensors", 0 },
    { "A2", "zip", { { FIELD_NONE, 0 } }, other_file, 4, QUERN_EFORMAT, "zip archive", 0 },
    { "A2", "old GGML", { { FIELD_NONE, 0 } }, other_file, 5, QUERN_EFORMAT, "old GGML", 0 },
    { "A2", "old GGJT", { { FIELD_NONE, 0 } }, other_file, 6, QUERN_EFORMAT, "old GGJT", 0 },
    { "A2", "old GGLA", { { FIELD_NONE, 0 } }, other_file, 7, QUERN_EFORMAT, "GGLA adapter", 0 },
    { "A2", "JSON", { { FIELD_NONE, 0 } }, other_file, 8, QUERN_EFORMAT, "JSON text", 0 },
    { "A2", "Python pickle", { { FIELD_NONE, 0 } }, other_file, 9, QUERN_EFORMAT, "pickle", 0 },
    { "A2", "zeros", { { FIELD_NONE, 0 } }, other_file, 10, QUERN_EFORMAT, "begins with zeros", 0 },
    { "A2", "something else", { { FIELD_NONE, 0 } }, other_file, 11, QUERN_EFORMAT, "not a GGUF file (17 bytes)", 0 },
    { "A2", "old GGMF", { { FIELD_NONE, 0 } }, other_file, 12, QUERN_EFORMAT, "old GGMF", 0 },
    { "A2", "gzip", { { FIELD_NONE, 0 } }, other_file, 13, QUERN_EFORMAT, "gzip-compressed", 0 },
    { "A2", "zstd", { { FIELD_NONE, 0 } }, other_file, 14, QUERN_EFORMAT, "zstd-compressed", 0 },
    { "A2", "magic byte-swapped", { { FIELD_NONE, 0 } }, other_file, 15, QUERN_EFORMAT, "the magic is byte-swapped", 0 },
    { "A3", "version 3 byte-swapped", { { VERSION, 0x03000000 } }, NULL, 0, QUERN_EUNSUPPORTED, "big-endian GGUF", 0 },
    { "A3", "version 2 byte-swapped", { { VERSION, 0x02000000 } }, NULL, 0, QUERN_EUNSUPPORTED, "big-endian GGUF", 0 },
    { "A4", "version 0", { { VERSION, 0 } }, NULL, 0, QUERN_EUNSUPPORTED, "versions 2 and 3 are", 0 },
    { "A4", "version 1", { { VERSION, 1 } }, NULL, 0, QUERN_EUNSUPPORTED, "versions 2 and 3 are", 0 },
    { "A4", "version 4", { { VERSION, 4 } }, NULL, 0, QUERN_EUNSUPPORTED, "versions 2 and 3 are", 0 },
    { "A4", "version 0xffffffff", { { VERSION, 0xffffffff } }, NULL, 0, QUERN_EUNSUPPORTED, "versions 2 and 3 are", 0 },
    { "A6", "cut: last byte", { { FIELD_NONE, 0 } }, cut, 1, QUERN_EFORMAT, "tensor 'last': needs bytes", 0 },
    { "A6", "cut: half of the data", { { FIELD_NONE, 0 } }, cut, 208, QUERN_EFORMAT, "tensor 'middle': needs bytes", 0 },
    { "A6", "cut: first tensor", { { FIELD_NONE, 0 } }, cut, 415, QUERN_EFORMAT, "tensor 'first': needs bytes", 0 },
    { "A7", "100 bytes after the last tensor", { { FIELD_NONE, 0 } }, longer, 100, QUERN_OK, "", 0 },
    { "A8", "keys = 2^64-1", { { KEYS, MAX64 } }, NULL, 0, QUERN_EFORMAT, "keys at byte 16", 0 },
    { "A8", "keys = 2^32", { { KEYS, (uint64_t)1 << 32 } }, NULL, 0, QUERN_EFORMAT, "keys at byte 16", 0 },
    { "A8", "keys = bytes left / 14 + 1", { { KEYS, LEFT / 14 + 1 } }, NULL, 0, QUERN_EFORMAT, "keys at byte 16", 0 },
    { "A9", "tensors = 2^64-1", { { TENSORS, MAX64 } }, NULL, 0, QUERN_EFORMAT, "tensors at byte 8", 0 },
    { "A9", "tensors = 2^40", { { TENSORS, (uint64_t)1 << 40 } }, NULL, 0, QUERN_EFORMAT, "tensors at byte 8", 0 },
    { "A9", "tensors = bytes left / 33 + 1", { { TENSORS, LEFT / 33 + 1 } }, NULL, 0, QUERN_EFORMAT, "tensors at byte 8", 0 },
    { "A9", "tensors = 2^64 / 88 + 2", { { TENSORS, MAX64 / 88 + 2 } }, NULL, 0, QUERN_EFORMAT, "tensors at byte 8", 0 },
    { "A10", "no tensors (run: 3)", { { FIELD_NONE, 0 } }, no_tensors, 0, QUERN_OK, "", 0 },
    { "A11", "keys one less", { { KEYS, 6 } }, NULL, 0, QUERN_EFORMAT, "at byte", 0 },
    { "A11", "keys one more", { { KEYS, 8 } }, NULL, 0, QUERN_EFORMAT, "at byte", 0 },
    { "A12", "key length 2^64-1", { { KEY_LENGTH, MAX64 } }, NULL, 0, QUERN_EFORMAT, "its name at byte", 0 },
    { "A12", "key length 2^63", { { KEY_LENGTH, (uint64_t)1 << 63 } }, NULL, 0, QUERN_EFORMAT, "its name at byte", 0 },
    { "A12", "key length > file", { { KEY_LENGTH, 100000 } }, NULL, 0, QUERN_EFORMAT, "its name at byte", 0 },
    { "A12", "key of 65,535 bytes", { { FIELD_NONE, 0 } }, long_key, 65535, QUERN_OK, "", 0 },
    { "A12", "key of 65,536 bytes", { { FIELD_NONE, 0 } }, long_key, 65536, QUERN_EFORMAT, "its name has 65536 bytes", 0 },
    { "A13", "key of 0 bytes", { { KEY_LENGTH, 0 } }, NULL, 0, QUERN_EFORMAT, "its name has 0 bytes", 0 },
    { "A13", "NUL in a key", { { KEY_TEXT, 0 } }, NULL, 0, QUERN_EFORMAT, "control character 0", 0 },
    { "A13", "ESC in a key", { { KEY_TEXT, 27 } }, NULL, 0, QUERN_EFORMAT, "control character 27", 0 },
    { "A13", "DEL in a key", { { KEY_TEXT, 127 } }, NULL, 0, QUERN_EFORMAT, "control character 127", 0 },
    { "A13", "invalid UTF-8 in a key", { { KEY_TEXT, 255 } }, NULL, 0, QUERN_OK, "", 0 },
    { "A14", "duplicate key", { { FIELD_NONE, 0 } }, twice, GGUF_U32, QUERN_EFORMAT, "key 'x.twice' at byte", 0 },
    { "A14", "duplicate key of another type", { { FIELD_NONE, 0 } }, twice, GGUF_STRING, QUERN_EFORMAT, "duplicate key", 0 },
    { "A15", "value type 13", { { VALUE_TYPE, 13 } }, NULL, 0, QUERN_EFORMAT, "key 'x.number' at byte", 0 },
    { "A15", "value type 255", { { VALUE_TYPE, 255 } }, NULL, 0, QUERN_EFORMAT, "key 'x.number' at byte", 0 },
    { "A15", "value type 0xffffffff", { { VALUE_TYPE, 0xffffffff } }, NULL, 0, QUERN_EFORMAT, "key 'x.number' at byte", 0 },
    { "A16", "bool of value 2", { { BOOL_VALUE, 2 } }, NULL, 0, QUERN_EFORMAT, "a bool of value 2", 0 },
    { "A16", "bool of value 255", { { BOOL_VALUE, 255 } }, NULL, 0, QUERN_EFORMAT, "a bool of value 255", 0 },
    { "A16", "bool of value 2 in an array", { { FIELD_NONE, 0 } }, bool_array, 2, QUERN_EFORMAT, "element 1 is a bool of value 2",
      0 },
    { "A17", "string length > file", { { STRING_LENGTH, 100000 } }, NULL, 0, QUERN_EFORMAT, "key 'general.architecture' at byte",
      0 },
    { "A17", "string length 2^64-8", { { STRING_LENGTH, MAX64 - 7 } }, NULL, 0, QUERN_EFORMAT, "key 'general.architecture' at byte",
      0 },
    { "A18", "array of 2^62+1: its bytes wrap", { { ARRAY_COUNT, ((uint64_t)1 << 62) + 1 } }, NULL, 0, QUERN_EFORMAT,
      "key 'x.array' at byte", 0 },
    { "A18", "array of 1000 > file", { { ARRAY_COUNT, 1000 } }, NULL, 0, QUERN_EFORMAT, "key 'x.array' at byte", 0 },
    { "A18", "array of 2^64-1", { { ARRAY_COUNT, MAX64 } }, NULL, 0, QUERN_EFORMAT, "key 'x.array' at byte", 0 },
    { "A18", "array of elements of type 77", { { ARRAY_TYPE, 77 } }, NULL, 0, QUERN_EFORMAT, "element type 77", 0 },
    { "A19", "array of arrays", { { ARRAY_TYPE, GGUF_ARRAY } }, NULL, 0, QUERN_EFORMAT, "nested arrays are not supported", 0 },
    { "A19", "arrays nested 100,000 deep", { { FIELD_NONE, 0 } }, nested, 100000, QUERN_EFORMAT, "nested arrays are not supported",
      0 },
    { "A20", "2^32 empty strings", { { LIST_COUNT, (uint64_t)1 << 32 } }, NULL, 0, QUERN_EFORMAT, "key 'x.list' at byte", 0 },
    { "A21", "a string of 1 GiB", { { STRING_LENGTH, (uint64_t)1 << 30 } }, NULL, 0, QUERN_EMEM, "limit for metadata",
      ((uint64_t)1 << 30) + 4096 },
    { "A22", "alignment 0", { { ALIGNMENT, 0 } }, NULL, 0, QUERN_EFORMAT, "allowed are powers of two from 8 to 65536", 0 },
    { "A22", "alignment 1", { { ALIGNMENT, 1 } }, NULL, 0, QUERN_EFORMAT, "allowed are powers of two from 8 to 65536", 0 },
    { "A22", "alignment 3", { { ALIGNMENT, 3 } }, NULL, 0, QUERN_EFORMAT, "allowed are powers of two from 8 to 65536", 0 },
    { "A22", "alignment 4", { { ALIGNMENT, 4 } }, NULL, 0, QUERN_EFORMAT, "allowed are powers of two from 8 to 65536", 0 },
    { "A22", "alignment 2^31", { { ALIGNMENT, 0x80000000 } }, NULL, 0, QUERN_EFORMAT, "allowed are powers of two from 8 to 65536",
      0 },
    { "A22", "alignment 2^32-1", { { ALIGNMENT, 0xffffffff } }, NULL, 0, QUERN_EFORMAT, "allowed are powers of two from 8 to 65536",
      0 },
    { "A22", "alignment 131072", { { ALIGNMENT, 131072 } }, NULL, 0, QUERN_EFORMAT, "allowed are powers of two from 8 to 65536",
      0 },
    { "A22", "alignment as i32", { { ALIGNMENT_TYPE, GGUF_I32 } }, NULL, 0, QUERN_EFORMAT, "expected u32, found i32", 0 },
    { "A22", "alignment as f32", { { ALIGNMENT_TYPE, GGUF_F32 } }, NULL, 0, QUERN_EFORMAT, "expected u32, found f32", 0 },
    { "A22", "alignment as an array", { { FIELD_NONE, 0 } }, alignment_array, 0, QUERN_EFORMAT, "expected u32, found array", 0 },
    { "A23", "shuffled and unknown keys", { { FIELD_NONE, 0 } }, shuffled, 0, QUERN_OK, "", 0 },
    { "B1", "0 dimensions", { { DIMS, 0 } }, NULL, 0, QUERN_EFORMAT, "tensor 'middle' at byte", 0 },
    { "B1", "5 dimensions", { { DIMS, 5 } }, NULL, 0, QUERN_EFORMAT, "tensor 'middle' at byte", 0 },
    { "B1", "0xffffffff dimensions", { { DIMS, 0xffffffff } }, NULL, 0, QUERN_EFORMAT, "tensor 'middle' at byte", 0 },
    { "B2", "dimension 0 is 0", { { SHAPE_0, 0 } }, NULL, 0, QUERN_EFORMAT, "dimension 0 is 0", 0 },
    { "B2", "dimension 1 is 0", { { SHAPE_1, 0 } }, NULL, 0, QUERN_EFORMAT, "dimension 1 is 0", 0 },
    { "B2", "dimension 2 is 0", { { SHAPE_2, 0 } }, NULL, 0, QUERN_EFORMAT, "dimension 2 is 0", 0 },
    { "B3", "a dimension of -1", { { SHAPE_1, MAX64 } }, NULL, 0, QUERN_EFORMAT, "dimension 1 is -1", 0 },
    { "B3", "a dimension of -2^63", { { SHAPE_1, (uint64_t)1 << 63 } }, NULL, 0, QUERN_EFORMAT, "dimension 1 is -", 0 },
    { "B4", "2^54 * 2^42", { { SHAPE_0, (uint64_t)1 << 54 }, { SHAPE_1, ((uint64_t)1 << 42) + 1 } }, NULL, 0, QUERN_EFORMAT,
      "overflows", 0 },
    { "B4", "2^32 * 2^32: wraps to 0", { { SHAPE_0, (uint64_t)1 << 32 }, { SHAPE_1, (uint64_t)1 << 32 } }, NULL, 0, QUERN_EFORMAT,
      "overflows", 0 },
    { "B4", "2^63 * 2", { { SHAPE_0, (uint64_t)1 << 63 }, { SHAPE_1, 2 } }, NULL, 0, QUERN_EFORMAT, "dimension 0 is -", 0 },
    { "B4", "2^62 * 4: wraps to 0", { { SHAPE_0, (uint64_t)1 << 62 }, { SHAPE_1, 4 } }, NULL, 0, QUERN_EFORMAT, "overflows", 0 },
    { "B4", "2^62 * 2: above int64", { { SHAPE_0, (uint64_t)1 << 62 }, { SHAPE_1, 2 } }, NULL, 0, QUERN_EFORMAT, "overflows", 0 },
    { "B4", "three that wrap to 512", { { SHAPE_0, 256 }, { SHAPE_1, 3 }, { SHAPE_2, 0x5555555555555556 } }, NULL, 0, QUERN_EFORMAT,
      "overflows", 0 },
    { "B4", "bytes wrap, values do not", { { SHAPE_0, (uint64_t)1 << 62 }, { SHAPE_1, 1 }, { TYPE, FORMAT_F32 } }, NULL, 0,
      QUERN_EFORMAT, "its size in bytes overflows", 0 },
    { "B5", "Q4_K rows of 255", { { SHAPE_0, 255 } }, NULL, 0, QUERN_EFORMAT, "rows of 255 values do not divide into blocks of 256",
      0 },
    { "B5", "Q4_K rows of 257", { { SHAPE_0, 257 } }, NULL, 0, QUERN_EFORMAT, "rows of 257 values do not divide into blocks of 256",
      0 },
    { "B6", "tensor type 4", { { TYPE, 4 } }, NULL, 0, QUERN_EUNSUPPORTED, "tensor type 4 is not supported", 0 },
    { "B6", "tensor type 5", { { TYPE, 5 } }, NULL, 0, QUERN_EUNSUPPORTED, "tensor type 5 is not supported", 0 },
    { "B6", "tensor type 31", { { TYPE, 31 } }, NULL, 0, QUERN_EUNSUPPORTED, "tensor type 31 is not supported", 0 },
    { "B6", "tensor type 32", { { TYPE, 32 } }, NULL, 0, QUERN_EUNSUPPORTED, "tensor type 32 is not supported", 0 },
    { "B6", "tensor type 33", { { TYPE, 33 } }, NULL, 0, QUERN_EUNSUPPORTED, "tensor type 33 is not supported", 0 },
    { "B6", "tensor type 36", { { TYPE, 36 } }, NULL, 0, QUERN_EUNSUPPORTED, "tensor type 36 is not supported", 0 },
    { "B6", "tensor type 37", { { TYPE, 37 } }, NULL, 0, QUERN_EUNSUPPORTED, "tensor type 37 is not supported", 0 },
    { "B6", "tensor type 38", { { TYPE, 38 } }, NULL, 0, QUERN_EUNSUPPORTED, "tensor type 38 is not supported", 0 },
    { "B6", "tensor type 43", { { TYPE, 43 } }, NULL, 0, QUERN_EUNSUPPORTED, "tensor type 43 is not supported", 0 },
    { "B6", "tensor type 255", { { TYPE, 255 } }, NULL, 0, QUERN_EUNSUPPORTED, "tensor type 255 is not supported", 0 },
    { "B6", "tensor type -1", { { TYPE, 0xffffffff } }, NULL, 0, QUERN_EUNSUPPORTED, "tensor type 4294967295 is not supported", 0 },
    { "B7", "name of 0 bytes", { { NAME_LENGTH, 0 } }, NULL, 0, QUERN_EFORMAT, "its name has 0 bytes", 0 },
    { "B7", "name of 63 bytes", { { FIELD_NONE, 0 } }, long_name, 63, QUERN_OK, "", 0 },
    { "B7", "name of 64 bytes", { { FIELD_NONE, 0 } }, long_name, 64, QUERN_EFORMAT, "its name has 64 bytes", 0 },
    { "B7", "name of 65 bytes", { { FIELD_NONE, 0 } }, long_name, 65, QUERN_EFORMAT, "its name has 65 bytes", 0 },
    { "B7", "name length 2^64-1", { { NAME_LENGTH, MAX64 } }, NULL, 0, QUERN_EFORMAT, "its name at byte", 0 },
    { "B7", "duplicate name", { { FIELD_NONE, 0 } }, same_name, 0, QUERN_EFORMAT, "tensor 'same': duplicate name", 0 },
    { "B7", "NUL in a name", { { NAME_TEXT, 0 } }, NULL, 0, QUERN_EFORMAT, "control character 0", 0 },
    { "B7", "ESC in a name", { { NAME_TEXT, 27 } }, NULL, 0, QUERN_EFORMAT, "control character 27", 0 },
    { "B8", "offset 65", { { OFFSET, 65 } }, NULL, 0, QUERN_EFORMAT, "no multiple of the alignment 32", 0 },
    { "B8", "offset beyond the file", { { OFFSET, (uint64_t)1 << 40 } }, NULL, 0, QUERN_EFORMAT, "tensor 'middle': needs bytes",
      0 },
    { "B8", "offset 2^64-32: wraps", { { OFFSET, MAX64 - 31 } }, NULL, 0, QUERN_EFORMAT, "tensor 'middle': offset", 0 },
    { "B9", "same offset as another", { { OFFSET, 0 } }, NULL, 0, QUERN_EFORMAT, "overlap those of tensor 'first'", 0 },
    { "B9", "overlap by 32 bytes", { { LAST_OFFSET, 320 } }, NULL, 0, QUERN_EFORMAT, "overlap those of tensor 'middle'", 0 },
    { "B10", "a gap between tensors", { { FIELD_NONE, 0 } }, with_gap, 4096, QUERN_OK, "", 0 },
    { "B10", "offsets not in order", { { FIELD_NONE, 0 } }, unsorted, 0, QUERN_OK, "", 0 },
    { "B11", "sizes whose sum wraps", { { FIELD_NONE, 0 } }, sum_wraps, 4, QUERN_EFORMAT, "tensor 't0': needs bytes", 0 },
    { "B11", "sizes whose sum wraps, one legal", { { FIRST_SHAPE, 8 }, { LAST_SHAPE, ((uint64_t)1 << 63) - 32 }, { SHAPE_0, 256 } },
      NULL, 0, QUERN_EFORMAT, "tensor 'last'", 0 },
    { "B15", "10^6 tensors of one value", { { FIELD_NONE, 0 } }, many, 1000000, QUERN_OK, "", ((uint64_t)1 << 20) * 128 },
};
const size_t bad_row_count = sizeof bad_rows / sizeof *bad_rows;

void bad_save(const struct bad_row *row, const char *path)
{
    struct field fields[FIELD_COUNT] = { { 0, 0 } };
    struct bytes b = { 0 };
    if (row->make)
        row->make(&b, row->argument);
    else
        base(&b, fields, NULL);
    for (size_t i = 0; i < 3; i++)
        for (size_t k = 0; k < fields[row->patch[i].field].bytes; k++)
            b.data[fields[row->patch[i].field].at + k] = (uint8_t)(row->patch[i].value >> (8 * k));
    bytes_save(&b, path);
    bytes_free(&b);
    if (row->extend && truncate(path, (off_t)row->extend) != 0) {
        perror(path);
        abort();
    }
}
