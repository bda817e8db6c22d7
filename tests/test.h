/* test.h - what the test programs share: counting, and one closing line that tests/suite.sh adds up.
 *
 * A test program calls TEST(name) for each of its cases and returns test_end(). A CHECK that fails prints file, line and the
 * message, and marks the current case as failed; the case goes on. */
#ifndef QUERN_TEST_H
#define QUERN_TEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Run `static void name(void)` as one case. */
#define TEST(name) (test_begin(#name), name(), test_finish())
/* For cases made by a table: begin, check, finish. */
void test_begin(const char *name, ...) __attribute__((format(printf, 1, 2)));
void test_finish(void);

#define CHECK(condition, ...) ((condition) ? (void)0 : test_fail(__FILE__, __LINE__, #condition, __VA_ARGS__))
void test_fail(const char *file, int line, const char *condition, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Count `name` as skipped and say why (a missing tool, missing vectors): never silently. */
void test_skip(const char *name, const char *why);

/* Is this a build with AddressSanitizer? For cases that take minutes there and read and write what others do. */
bool test_sanitized(void);

/* Print "N passed, N failed, N skipped"; 0 when nothing failed. */
int test_end(void);

/* Path below ../shared (or $QUERN_SHARED), in a static buffer of four; NULL when that folder is not there. */
const char *shared_path(const char *below);
/* A whole file; malloc'ed, with a NUL after it. NULL when it cannot be read. */
char *read_whole_file(const char *path, size_t *size);
/* Do two files hold the same bytes? False when one cannot be read. */
bool same_files(const char *a, const char *b);
/* Temporary files of quern's writers in `folder`. */
size_t temps_left(const char *folder);
/* Path in this run's temporary folder, in a static buffer of four: $QUERN_TMP or, where there is none, a new one in /tmp, which
 * test_end removes. */
const char *temp_path(const char *name);

/* A small, seeded generator (splitmix64), so that every test is repeatable. */
uint64_t random_u64(uint64_t *state);
float random_float(uint64_t *state, float low, float high);

#endif
