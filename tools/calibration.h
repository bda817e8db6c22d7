/* calibration.h - text to show a model, and its tokens in chunks.
 *
 * Three texts come with the program, so that no file is needed; the user may name others. models/CALIBRATION.md says what they are.
 * No paragraph stands in two of them: what the receipt is measured on has decided nothing. */
#ifndef QUERN_CALIBRATION_H
#define QUERN_CALIBRATION_H

#include "map.h"
#include "model.h"

enum calibration_part {
    CALIBRATION_FIT,        /* calibration.txt: statistics, the plan, what tuning learns from */
    CALIBRATION_HELDOUT,    /* heldout.txt: the receipt                                       */
    CALIBRATION_STOP,       /* stop.txt: which state of the tuning is the best                */
};

struct calibration {
    const char *name;          /* the file's name without folders, or "quern's own" */
    const char *text;          /* [bytes] */
    size_t      bytes;
    struct map  map;           /* of a file; size 0 for the texts inside the program */
    int32_t    *tokens;        /* [count], of the model at hand */
    size_t      count;
    size_t      chunk;         /* tokens of a chunk; count is a multiple of it */
};

/* `path` NULL: the text inside the program. Tokens are cut into chunks of `chunk`, whose first is replaced by the beginning token
 * where the model has that habit; what does not fill a chunk is left out. QUERN_EUSAGE for a text of less than one chunk, of
 * one token over and over, or with a NUL in it, naming the count. */
bool calibration_open(struct calibration *c, const char *path, enum calibration_part part, const struct quern_model *model,
                      size_t chunk, struct quern_error *err);
void calibration_close(struct calibration *c);

/* The text to learn from, and the one to judge by, which must be another: QUERN_EUSAGE `same` where both have the same bytes. Close
 * both, also after a failure. */
bool calibration_open_two(struct calibration *fit, const char *fit_path, struct calibration *judge, const char *judge_path,
                          enum calibration_part part, const struct quern_model *model, size_t chunk, const char *same,
                          struct quern_error *err);
/* Only whether they could be opened. */
bool calibration_possible(const char *fit_path, const char *judge_path, enum calibration_part part, const struct quern_model *model,
                          size_t chunk, const char *same, struct quern_error *err);

#endif
