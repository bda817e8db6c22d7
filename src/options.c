/* options.c - words of the command line into a struct, by the verb's table. Help, manual and completions are printed from the same
 * tables in options_print.c, so that none of them can forget an option. */
#include "options.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

/* Tables nest once: a row of kind GROUP stands for a whole table (engine, sampling) whose fields begin at the row's own offset.
 * After the group the walk goes on behind it. */
const struct option *options_next(const struct verb *verb, struct option_walk *w, size_t *offset, const char **heading)
{
    *heading = NULL;
    if (!w->row)
        w->row = verb->options;
    for (;;) {
        if (w->row && w->row->name && w->row->kind != OPTION_GROUP) {
            *offset = w->base + w->row->offset;
            w->index++;
            return w->row++;
        }
        if (w->row && w->row->name) {                 /* a group begins */
            w->outer = w->row + 1;
            w->base = w->row->offset;
            *heading = w->row->help;
            w->row = w->row->group;
        } else if (w->outer) {                        /* and ends */
            w->row = w->outer;
            w->outer = NULL;
            w->base = 0;
            *heading = "Other options";
        } else {
            return NULL;
        }
    }
}

/* ---- which word was meant --------------------------------------------------------------------------------------- */

/* Edits (insert, delete, replace, swap neighbours) from a to b; words longer than the table count as far away. */
static size_t edit_distance(const char *a, const char *b)
{
    enum { LONGEST = 40 };
    size_t n = strlen(a), m = strlen(b), d[LONGEST + 1][LONGEST + 1];
    if (n > LONGEST || m > LONGEST)
        return LONGEST;
    for (size_t i = 0; i <= n; i++)
        for (size_t j = 0; j <= m; j++) {
            if (i == 0 || j == 0) {
                d[i][j] = i + j;
                continue;
            }
            size_t best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            best = d[i - 1][j] + 1 < best ? d[i - 1][j] + 1 : best;
            best = d[i][j - 1] + 1 < best ? d[i][j - 1] + 1 : best;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && d[i - 2][j - 2] + 1 < best)
                best = d[i - 2][j - 2] + 1;
            d[i][j] = best;
        }
    return d[n][m];
}

/* Nearer than the best so far, and near at all: at most 3 edits and about a third of the word, or a guess would be a riddle. */
static bool better(const char *word, const char *candidate, size_t *best)
{
    size_t distance = edit_distance(word, candidate), length = strlen(word);
    /* "temperature" for "temp", "ctx" for "context": a beginning of the word is near as well. */
    if (length >= 3 &&
        (strncmp(word, candidate, length) == 0 || (strlen(candidate) >= 3 && strncmp(word, candidate, strlen(candidate)) == 0)))
        distance = distance > 2 ? 2 : distance;
    if (distance > 3 || distance * 3 > length + 2 || distance >= *best)
        return false;
    *best = distance;
    return true;
}

const char *options_nearest(const char *word, const char *const *words, size_t count)
{
    const char *found = NULL;
    size_t best = SIZE_MAX;
    for (size_t i = 0; i < count; i++)
        if (better(word, words[i], &best))
            found = words[i];
    return found;
}

/* The word is escaped before it is shown: a file name with control characters may stand where an option was expected. */
static bool unknown_option(const struct verb *verb, const char *name, struct quern_error *err)
{
    struct option_walk walk = {0};
    size_t offset, best = SIZE_MAX;
    const char *heading, *found = NULL;
    char shown[120];
    for (const struct option *o; (o = options_next(verb, &walk, &offset, &heading));) {
        if (better(name, o->name, &best))
            found = o->name;
        if (o->alias && better(name, o->alias, &best))
            found = o->alias;
    }
    text_escape(shown, sizeof shown, name, strlen(name));
    if (found)
        return ERR(err, QUERN_EUSAGE, "unknown option '--%s': did you mean '--%s'?", shown, found);
    return ERR(err, QUERN_EUSAGE, "unknown option '--%s'; --help lists them", shown);
}

