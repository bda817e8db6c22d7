/* The sampler of a model: sampler.c itself knows no models. */
#include "sampler.h"

#include <stdlib.h>
#include <string.h>

/* Tokens whose text has a line break, a colon, a quotation mark or an asterisk end a repetition, as in other engines. */
static uint8_t *find_breakers(const struct quern_model *model, size_t vocabulary, struct quern_error *err)
{
    uint8_t *bits = mem_take((vocabulary + 7) / 8, 1, "a sampler", err);
    char text[256];
    for (size_t i = 0; bits && i < vocabulary; i++) {
        size_t n = quern_decode_token(model, (int32_t)i, text, sizeof text);
        n = n < sizeof text ? n : sizeof text;
        for (size_t c = 0; c < n; c++)
            if (text[c] && strchr("\n:\"*", text[c]))
                bits[i / 8] |= (uint8_t)(1 << i % 8);
    }
    return bits;
}

struct quern_sampler *quern_open_sampler(const struct quern_model *model, const struct quern_sampler_options *options,
                                         struct quern_error *err)
{
    size_t vocabulary = quern_model_vocabulary(model);
    struct quern_sampler_options defaults;
    uint8_t *breakers = NULL;
    quern_default_sampler(&defaults);
    if (!options)
        options = &defaults;
    if (options->dry_multiplier > 0 && !(breakers = find_breakers(model, vocabulary, err)))
        return NULL;
    struct quern_sampler *s = sampler_open(vocabulary, quern_model_context(model), breakers, options, err);
    free(breakers);
    return s;
}
