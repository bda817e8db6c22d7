/* cmd.h - the verbs of quern. Each is one file, src/cmd_NAME.c, with its option table and `int cmd_NAME(int argc, char **argv)`,
 * whose argv[0] is the verb. A new verb is that file, two lines here and one row in main.c. */
#ifndef QUERN_CMD_H
#define QUERN_CMD_H

#include "cli.h"

extern const struct program quern_program;

extern const struct verb verb_run, verb_eval, verb_logits, verb_bench;
int cmd_run(int argc, char **argv);
int cmd_eval(int argc, char **argv);
int cmd_logits(int argc, char **argv);
int cmd_bench(int argc, char **argv);

extern const struct verb verb_tokenize, verb_detokenize;
int cmd_tokenize(int argc, char **argv);
int cmd_detokenize(int argc, char **argv);
extern const struct verb verb_show, verb_verify;
int cmd_show(int argc, char **argv);
int cmd_verify(int argc, char **argv);

#endif
