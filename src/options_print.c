/* Help, manual page and shell completions from the option tables. Only write to the stream that they are given. */
#include <string.h>

#include "cpu_words.h"
#include "options.h"

/* 100 columns: most terminals are that wide, and sentences beginning at column 30 need the room. */
enum { HELP_COLUMN = 30, HELP_WIDTH = 100 };

/* `text` in lines of at most HELP_WIDTH columns, the first starting at `column`, the others at `indent`. */
static void print_wrapped(FILE *out, const char *text, size_t column, size_t indent)
{
    for (bool first = true; *text; first = false) {
        size_t n = strcspn(text, " \n");
        if (!first && column + 1 + n > HELP_WIDTH) {
            fprintf(out, "\n%*s", (int)indent, "");
            column = indent;
        } else if (!first && column > indent) {
            fputc(' ', out);
            column++;
        }
        fwrite(text, 1, n, out);
        column += n;
        text += n;
        if (*text == '\n') {
            fprintf(out, "\n%*s", (int)indent, "");
            column = indent;
        }
        text += *text != 0;
    }
    fputc('\n', out);
}

/* Default and choices come from the row's other fields, so that a help text never repeats what may change elsewhere. A name that
 * reaches the column of explanations gets a line of its own. */
static void print_option(FILE *out, const struct option *o)
{
    char left[200];
    int n = snprintf(left, sizeof left, o->letter ? "  -%c, " : "      ", o->letter);
    n += snprintf(left + n, sizeof left - (size_t)n, "--%s%s%s", o->name, o->arg ? " " : "", o->arg ? o->arg : "");
    fprintf(out, "%-*s", HELP_COLUMN, left);
    if (n >= HELP_COLUMN - 1)
        fprintf(out, "\n%*s", HELP_COLUMN, "");
    char text[1200];
    int used = snprintf(text, sizeof text, "%s", o->help);
    if (o->kind == OPTION_CHOICE && !strchr(o->arg, '|'))
        used += snprintf(text + used, sizeof text - (size_t)used, ": %s", o->choices);
    if (o->fallback)
        snprintf(text + used, sizeof text - (size_t)used, " [%s]", o->fallback);
    print_wrapped(out, text, HELP_COLUMN, HELP_COLUMN);
}

/* Is the verb called by its name? In a program that has one main purpose only the others are. */
static bool is_named(const struct program *p, const struct verb *verb)
{
    return !p->single || verb != p->verbs[0];
}

static void print_usage(FILE *out, const struct program *p, const struct verb *verb)
{
    fprintf(out, "%s%s%s [OPTIONS]%s%s\n", p->name, is_named(p, verb) ? " " : "", is_named(p, verb) ? verb->name : "",
            verb->operands ? " " : "", verb->operands ? verb->operands : "");
}

/* The verbs that are called by name. */
static void print_verbs(FILE *out, const struct program *p)
{
    fputs("\nVerbs:\n", out);
    for (size_t i = p->single; i < p->count; i++) {
        fprintf(out, "  %-14s", p->verbs[i]->name);
        print_wrapped(out, p->verbs[i]->summary, 16, 16);
    }
    fprintf(out, "\n'%s help VERB' tells more of a verb", p->name);
}

void options_help(FILE *out, const struct program *program, const struct verb *verb)
{
    struct option_walk walk = {0};
    size_t offset;
    const char *heading;
    bool first = true;
    fputs("Usage: ", out);
    print_usage(out, program, verb);
    fputc('\n', out);
    print_wrapped(out, verb->summary, 0, 0);
    for (const struct option *o; (o = options_next(verb, &walk, &offset, &heading)); first = false) {
        if (first || heading)
            fprintf(out, "\n%s:\n", heading ? heading : "Options");
        print_option(out, o);
    }
    if (verb->details) {
        fputc('\n', out);
        print_wrapped(out, verb->details, 0, 0);
    }
    for (const struct example *e = verb->examples; e && e->command; e++)
        fprintf(out, "%s  %s\n        %s\n", e == verb->examples ? "\nExamples:\n" : "", e->command, e->what);
    if (!is_named(program, verb) && program->count > 1) {
        print_verbs(out, program);
        fputs(".\n", out);
    }
}

