/* SPDX-License-Identifier: Apache-2.0 */
/* What mote run tells of a run behind its command's own output. */
#ifndef MOTE_CLI_RUN_RESULT_H
#define MOTE_CLI_RUN_RESULT_H

#include <stdint.h>

#include "cli/session.h"
#include "host/sandbox.h"

struct run_result {
	int exit_status;
	const struct session_result *session;
	struct sandbox_phases phases;
	int64_t agent_us;  /* the agent answered; since exec of mote-vmm, -1 where not reached */
	int64_t done_us;   /* the command was done */
	const char *error; /* the sentence why it failed; NULL: it did not */
};

/* The phases, for people, on standard error. */
void run_result_print(const struct run_result *result);
/* One JSON object, as a line of standard error, or in the file. 0 or -errno with err set. */
int run_result_write(const struct run_result *result, const char *path, struct err *err);

#endif
