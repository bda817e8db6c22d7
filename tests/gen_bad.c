/* gen_bad FOLDER - write the files of tests/bad_files.c and print one line for each, fields separated by tabs:
 *     row  file  expected exit code  words of the message  what it is */
#include <stdio.h>

#include "bad_files.h"

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: gen_bad FOLDER\n");
        return QUERN_EUSAGE;
    }
    for (size_t i = 0; i < bad_row_count; i++) {
        const struct bad_row *row = &bad_rows[i];
        char path[4096];
        snprintf(path, sizeof path, "%s/%03zu-%s.gguf", argv[1], i, row->id);
        bad_save(row, path);
        printf("%s\t%s\t%d\t%s\t%s\n", row->id, path, row->code, *row->words ? row->words : "-", row->what);
    }
    return 0;
}
