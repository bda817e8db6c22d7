/* workplace.h - the hidden files of a run beside its output, and which of them a later run may use.
 *
 *     .OUT.quern-journal    results of finished steps (journal.h); its lock keeps a second run for the same output away
 *     .OUT.quern-stats      second moments of the calibration text
 *     .OUT.quern-rounded    the file before its receipt
 *     .OUT.quern-plain      the file to compare with (compare.h)
 *     .OUT.quern-source     a checkpoint's folder as one file (source.h)
 *
 * Their names are fixed, so the run after a kill -9 finds them: with the same key it goes on where the other ended, with another
 * it begins anew over them. A run that ends, well or with an error, removes them; one that was interrupted leaves them. */
#ifndef QUERN_WORKPLACE_H
#define QUERN_WORKPLACE_H

#include "journal.h"
#include "sha256.h"

struct workplace {
    struct journal *journal;
    char *stats, *rounded, *plain;   /* paths */
    bool  again;                 /* an earlier run with the same key left its journal */
    bool  keep;                  /* leave everything for another run */
};

/* Names and lock. QUERN_EIO: the folder cannot be written to; QUERN_EUSAGE: another run is at it. */
bool workplace_open(struct workplace *w, const char *output, struct quern_error *err);
/* `key`: the hash of everything that results depend on. What an earlier run with another key left is removed. */
bool workplace_begin(struct workplace *w, const char *key, struct quern_error *err);
void workplace_close(struct workplace *w);

/* Is there room for `needed` more bytes where the output will stand? What an earlier run left of the same work counts as there
 * already. QUERN_EIO tells both figures. Where the file system does not say, the answer is yes. */
bool workplace_space(const struct workplace *w, const char *output, size_t needed, struct quern_error *err);

/* A file of ours is finished: note its size, time and inode under `record`. */
bool workplace_finished(struct workplace *w, const char *record, const char *path, struct quern_error *err);
/* Is the file still the one that was noted? */
bool workplace_has(struct workplace *w, const char *record, const char *path);

/* Add what tells a file from another (path, size, time, inode) to a hash, and all files of a folder; one that is missing adds
 * that. */
void workplace_hash_file(struct sha256 *h, const char *path);
void workplace_hash_folder(struct sha256 *h, const char *path);

#endif
