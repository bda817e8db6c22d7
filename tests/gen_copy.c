/* gen_copy - read a GGUF file and write it again, in small pieces: gen_copy [--force] IN OUT. For the tests of the writer. */
#include <stdio.h>
#include <string.h>

#include "copy_gguf.h"

int main(int argc, char **argv)
{
    struct quern_error err;
    bool force = argc > 1 && !strcmp(argv[1], "--force");
    if (argc != 3 + force) {
        fprintf(stderr, "usage: gen_copy [--force] IN OUT\n");
        return QUERN_EUSAGE;
    }
    if (!copy_gguf(argv[1 + force], argv[2 + force], force, 4096, &err)) {
        fprintf(stderr, "gen_copy: %s\n", err.text);
        return (int)err.code;
    }
    return 0;
}
