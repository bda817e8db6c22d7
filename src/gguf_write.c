/* Writing GGUF: all or nothing, and on the disk when it is said to be.
 *
 *     gguf_writer_open     output.h: target and directory are checked, .NAME.quern-PID-N created and locked
 *     value, tensor        collected in memory: the header must be whole before the first byte of data has a place
 *     data (the first)     offsets, free space, header written, read back by gguf_open at the file's full size
 *     data                 through a buffer, padding between tensors
 *     commit               flush, fsync, close, rename, fsync of the directory
 *
 * A writer that resumes has the temporary name .NAME.quern-partial and finds there what a killed run of the same work wrote: the
 * file is as long as what was written, so its length says which tensors are whole. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "formats.h"
#include "gguf.h"
#include "output.h"

enum { BUFFER_BYTES = 256 * 1024 };

struct bytes {
    uint8_t *data;
    size_t   n, room;
};

/* A tensor to come: where its offset stands in the directory's rows, and how much data it has. */
struct planned { size_t offset_at, bytes, offset; };

struct gguf_writer {
    struct output out;
    bool   begun;
    bool   alignment_key;                /* general.alignment is among the keys                     */
    size_t alignment;                    /* what the caller wants, then what the keys say           */
    bool   unpadded, resume;
    size_t standing;                     /* tensors that an earlier run completed                   */
    size_t header;                       /* bytes before the first tensor, padding included         */

    struct bytes    keys, rows;          /* the header and keys; the tensor directory                */
    size_t          key_count;
    struct planned *tensors;
    size_t          tensor_count, tensor_room;

    size_t   current, current_done;      /* tensor that is being written, its bytes so far          */
    size_t   size;                       /* of the whole file                                       */
    size_t   buffered;
    uint8_t *buffer;                     /* [BUFFER_BYTES] */
};

static bool usable(const struct gguf_writer *w, struct quern_error *err)
{
    if (w->out.failed || w->out.committed)
        return ERR(err, QUERN_EUSAGE, "'%s': the writer has %s", w->out.path, w->out.failed ? "failed before" : "been committed");
    return true;
}

/* ---- bytes in memory ------------------------------------------------------------------------------------------ */

/* Append, doubling the room. */
static bool put(struct bytes *b, const void *data, size_t n, struct quern_error *err)
{
    size_t need, room;
    if (!checked_add(&need, b->n, n) || !checked_mul(&room, need, 2))
        return ERR(err, QUERN_EMEM, "not enough memory for the header");
    if (need > b->room) {
        uint8_t *bigger = realloc(b->data, room);
        if (!bigger)
            return ERR(err, QUERN_EMEM, "not enough memory for a header of %zu bytes", need);
        b->data = bigger;
        b->room = room;
    }
    if (n)
        memcpy(b->data + b->n, data, n);
    b->n = need;
    return true;
}

static bool put_number(struct bytes *b, uint64_t value, size_t bytes, struct quern_error *err)
{
    uint8_t packed[8];
    gguf_pack(packed, value, bytes);
    return put(b, packed, bytes, err);
}

static bool put_string(struct bytes *b, struct gguf_string s, struct quern_error *err)
{
    return put_number(b, s.n, 8, err) && put(b, s.text, s.n, err);
}

/* ---- opening -------------------------------------------------------------------------------------------------- */

struct gguf_writer *gguf_writer_open(const char *path, const struct gguf_writer_options *options, struct quern_error *err)
{
    static const struct gguf_writer_options none;
    options = options ? options : &none;
    if (options->version != 0 && options->version != 2 && options->version != 3) {
        ERR(err, QUERN_EUSAGE, "GGUF version %u cannot be written, 2 and 3 can", options->version);
        return NULL;
    }
    struct gguf_writer *w = mem_take(1, sizeof *w, "a writer", err);
    if (!w)
        return NULL;
    struct output_options where = { .force = options->force, .resume = options->resume, .inputs = options->inputs,
                                    .input_count = options->input_count, .texts = options->texts,
                                    .text_count = options->text_count };
    w->alignment = options->alignment;
    w->unpadded = options->unpadded;
    w->resume = options->resume;
    bool ok = output_open(&w->out, path, &where, err) && (w->buffer = mem_take(BUFFER_BYTES, 1, "a writer's buffer", err));
    ok = ok && put(&w->keys, "GGUF", 4, err) && put_number(&w->keys, options->version ? options->version : 3, 4, err) &&
         put_number(&w->keys, 0, 8, err) && put_number(&w->keys, 0, 8, err);      /* the counts are set when the data begins */
    if (!ok) {
        gguf_writer_close(w);
        return NULL;
    }
    return w;
}

