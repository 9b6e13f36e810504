/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtio devices of one VM, as configured: drives, network interfaces, one vsock. Each is
 * opened when it is configured and replaces the one of the same id. Main thread.
 */
#ifndef MOTE_VMM_DEVICES_H
#define MOTE_VMM_DEVICES_H

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>

#include "virtio/core/batching.h"
#include "virtio/core/device.h"
#include "vmm/boot/layout.h"
#include "vmm/config.h"

struct err;
struct guest_memory;
struct metrics;
struct mmds;
struct responder;
struct virtio_device;
struct server;

enum device_kind {
	DEVICE_DRIVE,
	DEVICE_INTERFACE,
	DEVICE_VSOCK,
};

struct device {
	enum device_kind kind;
	union {
		struct drive_config drive;
		struct network_interface_config interface;
		struct vsock_device_config vsock;
	} config;		      /* owned */
	struct virtio_device *virtio; /* owned */
	struct responder *responder;  /* owned; NULL: no metadata is asked for on it */
};

struct devices {
	struct device list[LAYOUT_VIRTIO_MAX]; /* as they were configured, one after the other */
	unsigned int count;
	struct server *metadata; /* owned; NULL: none is asked for by vsock */
	struct interrupt_metrics interrupts;
	struct batching batching; /* from devices_attach to devices_detach */
};

/* The next one of a kind after `device`, NULL: the first; NULL if there is none. */
const struct device *devices_next(const struct devices *devices, enum device_kind kind,
				  const struct device *device);

/* Each takes the configuration's strings when it succeeds. 0 or -errno with err set. */
int devices_set_drive(struct devices *devices, struct drive_config *config, struct err *err);
int devices_set_interface(struct devices *devices, struct network_interface_config *config,
			  struct err *err);
int devices_set_vsock(struct devices *devices, struct vsock_device_config *config, struct err *err);
void devices_close(struct devices *devices);

/* Closes one that has not been attached. -ENOENT if there is none of that id. */
int devices_remove_drive(struct devices *devices, const char *id, struct err *err);
int devices_remove_interface(struct devices *devices, const char *id, struct err *err);

/* Changes one that exists; fields that are not given stay. -ENOENT if there is none of that id. */
int devices_update_drive(struct devices *devices, const struct drive_update *update,
			 struct err *err);
int devices_update_interface(struct devices *devices, const struct network_interface_update *update,
			     struct err *err);

/* -ENOENT if there is none of one of the ids, a NULL-terminated list; err names its place. */
int devices_check_interfaces(struct devices *devices, char *const *ids, struct err *err);

/*
 * Writes the devices in their order on the bus to `list`, which has room for LAYOUT_VIRTIO_MAX, and
 * returns how many there are: the root drive first, the other drives, interfaces, vsock.
 */
unsigned int devices_list(const struct devices *devices, struct virtio_device **list);

/* What the kernel's command line says of them, to be freed; NULL without memory. */
char *devices_cmdline(const struct devices *devices);

/*
 * Has the metadata service answer on interfaces, and by vsock, until devices_detach. Before
 * devices_attach. -ENOENT if one of them is gone again.
 */
int devices_set_mmds(struct devices *devices, struct mmds *mmds, const struct mmds_config *config,
		     struct event_base *base, struct err *err);

/*
 * With the vCPUs paused: afterwards nothing writes guest memory, until they are thawed. -EBUSY with
 * err set, and all go on, if a disk takes too long. Main thread.
 */
int devices_freeze(struct devices *devices, struct err *err);
void devices_thaw(struct devices *devices);

/* Puts them to work in a started machine, and takes them out again. */
int devices_attach(struct devices *devices, const struct guest_memory *memory,
		   struct event_base *base, int (*confine)(struct err *), struct err *err);
/* False if guest memory must stay mapped, because of what a slow disk still does. */
bool devices_detach(struct devices *devices);

/* Adds every device's counters. */
void devices_add_metrics(const struct devices *devices, struct metrics *metrics);
void devices_log_metrics(const struct devices *devices);

#endif
