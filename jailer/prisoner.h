/* SPDX-License-Identifier: Apache-2.0 */
/* The process that becomes the VMM: from its birth in a PID namespace of its own to exec. */
#ifndef MOTE_JAILER_PRISONER_H
#define MOTE_JAILER_PRISONER_H

#include <signal.h>
#include <stdint.h>
#include <sys/types.h>

struct cgroup;
struct err;
struct jailer_args;
struct tree;

/* What the keeper has prepared. The descriptors are closed on exec. */
struct prison {
	const struct jailer_args *args;
	const struct tree *tree;
	const struct cgroup *cgroup;
	int netns_fd;	/* -1: a new one */
	int null_fd;	/* /dev/null of the host, with --daemonize; -1 */
	int go_read;	/* a byte when the tree is complete; its end when the keeper has ended */
	int go_write;	/* the keeper's */
	int fault_read; /* the keeper's; ends with exec, or the sentence of what failed comes first
			 */
	int fault_write;
	sigset_t keepers; /* blocked signals that are not the VMM's */
	int64_t start_us; /* CLOCK_MONOTONIC */
};

/* A new process, the first of its PID namespace: its id, or -errno with err set. */
pid_t prisoner_start(const struct prison *prison, struct err *err);

#endif
