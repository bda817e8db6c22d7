/* MMLU: one csv file per subject with question, four choices and the answer, with or without a header; the answer is a letter, or a
 * number from 0. */
#include <string.h>

#include "choices_read.h"
#include "csv.h"
#include "text.h"

enum { LETTERS = 4, FIELDS = LETTERS + 2 };
static const char letters[] = "ABCD";

/* "high_school_physics_test.csv" -> "high_school_physics": the files' names are the subjects. */
char *choices_subject(const char *path, struct quern_error *err)
{
    static const char *const ends[] = {".csv", "_test", "_val", "_dev"};
    const char *slash = strrchr(path, '/');
    char *name = mem_copy_text(slash ? slash + 1 : path, strlen(slash ? slash + 1 : path), err);
    for (size_t i = 0; name && i < sizeof ends / sizeof *ends; i++) {
        size_t n = strlen(name), m = strlen(ends[i]);
        if (n > m && !strcmp(name + n - m, ends[i]))
            name[n - m] = 0;
    }
    return name;
}

/* The question and its choices, as the model sees them. */
static void add_question(struct text *out, const struct csv_record *r)
{
    const char *question = r->field[0].text;
    size_t n = r->field[0].n;
    for (; n && choices_blank(question, 1); n--)
        question++;
    while (n && choices_blank(question + n - 1, 1))
        n--;
    text_add(out, question, n);
    for (size_t i = 0; i < LETTERS; i++) {
        text_addf(out, "\n%c. ", letters[i]);
        text_add(out, r->field[1 + i].text, r->field[1 + i].n);
    }
    text_addf(out, "\nAnswer:");
}

/* Index of the right choice, or LETTERS. */
static size_t answer_of(const struct csv_record *r)
{
    const struct csv_field *f = &r->field[FIELDS - 1];
    if (f->n == 1 && *f->text >= '0' && *f->text < '0' + LETTERS)
        return (size_t)(*f->text - '0');
    return f->n == 1 && *f->text >= 'A' && *f->text < 'A' + LETTERS ? (size_t)(*f->text - 'A') : LETTERS;
}

/* The next question; count 0 at the end. A first record that ends in "answer" is a header. */
static bool next_question(struct csv *csv, struct csv_record *r, const struct choice_source *source, struct arena *arena,
                          struct quern_error *err)
{
    bool first = csv->at == 0;
    if (!csv_next(csv, r, arena, err))
        return false;
    if (first && r->count == FIELDS && !strcmp(r->field[FIELDS - 1].text, "answer") && !csv_next(csv, r, arena, err))
        return false;
    if (r->count == 0)
        return true;
    if (r->count != FIELDS)
        return choices_bad(source, r->line, err, "%zu fields, a question has %d", r->count, FIELDS);
    for (size_t i = 0; i < FIELDS - 1; i++)
        if (choices_blank(r->field[i].text, r->field[i].n))
            return choices_bad(source, r->line, err, "field %zu is empty", i + 1);
    if (answer_of(r) == LETTERS)
        return choices_bad(source, r->line, err, "the answer must be 0 to 3 or A to D");
    return true;
}

/* The first `shots` questions of the subject's dev file, with their answers. */
static bool add_shots(struct text *lead, const char *path, size_t shots, struct quern_error *err)
{
    struct map map;
    struct arena arena;
    struct csv_record r;
    size_t done = 0;
    if (!map_open(&map, path, err))
        return false;
    arena_init(&arena, 0);
    struct choice_source source = {.path = path};
    struct csv csv = {.data = map.size ? (const char *)map.data : "", .n = map.size, .line = 1, .name = path};
    bool ok = true;
    for (; ok && done < shots; done++) {
        if (!(ok = next_question(&csv, &r, &source, &arena, err)) || r.count == 0)
            break;
        add_question(lead, &r);
        text_addf(lead, " %c\n\n", letters[answer_of(&r)]);
    }
    if (ok && done < shots)
        ok = ERR(err, QUERN_EUSAGE, "%s: %zu questions, %zu shots are asked for", path, done, shots);
    arena_free(&arena);
    map_close(&map);
    return ok;
}

/* What comes before each question of the file; in the set's arena. */
static bool make_lead(const struct choice_source *source, const struct choice_options *options, const char **lead, size_t *n,
                      struct quern_error *err)
{
    const char *subject = source->set->groups[source->group].name;
    struct text text = {0}, path = {0};
    text_addf(&text, "The following are multiple choice questions (with answers) about ");
    for (const char *p = subject; *p; p++)
        text_addf(&text, "%c", *p == '_' ? ' ' : *p);
    text_addf(&text, ".\n\n");
    bool ok = true;
    if (options->shots) {
        text_addf(&path, "%s/%s_dev.csv", options->dev, subject);
        ok = !path.failed && add_shots(&text, path.data, options->shots, err);
    }
    if (text.failed || path.failed)
        ok = ERR(err, QUERN_EMEM, "not enough memory for a prompt");
    ok = ok && choices_text(source->set, lead, n, text.data, text.n, err);
    text_free(&text);
    text_free(&path);
    return ok;
}

static bool add_item(struct choice_source *source, const struct csv_record *r, const char *lead, size_t lead_n,
                     struct quern_error *err)
{
    struct text question = {0};
    /* What is scored is the letter behind "Answer:", as in the published evaluation (Hendrycks et al. 2021), not the choice's
     * words. */
    struct choice shared = {.text_n = 1};
    add_question(&question, r);
    bool ok = !question.failed || ERR(err, QUERN_EMEM, "not enough memory for a question");
    ok = ok && choices_text(source->set, &shared.context, &shared.context_n, question.data, question.n, err);
    text_free(&question);
    struct choice_item *item = ok ? choices_add(source, r->line, LETTERS, err) : NULL;
    if (!item)
        return false;
    item->lead = lead;
    item->lead_n = lead_n;
    item->gold = answer_of(r);
    for (size_t i = 0; i < LETTERS; i++) {
        item->choices[i] = shared;
        item->choices[i].text = &letters[i];
    }
    return true;
}

bool choices_read_mmlu(struct choice_source *source, const struct choice_options *options, struct quern_error *err)
{
    struct arena arena;
    struct csv csv = {.data = source->data, .n = source->n, .line = 1, .name = source->path};
    struct csv_record r;
    const char *lead;
    size_t lead_n;
    if (!make_lead(source, options, &lead, &lead_n, err))
        return false;
    arena_init(&arena, 0);
    bool ok;
    while ((ok = next_question(&csv, &r, source, &arena, err)) && r.count)
        if (!(ok = add_item(source, &r, lead, lead_n, err)))
            break;
    arena_free(&arena);
    return ok;
}