/* ---- describing ----------------------------------------------------------------------------------------------- */

/* The bits as they stand in the file. Floats were widened when they were read, which loses nothing. */
static uint64_t number_bits(const struct gguf_value *value)
{
    uint64_t bits = 0;
    if (value->type == GGUF_F64) {
        memcpy(&bits, &value->as.f, 8);
    } else if (value->type == GGUF_F32) {
        float narrow = (float)value->as.f;
        uint32_t low;
        memcpy(&low, &narrow, 4);
        bits = low;
    } else {
        bits = value->as.u;
    }
    return bits;
}

static bool put_value(struct bytes *b, const struct gguf_value *value, struct quern_error *err)
{
    if (!put_number(b, value->type, 4, err))
        return false;
    if (value->type == GGUF_STRING)
        return put_string(b, value->as.string, err);
    if (value->type == GGUF_ARRAY)
        return put_number(b, value->as.array.type, 4, err) && put_number(b, value->as.array.n, 8, err) &&
               put(b, value->as.array.data, value->as.array.bytes, err);
    return put_number(b, number_bits(value), gguf_type_bytes(value->type), err);
}

static bool may_describe(struct gguf_writer *w, struct quern_error *err)
{
    if (!usable(w, err))
        return false;
    return !w->begun || ERR(err, QUERN_EUSAGE, "'%s': keys and tensors come before the data", w->out.path);
}

bool gguf_writer_value(struct gguf_writer *w, const char *key, size_t key_n, const struct gguf_value *value,
                       struct quern_error *err)
{
    static const char alignment[] = "general.alignment";
    if (!may_describe(w, err))
        return false;
    if (key_n == sizeof alignment - 1 && !memcmp(key, alignment, key_n) && value->type == GGUF_U32) {
        if (w->alignment && w->alignment != value->as.u)
            return ERR(err, QUERN_EUSAGE, "'%s': general.alignment is %ju, the writer was opened for %zu", w->out.path,
                       (uintmax_t)value->as.u, w->alignment);
        w->alignment = (size_t)value->as.u;
        w->alignment_key = true;
    }
    if (!put_string(&w->keys, (struct gguf_string){ key, key_n }, err) || !put_value(&w->keys, value, err))
        return output_abandon(&w->out);
    w->key_count++;
    return true;
}

bool gguf_writer_u32(struct gguf_writer *w, const char *key, uint32_t value, struct quern_error *err)
{
    return gguf_writer_value(w, key, strlen(key), &(struct gguf_value){ .type = GGUF_U32, .as.u = value }, err);
}

bool gguf_writer_f32(struct gguf_writer *w, const char *key, float value, struct quern_error *err)
{
    return gguf_writer_value(w, key, strlen(key), &(struct gguf_value){ .type = GGUF_F32, .as.f = (double)value }, err);
}

bool gguf_writer_bool(struct gguf_writer *w, const char *key, bool value, struct quern_error *err)
{
    return gguf_writer_value(w, key, strlen(key), &(struct gguf_value){ .type = GGUF_BOOL, .as.u = value }, err);
}

bool gguf_writer_text(struct gguf_writer *w, const char *key, const char *value, struct quern_error *err)
{
    struct gguf_value v = { .type = GGUF_STRING, .as.string = { value, strlen(value) } };
    return gguf_writer_value(w, key, strlen(key), &v, err);
}

bool gguf_writer_array(struct gguf_writer *w, const char *key, enum gguf_type type, const void *packed, size_t n, size_t bytes,
                       struct quern_error *err)
{
    struct gguf_value value = { .type = GGUF_ARRAY, .as.array = { .type = type, .n = n, .data = packed, .bytes = bytes } };
    return gguf_writer_value(w, key, strlen(key), &value, err);
}

