/* The safetensors format (8 bytes of length, a JSON header, data), one file or shards behind an index: see safetensors.h.
 *
 * Everything in the header is untrusted. Data is mapped and never copied; what a tensor says about its place is checked against
 * its shape, its type, the file's size and every other tensor before anybody can read through it. */
#include "safetensors.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats.h"
#include "json.h"

enum { PARTS_MOST = 9999, NAME_MOST = 250 };
#define HEADER_MOST ((size_t)100 << 20)     /* the format's own limit, in bytes */

/* What the format knows, in bits per element. */
static const struct { const char *name; unsigned bits; uint32_t format; } dtypes[] = {
    { "F32", 32, FORMAT_F32 }, { "F16", 16, FORMAT_F16 }, { "BF16", 16, FORMAT_BF16 }, { "F64", 64, FORMAT_COUNT },
    { "BOOL", 8, FORMAT_COUNT }, { "U8", 8, FORMAT_COUNT }, { "I8", 8, FORMAT_COUNT }, { "U16", 16, FORMAT_COUNT },
    { "I16", 16, FORMAT_COUNT }, { "U32", 32, FORMAT_COUNT }, { "I32", 32, FORMAT_COUNT }, { "U64", 64, FORMAT_COUNT },
    { "I64", 64, FORMAT_COUNT }, { "F8_E4M3", 8, FORMAT_COUNT }, { "F8_E5M2", 8, FORMAT_COUNT }, { "F8_E8M0", 8, FORMAT_COUNT },
    { "F6_E2M3", 6, FORMAT_COUNT }, { "F6_E3M2", 6, FORMAT_COUNT }, { "F4", 4, FORMAT_COUNT }, { "C64", 64, FORMAT_COUNT },
};

/* One file while its header is read. */
struct part {
    struct safetensors *s;
    const char *path;
    const uint8_t *data;      /* behind the header */
    size_t size;              /* of it */
    uint32_t index;
    struct quern_error *err;
};

/* A size from JSON: a number without fraction or sign. 0 with *ok false otherwise. */
static size_t whole(const struct json *j, bool *ok)
{
    *ok = j && j->type == JSON_NUMBER && j->integral && j->integer >= 0;
    return *ok ? (size_t)j->integer : 0;
}

/* shape -> dims, shape, elements. */
static bool read_shape(const struct part *p, struct safetensor *t, const struct json *shape)
{
    if (!shape || shape->type != JSON_ARRAY)
        return ERR(p->err, QUERN_EFORMAT, "%s: tensor '%s' has no shape", p->path, t->name);
    if (shape->n > SAFETENSORS_DIMS)
        return ERR(p->err, QUERN_EFORMAT, "%s: tensor '%s' has %zu dimensions, at most %d are read", p->path, t->name, shape->n,
                   SAFETENSORS_DIMS);
    t->dims = shape->n;
    t->elements = 1;
    for (size_t i = 0; i < shape->n; i++) {
        bool ok;
        t->shape[i] = whole(shape->items[i], &ok);
        if (!ok || !checked_mul(&t->elements, t->elements, t->shape[i]))
            return ERR(p->err, QUERN_EFORMAT, "%s: tensor '%s': dimension %zu is not a size, or the product does not fit", p->path,
                       t->name, i);
    }
    return true;
}

/* dtype -> format; *bytes = what elements of it take. */
static bool read_dtype(const struct part *p, struct safetensor *t, const struct json *dtype, size_t *bytes)
{
    if (!dtype || dtype->type != JSON_STRING)
        return ERR(p->err, QUERN_EFORMAT, "%s: tensor '%s' has no dtype", p->path, t->name);
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        if (!strcmp(dtype->text, dtypes[i].name)) {
            size_t bits;
            t->dtype = dtypes[i].name;
            t->format = dtypes[i].format;
            if (!checked_mul(&bits, t->elements, dtypes[i].bits) || bits % 8)
                return ERR(p->err, QUERN_EFORMAT, "%s: tensor '%s': %zu values of %s do not fill whole bytes", p->path, t->name,
                           t->elements, t->dtype);
            *bytes = bits / 8;
            return true;
        }
    char shown[40];
    return ERR(p->err, QUERN_EFORMAT, "%s: tensor '%s' has the unknown dtype '%s'", p->path, t->name,
               text_escape(shown, sizeof shown, dtype->text, dtype->n));
}

