/* The same loops for AVX2. No FMA: the Makefile forbids contraction, and the bytes must be lanes_plain's. */
#include "lanes_loops.h"

const struct lanes *lanes_avx2(void)
{
    return &loops;
}
