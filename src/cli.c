/* What every program does at its start and end, signals, and what a terminal sees: see cli.h. */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "machine.h"

/* The only mutable globals of the programs: a signal handler has no other way to be told or to tell. */
static volatile int signal_seen;
static const char *program_name = "quern";

/* ---- start and end ---------------------------------------------------------------------------------------------- */

/* Only async-signal-safe calls. Whatever was not flushed is lost: it was computed from bytes that are gone. */
static void on_bus_error(int number)
{
    static const char text[] = ": a model file changed while in use, or its disk cannot be read (SIGBUS)\n";
    (void)number;
    ssize_t ignored = write(2, program_name, strlen(program_name));
    ignored = write(2, text, sizeof text - 1);
    (void)ignored;
    _exit(QUERN_EIO);
}

void cli_start(const char *program)
{
    program_name = program;
    /* A file opened later must not become descriptor 0, 1 or 2. stdout is opened for reading, so that writing to it fails and
     * is reported as it would be without us. */
    static const int modes[3] = {O_RDONLY, O_RDONLY, O_WRONLY};
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) == -1 && errno == EBADF && open("/dev/null", modes[fd]) == -1)
            _exit(QUERN_EIO);
    struct sigaction action = {.sa_handler = on_bus_error};
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, NULL);
    /* A file that hits a size limit must end in a write error and a sentence, not in a dead process. A closed pipe ends the
     * program as it ends every filter: silently, with the signal's status. */
    signal(SIGXFSZ, SIG_IGN);
    signal(SIGPIPE, SIG_DFL);
}

/* The first signal asks for a clean end, the second takes no more questions. */
static void on_stop(int number)
{
    if (signal_seen) {
        signal(number, SIG_DFL);
        raise(number);
    }
    signal_seen = number;
}

const volatile int *cli_catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_stop, .sa_flags = 0};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    return &signal_seen;
}

/* What was computed before an error goes out first, so that a sentence never stands in the middle of a line of output. */
int cli_fail(const struct quern_error *err)
{
    if (err->code == QUERN_EINTERRUPT)
        return 128 + (signal_seen ? signal_seen : SIGINT);
    fflush(stdout);
    fprintf(stderr, "%s: %s\n", program_name, err->text);
    return err->code;
}

void cli_warn(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    fprintf(stderr, "%s: warning: ", program_name);
    vfprintf(stderr, format, list);
    fputc('\n', stderr);
    va_end(list);
}

/* Output that could not be written is an error even when everything else went well: a full disk must not look like success. */
int cli_finish(int code)
{
    errno = 0;
    bool bad = fflush(stdout) != 0;
    int why = errno;
    bad = ferror(stdout) || bad;
    if (!bad && close(dup(1)) != 0)            /* NFS and the like report a full disk here */
        bad = true, why = errno;
    if (!bad || code != 0)
        return code;
    fprintf(stderr, "%s: cannot write to standard output: %s\n", program_name, strerror(why ? why : EIO));
    return QUERN_EIO;
}

bool cli_begin(const struct program *program, const struct verb *verb, int argc, char **argv, void *settings, int *code)
{
    struct quern_error err;
    const struct args *args = settings;
    if (!options_parse(verb, argc, argv, settings, &err)) {
        options_free(verb, settings);
        *code = cli_fail(&err);
        return false;
    }
    if (!args->help)
        return true;
    options_help(stdout, program, verb);
    options_free(verb, settings);
    *code = cli_finish(0);
    return false;
}

int cli_end(const struct verb *verb, void *settings, int code)
{
    options_free(verb, settings);
    return cli_finish(code);
}

/* `--generate man|bash|zsh|fish`: that on stdout. */
static int write_generated(const struct program *program, const char *what)
{
    if (what && strcmp(what, "man") == 0)
        options_manual(stdout, program);
    else if (!what || !options_completion(stdout, program, what)) {
        fprintf(stderr, "%s: --generate needs one of man, bash, zsh, fish\n", program_name);
        return QUERN_EUSAGE;
    }
    return cli_finish(0);
}

int cli_surplus(const char *word)
{
    char shown[120];
    fprintf(stderr, "%s: one argument too many: '%s'\n", program_name, text_escape(shown, sizeof shown, word, strlen(word)));
    return QUERN_EUSAGE;
}

/* ---- the first word --------------------------------------------------------------------------------------------- */

static const struct verb *find_verb(const struct program *program, const char *name)
{
    for (size_t i = 0; i < program->count; i++)
        if (strcmp(program->verbs[i]->name, name) == 0)
            return program->verbs[i];
    return NULL;
}

/* A word that is neither: said as what it looks like, with what it may have meant. It is shown as a terminal may show it: it can be
 * anything. */
static int unknown_word(const struct program *program, const char *word)
{
    enum { MOST = 32 };
    static const char *const options[] = { "--help", "--version", "--cpu", "--generate" };
    const char *names[MOST];
    bool option = word[0] == '-';
    size_t count = 0;
    char shown[120];
    for (; count < program->count && count < MOST; count++)
        names[count] = program->verbs[count]->name;
    const char *kind = option ? "option" : "verb";
    const char *meant = option ? options_nearest(word, options, sizeof options / sizeof *options)
                               : options_nearest(word, names, count);
    text_escape(shown, sizeof shown, word, strlen(word));
    if (meant)
        fprintf(stderr, "%s: unknown %s '%s': did you mean '%s'?\n", program_name, kind, shown, meant);
    else
        fprintf(stderr, "%s: unknown %s '%s'; '%s --help' lists them%s\n", program_name, kind, shown, program_name,
                program->single ? "" : option ? "; those of a verb stand behind it: quern run -m FILE"
                                : strstr(word, ".gguf") ? "; a model stands behind one: quern run FILE" : "");
    return QUERN_EUSAGE;
}

