/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files below the root directory of an image that is being unpacked. Names and links are hostile:
 * links are followed as a program in the image would follow them, with `root` as its root
 * directory, so that none leads out.
 */
#ifndef MOTE_IMAGE_INSIDE_H
#define MOTE_IMAGE_INSIDE_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

/* Inode numbers. Zeroed it is empty; inode_set_free() makes it so again. */
struct inode_set {
	uint64_t *slots;
	size_t size, used;
};

int inode_set_add(struct inode_set *set, uint64_t inode);
bool inode_set_has(const struct inode_set *set, uint64_t inode);
void inode_set_free(struct inode_set *set);

/*
 * The name without leading, doubled and trailing slashes and without "."; empty for the root
 * itself. 0, -EPERM if it has "..", or -ENAMETOOLONG.
 */
int inside_clean(const char *name, char clean[PATH_MAX]);

/* What follows the last slash of a clean name. */
const char *inside_base(const char *clean);

/* The directory (O_PATH, the caller's) that a clean path leads to, or -errno. */
int inside_open(int root, const char *path);
/*
 * The same; what is missing is made, with times of 0 and without a change of others', and what is
 * in the way, but a directory, is removed.
 */
int inside_make(int root, const char *path);

/* Sets the time of modification, and of access, of what is open, with O_PATH, too. */
int inside_set_time(int fd, struct timespec time);

/*
 * Removes `base` in the directory and all below it, but what is in `keep` (NULL: nothing) and the
 * directories that it is in. `base` "." stands for all that is in the directory. Changes the
 * working directory. 0 or -errno.
 */
int inside_remove(int dir, const char *base, const struct inode_set *keep);

#endif