/* Index of `word` in "a|b|c", in whatever case it is written, or -1. */
static int find_choice(const char *choices, const char *word)
{
    size_t n = strlen(word);
    for (int index = 0;; index++) {
        size_t length = strcspn(choices, "|");
        if (length == n && strncasecmp(choices, word, n) == 0)
            return index;
        choices += length;
        if (*choices++ == '\0')
            return -1;
    }
}

/* ---- values ----------------------------------------------------------------------------------------------------- */

static bool wrong(const struct option *o, const char *word, const char *allowed, struct quern_error *err)
{
    char shown[200];
    text_escape(shown, sizeof shown, word, strlen(word));
    return ERR(err, QUERN_EUSAGE, "--%s: '%s' is not %s", o->name, shown, allowed);
}

/* strtoull alone takes blanks, signs and "-1" (as 2^64 - 1): a digit must come first. */
static bool read_u64(const char *word, uint64_t *out, const char **end)
{
    char *stop;
    if (*word < '0' || *word > '9')
        return false;
    errno = 0;
    *out = strtoull(word, &stop, 10);
    *end = stop;
    return errno == 0;
}

/* K, M, G and T are powers of 1024, with or without "i" and "B", so that sizes can be given back as quern prints them: before a
 * unit the number may have a fraction, of six digits so that their product with any unit fits 64 bits. */
static bool read_bytes(const char *word, size_t *out)
{
    const char *p;
    uint64_t n, digits = 0, of = 1, scale = 1;
    static const char units[] = "KMGT";
    if (!read_u64(word, &n, &p) || n > SIZE_MAX)
        return false;
    bool fraction = *p == '.';
    if (fraction)
        for (p++; *p >= '0' && *p <= '9' && of < 1000000; p++)
            digits = digits * 10 + (uint64_t)(*p - '0'), of *= 10;
    const char *unit = *p ? strchr(units, *p >= 'a' ? *p - 32 : *p) : NULL;
    if (fraction && (of == 1 || !unit))
        return false;
    if (unit) {
        scale = (uint64_t)1 << 10 * (unit - units + 1);
        p += 1 + (p[1] == 'i');
    }
    if (*p == 'B')
        p++;
    size_t bytes = (size_t)n;
    return *p == 0 && scale <= SIZE_MAX && checked_mul(&bytes, bytes, (size_t)scale) &&
           checked_add(out, bytes, (size_t)(digits * scale / of));
}

/* The list replaces the one that is there: the default's, or that of the same flag before (the last one counts, as for others). */
static bool read_counts(struct option_counts *list, const char *word, struct quern_error *err)
{
    size_t n = 1;
    for (const char *p = word; *p; p++)
        n += *p == ',';
    size_t *items = mem_take(n, sizeof *items, "a list of numbers", err);
    if (!items)
        return false;
    free(list->items);
    *list = (struct option_counts){items, n};
    for (size_t i = 0; i < n; i++) {
        const char *end;
        uint64_t value;
        if (!read_u64(word, &value, &end) || (*end != (i + 1 < n ? ',' : 0)))
            return ERR(err, QUERN_EUSAGE, "not numbers");
        items[i] = (size_t)value;
        word = end + 1;
    }
    return true;
}

static bool read_seed(const char *word, uint64_t *out)
{
    const char *end;
    if (strcmp(word, "random") == 0)
        return getrandom(out, sizeof *out, 0) == (ssize_t)sizeof *out;
    return read_u64(word, out, &end) && *end == 0;
}

static bool read_real(const char *word, float *out)
{
    char *end;
    if (!strchr("+-.0123456789", *word) || !*word)
        return false;                               /* no "nan", "inf", blanks */
    double value = strtod(word, &end);
    *out = (float)value;
    return *end == 0 && end != word && isfinite(value) && isfinite(*out) && !strpbrk(word, "xXnN");
}

/* Texts are borrowed from argv, which outlives every verb; only the list is ours. */
static bool add_text(const struct option *o, struct option_texts *list, const char *word, struct quern_error *err)
{
    size_t bytes;
    /* Room for a power of two: it is used up when the count is one (or nothing). */
    if ((list->count & (list->count - 1)) == 0) {
        const char **items = NULL;
        if (checked_mul(&bytes, list->count ? 2 * list->count : 1, sizeof *items))
            items = realloc(list->items, bytes);
        if (!items)
            return ERR(err, QUERN_EMEM, "not enough memory for --%s", o->name);
        list->items = items;
    }
    list->items[list->count++] = word;
    return true;
}

