/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The receive buffers that a driver has made available: taken from the queue ahead, so that each
 * descriptor is looked at once, and given back one or more for a frame (virtio 1.2, 5.1.6.4).
 */
#ifndef MOTE_VIRTIO_NET_RX_BUFFERS_H
#define MOTE_VIRTIO_NET_RX_BUFFERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "virtio/core/queue.h"

#define NET_RX_IOV 1024 /* what one readv takes */

struct net_rx_buffers {
	bool mergeable; /* VIRTIO_NET_F_MRG_RXBUF */
	struct virtq *queue;
	size_t room;		  /* bytes in the chains below */
	unsigned int descriptors; /* that the chains take of the queue's */
	unsigned int first;
	unsigned int end; /* chains[first..end) wait, in order */
	unsigned int iov_end;
	struct virtq_chain chains[NET_RX_IOV];
	struct iovec iov[NET_RX_IOV]; /* of the chains, one behind the other */
};

enum net_rx_result {
	NET_RX_COPIED,
	NET_RX_WAIT,  /* for more buffers */
	NET_RX_NEVER, /* the driver's buffers are too small for it */
};

/* Forgets what was taken. */
void net_rx_buffers_reset(struct net_rx_buffers *buffers, bool mergeable);

/* Gives all that was taken back to the queue. */
void net_rx_buffers_give_back(struct net_rx_buffers *buffers);

/* Takes buffers until there is room for `wanted` bytes, or there are no more. 0 or -EPROTO. */
int net_rx_buffers_fill(struct net_rx_buffers *buffers, struct virtq *queue, size_t wanted);

/* Where a frame of up to `wanted` bytes can be put at once; NULL if there is no such room. */
const struct iovec *net_rx_buffers_iov(const struct net_rx_buffers *buffers, size_t wanted,
				       unsigned int *count);

/* Copies a frame into the buffers at hand, if they hold it. */
enum net_rx_result net_rx_buffers_copy(const struct net_rx_buffers *buffers, const uint8_t *frame,
				       size_t size);

/* Gives back the buffers that a frame of this size has filled, num_buffers set; not published. */
void net_rx_buffers_return(struct net_rx_buffers *buffers, size_t size);

#endif
