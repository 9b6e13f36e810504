/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of a network device: net.c opens, attaches and changes it, queues.c works. */
#ifndef MOTE_VIRTIO_NET_INTERNAL_H
#define MOTE_VIRTIO_NET_INTERNAL_H

#include <event2/event.h>
#include <linux/virtio_net.h>

#include "virtio/net/backend.h"
#include "virtio/net/net.h"
#include "virtio/net/rx_buffers.h"

enum net_queue { NET_RX_QUEUE, NET_TX_QUEUE, NET_QUEUES };

struct net {
	struct virtio_device device; /* first; its lock guards all that follows */
	char name[96];
	char *tap; /* owned; NULL for passt */
	struct virtio_net_config config;
	struct net_backend *backend; /* owned */
	struct net_backend *front;   /* what is used: the same, or something before it */
	struct net_metrics metrics;
	struct log_limit log_limit;

	struct net_rx_buffers rx;
	bool rx_readable; /* the descriptor may have frames: it is watched for edges only */
	struct rate_limiter rx_limiter;
	uint8_t bounce[NET_FRAME_MAX]; /* a frame that the buffers at hand might not hold */
	size_t bounced;		       /* its size; 0 none */

	struct virtq_chain tx_pending; /* popped, but not to be sent yet; iov NULL: none */
	struct iovec tx_iov[VIRTQ_SIZE_MAX];
	bool tx_writable;
	struct rate_limiter tx_limiter;

	/* Main thread only. */
	struct event *ready; /* the descriptor, edge-triggered */
	struct event *rx_resume;
	struct event *tx_resume;
	struct event
		*front_timer; /* when the front has something that the descriptor does not tell */
};

/*
 * What the queue and the backend have, as far as limits and a turn of the event loop allow. The
 * device is active and the queue ready. Main thread, under the lock.
 */
void net_serve_rx(struct net *net);
void net_serve_tx(struct net *net);

/* The timer's callback comes when others had their turn. */
void net_resume_soon(struct event *timer);

/* A line for the log, as many as the guest may cause. */
void net_log_lost(struct net *net, const char *what, int error);

#endif
