/* Writing GGUF: all or nothing, and on the disk when it is said to be.
 *
 *     gguf_writer_open     target and directory are checked, stale files removed, .NAME.quern-PID-N created and locked
 *     value, tensor        collected in memory: the header must be whole before the first byte of data has a place
 *     data (the first)     offsets, free space, header written, read back by gguf_open at the file's full size
 *     data                 through a buffer, padding between tensors
 *     commit               flush, fsync, close, rename, fsync of the directory
 *
 * A writer that resumes has the temporary name .NAME.quern-partial and finds there what a killed run of the same work wrote: the
 * file is as long as what was written, so its length says which tensors are whole.
 *
 * Whoever is killed before the rename leaves a file under the temporary name only; whoever fails removes that, too. The order of
 * fsync and rename is what a power cut needs: the name never points at data that is not there. tests/test_kill.sh and
 * tests/test_faults.c hold it to that. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "formats.h"
#include "gguf.h"

enum {
    BUFFER_BYTES = 256 * 1024,
    TEMP_TRIES   = 100,
    BASE_LENGTH  = 200       /* of the target's name in the temporary's: file names end at 255 bytes */
};

struct bytes {
    uint8_t *data;
    size_t   n, room;
};

/* A tensor to come: where its offset stands in the directory's rows, and how much data it has. */
struct planned { size_t offset_at, bytes, offset; };

struct gguf_writer {
    char  *path, *directory, *temp;      /* the target, where it lies, the temporary file beside it */
    int    fd;                           /* of the temporary file; -1 before and after              */
    bool   failed, begun, committed;
    bool   alignment_key;                /* general.alignment is among the keys                     */
    size_t alignment;                    /* what the caller wants, then what the keys say           */
    bool   force, unpadded;
    bool   resume, left;                 /* left: the partial file stays when the writer is closed   */
    size_t standing;                     /* tensors that an earlier run completed                   */
    size_t header;                       /* bytes before the first tensor, padding included         */
    mode_t mode;                         /* of the file that is replaced; 0: none is                */

    struct bytes    keys, rows;          /* the header and keys; the tensor directory                */
    size_t          key_count;
    struct planned *tensors;
    size_t          tensor_count, tensor_room;

    size_t   current, current_done;      /* tensor that is being written, its bytes so far          */
    size_t   size;                       /* of the whole file                                       */
    size_t   buffered;
    uint8_t *buffer;                     /* [BUFFER_BYTES] */
};

/* ---- failing -------------------------------------------------------------------------------------------------- */

/* Nothing of a failed run stays. Always false. */
static bool abandon(struct gguf_writer *w)
{
    if (w->fd >= 0)
        close(w->fd);
    w->fd = -1;
    if (w->temp && !w->committed && !w->left)
        unlink(w->temp);
    w->failed = true;
    return false;
}

static bool write_error(struct gguf_writer *w, const char *what, struct quern_error *err)
{
    ERR_ERRNO(err, "cannot %s '%s' (through '%s')", what, w->path, w->temp);
    return abandon(w);
}

static bool usable(const struct gguf_writer *w, struct quern_error *err)
{
    if (w->failed || w->committed)
        return ERR(err, QUERN_EUSAGE, "'%s': the writer has %s", w->path, w->failed ? "failed before" : "been committed");
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
    for (size_t i = 0; i < bytes; i++)
        packed[i] = (uint8_t)(value >> (8 * i));
    return put(b, packed, bytes, err);
}

static bool put_string(struct bytes *b, struct gguf_string s, struct quern_error *err)
{
    return put_number(b, s.n, 8, err) && put(b, s.text, s.n, err);
}

/* ---- the temporary file --------------------------------------------------------------------------------------- */

