/* Weights into huge pages: the bytes under the readers' pointers must stay what they are, whenever a piece is moved. */
#include "test.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "settle.h"

enum { BYTES = (37 << 20) + 4097 };      /* two whole pieces, a part of one, and what is less than a huge page */

/* Byte i of the test's file: any place differs from its neighbours and from the same place in other pages. */
static uint8_t expected(size_t i)
{
    uint32_t x = (uint32_t)(i / 8) * 2654435761u;
    return (uint8_t)(x >> (i % 8 * 3));
}

/* Written in small pieces, so that the page cache holds it in small pages. */
static const char *make_file(void)
{
    const char *path = temp_path("settle.bin");
    FILE *f = fopen(path, "wb");
    uint8_t piece[4096];
    CHECK(f != NULL, "%s", path);
    for (size_t at = 0; f && at < BYTES; at += sizeof piece) {
        size_t n = BYTES - at < sizeof piece ? BYTES - at : sizeof piece;
        for (size_t i = 0; i < n; i++)
            piece[i] = expected(at + i);
        fwrite(piece, 1, n, f);
    }
    if (f)
        fclose(f);
    return path;
}

static size_t wrong_bytes(const struct map *map, size_t from, size_t step)
{
    size_t wrong = 0;
    for (size_t i = from; i < map->size; i += step)
        wrong += map->data[i] != expected(i);
    return wrong;
}

struct reader { const struct map *map; atomic_bool *end; size_t wrong, rounds; pthread_t id; };

static void *read_on(void *arg)
{
    struct reader *r = arg;
    do {
        r->wrong += wrong_bytes(r->map, r->rounds % 61, 61);
        r->rounds++;
    } while (!atomic_load(r->end));
    return NULL;
}

/* Three readers go over the map all the time while it is settled. */
static void test_readers_see_the_same(void)
{
    const char *path = make_file();
    struct quern_error err;
    struct map map;
    atomic_bool end = false;
    struct reader readers[3];
    size_t copied, huge;
    CHECK(map_open(&map, path, &err), "%s", err.text);
    const uint8_t *data = map.data;
    for (int i = 0; i < 3; i++) {
        readers[i] = (struct reader){ .map = &map, .end = &end };
        CHECK(pthread_create(&readers[i].id, NULL, read_on, &readers[i]) == 0, "thread %d", i);
    }
    struct settle *s = settle_start(&map, 1, SETTLE_ON);
    settle_wait(s);
    atomic_store(&end, true);
    for (int i = 0; i < 3; i++) {
        pthread_join(readers[i].id, NULL);
        CHECK(readers[i].wrong == 0 && readers[i].rounds > 0, "reader %d: %zu wrong bytes", i, readers[i].wrong);
    }
    huge = settle_huge(s, &copied);
    CHECK(map.data == data && wrong_bytes(&map, 0, 1) == 0, "the file's bytes changed");
    CHECK(copied <= huge && huge <= BYTES, "%zu copied, %zu huge of %d", copied, huge, BYTES);
    if (s && copied == 0)
        test_skip("copies", "no huge pages are to be had here");
    else
        CHECK(!s || huge >= BYTES - (4u << 20), "%zu of %d in huge pages", huge, BYTES);
    settle_stop(s);
    map_close(&map);
    remove(path);
}

/* Bytes of the map that are the file itself still, as the system tells it; the whole map where it does not. */
static size_t bytes_of_file(const struct map *map)
{
    FILE *f = fopen("/proc/self/maps", "r");
    char line[4096];
    size_t sum = 0;
    uintptr_t begin = (uintptr_t)map->data, end = begin + map->size;
    while (f && fgets(line, sizeof line, f)) {
        unsigned long long from, to;
        if (strstr(line, "settle.bin") && sscanf(line, "%llx-%llx", &from, &to) == 2 && from < end && to > begin)
            sum += (size_t)((to < end ? to : end) - (from > begin ? from : begin));
    }
    if (!f || fclose(f) != 0)
        return map->size;
    return sum;
}

/* Stopped at any moment, what was done stays and the rest is the file; nothing is unmapped that others took meanwhile, also in the
 * places that moved pieces leave free. Where pieces are copied, a stop at once comes before
 * the last of three. */
