/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes a machine of what the kernel starts with. What the host wants of it stands on the kernel's
 * command line:
 *
 *	mote.root=ro		/dev/vda is the root, what is written to it goes to memory
 *	mote.root=rw		/dev/vda is the root, written to
 *	mote.overlay=DEVICE	with mote.root=ro: what is written goes to this ext4 file system
 *	mote.hostname=NAME
 *	mote.hosts=NAME=ADDRESS,...
 *	mote.net=ADDRESS/PREFIX[,GATEWAY[,DNS]]		for eth0
 *	mote.net6=ADDRESS/PREFIX[,GATEWAY]		likewise
 *	mote.dns=ADDRESS,...				instead of mote.net's
 *	mote.search=NAME,...
 *	mote.resolver-options=WORD,...
 *	mote.metadata=PORT	169.254.169.254:80 leads to this port of the host
 *	mote.tmpfs=PATH[:OPTION,...]			repeatable
 */
#ifndef MOTE_GUEST_SETUP_H
#define MOTE_GUEST_SETUP_H

struct failure;

/* Devices and modules: what it takes to speak with the host. */
void setup_devices(void);
/* The rest: the root, file systems, network. 0 or -1 with failure set. */
int setup_system(struct failure *failure);

/* Ends the machine: what is written is on its drive then. */
_Noreturn void setup_power_off(void);

#endif