static bool read_tensor(const struct part *p, struct safetensor *t, const struct json *entry)
{
    char shown[NAME_MOST + 4];
    text_escape(shown, sizeof shown, entry->key, entry->key_n);
    /* Names go into messages as they are from here on, so they must be such as a terminal may show. */
    if (!entry->key_n || strlen(shown) != entry->key_n || memcmp(shown, entry->key, entry->key_n))
        return ERR(p->err, QUERN_EFORMAT, "%s: the tensor name '%s' is empty, longer than %d bytes, or holds control characters",
                   p->path, shown, NAME_MOST);
    t->part = p->index;
    t->name = arena_text(&p->s->arena, entry->key, entry->key_n, p->err);
    if (!t->name)
        return false;
    size_t bytes = 0;
    if (!read_shape(p, t, json_get(entry, "shape")) || !read_dtype(p, t, json_get(entry, "dtype"), &bytes))
        return false;
    const struct json *offsets = json_get(entry, "data_offsets");
    bool first = false, second = false;
    size_t begin = 0, end = 0;
    if (offsets && offsets->type == JSON_ARRAY && offsets->n == 2) {
        begin = whole(offsets->items[0], &first);
        end = whole(offsets->items[1], &second);
    }
    if (!first || !second || begin > end)
        return ERR(p->err, QUERN_EFORMAT, "%s: tensor '%s': data_offsets must be two growing numbers", p->path, shown);
    if (end > p->size)
        return ERR(p->err, QUERN_EFORMAT, "%s: tensor '%s' ends at byte %zu of the data, the file has %zu (truncated download?)",
                   p->path, shown, end, p->size);
    if (end - begin != bytes)
        return ERR(p->err, QUERN_EFORMAT, "%s: tensor '%s': data_offsets hold %zu bytes, %s of this shape needs %zu", p->path,
                   shown, end - begin, t->dtype, bytes);
    t->data = p->data + begin;
    t->bytes = bytes;
    return true;
}

/* By address, the shorter first: an empty tensor stands before the one that begins at the same byte. */
static int by_place(const void *a, const void *b)
{
    const struct safetensor *x = a, *y = b;
    if (x->data != y->data)
        return x->data < y->data ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct safetensor *)a)->name, ((const struct safetensor *)b)->name);
}

/* The tensors must tile the data: the format forbids overlaps, holes and trailing bytes alike. */
static bool check_tiling(const struct part *p, struct safetensor *tensors, size_t n)
{
    qsort(tensors, n, sizeof *tensors, by_place);
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        size_t begin = (size_t)(tensors[i].data - p->data);
        if (begin < at)
            return ERR(p->err, QUERN_EFORMAT, "%s: tensors '%s' and '%s' overlap (bytes %zu to %zu of the data)", p->path,
                       tensors[i - 1].name, tensors[i].name, begin, at);
        if (begin > at)
            return ERR(p->err, QUERN_EFORMAT, "%s: %zu bytes before tensor '%s' belong to none", p->path, begin - at,
                       tensors[i].name);
        at = begin + tensors[i].bytes;
    }
    if (at != p->size)
        return ERR(p->err, QUERN_EFORMAT, "%s: %zu bytes behind the last tensor belong to none", p->path, p->size - at);
    return true;
}

/* The tensors of one file, after those that are there already. */
static bool read_entries(struct part *p, const struct json *header)
{
    struct safetensors *s = p->s;
    if (header->type != JSON_OBJECT)
        return ERR(p->err, QUERN_EFORMAT, "%s: the header is not a JSON object", p->path);
    size_t total, bytes;
    if (!checked_add(&total, s->count, header->n) || !checked_mul(&bytes, total ? total : 1, sizeof *s->tensors))
        return ERR(p->err, QUERN_EMEM, "%s: too many tensors", p->path);
    struct safetensor *grown = realloc(s->tensors, bytes);
    if (!grown)
        return ERR(p->err, QUERN_EMEM, "not enough memory for %zu tensors", total);
    s->tensors = grown;
    size_t first = s->count;
    for (size_t i = 0; i < header->n; i++) {
        const struct json *entry = header->items[i];
        if (entry->key_n == 12 && !memcmp(entry->key, "__metadata__", 12))
            continue;
        struct safetensor *t = &s->tensors[s->count];
        *t = (struct safetensor){ 0 };
        if (!read_tensor(p, t, entry))
            return false;
        s->count++;
    }
    return check_tiling(p, s->tensors + first, s->count - first);
}

