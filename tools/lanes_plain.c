/* The loops for what every processor of this family has. */
#include "lanes_loops.h"

const struct lanes *lanes_plain(void)
{
    return &loops;
}
