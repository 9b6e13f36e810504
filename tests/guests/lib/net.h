/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A network device's driver (virtio 1.2, 5.1). Its frames are of our own EtherType with a number
 * in them; the host sends each back as it is, so that a frame that returns has been both ways.
 */
#ifndef MOTE_TESTS_GUESTS_NET_H
#define MOTE_TESTS_GUESTS_NET_H

#include <linux/virtio_net.h>

#include "virtio.h"

#define NET_RX 0
#define NET_TX 1
#define NET_HEADER_SIZE sizeof(struct virtio_net_hdr_v1)
#define NET_FRAME_SIZE (NET_HEADER_SIZE + 60)
#define NET_ETHERTYPE 0x88b5 /* IEEE: local experiments */
#define NET_BUFFERS 8
#define NET_BUFFER_SIZE 2048

struct net {
	struct virtio virtio;
	uint8_t *tx;		  /* NET_FRAME_SIZE of it is a frame; there is 128 KiB of room */
	uint8_t *rx[NET_BUFFERS]; /* in a queue of as many */
	uint32_t number;	  /* of the last frame */
	uint16_t rx_heads[NET_BUFFERS];
};

#define NET_TX_ROOM (128 << 10)

bool net_find(struct net *net);
/* Features besides, started, receive buffers given. */
bool net_start(struct net *net, uint64_t features);

/* Makes the frame in net->tx, with a new number. */
void net_make_frame(struct net *net);
/* Sends `len` bytes of net->tx: whether they were taken. */
bool net_send(struct net *net, uint32_t len);
/* Whether what was received is the frame that was sent last; its buffer is given back. */
bool net_is_echo(struct net *net, const struct vring_used_elem *element);
/* Waits for the frame that was sent last to come back. Others are passed over. */
bool net_wait_echo(struct net *net);
/* All of it: sends a frame, sees it back. */
bool net_echo(struct net *net);

#endif