static bool read_file(struct safetensors *s, const uint8_t *data, size_t size, const char *path, uint32_t index,
                      struct quern_error *err)
{
    if (size < 8)
        return ERR(err, QUERN_EFORMAT, "%s: %zu bytes are too few for a safetensors file", path, size);
    uint64_t n = 0;
    for (int i = 0; i < 8; i++)
        n |= (uint64_t)data[i] << (8 * i);
    if (n > size - 8)
        return ERR(err, QUERN_EFORMAT, "%s: the header claims %llu bytes, the file has %zu after it (not a safetensors file?)",
                   path, (unsigned long long)n, size - 8);
    if (n > HEADER_MOST)
        return ERR(err, QUERN_EFORMAT, "%s: the header claims %llu bytes, at most %zu are allowed", path, (unsigned long long)n,
                   HEADER_MOST);
    struct part p = { .s = s, .path = path, .data = data + 8 + n, .size = size - 8 - (size_t)n, .index = index, .err = err };
    struct arena scratch;
    arena_init(&scratch, 0);
    const struct json *header = json_parse(&scratch, (const char *)data + 8, (size_t)n, path, NULL, err);
    if (!header && err->code == QUERN_ELIMIT)
        err->code = QUERN_EFORMAT;
    bool ok = header && read_entries(&p, header);
    arena_free(&scratch);
    return ok;
}

/* Sort by name, once all files are in; a name may stand in one of them only. */
static bool finish(struct safetensors *s, const char *path, struct quern_error *err)
{
    if (!s->count)
        return ERR(err, QUERN_EFORMAT, "%s: no tensors", path);
    qsort(s->tensors, s->count, sizeof *s->tensors, by_name);
    for (size_t i = 1; i < s->count; i++)
        if (!by_name(&s->tensors[i - 1], &s->tensors[i]))
            return ERR(err, QUERN_EFORMAT, "%s: tensor '%s' stands in two shards", path, s->tensors[i].name);
    return true;
}

/* ---- shards ----------------------------------------------------------------------------------------------------- */

/* `folder/name` where folder is that of `path`; malloc'ed. */
static char *beside(const char *path, const char *name, struct quern_error *err)
{
    const char *slash = strrchr(path, '/');
    size_t folder = slash ? (size_t)(slash - path) + 1 : 0, n = strlen(name);
    char *joined = mem_take(folder + n + 1, 1, "a path", err);
    if (!joined)
        return NULL;
    memcpy(joined, path, folder);
    memcpy(joined + folder, name, n + 1);
    return joined;
}

