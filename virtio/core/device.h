/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every virtio device has, whatever its transport and kind (virtio 1.2, chapter 2).
 *
 * Two threads meet here, under the device's lock: a vCPU thread, which accesses the transport's
 * registers and so sets up, starts and resets the device, and the main thread, in whose event loop
 * the device works: queue notifications, files, timers. Only the main thread uses libevent.
 */
#ifndef MOTE_VIRTIO_CORE_DEVICE_H
#define MOTE_VIRTIO_CORE_DEVICE_H

#include <event2/event.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/log.h"
#include "virtio/core/queue.h"

struct batching;
struct err;
struct guest_memory;
struct metric;
struct state_reader;
struct state_writer;
struct virtio_device;

#define VIRTIO_QUEUES_MAX 3

/* What the transport offers for all devices, beside their own. */
#define VIRTIO_COMMON_FEATURES                                                                     \
	(UINT64_C(1) << VIRTIO_F_VERSION_1 | UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX |              \
	 UINT64_C(1) << VIRTIO_RING_F_INDIRECT_DESC)

/* 3.1.1: what the driver accepts is part of the offer, and VERSION_1 of it. */
static inline bool virtio_features_good(uint64_t own, uint64_t accepted)
{
	return (accepted & ~(own | VIRTIO_COMMON_FEATURES)) == 0 &&
	       accepted >> VIRTIO_F_VERSION_1 & 1;
}

/* 2.1 and 3.1.1: no bit without those that come before it. */
bool virtio_status_in_order(uint32_t status);

/* What a device works with while it is attached. It owns none of it, and all of it stays longer. */
struct virtio_host {
	const struct guest_memory *memory;
	struct event_base *base;
	struct batching *batching; /* is told of each notification; may be NULL */
	/*
	 * Puts a thread of the device's own under its filter of system calls; on that thread, when
	 * it begins. May be NULL.
	 */
	int (*confine)(struct err *err);
};

/* The life of a device, in this order; attach to detach may come again. */
struct virtio_ops {
	/*
	 * Puts the device to work in the event loop, before the start. 0 or -errno with err set,
	 * after which detach follows. Main thread. May be NULL.
	 */
	int (*attach)(struct virtio_device *device, const struct virtio_host *host,
		      struct err *err);
	/*
	 * DRIVER_OK: driver_features and the queues are final. On a vCPU thread, under the lock. A
	 * negative errno leaves the device in DEVICE_NEEDS_RESET. May be NULL.
	 */
	int (*activate)(struct virtio_device *device);
	/*
	 * Reset, the queues still as they were. True: nothing touches guest memory any more. False:
	 * something in flight will, and the device calls virtio_device_reset_done() when it has
	 * ended, from the main thread. On a vCPU thread, under the lock, so it never waits. May be
	 * NULL.
	 */
	bool (*reset)(struct virtio_device *device);
	/*
	 * The driver notified a queue that is ready. On the main thread, under the lock, while the
	 * device is active. Notifications may be spurious or stand for several.
	 */
	void (*notified)(struct virtio_device *device, unsigned int queue);
	/*
	 * With the vCPUs paused: brings the device to a point from which its rings are enough to go
	 * on. What it has taken ahead goes back to them, what is in flight ends, until then
	 * (CLOCK_MONOTONIC, ns). False if it has not, and the device goes on. Also of a device that
	 * is not active: one that has failed, or is being reset, may have something in flight, and
	 * its queues are nothing to go by. Main thread, under the lock. May be NULL.
	 */
	bool (*freeze)(struct virtio_device *device, int64_t until_ns);
	/* Of what save writes, from 1 on; grows with each field that is added to its end. */
	uint32_t state_version;
	/* The device type's own part of the state of a frozen device. Main thread. May be NULL. */
	void (*save)(const struct virtio_device *device, struct state_writer *out);
	/*
	 * Reads all of what a save of that version has written, or somebody who means no good; the
	 * common part, the queues among it, is there already. If the device is active this stands
	 * for activate. 0, or -errno with err set, after which reset follows. Main thread, under
	 * the lock. May be NULL.
	 */
	int (*restore)(struct virtio_device *device, struct state_reader *in, uint32_t version,
		       struct err *err);
	/*
	 * Features that are offered or not as what is behind the device can do. A driver that has
	 * one keeps it when that is replaced, or is another after a restore.
	 */
	uint64_t changing_features;
	/*
	 * Takes it out of the event loop and ends what is in flight without an answer. False if
	 * that takes longer than until then (CLOCK_MONOTONIC, ns): guest memory may then still be
	 * written to, and has to stay mapped until the process ends. Safe on a device that is not
	 * attached, or only half. Main thread. May be NULL.
	 */
	bool (*detach)(struct virtio_device *device, int64_t until_ns);
	/* Frees the device, which is detached. */
	void (*close)(struct virtio_device *device);
	/* Of the struct that virtio_device.counters is. */
	const struct metric *counters;
};

struct interrupt_metrics {
	uint64_t triggers;
};

struct virtio_device {
	/* Constant once opened. */
	const struct virtio_ops *ops;
	const char *name; /* for the log, such as "drive rootfs"; not owned */
	uint32_t type;	  /* virtio 1.2, chapter 5 */
	unsigned int queue_count;
	uint64_t features;    /* offered, the device type's own; the common ones are added */
	const void *counters; /* of the device type's own */
	const struct guest_memory *memory; /* not owned; set by virtio_device_attach */
	int irq_fd;			   /* owned; a 1 written here is an interrupt */
	/* Of all devices, which count from several threads; not owned; NULL: nobody counts. */
	struct interrupt_metrics *interrupts;
	int notify_fds[VIRTIO_QUEUES_MAX]; /* owned; become readable when the driver notifies */

