/* Reading GGUF: header, keys, tensor directory, layout, split files.
 *
 * A file is laid out as
 *
 *     "GGUF"  u32 version  u64 tensors  u64 keys
 *     keys        each: string name, u32 type, value
 *     directory   each: string name, u32 dims, u64 shape[dims], u32 type, u64 offset
 *     padding to the alignment, then the data section, to which the offsets count
 *
 * with strings as u64 length and bytes. Every one of these numbers may be a lie, so the order of work is: read through the
 * bounded cursor, compare with the bytes that are left, and only then multiply, add, or allocate. What a later step relies on is
 * checked in the step before it, and each check names the place where it failed. */
#include "gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats.h"

enum {
    KEY_BYTES     = 8 + 1 + 4 + 1,           /* least that a key takes: length, one byte, type, value */
    TENSOR_BYTES  = 8 + 1 + 4 + 8 + 4 + 8,   /* length, one byte, dims, one dim, type, offset         */
    KEY_LENGTH    = 65535,
    NAME_LENGTH   = 63,                      /* as ggml, which keeps a NUL in 64 bytes                */
    PARTS         = 65535,                   /* split.count is 16 bits wide                           */
    METADATA_MIB  = 256
};

/* ---- one bounded cursor over the file ------------------------------------------------------------------------- */

/* Nothing of the file is read but through reader_take, which knows where the file ends. */
struct reader {
    const uint8_t *data;
    size_t size;                 /* of the file                                          */
    size_t at;                   /* the next byte                                        */
    size_t limit;                /* a section that goes beyond this byte is QUERN_EMEM   */
    size_t limit_bytes;          /* the same as the user knows it                        */
    const char *kind;            /* "key" or "tensor" while one is read, else NULL       */
    struct gguf_string item;     /* its name, once known                                 */
    size_t item_at, number;      /* where it begins; how many came before it             */
    struct quern_error *err;
};

/* Put the key or tensor that is being read before the message. Always false. */
static bool place(const struct reader *r)
{
    char name[160], prefix[240];
    if (!r->kind)
        return false;
    if (r->item.text)
        snprintf(prefix, sizeof prefix, "%s '%s' at byte %zu", r->kind, text_escape(name, sizeof name, r->item.text, r->item.n),
                 r->item_at);
    else
        snprintf(prefix, sizeof prefix, "%s %zu at byte %zu", r->kind, r->number + 1, r->item_at);
    return error_prefix(r->err, prefix);
}

#define FAIL(r, code, ...) (ERR((r)->err, (code), __VA_ARGS__), place(r))

/* The next n bytes, which are there; NULL with the error when they are not. */
static const uint8_t *reader_take(struct reader *r, uint64_t n, const char *what)
{
    size_t left = r->size - r->at;
    if (n > left) {
        FAIL(r, QUERN_EFORMAT, "%s at byte %zu needs %ju bytes, the file ends after %zu of them (truncated download?)", what, r->at,
             (uintmax_t)n, left);
        return NULL;
    }
    if (n > r->limit - r->at) {
        FAIL(r, QUERN_EMEM, "%s at byte %zu needs %ju bytes, more than the limit for metadata of %zu bytes leaves", what, r->at,
             (uintmax_t)n, r->limit_bytes);
        return NULL;
    }
    const uint8_t *p = r->data + r->at;
    r->at += (size_t)n;
    return p;
}

/* A little-endian number of 4 or 8 bytes. */
static bool reader_number(struct reader *r, uint64_t *out, size_t bytes, const char *what)
{
    const uint8_t *p = reader_take(r, bytes, what);
    if (!p)
        return false;
    *out = gguf_little_endian(p, bytes);
    return true;
}

/* A view of the text in the file; nothing is copied. */
static bool reader_string(struct reader *r, struct gguf_string *out, const char *what)
{
    uint64_t n;
    if (!reader_number(r, &n, 8, what))
        return false;
    const uint8_t *text = reader_take(r, n, what);
    if (!text)
        return false;
    *out = (struct gguf_string){ (const char *)text, (size_t)n };
    return true;
}

/* From here on, at most `bytes` further bytes. */
static void reader_limit(struct reader *r, size_t bytes)
{
    r->limit_bytes = bytes;
    if (!checked_add(&r->limit, r->at, bytes))
        r->limit = SIZE_MAX;
}