void options_overview(FILE *out, const struct program *program)
{
    fprintf(out, "Usage: %s VERB [OPTIONS] [ARGUMENTS]\n\n", program->name);
    print_wrapped(out, program->summary, 0, 0);
    print_verbs(out, program);
    fprintf(out, "; '%s --version' and '%s --cpu' of this build and machine.\n", program->name, program->name);
}

/* ---- settings --------------------------------------------------------------------------------------------------- */

/* The value as it could stand on a command line. */
static void print_value(FILE *out, const struct option *o, const void *field)
{
    const struct option_texts *texts = field;
    const struct option_counts *counts = field;
    const char *text;
    char shown[300];
    switch (o->kind) {
    case OPTION_SWITCH: fputs(*(const bool *)field ? "yes" : "no", out); break;
    case OPTION_TEXT:
    case OPTION_FILE:
    case OPTION_OPERAND:
        text = *(const char *const *)field;
        fprintf(out, text ? "'%s'" : "none", text ? text_escape(shown, sizeof shown, text, strlen(text)) : "");
        break;
    case OPTION_TEXTS: fprintf(out, "%zu given", texts->count); break;
    case OPTION_COUNTS:
        for (size_t i = 0; i < counts->count; i++)
            fprintf(out, i ? ",%zu" : "%zu", counts->items[i]);
        break;
    case OPTION_COUNT:
    case OPTION_BYTES: fprintf(out, "%zu", *(const size_t *)field); break;
    case OPTION_INT: fprintf(out, "%d", (int)*(const int32_t *)field); break;
    case OPTION_SEED: fprintf(out, "%llu", (unsigned long long)*(const uint64_t *)field); break;
    case OPTION_REAL: fprintf(out, "%g", (double)*(const float *)field); break;
    case OPTION_CHOICE:
        text = o->choices;
        for (int i = *(const int *)field; i > 0; i--)
            text = strchr(text, '|') + 1;
        fprintf(out, "%.*s", (int)strcspn(text, "|"), text);
        break;
    case OPTION_GROUP: break;
    }
}

void options_settings(FILE *out, const struct verb *verb, const void *settings, const char *const *from_model, size_t count)
{
    struct option_walk walk = {0};
    size_t offset;
    const char *heading;
    for (const struct option *o; (o = options_next(verb, &walk, &offset, &heading));) {
        const struct args *args = settings;
        const void *field = (const char *)settings + offset;
        const char *origin = options_given(verb, settings, o->name) ? "flag" : "default";
        if (o->kind == OPTION_OPERAND && args->operand_count)
            field = &args->operands[0], origin = "operand";
        for (size_t i = 0; i < count; i++)
            if (strcmp(from_model[i], o->name) == 0)
                origin = "model";
        fprintf(out, "%s = ", o->name);
        print_value(out, o, field);
        fprintf(out, " (%s)\n", origin);
    }
}

/* ---- manual ----------------------------------------------------------------------------------------------------- */

/* Text for roff: a backslash is doubled, a hyphen stays a hyphen, no line begins with a control character. */
static void print_roff(FILE *out, const char *text)
{
    bool start = true;
    for (; *text; text++) {
        if (start && (*text == '.' || *text == '\''))
            fputs("\\&", out);
        start = *text == '\n';
        if (*text == '\\')
            fputs("\\e", out);
        else if (*text == '-')
            fputs("\\-", out);
        else if (*text == '\n')
            fputs("\n.br\n", out);
        else
            fputc(*text, out);
    }
    fputc('\n', out);
}

