/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directories for state of one's own, which nobody else can exchange or change: they, and all on
 * the way to them, belong to root or to whoever runs this, and nobody else can write to them.
 */
#ifndef MOTE_BASE_OWN_DIR_H
#define MOTE_BASE_OWN_DIR_H

#include <stdbool.h>
#include <sys/types.h>

struct err;

/*
 * Whether the open directory is such a one. In a sticky one, as /tmp is, others can add something
 * but exchange nothing: that will do on the way to a directory, not for itself. 0 or -EPERM.
 */
int own_dir_check(int fd, const char *path, bool sticky_will_do, struct err *err);

/*
 * Opens `name` in an open directory, without following it, and checks it; with a mode other than 0
 * it is made if it is not there. `path` is for the sentence. The descriptor, or -errno with err
 * set.
 */
int own_dir_open_at(int parent, const char *name, const char *path, mode_t mode,
		    bool sticky_will_do, struct err *err);

/*
 * The same for an absolute path, from the root on; those missing on the way are made with 0755. A
 * symbolic link is followed if root or whoever runs this has made it.
 */
int own_dir_open(const char *path, mode_t mode, struct err *err);

#endif
