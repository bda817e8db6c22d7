/* cli.h - what every program of the house does the same way: start, read its options, catch signals, report, end.
 *
 *     static const struct verb verb_show = {...};
 *     int cmd_show(int argc, char **argv)
 *     {
 *         struct show_args args;
 *         int code;
 *         if (!cli_begin(&quern_program, &verb_show, argc, argv, &args, &code))
 *             return code;                       help was shown, or the usage was wrong
 *         code = ...;                            cli_fail(&err) prints the error and gives its exit code
 *         return cli_end(&verb_show, &args, code);
 *     }
 *
 * These functions write to stdout and stderr, so only programs call them. */
#ifndef QUERN_CLI_H
#define QUERN_CLI_H

#include "options.h"

/* First thing in main: closed standard streams become /dev/null, SIGXFSZ is ignored (a write then fails with EFBIG), SIGPIPE ends
 * the program quietly, a file that is cut short under its mapping ends it with exit 6 and a sentence. `program` is the name for
 * messages and must live on. */
void cli_start(const char *program);

/* Parse; for --help print it. False when there is nothing more to do: *code is the exit code, everything is freed. */
bool cli_begin(const struct program *program, const struct verb *verb, int argc, char **argv, void *settings, int *code);
/* Free the settings, then cli_finish. */
int cli_end(const struct verb *verb, void *settings, int code);
/* Flush stdout; gives `code`, or 6 with a sentence when it was 0 and the output did not all arrive. */
int cli_finish(int code);
/* The main function of every program: cli_start, then what the first word asks for: `help [VERB]` (also --help, -h), --version,
 * --generate, a verb. In a program with one main purpose (program->single) other words are its arguments, elsewhere errors. */
int cli_main(const struct program *program, int argc, char **argv);
/* Words behind what takes none are a mistake: half of what was asked for must not look like all of it. Says so; the exit code. */
int cli_surplus(const char *word);

/* "PROGRAM: TEXT" on stderr; gives the exit code. For an interruption nothing is printed and the code is 128 + the signal. */
int cli_fail(const struct quern_error *err);
void cli_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* From here on the first SIGINT or SIGTERM only sets the flag that is returned (to the signal's number), for
 * quern_session_options.stop; the second ends the program. */
const volatile int *cli_catch_signals(void);

/* Is this descriptor a terminal that can be written to in place (not TERM=dumb)? */
bool cli_terminal(int fd);

/* ---- progress on stderr ------------------------------------------------------------------------------------------
 * A bar with the time left on a terminal. Elsewhere, of work that takes more than ten seconds, a plain line whenever another tenth
 * is begun and one at the end: a log then tells what goes on, and short work leaves it clean. */
struct progress {
    const char *what;
    double      begin, shown;      /* machine_clock */
    bool        on, terminal;
    int         lines;             /* elsewhere: the tenth, from 1, that the last line was told in; 0: none yet */
};
void progress_begin(struct progress *p, const char *what);
void progress_show(struct progress *p, double share);      /* 0..1 */
void progress_aside(struct progress *p);                   /* clears the bar, for a message; progress_show draws it again */
void progress_end(struct progress *p);                     /* clears the bar, or says how long it took */
/* For work that names its own steps: begins anew where `what` is another pointer than before. `progress`: a struct progress. */
void progress_step(void *progress, const char *what, double share);

/* "1.5 GiB", "812 KiB": for people. Gives `out`. */
const char *cli_bytes(char *out, size_t size, size_t bytes);

#endif
