/* SPDX-License-Identifier: Apache-2.0 */
/* Packets that break the rules of virtio 1.2, 5.10.6. */
#include "hostile.h"

#define NOBODY 9999 /* no host port that somebody listens on */
#define GUEST_PORT 5
#define SINK_PORT 53 /* where the host's test accepts and never reads */
#define MANY 1200    /* connections: more than a device has */
#define FLOOD 300    /* packets, more than the answers that it holds back */

static struct vsock *const vsock = &hostile_vsock;

void hostile_set_up(const void *zero_page)
{
	(void)zero_page;
}

static void start(void)
{
	hostile_expect("it starts", hostile_target->start(0));
}

static bool send_header(void)
{
	return vsock_send(vsock, VSOCK_HEADER_SIZE);
}

static void make(uint16_t op)
{
	vsock_make(vsock, op, GUEST_PORT, NOBODY);
}

/* A connection to the echo from GUEST_PORT. */
static void connect(uint32_t port)
{
	hostile_expect("request", vsock_packet(vsock, VIRTIO_VSOCK_OP_REQUEST, GUEST_PORT, port));
	hostile_expect("response", vsock_wait(vsock, VIRTIO_VSOCK_OP_RESPONSE, GUEST_PORT));
}

static void expect_reset(const char *what)
{
	hostile_expect(what, vsock_wait(vsock, VIRTIO_VSOCK_OP_RST, GUEST_PORT));
}

static void packet_short(void)
{
	start();
	make(VIRTIO_VSOCK_OP_REQUEST);
	hostile_expect("a byte", vsock_send(vsock, 1));
	hostile_expect("a byte too little", vsock_send(vsock, VSOCK_HEADER_SIZE - 1));
}

static void packet_writable(void)
{
	const struct virtq_buffer buffer = { vsock->tx, VSOCK_HEADER_SIZE, true };
	struct virtq *queue = &vsock->virtio.queues[VSOCK_TX];
	struct vring_used_elem element;

	start();
	virtq_make_available(queue, virtq_chain(queue, &buffer, 1));
	virtio_kick(&vsock->virtio, VSOCK_TX);
	hostile_expect("given back", virtq_wait_used(queue, &element));
}

static void header_in_pieces(void)
{
	struct virtq_buffer pieces[11];
	struct virtq *queue = &vsock->virtio.queues[VSOCK_TX];
	struct vring_used_elem element;

	start();
	make(VIRTIO_VSOCK_OP_REQUEST);
	for (unsigned int i = 0; i < 11; i++)
		pieces[i] = (struct virtq_buffer){ vsock->tx + 4 * i, 4, false };
	virtq_make_available(queue, virtq_chain(queue, pieces, 11));
	virtio_kick(&vsock->virtio, VSOCK_TX);
	hostile_expect("given back", virtq_wait_used(queue, &element));
	expect_reset("answered");
}

static void wrong_cids(void)
{
	static const uint64_t cids[] = {
		0, 1, 2, 4, UINT32_MAX, UINT64_MAX, (UINT64_C(1) << 32) + 3
	};

	start();
	for (unsigned int i = 0; i < sizeof(cids) / sizeof(cids[0]); i++) {
		make(VIRTIO_VSOCK_OP_REQUEST);
		vsock_header(vsock)->src_cid = cids[i];
		hostile_expect("source", send_header());
		make(VIRTIO_VSOCK_OP_REQUEST);
		vsock_header(vsock)->dst_cid = cids[i] == 2 ? 3 : cids[i];
		hostile_expect("destination", send_header());
		expect_reset("answered");
	}
}

static void wrong_types(void)
{
	static const uint16_t types[] = { 0, 2, 3, 0xffff };

	start();
	for (unsigned int i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		make(VIRTIO_VSOCK_OP_REQUEST);
		vsock_header(vsock)->type = types[i];
		hostile_expect("sent", send_header());
		expect_reset("answered");
	}
}

/* On no connection, then on one, which that ends. */
static void wrong_ops(void)
{
	static const uint16_t ops[] = {
		0, 8, 99, 0xffff, VIRTIO_VSOCK_OP_RESPONSE, VIRTIO_VSOCK_OP_REQUEST
	};

	start();
	for (unsigned int i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
		make(ops[i]);
		hostile_expect("sent", send_header());
		expect_reset("answered without a connection");
		connect(VSOCK_ECHO_PORT);
		hostile_expect("sent", vsock_packet(vsock, ops[i], GUEST_PORT, VSOCK_ECHO_PORT));
		expect_reset("the connection ends");
	}
}

