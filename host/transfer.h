/* SPDX-License-Identifier: Apache-2.0 */
/* Files and trees into a guest and out of it, through its agent. They wait. */
#ifndef MOTE_HOST_TRANSFER_H
#define MOTE_HOST_TRANSFER_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct err;
struct tree_counts;

/* What ends a transfer, besides a guest that does not go on with it; NULL: nothing else does. */
struct transfer_bounds {
	bool (*interrupted)(void *opaque); /* asked while interrupt_fd is readable; NULL: never */
	int interrupt_fd;
	void *opaque;
	int64_t time_ms;    /* that it may take; 0: any */
	uint64_t bytes_max; /* that the guest may send; 0: any number */
	uint64_t files_max; /* the same */
	bool update;	    /* files that are the same already are left as they are */
};

/*
 * The end of a transfer on the host: what is put, open as tree_open does it, and what it is called;
 * or the open directory that something is got into, and what it becomes there. fd -1: a tar
 * stream on standard input or output.
 */
struct transfer_end {
	int fd;
	const char *name;
};

/*
 * In all of them `counts`, if it is not NULL, is how much it was: as the guest tells it in
 * transfer_put, and of a tar stream to standard output.
 *
 * Puts what is `here` to the path `remote`: into it, if that is a directory there or ends with a
 * slash; as it, otherwise. A volume becomes that directory, and hides what the image has there.
 * What comes belongs to `owner`, as an exec's user is written; NULL: to the numbers that it has
 * here. 0 or -errno with err set.
 */
int transfer_put(const char *vsock, const struct transfer_end *here, const char *remote,
		 const char *owner, bool volume, const struct transfer_bounds *bounds,
		 struct tree_counts *counts, struct err *err);

/*
 * Gets `remote`, or what it leads to if it is a symbolic link and `follow`. Devices, fifos and
 * setuid bits are left out, nothing is written elsewhere, whatever the guest sends. 0 or -errno
 * with err set.
 */
int transfer_get(const char *vsock, const char *remote, bool follow,
		 const struct transfer_end *here, const struct transfer_bounds *bounds,
		 struct tree_counts *counts, struct err *err);

/* Any request that is answered with a result: it, a new object, or NULL with err set. */
json_t *transfer_ask(const char *vsock, const char *request, const struct transfer_bounds *bounds,
		     struct err *err);

#endif
