/* SPDX-License-Identifier: Apache-2.0 */
/* The devices that `mote run`'s options ask for: as API bodies, and as words for mote-init. */
#ifndef MOTE_CLI_RUN_DEVICES_H
#define MOTE_CLI_RUN_DEVICES_H

#include <jansson.h>
#include <stdbool.h>

struct err;

enum run_net { RUN_NET_NONE, RUN_NET_USER, RUN_NET_TAP };

struct run_devices {
	enum run_net net;
	const char *tap;	 /* not owned, as all strings here */
	const char *address;	 /* --address */
	json_t *drives;		 /* owned; a list */
	json_t *interfaces;	 /* owned; a list */
	char boot_args[256];	 /* what mote-init is told, a space before each word */
	const char *root_ending; /* NULL: no root image */
	const char *overlay;	 /* --overlay; NULL: memory */
	bool writable;		 /* a drive is, so that the guest wants to be shut down */
};

void run_devices_open(struct run_devices *devices);
void run_devices_close(struct run_devices *devices);

/* Each takes one option's argument; -EINVAL if it is not good. */
int run_devices_rootfs(struct run_devices *devices, const char *argument);
int run_devices_drive(struct run_devices *devices, const char *argument);
int run_devices_net(struct run_devices *devices, const char *argument);

/* After the last option: fills in boot_args and interfaces. 0 or -errno with err set. */
int run_devices_finish(struct run_devices *devices, struct err *err);

#endif
