/* SPDX-License-Identifier: Apache-2.0 */
/* What the subcommands of `mote` share: their entry points, exit statuses and how they print. */
#ifndef MOTE_CLI_CLI_H
#define MOTE_CLI_CLI_H

#include <jansson.h>
#include <stdbool.h>

struct err;

/* Exit statuses of mote itself; a command's own status is passed through. */
#define CLI_EXIT_FAILURE 1
#define CLI_EXIT_USAGE 2
#define CLI_EXIT_SANDBOX 125 /* the microVM could not be started, or ended before its command */
#define CLI_EXIT_TIMEOUT 124 /* the command was killed as its time was over */

/* Subcommands: argv[0] is the subcommand's name. They return the process's exit status. */
int cli_run(int argc, char **argv);
int cli_exec(int argc, char **argv);
int cli_cp(int argc, char **argv);
int cli_ps(int argc, char **argv);
int cli_kill(int argc, char **argv);
int cli_logs(int argc, char **argv);
int cli_stats(int argc, char **argv);
int cli_inspect(int argc, char **argv);
int cli_rm(int argc, char **argv);
int cli_api(int argc, char **argv);
int cli_doctor(int argc, char **argv);
int cli_image(int argc, char **argv);
int cli_kernel(int argc, char **argv);

/*
 * Makes one line without control characters of a text which may have bytes of a guest's: they are
 * not to reach the terminal.
 */
void cli_clean(char *text);

/* Prints "mote: SENTENCE", cleaned, to standard error and returns status. */
int cli_fail(int status, const struct err *err);

/* Whether the word asks for help. */
bool cli_is_help(const char *word);

/* What `mote doctor` says of a KVM on which Linux does not boot; NULL: it does, or nobody knows. */
const char *cli_why_no_linux(void);

/*
 * JSON as json_dumps writes it, but with all control characters as escapes: they are not to reach
 * the terminal. To be freed; NULL without memory.
 */
char *cli_json_text(const json_t *json, size_t flags);
/* To standard output, indented. */
void cli_print_json(const json_t *json);

#endif