/* Is `name` what a writer for `base` calls its temporary file: .BASE.quern-PID-N? */
static bool is_temp_of(const char *name, const char *base, size_t base_n)
{
    if (name[0] != '.' || strncmp(name + 1, base, base_n) || strncmp(name + 1 + base_n, ".quern-", 7))
        return false;
    const char *digits = name + 1 + base_n + 7;
    return *digits && digits[strspn(digits, "0123456789-")] == '\0';
}

/* Remove what killed runs for the same target left. A run that lives holds a lock on its file: process ids alone would not tell,
 * they come back, and those of another container mean nothing here. Whatever goes wrong here is no reason to stop. */
static void remove_stale(const char *directory, const char *base, size_t base_n)
{
    DIR *dir = opendir(directory);
    for (struct dirent *entry; dir && (entry = readdir(dir)) != NULL;) {
        if (!is_temp_of(entry->d_name, base, base_n))
            continue;
        int fd = openat(dirfd(dir), entry->d_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0)
            continue;
        if (flock(fd, LOCK_EX | LOCK_NB) == 0)
            unlinkat(dirfd(dir), entry->d_name, 0);
        close(fd);
    }
    if (dir)
        closedir(dir);
}

/* Create and lock it. Another run's remove_stale may come between the two; then it is made once more. */
static bool create_temp(struct gguf_writer *w, const char *base, size_t base_n, struct quern_error *err)
{
    size_t room = strlen(w->directory) + base_n + 64;
    w->temp = mem_take(room, 1, "a file name", err);
    if (!w->temp)
        return false;
    for (unsigned i = 0; i < TEMP_TRIES; i++) {
        struct stat st;
        snprintf(w->temp, room, "%s/.%.*s.quern-%ld-%u", w->directory, (int)base_n, base, (long)getpid(), i);
        w->fd = open(w->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (w->fd < 0 && errno == EEXIST)
            continue;
        if (w->fd < 0)
            break;
        (void)flock(w->fd, LOCK_EX | LOCK_NB);
        bool seen = fstat(w->fd, &st) == 0;
        if (seen && st.st_nlink > 0)
            return true;
        int number = errno;
        close(w->fd);
        w->fd = -1;
        if (!seen) {
            unlink(w->temp);
            errno = number;
            break;
        }
    }
    ERR_ERRNO(err, "cannot create '%s' for '%s'", w->temp, w->path);
    free(w->temp);
    w->temp = NULL;
    return false;
}

/* The one name under which work is found again. Whoever holds its lock is at work there. */
static bool open_partial(struct gguf_writer *w, const char *base, size_t base_n, struct quern_error *err)
{
    size_t room = strlen(w->directory) + base_n + 64;
    char *name = mem_take(room, 1, "a file name", err);
    if (!name)
        return false;
    snprintf(name, room, "%s/.%.*s.quern-partial", w->directory, (int)base_n, base);
    struct stat here, there;
    w->fd = open(name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (w->fd < 0) {
        ERR_ERRNO(err, "cannot create '%s' for '%s'", name, w->path);
    } else if (flock(w->fd, LOCK_EX | LOCK_NB) == 0 && fstat(w->fd, &here) == 0 && stat(name, &there) == 0 &&
               here.st_ino == there.st_ino && here.st_dev == there.st_dev && S_ISREG(here.st_mode)) {
        w->temp = name;
        return true;
    } else {
        ERR(err, QUERN_EIO, "another run is writing '%s' (through '%s')", w->path, name);
    }
    if (w->fd >= 0)
        close(w->fd);
    w->fd = -1;
    free(name);
    return false;
}

/* May the target be written? It must not be an input, nor be replaced unasked. */
static bool check_target(struct gguf_writer *w, const struct gguf_writer_options *options, struct quern_error *err)
{
    struct stat st;
    if (stat(w->path, &st) != 0) {
        if (errno == ENOENT)
            return true;
        return ERR_ERRNO(err, "cannot write '%s'", w->path);
    }
    if (!S_ISREG(st.st_mode))
        return ERR(err, QUERN_EIO, "cannot write '%s': it is there and is not a regular file", w->path);
    for (size_t i = 0; i < options->input_count; i++)
        if (options->inputs[i].device == st.st_dev && options->inputs[i].inode == st.st_ino)
            return ERR(err, QUERN_EUSAGE, "'%s' is the input itself: choose another output", w->path);
    if (!options->force)
        return ERR(err, QUERN_EUSAGE, "'%s' exists already (--force replaces it)", w->path);
    w->mode = st.st_mode & 0777;
    /* A symbolic link stays one: what it points to is replaced. */
    char *real = realpath(w->path, NULL);
    if (!real)
        return ERR_ERRNO(err, "cannot write '%s'", w->path);
    free(w->path);
    w->path = real;
    return true;
}

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
    w->fd = -1;
    w->alignment = options->alignment;
    w->force = options->force;
    w->unpadded = options->unpadded;
    w->resume = options->resume;
    w->path = mem_copy_text(path, strlen(path), err);
    bool ok = w->path && check_target(w, options, err);
    if (ok) {
        const char *slash = strrchr(w->path, '/'), *base = slash ? slash + 1 : w->path;
        size_t base_n = strlen(base) < BASE_LENGTH ? strlen(base) : BASE_LENGTH;
        w->directory = slash == w->path ? mem_copy_text("/", 1, err)
                     : slash ? mem_copy_text(w->path, (size_t)(slash - w->path), err) : mem_copy_text(".", 1, err);
        w->buffer = w->directory ? mem_take(BUFFER_BYTES, 1, "a writer's buffer", err) : NULL;
        ok = w->buffer != NULL;
        if (ok && base_n == 0)
            ok = ERR(err, QUERN_EUSAGE, "'%s' is not the name of a file", w->path);
        if (ok)
            remove_stale(w->directory, base, base_n);
        ok = ok && (w->resume ? open_partial(w, base, base_n, err) : create_temp(w, base, base_n, err));
    }
    if (ok && w->mode)
        (void)fchmod(w->fd, w->mode);
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
    return !w->begun || ERR(err, QUERN_EUSAGE, "'%s': keys and tensors come before the data", w->path);
}

bool gguf_writer_value(struct gguf_writer *w, const char *key, size_t key_n, const struct gguf_value *value,
                       struct quern_error *err)
{
    static const char alignment[] = "general.alignment";
    if (!may_describe(w, err))
        return false;
    if (key_n == sizeof alignment - 1 && !memcmp(key, alignment, key_n) && value->type == GGUF_U32) {
        if (w->alignment && w->alignment != value->as.u)
            return ERR(err, QUERN_EUSAGE, "'%s': general.alignment is %ju, the writer was opened for %zu", w->path,
                       (uintmax_t)value->as.u, w->alignment);
        w->alignment = (size_t)value->as.u;
        w->alignment_key = true;
    }
    if (!put_string(&w->keys, (struct gguf_string){ key, key_n }, err) || !put_value(&w->keys, value, err))
        return abandon(w);
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
            return abandon(w);
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
        return abandon(w);
    w->tensors[w->tensor_count++] = (struct planned){ .offset_at = offset_at, .bytes = bytes };
    return true;
}

/* ---- the file ------------------------------------------------------------------------------------------------- */

/* write() may do less than asked, and be interrupted. Nothing written and no error should not happen; it would loop for ever. */
static bool write_all(struct gguf_writer *w, const uint8_t *data, size_t n, struct quern_error *err)
{
    while (n > 0) {
        ssize_t done = write(w->fd, data, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0) {
            errno = done < 0 ? errno : ENOSPC;
            return write_error(w, "write", err);
        }
        data += done;
        n -= (size_t)done;
    }
    return true;
}

static bool flush(struct gguf_writer *w, struct quern_error *err)
{
    size_t n = w->buffered;
    w->buffered = 0;
    return write_all(w, w->buffer, n, err);
}

/* Small pieces are collected, so that a converter may hand over row by row; large ones go straight through. */
static bool emit(struct gguf_writer *w, const uint8_t *data, size_t n, struct quern_error *err)
{
    if (n > BUFFER_BYTES - w->buffered && !flush(w, err))
        return false;
    if (n >= BUFFER_BYTES)
        return write_all(w, data, n, err);
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
        ERR(err, QUERN_EIO, "cannot write '%s': it takes %zu bytes, files may have %ju (ulimit -f)", w->path, w->size,
            (uintmax_t)limit.rlim_cur);
        return abandon(w);
    }
    if (fstatvfs(w->fd, &fs) != 0)
        return true;
    uint64_t block = fs.f_frsize ? fs.f_frsize : fs.f_bsize;
    if (w->size / block > fs.f_bavail) {
        ERR(err, QUERN_EIO, "cannot write '%s': it takes %zu bytes, %ju are free", w->path, w->size,
            (uintmax_t)(fs.f_bavail * block));
        return abandon(w);
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
        uint8_t *row = w->rows.data + w->tensors[i].offset_at;
        for (size_t k = 0; k < 8; k++)
            row[k] = (uint8_t)((uint64_t)offset >> (8 * k));
        w->tensors[i].offset = offset;
        fits = checked_add(&end, offset, w->tensors[i].bytes) && checked_align(&offset, end, w->alignment);
    }
    fits = fits && checked_add(&w->size, w->size, w->unpadded ? end : offset);
    if (w->unpadded && w->tensor_count == 0)
        w->size = header;
    if (!fits || w->size > INT64_MAX) {
        ERR(err, QUERN_EUSAGE, "'%s': the sum of the tensors' sizes overflows", w->path);
        return abandon(w);
    }
    return true;
}

