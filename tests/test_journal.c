/* A journal gives back what was put in, survives every way of being cut short or damaged, and is locked. */
#include "journal.h"
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[512];
static const char *const keys[2] = { "1111111111111111111111111111111111111111111111111111111111111111",
                                     "2222222222222222222222222222222222222222222222222222222222222222" };

static struct journal *begin(const char *key, bool *again)
{
    struct quern_error err;
    struct journal *j = journal_open(path, &err);
    CHECK(j != NULL, "%s", err.text);
    CHECK(journal_begin(j, key, again, &err), "%s", err.text);
    return j;
}

/* Three records; how many of them a journal still has. */
static void fill(struct journal *j)
{
    struct quern_error err;
    for (int i = 0; i < 3; i++) {
        double values[4] = { i, 2 * i, 0.5, 7 };
        char name[24];
        snprintf(name, sizeof name, "record %d", i);
        CHECK(journal_add(j, name, values, sizeof values, &err), "%s", err.text);
    }
}

static int count(struct journal *j)
{
    int n = 0;
    for (int i = 0; i < 3; i++) {
        double values[4];
        char name[24];
        snprintf(name, sizeof name, "record %d", i);
        if (journal_find(j, name, values, sizeof values)) {
            CHECK(values[0] == i && values[1] == 2 * i && values[3] == 7, "record %d: %g %g", i, values[0], values[1]);
            n++;
        }
    }
    return n;
}

static void test_there_and_back(void)
{
    bool again;
    double values[4], other[4] = { 9, 9, 9, 9 };
    struct quern_error err;
    struct journal *j = begin(keys[0], &again);
    CHECK(!again && count(j) == 0, "a new journal");
    fill(j);
    CHECK(count(j) == 3, "%d of 3 at once", count(j));
    journal_close(j, true);
    j = begin(keys[0], &again);
    CHECK(again && count(j) == 3, "%d of 3 later", count(j));
    CHECK(!journal_find(j, "record 1", values, 8) && !journal_find(j, "record 7", values, 8), "another size, another name");
    CHECK(journal_add(j, "record 1", other, sizeof other, &err) && journal_find(j, "record 1", values, sizeof values) &&
          values[0] == 9, "the newest counts");
    journal_close(j, true);
    j = begin(keys[1], &again);
    CHECK(!again && count(j) == 0, "another key finds nothing");
    journal_close(j, false);
    CHECK(access(path, F_OK) != 0, "removed");
}

/* Every length and every byte: what stands before the damage is there, nothing wrong is. */
static void test_damage(void)
{
    bool again;
    struct journal *j = begin(keys[0], &again);
    struct stat st;
    char *whole;
    fill(j);
    journal_close(j, true);
    CHECK(stat(path, &st) == 0, "stat");
    size_t size = (size_t)st.st_size;
    whole = malloc(size);
    FILE *f = fopen(path, "rb");
    CHECK(whole && f && fread(whole, 1, size, f) == size, "read");
    fclose(f);
    for (size_t at = 0; at < 2 * size; at++) {
        f = fopen(path, "wb");
        if (at >= size)
            whole[at - size] ^= 0x40;
        fwrite(whole, 1, at < size ? at : size, f);
        if (at >= size)
            whole[at - size] ^= 0x40;
        fclose(f);
        j = begin(keys[0], &again);
        int n = count(j);
        CHECK(n < 3, "damage at %zu of %zu: all records", at % size, size);
        CHECK(!again || (stat(path, &st) == 0 && (size_t)st.st_size <= at % size), "damage at %zu stays in the file", at % size);
        fill(j);
        CHECK(count(j) == 3, "after damage at %zu: %d records can be added", at % size, count(j));
        journal_close(j, true);
    }
    free(whole);
    unlink(path);
}

static void test_lock(void)
{
    bool again;
    struct quern_error err;
    struct journal *j = begin(keys[0], &again);
    CHECK(!journal_open(path, &err) && err.code == QUERN_EUSAGE, "a second one is refused");
    journal_close(j, false);
    CHECK(journal_add(NULL, "x", "y", 1, &err) && !journal_find(NULL, "x", &again, 1) && journal_begin(NULL, keys[0], &again, &err),
          "no journal");
    journal_close(NULL, false);
}

int main(void)
{
    snprintf(path, sizeof path, "%s", temp_path("journal"));
    TEST(test_there_and_back);
    TEST(test_damage);
    TEST(test_lock);
    return test_end();
}
