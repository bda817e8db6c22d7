/* The sampler's options, shared by the verbs that draw tokens. */
#include <stdlib.h>
#include <string.h>

#include "cmd_engine.h"

#define OFFSET(field) offsetof(struct sampling_args, options.field)
#define REAL(flag, field, def, text)                                                                                               \
    {                                                                                                                              \
        .name = flag, .kind = OPTION_REAL, .offset = OFFSET(field), .arg = "X", .fallback = def, .help = text                      \
    }
#define WHOLE(flag, field, def, text)                                                                                              \
    {                                                                                                                              \
        .name = flag, .kind = OPTION_INT, .offset = OFFSET(field), .arg = "N", .fallback = def, .help = text                       \
    }

/* Defaults are those of quern_default_sampler (a test compares). */
const struct option sampling_options[] = {
    REAL("temp", temperature, "0.8", "temperature; 0: always the most likely token"),
    WHOLE("top-k", top_k, "40", "choose among the N most likely tokens; 0: among all"),
    REAL("top-p", top_p, "0.95", "choose among the fewest tokens that together have this probability; 1: off, 0: one token"),
    REAL("min-p", min_p, "0.05", "drop tokens with less than this share of the most likely one's probability; 0: off"),
    REAL("typical", typical_p, "1", "locally typical sampling, the probability to keep; 1: off"),
    REAL("repeat-penalty", repeat_penalty, "1", "divide (multiply, when negative) the logits of recent tokens by this; 1: off"),
    REAL("frequency-penalty", frequency_penalty, "0", "take this from a logit for each recent occurrence; 0: off"),
    REAL("presence-penalty", presence_penalty, "0", "take this from the logit of each recent token; 0: off"),
    WHOLE("repeat-last-n", penalty_last_n, "64", "how many tokens are recent for the penalties; -1: the whole context, 0: none"),
    REAL("dry-multiplier", dry_multiplier, "0", "DRY: strength of the penalty for prolonging a repetition; 0: off"),
    REAL("dry-base", dry_base, "1.75", "DRY: growth of the penalty per repeated token"),
    WHOLE("dry-allowed-length", dry_allowed_length, "2", "DRY: repetitions shorter than this are free"),
    WHOLE("dry-last-n", dry_last_n, "-1", "DRY: tokens looked back; -1: the whole context, 0: none"),
    {.name = "seed", .letter = 's', .kind = OPTION_SEED, .offset = OFFSET(seed), .arg = "N", .fallback = "0",
     .help = "start of the random numbers; the same seed gives the same text; 'random' takes one from the system"},
    {.name = "logit-bias", .kind = OPTION_TEXTS, .offset = offsetof(struct sampling_args, bias), .arg = "ID=X",
     .help = "add X to the logit of token ID; '-inf' forbids it; may be given many times"},
    {0}
};

static bool parse_bias(const char *word, struct quern_logit_bias *out, struct quern_error *err)
{
    char *end;
    long long id = strtoll(word, &end, 10);
    /* ID=X; also ID+X and ID-X, as llama.cpp writes it. */
    const char *value = *end == '=' ? end + 1 : end;
    bool digits = end != word && (*end == '=' || *end == '+' || *end == '-') && id >= 0 && id <= INT32_MAX;
    out->token = (int32_t)id;
    if (digits && strcmp(value, "-inf") == 0) {
        out->bias = -__builtin_inff();
        return true;
    }
    out->bias = strtof(value, &end);
    if (digits && end != value && !*end && *value && strchr("+-.0123456789", *value) && !strpbrk(value, "nNxX"))
        return true;
    return ERR(err, QUERN_EUSAGE, "--logit-bias: '%s' is not of the form ID=X", word);
}

/* What the model's maker recommends, unless the user said otherwise. */
static bool take_recommended(struct quern_sampler_options *o, const struct verb *verb, const void *settings, const struct gguf *g,
                             const char **from_model, size_t *count, struct quern_error *err)
{
    static const struct { const char *key, *flag; size_t offset; bool whole; } keys[] = {
        {"general.sampling.temp", "temp", offsetof(struct quern_sampler_options, temperature), false},
        {"general.sampling.top_k", "top-k", offsetof(struct quern_sampler_options, top_k), true},
        {"general.sampling.top_p", "top-p", offsetof(struct quern_sampler_options, top_p), false},
        {"general.sampling.min_p", "min-p", offsetof(struct quern_sampler_options, min_p), false},
        {"general.sampling.penalty_last_n", "repeat-last-n", offsetof(struct quern_sampler_options, penalty_last_n), true},
        {"general.sampling.penalty_repeat", "repeat-penalty", offsetof(struct quern_sampler_options, repeat_penalty), false},
    };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        char *field = (char *)o + keys[i].offset;
        const struct gguf_value *v = gguf_find(g, keys[i].key);
        if (!v || options_given(verb, settings, keys[i].flag))
            continue;
        if (keys[i].whole && (v->type == GGUF_I32 || v->type == GGUF_I64 || v->type == GGUF_I16 || v->type == GGUF_I8)) {
            if (v->as.i < INT32_MIN || v->as.i > INT32_MAX)
                return ERR(err, QUERN_EFORMAT, "key '%s': %lld is out of range", keys[i].key, (long long)v->as.i);
            *(int32_t *)field = (int32_t)v->as.i;
        } else if (keys[i].whole) {
            uint32_t value = 0;
            if (!gguf_read_u32(g, keys[i].key, &value, err))
                return false;
            *(int32_t *)field = value > INT32_MAX ? INT32_MAX : (int32_t)value;
        } else if (!gguf_read_f32(g, keys[i].key, (float *)field, err)) {
            return false;
        }
        from_model[(*count)++] = keys[i].flag;
    }
    return true;
}

bool sampling_settle(struct sampling_args *s, const struct verb *verb, const void *settings, const struct gguf *g,
                     struct quern_logit_bias **bias, const char **from_model, size_t *count, struct quern_error *err)
{
    *count = 0;
    *bias = mem_take(s->bias.count, sizeof **bias, "logit biases", err);
    if (!*bias)
        return false;
    for (size_t i = 0; i < s->bias.count; i++)
        if (!parse_bias(s->bias.items[i], &(*bias)[i], err))
            return false;
    s->options.bias = *bias;
    s->options.bias_count = s->bias.count;
    return take_recommended(&s->options, verb, settings, g, from_model, count, err);
}
