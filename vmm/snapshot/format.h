/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file of a snapshot's state (docs/snapshot-format.md): a header, sections, and a checksum over
 * all of it. It is read whole, and checked, before anything is made of it.
 */
#ifndef MOTE_VMM_SNAPSHOT_FORMAT_H
#define MOTE_VMM_SNAPSHOT_FORMAT_H

#include <stddef.h>
#include <stdint.h>

#include "base/state.h"

struct err;

#define SNAPSHOT_FORMAT_VERSION 1
#define SNAPSHOT_CONFIG_VERSION 1

/* In this order; those that are of one each are there for each vCPU, or virtio device. */
enum snapshot_section {
	SNAPSHOT_CONFIG = 1, /* what of the machine was configured: JSON */
	SNAPSHOT_MACHINE,    /* its size */
	SNAPSHOT_MEMORY,     /* where the file of memory has data */
	SNAPSHOT_VCPU,	     /* of one */
	SNAPSHOT_VM,	     /* what KVM emulates beside them */
	SNAPSHOT_SERIAL,
	SNAPSHOT_I8042,
	SNAPSHOT_VIRTIO,  /* of one, in the order of the bus */
	SNAPSHOT_CONSOLE, /* what it wrote to its serial port */
};

/* A file with nothing in it yet, and what makes it whole. */
void snapshot_begin(struct state_writer *file);
void snapshot_end(struct state_writer *file);

/*
 * Whether the bytes are a state file that this program reads; then `sections` is at the first of
 * them. 0 or -EINVAL, -ENOTSUP with err set.
 */
int snapshot_check(const uint8_t *bytes, size_t size, struct state_reader *sections,
		   struct err *err);

/*
 * The next section, which has to be of this kind, and of no later version than this. 0 or -errno
 * with err set.
 */
int snapshot_next(struct state_reader *sections, enum snapshot_section kind, uint32_t version,
		  struct state_section *section, struct err *err);
/* That it was read whole, by whoever restored from it. 0 or -EINVAL with err set. */
int snapshot_done(const struct state_section *section, struct err *err);

#endif
