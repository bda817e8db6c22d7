/* A temporary file beside the target, then its name: see output.h.
 *
 * Whoever is killed before the rename leaves a file under the temporary name only; whoever fails removes that, too. The order of
 * fsync and rename is what a power cut needs: the name never points at data that is not there. tests/test_kill.sh and
 * tests/test_faults.c hold it to that. */
#include "output.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    TEMP_TRIES  = 100,
    BASE_LENGTH = 200        /* of the target's name in the temporary's: file names end at 255 bytes */
};

/* ---- failing -------------------------------------------------------------------------------------------------- */

bool output_abandon(struct output *o)
{
    if (o->fd >= 0)
        close(o->fd);
    o->fd = -1;
    if (o->temp && !o->committed && !o->keep)
        unlink(o->temp);
    o->failed = true;
    return false;
}

bool output_error(struct output *o, const char *what, struct quern_error *err)
{
    ERR_ERRNO(err, "cannot %s '%s' (through '%s')", what, o->path, o->temp);
    return output_abandon(o);
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
static bool create_temp(struct output *o, const char *base, size_t base_n, struct quern_error *err)
{
    size_t room = strlen(o->directory) + base_n + 64;
    o->temp = mem_take(room, 1, "a file name", err);
    if (!o->temp)
        return false;
    for (unsigned i = 0; i < TEMP_TRIES; i++) {
        struct stat st;
        snprintf(o->temp, room, "%s/.%.*s.quern-%ld-%u", o->directory, (int)base_n, base, (long)getpid(), i);
        o->fd = open(o->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (o->fd < 0 && errno == EEXIST)
            continue;
        if (o->fd < 0)
            break;
        (void)flock(o->fd, LOCK_EX | LOCK_NB);
        bool seen = fstat(o->fd, &st) == 0;
        if (seen && st.st_nlink > 0)
            return true;
        int number = errno;
        close(o->fd);
        o->fd = -1;
        if (!seen) {
            unlink(o->temp);
            errno = number;
            break;
        }
    }
    ERR_ERRNO(err, "cannot create '%s' for '%s'", o->temp, o->path);
    free(o->temp);
    o->temp = NULL;
    return false;
}

/* The one name under which work is found again. Whoever holds its lock is at work there. */
static bool open_partial(struct output *o, const char *base, size_t base_n, struct quern_error *err)
{
    size_t room = strlen(o->directory) + base_n + 64;
    char *name = mem_take(room, 1, "a file name", err);
    if (!name)
        return false;
    snprintf(name, room, "%s/.%.*s.quern-partial", o->directory, (int)base_n, base);
    struct stat here, there;
    o->fd = open(name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (o->fd < 0) {
        ERR_ERRNO(err, "cannot create '%s' for '%s'", name, o->path);
    } else if (flock(o->fd, LOCK_EX | LOCK_NB) == 0 && fstat(o->fd, &here) == 0 && stat(name, &there) == 0 &&
               here.st_ino == there.st_ino && here.st_dev == there.st_dev && S_ISREG(here.st_mode)) {
        o->temp = name;
        return true;
    } else {
        ERR(err, QUERN_EIO, "another run is writing '%s' (through '%s')", o->path, name);
    }
    if (o->fd >= 0)
        close(o->fd);
    o->fd = -1;
    free(name);
    return false;
}

static bool is_input(const struct stat *target, const struct output_options *options)
{
    struct stat text;
    for (size_t i = 0; i < options->input_count; i++)
        if (options->inputs[i].device == target->st_dev && options->inputs[i].inode == target->st_ino)
            return true;
    for (size_t i = 0; i < options->text_count; i++)
        if (options->texts[i] && stat(options->texts[i], &text) == 0 && text.st_dev == target->st_dev &&
            text.st_ino == target->st_ino)
            return true;
    return false;
}

/* May the target be written? It must not be an input, nor be replaced unasked. */
static bool check_target(struct output *o, const struct output_options *options, struct quern_error *err)
{
    struct stat st;
    if (stat(o->path, &st) != 0) {
        if (errno == ENOENT)
            return true;
        return ERR_ERRNO(err, "cannot write '%s'", o->path);
    }
    if (!S_ISREG(st.st_mode))
        return ERR(err, QUERN_EIO, "cannot write '%s': it is there and is not a regular file", o->path);
    if (is_input(&st, options))
        return ERR(err, QUERN_EUSAGE, "'%s' is an input itself: choose another output", o->path);
    if (!options->force)
        return ERR(err, QUERN_EUSAGE, "'%s' exists already (--force replaces it)", o->path);
    o->mode = st.st_mode & 0777;
    /* A symbolic link stays one: what it points to is replaced. */
    char *real = realpath(o->path, NULL);
    if (!real)
        return ERR_ERRNO(err, "cannot write '%s'", o->path);
    free(o->path);
    o->path = real;
    return true;
}

bool output_open(struct output *o, const char *path, const struct output_options *options, struct quern_error *err)
{
    *o = (struct output){ .fd = -1, .force = options->force, .path = mem_copy_text(path, strlen(path), err) };
    if (!o->path || !check_target(o, options, err))
        return false;
    const char *slash = strrchr(o->path, '/'), *base = slash ? slash + 1 : o->path;
    size_t base_n = strlen(base) < BASE_LENGTH ? strlen(base) : BASE_LENGTH;
    o->directory = slash == o->path ? mem_copy_text("/", 1, err)
                 : slash ? mem_copy_text(o->path, (size_t)(slash - o->path), err) : mem_copy_text(".", 1, err);
    if (!o->directory)
        return false;
    if (base_n == 0)
        return ERR(err, QUERN_EUSAGE, "'%s' is not the name of a file", o->path);
    remove_stale(o->directory, base, base_n);
    if (!(options->resume ? open_partial(o, base, base_n, err) : create_temp(o, base, base_n, err)))
        return false;
    if (o->mode)
        (void)fchmod(o->fd, o->mode);
    return true;
}

/* ---- writing -------------------------------------------------------------------------------------------------- */

/* write() may do less than asked, and be interrupted. Nothing written and no error should not happen; it would loop for ever. */
bool output_write(struct output *o, const void *data, size_t n, struct quern_error *err)
{
    for (const unsigned char *at = data; n > 0;) {
        ssize_t done = write(o->fd, at, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0) {
            errno = done < 0 ? errno : ENOSPC;
            return output_error(o, "write", err);
        }
        at += done;
        n -= (size_t)done;
    }
    return true;
}

/* The lock is kept until the file has its name, through a second descriptor, because close must come before (it may be what reports
 * a failed write). */
bool output_commit(struct output *o, struct quern_error *err)
{
    if (fsync(o->fd) != 0)
        return output_error(o, "sync", err);
    int lock = dup(o->fd), fd = o->fd, directory;
    o->fd = -1;
    bool ok = close(fd) == 0 || output_error(o, "write", err);
    directory = ok ? open(o->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (ok && !o->force && access(o->path, F_OK) == 0) {
        ERR(err, QUERN_EUSAGE, "'%s' has come into being meanwhile (--force replaces it)", o->path);
        ok = output_abandon(o);
    }
    if (ok && rename(o->temp, o->path) != 0)
        ok = output_error(o, "write", err);
    if (ok)
        o->committed = true;
    /* File systems without a notion of syncing a directory say EINVAL; a directory without read permission cannot be opened. */
    if (ok && directory >= 0 && fsync(directory) != 0 && errno != EINVAL && errno != ENOTSUP)
        ok = ERR_ERRNO(err, "'%s' is written, but its directory could not be synced", o->path);
    if (directory >= 0)
        close(directory);
    if (lock >= 0)
        close(lock);
    return ok;
}

void output_close(struct output *o)
{
    if (!o->committed && !o->failed)
        output_abandon(o);
    free(o->path);
    free(o->directory);
    free(o->temp);
    *o = (struct output){ .fd = -1, .failed = true };
}