static void test_stop_at_any_time(void)
{
    enum { OTHERS = 12, OTHER_BYTES = 2 << 20 };
    const char *path = make_file();
    struct quern_error err;
    for (unsigned delay = 0; delay < OTHERS; delay++) {
        struct map map;
        uint8_t *others[OTHERS];
        CHECK(map_open(&map, path, &err), "%s", err.text);
        struct settle *s = settle_start(&map, 1, SETTLE_ON);
        for (unsigned i = 0; i < delay; i++) {
            usleep(1500);
            others[i] = mmap(NULL, OTHER_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (others[i] != MAP_FAILED)
                others[i][0] = others[i][OTHER_BYTES - 1] = 7;
        }
        settle_stop(s);
        CHECK(wrong_bytes(&map, delay, 127) == 0, "after %u", delay);
        CHECK(delay || bytes_of_file(&map) >= BYTES / 4, "all was done before the stop: %zu bytes left", bytes_of_file(&map));
        for (unsigned i = 0; i < delay; i++)
            if (others[i] != MAP_FAILED) {
                CHECK(others[i][0] == 7 && others[i][OTHER_BYTES - 1] == 7, "another's memory");
                munmap(others[i], OTHER_BYTES);
            }
        map_close(&map);
    }
    remove(path);
}

/* A file that is cut short meanwhile: the thread must not fall over it. Readers that touch the lost pages would get SIGBUS, as
 * without it; nobody reads here. */
static void test_cut_short(void)
{
    const char *path = make_file();
    struct quern_error err;
    struct map map;
    CHECK(map_open(&map, path, &err), "%s", err.text);
    CHECK(truncate(path, 1 << 20) == 0, "truncate");
    struct settle *s = settle_start(&map, 1, SETTLE_ON);
    settle_wait(s);             /* a stop at once may come before the thread has looked */
    settle_stop(s);
    map_close(&map);
    remove(path);
}

/* What is small, off, or not a mapping is left alone. */
static void test_nothing_to_do(void)
{
    const char *path = make_file();
    struct quern_error err;
    struct map map, heap = { .data = (const uint8_t *)"abc", .size = 3, .heap = true };
    CHECK(map_open(&map, path, &err), "%s", err.text);
    CHECK(settle_start(&map, 1, SETTLE_OFF) == NULL, "off");
    CHECK(settle_start(&map, 1, SETTLE_AUTO) == NULL, "37 MiB are little");
    CHECK(settle_start(&heap, 1, SETTLE_ON) == NULL, "heap");
    CHECK(settle_start(NULL, 0, SETTLE_ON) == NULL, "no maps");
    settle_wait(NULL);
    settle_stop(NULL);
    map_close(&map);
    remove(path);
}

static void put_text(const char *root, const char *folder, const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s%s", root, folder);
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%s%s/%s", root, folder, name);
    FILE *f = fopen(path, "w");
    CHECK(f != NULL, "%s", path);
    if (f) {
        fputs(text, f);
        fclose(f);
    }
}

/* Twice the bytes must be free, beside an eighth of all that this process may have. Nothing is copied where the system does not say
 * how much is. */
static void test_affordable(void)
{
    char root[256];
    snprintf(root, sizeof root, "%s", temp_path("settle_root"));
    mkdir(root, 0700);
    CHECK(!settle_affordable(1, root), "nothing known");
    put_text(root, "/proc", "meminfo", "MemTotal: 9000000 kB\nMemFree: 10 kB\nMemAvailable:    2048 kB\n");
    CHECK(settle_affordable(1024 * 1024, root), "half of it");
    CHECK(!settle_affordable(1024 * 1024 + 1, root), "more than half");
    CHECK(!settle_affordable(SIZE_MAX, root), "all there is");
    put_text(root, "/proc", "meminfo", "MemTotal: 9000000 kB\n");
    CHECK(!settle_affordable(4096, root), "an old kernel");
    /* A group of 8 MiB on a machine with more: half of 7 MiB. */
    put_text(root, "/proc/self", "cgroup", "0::/\n");
    put_text(root, "/sys", "none", "");
    put_text(root, "/sys/fs", "none", "");
    put_text(root, "/sys/fs/cgroup", "memory.max", "8388608\n");
    put_text(root, "/proc", "meminfo", "MemTotal: 9000000 kB\nMemAvailable: 100000 kB\n");
    CHECK(settle_affordable(7 << 19, root), "half of seven eighths");
    CHECK(!settle_affordable((7 << 19) + 1, root), "more than that");
    put_text(root, "/proc", "meminfo", "MemTotal: 9000000 kB\nMemAvailable: 1023 kB\n");
    CHECK(!settle_affordable(1, root), "less than an eighth is free");
}

int main(void)
{
    TEST(test_readers_see_the_same);
    TEST(test_stop_at_any_time);
    TEST(test_cut_short);
    TEST(test_nothing_to_do);
    TEST(test_affordable);
    return test_end();
}