/* A key or a tensor's name: 1 to `most` bytes, none of them a control character. */
static bool reader_name(struct reader *r, struct gguf_string *out, size_t most)
{
    uint64_t n;
    r->item_at = r->at;
    r->item = (struct gguf_string){ 0 };
    if (!reader_number(r, &n, 8, "the length of its name"))
        return false;
    if (n == 0 || (n > most && n <= r->size - r->at))
        return FAIL(r, QUERN_EFORMAT, "its name has %ju bytes, allowed are 1 to %zu", (uintmax_t)n, most);
    const char *text = (const char *)reader_take(r, n, "its name");
    if (!text)
        return false;
    r->item = *out = (struct gguf_string){ text, (size_t)n };
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            return FAIL(r, QUERN_EFORMAT, "control character %d in its name", (unsigned char)text[i]);
    return true;
}

/* ---- what else a file may be ---------------------------------------------------------------------------------- */

/* People hand over what a download left behind, or the format before or beside GGUF. A sentence that says so saves them an hour;
 * NULL when the bytes remind of nothing. Old ggml wrote its magic as a little-endian u32, hence the reversed letters. */
static const char *looks_like(const uint8_t *data, size_t size)
{
    static const struct { const char *magic; size_t n; const char *sentence; } known[] = {
        { "version https://git-lfs", 23, "this is a git-lfs pointer: the model itself was not downloaded (git lfs pull)" },
        { "PK\003\004", 4, "this is a zip archive (a PyTorch checkpoint, perhaps)" },
        { "\x80\002", 2, "this is a Python pickle (a PyTorch checkpoint, perhaps)" },
        { "\x1f\x8b", 2, "this is gzip-compressed data" },
        { "\x28\xb5\x2f\xfd", 4, "this is zstd-compressed data" },
        { "lmgg", 4, "this is an old GGML file from before GGUF: it must be converted again from the original model" },
        { "fmgg", 4, "this is an old GGMF file from before GGUF: it must be converted again from the original model" },
        { "tjgg", 4, "this is an old GGJT file from before GGUF: it must be converted again from the original model" },
        { "algg", 4, "this is an old GGLA adapter from before GGUF" },
        { "FUGG", 4, "the magic is byte-swapped" },
        { "\0\0\0\0", 4, "it begins with zeros (an unfinished download?)" },
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (size >= known[i].n && !memcmp(data, known[i].magic, known[i].n))
            return known[i].sentence;
    /* safetensors: the length of a JSON text, then the text. */
    if (size >= 10 && data[8] == '{' && gguf_little_endian(data, 8) < (1u << 30))
        return "this is a safetensors file: quern-convert makes a GGUF file of it";
    size_t at = 0;
    while (at < size && at < 256 && (data[at] == ' ' || (data[at] >= '\t' && data[at] <= '\r')))
        at++;
    if (at < size && data[at] == '<')
        return "this is an HTML page (a failed download, or a login page)";
    if (at < size && data[at] == '{')
        return "this is a JSON text";
    return NULL;
}

/* Version 1 had 32-bit counts and is long gone; 2 and 3 have the same layout, 3 only added files of big-endian machines. Those
 * carry the magic in the same order but the version swapped, which makes its low half 0. */
static bool read_header(struct reader *r, uint32_t *version, uint64_t *tensors, uint64_t *keys)
{
    uint64_t number;
    if (r->size < 4 || memcmp(r->data, "GGUF", 4) != 0) {
        const char *sentence = r->size ? looks_like(r->data, r->size) : NULL;
        return ERR(r->err, QUERN_EFORMAT, "not a GGUF file (%zu bytes)%s%s", r->size, sentence ? ": " : "",
                   sentence ? sentence : "");
    }
    r->at = 4;
    if (!reader_number(r, &number, 4, "the version"))
        return false;
    *version = (uint32_t)number;
    if (number != 0 && (number & 0xffff) == 0)
        return ERR(r->err, QUERN_EUNSUPPORTED,
                   "big-endian GGUF (version field 0x%08x at byte 4): only little-endian files are supported",
                   *version);
    if (number != 2 && number != 3)
        return ERR(r->err, QUERN_EUNSUPPORTED, "GGUF version %u at byte 4 is not supported, versions 2 and 3 are", *version);
    if (!reader_number(r, tensors, 8, "the number of tensors") || !reader_number(r, keys, 8, "the number of keys"))
        return false;
    /* Compared with the bytes that are there before anything is allocated by them. */
    size_t left = r->size - r->at;
    if (*tensors > left / TENSOR_BYTES)
        return ERR(r->err, QUERN_EFORMAT, "%ju tensors at byte 8: the %zu bytes that follow hold at most %zu", (uintmax_t)*tensors,
                   left, left / TENSOR_BYTES);
    if (*keys > left / KEY_BYTES)
        return ERR(r->err, QUERN_EFORMAT, "%ju keys at byte 16: the %zu bytes that follow hold at most %zu", (uintmax_t)*keys, left,
                   left / KEY_BYTES);
    return true;
}

/* ---- keys and values ------------------------------------------------------------------------------------------ */

/* Strings have to be walked: their lengths are the only way from one to the next. The other elements have a fixed size, and a
 * count that fits the bytes left cannot overflow in the product. Arrays of arrays are legal in the format, but no writer makes
 * them, and refusing them leaves nothing here that could recurse. */
static bool read_array(struct reader *r, struct gguf_value *value)
{
    uint64_t type, n;
    if (!reader_number(r, &type, 4, "the element type") || !reader_number(r, &n, 8, "the number of elements"))
        return false;
    if (type == GGUF_ARRAY)
        return FAIL(r, QUERN_EFORMAT, "an array of arrays: nested arrays are not supported");
    if (type >= GGUF_TYPE_COUNT)
        return FAIL(r, QUERN_EFORMAT, "element type %ju, known are 0 to %d", (uintmax_t)type, GGUF_TYPE_COUNT - 1);
    size_t left = r->size - r->at, least = type == GGUF_STRING ? 8 : gguf_type_bytes((enum gguf_type)type);
    if (n > left / least)
        return FAIL(r, QUERN_EFORMAT, "an array of %ju elements (%s) at byte %zu: the %zu bytes that follow hold at most %zu "
                    "(truncated download?)", (uintmax_t)n, gguf_type_name((enum gguf_type)type), r->at, left, left / least);
    size_t start = r->at;
    if (type == GGUF_STRING) {
        struct gguf_string element;
        for (uint64_t i = 0; i < n; i++)
            if (!reader_string(r, &element, "an element of the array"))
                return false;
    } else {
        const uint8_t *p = reader_take(r, n * least, "the array");
        if (!p)
            return false;
        for (uint64_t i = 0; type == GGUF_BOOL && i < n; i++)
            if (p[i] > 1)
                return FAIL(r, QUERN_EFORMAT, "element %ju is a bool of value %u, allowed are 0 and 1", (uintmax_t)i, p[i]);
    }
    value->as.array.type = (enum gguf_type)type;
    value->as.array.n = (size_t)n;
    value->as.array.data = r->data + start;
    value->as.array.bytes = r->at - start;
    return true;
}

/* Numbers are decoded at once, strings and arrays stay where they are. */
static bool read_value(struct reader *r, struct gguf_value *value)
{
    uint64_t type;
    if (!reader_number(r, &type, 4, "the value's type"))
        return false;
    if (type >= GGUF_TYPE_COUNT)
        return FAIL(r, QUERN_EFORMAT, "value type %ju, known are 0 to %d", (uintmax_t)type, GGUF_TYPE_COUNT - 1);
    value->type = (enum gguf_type)type;
    if (type == GGUF_STRING)
        return reader_string(r, &value->as.string, "the value");
    if (type == GGUF_ARRAY)
        return read_array(r, value);
    const uint8_t *packed = reader_take(r, gguf_type_bytes(value->type), "the value");
    if (!packed)
        return false;
    if (type == GGUF_BOOL && *packed > 1)
        return FAIL(r, QUERN_EFORMAT, "a bool of value %u, allowed are 0 and 1", *packed);
    gguf_scalar(value, value->type, packed);
    return true;
}

/* Room for one more in a table that doubles: it never grows much beyond what has been read. */
static bool grow(void **table, size_t used, size_t *room, size_t size, const char *what, struct quern_error *err)
{
    size_t bytes, more = *room ? *room : 32;
    if (used < *room)
        return true;
    void *bigger = checked_add(&more, more, *room) && checked_mul(&bytes, more, size) ? realloc(*table, bytes) : NULL;
    if (!bigger)
        return ERR(err, QUERN_EMEM, "not enough memory for %zu %s", used + 1, what);
    *table = bigger;
    *room = more;
    return true;
}

static bool read_keys(struct gguf *g, struct reader *r, uint64_t n)
{
    size_t room = 0;
    r->kind = "key";
    for (r->number = 0; r->number < n; r->number++) {
        if (!grow((void **)&g->kvs, g->kv_count, &room, sizeof *g->kvs, "keys", r->err))
            return false;
        struct gguf_kv *kv = &g->kvs[g->kv_count];
        *kv = (struct gguf_kv){ .offset = r->at };
        if (!reader_name(r, &kv->key, KEY_LENGTH) || !read_value(r, &kv->value))
            return false;
        g->kv_count++;
    }
    r->kind = NULL;
    return true;
}

/* ---- the tensor directory ------------------------------------------------------------------------------------- */

/* ggml holds sizes as int64, so that is the limit of each and of the product. */
static bool read_shape(struct reader *r, struct gguf_tensor *t, size_t *values)
{
    uint64_t dims, size;
    if (!reader_number(r, &dims, 4, "the number of dimensions"))
        return false;
    if (dims < 1 || dims > 4)
        return FAIL(r, QUERN_EFORMAT, "%ju dimensions, allowed are 1 to 4", (uintmax_t)dims);
    t->dims = (uint32_t)dims;
    *values = 1;
    for (size_t i = 0; i < 4; i++)
        t->shape[i] = 1;
    for (size_t i = 0; i < dims; i++) {
        if (!reader_number(r, &size, 8, "the shape"))
            return false;
        if (size == 0)
            return FAIL(r, QUERN_EFORMAT, "dimension %zu is 0", i);
        if (size > INT64_MAX || size > SIZE_MAX)
            return FAIL(r, QUERN_EFORMAT, "dimension %zu is %jd, allowed are 1 to %jd", i, (intmax_t)size, (intmax_t)INT64_MAX);
        t->shape[i] = (size_t)size;
        if (!checked_mul(values, *values, t->shape[i]) || *values > INT64_MAX)
            return FAIL(r, QUERN_EFORMAT, "the product of its dimensions (%zu x %zu x %zu x %zu) overflows", t->shape[0],
                        t->shape[1], t->shape[2], t->shape[3]);
    }
    return true;
}

/* The offset is kept relative to the data section until place_tensors. */
static bool read_tensor(struct reader *r, struct gguf_tensor *t)
{
    size_t values = 1, row;
    uint64_t type, offset;
    *t = (struct gguf_tensor){ 0 };
    if (!reader_name(r, &t->name, NAME_LENGTH) || !read_shape(r, t, &values) || !reader_number(r, &type, 4, "the tensor type") ||
        !reader_number(r, &offset, 8, "the offset"))
        return false;
    t->type = (uint32_t)type;
    const struct format *format = format_find(t->type);
    if (!format)
        return FAIL(r, QUERN_EUNSUPPORTED, "tensor type %u is not supported", t->type);
    if (t->shape[0] % format->block != 0)
        return FAIL(r, QUERN_EFORMAT, "rows of %zu values do not divide into blocks of %u (%s)", t->shape[0], format->block,
                    format->name);
    if (!format_row_bytes(&row, format, t->shape[0]) || !checked_mul(&t->bytes, row, values / t->shape[0]))
        return FAIL(r, QUERN_EFORMAT, "its size in bytes overflows (%zu values of %s)", values, format->name);
    if (offset > SIZE_MAX)
        return FAIL(r, QUERN_EFORMAT, "offset %ju does not fit the address space", (uintmax_t)offset);
    t->offset = (size_t)offset;
    return true;
}

static bool read_tensors(struct gguf *g, struct reader *r, uint64_t n)
{
    size_t room = 0;
    r->kind = "tensor";
    for (r->number = 0; r->number < n; r->number++) {
        if (!grow((void **)&g->tensors, g->tensor_count, &room, sizeof *g->tensors, "tensors", r->err) ||
            !read_tensor(r, &g->tensors[g->tensor_count]))
            return false;
        g->tensor_count++;
    }
    r->kind = NULL;
    return true;
}

/* Put the tensor before the message, once its row has been read. Always false. */
static bool tensor_error(struct quern_error *err, const struct gguf_tensor *t)
{
    char name[160], prefix[200];
    snprintf(prefix, sizeof prefix, "tensor '%s'", text_escape(name, sizeof name, t->name.text, t->name.n));
    return error_prefix(err, prefix);
}

#define FAIL_TENSOR(err, t, ...) (ERR((err), QUERN_EFORMAT, __VA_ARGS__), tensor_error((err), (t)))

/* Offsets become positions in the file, once the data section's start is known. */
static bool place_tensors(struct gguf *g, struct quern_error *err)
{
    const struct map *map = &g->parts[0];
    for (size_t i = 0; i < g->tensor_count; i++) {
        struct gguf_tensor *t = &g->tensors[i];
        size_t start, end;
        if (t->offset % g->alignment != 0)
            return FAIL_TENSOR(err, t, "offset %zu is no multiple of the alignment %zu", t->offset, g->alignment);
        if (!checked_add(&start, g->data_offset, t->offset) || !checked_add(&end, start, t->bytes))
            return FAIL_TENSOR(err, t, "offset %zu and its %zu bytes overflow", t->offset, t->bytes);
        if (end > map->size)
            return FAIL_TENSOR(err, t, "needs bytes %zu to %zu, the file has %zu (truncated download?)", start, end, map->size);
        t->offset = start;
        t->data = map->data + start;
    }
    return true;
}

struct extent { size_t start, bytes, tensor; };

static int compare_extents(const void *left, const void *right)
{
    const struct extent *a = left, *b = right;
    if (a->start != b->start)
        return a->start < b->start ? -1 : 1;
    return (a->tensor > b->tensor) - (a->tensor < b->tensor);
}

static bool overlap_error(const struct gguf *g, const struct extent *a, const struct extent *b, struct quern_error *err)
{
    char name[160];
    const struct gguf_tensor *other = &g->tensors[a->tensor];
    text_escape(name, sizeof name, other->name.text, other->name.n);
    return FAIL_TENSOR(err, &g->tensors[b->tensor], "bytes %zu to %zu overlap those of tensor '%s' (%zu to %zu)", b->start,
                       b->start + b->bytes, name, a->start, a->start + a->bytes);
}

/* Sorted by offset, neighbours tell everything about overlaps and gaps. */
static bool check_layout(struct gguf *g, bool allow_aliased, struct quern_error *err)
{
    struct extent *extents = mem_take(g->tensor_count, sizeof *extents, "the layout check", err);
    if (!extents)
        return false;
    for (size_t i = 0; i < g->tensor_count; i++)
        extents[i] = (struct extent){ g->tensors[i].offset, g->tensors[i].bytes, i };
    qsort(extents, g->tensor_count, sizeof *extents, compare_extents);

    size_t end = g->data_offset, reach = 0;   /* `reach`: the extent that ends last so far */
    bool ok = true;
    for (size_t i = 0; ok && i < g->tensor_count; i++) {
        const struct extent *e = &extents[i];
        size_t next;
        if (i > 0 && e->start < end && !allow_aliased)
            ok = overlap_error(g, &extents[reach], e, err);
        /* end < file size, so the rounding cannot fail. */
        if (checked_align(&next, end, g->alignment) && e->start > next)
            g->gaps += e->start - next;
        if (e->start + e->bytes > end) {
            end = e->start + e->bytes;
            reach = i;
        }
    }
    free(extents);
    size_t size = g->parts[0].size, padded;
    if (!checked_align(&padded, end, g->alignment))
        padded = end;
    g->trailing = size > padded ? size - padded : 0;
    g->unpadded = size < padded;
    return ok;
}

/* ---- names to positions --------------------------------------------------------------------------------------- */

/* Sorted, not hashed: no choice of names makes it slow, and nothing depends on a seed. */
struct entry { struct gguf_string name; size_t at; };

struct gguf_index {
    struct entry *keys, *tensors;
};

/* By bytes; a text that is another's beginning comes first. */
static int compare_strings(struct gguf_string a, struct gguf_string b)
{
    size_t n = a.n < b.n ? a.n : b.n;
    int order = n ? memcmp(a.text, b.text, n) : 0;
    return order ? order : (a.n > b.n) - (a.n < b.n);
}

static int compare_entries(const void *left, const void *right)
{
    const struct entry *a = left, *b = right;
    int order = compare_strings(a->name, b->name);
    return order ? order : (a->at > b->at) - (a->at < b->at);
}

/* The position of the first entry that repeats its neighbour's name, or n. */
static size_t sort_entries(struct entry *entries, size_t n)
{
    qsort(entries, n, sizeof *entries, compare_entries);
    for (size_t i = 1; i < n; i++)
        if (!compare_strings(entries[i - 1].name, entries[i].name))
            return i;
    return n;
}

static const struct entry *find_entry(const struct entry *entries, size_t n, const char *name)
{
    struct gguf_string wanted = { name, strlen(name) };
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = compare_strings(entries[middle].name, wanted);
        if (order == 0)
            return &entries[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

/* A key that stands twice is refused: readers differ in which of the two they take. */
static bool index_keys(struct gguf *g, struct quern_error *err)
{
    g->index = mem_take(1, sizeof *g->index, "the index", err);
    if (!g->index || !(g->index->keys = mem_take(g->kv_count, sizeof(struct entry), "the index of keys", err)))
        return false;
    for (size_t i = 0; i < g->kv_count; i++)
        g->index->keys[i] = (struct entry){ g->kvs[i].key, i };
    size_t twice = sort_entries(g->index->keys, g->kv_count);
    if (twice == g->kv_count)
        return true;
    const struct gguf_kv *first = &g->kvs[g->index->keys[twice - 1].at], *second = &g->kvs[g->index->keys[twice].at];
    char name[160];
    return ERR(err, QUERN_EFORMAT, "key '%s' at byte %zu: duplicate key, the first is at byte %zu",
               text_escape(name, sizeof name, second->key.text, second->key.n), second->offset, first->offset);
}

/* ---- split files ---------------------------------------------------------------------------------------------- */

/* PREFIX-00002-of-00005.gguf: where the two numbers stand; false for other names. */
static bool split_name(const char *path, size_t *no, size_t *count)
{
    size_t n = strlen(path), tail = strlen("-00001-of-00001.gguf");
    if (n < tail || strcmp(path + n - 5, ".gguf") || memcmp(path + n - 14, "-of-", 4) || path[n - 20] != '-')
        return false;
    *no = *count = 0;
    for (size_t i = 0; i < 5; i++) {
        unsigned a = (unsigned)path[n - 19 + i] - '0', b = (unsigned)path[n - 10 + i] - '0';
        if (a > 9 || b > 9)
            return false;
        *no = *no * 10 + a;
        *count = *count * 10 + b;
    }
    return true;
}

/* The name of another part of the same file, 0-based; malloc'ed. `path` is a split_name. */
static char *part_name(const char *path, size_t part, struct quern_error *err)
{
    size_t n = strlen(path);
    char *name = mem_copy_text(path, n, err), digits[24];
    if (!name)
        return NULL;
    snprintf(digits, sizeof digits, "%05zu", part + 1);
    memcpy(name + n - 19, digits, 5);
    return name;
}

/* What the keys say; a file without them is part 0 of 1. `tensors` counts those of all parts. */
struct split { uint32_t no, count, tensors; };

static bool read_split(const struct gguf *g, struct split *split, struct quern_error *err)
{
    *split = (struct split){ 0, 1, 0 };
    if (!gguf_read_u32(g, "split.no", &split->no, err) || !gguf_read_u32(g, "split.count", &split->count, err) ||
        !gguf_read_u32(g, "split.tensors.count", &split->tensors, err))
        return false;
    if (split->count == 0)      /* what merging tools leave behind */
        split->count = 1;
    if (split->count > PARTS || (split->no >= split->count))
        return ERR(err, QUERN_EFORMAT,
                   "split.no is %u (part %u), split.count is %u, allowed are parts below the count and at most %d",
                   split->no, split->no + 1, split->count, PARTS);
    return true;
}

/* The first part must be what is opened, and its name must say how to find the others. */
static bool check_first(const char *path, const struct split *split, struct quern_error *err)
{
    size_t no, count;
    if (split->no != 0)
        return ERR(err, QUERN_EFORMAT,
                   "this is part %u of %u of a split model: open the first part (its name ends in -00001-of-%05u.gguf)",
                   split->no + 1, split->count, split->count);
    if (!split_name(path, &no, &count))
        return ERR(err, QUERN_EFORMAT,
                   "part 1 of %u of a split model, but its name does not end in -00001-of-%05u.gguf, so the other "
                   "parts cannot be found", split->count, split->count);
    if (no != 1 || count != split->count)
        return ERR(err, QUERN_EFORMAT, "its name says part %zu of %zu, split.no and split.count say part 1 of %u", no, count,
                   split->count);
    return true;
}

/* Is `part` number `no` of the model that `first` begins? */
static bool check_part(const struct gguf *first, const struct gguf *part, const struct split *want, size_t no,
                       struct quern_error *err)
{
    static const char *const same[] = { "general.architecture", "general.name" };
    struct split split;
    if (!gguf_find(part, "split.count"))
        return ERR(err, QUERN_EFORMAT, "key 'split.count' is missing: this is not part %zu of a split model", no + 1);
    if (!read_split(part, &split, err))
        return false;
    if (split.no != no || split.count != want->count)
        return ERR(err, QUERN_EFORMAT, "it says that it is part %u of %u, expected was part %zu of %u", split.no + 1, split.count,
                   no + 1, want->count);
    if (split.tensors != want->tensors)
        return ERR(err, QUERN_EFORMAT, "split.tensors.count is %u, in the first part it is %u: a part of another model",
                   split.tensors, want->tensors);
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        const struct gguf_value *a = gguf_find(first, same[i]), *b = gguf_find(part, same[i]);
        if (a && b && a->type == GGUF_STRING && b->type == GGUF_STRING && compare_strings(a->as.string, b->as.string))
            return ERR(err, QUERN_EFORMAT, "key '%s' is not what it is in the first part: a part of another model", same[i]);
    }
    return true;
}

/* Take over the part's mapping and tensors. */
static bool merge_part(struct gguf *g, struct gguf *part, struct quern_error *err)
{
    size_t total, bytes;
    struct map *parts = realloc(g->parts, (g->part_count + 1) * sizeof *parts);
    if (!parts)
        return ERR(err, QUERN_EMEM, "not enough memory for part %zu", g->part_count + 1);
    g->parts = parts;
    if (part->tensor_count) {
        struct gguf_tensor *tensors = NULL;
        if (checked_add(&total, g->tensor_count, part->tensor_count) && checked_mul(&bytes, total, sizeof *tensors))
            tensors = realloc(g->tensors, bytes);
        if (!tensors)
            return ERR(err, QUERN_EMEM, "not enough memory for the tensors of part %zu", g->part_count + 1);
        g->tensors = tensors;
    }
    for (size_t i = 0; i < part->tensor_count; i++) {
        part->tensors[i].part = (uint32_t)g->part_count;
        g->tensors[g->tensor_count++] = part->tensors[i];
    }
    g->parts[g->part_count++] = part->parts[0];
    part->part_count = 0;
    g->gaps += part->gaps;
    g->trailing = part->trailing;
    g->unpadded = part->unpadded;
    return true;
}

/* ---- opening -------------------------------------------------------------------------------------------------- */

/* Everything of one file, whose mapping is in parts[0], but the index of tensors. */
static bool parse(struct gguf *g, const struct gguf_options *options, struct quern_error *err)
{
    struct reader r = { .data = g->parts[0].data, .size = g->parts[0].size, .limit = SIZE_MAX, .err = err };
    size_t limit = options->limit_metadata ? options->limit_metadata : (size_t)METADATA_MIB << 20;
    uint64_t tensors = 0, keys = 0;
    uint32_t alignment = GGUF_ALIGNMENT;
    if (!read_header(&r, &g->version, &tensors, &keys))
        return false;
    reader_limit(&r, limit);
    if (!read_keys(g, &r, keys) || !index_keys(g, err))
        return false;
    const struct gguf_kv *kv = gguf_find_kv(g, "general.alignment");
    if (kv && kv->value.type != GGUF_U32)
        return ERR(err, QUERN_EFORMAT, "key 'general.alignment' at byte %zu: expected u32, found %s", kv->offset,
                   gguf_type_name(kv->value.type));
    if (kv)
        alignment = (uint32_t)kv->value.as.u;
    if (!gguf_alignment_ok(alignment))
        return ERR(err, QUERN_EFORMAT, "key 'general.alignment' at byte %zu is %u, allowed are powers of two from 8 to 65536",
                   kv->offset, alignment);
    g->alignment = alignment;
    reader_limit(&r, limit);
    if (!read_tensors(g, &r, tensors))
        return false;
    if (!checked_align(&g->data_offset, r.at, g->alignment))
        return ERR(err, QUERN_EFORMAT, "the data would begin beyond the address space");
    return place_tensors(g, err) && check_layout(g, options->allow_aliased, err);
}

/* Map and parse one file; the message begins with its path. */
static bool open_file(struct gguf *g, const char *path, const struct gguf_options *options, struct quern_error *err)
{
    *g = (struct gguf){ 0 };
    g->path = mem_copy_text(path, strlen(path), err);
    g->parts = g->path ? mem_take(1, sizeof *g->parts, "a mapping", err) : NULL;
    if (!g->parts || !map_open(g->parts, path, err))
        return false;
    g->part_count = 1;
    return parse(g, options, err) || error_prefix(err, path);
}

/* Part `no`, 0-based, of the model whose first part is g. */
static bool open_part(struct gguf *g, const struct split *split, size_t no, const struct gguf_options *options,
                      struct quern_error *err)
{
    struct gguf part;
    char *path = part_name(g->path, no, err);
    if (!path)
        return false;
    bool ok = open_file(&part, path, options, err);
    if (ok && !check_part(g, &part, split, no, err))
        ok = error_prefix(err, path);
    ok = ok && merge_part(g, &part, err);
    gguf_close(&part);
    free(path);
    /* A part that is not there is a fault of the model, not of the disk. */
    if (!ok && err->code == QUERN_EIO) {
        char prefix[64];
        snprintf(prefix, sizeof prefix, "part %zu of %u is missing or not readable", no + 1, split->count);
        err->code = QUERN_EFORMAT;
        error_prefix(err, prefix);
    }
    return ok;
}

/* The further parts, if there are any, in order: tensors are numbered as if the parts were one file. */
static bool open_parts(struct gguf *g, const struct gguf_options *options, struct quern_error *err)
{
    struct split split;
    if (!read_split(g, &split, err) || (split.count > 1 && !check_first(g->path, &split, err)))
        return error_prefix(err, g->path);
    if (split.count == 1)
        return true;
    for (size_t no = 1; no < split.count; no++)
        if (!open_part(g, &split, no, options, err))
            return false;
    if (gguf_find(g, "split.tensors.count") && g->tensor_count != split.tensors) {
        ERR(err, QUERN_EFORMAT, "the %u parts hold %zu tensors, split.tensors.count says %u", split.count, g->tensor_count,
            split.tensors);
        return error_prefix(err, g->path);
    }
    return true;
}

/* Across all parts; a duplicate is blamed on the part where the second one is. */
static bool index_tensors(struct gguf *g, struct quern_error *err)
{
    struct entry *entries = g->index->tensors = mem_take(g->tensor_count, sizeof *entries, "the index of tensors", err);
    if (!entries)
        return false;
    for (size_t i = 0; i < g->tensor_count; i++)
        entries[i] = (struct entry){ g->tensors[i].name, i };
    size_t twice = sort_entries(entries, g->tensor_count);
    if (twice == g->tensor_count)
        return true;
    const struct gguf_tensor *t = &g->tensors[entries[twice].at];
    struct quern_error ignored;
    char *path = t->part ? part_name(g->path, t->part, &ignored) : NULL;
    FAIL_TENSOR(err, t, "duplicate name (the tensors are number %zu and %zu)", entries[twice - 1].at + 1, entries[twice].at + 1);
    error_prefix(err, path ? path : g->path);
    free(path);
    return false;
}

bool gguf_open(struct gguf *g, const char *path, const struct gguf_options *options, struct quern_error *err)
{
    static const struct gguf_options none;
    options = options ? options : &none;
    bool ok = open_file(g, path, options, err) && (options->header_only || open_parts(g, options, err)) && index_tensors(g, err);
    if (!ok)
        gguf_close(g);
    return ok;
}

bool gguf_view(struct gguf *g, const void *data, size_t size, const char *name, const struct gguf_options *options,
               struct quern_error *err)
{
    static const struct gguf_options none;
    *g = (struct gguf){ .view = true };
    g->path = mem_copy_text(name, strlen(name), err);
    g->parts = g->path ? mem_take(1, sizeof *g->parts, "a mapping", err) : NULL;
    bool ok = g->parts != NULL;
    if (ok) {
        g->parts[0] = (struct map){ .data = data, .size = size };
        g->part_count = 1;
        ok = (parse(g, options ? options : &none, err) || error_prefix(err, name)) && index_tensors(g, err);
    }
    if (!ok)
        gguf_close(g);
    return ok;
}

void gguf_close(struct gguf *g)
{
    for (size_t i = 0; !g->view && i < g->part_count; i++)
        map_close(&g->parts[i]);
    if (g->index) {
        free(g->index->keys);
        free(g->index->tensors);
    }
    free(g->index);
    free(g->parts);
    free(g->kvs);
    free(g->tensors);
    free(g->path);
    *g = (struct gguf){ 0 };
}

/* ---- looking up ----------------------------------------------------------------------------------------------- */

const struct gguf_kv *gguf_find_kv(const struct gguf *g, const char *key)
{
    const struct entry *entry = find_entry(g->index->keys, g->kv_count, key);
    return entry ? &g->kvs[entry->at] : NULL;
}

const struct gguf_value *gguf_find(const struct gguf *g, const char *key)
{
    const struct gguf_kv *kv = gguf_find_kv(g, key);
    return kv ? &kv->value : NULL;
}

const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name)
{
    const struct entry *entry = find_entry(g->index->tensors, g->tensor_count, name);
    return entry ? &g->tensors[entry->at] : NULL;
}
