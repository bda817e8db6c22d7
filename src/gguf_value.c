/* The values of a GGUF file: decoding, and the typed readers. The file's structure is gguf.c's. */
#include "gguf.h"

#include <float.h>
#include <math.h>
#include <string.h>

static const struct { const char *name; uint8_t bytes; } types[GGUF_TYPE_COUNT] = {
    [GGUF_U8]     = { "u8", 1 },     [GGUF_I8]    = { "i8", 1 },    [GGUF_U16] = { "u16", 2 }, [GGUF_I16]  = { "i16", 2 },
    [GGUF_U32]    = { "u32", 4 },    [GGUF_I32]   = { "i32", 4 },   [GGUF_F32] = { "f32", 4 }, [GGUF_BOOL] = { "bool", 1 },
    [GGUF_U64]    = { "u64", 8 },    [GGUF_I64]   = { "i64", 8 },   [GGUF_F64] = { "f64", 8 },
    [GGUF_STRING] = { "string", 0 }, [GGUF_ARRAY] = { "array", 0 },
};

const char *gguf_type_name(enum gguf_type type)
{
    return (unsigned)type < GGUF_TYPE_COUNT ? types[type].name : "unknown type";
}

size_t gguf_type_bytes(enum gguf_type type)
{
    return (unsigned)type < GGUF_TYPE_COUNT ? types[type].bytes : 0;
}

/* Byte by byte: values in a file are packed, so their addresses have no alignment; compilers make one load of it. */
uint64_t gguf_little_endian(const uint8_t *p, size_t n)
{
    uint64_t value = 0;
    for (size_t i = n; i-- > 0;)
        value = value << 8 | p[i];
    return value;
}

void gguf_pack(uint8_t *packed, uint64_t value, size_t n)
{
    for (size_t i = 0; i < n; i++)
        packed[i] = (uint8_t)(value >> 8 * i);
}

bool gguf_alignment_ok(uint64_t alignment)
{
    return alignment >= 8 && alignment <= 65536 && (alignment & (alignment - 1)) == 0;
}

/* Signed and unsigned types of every width; bool is neither. */
static bool is_signed(enum gguf_type type)
{
    return type == GGUF_I8 || type == GGUF_I16 || type == GGUF_I32 || type == GGUF_I64;
}

static bool is_unsigned(enum gguf_type type)
{
    return type == GGUF_U8 || type == GGUF_U16 || type == GGUF_U32 || type == GGUF_U64;
}

void gguf_scalar(struct gguf_value *out, enum gguf_type type, const uint8_t *packed)
{
    size_t bytes = types[type].bytes;
    uint64_t bits = gguf_little_endian(packed, bytes);
    out->type = type;
    if (type == GGUF_F64) {
        memcpy(&out->as.f, &bits, 8);
    } else if (type == GGUF_F32) {
        uint32_t low = (uint32_t)bits;
        float narrow;
        memcpy(&narrow, &low, 4);
        out->as.f = narrow;
    } else if (is_signed(type)) {
        uint64_t sign = (uint64_t)1 << (8 * bytes - 1);
        out->as.u = (bits ^ sign) - sign;
    } else {
        out->as.u = bits;
    }
}

/* Readers of one type accept the file's other widths where the value fits: writers disagree about u32, i32 and u64 for counts. An
 * absent key leaves *out as it is, which is how callers give defaults. */
static bool type_error(const struct gguf_kv *kv, const char *key, const char *expected, struct quern_error *err)
{
    return ERR(err, QUERN_EFORMAT, "key '%s' at byte %zu: expected %s, found %s", key, kv->offset, expected,
               gguf_type_name(kv->value.type));
}

bool gguf_read_u32(const struct gguf *g, const char *key, uint32_t *out, struct quern_error *err)
{
    const struct gguf_kv *kv = gguf_find_kv(g, key);
    if (!kv)
        return true;
    const struct gguf_value *value = &kv->value;
    if (!is_signed(value->type) && !is_unsigned(value->type))
        return type_error(kv, key, "u32", err);
    if (is_signed(value->type) && (value->as.i < 0 || value->as.i > UINT32_MAX))
        return ERR(err, QUERN_EFORMAT, "key '%s' at byte %zu is %jd, allowed are 0 to %u", key, kv->offset, (intmax_t)value->as.i,
                   UINT32_MAX);
    if (is_unsigned(value->type) && value->as.u > UINT32_MAX)
        return ERR(err, QUERN_EFORMAT, "key '%s' at byte %zu is %ju, allowed are 0 to %u", key, kv->offset, (uintmax_t)value->as.u,
                   UINT32_MAX);
    *out = (uint32_t)value->as.u;
    return true;
}

bool gguf_read_f32(const struct gguf *g, const char *key, float *out, struct quern_error *err)
{
    const struct gguf_kv *kv = gguf_find_kv(g, key);
    if (!kv)
        return true;
    if (kv->value.type != GGUF_F32 && kv->value.type != GGUF_F64)
        return type_error(kv, key, "f32", err);
    if (isfinite(kv->value.as.f) && fabs(kv->value.as.f) > (double)FLT_MAX)
        return ERR(err, QUERN_EFORMAT, "key '%s' at byte %zu is %g, too large for f32", key, kv->offset, kv->value.as.f);
    *out = (float)kv->value.as.f;
    return true;
}

bool gguf_read_bool(const struct gguf *g, const char *key, bool *out, struct quern_error *err)
{
    const struct gguf_kv *kv = gguf_find_kv(g, key);
    if (!kv)
        return true;
    if (kv->value.type != GGUF_BOOL)
        return type_error(kv, key, "bool", err);
    *out = kv->value.as.u != 0;
    return true;
}

bool gguf_read_string(const struct gguf *g, const char *key, struct gguf_string *out, struct quern_error *err)
{
    const struct gguf_kv *kv = gguf_find_kv(g, key);
    if (!kv)
        return true;
    if (kv->value.type != GGUF_STRING)
        return type_error(kv, key, "string", err);
    *out = kv->value.as.string;
    return true;
}

bool gguf_array_i64(const struct gguf_value *array, size_t i, int64_t *out)
{
    struct gguf_value value;
    if (array->type != GGUF_ARRAY)
        return false;
    enum gguf_type type = array->as.array.type;
    if (!is_signed(type) && !is_unsigned(type) && type != GGUF_BOOL)
        return false;
    gguf_scalar(&value, type, array->as.array.data + i * gguf_type_bytes(type));
    if (!is_signed(type) && value.as.u > INT64_MAX)
        return false;
    *out = value.as.i;
    return true;
}

bool gguf_array_f64(const struct gguf_value *array, size_t i, double *out)
{
    struct gguf_value value;
    if (array->type != GGUF_ARRAY || (array->as.array.type != GGUF_F32 && array->as.array.type != GGUF_F64))
        return false;
    gguf_scalar(&value, array->as.array.type, array->as.array.data + i * gguf_type_bytes(array->as.array.type));
    *out = value.as.f;
    return true;
}

/* Strings have no fixed size, so an array of them is walked: `cursor` begins at 0. gguf.c has checked every length. */
struct gguf_string gguf_array_string(const struct gguf_value *array, size_t *cursor)
{
    const uint8_t *p = array->as.array.data + *cursor;
    struct gguf_string s = { (const char *)p + 8, (size_t)gguf_little_endian(p, 8) };
    *cursor += 8 + s.n;
    return s;
}

bool gguf_string_is(struct gguf_string s, const char *text)
{
    return s.n == strlen(text) && (s.n == 0 || !memcmp(s.text, text, s.n));
}
