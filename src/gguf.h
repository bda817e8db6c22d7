/* gguf.h - a GGUF file as names, values and tensors.
 *
 * gguf_open maps the file (and the further files of a split model), checks every byte of the header against the bytes
 * that are there, and gives views into the mapping: strings and arrays are not copied. After it has succeeded every
 * tensor lies wholly inside its file, has a known type, 1 to 4 dimensions whose product fits size_t, and overlaps no
 * other; every string and array lies inside the metadata. Keys and tensor names are unique.
 *
 * Format: GGUF v2 and v3, little-endian (docs/gguf.md of the ggml project). */
#ifndef QUERN_GGUF_H
#define QUERN_GGUF_H

#include "error.h"
#include "map.h"

enum gguf_type {
    GGUF_U8, GGUF_I8, GGUF_U16, GGUF_I16, GGUF_U32, GGUF_I32, GGUF_F32, GGUF_BOOL, GGUF_STRING, GGUF_ARRAY,
    GGUF_U64, GGUF_I64, GGUF_F64, GGUF_TYPE_COUNT
};

/* Bytes in a file, not NUL-terminated and not necessarily UTF-8. */
struct gguf_string {
    const char *text;
    size_t      n;
};

struct gguf_value {
    enum gguf_type type;
    union {
        uint64_t u;                  /* U8..U64, BOOL                                   */
        int64_t  i;                  /* I8..I64                                         */
        double   f;                  /* F32, F64                                        */
        struct gguf_string string;   /* STRING                                          */
        struct {
            enum gguf_type type;     /* of the elements, never ARRAY                    */
            size_t         n;
            const uint8_t *data;     /* packed little-endian, unaligned; strings as u64 length + bytes */
            size_t         bytes;
        } array;
    } as;
};

struct gguf_kv {
    struct gguf_string key;
    struct gguf_value  value;
    size_t             offset;       /* of the key in the file, for messages */
};

struct gguf_tensor {
    struct gguf_string name;         /* 1 to 63 bytes, no control characters */
    uint32_t           type;         /* a format id of kernels/formats.h */
    uint32_t           dims;         /* 1..4 */
    size_t             shape[4];     /* innermost (contiguous) first; 1 past dims */
    const uint8_t     *data;
    size_t             bytes;
    size_t             offset;       /* of the data in its file */
    uint32_t           part;         /* which file of a split model */
};

/* Where tensors begin: multiples of general.alignment, which readers take to be 32 where the key is absent. */
enum { GGUF_ALIGNMENT = 32 };
/* A power of two from 8 to 65536? */
bool gguf_alignment_ok(uint64_t alignment);

struct gguf_options {
    size_t limit_metadata;           /* bytes of key-value section; 0: 256 MiB */
    bool   allow_aliased;            /* tensors may share bytes */
    bool   header_only;              /* do not open further parts of a split file */
};

struct gguf {
    char               *path;
    uint32_t            version;
    size_t              alignment;
    size_t              kv_count, tensor_count;
    struct gguf_kv     *kvs;         /* in file order */
    struct gguf_tensor *tensors;     /* in file order, part after part */
    struct map         *parts;
    size_t              part_count;
    size_t              data_offset; /* of part 0 */
    size_t              trailing;    /* bytes after the last tensor of the last part: a warning, not an error */
    size_t              gaps;        /* bytes between tensors beyond alignment padding */
    bool                unpadded;    /* the last part ends with its last byte of content, not with padding to the alignment */
    bool                view;        /* the bytes are the caller's (gguf_view) */
    struct gguf_index  *index;       /* name -> position, gguf.c's own */
};

/* `options` may be NULL. QUERN_EFORMAT, QUERN_EUNSUPPORTED (version, byte order, tensor type), QUERN_EIO, QUERN_EMEM; the
 * message begins with the path and names byte offset, key or tensor, found and allowed. On failure nothing is held. */
bool gguf_open(struct gguf *g, const char *path, const struct gguf_options *options, struct quern_error *err);
/* The same from memory that the caller keeps (tests, fuzzing). `name` stands for the path in messages. Further parts of a split
 * file are not looked for, as with header_only. */
bool gguf_view(struct gguf *g, const void *data, size_t size, const char *name, const struct gguf_options *options,
               struct quern_error *err);
void gguf_close(struct gguf *g);

/* NULL when absent. */
const struct gguf_value  *gguf_find(const struct gguf *g, const char *key);
const struct gguf_kv     *gguf_find_kv(const struct gguf *g, const char *key);
const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name);

/* Typed readers. An absent key leaves *out untouched and gives true (set the default first); a key of another type, or
 * whose value does not fit, is QUERN_EFORMAT naming key, expected and found type. Any integer type is accepted where the
 * value fits; f64 where f32 is expected too. */
bool gguf_read_u32(const struct gguf *g, const char *key, uint32_t *out, struct quern_error *err);
bool gguf_read_f32(const struct gguf *g, const char *key, float *out, struct quern_error *err);
bool gguf_read_bool(const struct gguf *g, const char *key, bool *out, struct quern_error *err);
bool gguf_read_string(const struct gguf *g, const char *key, struct gguf_string *out, struct quern_error *err);