static void manual_verb(FILE *out, const struct program *p, const struct verb *verb)
{
    struct option_walk walk = {0};
    size_t offset;
    const char *heading;
    if (is_named(p, verb)) {
        fputs(".SS ", out);
        print_usage(out, p, verb);
        print_roff(out, verb->summary);
    }
    for (const struct option *o; (o = options_next(verb, &walk, &offset, &heading));) {
        if (heading)
            fprintf(out, ".PP\n%s:\n", heading);
        fputs(".TP\n.B ", out);
        if (o->letter)
            fprintf(out, "\\-%c\\fR, \\fB", o->letter);
        fprintf(out, "\\-\\-%s%s%s\n", o->name, o->arg ? " \\fI" : "", o->arg ? o->arg : "");
        print_roff(out, o->help);
        if (o->kind == OPTION_CHOICE)
            fprintf(out, ".br\nOne of %s.\n", o->choices);
        if (o->fallback) {
            fputs(".br\nDefault: ", out);
            print_roff(out, o->fallback);
        }
    }
    if (verb->details) {
        fputs(".PP\n", out);
        print_roff(out, verb->details);
    }
}

static void manual_examples(FILE *out, const struct program *p)
{
    fputs(".SH EXAMPLES\n", out);
    for (size_t i = 0; i < p->count; i++)
        for (const struct example *e = p->verbs[i]->examples; e && e->command; e++) {
            fputs(".TP\n.B ", out);
            print_roff(out, e->command);
            print_roff(out, e->what);
        }
}

void options_manual(FILE *out, const struct program *p)
{
    fprintf(out, ".TH %s 1 \"\" \"quern %s\" \"User Commands\"\n.SH NAME\n%s \\- ", p->name, QUERN_VERSION, p->name);
    print_roff(out, p->summary);
    fputs(".SH SYNOPSIS\n", out);
    for (size_t i = 0; i < p->count; i++) {
        fputs(i ? ".br\n.B " : ".B ", out);
        print_usage(out, p, p->verbs[i]);
    }
    fprintf(out, ".SH %s\n", p->single ? "OPTIONS" : "VERBS");
    for (size_t i = 0; i < p->count; i++)
        manual_verb(out, p, p->verbs[i]);
    manual_examples(out, p);
    fputs(".SH EXIT STATUS\n"
          ".TP\n0\nsuccess\n.TP\n1\nfailure at run time (logits that are not finite, ...)\n.TP\n2\nwrong usage\n"
          ".TP\n3\ninvalid file\n.TP\n4\nvalid but unsupported\n.TP\n5\nnot enough memory, or more than the limit\n"
          ".TP\n6\nreading or writing failed\n.TP\n7\na quality gate was not met\n.TP\n8\na limit was met (context length, ...)\n"
          ".TP\n130, 141, 143\nended by SIGINT, SIGPIPE, SIGTERM\n"
          ".SH ENVIRONMENT\n.TP\n.B QUERN_CPU\nhighest instruction set to use: " CPU_WORDS "\n"
          ".TP\n.B NO_COLOR\nno colours on a terminal\n", out);
}

/* ---- completions ------------------------------------------------------------------------------------------------ */

/* Words between single quotes for any of the three shells; quotes inside are left out. */
static void print_quoted(FILE *out, const char *text, const char *drop)
{
    for (; *text; text++)
        if (*text != '\'' && !strchr(drop, *text))
            fputc(*text, out);
}

static bool takes_file(const struct option *o) { return o->kind == OPTION_FILE || o->kind == OPTION_OPERAND; }

static void print_choices(FILE *out, const char *choices, char between)
{
    for (; *choices; choices++)
        fputc(*choices == '|' ? between : *choices, out);
}

/* "quern-quantize" as part of a shell function's name. */
static void identifier(char *out, size_t size, const char *name)
{
    snprintf(out, size, "%s", name);
    for (; *out; out++)
        if (*out == '-')
            *out = '_';
}

