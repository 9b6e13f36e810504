/* SPDX-License-Identifier: Apache-2.0 */
/* The socket device, for its own sources and their tests. */
#ifndef MOTE_VIRTIO_VSOCK_INTERNAL_H
#define MOTE_VIRTIO_VSOCK_INTERNAL_H

#include <event2/event.h>
#include <stdbool.h>

#include "virtio/core/device.h"
#include "virtio/vsock/host.h"
#include "virtio/vsock/metrics.h"
#include "virtio/vsock/packet.h"
#include "virtio/vsock/rx.h"
#include "virtio/vsock/table.h"
#include "virtio/vsock/vsock.h"

enum vsock_queue { VSOCK_RX_QUEUE, VSOCK_TX_QUEUE, VSOCK_EVENT_QUEUE, VSOCK_QUEUES };

#define VSOCK_GUEST_CID_MIN 3
#define VSOCK_GUEST_CID_MAX (UINT32_MAX - 1)

/* Clients that have not sent their line yet; more of them stay in the socket's backlog. */
#define VSOCK_HANDSHAKES_MAX 128

/* The event that says that all connections are gone. */
enum vsock_event { VSOCK_EVENT_NONE, VSOCK_EVENT_DUE, VSOCK_EVENT_PUT };

struct vsock {
	struct virtio_device device; /* first */
	struct virtio_vsock_config config;
	struct vsock_listener listener;
	struct vsock_metrics metrics;

	/* Under the device's lock. */
	bool stale; /* a reset: what is below belongs to the guest of before */
	/* Until it is NONE again the guest gets no packet, and clients wait in the backlog. */
	enum vsock_event transport_reset;
	uint16_t available_then; /* index of the event queue, when the event was put there */

	/* Main thread, under the lock, too. */
	struct vsock_table table;
	struct vsock_rx rx;
	bool tx_waits;	   /* for room for a RST */
	bool listening;	   /* listen_event is pending */
	bool accept_fails; /* for want of descriptors; tried again later */

	/* Main thread; NULL unless attached. */
	struct event_base *base;
	struct event *wake_event;
	struct event *listen_event;
	struct event *work_event;  /* continues in the next turn */
	struct event *serve_event; /* what sockets have, behind all events of this turn */
	struct event *accept_event;

	int wake_fd; /* an eventfd: the device was started or reset */
};

/* The device's ops, as those say. */
void vsock_save(const struct virtio_device *device, struct state_writer *out);
int vsock_restore(struct virtio_device *device, struct state_reader *in, uint32_t version,
		  struct err *err);

/*
 * Puts the event that is due, and sees whether the driver has taken it. While the device runs,
 * under the lock.
 */
void vsock_serve_event(struct vsock *vsock);

#endif
