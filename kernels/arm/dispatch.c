/* dispatch.c - which slots the arm kernels take over, level by level. No kernel code here: it is built for the baseline. */
#include "kernels.h"

void dispatch_arm(struct kernels *table);

void dispatch_arm(struct kernels *table)
{
    (void)table;
}
