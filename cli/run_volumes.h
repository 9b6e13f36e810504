/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directories of the host that go into the guest before its command runs, and come back after it.
 * They are copies: nobody sees what the other does meanwhile, and what was removed in the guest
 * stays on the host.
 */
#ifndef MOTE_CLI_RUN_VOLUMES_H
#define MOTE_CLI_RUN_VOLUMES_H

#include <stdbool.h>
#include <stddef.h>

struct err;
struct transfer_bounds;

#define RUN_VOLUMES_MAX 16

struct run_volume {
	int fd;		  /* owned; the directory, which its path may not lead to any more */
	const char *path; /* not owned */
	bool read_only;
};

struct run_volumes {
	struct run_volume list[RUN_VOLUMES_MAX];
	size_t count;
};

/* DIR:PATH[:ro], which is changed. 0; -EINVAL without err; or -errno with err set. */
int run_volumes_add(struct run_volumes *volumes, char *argument, struct err *err);
void run_volumes_close(struct run_volumes *volumes);

/*
 * What goes in belongs to `owner`, or to root if that is NULL. Each volume may take ten minutes,
 * and 16 GiB and a million files come back of it at most: the guest is not to fill the host's disk,
 * nor to keep its caller for ever. `bounds` tells what else ends it. 0 or -errno with err set.
 */
int run_volumes_put(const struct run_volumes *volumes, const char *vsock, const char *owner,
		    const struct transfer_bounds *bounds, struct err *err);
int run_volumes_get(const struct run_volumes *volumes, const char *vsock,
		    const struct transfer_bounds *bounds, struct err *err);

#endif
