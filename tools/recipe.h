/* recipe.h - a plan as a file to read, edit and use again: JSON, one line per tensor.
 *
 *     {"quern_recipe": 1, "source": "model.gguf", "predicted": 0.03, "measured": 0.031, "feedback": true,
 *      "tensors": {
 *       "blk.0.attn_q.weight": {"type": "Q4_K", "loss": {"Q3_K": 0.0012, "Q4_K": 0.0003}},
 *       ...}}
 *
 * `type` is what the tensor gets; `loss` the predicted KL, in nats per token, of each type that it could have, rounded
 * with error feedback or without. Used again without a size the types count, with one the losses. A tensor may be given as
 * "name": "TYPE" alone. */
#ifndef QUERN_RECIPE_H
#define QUERN_RECIPE_H

#include "plan.h"

/* The file appears whole or not at all. QUERN_EUSAGE: it exists, or is the model; QUERN_EIO. */
bool recipe_write(const struct plan *p, const char *path, const char *source, bool force, struct quern_error *err);
/* Types and losses into a plan from plan_init. *measured: every type of every tensor has a loss. QUERN_EFORMAT: no recipe, a tensor
 * of the plan is missing, a type that it cannot have; names that the model lacks are errors too. */
bool recipe_read(struct plan *p, const char *path, bool *measured, struct quern_error *err);

#endif
