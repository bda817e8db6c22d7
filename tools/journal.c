#include "journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sha256.h"

/* The file: 32 bytes of magic, 64 of the key, then records: data's length (8 bytes), name's length (4), the first 20 digits of the
 * SHA-256 of lengths, name and data, then name and data. Numbers are this machine's: a journal is not moved. */
enum { MAGIC_BYTES = 32, KEY_BYTES = 64, SUM_BYTES = 20, NAME_MOST = 200 };
static const char magic[MAGIC_BYTES] = "quern-quantize journal 1\n";

struct head { uint64_t bytes; uint32_t name; char sum[SUM_BYTES]; };

struct record { char *name; size_t bytes; off_t at; };

struct journal {
    char  *path;
    int    fd;
    off_t  end;
    struct record *records;
    size_t count, room;
};

struct journal *journal_open(const char *path, struct quern_error *err)
{
    struct journal *j = mem_take(1, sizeof *j, "a journal", err);
    if (!j || !(j->path = mem_copy_text(path, strlen(path), err))) {
        free(j);
        return NULL;
    }
    j->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (j->fd < 0) {
        ERR_ERRNO(err, "cannot open '%s'", path);
    } else if (flock(j->fd, LOCK_EX | LOCK_NB) != 0) {
        ERR(err, QUERN_EUSAGE, "another quern-quantize writes this output ('%s' is locked)", path);
        close(j->fd);
        j->fd = -1;
    }
    if (j->fd >= 0)
        return j;
    free(j->path);
    free(j);
    return NULL;
}

static bool read_at(const struct journal *j, void *data, size_t bytes, off_t at)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t n = pread(j->fd, (char *)data + done, bytes - done, at + (off_t)done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        done += (size_t)n;
    }
    return true;
}

static bool write_at(struct journal *j, const void *data, size_t bytes, off_t at, struct quern_error *err)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t n = pwrite(j->fd, (const char *)data + done, bytes - done, at + (off_t)done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return ERR_ERRNO(err, "cannot write '%s'", j->path);
        done += (size_t)n;
    }
    return true;
}

static void sum_record(const struct head *h, const char *name, const void *data, char out[SUM_BYTES])
{
    struct sha256 s;
    char digits[65];
    sha256_begin(&s);
    sha256_add(&s, &h->bytes, sizeof h->bytes);
    sha256_add(&s, &h->name, sizeof h->name);
    sha256_add(&s, name, h->name);
    sha256_add(&s, data, h->bytes);
    sha256_end(&s, digits);
    memcpy(out, digits, SUM_BYTES);
}

static bool note_record(struct journal *j, const char *name, size_t name_n, size_t bytes, off_t at, struct quern_error *err)
{
    if (j->count == j->room) {
        size_t room = j->room ? 2 * j->room : 64;
        struct record *more = realloc(j->records, room * sizeof *more);
        if (!more)
            return ERR(err, QUERN_EMEM, "no memory for a journal of %zu records", room);
        j->records = more, j->room = room;
    }
    struct record r = { mem_copy_text(name, name_n, err), bytes, at };
    if (!r.name)
        return false;
    j->records[j->count++] = r;
    return true;
}

/* One record at j->end; *whole false: there is none that can be trusted. */
static bool read_record(struct journal *j, off_t size, bool *whole, struct quern_error *err)
{
    struct head h;
    char sum[SUM_BYTES], name[NAME_MOST];
    off_t at = j->end + (off_t)sizeof h;
    *whole = false;
    if (at > size || !read_at(j, &h, sizeof h, j->end) || h.name > NAME_MOST || h.bytes > (uint64_t)(size - at) ||
        h.name + h.bytes > (uint64_t)(size - at) || !read_at(j, name, h.name, at))
        return true;
    void *data = mem_take(1, h.bytes, "a journal's record", err);
    if (!data)
        return false;
    bool ok = true;
    if (read_at(j, data, h.bytes, at + h.name)) {
        sum_record(&h, name, data, sum);
        *whole = memcmp(sum, h.sum, SUM_BYTES) == 0;
        ok = !*whole || note_record(j, name, h.name, h.bytes, at + h.name, err);
    }
    free(data);
    if (*whole)
        j->end = at + (off_t)(h.name + h.bytes);
    return ok;
}

bool journal_begin(struct journal *j, const char *key, bool *again, struct quern_error *err)
{
    char found[MAGIC_BYTES + KEY_BYTES], wanted[MAGIC_BYTES + KEY_BYTES];
    struct stat st;
    *again = false;
    if (!j)
        return true;
    memcpy(wanted, magic, MAGIC_BYTES);
    memcpy(wanted + MAGIC_BYTES, key, KEY_BYTES);
    if (fstat(j->fd, &st) != 0)
        return ERR_ERRNO(err, "cannot look at '%s'", j->path);
    j->end = sizeof wanted;
    bool whole = st.st_size >= j->end && read_at(j, found, sizeof found, 0) && memcmp(found, wanted, sizeof wanted) == 0;
    *again = whole;
    while (whole)
        if (!read_record(j, st.st_size, &whole, err))
            return false;
    if (ftruncate(j->fd, *again ? j->end : 0) != 0)
        return ERR_ERRNO(err, "cannot shorten '%s'", j->path);
    return *again || write_at(j, wanted, sizeof wanted, 0, err);
}

bool journal_find(struct journal *j, const char *name, void *data, size_t bytes)
{
    for (size_t i = j ? j->count : 0; i-- > 0;)
        if (!strcmp(j->records[i].name, name))
            return j->records[i].bytes == bytes && read_at(j, data, bytes, j->records[i].at);
    return false;
}

bool journal_add(struct journal *j, const char *name, const void *data, size_t bytes, struct quern_error *err)
{
    struct head h = { .bytes = bytes };
    size_t n = strlen(name);
    if (!j)
        return true;
    if (n > NAME_MOST)
        return ERR(err, QUERN_EFAIL, "a journal's name of %zu bytes", n);
    h.name = (uint32_t)n;
    sum_record(&h, name, data, h.sum);
    /* The head last: until it stands the bytes after it mean nothing. */
    off_t at = j->end + (off_t)sizeof h;
    if (!write_at(j, name, n, at, err) || !write_at(j, data, bytes, at + (off_t)n, err) ||
        !write_at(j, &h, sizeof h, j->end, err) || !note_record(j, name, n, bytes, at + (off_t)n, err))
        return false;
    j->end = at + (off_t)(n + bytes);
    return true;
}

void journal_close(struct journal *j, bool keep)
{
    if (!j)
        return;
    if (!keep)
        unlink(j->path);
    close(j->fd);
    for (size_t i = 0; i < j->count; i++)
        free(j->records[i].name);
    free(j->records);
    free(j->path);
    free(j);
}