static bool open_part(struct safetensors *s, const char *path, struct quern_error *err)
{
    struct map *map = &s->parts[s->part_count];
    if (!map_open(map, path, err))
        return false;
    s->part_count++;
    return read_file(s, map->data, map->size, path, (uint32_t)(s->part_count - 1), err);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* A shard's name comes from the file: only a plain name in the same folder will do. */
static bool check_shard_name(const char *index, const struct json *member, struct quern_error *err)
{
    char shown[120];
    if (member->type != JSON_STRING)
        return ERR(err, QUERN_EFORMAT, "%s: weight_map must give a file name for every tensor", index);
    if (!member->n || strlen(member->text) != member->n || strchr(member->text, '/') || !strcmp(member->text, ".") ||
        !strcmp(member->text, ".."))
        return ERR(err, QUERN_EFORMAT, "%s: the shard '%s' is not a plain file name in the same folder", index,
                   text_escape(shown, sizeof shown, member->text, member->n));
    return true;
}

/* Open every shard that weight_map names, each once. */
static bool open_shards(struct safetensors *s, const char *index, const struct json *map, struct quern_error *err)
{
    const char **names = mem_take(map->n, sizeof *names, "the shards' names", err);
    if (!names)
        return false;
    bool ok = true;
    for (size_t i = 0; i < map->n && ok; i++) {
        ok = check_shard_name(index, map->items[i], err);
        names[i] = map->items[i]->text;
    }
    size_t distinct = 0;
    if (ok) {
        qsort(names, map->n, sizeof *names, by_text);
        for (size_t i = 0; i < map->n; i++)
            if (!distinct || strcmp(names[i], names[distinct - 1]))
                names[distinct++] = names[i];
        if (!distinct || distinct > PARTS_MOST)
            ok = ERR(err, QUERN_EFORMAT, "%s: weight_map names %zu shards, 1 to %d are allowed", index, distinct, PARTS_MOST);
    }
    ok = ok && (s->parts = mem_take(distinct, sizeof *s->parts, "the shards", err));
    for (size_t i = 0; i < distinct && ok; i++) {
        char *path = beside(index, names[i], err);
        ok = path != NULL;
        if (ok && access(path, F_OK) != 0)
            ok = ERR(err, QUERN_EFORMAT, "%s: the shard '%s' is missing", index, names[i]);
        ok = ok && open_part(s, path, err);
        free(path);
    }
    free(names);
    return ok;
}

/* Every name in weight_map must be in some shard; which one is not insisted on, since only the data counts. */
static bool read_index(struct safetensors *s, const char *path, struct quern_error *err)
{
    struct map file;
    struct arena scratch;
    if (!map_open(&file, path, err))
        return false;
    arena_init(&scratch, 0);
    const struct json *index = json_parse(&scratch, (const char *)file.data, file.size, path,
                                          &(struct json_limits){ .bytes = HEADER_MOST }, err);
    if (!index && err->code == QUERN_ELIMIT)
        err->code = QUERN_EFORMAT;
    const struct json *map = json_get(index, "weight_map");
    bool ok = index != NULL;
    if (ok && (!map || map->type != JSON_OBJECT))
        ok = ERR(err, QUERN_EFORMAT, "%s: no weight_map", path);
    ok = ok && open_shards(s, path, map, err) && finish(s, path, err);
    for (size_t i = 0; ok && i < map->n; i++)
        if (strlen(map->items[i]->key) != map->items[i]->key_n || !safetensors_find(s, map->items[i]->key)) {
            char shown[120];
            ok = ERR(err, QUERN_EFORMAT, "%s: tensor '%s' is in no shard", path,
                     text_escape(shown, sizeof shown, map->items[i]->key, map->items[i]->key_n));
        }
    arena_free(&scratch);
    map_close(&file);
    return ok;
}

/* ---- the public calls ------------------------------------------------------------------------------------------- */

bool safetensors_open(struct safetensors *s, const char *path, struct quern_error *err)
{
    size_t n = strlen(path);
    *s = (struct safetensors){ 0 };
    arena_init(&s->arena, 0);
    bool ok;
    if (n > 5 && !strcmp(path + n - 5, ".json"))
        ok = read_index(s, path, err);
    else
        ok = (s->parts = mem_take(1, sizeof *s->parts, "a file", err)) && open_part(s, path, err) && finish(s, path, err);
    if (!ok)
        safetensors_close(s);
    return ok;
}

bool safetensors_view(struct safetensors *s, const void *data, size_t size, const char *name, struct quern_error *err)
{
    *s = (struct safetensors){ 0 };
    arena_init(&s->arena, 0);
    bool ok = read_file(s, data, size, name, 0, err) && finish(s, name, err);
    if (!ok)
        safetensors_close(s);
    return ok;
}

void safetensors_close(struct safetensors *s)
{
    for (size_t i = 0; i < s->part_count; i++)
        map_close(&s->parts[i]);
    free(s->parts);
    free(s->tensors);
    arena_free(&s->arena);
    *s = (struct safetensors){ 0 };
}

const struct safetensor *safetensors_find(const struct safetensors *s, const char *name)
{
    struct safetensor key = { .name = name };
    return s->count ? bsearch(&key, s->tensors, s->count, sizeof *s->tensors, by_name) : NULL;
}