bool gguf_writer_keys(struct gguf_writer *w, const struct gguf *g, struct quern_error *err)
{
    for (size_t i = 0; i < g->kv_count; i++)
        if (!gguf_writer_value(w, g->kvs[i].key.text, g->kvs[i].key.n, &g->kvs[i].value, err))
            return false;
    return true;
}

/* Offsets depend on the alignment, which a later key may still set: they are filled in when the data begins. */
bool gguf_writer_tensor(struct gguf_writer *w, const struct gguf_tensor *t, struct quern_error *err)
{
    const struct format *format = format_find(t->type);
    size_t row, bytes;
    if (!may_describe(w, err))
        return false;
    char name[160];
    text_escape(name, sizeof name, t->name.text, t->name.n);
    if (!format || t->dims < 1 || t->dims > 4)
        return ERR(err, QUERN_EUSAGE, "tensor '%s': type %u with %u dimensions cannot be written", name, t->type, t->dims);
    if (!format_row_bytes(&row, format, t->shape[0]))
        return ERR(err, QUERN_EUSAGE, "tensor '%s': rows of %zu values do not divide into blocks of %u (%s)", name, t->shape[0],
                   format->block, format->name);
    bytes = row;
    for (size_t i = 1; i < t->dims; i++)
        if (!checked_mul(&bytes, bytes, t->shape[i]))
            return ERR(err, QUERN_EUSAGE, "tensor '%s': its size in bytes overflows", name);

    if (w->tensor_count == w->tensor_room) {
        size_t room = w->tensor_room * 2 + 32;
        struct planned *bigger = realloc(w->tensors, room * sizeof *bigger);
        if (!bigger) {
            ERR(err, QUERN_EMEM, "not enough memory for %zu tensors", room);
            return output_abandon(&w->out);
        }
        w->tensors = bigger;
        w->tensor_room = room;
    }
    bool ok = put_string(&w->rows, t->name, err) && put_number(&w->rows, t->dims, 4, err);
    for (size_t i = 0; ok && i < t->dims; i++)
        ok = put_number(&w->rows, t->shape[i], 8, err);
    ok = ok && put_number(&w->rows, t->type, 4, err);
    size_t offset_at = w->rows.n;
    ok = ok && put_number(&w->rows, 0, 8, err);
    if (!ok)
        return output_abandon(&w->out);
    w->tensors[w->tensor_count++] = (struct planned){ .offset_at = offset_at, .bytes = bytes };
    return true;
}

/* ---- the file ------------------------------------------------------------------------------------------------- */

static bool flush(struct gguf_writer *w, struct quern_error *err)
{
    size_t n = w->buffered;
    w->buffered = 0;
    return output_write(&w->out, w->buffer, n, err);
}

/* Small pieces are collected, so that a converter may hand over row by row; large ones go straight through. */
static bool emit(struct gguf_writer *w, const uint8_t *data, size_t n, struct quern_error *err)
{
    if (n > BUFFER_BYTES - w->buffered && !flush(w, err))
        return false;
    if (n >= BUFFER_BYTES)
        return output_write(&w->out, data, n, err);
    if (n)
        memcpy(w->buffer + w->buffered, data, n);
    w->buffered += n;
    return true;
}

static bool emit_zeros(struct gguf_writer *w, size_t n, struct quern_error *err)
{
    static const uint8_t zeros[64];
    for (; n > sizeof zeros; n -= sizeof zeros)
        if (!emit(w, zeros, sizeof zeros, err))
            return false;
    return emit(w, zeros, n, err);
}

/* Zeros between position `at` of a section and its next aligned one. */
static size_t padding(const struct gguf_writer *w, size_t at)
{
    return (w->alignment - at % w->alignment) % w->alignment;
}

/* Is there room for `size` bytes, as far as can be told? A quota may still say no later, at a write. */
static bool check_space(struct gguf_writer *w, struct quern_error *err)
{
    struct rlimit limit;
    struct statvfs fs;
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && w->size > limit.rlim_cur) {
        ERR(err, QUERN_EIO, "cannot write '%s': it takes %zu bytes, files may have %ju (ulimit -f)", w->out.path, w->size,
            (uintmax_t)limit.rlim_cur);
        return output_abandon(&w->out);
    }
    if (fstatvfs(w->out.fd, &fs) != 0)
        return true;
    uint64_t block = fs.f_frsize ? fs.f_frsize : fs.f_bsize;
    if (w->size / block > fs.f_bavail) {
        ERR(err, QUERN_EIO, "cannot write '%s': it takes %zu bytes, %ju are free", w->out.path, w->size,
            (uintmax_t)(fs.f_bavail * block));
        return output_abandon(&w->out);
    }
    return true;
}