/* More than its buffer has, or than a packet may have: such a packet is as if it had not been. */
static void length_lies(void)
{
	static const uint32_t lengths[] = { 1, 65536, 65537, 0x80000000, UINT32_MAX };

	start();
	for (unsigned int i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		make(VIRTIO_VSOCK_OP_RW);
		vsock_header(vsock)->len = lengths[i];
		hostile_expect("given back", send_header());
	}
	make(VIRTIO_VSOCK_OP_RW);
	vsock_header(vsock)->len = 65537;
	hostile_expect("given back", vsock_send(vsock, VSOCK_TX_ROOM));
	/* On a connection they take no credit, of which they would be more than there is. */
	connect(VSOCK_ECHO_PORT);
	vsock_make(vsock, VIRTIO_VSOCK_OP_RW, GUEST_PORT, VSOCK_ECHO_PORT);
	vsock_header(vsock)->len = 65536;
	for (unsigned int i = 0; i < 8; i++)
		hostile_expect("given back", send_header());
	vsock_header(vsock)->len = 16;
	hostile_expect("sent", vsock_send(vsock, VSOCK_HEADER_SIZE + 16));
	hostile_expect("echoed", vsock_wait(vsock, VIRTIO_VSOCK_OP_RW, GUEST_PORT));
	hostile_expect("sent",
		       vsock_packet(vsock, VIRTIO_VSOCK_OP_RST, GUEST_PORT, VSOCK_ECHO_PORT));
}

/* The guest's own credit: none, or more than it can be. */
static void credit_lies(void)
{
	static const uint32_t lies[][2] = { { 0, 0 },
					    { UINT32_MAX, UINT32_MAX },
					    { 0, UINT32_MAX },
					    { UINT32_MAX, 0 },
					    { 1, 0x80000000 } };

	start();
	connect(VSOCK_ECHO_PORT);
	for (unsigned int i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		vsock_make(vsock, VIRTIO_VSOCK_OP_RW, GUEST_PORT, VSOCK_ECHO_PORT);
		vsock_header(vsock)->len = 16;
		vsock_header(vsock)->buf_alloc = lies[i][0];
		vsock_header(vsock)->fwd_cnt = lies[i][1];
		hostile_expect("sent", vsock_send(vsock, VSOCK_HEADER_SIZE + 16));
	}
	hostile_expect("sent",
		       vsock_packet(vsock, VIRTIO_VSOCK_OP_RST, GUEST_PORT, VSOCK_ECHO_PORT));
}

/* The host's program does not read: what is sent beyond the credit ends the connection. */
static void credit_exceeded(void)
{
	bool ended = false;

	start();
	connect(SINK_PORT);
	for (unsigned int i = 0; i < 100 && !ended; i++) {
		struct vring_used_elem element;

		vsock_make(vsock, VIRTIO_VSOCK_OP_RW, GUEST_PORT, SINK_PORT);
		vsock_header(vsock)->len = 65536;
		hostile_expect("sent", vsock_send(vsock, VSOCK_HEADER_SIZE + 65536));
		while (virtq_take_used(&vsock->virtio.queues[VSOCK_RX], &element)) {
			const struct virtio_vsock_hdr *header =
				(const struct virtio_vsock_hdr *)vsock->rx[element.id];

			ended |= header->op == VIRTIO_VSOCK_OP_RST;
			vsock_give_back(vsock, (uint16_t)element.id);
		}
	}
	hostile_expect("the connection ends",
		       ended || vsock_wait(vsock, VIRTIO_VSOCK_OP_RST, GUEST_PORT));
}

static void data_behind_shutdown(void)
{
	start();
	connect(VSOCK_ECHO_PORT);
	vsock_make(vsock, VIRTIO_VSOCK_OP_SHUTDOWN, GUEST_PORT, VSOCK_ECHO_PORT);
	vsock_header(vsock)->flags = VIRTIO_VSOCK_SHUTDOWN_SEND;
	hostile_expect("sent", send_header());
	vsock_make(vsock, VIRTIO_VSOCK_OP_RW, GUEST_PORT, VSOCK_ECHO_PORT);
	vsock_header(vsock)->len = 16;
	hostile_expect("sent", vsock_send(vsock, VSOCK_HEADER_SIZE + 16));
	expect_reset("the connection ends");
}

static void shutdown_nonsense(void)
{
	start();
	connect(VSOCK_ECHO_PORT);
	vsock_make(vsock, VIRTIO_VSOCK_OP_SHUTDOWN, GUEST_PORT, VSOCK_ECHO_PORT);
	vsock_header(vsock)->flags = 0xfffffffc;
	hostile_expect("no direction", send_header());
	vsock_header(vsock)->flags = UINT32_MAX;
	hostile_expect("all", send_header());
	expect_reset("the connection ends");
}

/* Sends many packets, a queue of them at a time, without taking what comes. */
static void send_many(uint16_t op, unsigned int count, uint32_t dst_port)
{
	for (unsigned int i = 0; i < count; i++) {
		vsock_make(vsock, op, GUEST_PORT + i, dst_port);
		hostile_expect("sent", send_header());
	}
}

static void requests_to_nobody(void)
{
	start();
	for (unsigned int i = 0; i < FLOOD; i++) {
		hostile_expect("sent", vsock_packet(vsock, VIRTIO_VSOCK_OP_REQUEST, GUEST_PORT,
						    NOBODY + i));
		expect_reset("answered");
	}
}

/* RST is never answered, whatever it is for. */
static void reset_packets(void)
{
	start();
	send_many(VIRTIO_VSOCK_OP_RST, FLOOD, NOBODY);
}

