/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The driver's side of a virtio device over MMIO (virtio 1.2; 2.7, 3.1 and 4.2). The driver polls;
 * that an interrupt arrives shows in the local APIC's request register.
 */
#ifndef MOTE_TESTS_GUESTS_VIRTIO_H
#define MOTE_TESTS_GUESTS_VIRTIO_H

#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>

#include "guest.h"

#define VIRTIO_BASE 0xc0001000
#define VIRTIO_WINDOW 0x1000
#define VIRTIO_WINDOWS 19
#define VIRTIO_IRQ 5 /* of the first window */

#define VIRTIO_QUEUES 3
#define VIRTQ_SIZE_MAX 256

#define BIT(n) (UINT64_C(1) << (n))

struct virtq_buffer {
	volatile void *addr;
	uint32_t len;
	bool writable; /* by the device */
};

struct virtq {
	uint16_t size;
	uint16_t next_desc; /* they are used round and round */
	uint16_t avail_idx;
	uint16_t used_seen;
	uint16_t kicked; /* avail_idx when the device was last notified */
	volatile struct vring_desc *desc;
	volatile struct vring_avail *avail;
	volatile struct vring_used *used;
};

struct virtio {
	uint64_t base;
	unsigned int irq;
	uint64_t features; /* negotiated */
	struct virtq queues[VIRTIO_QUEUES];
};

static inline uint32_t virtio_read(const struct virtio *device, uint64_t offset)
{
	return read32(device->base + offset);
}

static inline void virtio_write(const struct virtio *device, uint64_t offset, uint32_t value)
{
	write32(device->base + offset, value);
}

/* The nth device of this type (chapter 5), from 0. */
bool virtio_find(struct virtio *device, uint32_t type, unsigned int nth);

void virtio_reset(const struct virtio *device);
uint64_t virtio_offered(const struct virtio *device);
/* Writes the features as they are, and FEATURES_OK: whether the device takes them (3.1.1). */
bool virtio_negotiate(struct virtio *device, uint64_t features);
/* Gives a queue its memory, all indices 0. */
void virtio_prepare_queue(struct virtio *device, unsigned int index, uint16_t size);
/* Tells the device where it is: whether QueueReady stays set. */
bool virtio_set_up_queue(const struct virtio *device, unsigned int index);
/*
 * All of 3.1.1, behind a reset: those of `features` that are offered, VERSION_1, the first
 * `count` queues.
 */
bool virtio_start(struct virtio *device, uint64_t features, unsigned int count, uint16_t size);

/* Writes a chain, in the queue's table or in an indirect one. Not yet available. Its head. */
uint16_t virtq_chain(struct virtq *queue, const struct virtq_buffer *buffers, unsigned int count);
uint16_t virtq_chain_indirect(struct virtq *queue, volatile struct vring_desc *table,
			      const struct virtq_buffer *buffers, unsigned int count);
void virtq_make_available(struct virtq *queue, uint16_t head);
/* The device has been told, or does not want to be (2.7.10): whether it was. */
bool virtio_kick(struct virtio *device, unsigned int index);
void virtio_notify(const struct virtio *device, unsigned int index);

/* Takes the next used element, or waits for one: false if there is none. */
bool virtq_take_used(struct virtq *queue, struct vring_used_elem *element);
bool virtq_wait_used(struct virtq *queue, struct vring_used_elem *element);

/* From now on the device's interrupts are requests at this processor's local APIC. */
void virtio_route_interrupt(const struct virtio *device);
bool virtio_interrupt_came(const struct virtio *device);

bool virtio_needs_reset(const struct virtio *device);
bool virtio_wait_needs_reset(const struct virtio *device);

#endif