/* Fill in the offsets and find the file's size; `header` is that of keys and directory without padding. */
static bool plan(struct gguf_writer *w, size_t header, struct quern_error *err)
{
    size_t offset = 0, end = 0;
    bool fits = checked_add(&w->size, header, padding(w, header));
    w->header = w->size;
    for (size_t i = 0; fits && i < w->tensor_count; i++) {
        gguf_pack(w->rows.data + w->tensors[i].offset_at, offset, 8);
        w->tensors[i].offset = offset;
        fits = checked_add(&end, offset, w->tensors[i].bytes) && checked_align(&offset, end, w->alignment);
    }
    fits = fits && checked_add(&w->size, w->size, w->unpadded ? end : offset);
    if (w->unpadded && w->tensor_count == 0)
        w->size = header;
    if (!fits || w->size > INT64_MAX) {
        ERR(err, QUERN_EUSAGE, "'%s': the sum of the tensors' sizes overflows", w->out.path);
        return output_abandon(&w->out);
    }
    return true;
}

static bool read_at(const struct gguf_writer *w, void *out, size_t n, size_t at)
{
    uint8_t *to = out;
    while (n > 0) {
        ssize_t done = pread(w->out.fd, to, n, (off_t)at);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return false;
        to += done, at += (size_t)done, n -= (size_t)done;
    }
    return true;
}

/* Does the partial file begin with the very header that we would write? Then its length says how many tensors are whole. */
static bool find_standing(struct gguf_writer *w)
{
    struct stat st;
    size_t want = w->keys.n + w->rows.n, at = 0;
    if (fstat(w->out.fd, &st) != 0 || (size_t)st.st_size < w->header)
        return false;
    while (at < want) {
        size_t n = want - at < BUFFER_BYTES ? want - at : BUFFER_BYTES;
        if (!read_at(w, w->buffer, n, at))
            return false;
        for (size_t i = 0; i < n; i++, at++)
            if (w->buffer[i] != (at < w->keys.n ? w->keys.data[at] : w->rows.data[at - w->keys.n]))
                return false;
    }
    while (w->standing < w->tensor_count &&
           w->header + w->tensors[w->standing].offset + w->tensors[w->standing].bytes <= (size_t)st.st_size)
        w->standing++;
    return true;
}

/* Go on behind the last whole tensor: what follows it is cut off, padding that is missing becomes zeros. */
static bool take_up(struct gguf_writer *w, struct quern_error *err)
{
    bool all = w->standing == w->tensor_count;
    off_t end = (off_t)(all ? w->size : w->header + w->tensors[w->standing].offset);
    w->current = w->standing;
    return (ftruncate(w->out.fd, end) == 0 && lseek(w->out.fd, end, SEEK_SET) == end) || output_error(&w->out, "write", err);
}

/* The header, then the file at its full size, then the reader's opinion of it: what gguf_open would refuse is refused before
 * hours of work go into the data. */
