/* journal.h - results of expensive steps, kept beside the output so that a run that was killed can be taken up again.
 *
 * A file of named records that only grows. Every step of a run is a function of the command and its files, so a record of an
 * earlier run with the same key is as good as doing the step again: the same bytes come out. Each record carries a checksum; what
 * follows a record that is cut short or damaged is dropped. Nothing is synced: kill -9 loses nothing that was written, a power cut
 * loses the tail.
 * The functions take NULL for a run without a journal: nothing is found, nothing kept. */
#ifndef QUERN_JOURNAL_H
#define QUERN_JOURNAL_H

#include "error.h"

struct journal;

/* Open or create, and lock: QUERN_EUSAGE when another process works with it. */
struct journal *journal_open(const char *path, struct quern_error *err);
/* `key`: 64 hexadecimal digits that stand for everything that results depend on. Records under another key are dropped. *again: an
 * earlier run with this key was here. */
bool journal_begin(struct journal *j, const char *key, bool *again, struct quern_error *err);
/* The record's bytes into data; false when there is none of this name and size. */
bool journal_find(struct journal *j, const char *name, void *data, size_t bytes);
/* Names are at most 200 bytes; the newest record of a name counts. */
bool journal_add(struct journal *j, const char *name, const void *data, size_t bytes, struct quern_error *err);
/* `keep`: the file stays, for another run. */
void journal_close(struct journal *j, bool keep);

#endif
