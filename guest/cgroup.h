/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A control group (v2) for the programs of one request: what ends them all, and tells what they
 * took. Where the kernel has none of it, everything here does nothing.
 */
#ifndef MOTE_GUEST_CGROUP_H
#define MOTE_GUEST_CGROUP_H

#include <stdbool.h>
#include <stdint.h>

struct cgroup {
	unsigned int number;
	int fd;	       /* owned: its folder; -1: none */
	int events_fd; /* owned: poll() tells POLLPRI when populated may have changed; -1: none */
};

struct cgroup_usage {
	uint64_t user_us;
	uint64_t system_us;
	uint64_t memory_peak; /* bytes */
	uint64_t oom_kills;
};

void cgroup_open(struct cgroup *cgroup);
/* Removes it. What still runs in it runs on; it is removed then by a later cgroup_open. */
void cgroup_close(struct cgroup *cgroup);

void cgroup_kill(const struct cgroup *cgroup);
/* Whether processes are in it, zombies not counted. */
bool cgroup_populated(struct cgroup *cgroup);
/* False if it does not tell, and usage is as it was. */
bool cgroup_usage(const struct cgroup *cgroup, struct cgroup_usage *usage);

#endif
