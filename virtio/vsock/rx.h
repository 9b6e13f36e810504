/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rx queue of the socket device: packets to the guest, made only when there is a buffer for
 * them. Data is read from the hosts' sockets straight into the guest's memory, many buffers with
 * one call. Main thread, under the device's lock.
 */
#ifndef MOTE_VIRTIO_VSOCK_RX_H
#define MOTE_VIRTIO_VSOCK_RX_H

#include <stdbool.h>
#include <stdint.h>

#include "virtio/core/device.h"
#include "virtio/vsock/packet.h"

struct vsock_metrics;
struct vsock_table;

/* Buffers held ready, so that one read can fill all of them: 64 KiB and more of a Linux guest's. */
#define VSOCK_RX_BUFFERS 32
/* Usually two entries a buffer; the last one popped may have as many as there are. */
#define VSOCK_RX_IOVECS (2 * VSOCK_RX_BUFFERS + VIRTQ_SIZE_MAX)
/* RSTs for packets that belong to no connection. While there is no room, tx waits. */
#define VSOCK_RESETS_MAX 256

struct vsock_rx_buffer {
	uint16_t head;
	uint16_t count; /* entries from first */
	uint32_t size;	/* bytes, of which the header takes its part */
	struct iovec *first;
};

struct vsock_rx {
	struct virtio_device *device; /* not owned, like the next two */
	struct virtq *queue;
	struct vsock_table *table;
	struct vsock_metrics *metrics;
	/* Popped and not used yet: from buffers[next] to buffers[end]. */
	struct vsock_rx_buffer buffers[VSOCK_RX_BUFFERS];
	unsigned int next;
	unsigned int end;
	struct iovec iov[VSOCK_RX_IOVECS];
	struct iovec payload[VSOCK_RX_IOVECS]; /* for one read */
	/* A ring. */
	struct vsock_header resets[VSOCK_RESETS_MAX];
	unsigned int reset_first;
	unsigned int reset_count;
};

/* Gives the buffers back to the queue. */
void vsock_rx_give_back(struct vsock_rx *rx);
/* Forgets the buffers and RSTs; the queue was reset or will be. */
void vsock_rx_clear(struct vsock_rx *rx);

static inline bool vsock_rx_has_room_for_reset(const struct vsock_rx *rx)
{
	return rx->reset_count < VSOCK_RESETS_MAX;
}

/* Answers a packet that belongs to no connection with RST (5.10.6.4). There is room. */
void vsock_rx_reset(struct vsock_rx *rx, const struct vsock_header *packet);

/*
 * Gives the guest what waits for it, as far as it has buffers: publishes them. True if there is
 * more to do than is good in one turn; false also if buffers are awaited, for which the driver then
 * notifies. The device may have failed.
 */
bool vsock_rx_serve(struct vsock_rx *rx);

#endif
