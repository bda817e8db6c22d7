/* output.h - a file that appears whole, or not at all.
 *
 * What is written goes to a temporary file in the target's directory; output_commit syncs it, gives it the target's name and syncs
 * the directory. Until then, and after any failure or kill, the target is what it was. A failure removes the temporary file at
 * once; what a killed run left behind (".TARGET.quern-PID-N", no longer locked) is removed by the next one for the same target. */
#ifndef QUERN_OUTPUT_H
#define QUERN_OUTPUT_H

#include "map.h"

struct output {
    char  *path, *directory, *temp;      /* the target with links resolved, where it lies, the file beside it */
    int    fd;                           /* of the temporary file; -1 before and after               */
    bool   force, failed, committed;
    bool   keep;                         /* the temporary file of a run that resumes stays at the end */
    mode_t mode;                         /* of the file that is replaced; 0: none is                 */
};

struct output_options {
    bool force;                          /* an existing target may be replaced; else QUERN_EUSAGE    */
    bool resume;                         /* go on in .TARGET.quern-partial, whatever is there        */
    const struct map *inputs;            /* files that the target must not be (same device and inode): QUERN_EUSAGE */
    size_t input_count;
    const char *const *texts;            /* the same by name, for small files that are not held open; may be NULL each */
    size_t text_count;
};

/* Checks target and directory, and creates the temporary file. output_close frees, also after a failure. */
bool output_open(struct output *o, const char *path, const struct output_options *options, struct quern_error *err);
/* The next n bytes. */
bool output_write(struct output *o, const void *data, size_t n, struct quern_error *err);
/* QUERN_EIO. Where only the very last step fails (syncing the directory), the new file is there, complete. */
bool output_commit(struct output *o, struct quern_error *err);
/* Removes the temporary file unless committed. */
void output_close(struct output *o);

/* For a writer with more to do in the file. Always false, and the temporary file is gone: */
bool output_abandon(struct output *o);
/* "cannot WHAT 'TARGET'" with errno's sentence. */
bool output_error(struct output *o, const char *what, struct quern_error *err);

#endif
