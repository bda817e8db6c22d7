#include "workplace.h"

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

struct identity { int64_t bytes, inode, device, seconds, nanoseconds; };

static struct identity identify(const char *path)
{
    struct stat st;
    struct identity id = { -1, 0, 0, 0, 0 };
    if (path && stat(path, &st) == 0)
        id = (struct identity){ (int64_t)st.st_size, (int64_t)st.st_ino, (int64_t)st.st_dev, (int64_t)st.st_mtim.tv_sec,
                                (int64_t)st.st_mtim.tv_nsec };
    return id;
}

/* The folder and a hidden name beside the output: ".OUT.quern-WHAT". Freed by the caller. */
static char *path_beside(const char *output, const char *what, struct quern_error *err)
{
    const char *slash = strrchr(output, '/');
    int folder = slash ? (int)(slash - output) + 1 : 0;
    size_t size = strlen(output) + strlen(what) + 16;
    char *name = mem_take(size, 1, "a path", err);
    if (name)
        snprintf(name, size, "%.*s.%s.quern-%s", folder, output, slash ? slash + 1 : output, what);
    return name;
}

bool workplace_open(struct workplace *w, const char *output, struct quern_error *err)
{
    *w = (struct workplace){ 0 };
    char *path = path_beside(output, "journal", err);
    w->stats = path ? path_beside(output, "stats", err) : NULL;
    w->rounded = w->stats ? path_beside(output, "rounded", err) : NULL;
    w->plain = w->rounded ? path_beside(output, "plain", err) : NULL;
    w->journal = w->plain ? journal_open(path, err) : NULL;
    if (path && !w->journal && err->code == QUERN_EIO)       /* the user named the output, not the hidden file beside it */
        error_prefix(err, output);
    free(path);
    if (!w->journal)
        workplace_close(w);
    return w->journal != NULL;
}

/* The file, and what a writer that resumes (gguf.h) has of it so far. */
static void drop(const char *path)
{
    struct quern_error ignored;
    char *partial = path_beside(path, "partial", &ignored);
    unlink(path);
    if (partial)
        unlink(partial);
    free(partial);
}

bool workplace_begin(struct workplace *w, const char *key, struct quern_error *err)
{
    if (!journal_begin(w->journal, key, &w->again, err))
        return false;
    if (!w->again) {
        drop(w->stats);
        drop(w->rounded);
        drop(w->plain);
    }
    return true;
}

void workplace_close(struct workplace *w)
{
    if (w->journal && !w->keep) {
        drop(w->stats);
        drop(w->rounded);
        drop(w->plain);
    }
    journal_close(w->journal, w->keep);
    free(w->stats);
    free(w->rounded);
    free(w->plain);
    *w = (struct workplace){ 0 };
}

/* Bytes on the disk of a hidden file, and of what a resuming writer has of it. */
static size_t standing(const char *path)
{
    struct quern_error ignored;
    struct stat st;
    char *partial = path ? path_beside(path, "partial", &ignored) : NULL;
    size_t bytes = path && stat(path, &st) == 0 ? (size_t)st.st_blocks * 512 : 0;
    bytes += partial && stat(partial, &st) == 0 ? (size_t)st.st_blocks * 512 : 0;
    free(partial);
    return bytes;
}

bool workplace_space(const struct workplace *w, const char *output, size_t needed, struct quern_error *err)
{
    struct statvfs fs;
    size_t there = standing(w->stats) + standing(w->rounded);
    char *file = path_beside(output, "journal", err), *slash = file ? strrchr(file, '/') : NULL;
    if (!file)
        return false;
    if (slash)
        slash[1] = 0;
    bool told = statvfs(slash ? file : ".", &fs) == 0;
    free(file);
    uint64_t block = told && fs.f_frsize ? fs.f_frsize : told ? fs.f_bsize : 0;
    needed = needed > there ? needed - there : 0;
    if (!block || needed / block <= fs.f_bavail)
        return true;
    return ERR(err, QUERN_EIO, "cannot write '%s': the file and the hidden ones beside it take about %zu bytes, %ju are free",
               output, needed, (uintmax_t)(fs.f_bavail * block));
}

bool workplace_finished(struct workplace *w, const char *record, const char *path, struct quern_error *err)
{
    struct identity id = identify(path);
    return journal_add(w->journal, record, &id, sizeof id, err);
}

bool workplace_has(struct workplace *w, const char *record, const char *path)
{
    struct identity noted, id = identify(path);
    return id.bytes >= 0 && journal_find(w->journal, record, &noted, sizeof noted) && memcmp(&noted, &id, sizeof id) == 0;
}

void workplace_hash_file(struct sha256 *h, const char *path)
{
    struct identity id = identify(path);
    sha256_add(h, path ? path : "", path ? strlen(path) + 1 : 1);
    sha256_add(h, &id, sizeof id);
}

void workplace_hash_folder(struct sha256 *h, const char *path)
{
    struct dirent **entries;
    int n = scandir(path, &entries, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        size_t size = strlen(path) + strlen(entries[i]->d_name) + 2;
        char *full = entries[i]->d_name[0] == '.' ? NULL : malloc(size);
        if (full) {
            snprintf(full, size, "%s/%s", path, entries[i]->d_name);
            workplace_hash_file(h, full);
        }
        free(full);
        free(entries[i]);
    }
    if (n >= 0)
        free(entries);
}
