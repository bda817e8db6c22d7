/* Any bytes as a safetensors file: no crash, no leak; what was accepted can be read to its last byte. */
#include "safetensors.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct safetensors s;
    struct quern_error err;
    if (!safetensors_view(&s, data, size, "fuzz", &err))
        return 0;
    unsigned sum = 0;
    size_t bytes = 0;
    for (size_t i = 0; i < s.count; i++) {
        bytes += s.tensors[i].bytes;
        for (size_t k = 0; k < s.tensors[i].bytes; k++)
            sum += s.tensors[i].data[k];
    }
    if (bytes > size || sum == 0xffffffffu)
        abort();
    safetensors_close(&s);
    return 0;
}
