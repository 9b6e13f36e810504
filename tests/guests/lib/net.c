/* SPDX-License-Identifier: Apache-2.0 */
#include "net.h"

#include <linux/virtio_ids.h>

struct frame {
	uint8_t destination[6];
	uint8_t source[6];
	uint8_t ethertype[2];
	uint32_t number;
} __attribute__((packed));

bool net_find(struct net *net)
{
	*net = (struct net){ 0 };
	net->tx = guest_alloc(NET_TX_ROOM);
	for (unsigned int i = 0; i < NET_BUFFERS; i++)
		net->rx[i] = guest_alloc(NET_BUFFER_SIZE);
	return virtio_find(&net->virtio, VIRTIO_ID_NET, 0);
}

static void give_buffer(struct net *net, unsigned int index)
{
	const struct virtq_buffer buffer = { net->rx[index], NET_BUFFER_SIZE, true };
	struct virtq *queue = &net->virtio.queues[NET_RX];

	virtq_make_available(queue, virtq_chain(queue, &buffer, 1));
}

bool net_start(struct net *net, uint64_t features)
{
	if (!virtio_start(&net->virtio, features, 2, NET_BUFFERS))
		return false;
	/* A buffer's descriptor has its index, because there are as many. */
	for (unsigned int i = 0; i < NET_BUFFERS; i++)
		give_buffer(net, i);
	virtio_kick(&net->virtio, NET_RX);
	return true;
}

void net_make_frame(struct net *net)
{
	struct frame *frame = (struct frame *)(net->tx + NET_HEADER_SIZE);

	memset(net->tx, 0, NET_FRAME_SIZE);
	memset(frame->destination, 0xff, sizeof(frame->destination));
	frame->source[0] = 2;
	frame->ethertype[0] = NET_ETHERTYPE >> 8;
	frame->ethertype[1] = NET_ETHERTYPE & 0xff;
	frame->number = ++net->number;
}

bool net_send(struct net *net, uint32_t len)
{
	const struct virtq_buffer buffer = { net->tx, len, false };
	struct virtq *queue = &net->virtio.queues[NET_TX];
	struct vring_used_elem element;
	uint16_t head = virtq_chain(queue, &buffer, 1);

	virtq_make_available(queue, head);
	virtio_kick(&net->virtio, NET_TX);
	return virtq_wait_used(queue, &element) && element.id == head;
}

bool net_is_echo(struct net *net, const struct vring_used_elem *element)
{
	struct virtq *queue = &net->virtio.queues[NET_RX];
	const struct frame *frame;
	bool ours;

	if (element->id >= NET_BUFFERS)
		return false;
	frame = (const struct frame *)(net->rx[element->id] + NET_HEADER_SIZE);
	ours = element->len == NET_FRAME_SIZE && frame->number == net->number &&
	       frame->ethertype[0] == NET_ETHERTYPE >> 8;
	virtq_make_available(queue, (uint16_t)element->id);
	virtio_kick(&net->virtio, NET_RX);
	return ours;
}

bool net_wait_echo(struct net *net)
{
	struct vring_used_elem element;

	while (virtq_wait_used(&net->virtio.queues[NET_RX], &element)) {
		if (net_is_echo(net, &element))
			return true;
	}
	return false;
}

bool net_echo(struct net *net)
{
	net_make_frame(net);
	return net_send(net, NET_FRAME_SIZE) && net_wait_echo(net);
}
