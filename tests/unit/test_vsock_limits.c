/* SPDX-License-Identifier: Apache-2.0 */
/* What a hostile guest, or too many clients, cannot do to the socket device. */
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/array.h"
#include "base/err.h"
#include "base/log.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"
#include "tests/unit/vsock_guest.h"

static struct vsock_guest guest;

static void set_up(void)
{
	vsock_guest_open(&guest, 64);
}

static void tear_down(void)
{
	vsock_guest_close(&guest);
}

static const struct vsock_metrics *metrics(void)
{
	return &guest.vsock->metrics;
}

static bool needs_reset(void)
{
	return driver_read(&guest.driver, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET;
}

/* A packet that is good but for what a test changes. */
static struct vsock_header packet(enum virtio_vsock_op op)
{
	return (struct vsock_header){
		.src_cid = VSOCK_GUEST_CID,
		.dst_cid = VSOCK_HOST_CID,
		.src_port = 7,
		.dst_port = 8,
		.type = VIRTIO_VSOCK_TYPE_STREAM,
		.op = (uint16_t)op,
		.buf_alloc = 1 << 18,
	};
}

static const struct {
	const char *what;
	uint32_t len;  /* in the header */
	uint32_t size; /* of the chain */
} malformed[] = {
	{ "empty", 0, 1 },
	{ "half a header", 0, VSOCK_HEADER_SIZE - 1 },
	{ "length without data", 1, VSOCK_HEADER_SIZE },
	{ "length beyond the data", 101, VSOCK_HEADER_SIZE + 100 },
	{ "length beyond all", UINT32_MAX, VSOCK_HEADER_SIZE + 100 },
	{ "length beyond the maximum", 65537, VSOCK_HEADER_SIZE + 65537 },
};

START_TEST(malformed_packet_is_counted_and_dropped)
{
	struct vsock_header header = packet(VIRTIO_VSOCK_OP_RW);

	header.len = malformed[_i].len;
	vsock_guest_send_raw(&guest, &header, NULL, 0, malformed[_i].size);
	vsock_guest_expect_nothing(&guest);
	ck_assert_uint_eq(metrics()->invalid_packets_count, 1);
	ck_assert_uint_eq(vsock_guest_reap(&guest), 1);
	ck_assert(!needs_reset());
}
END_TEST

START_TEST(header_may_lie_in_pieces)
{
	const struct driver_buffer pieces[] = {
		{ DRIVER_DATA + MIB(8), 1, false },
		{ DRIVER_DATA + MIB(8) + 1, 30, false },
		{ DRIVER_DATA + MIB(8) + 31, 13, false },
	};
	const struct vsock_header header = packet(VIRTIO_VSOCK_OP_REQUEST);
	const struct iovec iov = { driver_memory(&guest.driver, pieces[0].addr, 44), 44 };

	vsock_header_write(&header, &iov);
	driver_add(&guest.driver, VSOCK_TX_QUEUE, pieces, 3);
	driver_notify(&guest.driver, VSOCK_TX_QUEUE);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_RST);
	ck_assert_uint_eq(guest.header.src_port, 8);
	ck_assert_uint_eq(guest.header.dst_port, 7);
}
END_TEST

START_TEST(packet_of_another_kind_is_reset)
{
	struct vsock_header header = packet(VIRTIO_VSOCK_OP_REQUEST);

	switch (_i) {
	case 0:
		header.type = VIRTIO_VSOCK_TYPE_SEQPACKET;
		break;
	case 1:
		header.src_cid = 4;
		break;
	case 2:
		header.dst_cid = 5;
		break;
	case 3:
		header.op = 99;
		break;
	default:
		header.op = VIRTIO_VSOCK_OP_RW;
		break;
	}
	vsock_guest_send_raw(&guest, &header, NULL, 0, VSOCK_HEADER_SIZE);
	vsock_guest_run(&guest);
	ck_assert(vsock_guest_receive(&guest));
	ck_assert_uint_eq(guest.header.op, VIRTIO_VSOCK_OP_RST);
	ck_assert_uint_eq(guest.header.type, header.type);
	ck_assert_uint_eq(guest.header.src_cid, header.dst_cid);
	ck_assert_uint_eq(guest.header.dst_cid, header.src_cid);
	ck_assert_uint_eq(guest.header.src_port, header.dst_port);
	ck_assert_uint_eq(guest.header.dst_port, header.src_port);
	/* Never RST for RST. */
	header.op = VIRTIO_VSOCK_OP_RST;
	vsock_guest_send_raw(&guest, &header, NULL, 0, VSOCK_HEADER_SIZE);
	vsock_guest_expect_nothing(&guest);
}
END_TEST

