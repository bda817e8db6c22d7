/* preset.h - which tensor gets which type under llama.cpp's names for whole-file mixes (Q4_K_M, IQ3_XXS, ...).
 *
 * The mixes are facts of llama.cpp's llama-quantize (mainline of August 2026): files made here under the same name have the same
 * type in every tensor, so that sizes and losses can be compared like for like. */
#ifndef QUERN_PRESET_H
#define QUERN_PRESET_H

#include <regex.h>

#include "formats.h"
#include "gguf.h"

struct preset {
    const char *name;
    uint32_t    file_type;       /* general.file_type of the result */
    uint32_t    base;            /* format of most tensors          */
};

/* By name, letter case ignored; NULL when unknown. */
const struct preset *preset_find(const char *name);
/* The i-th; NULL past the last. */
const struct preset *preset_at(size_t i);

/* The user's words: tensors whose name matches the extended regular expression (anywhere in the name) get the format. The first
 * rule that matches counts. */
struct type_rule {
    regex_t     pattern;
    const char *text;
    uint32_t    format;
};
/* "REGEX=TYPE". QUERN_EUSAGE names what is wrong. Freed with regfree(&rule->pattern). */
bool type_rule_parse(struct type_rule *rule, const char *text, struct quern_error *err);

/* Why a tensor has its type. */
enum plan_reason { PLAN_KEPT, PLAN_PRESET, PLAN_RULE, PLAN_FALLBACK, PLAN_MEASURED };

struct plan_item {
    uint32_t         format;     /* of the result */
    enum plan_reason reason;
    uint32_t         wanted;     /* before the fall-back of rows that do not divide into blocks */
    bool             needs_importance;   /* worthless without an importance matrix, llama.cpp says */
};

/* One item per tensor of `g`, in its order. `importance`: an importance matrix is there (some mixes differ). QUERN_EFORMAT when a
 * key that counts is of a wrong type. */
bool preset_plan(struct plan_item *items, const struct gguf *g, const struct preset *preset, const struct type_rule *rules,
                 size_t rule_count, bool importance, struct quern_error *err);

/* The format that takes the place of `format` for rows of `cols` values: itself where they divide into its blocks, else a
 * 32-block type of about the size above, else F16. */
uint32_t preset_fallback(uint32_t format, size_t cols);

/* May this tensor be rounded at all? (Matrices that are weights, without norms, gates and small special ones.) */
bool preset_may_round(const struct gguf_tensor *t);

#endif