/* Elements of arrays. Integers of any width (value checked), floats of either width, bool. False when the element's type is
 * not such or the value does not fit; `i` < n is the caller's promise. */
bool gguf_array_i64(const struct gguf_value *array, size_t i, int64_t *out);
bool gguf_array_f64(const struct gguf_value *array, size_t i, double *out);
/* Walk over an array of strings: start with *cursor = 0, call n times. */
struct gguf_string gguf_array_string(const struct gguf_value *array, size_t *cursor);

const char *gguf_type_name(enum gguf_type type);    /* "u32", "string", "array" ... */
size_t gguf_type_bytes(enum gguf_type type);        /* of a number or bool; 0 for the others */
/* Decode one number or bool from packed[gguf_type_bytes(type)]; and any little-endian unsigned number of n <= 8 bytes. */
void gguf_scalar(struct gguf_value *out, enum gguf_type type, const uint8_t *packed);
uint64_t gguf_little_endian(const uint8_t *p, size_t n);
/* The other way: the low n <= 8 bytes of a number to packed[n]. */
void gguf_pack(uint8_t *packed, uint64_t value, size_t n);
bool gguf_string_is(struct gguf_string s, const char *text);

/* ---- writing (gguf_write.c) ------------------------------------------------------------------------------------
 *
 * A writer collects keys and tensor descriptions, then streams the tensors in order to a temporary file in the target's
 * directory; gguf_writer_commit syncs, renames and syncs the directory. Until then, and after any failure or kill, the
 * target is what it was. When the data begins, free space is checked and the header is read back with gguf_open, so that a
 * file which this library would refuse is refused before the work is done. Any failure removes the temporary file at once; what
 * a killed run left behind (".TARGET.quern-PID-N", no longer locked) is removed by the next writer for the same target. */
struct gguf_writer;

struct gguf_writer_options {
    bool force;                      /* an existing target may be replaced; else QUERN_EUSAGE */
    size_t alignment;                /* 0: what general.alignment says, else 32. The key is added where it is needed */
    uint32_t version;                /* 0: 3 */
    const struct map *inputs;        /* files that the target must not be (same device and inode): QUERN_EUSAGE */
    size_t input_count;
    const char *const *texts;        /* more of them by name, NULLs are passed over (output.h) */
    size_t text_count;
    bool unpadded;                   /* end with the last byte of content, as some files do, not with padding */
    bool resume;                     /* go on where a killed run with the same keys and tensors ended (.TARGET.quern-partial) */
};

/* Checks the directory and the target first; creates the temporary file. */
struct gguf_writer *gguf_writer_open(const char *path, const struct gguf_writer_options *options, struct quern_error *err);
/* Keys, in the order in which they shall stand. The writer copies what it is given. */
bool gguf_writer_value(struct gguf_writer *w, const char *key, size_t key_n, const struct gguf_value *value,
                       struct quern_error *err);
bool gguf_writer_u32(struct gguf_writer *w, const char *key, uint32_t value, struct quern_error *err);
bool gguf_writer_f32(struct gguf_writer *w, const char *key, float value, struct quern_error *err);
bool gguf_writer_bool(struct gguf_writer *w, const char *key, bool value, struct quern_error *err);
bool gguf_writer_text(struct gguf_writer *w, const char *key, const char *value, struct quern_error *err);
bool gguf_writer_array(struct gguf_writer *w, const char *key, enum gguf_type type, const void *packed, size_t n, size_t bytes,
                       struct quern_error *err);
/* All keys of another file, as they stand there. */
bool gguf_writer_keys(struct gguf_writer *w, const struct gguf *g, struct quern_error *err);
/* Describe every tensor before the first byte of data is written. Only name, type, dims and shape are used. */
bool gguf_writer_tensor(struct gguf_writer *w, const struct gguf_tensor *t, struct quern_error *err);
/* The data of the next tensor, whole or in pieces; padding is the writer's business. */
bool gguf_writer_data(struct gguf_writer *w, const void *data, size_t bytes, struct quern_error *err);
/* All tensors of another file: description and data. */
bool gguf_writer_tensors(struct gguf_writer *w, const struct gguf *g, struct quern_error *err);
/* End the description. *standing: tensors, counted from the first, that the file holds already because an earlier run with `resume`
 * and the same header was killed or left; the data that follows is that of the next one. */
bool gguf_writer_begin(struct gguf_writer *w, size_t *standing, struct quern_error *err);
/* With `resume`: the data of a tensor that is complete. */
bool gguf_writer_read(struct gguf_writer *w, size_t tensor, void *data, struct quern_error *err);
/* With `resume`: gguf_writer_close shall not remove what has been written (an interruption, not a failure). */
void gguf_writer_leave(struct gguf_writer *w);
/* Where only the very last step fails (syncing the directory), the error is given although the new file is there, complete. */
bool gguf_writer_commit(struct gguf_writer *w, struct quern_error *err);
/* Removes the temporary file unless committed. NULL is allowed. */
void gguf_writer_close(struct gguf_writer *w);

#endif