/* strtoll takes blanks and line ends before the number; what a shell's quotes let through is refused here. */
static bool read_int(const char *word, int32_t *out)
{
    char *stop;
    errno = 0;
    long long i = strtoll(word, &stop, 10);
    if (stop == word || *stop || errno || i < INT32_MIN || i > INT32_MAX || !strchr("+-0123456789", *word))
        return false;
    *out = (int32_t)i;
    return true;
}

static bool set_choice(const struct option *o, int *field, const char *word, struct quern_error *err)
{
    char allowed[300];
    int choice = find_choice(o->choices, word);
    snprintf(allowed, sizeof allowed, "one of %s", o->choices);
    if (choice < 0)
        return wrong(o, word, allowed, err);
    *field = choice;
    return true;
}

/* Put one word into its field, whose type follows from the option's kind (options.h). */
static bool set_value(const struct option *o, void *field, const char *word, struct quern_error *err)
{
    const char *end;
    uint64_t u;
    switch (o->kind) {
    case OPTION_SWITCH:
        *(bool *)field = true;
        return true;
    case OPTION_TEXT:
    case OPTION_FILE:
    case OPTION_OPERAND:
        *(const char **)field = word;
        return true;
    case OPTION_TEXTS:
        return add_text(o, field, word, err);
    case OPTION_COUNT:
        if (!read_u64(word, &u, &end) || *end || u > SIZE_MAX)
            return wrong(o, word, "a number >= 0", err);
        *(size_t *)field = (size_t)u;
        return true;
    case OPTION_COUNTS:
        return read_counts(field, word, err) || (err->code == QUERN_EUSAGE && wrong(o, word, "a list of numbers like 1,2,4", err));
    case OPTION_BYTES:
        return read_bytes(word, field) || wrong(o, word, "a number of bytes (K, M, G, T may follow)", err);
    case OPTION_INT:
        return read_int(word, field) || wrong(o, word, "a whole number", err);
    case OPTION_SEED:
        return read_seed(word, field) || wrong(o, word, "a number from 0 to 18446744073709551615, or 'random'", err);
    case OPTION_REAL:
        return read_real(word, field) || wrong(o, word, "a finite number", err);
    case OPTION_CHOICE:
        return set_choice(o, field, word, err);
    case OPTION_GROUP:
        break;
    }
    return ERR(err, QUERN_EFAIL, "--%s has no value", o->name);
}

/* ---- the command line ------------------------------------------------------------------------------------------- */

/* The option called name[0..n), or with the letter when n is 0. */
static const struct option *find(const struct verb *verb, const char *name, size_t n, char letter, size_t *offset, size_t *index)
{
    struct option_walk walk = {0};
    const char *heading;
    for (const struct option *o; (o = options_next(verb, &walk, offset, &heading));) {
        *index = walk.index - 1;
        if (n == 0
                ? letter && o->letter == letter
                : (strncmp(o->name, name, n) == 0 && !o->name[n]) || (o->alias && strncmp(o->alias, name, n) == 0 && !o->alias[n]))
            return o;
    }
    return NULL;
}

bool options_given(const struct verb *verb, const void *settings, const char *name)
{
    const struct args *args = settings;
    size_t offset, index;
    return find(verb, name, strlen(name), 0, &offset, &index) && (args->given[index / 64] >> index % 64 & 1);
}

/* Defaults are words like the user's, read by the same code, so that what --help prints is what holds. */
static bool set_defaults(const struct verb *verb, char *settings, struct quern_error *err)
{
    struct option_walk walk = {0};
    size_t offset;
    const char *heading;
    for (const struct option *o; (o = options_next(verb, &walk, &offset, &heading));)
        if (o->fallback && o->kind != OPTION_TEXTS && !set_value(o, settings + offset, o->fallback, err))
            return false;
    return true;
}

