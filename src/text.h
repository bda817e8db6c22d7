/* text.h - text that grows: what the verbs print, files' headers before they are written, JSON on its way out.
 *
 * Additions do not report: where memory ended, `failed` is set and what follows does nothing, so the writer asks once, at the
 * end. Formats are the C locale's, whatever the user's language is. json.h reads what the JSON functions here write. */
#ifndef QUERN_TEXT_H
#define QUERN_TEXT_H

#include <stdbool.h>
#include <stddef.h>

struct text {                     /* begin with {0}, end with text_free */
    char  *data;                  /* NUL-terminated once something was added; NULL before */
    size_t n, capacity;           /* bytes, without the NUL; of the allocation */
    bool   failed;                /* out of memory */
};

void text_add(struct text *t, const char *data, size_t n);
void text_addf(struct text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A JSON string, "..." with escapes; invalid UTF-8 becomes U+FFFD. */
void text_add_json(struct text *t, const char *data, size_t n);
/* A JSON number: the shortest decimal that reads back as the same double, or as the same float when the value is one (0.1f gives
 * 0.1); whole numbers below 2^53 in full; null for NaN and Inf. */
void text_add_number(struct text *t, double value);
void text_free(struct text *t);

#endif
