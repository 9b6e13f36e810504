/* SPDX-License-Identifier: Apache-2.0 */
/* The options about a command, which mote run and mote exec share. */
#ifndef MOTE_CLI_REQUEST_OPTIONS_H
#define MOTE_CLI_REQUEST_OPTIONS_H

#include <getopt.h>

struct session_request;

#define REQUEST_TIMEOUT 'T'
#define REQUEST_ENV_FILE 'E'
/* For getopt_long, which takes -T with them. */
#define REQUEST_SHORT "e:u:w:tin"
#define REQUEST_LONG                                                                               \
	{ "env", required_argument, NULL, 'e' }, { "user", required_argument, NULL, 'u' },         \
		{ "workdir", required_argument, NULL, 'w' },                                       \
		{ "env-file", required_argument, NULL, REQUEST_ENV_FILE },                         \
		{ "no-stdin", no_argument, NULL, 'n' },                                            \
		{ "timeout", required_argument, NULL, REQUEST_TIMEOUT },                           \
		{ "tty", no_argument, NULL, 't' },                                                 \
	{                                                                                          \
		"interactive", no_argument, NULL, 'i'                                              \
	}

#define REQUEST_HELP                                                                               \
	"  -e, --env NAME[=VALUE]\n"                                                               \
	"                       set a variable, to what it is here without VALUE; repeatable\n"    \
	"  --env-file FILE      the same for each line of FILE; those that begin with # are "      \
	"none\n"                                                                                   \
	"  -u, --user USER      run it as USER[:GROUP] of the image, names or numbers\n"           \
	"  -w, --workdir DIR    run it in this directory, which mote run makes if need be\n"       \
	"  --timeout TIME       kill it after TIME, as 500ms, 10s or 5m\n"                         \
	"  -t, --tty            give it a terminal; this one, if it is one\n"                      \
	"  -i, --interactive    pass standard input on, which is done anyway\n"                    \
	"  -n, --no-stdin       do not: it finds nothing to read, and a loop's input is not "      \
	"eaten\n"

/* Takes one of them for `mote COMMAND`: 1; 0 if it is another one; -1 with all said. */
int request_option(struct session_request *request, const char *command, int option,
		   const char *value);

/* What is on a terminal is told which one, unless it is told otherwise. */
void request_add_terminal(struct session_request *request);

/* Says what is wrong with an option of `mote COMMAND`; returns -1. */
int request_usage_error(const char *command, const char *what, const char *value,
			const char *expected);

#endif
