/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Uses a device for ever: `what=block` writes sectors and reads older ones, `what=net` sends frames
 * that come back, `what=vsock` talks to the host's echo on one connection, as long as that lasts.
 */
#include <linux/virtio_ids.h>

#include "block.h"
#include "net.h"
#include "vsock.h"

#define ROUNDS 0x8000
#define LOST 0x8008 /* frames that have not come back; resets of the transport */

#define SECTORS 64
#define FRAME_PATIENCE UINT64_C(500000000) /* of the clock: a fraction of a second */
#define EVENTS 4

static volatile uint64_t *const rounds = (volatile uint64_t *)ROUNDS;
static volatile uint64_t *const lost = (volatile uint64_t *)LOST;
static struct block block;
static struct net net;
static struct vsock vsock;

/* Each sector has the number of the round in which it was written. */
static bool write_and_read(uint64_t *data)
{
	for (unsigned int i = 0; i < SECTOR_SIZE / sizeof(*data); i++)
		data[i] = *rounds;
	if (block_request(&block, VIRTIO_BLK_T_OUT, *rounds % SECTORS, data, SECTOR_SIZE, false) !=
	    VIRTIO_BLK_S_OK)
		return false;
	memset(data, 0xff, SECTOR_SIZE);
	if (block_request(&block, VIRTIO_BLK_T_IN, (*rounds + 1) % SECTORS, data, SECTOR_SIZE,
			  true) != VIRTIO_BLK_S_OK)
		return false;
	for (unsigned int i = 0; i < SECTOR_SIZE / sizeof(*data); i++) {
		if (data[i] != *rounds + 1 - SECTORS)
			return false;
	}
	(*rounds)++;
	return true;
}

static bool use_block(void)
{
	uint64_t *data = guest_alloc(SECTOR_SIZE);

	*rounds = SECTORS;
	if (!block_find(&block, 0) || !block_start(&block, 0, 16))
		return false;
	for (unsigned int i = 0; i < SECTORS; i++) {
		for (unsigned int j = 0; j < SECTOR_SIZE / sizeof(*data); j++)
			data[j] = i;
		if (block_request(&block, VIRTIO_BLK_T_OUT, i, data, SECTOR_SIZE, false) !=
		    VIRTIO_BLK_S_OK)
			return false;
	}
	guest_put("working\n");
	while (write_and_read(data))
		;
	return false;
}

/* The frame that was sent came back within the patience for it; others may come meanwhile. */
static bool frame_came(void)
{
	const uint64_t end = guest_clock() + FRAME_PATIENCE;
	struct vring_used_elem element;

	while (guest_clock() < end) {
		if (!virtq_take_used(&net.virtio.queues[NET_RX], &element))
			__asm__ volatile("pause");
		else if (net_is_echo(&net, &element))
			return true;
	}
	return false;
}

static bool use_net(void)
{
	if (!net_find(&net) || !net_start(&net, BIT(VIRTIO_NET_F_MAC)))
		return false;
	guest_put("working\n");
	for (;;) {
		net_make_frame(&net);
		if (!net_send(&net, NET_FRAME_SIZE))
			return false;
		if (frame_came())
			(*rounds)++;
		else
			(*lost)++;
	}
}

static struct virtio_vsock_event *events;

static void give_event(uint16_t index)
{
	virtq_make_available(&vsock.virtio.queues[VSOCK_EVENT], index);
	virtio_kick(&vsock.virtio, VSOCK_EVENT);
}

/* Takes a packet or an event: a packet's op to `port`, 0 of an event, -1 of nothing at all. */
static int next(uint32_t port)
{
	struct virtq *queue = &vsock.virtio.queues[VSOCK_EVENT];
	const uint64_t end = guest_clock() + GUEST_PATIENCE;
	struct vring_used_elem element;

	while (guest_clock() < end) {
		if (virtq_take_used(queue, &element)) {
			(*lost)++;
			give_event((uint16_t)element.id);
			return events[element.id].id == VIRTIO_VSOCK_EVENT_TRANSPORT_RESET ? 0 : -1;
		}
		if (vsock.virtio.queues[VSOCK_RX].used->idx !=
		    vsock.virtio.queues[VSOCK_RX].used_seen) {
			uint16_t buffer;
			const struct virtio_vsock_hdr *header = vsock_receive(&vsock, &buffer);
			int op = header && header->dst_port == port ? header->op : 0;

			if (!header)
				return -1;
			if (op == VIRTIO_VSOCK_OP_RW)
				vsock.received += header->len;
			vsock_give_back(&vsock, buffer);
			if (op > 0)
				return op;
		}
	}
	return -1;
}

/* One connection, until the transport is reset: false if it ends otherwise. */
static bool talk(uint32_t port)
{
	int op;

	vsock.received = 0;
	if (!vsock_packet(&vsock, VIRTIO_VSOCK_OP_REQUEST, port, VSOCK_ECHO_PORT))
		return false;
	while ((op = next(port)) > 0) {
		if (op != VIRTIO_VSOCK_OP_RESPONSE && op != VIRTIO_VSOCK_OP_RW &&
		    op != VIRTIO_VSOCK_OP_CREDIT_UPDATE)
			return false;
		if (op == VIRTIO_VSOCK_OP_CREDIT_UPDATE)
			continue;
		*rounds += op == VIRTIO_VSOCK_OP_RW;
		vsock_make(&vsock, VIRTIO_VSOCK_OP_RW, port, VSOCK_ECHO_PORT);
		vsock_header(&vsock)->len = 1;
		if (!vsock_send(&vsock, VSOCK_HEADER_SIZE + 1))
			return false;
	}
	return op == 0;
}

static bool use_vsock(void)
{
	uint32_t port = 1000;

	if (!vsock_find(&vsock) || !virtio_start(&vsock.virtio, 0, 3, VSOCK_BUFFERS))
		return false;
	vsock_give_buffers(&vsock);
	events = guest_alloc(EVENTS * sizeof(*events));
	for (unsigned int i = 0; i < EVENTS; i++) {
		const struct virtq_buffer buffer = { &events[i], sizeof(*events), true };

		give_event(virtq_chain(&vsock.virtio.queues[VSOCK_EVENT], &buffer, 1));
	}
	guest_put("working\n");
	while (talk(port))
		port++;
	return false;
}

void guest_main(void *zero_page)
{
	char what[8];

	(void)guest_option(zero_page, "what", what, sizeof(what));
	*rounds = *lost = 0;
	if (guest_same(what, "block"))
		use_block();
	else if (guest_same(what, "net"))
		use_net();
	else
		use_vsock();
	guest_put("FAIL it works no more\n");
	guest_halt();
}