/* Who is not the guest, or speaks to another, has no part in a connection with these ports. */
START_TEST(packet_of_another_kind_belongs_to_no_connection)
{
	struct vsock_header header = packet(VIRTIO_VSOCK_OP_RW);
	uint32_t host_port;
	int client = vsock_guest_accept(&guest, &host_port);
	char byte;

	header.src_port = VSOCK_PORT;
	header.dst_port = host_port;
	header.len = 1;
	if (_i == 0)
		header.type = VIRTIO_VSOCK_TYPE_SEQPACKET;
	else if (_i == 1)
		header.src_cid = 4;
	else
		header.dst_cid = 5;
	vsock_guest_send_raw(&guest, &header, "x", 1, VSOCK_HEADER_SIZE + 1);
	vsock_guest_run(&guest);
	ck_assert(vsock_guest_receive(&guest));
	ck_assert_uint_eq(guest.header.op, VIRTIO_VSOCK_OP_RST);
	ck_assert_int_eq(recv(client, &byte, 1, MSG_DONTWAIT), -1);
	ck_assert_int_eq(errno, EAGAIN);
	ck_assert_uint_eq(metrics()->invalid_packets_count, 1);
	/* And the connection does not suffer. */
	vsock_guest_write(&guest, host_port, VSOCK_PORT, "y", 1);
	vsock_client_expect(&guest, client, "y", 1);
	close(client);
}
END_TEST

START_TEST(resets_without_buffers_hold_back_the_guest)
{
	const struct vsock_header header = packet(VIRTIO_VSOCK_OP_RW);
	unsigned int sent = 0, done = 0, resets = 0;

	vsock_guest_restart(&guest, 0);
	guest.keep_rx = true;
	while (sent < 400) {
		for (unsigned int i = 0; i < 100 && sent - done < 128; i++, sent++)
			vsock_guest_send_raw(&guest, &header, NULL, 0, VSOCK_HEADER_SIZE);
		vsock_guest_run(&guest);
		unsigned int reaped = vsock_guest_reap(&guest);

		done += reaped;
		if (reaped == 0 && sent - done == 128)
			break;
	}
	ck_assert_uint_eq(done, VSOCK_RESETS_MAX);
	for (unsigned int i = 0; i < sent; i += 64) {
		vsock_guest_give(&guest, 64);
		vsock_guest_run(&guest);
		for (; vsock_guest_receive(&guest); resets++)
			ck_assert_uint_eq(guest.header.op, VIRTIO_VSOCK_OP_RST);
	}
	ck_assert_uint_eq(done + vsock_guest_reap(&guest), sent);
	ck_assert_uint_eq(resets, sent);
}
END_TEST