/* The words that may follow the verb: after an option its choices, files or nothing; otherwise every option of the verb. */
static void bash_verb(FILE *out, const struct verb *verb, const char *indent)
{
    struct option_walk walk = {0};
    size_t offset;
    const char *heading;
    fprintf(out, "%scase $prev in\n", indent);
    for (const struct option *o; (o = options_next(verb, &walk, &offset, &heading));) {
        if (o->kind == OPTION_SWITCH)
            continue;
        fprintf(out, "%s    --%s", indent, o->name);
        if (o->letter)
            fprintf(out, "|-%c", o->letter);
        fputs(") ", out);
        if (o->choices) {
            fputs("COMPREPLY=($(compgen -W '", out);
            print_choices(out, o->choices, ' ');
            fputs("' -- \"$cur\"))", out);
        } else if (takes_file(o)) {
            fputs("COMPREPLY=($(compgen -f -- \"$cur\"))", out);
        } else {
            fputs("COMPREPLY=()", out);
        }
        fputs("; return ;;\n", out);
    }
    fprintf(out, "%sesac\n%swords='--help", indent, indent);
    walk = (struct option_walk){0};
    for (const struct option *o; (o = options_next(verb, &walk, &offset, &heading));)
        fprintf(out, " --%s", o->name);
    fputs("'\n", out);
}

/* A program with one main purpose completes its options at once; its other verbs are named first, so they are told by word 1, and
 * "*" comes last. */
static void bash(FILE *out, const struct program *p, const char *id)
{
    fprintf(out, "# bash completion for %s, written by '%s --generate bash'\n_%s()\n{\n", p->name, p->name, id);
    fputs("    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words=\n", out);
    if (p->single) {
        fputs("    case ${COMP_WORDS[1]} in\n", out);
        for (size_t i = p->count; i-- > 0;) {
            fprintf(out, "    %s)\n", i ? p->verbs[i]->name : "*");
            bash_verb(out, p->verbs[i], "        ");
            fputs("        ;;\n", out);
        }
        fputs("    esac\n", out);
    } else {
        fputs("    if [ \"$COMP_CWORD\" -eq 1 ]; then\n        COMPREPLY=($(compgen -W '", out);
        for (size_t i = 0; i < p->count; i++)
            fprintf(out, "%s ", p->verbs[i]->name);
        fputs("help --help --version --cpu' -- \"$cur\"))\n        return\n    fi\n    case ${COMP_WORDS[1]} in\n", out);
        for (size_t i = 0; i < p->count; i++) {
            fprintf(out, "    %s)\n", p->verbs[i]->name);
            bash_verb(out, p->verbs[i], "        ");
            fputs("        ;;\n", out);
        }
        fputs("    esac\n", out);
    }
    fprintf(out, "    case $cur in\n        -*) COMPREPLY=($(compgen -W \"$words\" -- \"$cur\")) ;;\n"
                 "        *) COMPREPLY=($(compgen -f -- \"$cur\")) ;;\n    esac\n}\n"
                 "complete -o filenames -F _%s %s\n", id, p->name);
}

/* Characters that mean something inside a zsh _arguments specification. */
#define ZSH_DROP "[]:\\`$"

