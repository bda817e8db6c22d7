/* ARC, WinoGrande, PIQA and LAMBADA: one JSON object per line. */
#include <stdio.h>
#include <string.h>

#include "choices_read.h"
#include "json.h"
#include "text.h"

struct reader {
    struct choice_source *source;
    size_t                line;
    struct quern_error   *err;
};

/* Parse one line; the tree lives in `arena`. */
static const struct json *parse(const struct choice_source *source, const struct choice_line *line, struct arena *arena,
                                struct quern_error *err)
{
    char place[400];
    snprintf(place, sizeof place, "%s: line %zu", source->path, line->line);
    const struct json *object = json_parse(arena, line->text, line->n, place, NULL, err);
    if (object && object->type != JSON_OBJECT) {
        choices_bad(source, line->line, err, "not a JSON object");
        return NULL;
    }
    return object;
}

/* A member that is a text with something in it; NULL with the error. */
static const struct json *text_of(const struct reader *r, const struct json *object, const char *key)
{
    const struct json *value = json_get(object, key);
    if (value && value->type == JSON_STRING && !choices_blank(value->text, value->n))
        return value;
    choices_bad(r->source, r->line, r->err, "'%s' is missing, or no text", key);
    return NULL;
}

/* One item from one parsed line; the tree is gone afterwards, so what stays is copied into the set. */
typedef bool line_fn(struct reader *r, const struct json *object);

/* Every line that is not blank through `fn`. */
static bool each_line(struct choice_source *source, line_fn *fn, struct quern_error *err)
{
    struct choice_line line = {0};
    bool ok = true;
    while (ok && choices_line(source, &line)) {
        if (choices_blank(line.text, line.n))
            continue;
        struct arena arena;
        arena_init(&arena, 0);
        struct reader r = {.source = source, .line = line.line, .err = err};
        const struct json *object = parse(source, &line, &arena, err);
        ok = object && fn(&r, object);
        arena_free(&arena);
    }
    return ok;
}

static bool take(const struct reader *r, const char **out, size_t *out_n, const char *text, size_t n)
{
    return choices_text(r->source->set, out, out_n, text, n, r->err);
}

/* "Question: ...\nAnswer:" as the context of all choices. */
static bool ask(const struct reader *r, struct choice_item *item, const struct json *question)
{
    struct text text = {0};
    struct choice shared = {0};
    text_addf(&text, "Question: ");
    text_add(&text, question->text, question->n);
    text_addf(&text, "\nAnswer:");
    bool ok = !text.failed ? take(r, &shared.context, &shared.context_n, text.data, text.n)
                           : ERR(r->err, QUERN_EMEM, "not enough memory for a question");
    text_free(&text);
    for (size_t i = 0; ok && i < item->count; i++) {
        item->choices[i].context = shared.context;
        item->choices[i].context_n = shared.context_n;
    }
    return ok;
}

/* ARC (Clark et al. 2018): labels are A to E in most files and 1 to 4 in some, so they are compared as texts. */
static bool arc_line(struct reader *r, const struct json *object)
{
    const struct json *question = json_get(object, "question"), *list = json_get(question, "choices");
    const struct json *stem = text_of(r, question, "stem"), *key = stem ? text_of(r, object, "answerKey") : NULL;
    if (!key)
        return false;
    if (!list || list->type != JSON_ARRAY || list->n < 2 || list->n > CHOICES_MOST)
        return choices_bad(r->source, r->line, r->err, "'choices' must be a list of 2 to %d", CHOICES_MOST);
    struct choice_item *item = choices_add(r->source, r->line, list->n, r->err);
    if (!item || !ask(r, item, stem))
        return false;
    item->gold = list->n;
    for (size_t i = 0; i < list->n; i++) {
        const struct json *text = text_of(r, list->items[i], "text"), *label = text ? text_of(r, list->items[i], "label") : NULL;
        if (!label || !take(r, &item->choices[i].text, &item->choices[i].text_n, text->text, text->n))
            return false;
        if (label->n == key->n && !memcmp(label->text, key->text, key->n))
            item->gold = i;
    }
    return item->gold < list->n || choices_bad(r->source, r->line, r->err, "'answerKey' is no choice's label");
}

bool choices_read_arc(struct choice_source *source, struct quern_error *err) { return each_line(source, arc_line, err); }