START_TEST(flood_of_packets_leaves_turns_to_others)
{
	const struct vsock_header header = packet(VIRTIO_VSOCK_OP_RST);
	static uint8_t data[60000];
	struct vsock_header big = packet(VIRTIO_VSOCK_OP_RST);

	big.len = sizeof(data);
	for (unsigned int i = 0; i < 40; i++)
		vsock_guest_send_raw(&guest, &big, data, sizeof(data),
				     VSOCK_HEADER_SIZE + sizeof(data));
	vsock_guest_send_raw(&guest, &header, NULL, 0, VSOCK_HEADER_SIZE);
	event_base_loop(guest.driver.base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
	ck_assert_uint_eq(vsock_guest_reap(&guest), (1 << 20) / sizeof(data) + 1);
	vsock_guest_run(&guest);
	ck_assert_uint_eq(vsock_guest_reap(&guest), 40u - (1 << 20) / sizeof(data));
}
END_TEST

static const struct driver_buffer bad_rx[] = {
	{ DRIVER_DATA, VSOCK_HEADER_SIZE, true },
	{ DRIVER_DATA, 4096, false },
	{ DRIVER_MEMORY - 100, 4096, true },
};

START_TEST(unusable_rx_buffer_fails_the_device)
{
	uint32_t port;

	vsock_guest_restart(&guest, 2);
	guest.keep_rx = true;
	int client = vsock_guest_accept(&guest, &port);

	vsock_guest_expect_nothing(&guest);
	driver_add(&guest.driver, VSOCK_RX_QUEUE, &bad_rx[_i], 1);
	driver_notify(&guest.driver, VSOCK_RX_QUEUE);
	vsock_client_write(client, "x", 1);
	vsock_client_expect_end(&guest, client);
	ck_assert(needs_reset());
	ck_assert_uint_eq(guest.vsock->table.count, 0);
	close(client);
	/* And a reset makes it good again. */
	guest.keep_rx = false;
	vsock_guest_restart(&guest, 16);
	client = vsock_guest_accept(&guest, &port);
	close(client);
}
END_TEST

START_TEST(start_without_queues_fails_the_device)
{
	const uint32_t steps[] = { VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER,
				   VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_DRIVER_OK };
	uint32_t status = 0;
	struct err err;
	char *text;

	ck_assert_int_eq(log_open("vsock.log", &err), 0);
	driver_reset(&guest.driver);
	driver_interrupted(&guest.driver);
	for (unsigned int i = 0; i < ARRAY_SIZE(steps); i++) {
		status |= steps[i];
		if (steps[i] == VIRTIO_CONFIG_S_FEATURES_OK) {
			driver_write(&guest.driver, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
			driver_write(&guest.driver, VIRTIO_MMIO_DRIVER_FEATURES,
				     1u << (VIRTIO_F_VERSION_1 - 32));
		}
		driver_write(&guest.driver, VIRTIO_MMIO_STATUS, status);
	}
	ck_assert(needs_reset());
	/* 2.1.2: the driver is told. */
	ck_assert(driver_interrupted(&guest.driver));
	text = read_text("vsock.log");
	assert_contains(text, "vsock: the driver broke a rule, the device needs a reset: "
			      "DRIVER_OK without a receive and a transmit queue");
	free(text);
}
END_TEST

START_TEST(broken_tx_ring_fails_the_device)
{
	const struct driver_buffer buffer = { DRIVER_MEMORY, 100, false };

	driver_add(&guest.driver, VSOCK_TX_QUEUE, &buffer, 1);
	driver_notify(&guest.driver, VSOCK_TX_QUEUE);
	vsock_guest_run(&guest);
	ck_assert(needs_reset());
}
END_TEST

START_TEST(connections_are_limited)
{
	int server = vsock_server_listen(4096);
	int *ends = calloc(VSOCK_CONNECTIONS_MAX, sizeof(*ends));

	for (unsigned int i = 0; i < VSOCK_CONNECTIONS_MAX; i++)
		ends[i] = vsock_guest_connect(&guest, server, i);
	/* The guest's next is refused, and the host's. */
	vsock_guest_send(&guest, VIRTIO_VSOCK_OP_REQUEST, VSOCK_HOST_PORT, 5000, 0);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_RST);
	int client = vsock_client_connect();

	/* At once, and not when its time for a command is over. */
	guest.vsock->table.timeouts.handshake = 60000;
	vsock_client_expect_end(&guest, client);
	ck_assert_uint_eq(guest.vsock->table.count, VSOCK_CONNECTIONS_MAX);
	close(client);
	/* All work; and the end of one makes room. */
	for (unsigned int i = 0; i < VSOCK_CONNECTIONS_MAX; i++) {
		vsock_guest_write(&guest, VSOCK_HOST_PORT, i, &i, sizeof(i));
		vsock_client_expect(&guest, ends[i], &i, sizeof(i));
	}
	vsock_guest_send(&guest, VIRTIO_VSOCK_OP_RST, VSOCK_HOST_PORT, 500, 0);
	client = vsock_guest_connect(&guest, server, 5000);
	close(client);
	for (unsigned int i = 0; i < VSOCK_CONNECTIONS_MAX; i++)
		close(ends[i]);
	free(ends);
	close(server);
}
END_TEST

START_TEST(clients_may_all_come_at_once)
{
	int *clients = calloc(VSOCK_CONNECTIONS_MAX, sizeof(*clients));

	guest.vsock->table.timeouts.connect = 60000;
	for (unsigned int i = 0; i < VSOCK_CONNECTIONS_MAX; i++) {
		clients[i] = vsock_client_connect();
		vsock_client_write(clients[i], "CONNECT 52\n", 11);
	}
	for (unsigned int i = 0; i < VSOCK_CONNECTIONS_MAX; i++)
		vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_REQUEST);
	ck_assert_uint_eq(guest.vsock->table.count, VSOCK_CONNECTIONS_MAX);
	for (unsigned int i = 0; i < VSOCK_CONNECTIONS_MAX; i++)
		close(clients[i]);
	free(clients);
}
END_TEST