static bool is_help(const char *word)
{
    return strcmp(word, "help") == 0 || strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

/* `help` and `help VERB`, in any of the three spellings. */
static int help(const struct program *program, const char *name)
{
    const struct verb *verb = name && !is_help(name) ? find_verb(program, name) : program->single ? program->verbs[0] : NULL;
    if (name && !verb && !is_help(name))
        return unknown_word(program, name);
    if (verb)
        options_help(stdout, program, verb);
    else
        options_overview(stdout, program);
    return cli_finish(0);
}

/* Words before any verb are few; everything else is a verb's own business, --help behind it too. */
int cli_main(const struct program *program, int argc, char **argv)
{
    cli_start(program->name);
    if (argc < 2 && !program->single) {
        options_overview(stderr, program);
        return QUERN_EUSAGE;
    }
    const char *word = argc > 1 ? argv[1] : "";
    bool helps = is_help(word), version = strcmp(word, "--version") == 0, generate = strcmp(word, "--generate") == 0;
    int most = version ? 2 : helps || generate ? 3 : argc;
    if (argc > most)
        return cli_surplus(argv[most]);
    if (helps)
        return help(program, argv[2]);
    if (version) {
        printf("%s %s\n", program->name, QUERN_VERSION);
        return cli_finish(0);
    }
    if (generate)
        return write_generated(program, argv[2]);
    const struct verb *verb = find_verb(program, word);
    if (verb && !(program->single && verb == program->verbs[0]))
        return verb->main(argc - 1, argv + 1);
    return program->single ? program->verbs[0]->main(argc, argv) : unknown_word(program, word);
}

/* ---- terminal --------------------------------------------------------------------------------------------------- */

bool cli_terminal(int fd)
{
    const char *term = getenv("TERM");
    return isatty(fd) && !(term && strcmp(term, "dumb") == 0);
}

void progress_begin(struct progress *p, const char *what)
{
    *p = (struct progress){.what = what, .begin = machine_clock(), .on = true, .terminal = cli_terminal(2)};
}

/* For logs. One call, so that lines of several programs do not mix. */
static void show_line(struct progress *p, double share, double spent)
{
    static const double QUIET = 10;      /* seconds */
    int tenths = 1 + (int)(share * 10);
    if (spent < QUIET || tenths <= p->lines)
        return;
    p->lines = tenths;
    long left = share > 0 ? (long)(spent / share * (1 - share) + 0.5) : 0;
    if (left > 0)
        fprintf(stderr, "%s: %.0f %%, about %ld:%02ld left\n", p->what, 100 * share, left / 60, left % 60);
    else
        fprintf(stderr, "%s: %.0f %%\n", p->what, 100 * share);
}

void progress_show(struct progress *p, double share)
{
    /* Ten times a second is enough to look alive and too little to cost anything. */
    enum { WIDTH = 30 };
    double now = machine_clock(), spent = now - p->begin;
    if (p->on && !p->terminal)
        show_line(p, share, spent);
    if (!p->on || !p->terminal || (now - p->shown < 0.1 && share < 1))
        return;
    p->shown = now;
    int full = (int)(share * WIDTH);
    fprintf(stderr, "\r%s [", p->what);
    for (int i = 0; i < WIDTH; i++)
        fputc(i < full ? '#' : '.', stderr);
    fprintf(stderr, "] %3.0f %%", 100 * share);
    /* No guess in the first second: it would be wrong by a factor. */
    if (share > 0 && spent > 1) {
        long left = (long)(spent / share * (1 - share) + 0.5);
        fprintf(stderr, ", %ld:%02ld left ", left / 60, left % 60);
    }
    fputs("\033[K", stderr);
    fflush(stderr);
}

void progress_aside(struct progress *p)
{
    if (p->on && p->terminal)
        fputs("\r\033[K", stderr);
    p->shown = 0;
}

void progress_end(struct progress *p)
{
    progress_aside(p);
    long spent = (long)(machine_clock() - p->begin);
    if (p->on && p->lines)
        fprintf(stderr, "%s: ended after %ld:%02ld\n", p->what, spent / 60, spent % 60);
    p->on = false;
}

void progress_step(void *progress, const char *what, double share)
{
    struct progress *p = progress;
    if (p->what != what) {
        if (p->what)
            progress_end(p);
        progress_begin(p, what);
    }
    progress_show(p, share);
}

const char *cli_bytes(char *out, size_t size, size_t bytes)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    size_t unit = 0;
    /* A larger unit from 1000 on, not from 1024, keeps all numbers within three digits before the point. */
    for (; value >= 1000 && unit < 4; unit++)
        value /= 1024;
    snprintf(out, size, unit == 0 ? "%.0f %s" : "%.2f %s", value, units[unit]);
    return out;
}
