#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "choices_read.h"

const char *const choice_format_names[] = {"auto", "hellaswag", "mmlu", "arc", "winogrande", "piqa", "lambada"};

/* ---- what the readers share ---------------------------------------------------------------------------------------- */

bool choices_line(const struct choice_source *source, struct choice_line *line)
{
    if (line->at >= source->n)
        return false;
    const char *begin = source->data + line->at, *end = memchr(begin, '\n', source->n - line->at);
    size_t n = end ? (size_t)(end - begin) : source->n - line->at;
    line->at += n + (end != NULL);
    line->text = begin;
    line->n = n && begin[n - 1] == '\r' ? n - 1 : n;
    line->line++;
    return true;
}

bool choices_blank(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!strchr(" \t\r\n", text[i]) || !text[i])
            return false;
    return true;
}

bool choices_bad(const struct choice_source *source, size_t line, struct quern_error *err, const char *format, ...)
{
    char text[600];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return ERR(err, QUERN_EFORMAT, "%s: line %zu: %s", source->path, line, text);
}

bool choices_text(struct choice_set *set, const char **out, size_t *out_n, const char *text, size_t n, struct quern_error *err)
{
    *out_n = n;
    return (*out = arena_text(&set->arena, text, n, err)) != NULL;
}

struct choice_item *choices_add(const struct choice_source *source, size_t line, size_t count, struct quern_error *err)
{
    struct choice_set *set = source->set;
    if (set->count == set->capacity) {
        size_t capacity = set->capacity ? 2 * set->capacity : 256, bytes;
        struct choice_item *more = checked_mul(&bytes, capacity, sizeof *more) ? realloc(set->items, bytes) : NULL;
        if (!more) {
            ERR(err, QUERN_EMEM, "not enough memory for %zu items", capacity);
            return NULL;
        }
        set->items = more;
        set->capacity = capacity;
    }
    struct choice *choices = arena_take(&set->arena, count, sizeof *choices, "choices", err);
    if (!choices)
        return NULL;
    struct choice_item *item = &set->items[set->count++];
    *item = (struct choice_item){.lead = "", .choices = choices, .count = count, .group = source->group, .line = line};
    return item;
}

const char *choices_place(char *out, size_t size, const struct choice_set *set, const struct choice_item *item)
{
    snprintf(out, size, "%s: line %zu", set->groups[item->group].path, item->line);
    return out;
}

/* ---- HellaSwag: six lines per item ---------------------------------------------------------------------------------- */

bool choices_read_hellaswag(struct choice_source *source, struct quern_error *err)
{
    enum { ENDINGS = 4 };
    struct choice_line line = {0};
    while (choices_line(source, &line)) {
        if (choices_blank(line.text, line.n)) {
            size_t first = line.line;
            while (choices_line(source, &line))
                if (!choices_blank(line.text, line.n))
                    return choices_bad(source, first, err, "an empty line where an item's context should stand");
            return true;
        }
        struct choice context;
        struct choice_item *item = choices_add(source, line.line, ENDINGS, err);
        if (!item || !choices_text(source->set, &context.context, &context.context_n, line.text, line.n, err))
            return false;
        if (!choices_line(source, &line) || line.n != 1 || *line.text < '0' || *line.text >= '0' + ENDINGS)
            return choices_bad(source, item->line + 1, err, "the label must be a digit from 0 to 3");
        item->gold = (size_t)(*line.text - '0');
        for (size_t i = 0; i < ENDINGS; i++) {
            if (!choices_line(source, &line) || choices_blank(line.text, line.n))
                return choices_bad(source, item->line + 2 + i, err, "ending %zu of the item's 4 is missing", i + 1);
            item->choices[i] = context;
            if (!choices_text(source->set, &item->choices[i].text, &item->choices[i].text_n, line.text, line.n, err))
                return false;
        }
    }
    return true;
}

/* ---- files and folders ---------------------------------------------------------------------------------------------- */

/* A brace begins JSON lines; a second line that is one digit from 0 to 3 is HellaSwag's label; else a comma in the first line
 * makes it csv. */
static bool detect(const struct choice_source *source, enum choice_format *format, struct quern_error *err)
{
    struct choice_line line = {0};
    while (choices_line(source, &line) && choices_blank(line.text, line.n))
        continue;
    if (choices_blank(line.text, line.n))
        return ERR(err, QUERN_EFORMAT, "%s: no items, the file is empty", source->path);
    bool comma = memchr(line.text, ',', line.n) != NULL, brace = false;
    for (size_t i = 0; i < line.n && !brace && strchr(" \t{", line.text[i]); i++)
        brace = line.text[i] == '{';
    if (brace && !choices_jsonl_format(source, format, err))
        return false;
    if (!brace && choices_line(source, &line) && line.n == 1 && *line.text >= '0' && *line.text <= '3')
        *format = CHOICES_HELLASWAG;
    else if (!brace && comma)
        *format = CHOICES_MMLU;
    if (*format == CHOICES_AUTO)
        return ERR(err, QUERN_EFORMAT, "%s: neither HellaSwag's lines, MMLU's csv nor JSON lines of ARC, WinoGrande or PIQA",
                   source->path);
    return true;
}

