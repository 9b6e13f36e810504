/* SPDX-License-Identifier: Apache-2.0 */
/* The driver's side of a virtio device, on plain memory: what a guest does, without a guest. */
#ifndef MOTE_TESTS_UNIT_DRIVER_H
#define MOTE_TESTS_UNIT_DRIVER_H

#include <event2/event.h>
#include <linux/virtio_ring.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/guest_memory.h"
#include "base/state.h"
#include "virtio/core/device.h"
#include "virtio/core/mmio.h"

/* Guest memory: queue N's rings at DRIVER_RINGS + N * 64 KiB; DRIVER_DATA and up are free. */
#define DRIVER_MEMORY (UINT64_C(16) << 20)
#define DRIVER_RINGS UINT64_C(0x10000)
#define DRIVER_DATA UINT64_C(0x100000)

struct driver_buffer {
	uint64_t addr; /* guest physical */
	uint32_t len;
	bool writable; /* by the device */
};

struct driver_queue {
	struct vring vring;
	uint16_t free_head; /* next descriptor to use; they are used round and round */
	uint16_t seen_used;
};

struct driver {
	struct guest_memory memory;
	struct event_base *base;
	struct virtio_device *device; /* not owned */
	struct virtio_mmio mmio;
	struct driver_queue queues[VIRTIO_QUEUES_MAX];
	pthread_t loop; /* the thread that runs the event loop */
	/* Resets that go on, as the device says. */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int holds;
};

/* Maps the memory and makes an event loop; nothing is attached yet. */
void driver_open(struct driver *driver);
void driver_close(struct driver *driver);

/* virtio_device_attach to the driver's memory and loop. */
void driver_attach(struct driver *driver, struct virtio_device *device);

uint32_t driver_read(struct driver *driver, uint64_t offset);
void driver_write(struct driver *driver, uint64_t offset, uint32_t value);

/*
 * The initialisation of virtio 1.2, 3.1.1, through the registers: accepts those of `features` that
 * are offered, VERSION_1 added, sets up all queues with `size` entries (0: the maximum), DRIVER_OK.
 */
void driver_start(struct driver *driver, uint64_t features, uint16_t size);
/* Waits for its end: another thread than the loop's as a vCPU would, for the loop to go on. */
void driver_reset(struct driver *driver);

/* Freezes the device, saves and detaches it; to be freed. */
struct state_writer driver_save(struct driver *driver);
/*
 * Another device, opened and not attached, in the place of the one that was saved; restored, and
 * frozen until virtio_device_thaw().
 */
void driver_move(struct driver *driver, struct virtio_device *device,
		 const struct state_writer *saved);
/* That this is refused, with this sentence, and the device is none the wiser. */
void driver_restore_fails(struct driver *driver, const struct state_writer *saved,
			  const char *sentence);
/*
 * Restores what was saved into the device, which no driver uses: with each byte changed in several
 * ways, and with each section cut or longer. What is refused, all of another length among it, names
 * the device and leaves it as it was; with the rest it goes on, for a turn, and is reset. What was
 * saved is freed.
 */
void driver_try_mangled(struct driver *driver, struct state_writer *saved);
/* Where the section of the device type's own begins in what was saved, its header before it. */
size_t driver_own_section(const struct driver *driver);

void *driver_memory(struct driver *driver, uint64_t addr, uint64_t len);

/* Makes a chain available, without notifying; returns its head. */
uint16_t driver_add(struct driver *driver, unsigned int queue, const struct driver_buffer *buffers,
		    unsigned int count);
/* Writes the eventfd, as KVM does for QueueNotify. */
void driver_notify(struct driver *driver, unsigned int queue);
/* Runs what is due in the event loop, without waiting. */
void driver_run(struct driver *driver);
/* Takes the next used element; false if there is none. */
bool driver_used(struct driver *driver, unsigned int queue, uint32_t *head, uint32_t *len);
/* The same, running the event loop until there is one; the test fails after a while. */
void driver_wait_used(struct driver *driver, unsigned int queue, uint32_t *head, uint32_t *len);
/* Whether an interrupt has been raised since the last call. */
bool driver_interrupted(struct driver *driver);

#endif
