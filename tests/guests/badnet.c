/* SPDX-License-Identifier: Apache-2.0 */
/* Frames and buffers that break the rules of virtio 1.2, 5.1.6. */
#include "hostile.h"

static struct net *const net = &hostile_net;

void hostile_set_up(const void *zero_page)
{
	(void)zero_page;
}

static void start(uint64_t features)
{
	hostile_expect("it starts", net_start(net, features));
}

static void tx_short(void)
{
	static const uint32_t lengths[] = { 1, 11, 12, 13, 25 };

	start(0);
	net_make_frame(net);
	for (unsigned int i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++)
		hostile_expect("given back", net_send(net, lengths[i]));
}

static void tx_long(void)
{
	static const uint32_t lengths[] = { 12 + 14 + 4 + 65535 + 1, NET_TX_ROOM };

	start(0);
	net_make_frame(net);
	for (unsigned int i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++)
		hostile_expect("given back", net_send(net, lengths[i]));
}

/* The longest that passes; the host takes it or not. */
static void tx_longest(void)
{
	start(0);
	net_make_frame(net);
	hostile_expect("given back", net_send(net, 12 + 14 + 4 + 65535));
}

static void tx_writable(void)
{
	const struct virtq_buffer buffer = { net->tx, NET_FRAME_SIZE, true };
	struct virtq *queue = &net->virtio.queues[NET_TX];
	struct vring_used_elem element;

	start(0);
	virtq_make_available(queue, virtq_chain(queue, &buffer, 1));
	virtio_kick(&net->virtio, NET_TX);
	hostile_expect("given back", virtq_wait_used(queue, &element) && element.len == 0);
}

static void tx_header_nonsense(void)
{
	struct virtio_net_hdr_v1 *header = (struct virtio_net_hdr_v1 *)net->tx;

	start(UINT64_MAX);
	for (unsigned int i = 0; i < 16; i++) {
		net_make_frame(net);
		header->flags = (uint8_t)(i % 2 ? VIRTIO_NET_HDR_F_NEEDS_CSUM : 0xff);
		header->gso_type = (uint8_t)(i / 2 % 4 + (i & 8 ? 0x80 : 0));
		header->hdr_len = (uint16_t)(i * 0x1111);
		header->gso_size = (uint16_t)(i % 3 ? 1 : 0xffff * (i % 2));
		header->csum_start = (uint16_t)(0xffff - i);
		header->csum_offset = (uint16_t)(0xfff0 * (i % 2));
		header->num_buffers = 0xffff;
		hostile_expect("given back", net_send(net, NET_FRAME_SIZE));
	}
}

/* Each byte its own descriptor, as far as the ring goes. */
static void tx_in_pieces(void)
{
	struct virtq_buffer pieces[NET_BUFFERS];
	struct virtq *queue = &net->virtio.queues[NET_TX];
	struct vring_used_elem element;

	start(0);
	net_make_frame(net);
	for (unsigned int i = 0; i < NET_BUFFERS; i++)
		pieces[i] = (struct virtq_buffer){ net->tx + i, 1, false };
	pieces[NET_BUFFERS - 1].len = (uint32_t)NET_FRAME_SIZE - (NET_BUFFERS - 1);
	virtq_make_available(queue, virtq_chain(queue, pieces, NET_BUFFERS));
	virtio_kick(&net->virtio, NET_TX);
	hostile_expect("sent", virtq_wait_used(queue, &element));
	hostile_expect("seen back", net_wait_echo(net));
}

/* Starts with receive buffers of this length only, then sends frames that come back. */
static void receive_into(uint64_t features, uint32_t length, bool writable)
{
	struct virtq *rx = &net->virtio.queues[NET_RX];

	hostile_expect("it starts", virtio_start(&net->virtio, features, 2, NET_BUFFERS));
	for (unsigned int i = 0; i < NET_BUFFERS; i++) {
		const struct virtq_buffer buffer = { net->rx[i], length, writable };

		virtq_make_available(rx, virtq_chain(rx, &buffer, 1));
	}
	virtio_notify(&net->virtio, NET_RX);
	hostile_target->provoke();
}

static void rx_readable(void)
{
	receive_into(0, NET_BUFFER_SIZE, false);
}

static void rx_without_header(void)
{
	receive_into(0, NET_HEADER_SIZE - 1, true);
}

/* The frames do not fit, and are dropped. */
static void rx_small(void)
{
	receive_into(0, NET_HEADER_SIZE + 1, true);
}

/* All buffers together do not hold a frame. */
static void rx_small_mergeable(void)
{
	receive_into(BIT(VIRTIO_NET_F_MRG_RXBUF), NET_HEADER_SIZE, true);
	receive_into(BIT(VIRTIO_NET_F_MRG_RXBUF), 1, true);
}