static bool read_source(struct choice_source *source, const struct choice_options *options, struct quern_error *err)
{
    struct choice_set *set = source->set;
    if (set->format == CHOICES_AUTO && !detect(source, &set->format, err))
        return false;
    if (options->shots && set->format != CHOICES_MMLU)
        return ERR(err, QUERN_EUSAGE, "%s: shots are for MMLU only, this is %s", source->path, choice_format_names[set->format]);
    switch (set->format) {
    case CHOICES_HELLASWAG: return choices_read_hellaswag(source, err);
    case CHOICES_MMLU: return choices_read_mmlu(source, options, err);
    case CHOICES_ARC: return choices_read_arc(source, err);
    case CHOICES_WINOGRANDE: return choices_read_winogrande(source, err);
    case CHOICES_PIQA: return choices_read_piqa(source, err);
    default: return choices_read_lambada(source, err);
    }
}

static bool read_file(struct choice_set *set, const char *path, const struct choice_options *options, struct quern_error *err)
{
    struct map map;
    size_t before = set->count, bytes;
    struct choice_group *groups = checked_mul(&bytes, set->group_count + 1, sizeof *groups) ? realloc(set->groups, bytes) : NULL;
    if (!groups)
        return ERR(err, QUERN_EMEM, "not enough memory for %zu files", set->group_count + 1);
    set->groups = groups;
    char *subject = choices_subject(path, err);
    if (!subject)
        return false;
    struct choice_group *group = &groups[set->group_count];
    group->name = arena_text(&set->arena, subject, strlen(subject), err);
    free(subject);
    if (!group->name || !(group->path = arena_text(&set->arena, path, strlen(path), err)) || !map_open(&map, path, err))
        return false;
    struct choice_source source = {.set = set, .path = group->path, .data = map.size ? (const char *)map.data : "", .n = map.size,
                                   .group = set->group_count++};
    if (source.n >= 3 && !memcmp(source.data, "\xEF\xBB\xBF", 3)) {
        source.data += 3;
        source.n -= 3;
    }
    bool ok = read_source(&source, options, err);
    map_close(&map);
    return ok && (set->count > before || ERR(err, QUERN_EFORMAT, "%s: no items", path));
}

/* "DIR/NAME"; malloc'ed. */
static char *join(const char *folder, const char *name, struct quern_error *err)
{
    size_t bytes = strlen(folder) + strlen(name) + 2;
    char *path = mem_take(bytes, 1, "a path", err);
    if (path)
        snprintf(path, bytes, "%s/%s", folder, name);
    return path;
}

static bool is_csv(const char *name)
{
    size_t n = strlen(name);
    return n > 4 && name[0] != '.' && !strcmp(name + n - 4, ".csv");
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* The paths of a folder's csv files, sorted; the caller frees them, also after a failure. */
static bool list_folder(const char *path, char ***paths, size_t *count, struct quern_error *err)
{
    DIR *folder = opendir(path);
    struct dirent *entry;
    size_t capacity = 0;
    bool ok = folder || ERR_ERRNO(err, "cannot open the folder '%s'", path);
    while (ok && (entry = readdir(folder)) != NULL) {
        if (!is_csv(entry->d_name))
            continue;
        if (*count == capacity) {
            capacity = capacity ? 2 * capacity : 64;
            char **more = realloc(*paths, capacity * sizeof *more);
            if (!more) {
                ok = ERR(err, QUERN_EMEM, "not enough memory for %zu paths", capacity);
                break;
            }
            *paths = more;
        }
        ok = ((*paths)[*count] = join(path, entry->d_name, err)) != NULL;
        *count += ok;
    }
    if (folder)
        closedir(folder);
    if (ok && *count)
        qsort(*paths, *count, sizeof **paths, by_name);
    return ok;
}

static bool read_folder(struct choice_set *set, const char *path, const struct choice_options *options, struct quern_error *err)
{
    char **paths = NULL;
    size_t count = 0;
    if (set->format != CHOICES_AUTO && set->format != CHOICES_MMLU)
        return ERR(err, QUERN_EUSAGE, "'%s' is a folder: only MMLU comes in folders", path);
    set->format = CHOICES_MMLU;
    bool ok = list_folder(path, &paths, &count, err) && (count || ERR(err, QUERN_EUSAGE, "'%s' has no csv files", path));
    for (size_t i = 0; ok && i < count; i++)
        ok = read_file(set, paths[i], options, err);
    for (size_t i = 0; i < count; i++)
        free(paths[i]);
    free(paths);
    return ok;
}

bool choices_open(struct choice_set *set, const char *path, const struct choice_options *options, struct quern_error *err)
{
    struct stat st;
    *set = (struct choice_set){.format = options->format};
    arena_init(&set->arena, 0);
    if (options->shots && !options->dev)
        return ERR(err, QUERN_EUSAGE, "shots need the folder that they come from (--dev)");
    bool folder = stat(path, &st) == 0 && S_ISDIR(st.st_mode);
    bool ok = folder ? read_folder(set, path, options, err) : read_file(set, path, options, err);
    set->total = set->count;
    return ok;
}

void choices_close(struct choice_set *set)
{
    free(set->items);
    free(set->groups);
    arena_free(&set->arena);
    *set = (struct choice_set){0};
}

void choices_limit(struct choice_set *set, size_t n)
{
    if (n == 0 || n >= set->count)
        return;
    /* Without the product i * total: total = n * q + r. */
    size_t q = set->count / n, r = set->count % n, carry = 0, from = 0;
    for (size_t i = 0; i < n; i++) {
        set->items[i] = set->items[from];
        from += q;
        carry += r;
        if (carry >= n) {
            carry -= n;
            from++;
        }
    }
    set->count = n;
}
