/* SPDX-License-Identifier: Apache-2.0 */
/* The options about a command, which mote run and mote exec share. */
#ifndef MOTE_CLI_REQUEST_OPTIONS_H
#define MOTE_CLI_REQUEST_OPTIONS_H

#include <getopt.h>

struct session_request;

#define REQUEST_TIMEOUT 'T'
/* For getopt_long, which takes -T with them. */
#define REQUEST_SHORT "e:u:w:ti"
#define REQUEST_LONG                                                                               \
	{ "env", required_argument, NULL, 'e' }, { "user", required_argument, NULL, 'u' },         \
		{ "workdir", required_argument, NULL, 'w' },                                       \
		{ "timeout", required_argument, NULL, REQUEST_TIMEOUT },                           \
		{ "tty", no_argument, NULL, 't' },                                                 \
	{                                                                                          \
		"interactive", no_argument, NULL, 'i'                                              \
	}

#define REQUEST_HELP                                                                               \
	"  -e, --env NAME=VALUE set a variable; repeatable\n"                                      \
	"  -u, --user USER      run it as USER[:GROUP] of the image, names or numbers\n"           \
	"  -w, --workdir DIR    run it in this directory\n"                                        \
	"  --timeout TIME       kill it after TIME, as 500ms, 10s or 5m\n"                         \
	"  -t, --tty            give it a terminal; this one, if it is one\n"                      \
	"  -i, --interactive    pass standard input on, which is done anyway\n"

/* Takes one of them for `mote COMMAND`: 1; 0 if it is another one; -1 with all said. */
int request_option(struct session_request *request, const char *command, int option,
		   const char *value);

/* Says what is wrong with an option of `mote COMMAND`; returns -1. */
int request_usage_error(const char *command, const char *what, const char *value,
			const char *expected);

#endif