/*
 * Answers without a buffer for them: the device stops taking packets when it has 256, and goes on
 * when the buffers come.
 */
static void no_rx_buffers(void)
{
	struct virtq *tx = &vsock->virtio.queues[VSOCK_TX];
	struct vring_used_elem element;
	unsigned int taken = 0, answers = 0, sent = 0;
	const struct virtq_buffer buffer = { vsock->tx, VSOCK_HEADER_SIZE, false };

	hostile_expect("it starts", vsock_start(vsock, 0));
	make(VIRTIO_VSOCK_OP_RW);
	while (sent < 256) {
		virtq_make_available(tx, virtq_chain(tx, &buffer, 1));
		virtio_kick(&vsock->virtio, VSOCK_TX);
		hostile_expect("taken", virtq_wait_used(tx, &element));
		sent++;
	}
	for (unsigned int i = 0; i < VSOCK_BUFFERS; i++, sent++)
		virtq_make_available(tx, virtq_chain(tx, &buffer, 1));
	virtio_kick(&vsock->virtio, VSOCK_TX);
	vsock_give_buffers(vsock);
	while (answers < sent) {
		uint16_t at;

		while (virtq_take_used(tx, &element))
			taken++;
		if (!vsock_receive(vsock, &at))
			break;
		answers++;
		vsock_give_back(vsock, at);
	}
	while (virtq_take_used(tx, &element))
		taken++;
	hostile_expect("all are answered", answers == sent);
	hostile_expect("the last ones are taken", taken == VSOCK_BUFFERS);
}

/* Connections until there are no more to be had; a reset ends them all. */
static void connections(void)
{
	unsigned int accepted = 0, refused = 0;

	start();
	for (unsigned int i = 0; i < MANY; i++) {
		const struct virtio_vsock_hdr *header;
		uint16_t buffer;

		if (!vsock_packet(vsock, VIRTIO_VSOCK_OP_REQUEST, GUEST_PORT + i, SINK_PORT))
			break;
		header = vsock_receive(vsock, &buffer);
		if (!header)
			break;
		accepted += header->op == VIRTIO_VSOCK_OP_RESPONSE;
		refused += header->op == VIRTIO_VSOCK_OP_RST;
		vsock_give_back(vsock, buffer);
	}
	hostile_expect("some are accepted", accepted > 0 && accepted <= 1023);
	hostile_expect("the others are refused", refused == MANY - accepted);
}

static void reset_in_flight(void)
{
	for (unsigned int i = 0; i < 10; i++) {
		start();
		connect(VSOCK_ECHO_PORT);
		vsock_make(vsock, VIRTIO_VSOCK_OP_RW, GUEST_PORT, VSOCK_ECHO_PORT);
		vsock_header(vsock)->len = 1024;
		hostile_expect("sent", vsock_send(vsock, VSOCK_HEADER_SIZE + 1024));
		virtio_reset(&vsock->virtio);
	}
}

static void receive_into(uint32_t length, bool writable)
{
	struct virtq *rx = &vsock->virtio.queues[VSOCK_RX];

	hostile_expect("it starts", vsock_start(vsock, 0));
	for (unsigned int i = 0; i < VSOCK_BUFFERS; i++) {
		const struct virtq_buffer buffer = { vsock->rx[i], length, writable };

		virtq_make_available(rx, virtq_chain(rx, &buffer, 1));
	}
	hostile_target->provoke();
}

static void rx_readable(void)
{
	receive_into(VSOCK_BUFFER_SIZE, false);
}

static void rx_small(void)
{
	receive_into(VSOCK_HEADER_SIZE - 1, true);
}

static void rx_without_room(void)
{
	receive_into(VSOCK_HEADER_SIZE, true);
}

const struct hostile_case hostile_cases[] = {
	{ "packet-short", RUNS_ON, packet_short },
	{ "packet-writable", RUNS_ON, packet_writable },
	{ "header-in-pieces", RUNS_ON, header_in_pieces },
	{ "wrong-cids", RUNS_ON, wrong_cids },
	{ "wrong-types", RUNS_ON, wrong_types },
	{ "wrong-ops", RUNS_ON, wrong_ops },
	{ "length-lies", RUNS_ON, length_lies },
	{ "credit-lies", RUNS_ON, credit_lies },
	{ "credit-exceeded", RUNS_ON, credit_exceeded },
	{ "data-behind-shutdown", RUNS_ON, data_behind_shutdown },
	{ "shutdown-nonsense", RUNS_ON, shutdown_nonsense },
	{ "requests-to-nobody", RUNS_ON, requests_to_nobody },
	{ "reset-packets", RUNS_ON, reset_packets },
	{ "no-rx-buffers", RUNS_ON, no_rx_buffers },
	{ "connections", UNHARMED, connections },
	{ "reset-in-flight", UNHARMED, reset_in_flight },
	{ "rx-readable", NEEDS_RESET, rx_readable },
	{ "rx-small", NEEDS_RESET, rx_small },
	{ "rx-without-room", NEEDS_RESET, rx_without_room },
	{ NULL },
};
