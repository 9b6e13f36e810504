/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Landlock, a second wall behind the mounts, which falls with none of the others: executing is
 * possible for the VMM only, ioctls for /dev only, no directories, nodes, links or fifos can be
 * made (in a root that is not read-only ioctls of what its owner puts there are possible), no TCP,
 * no signals to and no abstract sockets of processes outside (as far as the kernel knows these:
 * Linux 5.13 has the first of them, 6.12 all).
 */
#ifndef MOTE_JAILER_LANDLOCK_H
#define MOTE_JAILER_LANDLOCK_H

#include <stdbool.h>

struct err;

/* In the jail's root; devices_anywhere: ioctls of all that is in it. Needs no_new_privs. Does
 * nothing where the kernel has no Landlock. */
int landlock_enter(const char *exec_name, bool devices_anywhere, struct err *err);

#endif
