#include "calibration.h"

#include <stdlib.h>
#include <string.h>

/* The texts inside the program, taken into read-only data by the assembler. */
__asm__(".section .rodata\n"
        ".globl calibration_fit\n"
        "calibration_fit:\n"
        ".incbin \"models/calibration.txt\"\n"
        ".globl calibration_fit_end\n"
        "calibration_fit_end:\n"
        ".byte 0\n"
        ".globl calibration_held\n"
        "calibration_held:\n"
        ".incbin \"models/heldout.txt\"\n"
        ".globl calibration_held_end\n"
        "calibration_held_end:\n"
        ".byte 0\n"
        ".globl calibration_stop\n"
        "calibration_stop:\n"
        ".incbin \"models/stop.txt\"\n"
        ".globl calibration_stop_end\n"
        "calibration_stop_end:\n"
        ".byte 0\n"
        ".previous\n");
extern const char calibration_fit[], calibration_fit_end[], calibration_held[], calibration_held_end[];
extern const char calibration_stop[], calibration_stop_end[];

static bool find_text(struct calibration *c, const char *path, enum calibration_part part, struct quern_error *err)
{
    if (!path) {
        const char *const begin[] = { calibration_fit, calibration_held, calibration_stop };
        const char *const end[] = { calibration_fit_end, calibration_held_end, calibration_stop_end };
        const char *const name[] = { "quern's own", "quern's own, held out", "quern's own, to stop by" };
        c->name = name[part];
        c->text = begin[part];
        c->bytes = (size_t)(end[part] - begin[part]);
        return true;
    }
    if (!map_open(&c->map, path, err))
        return false;
    const char *slash = strrchr(path, '/');
    c->name = slash ? slash + 1 : path;
    c->text = (const char *)c->map.data;
    c->bytes = c->map.size;
    return true;
}

static bool one_token_only(const struct calibration *c)
{
    /* A tokenizer may put a blank before the first word, which may be as many tokens as it has bytes, and a beginning before
     * that. */
    for (size_t i = 8; i < c->count; i++)
        if (c->tokens[i] != c->tokens[c->chunk - 1] && i % c->chunk)
            return false;
    return true;
}

bool calibration_open(struct calibration *c, const char *path, enum calibration_part part, const struct quern_model *model,
                      size_t chunk, struct quern_error *err)
{
    *c = (struct calibration){ .chunk = chunk };
    bool ok = find_text(c, path, part, err) && quern_encode_text(model, c->text, c->bytes, false, false, &c->tokens, &c->count,
                                                                 err);
    /* No text has NULs, nearly every other file does; UTF-16 too, which would be read as noise. */
    if (ok && memchr(c->text, 0, c->bytes))
        ok = ERR(err, QUERN_EUSAGE, "%s: no text but binary data (%zu tokens), it has a NUL at byte %zu", path ? path : c->name,
                 c->count, (size_t)((const char *)memchr(c->text, 0, c->bytes) - c->text));
    if (ok && c->count < chunk)
        ok = ERR(err, QUERN_EUSAGE, "%s: %zu tokens, at least %zu are needed", path ? path : c->name, c->count, chunk);
    if (ok) {
        c->count -= c->count % chunk;
        if (one_token_only(c))
            ok = ERR(err, QUERN_EUSAGE, "%s: all %zu tokens are the same", path ? path : c->name, c->count);
    }
    if (!ok) {
        calibration_close(c);
        return false;
    }
    if (tokenizer_adds_bos(model->tokenizer) && tokenizer_bos(model->tokenizer) >= 0)
        for (size_t i = 0; i < c->count; i += chunk)
            c->tokens[i] = tokenizer_bos(model->tokenizer);
    return true;
}

void calibration_close(struct calibration *c)
{
    free(c->tokens);
    if (c->map.size)
        map_close(&c->map);
    *c = (struct calibration){ 0 };
}

bool calibration_open_two(struct calibration *fit, const char *fit_path, struct calibration *judge, const char *judge_path,
                          enum calibration_part part, const struct quern_model *model, size_t chunk, const char *same,
                          struct quern_error *err)
{
    *fit = *judge = (struct calibration){ 0 };
    if (!calibration_open(fit, fit_path, CALIBRATION_FIT, model, chunk, err) ||
        !calibration_open(judge, judge_path, part, model, chunk, err))
        return false;
    bool equal = fit->bytes == judge->bytes && memcmp(fit->text, judge->text, fit->bytes) == 0;
    return !equal || ERR(err, QUERN_EUSAGE, "%s", same);
}

bool calibration_possible(const char *fit_path, const char *judge_path, enum calibration_part part, const struct quern_model *model,
                          size_t chunk, const char *same, struct quern_error *err)
{
    struct calibration fit, judge;
    bool ok = calibration_open_two(&fit, fit_path, &judge, judge_path, part, model, chunk, same, err);
    calibration_close(&fit);
    calibration_close(&judge);
    return ok;
}
