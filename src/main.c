#include <stdio.h>

#include "quern.h"

int main(void)
{
    printf("quern %s\n", QUERN_VERSION);
    return 0;
}
