/* dispatch.c - which slots the x86 kernels take over, level by level. No kernel code here: it is built for the baseline. */
#include "kernels.h"

void dispatch_x86(struct kernels *table);

void dispatch_x86(struct kernels *table)
{
    (void)table;
}
