/* SPDX-License-Identifier: Apache-2.0 */
/* The options of mote run about what the command finds, and how it is ended. */
#ifndef MOTE_CLI_RUN_SETTINGS_H
#define MOTE_CLI_RUN_SETTINGS_H

#include <getopt.h>
#include <jansson.h>
#include <stdint.h>

#include "cli/run_names.h"

struct session_request;

#define DEFAULT_STOP_TIMEOUT_MS 10000

struct run_settings {
	const char *entrypoint; /* instead of the image's entry point and command; NULL: those */
	struct run_names names;
	json_t *labels;		 /* owned; an object */
	int stop_signal;	 /* 0: the image's, or SIGTERM */
	int64_t stop_timeout_ms; /* until a command that does not end is killed */
	unsigned int tmpfs_count;
	char tmpfs[1024]; /* words for the kernel's command line, each after a space */
};

#define RUN_SETTINGS_FIRST 512 /* what getopt_long returns for them begins here */
#define RUN_SETTINGS_COUNT 23

/* For getopt_long. */
void run_settings_options(struct option options[RUN_SETTINGS_COUNT]);

#define RUN_SETTINGS_HELP                                                                          \
	"  --entrypoint PROGRAM run this instead of the image's entry point and command; \"\" "    \
	"for "                                                                                     \
	"none\n"                                                                                   \
	"  --hostname NAME      the guest's host name (default: its name)\n"                       \
	"  --add-host NAME:ADDRESS\n"                                                              \
	"                       a line of its /etc/hosts; repeatable\n"                            \
	"  --dns ADDRESS, --dns-search DOMAIN, --dns-option WORD\n"                                \
	"                       for its /etc/resolv.conf instead of the host's; repeatable\n"      \
	"  --tmpfs PATH[:OPTIONS]\n"                                                               \
	"                       memory at PATH: size=, mode=, uid=, gid=, exec, suid, dev, ro\n"   \
	"  --ulimit NAME=SOFT[:HARD]\n"                                                            \
	"                       a limit of the command's, as nofile=1024:2048; -1 for none\n"      \
	"  --stop-signal SIGNAL what `mote kill` sends first (default: the image's, or TERM)\n"    \
	"  --stop-timeout TIME  and how long it then waits (default 10s)\n"                        \
	"  --label NAME[=VALUE] for `mote inspect`; repeatable\n"                                  \
	"  --init               nothing: process 1 is an init in any case, and never the "         \
	"command\n"

/* Takes one of them: 1; 0 if it is another one; -1 with all said. */
int run_settings_option(struct run_settings *settings, struct session_request *request, int option,
			const char *value);
/* Safe on a zeroed object. */
void run_settings_close(struct run_settings *settings);

#endif
