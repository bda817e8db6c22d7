/* Comma separated values after RFC 4180: quoted fields, doubled quotes within them, line ends of both kinds. What the RFC
 * forbids is an error with its line, since a shifted field would be a wrong answer counted as right. See csv.h. */
#include "csv.h"

static bool fail(const struct csv *csv, size_t line, const char *sentence, struct quern_error *err)
{
    return ERR(err, QUERN_EFORMAT, "%s: line %zu: %s", csv->name, line, sentence);
}

/* Bytes of the line end at the cursor; 0: there is none. */
static size_t line_end(const struct csv *csv)
{
    const char *p = csv->data + csv->at;
    size_t left = csv->n - csv->at;
    return left && *p == '\n' ? 1 : left > 1 && *p == '\r' && p[1] == '\n' ? 2 : 0;
}

/* Behind an opening quote: up to the closing one, doubled quotes made single. */
static bool read_quoted(struct csv *csv, struct csv_field *field, struct arena *arena, struct quern_error *err)
{
    size_t begin = csv->at, opened = csv->line, end = begin, doubled = 0, n = 0;
    while (end < csv->n && (csv->data[end] != '"' || (end + 1 < csv->n && csv->data[end + 1] == '"'))) {
        if (csv->data[end] == '"') {
            doubled++;
            end++;
        }
        csv->line += csv->data[end++] == '\n';
    }
    if (end == csv->n)
        return fail(csv, opened, "a quote opens and is never closed", err);
    char *text = arena_text(arena, csv->data + begin, end - begin - doubled, err);
    if (!text)
        return false;
    for (size_t i = begin; i < end; i++) {
        i += csv->data[i] == '"';
        text[n++] = csv->data[i];
    }
    *field = (struct csv_field){text, n};
    csv->at = end + 1;
    if (csv->at < csv->n && csv->data[csv->at] != ',' && !line_end(csv))
        return fail(csv, csv->line, "something stands between a closing quote and the comma", err);
    return true;
}

static bool read_field(struct csv *csv, struct csv_field *field, struct arena *arena, struct quern_error *err)
{
    if (csv->at < csv->n && csv->data[csv->at] == '"') {
        csv->at++;
        return read_quoted(csv, field, arena, err);
    }
    size_t begin = csv->at;
    for (; csv->at < csv->n && csv->data[csv->at] != ',' && !line_end(csv); csv->at++)
        if (csv->data[csv->at] == '"')
            return fail(csv, csv->line, "a quote within a field that is not in quotes", err);
    *field = (struct csv_field){arena_text(arena, csv->data + begin, csv->at - begin, err), csv->at - begin};
    return field->text != NULL;
}

bool csv_next(struct csv *csv, struct csv_record *record, struct arena *arena, struct quern_error *err)
{
    for (size_t n; csv->at < csv->n && (n = line_end(csv)) > 0; csv->line++)
        csv->at += n;
    record->line = csv->line;
    record->count = 0;
    if (csv->at == csv->n)
        return true;
    for (;;) {
        if (record->count == CSV_FIELDS)
            return fail(csv, record->line, "too many fields", err);
        if (!read_field(csv, &record->field[record->count++], arena, err))
            return false;
        if (csv->at == csv->n || csv->data[csv->at] != ',')
            break;
        csv->at++;
    }
    csv->line += csv->at < csv->n;
    csv->at += line_end(csv);
    return true;
}
