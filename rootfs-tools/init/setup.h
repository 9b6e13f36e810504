/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the host asks for on the kernel's command line, before any command is run:
 *
 *	mote.root=ro	/dev/vda is the root, what is written to it goes to memory
 *	mote.root=rw	/dev/vda is the root, written to
 *	mote.net=ADDRESS/PREFIX[,GATEWAY[,DNS]]	for eth0
 *
 * Each returns 0, or -errno with `failure`, of SETUP_FAILURE bytes, set to a sentence.
 */
#ifndef MOTE_INIT_SETUP_H
#define MOTE_INIT_SETUP_H

#include <stdbool.h>
#include <stddef.h>

#define SETUP_FAILURE 256

/* The value of a word NAME=VALUE of the kernel's command line; false if there is none. */
bool setup_option(const char *name, char *value, size_t size);

/* Makes the drive the root; the mounts of the old root stay behind, out of sight. */
int setup_root(const char *mode, char *failure);

/* Brings loopback up, and eth0 with `address` if that is not NULL; writes /etc/resolv.conf. */
int setup_network(const char *address, char *failure);

#endif
