/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of mote run. */
#ifndef MOTE_CLI_RUN_OPTIONS_H
#define MOTE_CLI_RUN_OPTIONS_H

#include <stdbool.h>

#include "cli/run_devices.h"
#include "cli/run_settings.h"
#include "cli/run_volumes.h"
#include "cli/session.h"
#include "host/image_config.h"
#include "host/jail.h"
#include "host/passt.h"
#include "host/sandbox.h"

struct run_options {
	struct sandbox_config config; /* refers to the rest */
	char boot_args[4096];	      /* what is longer than the kernel takes, the VMM refuses */
	char image[PATH_MAX];	      /* empty: the default one */
	struct image_config image_config;
	struct session_request request;
	struct run_devices devices;
	struct run_settings settings;
	struct run_volumes volumes;
	struct passt_ports ports;
	struct jail jail;
	const char *name;
	const char *image_name; /* as it was given; NULL: the default one */
	bool detach;
	bool forget; /* --rm */
	bool timing;
	bool verbose;
	bool json_result;
	const char *json_path; /* NULL: standard error */
};

/*
 * True if there is something to run. Otherwise all is said, and *status is what to exit with. Close
 * it in either case.
 */
bool run_options_parse(struct run_options *options, int argc, char **argv, int *status);
void run_options_close(struct run_options *options);

#endif
