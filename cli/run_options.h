/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of mote run. */
#ifndef MOTE_CLI_RUN_OPTIONS_H
#define MOTE_CLI_RUN_OPTIONS_H

#include <jansson.h>
#include <stdbool.h>

#include "cli/run_devices.h"
#include "cli/sandbox.h"

struct run_options {
	struct sandbox_config config; /* refers to the rest */
	char boot_args[4096];	      /* what is longer than the kernel takes, the VMM refuses */
	json_t *env;		      /* owned; of strings NAME=VALUE */
	struct run_devices devices;
	bool timing;
	bool verbose;
};

/*
 * True if there is a command to run, which begins at argv[optind]. Otherwise all is said, and
 * *status is what to exit with. Close it in either case.
 */
bool run_options_parse(struct run_options *options, int argc, char **argv, int *status);
void run_options_close(struct run_options *options);

#endif
