/* allocate.h - one of several sizes for each of many things, so that the sum of losses is least and the sum of sizes within a
 * budget.
 *
 * A price per byte is searched by bisection: at each price everything takes the choice with the least loss + price * bytes; the
 * highest total that fits is then filled up greedily with the step that saves the most loss per byte. Within one step of the
 * optimum, and exact on the convex hull. */
#ifndef QUERN_ALLOCATE_H
#define QUERN_ALLOCATE_H

#include "error.h"

struct allocate_choice { size_t bytes; double loss; };
struct allocate_item {
    const struct allocate_choice *choices;      /* [count], any order */
    size_t                        count;        /* >= 1 */
    size_t                        chosen;       /* the result */
};

/* QUERN_EUSAGE when even the smallest choices exceed the budget: `least` (may be NULL) gets their sum, also on success. */
bool allocate(struct allocate_item *items, size_t count, size_t budget, size_t *least, struct quern_error *err);
size_t allocate_bytes(const struct allocate_item *items, size_t count);
double allocate_loss(const struct allocate_item *items, size_t count);

#endif
