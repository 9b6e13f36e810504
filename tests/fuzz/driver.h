/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A driver of two split virtqueues that keeps the rules, in as many shapes as the input has: it
 * gives each descriptor again only when the device has returned it, and expects the device to
 * return chains in their order.
 */
#ifndef MOTE_TESTS_FUZZ_DRIVER_H
#define MOTE_TESTS_FUZZ_DRIVER_H

#include <linux/virtio_ring.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/guest_memory.h"
#include "tests/fuzz/input.h"
#include "virtio/core/queue.h"

#define DRIVER_QUEUES 2
#define DRIVER_QUEUE_SIZE 256
/* Below are rings and indirect tables. */
#define DRIVER_END UINT64_C(0x60000)
#define DRIVER_PIECES_MAX 8

/* The shapes of a chain, with what the input gives; the other bits are the caller's. */
#define DRIVER_SHAPE_PIECES 0x07
#define DRIVER_SHAPE_INDIRECT 0x10

struct driver_chain {
	uint16_t head;
	uint16_t descriptors; /* of the ring's own */
	uint32_t len;
};

struct driver_ring {
	uint16_t next; /* descriptor, and head of the next chain */
	uint16_t free;
	uint16_t seen_used;
	unsigned int first, end; /* chains[first..end) are the device's; free-running */
	struct driver_chain chains[DRIVER_QUEUE_SIZE];
};

struct driver {
	const struct guest_memory *memory; /* not owned */
	bool indirect;
	struct driver_ring rings[DRIVER_QUEUES];
};

/* Host memory; the address must be good. */
void *driver_memory(const struct driver *driver, uint64_t addr, uint64_t size);

/* Forgets all, and clears the rings. */
void driver_reset(struct driver *driver, bool indirect);
void driver_set_up_queue(struct driver *driver, unsigned int index, struct virtq *queue);

/*
 * Makes len bytes at addr available, split by lengths from the input; for the device to write in
 * queue 0, to read in queue 1. False if there are too few descriptors.
 */
bool driver_add(struct driver *driver, struct input *input, unsigned int index, uint64_t addr,
		uint32_t len, uint8_t shape);
/* Any descriptor at all, behind which the rings' state is unknown. */
void driver_add_raw(struct driver *driver, unsigned int index, uint16_t head,
		    const struct vring_desc *desc);

/* Takes the next used element, which must be the oldest chain's; false if there is none. */
bool driver_used(struct driver *driver, unsigned int index, struct driver_chain *chain,
		 uint32_t *len);

#endif
