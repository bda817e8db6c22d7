/* bad_files.h - the rows of sections A and B of the list of bad inputs, each a maker of one GGUF file.
 *
 * Nearly every row is one small valid file with one to three fields patched, so the table is the documentation. gen_bad writes
 * them to a folder (test_bad.sh gives them to the program), test_bad.c gives them to gguf_open. */
#ifndef QUERN_BAD_FILES_H
#define QUERN_BAD_FILES_H

#include "bytes.h"
#include "quern.h"

/* Fields of the small file; the value's width in the file is in bad_files.c. */
enum bad_field {
    FIELD_NONE, VERSION, TENSORS, KEYS, KEY_LENGTH, KEY_TEXT, VALUE_TYPE, BOOL_VALUE, STRING_LENGTH, ARRAY_TYPE, ARRAY_COUNT,
    LIST_COUNT, ALIGNMENT_TYPE, ALIGNMENT, NAME_LENGTH, NAME_TEXT, DIMS, SHAPE_0, SHAPE_1, SHAPE_2, TYPE, OFFSET, FIRST_SHAPE,
    LAST_SHAPE, LAST_OFFSET, FIELD_COUNT
};

struct bad_patch { enum bad_field field; uint64_t value; };

struct bad_row {
    const char *id, *what;
    struct bad_patch patch[3];
    void (*make)(struct bytes *b, uint64_t argument);   /* instead of patches, where they do not reach */
    uint64_t argument;
    enum quern_code code;                               /* of gguf_open and `quern show` */
    const char *words;                                  /* that the message must contain */
    uint64_t extend;                                    /* the file is made this long (sparse); 0: not */
};

extern const struct bad_row bad_rows[];
extern const size_t bad_row_count;

/* The small valid file, and where its data section begins. */
void bad_base(struct bytes *b, size_t *data_offset);
/* Write the file of a row. */
void bad_save(const struct bad_row *row, const char *path);

#endif
