/* SPDX-License-Identifier: Apache-2.0 */
/* Directories that get their times when all that comes into them is there. */
#ifndef MOTE_TREE_UNFINISHED_H
#define MOTE_TREE_UNFINISHED_H

#include <limits.h>
#include <stddef.h>
#include <time.h>

struct tar_entry;

/*
 * Directories to which entries are still being added, each inside the one before. Adding changes
 * their times, which are set when the stream goes on elsewhere; streams are in the order of a walk.
 */
struct unfinished {
	char path[PATH_MAX]; /* of the innermost, cleaned */
	unsigned int depth;
	struct {
		size_t length; /* of its path */
		struct timespec mtime;
	} list[PATH_MAX / 2];
};

/* Finishes all that `path` is not inside of. One that somebody has taken away needs no time. */
void unfinished_finish(struct unfinished *unfinished, int dir, const char *path);

/* The path is inside of the innermost. */
void unfinished_begin(struct unfinished *unfinished, const char *path,
		      const struct tar_entry *entry);

/* Of an open directory. */
void unfinished_set_times(int dir, struct timespec mtime);

#endif