START_TEST(silent_clients_are_limited)
{
	int clients[VSOCK_HANDSHAKES_MAX + 1];

	guest.vsock->table.timeouts.handshake = 60000;
	for (unsigned int i = 0; i <= VSOCK_HANDSHAKES_MAX; i++)
		clients[i] = vsock_client_connect();
	vsock_guest_run(&guest);
	ck_assert_uint_eq(guest.vsock->table.handshakes, VSOCK_HANDSHAKES_MAX);
	/* The last one is served when another goes. */
	vsock_client_write(clients[VSOCK_HANDSHAKES_MAX], "CONNECT 52\n", 11);
	vsock_guest_expect_nothing(&guest);
	close(clients[0]);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_REQUEST);
	for (unsigned int i = 1; i <= VSOCK_HANDSHAKES_MAX; i++)
		close(clients[i]);
}
END_TEST

START_TEST(want_of_descriptors_does_not_spin)
{
	int client = vsock_client_connect();
	int lowest = dup(0);
	struct rlimit limit, none;

	getrlimit(RLIMIT_NOFILE, &limit);
	close(lowest);
	none = (struct rlimit){ (rlim_t)lowest, limit.rlim_max };
	setrlimit(RLIMIT_NOFILE, &none);
	vsock_guest_run(&guest);
	ck_assert(guest.vsock->accept_fails);
	ck_assert(!guest.vsock->listening);
	setrlimit(RLIMIT_NOFILE, &limit);
	vsock_client_write(client, "CONNECT 52\n", 11);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_REQUEST);
	close(client);
}
END_TEST

START_TEST(descriptors_are_all_closed)
{
	unsigned int fds = count_open_fds();
	struct vsock_guest other;
	uint32_t port;

	vsock_guest_close(&guest);
	unsigned int fewer = count_open_fds();

	vsock_guest_open(&other, 16);
	ck_assert_uint_eq(count_open_fds(), fds);
	close(vsock_guest_accept(&other, &port));
	vsock_guest_close(&other);
	ck_assert_uint_eq(count_open_fds(), fewer);
	vsock_guest_open(&guest, 16);
}
END_TEST

Suite *vsock_limits_suite(void)
{
	Suite *suite = SUITE(
		"vsock_limits", set_up, tear_down, header_may_lie_in_pieces,
		resets_without_buffers_hold_back_the_guest, flood_of_packets_leaves_turns_to_others,
		start_without_queues_fails_the_device, broken_tx_ring_fails_the_device,
		connections_are_limited, clients_may_all_come_at_once, silent_clients_are_limited,
		want_of_descriptors_does_not_spin, descriptors_are_all_closed);

	add_table_test(suite, set_up, tear_down, malformed_packet_is_counted_and_dropped,
		       ARRAY_SIZE(malformed));
	add_table_test(suite, set_up, tear_down, packet_of_another_kind_is_reset, 5);
	add_table_test(suite, set_up, tear_down, packet_of_another_kind_belongs_to_no_connection,
		       3);
	add_table_test(suite, set_up, tear_down, unusable_rx_buffer_fails_the_device,
		       ARRAY_SIZE(bad_rx));
	return suite;
}