static bool begin(struct gguf_writer *w, struct quern_error *err)
{
    struct quern_error verdict;
    struct gguf g;
    size_t header;
    if (!w->alignment)
        w->alignment = GGUF_ALIGNMENT;
    bool said = w->alignment == GGUF_ALIGNMENT || w->alignment_key;
    if (!said && !gguf_writer_u32(w, "general.alignment", (uint32_t)w->alignment, err))
        return false;
    w->begun = true;
    if (!gguf_alignment_ok(w->alignment)) {
        ERR(err, QUERN_EUSAGE, "'%s': alignment %zu, allowed are powers of two from 8 to 65536", w->out.path, w->alignment);
        return output_abandon(&w->out);
    }
    gguf_pack(w->keys.data + 8, w->tensor_count, 8);
    gguf_pack(w->keys.data + 16, w->key_count, 8);
    if (!checked_add(&header, w->keys.n, w->rows.n)) {
        ERR(err, QUERN_EUSAGE, "'%s': the header's size overflows", w->out.path);
        return output_abandon(&w->out);
    }
    if (!plan(w, header, err) || !check_space(w, err))
        return false;
    if (w->resume && find_standing(w))
        return take_up(w, err);
    if (w->resume && ftruncate(w->out.fd, 0) != 0)
        return output_error(&w->out, "write", err);
    if (!emit(w, w->keys.data, w->keys.n, err) ||
        !emit(w, w->rows.data, w->rows.n, err) ||
        (w->size > header && !emit_zeros(w, padding(w, header), err)) || !flush(w, err))
        return false;
    if (ftruncate(w->out.fd, (off_t)w->size) != 0)
        return output_error(&w->out, "write", err);
    if (!gguf_open(&g, w->out.temp, &(struct gguf_options){ .limit_metadata = SIZE_MAX, .header_only = true }, &verdict)) {
        *err = verdict;
        if (err->code == QUERN_EFORMAT)
            err->code = QUERN_EUSAGE;
        return output_abandon(&w->out);
    }
    gguf_close(&g);
    if (w->resume && ftruncate(w->out.fd, (off_t)w->header) != 0)
        return output_error(&w->out, "write", err);
    return true;
}

bool gguf_writer_begin(struct gguf_writer *w, size_t *standing, struct quern_error *err)
{
    if (!usable(w, err) || (!w->begun && !begin(w, err)))
        return false;
    *standing = w->standing;
    return true;
}

bool gguf_writer_read(struct gguf_writer *w, size_t tensor, void *data, struct quern_error *err)
{
    if (!usable(w, err))
        return false;
    if (!w->resume || tensor >= w->current)
        return ERR(err, QUERN_EUSAGE, "'%s': tensor %zu has not been written", w->out.path, tensor + 1);
    return (flush(w, err) && read_at(w, data, w->tensors[tensor].bytes, w->header + w->tensors[tensor].offset)) ||
           ERR(err, QUERN_EIO, "cannot read '%s' again", w->out.temp);
}

void gguf_writer_leave(struct gguf_writer *w)
{
    struct quern_error ignored;
    w->out.keep = w->resume && w->begun && !w->out.failed && !w->out.committed && flush(w, &ignored);
}

bool gguf_writer_data(struct gguf_writer *w, const void *data, size_t bytes, struct quern_error *err)
{
    if (!usable(w, err) || (!w->begun && !begin(w, err)))
        return false;
    if (bytes == 0)
        return true;
    if (w->current == w->tensor_count || bytes > w->tensors[w->current].bytes - w->current_done) {
        ERR(err, QUERN_EUSAGE, "'%s': %zu bytes more than tensor %zu of %zu has", w->out.path, bytes, w->current + 1,
            w->tensor_count);
        return output_abandon(&w->out);
    }
    if (!emit(w, data, bytes, err))
        return false;
    w->current_done += bytes;
    if (w->current_done < w->tensors[w->current].bytes)
        return true;
    bool last = w->current + 1 == w->tensor_count;
    size_t pad = last && w->unpadded ? 0 : padding(w, w->current_done);   /* every tensor begins aligned */
    w->current++;
    w->current_done = 0;
    return emit_zeros(w, pad, err);
}

bool gguf_writer_tensors(struct gguf_writer *w, const struct gguf *g, struct quern_error *err)
{
    for (size_t i = 0; i < g->tensor_count; i++)
        if (!gguf_writer_tensor(w, &g->tensors[i], err))
            return false;
    for (size_t i = 0; i < g->tensor_count; i++)
        if (!gguf_writer_data(w, g->tensors[i].data, g->tensors[i].bytes, err))
            return false;
    return true;
}

bool gguf_writer_commit(struct gguf_writer *w, struct quern_error *err)
{
    if (!usable(w, err) || (!w->begun && !begin(w, err)))
        return false;
    if (w->current < w->tensor_count) {
        ERR(err, QUERN_EUSAGE, "'%s': the data of tensor %zu of %zu is not complete", w->out.path, w->current + 1, w->tensor_count);
        return output_abandon(&w->out);
    }
    return flush(w, err) && output_commit(&w->out, err);
}

void gguf_writer_close(struct gguf_writer *w)
{
    if (!w)
        return;
    output_close(&w->out);
    free(w->keys.data);
    free(w->rows.data);
    free(w->tensors);
    free(w->buffer);
    free(w);
}
