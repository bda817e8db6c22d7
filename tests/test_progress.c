/* Progress where stderr is no terminal: nothing of short work, a plain line per tenth of long work. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "test.h"

/* What the steps 0, 1/100, ... 1 of work that began so many seconds ago put on stderr. */
static size_t said(char *out, size_t size, double seconds)
{
    FILE *file = tmpfile();
    int before = dup(2);
    struct progress p;
    size_t n = 0;
    out[0] = '\0';
    CHECK(file && before >= 0, "a file in the place of stderr");
    if (!file || before < 0)
        return 0;
    fflush(stderr);
    dup2(fileno(file), 2);
    progress_begin(&p, "grinding");
    p.begin -= seconds;
    for (int i = 0; i <= 100; i++)
        progress_show(&p, i / 100.0);
    progress_end(&p);
    dup2(before, 2);
    close(before);
    rewind(file);
    n = fread(out, 1, size - 1, file);
    out[n] = '\0';
    fclose(file);
    return n;
}

static void test_short_work(void)
{
    char out[2000];
    CHECK(said(out, sizeof out, 0) == 0, "%s", out);
}

static void test_long_work(void)
{
    char out[2000];
    size_t lines = 0;
    said(out, sizeof out, 100);
    for (const char *at = out; (at = strchr(at, '\n')); at++)
        lines++;
    CHECK(lines == 12 && !strpbrk(out, "\r\033"), "a line per tenth begun, one at the end: %zu of 12\n%s", lines, out);
    CHECK(!strncmp(out, "grinding: 0 %\ngrinding: 10 %, about 15:", 38), "%s", out);
    CHECK(strstr(out, "grinding: 100 %\ngrinding: ended after 1:4"), "%s", out);
}

int main(void)
{
    TEST(test_short_work);
    TEST(test_long_work);
    return test_end();
}