static void zsh_verb(FILE *out, const struct verb *verb, const char *indent)
{
    struct option_walk walk = {0};
    size_t offset;
    const char *heading;
    fprintf(out, "%s_arguments -S '--help[show help]'", indent);
    for (const struct option *o; (o = options_next(verb, &walk, &offset, &heading));) {
        const char *star = o->kind == OPTION_TEXTS ? "*" : "";
        for (int form = o->letter ? 0 : 1; form < 2; form++) {
            fprintf(out, " \\\n%s    '%s", indent, star);
            if (form == 0)
                fprintf(out, "-%c", o->letter);
            else
                fprintf(out, "--%s%s", o->name, o->arg ? "=" : "");
            fputc('[', out);
            print_quoted(out, o->help, ZSH_DROP);
            fputc(']', out);
            if (o->arg) {
                fputc(':', out);
                print_quoted(out, o->arg, ZSH_DROP "|");
                fputc(':', out);
                if (o->choices) {
                    fputc('(', out);
                    print_choices(out, o->choices, ' ');
                    fputc(')', out);
                } else if (takes_file(o)) {
                    fputs("_files", out);
                }
            }
            fputc('\'', out);
        }
    }
    fprintf(out, " \\\n%s    '*:file:_files'\n", indent);
}

static void zsh(FILE *out, const struct program *p, const char *id)
{
    fprintf(out, "#compdef %s\n# zsh completion, written by '%s --generate zsh'\n_%s()\n{\n", p->name, p->name, id);
    if (p->single) {
        fputs("    case $words[2] in\n", out);
        for (size_t i = p->count; i-- > 0;) {
            fprintf(out, "    %s)\n", i ? p->verbs[i]->name : "*");
            zsh_verb(out, p->verbs[i], "        ");
            fputs("        ;;\n", out);
        }
        fputs("    esac\n", out);
    } else {
        fputs("    if (( CURRENT == 2 )); then\n        local -a verbs=(\n", out);
        for (size_t i = 0; i < p->count; i++) {
            fprintf(out, "            '%s:", p->verbs[i]->name);
            print_quoted(out, p->verbs[i]->summary, ZSH_DROP);
            fputs("'\n", out);
        }
        fputs("            'help:tell more of a verb')\n        _describe verb verbs\n        return\n    fi\n"
              "    local verb=$words[2]\n    shift words\n    (( CURRENT-- ))\n    case $verb in\n", out);
        for (size_t i = 0; i < p->count; i++) {
            fprintf(out, "    %s)\n", p->verbs[i]->name);
            zsh_verb(out, p->verbs[i], "        ");
            fputs("        ;;\n", out);
        }
        fputs("    esac\n", out);
    }
    fprintf(out, "}\n_%s \"$@\"\n", id);
}

static void fish(FILE *out, const struct program *p)
{
    fprintf(out, "# fish completion for %s, written by '%s --generate fish'\n", p->name, p->name);
    for (size_t i = 0; i < p->count; i++) {
        const struct verb *verb = p->verbs[i];
        struct option_walk walk = {0};
        size_t offset;
        const char *heading;
        if (is_named(p, verb)) {
            fprintf(out, "complete -c %s -n __fish_use_subcommand -f -a %s -d '", p->name, verb->name);
            print_quoted(out, verb->summary, "\\");
            fputs("'\n", out);
        }
        for (const struct option *o; (o = options_next(verb, &walk, &offset, &heading));) {
            fprintf(out, "complete -c %s", p->name);
            if (is_named(p, verb))
                fprintf(out, " -n '__fish_seen_subcommand_from %s'", verb->name);
            fprintf(out, " -l %s", o->name);
            if (o->letter)
                fprintf(out, " -s %c", o->letter);
            if (o->choices) {
                fputs(" -x -a '", out);
                print_choices(out, o->choices, ' ');
                fputc('\'', out);
            } else if (o->arg) {
                fputs(takes_file(o) ? " -r -F" : " -x", out);
            }
            fputs(" -d '", out);
            print_quoted(out, o->help, "\\");
            fputs("'\n", out);
        }
    }
}

bool options_completion(FILE *out, const struct program *program, const char *shell)
{
    char id[64];
    identifier(id, sizeof id, program->name);
    if (strcmp(shell, "bash") == 0)
        bash(out, program, id);
    else if (strcmp(shell, "zsh") == 0)
        zsh(out, program, id);
    else if (strcmp(shell, "fish") == 0)
        fish(out, program);
    else
        return false;
    return true;
}
