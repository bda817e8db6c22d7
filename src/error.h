/* error.h - how a failure travels, and arithmetic on numbers that came from a file.
 *
 * Library code never prints, exits or asserts on input. A function that can fail takes a `struct quern_error *`
 * (include/quern.h) as its last parameter and returns false (or NULL) after filling it; the message names the thing,
 * the value found and the value allowed. `err` is never NULL. The first error stands: whoever passes it up may put
 * words before it (error_prefix) but does not replace it. */
#ifndef QUERN_ERROR_H
#define QUERN_ERROR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "quern.h"

/* Fill `err` and give false: `return ERR(err, QUERN_EFORMAT, "...", ...)`. */
#define ERR(err, code, ...) error_set((err), (code), __FILE__, __LINE__, __VA_ARGS__)

/* Always false. Text longer than the field is cut and ends in "...". */
bool error_set(struct quern_error *err, enum quern_code code, const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/* The same with errno's sentence after the text: "cannot open 'x': No such file or directory". Code QUERN_EIO. */
bool error_errno(struct quern_error *err, const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
#define ERR_ERRNO(err, ...) error_errno((err), __FILE__, __LINE__, __VA_ARGS__)

/* Put "PREFIX: " before the text of an error already set (a path, usually). Always false. */
bool error_prefix(struct quern_error *err, const char *prefix);

/* *out = a + b, a * b; false, with *out untouched, when the result does not fit. */
static inline bool checked_add(size_t *out, size_t a, size_t b)
{
    size_t sum;
    if (__builtin_add_overflow(a, b, &sum))
        return false;
    *out = sum;
    return true;
}

static inline bool checked_mul(size_t *out, size_t a, size_t b)
{
    size_t product;
    if (__builtin_mul_overflow(a, b, &product))
        return false;
    *out = product;
    return true;
}

/* Round `a` up to a multiple of `to`, a power of two; false when the result does not fit. */
static inline bool checked_align(size_t *out, size_t a, size_t to)
{
    size_t sum;
    if (!checked_add(&sum, a, to - 1))
        return false;
    *out = sum & ~(to - 1);
    return true;
}

/* malloc/calloc that fill `err` (QUERN_EMEM, with `what` and the bytes) and give NULL. count * size is checked; a
 * request for 0 bytes gives a valid pointer. The caller frees with free(). mem_take zeroes. */
void *mem_take(size_t count, size_t size, const char *what, struct quern_error *err);
/* 64-byte aligned, not zeroed; freed with free(). For scratch and tensors that kernels read. */
void *mem_take_aligned(size_t count, size_t size, const char *what, struct quern_error *err);
/* Duplicate `n` bytes of `text` and a closing NUL. */
char *mem_copy_text(const char *text, size_t n, struct quern_error *err);

/* Copy `n` bytes of text from a file to `out` (capacity `size`, at least 8) so that a terminal may show it: control
 * bytes, DEL, C1 controls and invalid UTF-8 become \xNN; a text that does not fit ends in "...". Gives `out`. */
const char *text_escape(char *out, size_t size, const char *text, size_t n);

#endif