/* One word that begins with '-' and is more than that. `*i` moves on when the next word is its argument. */
static bool read_option(const struct verb *verb, int argc, char **argv, int *i, char *settings, struct quern_error *err)
{
    struct args *args = (struct args *)settings;
    const char *word = argv[*i], *value = NULL, *name = word + 2;
    const struct option *o;
    size_t offset, index;
    char shown[120];
    if (word[1] == '-') {
        size_t n = strcspn(name, "=");
        value = name[n] ? name + n + 1 : NULL;
        o = n ? find(verb, name, n, 0, &offset, &index) : NULL;
        if (!o) {
            snprintf(shown, sizeof shown, "%.*s", (int)(n < sizeof shown ? n : sizeof shown - 1), name);
            return unknown_option(verb, shown, err);
        }
    } else {
        o = find(verb, NULL, 0, word[1], &offset, &index);
        if (!o) {
            text_escape(shown, sizeof shown, word, strlen(word));
            return ERR(err, QUERN_EUSAGE, "unknown option '%s'; --help lists them", shown);
        }
        if (word[2])
            value = word + 2 + (word[2] == '=');
    }
    if (o->kind == OPTION_SWITCH && value)
        return ERR(err, QUERN_EUSAGE, "--%s takes no argument", o->name);
    if (o->kind != OPTION_SWITCH && !value) {
        if (*i + 1 >= argc)
            return ERR(err, QUERN_EUSAGE, "--%s needs an argument: %s", o->name, o->arg);
        value = argv[++*i];
    }
    /* Which options were named, for --verbose and for values that a model recommends where the user said nothing. */
    args->given[index / 64] |= (uint64_t)1 << index % 64;
    if (set_value(o, settings + offset, value, err))
        return true;
    /* "-ngl 99" is "-n gl" to this parser; whoever wrote it meant an option that there is not. */
    if (word[1] != '-' && err->code == QUERN_EUSAGE && word[2] >= 'a' && word[2] <= 'z')
        return ERR(err, QUERN_EUSAGE, "unknown option '%s', nor is '%s' a value for -%c: --help lists them",
                   text_escape(shown, sizeof shown, word, strlen(word)), shown + 2, word[1]);
    return false;
}

bool options_parse(const struct verb *verb, int argc, char **argv, void *settings, struct quern_error *err)
{
    struct args *args = settings;
    memset(settings, 0, verb->size);
    args->operands = mem_take((size_t)argc, sizeof *args->operands, "the command line", err);
    if (!args->operands || !set_defaults(verb, settings, err))
        return false;
    /* --help anywhere wins, also behind a word that would be an error: who asks for help may not know the rest yet. */
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            args->help = true;
    if (args->help)
        return true;
    bool options = true;
    for (int i = 1; i < argc; i++) {
        if (options && strcmp(argv[i], "--") == 0)
            options = false;
        else if (!options || argv[i][0] != '-' || !argv[i][1])
            args->operands[args->operand_count++] = argv[i];
        else if (!read_option(verb, argc, argv, &i, settings, err))
            return false;
    }
    if (args->operand_count < verb->operands_min)
        return ERR(err, QUERN_EUSAGE, "too few arguments: %s %s", verb->name, verb->operands);
    if (args->operand_count > verb->operands_max) {
        char shown[200];
        const char *extra = args->operands[verb->operands_max];
        text_escape(shown, sizeof shown, extra, strlen(extra));
        return ERR(err, QUERN_EUSAGE, "one argument too many: '%s' (%s %s%s%s)", shown, verb->name,
                   verb->operands ? verb->operands : "", verb->surplus ? "; " : "", verb->surplus ? verb->surplus : "");
    }
    return true;
}

void options_free(const struct verb *verb, void *settings)
{
    struct option_walk walk = {0};
    size_t offset;
    const char *heading;
    for (const struct option *o; (o = options_next(verb, &walk, &offset, &heading));) {
        void *field = (char *)settings + offset;
        if (o->kind == OPTION_TEXTS)
            free(((struct option_texts *)field)->items);
        else if (o->kind == OPTION_COUNTS)
            free(((struct option_counts *)field)->items);
    }
    free(((struct args *)settings)->operands);
}
