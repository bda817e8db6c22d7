#include "source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "convert.h"
#include "formats.h"

bool source_open(struct source *s, const char *path, const char *output, const volatile int *stop, struct quern_error *err)
{
    struct stat st;
    *s = (struct source){ .path = path };
    if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode))
        return true;
    /* What comes later reads the converted file, and would not know that the output is a part of what it was made from. */
    if (output && !convert_check_output(path, output, err))
        return false;
    const char *folder = getenv("TMPDIR"), *slash = output ? strrchr(output, '/') : NULL, *name = output ? output : "model";
    int prefix = 0;
    if (output) {
        prefix = slash ? (int)(slash - output) + 1 : 0;
        folder = output;
        name = slash ? slash + 1 : output;
    } else {
        folder = folder && *folder ? folder : "/tmp";
        prefix = (int)strlen(folder);
    }
    size_t size = strlen(folder) + strlen(name) + 64;
    s->converted = mem_take(size, 1, "a path", err);
    if (!s->converted)
        return false;
    /* Beside an output the name is fixed: what a killed run left is written over, not left lying. */
    if (output)
        snprintf(s->converted, size, "%.*s.%s.quern-source", prefix, folder, name);
    else
        snprintf(s->converted, size, "%s/.%s.quern-source-%ld", folder, name, (long)getpid());
    struct convert_options how = { .type = FORMAT_COUNT, .force = true, .stop = stop };
    if (!convert_model(path, s->converted, &how, err)) {
        source_close(s);
        return false;
    }
    s->path = s->converted;
    return true;
}

void source_close(struct source *s)
{
    if (s->converted)
        unlink(s->converted);
    free(s->converted);
    *s = (struct source){ 0 };
}

struct quern_model *source_model(const char *path, size_t threads, struct quern_error *err)
{
    struct quern_model_options how = { .threads = threads, .huge_pages = QUERN_HUGE_PAGES_OFF };
    return quern_open_model(path, &how, err);
}