	pthread_mutex_t lock;
	/* Under the lock. */
	struct virtq queues[VIRTIO_QUEUES_MAX];
	uint64_t driver_features; /* negotiated */
	uint8_t status;		  /* 2.1 */
	bool active;		  /* DRIVER_OK, and not DEVICE_NEEDS_RESET */
	bool resetting;		  /* until virtio_device_reset_done() */
	bool frozen;		  /* touches neither queues nor guest memory */
	const void *config;	  /* the device's configuration space, little endian; not owned */
	size_t config_size;
	struct log_limit log_limit;
	uint64_t broken_count; /* how often the driver broke a rule and the device failed */

	/*
	 * InterruptStatus (4.2.2): the device's own, or a word that the transport shows to the
	 * driver.
	 */
	atomic_uint *isr;
	atomic_uint own_isr;
	atomic_uint config_generation; /* 2.5.1 */

	/*
	 * A reset that has to wait begins (true) and is done (false). The driver takes its memory
	 * back as soon as its write to the status is complete (4.2.3.1), and so no vCPU may go on
	 * meanwhile. Under the lock; NULL if there is no vCPU.
	 */
	void (*hold)(void *opaque, bool hold);
	void *hold_opaque;

	/* What the driver can read of the device has changed. Under the lock; may be NULL. */
	void (*changed)(void *opaque);
	void *changed_opaque;

	/* Main thread only. */
	struct batching *batching; /* not owned; may be NULL */
	struct event *notify_events[VIRTIO_QUEUES_MAX];
};

/* DEVICE_NEEDS_RESET and the rest are in linux/virtio_config.h; the interrupt causes (4.2.2): */
#define VIRTIO_ISR_QUEUE 1u
#define VIRTIO_ISR_CONFIG 2u

/*
 * Fills in the constants and creates the eventfds; queue_sizes has queue_count entries. 0 or -errno
 * with err set; on failure there is nothing to close.
 */
int virtio_device_open(struct virtio_device *device, const struct virtio_ops *ops, uint32_t type,
		       const char *name, const uint16_t *queue_sizes, unsigned int queue_count,
		       struct err *err);
/* For the ops' close: what virtio_device_open has made. Safe on a zeroed object. */
void virtio_device_release(struct virtio_device *device);

/* As the ops' own, with the notifications. Main thread. */
int virtio_device_attach(struct virtio_device *device, const struct virtio_host *host,
			 struct err *err);
bool virtio_device_detach(struct virtio_device *device, int64_t until_ns);
/*
 * Detaches and frees it; the vCPUs have ended. What a disk still works for it stays for the rest of
 * the process. NULL is allowed.
 */
void virtio_device_close(struct virtio_device *device);

/* Whether this feature bit was negotiated. */
static inline bool virtio_has_feature(const struct virtio_device *device, unsigned int bit)
{
	return device->driver_features >> bit & 1;
}

/*
 * While it is frozen, nothing of the device touches guest memory or its queues, whatever comes from
 * the host. False if what is in flight has not ended by then, and it goes on. Afterwards it looks
 * at each queue as if the driver had notified. The vCPUs are paused meanwhile. Main thread.
 */
bool virtio_device_freeze(struct virtio_device *device, int64_t until_ns);
void virtio_device_thaw(struct virtio_device *device);

/*
 * Writes one section: the state of a frozen device, which then is in no reset either, since a
 * freeze ends that. Reads it again, into a device that is attached and that no driver has touched:
 * it is then frozen, its driver where it was, and an interrupt that the driver may not have had yet
 * comes once more. 0, or -errno with err set and the device as it was. Main thread.
 */
void virtio_device_save(struct virtio_device *device, struct state_writer *out);
int virtio_device_restore(struct virtio_device *device, struct state_reader *in, struct err *err);
/* For the ops' restore: whether that was all, and all of it good. 0 or -errno with err set. */
int virtio_device_read_all(const struct virtio_device *device, const struct state_reader *in,
			   struct err *err);

/* Whether a driver works it now. Any thread. */
bool virtio_device_has_driver(struct virtio_device *device);

/* The following are called under the lock. */

/* Whether the queues may be looked at. */
static inline bool virtio_device_runs(const struct virtio_device *device)
{
	return device->active && !device->frozen;
}

/* Publishes what was pushed to a queue and interrupts the driver if it wants that. */
void virtio_device_publish(struct virtio_device *device, struct virtq *queue);

/* The driver broke a rule: logs it (rate limited), counts it, sets DEVICE_NEEDS_RESET (2.1.2). */
void virtio_device_fail(struct virtio_device *device, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* The configuration space has changed: new generation, interrupt if the driver is there. */
void virtio_device_config_changed(struct virtio_device *device);

/* The transport's: start after DRIVER_OK, and reset. On a vCPU thread, under the lock. */
void virtio_device_activate(struct virtio_device *device);
void virtio_device_reset(struct virtio_device *device);
/* The rest of a reset that had to wait. On the main thread, under the lock. */
void virtio_device_reset_done(struct virtio_device *device);

#endif
