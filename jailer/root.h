/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The jail's view of the file system: the tree's root/ and nothing else of the host. Nothing in it
 * can gain privileges; what can be written cannot be executed nor hold devices, and what can be
 * executed (the VMM) or holds devices (/dev) cannot be written.
 */
#ifndef MOTE_JAILER_ROOT_H
#define MOTE_JAILER_ROOT_H

struct err;
struct tree;

/* In a new mount namespace: makes the tree the root and detaches all else. */
int root_enter(const struct tree *tree, struct err *err);

#endif