/* Nothing to receive into, until it is started anew. */
static void rx_none(void)
{
	hostile_expect("it starts", virtio_start(&net->virtio, 0, 2, NET_BUFFERS));
	for (unsigned int i = 0; i < 10; i++) {
		net_make_frame(net);
		hostile_expect("sent", net_send(net, NET_FRAME_SIZE));
	}
}

/* The receive buffers are where the rings are. */
static void rx_into_rings(void)
{
	struct virtq *rx = &net->virtio.queues[NET_RX];
	volatile void *const places[] = { rx->desc, rx->avail, rx->used,
					  net->virtio.queues[NET_TX].desc };

	for (unsigned int i = 0; i < 4; i++) {
		const struct virtq_buffer buffer = { places[i], 512, true };

		hostile_expect("it starts", virtio_start(&net->virtio, 0, 2, NET_BUFFERS));
		for (unsigned int j = 0; j < NET_BUFFERS; j++)
			virtq_make_available(rx, virtq_chain(rx, &buffer, 1));
		virtio_notify(&net->virtio, NET_RX);
		hostile_target->provoke();
		for (unsigned int j = 0; j < 5; j++)
			virtio_notify(&net->virtio, NET_TX);
	}
}

static void reset_in_flight(void)
{
	for (unsigned int i = 0; i < 10; i++) {
		start(BIT(VIRTIO_NET_F_MRG_RXBUF));
		hostile_target->provoke();
		virtio_reset(&net->virtio);
	}
}

static void set16(uint8_t *to, uint32_t value)
{
	to[0] = (uint8_t)(value >> 8);
	to[1] = (uint8_t)value;
}

/* A TCP segment for 169.254.169.254:80, its checksum left to the device; the rest by `number`. */
static void make_segment(uint32_t number)
{
	static const uint8_t ip_head[] = { 0x45, 0, 0,	46, 0, 0, 0,   0,   64,	 6,
					   0,	 0, 10, 9,  0, 2, 169, 254, 169, 254 };
	struct virtio_net_hdr_v1 *header = (struct virtio_net_hdr_v1 *)net->tx;
	uint8_t *ip = net->tx + NET_HEADER_SIZE + 14, *tcp = ip + sizeof(ip_head);
	uint32_t sum = 0;

	net_make_frame(net);
	header->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	set16(ip - 2, 0x0800);
	for (unsigned int i = 0; i < sizeof(ip_head); i++) {
		ip[i] = ip_head[i];
		sum += (uint32_t)ip_head[i] << (i % 2 ? 0 : 8);
	}
	set16(ip + 10, ~((sum & 0xffff) + (sum >> 16)));
	set16(tcp, 1000 + number % 40);
	set16(tcp + 2, number % 7 ? 80 : 81);
	for (unsigned int i = 4; i < 12; i++)
		tcp[i] = (uint8_t)(number >> i);
	tcp[12] = (uint8_t)(number % 5 ? 0x50 : number);
	/* SYN as often as everything else together. */
	tcp[13] = (uint8_t)(number % 2 ? 2 : number / 2);
	set16(tcp + 14, number * 257);
}

/* Whether there is a metadata service on the interface or not. */
static void metadata(void)
{
	for (unsigned int receives = 0; receives < 2; receives++) {
		if (receives)
			start(0);
		else
			hostile_expect("it starts", virtio_start(&net->virtio, 0, 2, NET_BUFFERS));
		for (uint32_t i = 0; i < 60; i++) {
			make_segment(i);
			hostile_expect("given back", net_send(net, NET_FRAME_SIZE));
		}
	}
}

const struct hostile_case hostile_cases[] = {
	{ "tx-short", RUNS_ON, tx_short },
	{ "tx-long", RUNS_ON, tx_long },
	{ "tx-longest", UNHARMED, tx_longest },
	{ "tx-writable", RUNS_ON, tx_writable },
	{ "tx-header-nonsense", RUNS_ON, tx_header_nonsense },
	{ "tx-in-pieces", RUNS_ON, tx_in_pieces },
	{ "rx-readable", NEEDS_RESET, rx_readable },
	{ "rx-without-header", NEEDS_RESET, rx_without_header },
	{ "rx-small", UNHARMED, rx_small },
	{ "rx-small-mergeable", NEEDS_RESET, rx_small_mergeable },
	{ "rx-none", UNHARMED, rx_none },
	{ "rx-into-rings", EITHER, rx_into_rings },
	{ "reset-in-flight", UNHARMED, reset_in_flight },
	{ "metadata", UNHARMED, metadata },
	{ NULL },
};
