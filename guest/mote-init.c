/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PID 1 of a microVM: makes a machine of what the kernel starts with, then serves what the host
 * asks for (docs/agent-protocol.md). It never returns.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "guest/agent.h"
#include "guest/setup.h"

int main(void)
{
	static struct agent agent;

	if (getpid() != 1) {
		fputs("mote-init: it is PID 1 of a microVM and nothing else\n", stderr);
		return EXIT_FAILURE;
	}
	setup_devices();
	if (!agent_open(&agent)) {
		fprintf(stderr,
			"mote-init: vsock: %s; the kernel needs it built in or as modules "
			"in the initrd\n",
			strerror(errno));
		setup_power_off();
	}
	/* The host takes its time over its first request: set up meanwhile. */
	agent.broken = setup_system(&agent.failure) < 0;
	agent_run(&agent);
}