static bool read_at(const struct gguf_writer *w, void *out, size_t n, size_t at)
{
    uint8_t *to = out;
    while (n > 0) {
        ssize_t done = pread(w->fd, to, n, (off_t)at);
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
    if (fstat(w->fd, &st) != 0 || (size_t)st.st_size < w->header)
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
    return (ftruncate(w->fd, end) == 0 && lseek(w->fd, end, SEEK_SET) == end) || write_error(w, "write", err);
}

/* The header, then the file at its full size, then the reader's opinion of it: what gguf_open would refuse is refused before
 * hours of work go into the data. */
static bool begin(struct gguf_writer *w, struct quern_error *err)
{
    struct quern_error verdict;
    struct gguf g;
    size_t header;
    if (!w->alignment)
        w->alignment = 32;
    /* Readers take 32 for granted. */
    if (w->alignment != 32 && !w->alignment_key && !gguf_writer_u32(w, "general.alignment", (uint32_t)w->alignment, err))
        return false;
    w->begun = true;
    if (w->alignment < 8 || w->alignment > 65536 || (w->alignment & (w->alignment - 1))) {
        ERR(err, QUERN_EUSAGE, "'%s': alignment %zu, allowed are powers of two from 8 to 65536", w->path, w->alignment);
        return abandon(w);
    }
    for (size_t i = 0; i < 8; i++) {
        w->keys.data[8 + i] = (uint8_t)((uint64_t)w->tensor_count >> (8 * i));
        w->keys.data[16 + i] = (uint8_t)((uint64_t)w->key_count >> (8 * i));
    }
    if (!checked_add(&header, w->keys.n, w->rows.n)) {
        ERR(err, QUERN_EUSAGE, "'%s': the header's size overflows", w->path);
        return abandon(w);
    }
    if (!plan(w, header, err) || !check_space(w, err))
        return false;
    if (w->resume && find_standing(w))
        return take_up(w, err);
    if (w->resume && ftruncate(w->fd, 0) != 0)
        return write_error(w, "write", err);
    if (!emit(w, w->keys.data, w->keys.n, err) ||
        !emit(w, w->rows.data, w->rows.n, err) ||
        (w->size > header && !emit_zeros(w, padding(w, header), err)) || !flush(w, err))
        return false;
    if (ftruncate(w->fd, (off_t)w->size) != 0)
        return write_error(w, "write", err);
    if (!gguf_open(&g, w->temp, &(struct gguf_options){ .limit_metadata = SIZE_MAX, .header_only = true }, &verdict)) {
        *err = verdict;
        if (err->code == QUERN_EFORMAT)
            err->code = QUERN_EUSAGE;
        return abandon(w);
    }
    gguf_close(&g);
    if (w->resume && ftruncate(w->fd, (off_t)w->header) != 0)
        return write_error(w, "write", err);
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
        return ERR(err, QUERN_EUSAGE, "'%s': tensor %zu has not been written", w->path, tensor + 1);
    return (flush(w, err) && read_at(w, data, w->tensors[tensor].bytes, w->header + w->tensors[tensor].offset)) ||
           ERR(err, QUERN_EIO, "cannot read '%s' again", w->temp);
}

void gguf_writer_leave(struct gguf_writer *w)
{
    struct quern_error ignored;
    w->left = w->resume && w->begun && !w->failed && !w->committed && flush(w, &ignored);
}

bool gguf_writer_data(struct gguf_writer *w, const void *data, size_t bytes, struct quern_error *err)
{
    if (!usable(w, err) || (!w->begun && !begin(w, err)))
        return false;
    if (bytes == 0)
        return true;
    if (w->current == w->tensor_count || bytes > w->tensors[w->current].bytes - w->current_done) {
        ERR(err, QUERN_EUSAGE, "'%s': %zu bytes more than tensor %zu of %zu has", w->path, bytes, w->current + 1, w->tensor_count);
        return abandon(w);
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

/* The file is whole and on the disk; now it gets its name. The lock is kept until then, through a second descriptor, because
 * close must come before (it may be what reports a failed write). */
static bool give_name(struct gguf_writer *w, struct quern_error *err)
{
    int lock = dup(w->fd), fd = w->fd, directory;
    w->fd = -1;
    bool ok = close(fd) == 0 || write_error(w, "write", err);
    directory = ok ? open(w->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (ok && !w->force && access(w->path, F_OK) == 0) {
        ERR(err, QUERN_EUSAGE, "'%s' has come into being meanwhile (--force replaces it)", w->path);
        ok = abandon(w);
    }
    if (ok && rename(w->temp, w->path) != 0)
        ok = write_error(w, "write", err);
    if (ok)
        w->committed = true;
    /* File systems without a notion of syncing a directory say EINVAL; a directory without read permission cannot be opened. */
    if (ok && directory >= 0 && fsync(directory) != 0 && errno != EINVAL && errno != ENOTSUP)
        ok = ERR_ERRNO(err, "'%s' is written, but its directory could not be synced", w->path);
    if (directory >= 0)
        close(directory);
    if (lock >= 0)
        close(lock);
    return ok;
}

bool gguf_writer_commit(struct gguf_writer *w, struct quern_error *err)
{
    if (!usable(w, err) || (!w->begun && !begin(w, err)))
        return false;
    if (w->current < w->tensor_count) {
        ERR(err, QUERN_EUSAGE, "'%s': the data of tensor %zu of %zu is not complete", w->path, w->current + 1, w->tensor_count);
        return abandon(w);
    }
    if (!flush(w, err))
        return false;
    if (fsync(w->fd) != 0)
        return write_error(w, "sync", err);
    return give_name(w, err);
}

void gguf_writer_close(struct gguf_writer *w)
{
    if (!w)
        return;
    if (!w->committed && !w->failed)
        abandon(w);
    free(w->path);
    free(w->directory);
    free(w->temp);
    free(w->keys.data);
    free(w->rows.data);
    free(w->tensors);
    free(w->buffer);
    free(w);
}
