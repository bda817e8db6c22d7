/* csv.h - records of comma-separated values: fields in quotes may hold commas, doubled quotes and line ends. RFC 4180.
 *
 * Lines end in LF or CR LF; empty lines between records are passed over. */
#ifndef QUERN_CSV_H
#define QUERN_CSV_H

#include "arena.h"

enum { CSV_FIELDS = 32 };

struct csv {
    const char *data;        /* begin with {.data, .n, .line = 1, .name} */
    size_t      n, at, line;
    const char *name;        /* the file, for messages */
};

struct csv_record {
    size_t line;             /* where it begins */
    size_t count;            /* fields; 0: the file is over */
    struct csv_field { const char *text; size_t n; } field[CSV_FIELDS];
};

/* The next record, its fields in `arena` with closing NULs. QUERN_EFORMAT for a quote that stays open or stands within a field
 * without quotes, for bytes after a closing quote, and for more fields than CSV_FIELDS; QUERN_EMEM. */
bool csv_next(struct csv *csv, struct csv_record *record, struct arena *arena, struct quern_error *err);

#endif
