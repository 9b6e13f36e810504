/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The creator of files: a process of its own that creates a snapshot's files for a VMM whose policy
 * creates nothing. Its own policy lets it do no more than that: a file begins under another name,
 * which did not exist, and takes its own only when it is whole. It has none of the VMM's
 * descriptors, and ends with it.
 */
#ifndef MOTE_VMM_SNAPSHOT_CREATOR_H
#define MOTE_VMM_SNAPSHOT_CREATOR_H

#include <stdbool.h>
#include <stdint.h>

struct err;

/* What a file's name ends with until it is kept. */
#define CREATOR_SUFFIX ".part"

struct creator {
	int fd; /* owned; -1 or 0: there is none */
};

/*
 * Starts it; `filtered`: under its policy. While the process has one thread, and before it opens
 * what others wait for the end of. 0 or -errno with err set; on failure there is nothing to close.
 */
int creator_open(struct creator *creator, bool filtered, struct err *err);
/* What is not kept by then goes. Safe on a zeroed object. */
void creator_close(struct creator *creator);

/*
 * A new file of `size` bytes, all of it a hole, with mode 0600, which is not at `path` yet; at most
 * two at a time. What is at `path`, if anything, has to be a regular file. A descriptor to write
 * to, or -errno with err naming the file. Main thread.
 */
int creator_create(struct creator *creator, const char *path, uint64_t size, struct err *err);
/*
 * Puts what was created for `path` there, in the place of what is there, and makes that last. 0 or
 * -errno with err set.
 */
int creator_keep(struct creator *creator, const char *path, struct err *err);
/*
 * Removes what is at `path`, for which there is a file to keep: from then until that is kept there
 * is none. 0 or -errno with err set.
 */
int creator_clear(struct creator *creator, const char *path, struct err *err);
/* Removes what was created for `path`, if anything. */
void creator_drop(struct creator *creator, const char *path);

#endif
