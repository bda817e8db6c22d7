/* rope.h - rotary positions: the frequencies of a model and the cosines and sines of a batch.
 *
 * Sources: RoFormer (Su et al. 2021); YaRN (Peng et al. 2023); LongRoPE (Ding et al. 2024); the factors of Llama 3 come as a
 * tensor in the file. */
#ifndef QUERN_ROPE_H
#define QUERN_ROPE_H

#include "model.h"

/* One way to rotate: an angle per position and pair, and the length of the rotated pair. */
struct rope_table {
    size_t  pairs;
    double *frequency;     /* [pairs], radians per position */
    double  magnitude;     /* of cosines and sines */
};

/* Fill `table` (its `frequency` has room for rope.dims / 2) for layers of this kind in a session of `context` tokens. */
void rope_init(struct rope_table *table, const struct rope_hyper *rope, enum rope_table_kind kind, enum rope_local local,
               size_t context);
/* cs: f32 [pairs][2], cosine and sine for one position. */
void rope_angles(float *cs, const struct rope_table *table, size_t pos);

#endif
