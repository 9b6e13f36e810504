/* SPDX-License-Identifier: Apache-2.0 */
/* Paths of a stream, all of which are below a directory. */
#ifndef MOTE_TREE_BELOW_H
#define MOTE_TREE_BELOW_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

/* Symbolic links on the way are followed, as if `dir` were the root of all. */
int below_open(int dir, const char *path, uint64_t flags);

/* The path without its first `strip` parts. False if it has a part "..", or is too long. */
bool below_clean(const char *path, unsigned int strip, char clean[PATH_MAX]);

#endif
