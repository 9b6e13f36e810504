/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Serves requests on vsock, one a stream, several at a time. Nothing that one client or program
 * does or leaves undone keeps it from the others.
 */
#ifndef MOTE_GUEST_AGENT_H
#define MOTE_GUEST_AGENT_H

#include <stdbool.h>
#include <stdint.h>

#include "guest/failure.h"

#define AGENT_CONNECTIONS_MAX 128

struct connection;

struct agent {
	int listener;
	int signals;
	unsigned int count; /* of connections */
	struct connection *connections;
	bool broken; /* the machine could not be set up, failure says why */
	struct failure failure;
	int64_t epoch; /* of the last resume; 0: none yet */
	bool ending;
	int64_t end_ns;	 /* when it ends by force, if it is ending */
	bool all_exited; /* while it is ending */
};

/*
 * Listens, and connects to a host that waits for this. SIGCHLD and such are blocked from now on.
 * False with errno set if nobody could ever reach it.
 */
bool agent_open(struct agent *agent);
/* Never returns: the machine is off in the end. */
_Noreturn void agent_run(struct agent *agent);

#endif