/* The sentence with the option in place of the blank is the context, the rest is what is scored. */
static bool winogrande_line(struct reader *r, const struct json *object)
{
    const struct json *sentence = text_of(r, object, "sentence"), *option[2] = {NULL, NULL}, *answer;
    option[0] = sentence ? text_of(r, object, "option1") : NULL;
    option[1] = option[0] ? text_of(r, object, "option2") : NULL;
    answer = option[1] ? text_of(r, object, "answer") : NULL;
    if (!answer)
        return false;
    if (answer->n != 1 || (*answer->text != '1' && *answer->text != '2'))
        return choices_bad(r->source, r->line, r->err, "'answer' must be \"1\" or \"2\"");
    const char *gap = memchr(sentence->text, '_', sentence->n), *end = sentence->text + sentence->n;
    const char *rest = gap ? gap + 1 : end;
    while (rest < end && choices_blank(rest, 1))
        rest++;
    while (rest < end && choices_blank(end - 1, 1))
        end--;
    if (rest == end)
        return choices_bad(r->source, r->line, r->err, "'sentence' must have a _ with words after it");
    struct choice_item *item = choices_add(r->source, r->line, 2, r->err);
    bool ok = item != NULL;
    for (size_t i = 0; ok && i < 2; i++) {
        struct text text = {0};
        struct choice *c = &item->choices[i];
        text_add(&text, sentence->text, (size_t)(gap - sentence->text));
        text_add(&text, option[i]->text, option[i]->n);
        ok = !text.failed || ERR(r->err, QUERN_EMEM, "not enough memory for a sentence");
        ok = ok && take(r, &c->context, &c->context_n, text.data, text.n) &&
             take(r, &c->text, &c->text_n, rest, (size_t)(end - rest));
        text_free(&text);
    }
    if (ok)
        item->gold = (size_t)(*answer->text - '1');
    return ok;
}

bool choices_read_winogrande(struct choice_source *source, struct quern_error *err)
{
    return each_line(source, winogrande_line, err);
}

/* LAMBADA (Paperno et al. 2016): the last word of a passage, to be guessed whole. */
static bool lambada_line(struct reader *r, const struct json *object)
{
    const struct json *text = text_of(r, object, "text");
    if (!text)
        return false;
    const char *blank = memrchr(text->text, ' ', text->n);
    size_t before = blank ? (size_t)(blank - text->text) : 0, after = blank ? text->n - before - 1 : 0;
    if (choices_blank(text->text, before) || choices_blank(text->text + before, after + 1))
        return choices_bad(r->source, r->line, r->err, "'text' must be words with a last one behind a blank");
    struct choice_item *item = choices_add(r->source, r->line, 1, r->err);
    return item && take(r, &item->choices->context, &item->choices->context_n, text->text, before) &&
           take(r, &item->choices->text, &item->choices->text_n, blank + 1, after);
}

bool choices_read_lambada(struct choice_source *source, struct quern_error *err) { return each_line(source, lambada_line, err); }

/* ---- PIQA, whose labels are in a file of their own -------------------------------------------------------------------- */

static bool piqa_line(struct reader *r, const struct json *object)
{
    static const char *const keys[] = {"sol1", "sol2"};
    const struct json *goal = text_of(r, object, "goal");
    struct choice_item *item = goal ? choices_add(r->source, r->line, 2, r->err) : NULL;
    if (!item || !ask(r, item, goal))
        return false;
    for (size_t i = 0; i < 2; i++) {
        const struct json *text = text_of(r, object, keys[i]);
        if (!text || !take(r, &item->choices[i].text, &item->choices[i].text_n, text->text, text->n))
            return false;
    }
    return true;
}

/* One label per item, in the order of the items; both counts must agree, or all answers behind a gap would be graded wrongly. */
static bool read_labels(const struct choice_source *labels, struct choice_set *set, size_t first, struct quern_error *err)
{
    struct choice_line line = {0};
    size_t i = first;
    while (choices_line(labels, &line)) {
        if (choices_blank(line.text, line.n))
            continue;
        if (line.n != 1 || (*line.text != '0' && *line.text != '1'))
            return choices_bad(labels, line.line, err, "a label must be 0 or 1");
        if (i == set->count)
            return choices_bad(labels, line.line, err, "more labels than the %zu items", set->count - first);
        set->items[i++].gold = (size_t)(*line.text - '0');
    }
    return i == set->count || ERR(err, QUERN_EFORMAT, "%s: line %zu: %zu labels for %zu items", labels->path, line.line, i - first,
                                  set->count - first);
}

bool choices_read_piqa(struct choice_source *source, struct quern_error *err)
{
    size_t first = source->set->count, n = strlen(source->path);
    struct text path = {0};
    struct map map;
    if (!each_line(source, piqa_line, err))
        return false;
    text_add(&path, source->path, n > 6 && !strcmp(source->path + n - 6, ".jsonl") ? n - 6 : n);
    text_addf(&path, "-labels.lst");
    bool ok = !path.failed || ERR(err, QUERN_EMEM, "not enough memory for a path");
    if (ok && (ok = map_open(&map, path.data, err))) {
        struct choice_source labels = {.path = path.data, .data = map.size ? (const char *)map.data : "", .n = map.size};
        ok = read_labels(&labels, source->set, first, err);
        map_close(&map);
    }
    text_free(&path);
    return ok;
}

/* ---- which of them ------------------------------------------------------------------------------------------------------ */

bool choices_jsonl_format(const struct choice_source *source, enum choice_format *format, struct quern_error *err)
{
    struct choice_line line = {0};
    struct arena arena;
    while (choices_line(source, &line) && choices_blank(line.text, line.n))
        continue;
    arena_init(&arena, 0);
    const struct json *object = parse(source, &line, &arena, err);
    if (json_get(json_get(object, "question"), "choices"))
        *format = CHOICES_ARC;
    else if (json_get(object, "option1"))
        *format = CHOICES_WINOGRANDE;
    else if (json_get(object, "sol1"))
        *format = CHOICES_PIQA;
    arena_free(&arena);
    return object != NULL;
}
