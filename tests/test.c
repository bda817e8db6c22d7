#include "test.h"

#include <dirent.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct {
    size_t passed, failed, skipped;
    char name[160];         /* of the current case */
    bool bad;
    char folder[40];        /* made for this run, which has no $QUERN_TMP; else empty */
} run;

void test_begin(const char *name, ...)
{
    va_list args;
    va_start(args, name);
    vsnprintf(run.name, sizeof run.name, name, args);
    va_end(args);
    run.bad = false;
}

void test_finish(void)
{
    if (run.bad) {
        run.failed++;
        printf("FAIL %s\n", run.name);
    } else {
        run.passed++;
        if (getenv("QUERN_TEST_VERBOSE"))
            printf("ok   %s\n", run.name);
    }
    fflush(stdout);
}

void test_fail(const char *file, int line, const char *condition, const char *format, ...)
{
    run.bad = true;
    printf("%s:%d: %s: (%s) does not hold: ", file, line, run.name[0] ? run.name : "?", condition);
    va_list args;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
}

void test_skip(const char *name, const char *why)
{
    run.skipped++;
    printf("SKIPPED %s: %s\n", name, why);
}

bool test_sanitized(void)
{
#ifdef __SANITIZE_ADDRESS__
    return true;
#elif defined(__has_feature)
    return __has_feature(address_sanitizer);
#else
    return false;
#endif
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st, (void)type, (void)at;
    return remove(path);
}

int test_end(void)
{
    if (run.folder[0])
        nftw(run.folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    printf("%zu passed, %zu failed, %zu skipped\n", run.passed, run.failed, run.skipped);
    return run.failed != 0;
}

/* Buffers are handed out in turn, so that a call may take several paths. */
static char *path_buffer(void)
{
    static char buffers[4][4096];
    static unsigned next;
    return buffers[next++ % 4];
}

const char *shared_path(const char *below)
{
    const char *root = getenv("QUERN_SHARED");
    struct stat st;
    if (!root)
        root = "../shared";
    if (stat(root, &st) != 0)
        return NULL;
    char *path = path_buffer();
    snprintf(path, 4096, "%s/%s", root, below);
    return path;
}

bool same_files(const char *a, const char *b)
{
    size_t a_n = 0, b_n = 1;
    char *a_data = read_whole_file(a, &a_n), *b_data = read_whole_file(b, &b_n);
    bool same = a_data && b_data && a_n == b_n && !memcmp(a_data, b_data, a_n);
    free(a_data);
    free(b_data);
    return same;
}

size_t temps_left(const char *folder)
{
    size_t n = 0;
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && (e = readdir(dir)) != NULL;)
        n += strstr(e->d_name, ".quern-") != NULL;
    if (dir)
        closedir(dir);
    return n;
}

const char *temp_path(const char *name)
{
    if (!getenv("QUERN_TMP")) {
        strcpy(run.folder, "/tmp/quern-test.XXXXXX");
        if (!mkdtemp(run.folder) || setenv("QUERN_TMP", run.folder, 1) != 0)
            abort();
    }
    char *path = path_buffer();
    snprintf(path, 4096, "%s/%s", getenv("QUERN_TMP"), name);
    return path;
}

char *read_whole_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return NULL;
    char *data = NULL;
    size_t used = 0, room = 0, got;
    do {
        if (room - used < 65536) {
            room = room ? room * 2 : 1 << 17;
            data = realloc(data, room);
            if (!data)
                abort();
        }
        got = fread(data + used, 1, room - used - 1, file);
        used += got;
    } while (got > 0);
    fclose(file);
    data[used] = '\0';
    if (size)
        *size = used;
    return data;
}

uint64_t random_u64(uint64_t *state)
{
    uint64_t z = (*state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

float random_float(uint64_t *state, float low, float high)
{
    return low + (high - low) * (float)((double)(random_u64(state) >> 11) / 9007199254740992.0);
}
