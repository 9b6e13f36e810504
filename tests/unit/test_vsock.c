/* SPDX-License-Identifier: Apache-2.0 */
/* Connecting through the socket device, and data in both directions. */
#include <errno.h>
#include <linux/virtio_config.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/suites.h"
#include "tests/unit/support.h"
#include "tests/unit/vsock_guest.h"

#define RX_PAYLOAD (VSOCK_RX_BUFFER - (uint32_t)VSOCK_HEADER_SIZE)

static struct vsock_guest guest;
static int server;

static void set_up(void)
{
	vsock_guest_open(&guest, 128);
	server = vsock_server_listen(16);
}

static void tear_down(void)
{
	close(server);
	vsock_guest_close(&guest);
}

static const struct vsock_metrics *metrics(void)
{
	return &guest.vsock->metrics;
}

START_TEST(configuration_is_the_cid)
{
	ck_assert_uint_eq(driver_read(&guest.driver, 0x100), VSOCK_GUEST_CID);
	ck_assert_uint_eq(driver_read(&guest.driver, 0x104), 0);
}
END_TEST

START_TEST(client_of_the_host_reaches_the_guest)
{
	uint32_t first, second;
	int one = vsock_guest_accept(&guest, &first);
	int two = vsock_guest_accept(&guest, &second);

	ck_assert_uint_eq(first, 1u << 30);
	ck_assert_uint_eq(second, (1u << 30) + 1);
	vsock_client_write(one, "one", 3);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_RW);
	ck_assert_uint_eq(guest.header.src_port, first);
	ck_assert_uint_eq(guest.header.len, 3);
	ck_assert_mem_eq(guest.payload, "one", 3);
	vsock_guest_write(&guest, second, VSOCK_PORT, "two", 3);
	vsock_client_expect(&guest, two, "two", 3);
	ck_assert(driver_interrupted(&guest.driver));
	close(one);
	close(two);
}
END_TEST

START_TEST(port_in_use_is_not_given_again)
{
	uint32_t port, next;
	int one = vsock_guest_accept(&guest, &port);

	guest.vsock->table.last_port = (1u << 31) - 1;
	int two = vsock_guest_accept(&guest, &next);

	ck_assert_uint_eq(next, (1u << 30) + 1);
	close(one);
	close(two);
}
END_TEST

START_TEST(client_is_closed_when_the_guest_refuses)
{
	int client = vsock_client_connect();

	vsock_client_write(client, "CONNECT 53\n", 11);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_REQUEST);
	vsock_guest_send(&guest, VIRTIO_VSOCK_OP_RST, guest.header.src_port, 53, 0);
	vsock_client_expect_end(&guest, client);
	vsock_guest_expect_nothing(&guest);
	ck_assert_uint_eq(guest.vsock->table.count, 0);
	close(client);
}
END_TEST

START_TEST(client_is_closed_when_the_guest_does_not_answer)
{
	int client = vsock_client_connect();

	guest.vsock->table.timeouts.connect = 20;
	vsock_client_write(client, "CONNECT 53\n", 11);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_REQUEST);
	vsock_client_expect_end(&guest, client);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_RST);
	/* What comes late is answered, too. */
	vsock_guest_send(&guest, VIRTIO_VSOCK_OP_RESPONSE, guest.header.src_port, 53, 0);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_RST);
	ck_assert_uint_eq(guest.vsock->table.count, 0);
	close(client);
}
END_TEST

START_TEST(client_that_leaves_early_is_reset)
{
	int client = vsock_client_connect();

	vsock_client_write(client, "CONNECT 53\n", 11);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_REQUEST);
	close(client);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_RST);
	ck_assert_uint_eq(guest.vsock->table.count, 0);
}
END_TEST

START_TEST(silent_client_is_closed)
{
	guest.vsock->table.timeouts.handshake = 20;
	int client = vsock_client_connect();

	vsock_client_write(client, "CONNECT", 7);
	vsock_client_expect_end(&guest, client);
	vsock_guest_expect_nothing(&guest);
	ck_assert_uint_eq(guest.vsock->table.count, 0);
	ck_assert_uint_eq(guest.vsock->table.handshakes, 0);
	close(client);
}
END_TEST

/* Also one whose command is typed, or who is not given a processor for a while. */
START_TEST(slow_client_is_waited_for)
{
	int client = vsock_client_connect();
	struct timespec pause = { .tv_sec = VSOCK_CONNECT_TIMEOUT / 1000, .tv_nsec = 300000000 };

	vsock_client_write(client, "CONN", 4);
	vsock_guest_expect_nothing(&guest);
	nanosleep(&pause, NULL);
	vsock_guest_expect_nothing(&guest);
	vsock_client_write(client, "ECT 53\n", 7);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_REQUEST);
	close(client);
}
END_TEST

START_TEST(garbage_closes_the_client)
{
	int client = vsock_client_connect();

	vsock_client_write(client, "HELLO\n", 6);
	vsock_client_expect_end(&guest, client);
	vsock_guest_expect_nothing(&guest);
	close(client);
}
END_TEST

START_TEST(what_follows_the_command_is_delivered_first)
{
	int client = vsock_client_connect();

	vsock_client_write(client, "CONNECT 52\nsur", 14);
	vsock_client_write(client, "plus", 4);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_REQUEST);
	vsock_guest_expect_nothing(&guest);
	vsock_guest_send(&guest, VIRTIO_VSOCK_OP_RESPONSE, guest.header.src_port, 52, 0);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_RW);
	ck_assert_uint_eq(guest.header.len, 7);
	ck_assert_mem_eq(guest.payload, "surplus", 7);
	close(client);
}
END_TEST

START_TEST(guest_reaches_a_server_of_the_host)
{
	int fd = vsock_guest_connect(&guest, server, 2000);

	vsock_guest_write(&guest, VSOCK_HOST_PORT, 2000, "ping", 4);
	vsock_client_expect(&guest, fd, "ping", 4);
	vsock_client_write(fd, "pong", 4);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_RW);
	ck_assert_mem_eq(guest.payload, "pong", 4);
	ck_assert_uint_eq(guest.header.fwd_cnt, 4);
	close(fd);
}
END_TEST

START_TEST(guest_is_refused_where_nobody_listens)
{
	vsock_guest_send(&guest, VIRTIO_VSOCK_OP_REQUEST, 1025, 2000, 0);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_RST);
	ck_assert_uint_eq(guest.header.src_port, 1025);
	ck_assert_uint_eq(guest.header.dst_port, 2000);
	close(server);
	server = -1;
	vsock_guest_send(&guest, VIRTIO_VSOCK_OP_REQUEST, VSOCK_HOST_PORT, 2000, 0);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_RST);
	ck_assert_uint_eq(guest.vsock->table.count, 0);
}
END_TEST

START_TEST(guest_is_refused_by_a_full_backlog)
{
	close(server);
	server = vsock_server_listen(0);
	vsock_guest_send(&guest, VIRTIO_VSOCK_OP_REQUEST, VSOCK_HOST_PORT, 2000, 0);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_RESPONSE);
	vsock_guest_send(&guest, VIRTIO_VSOCK_OP_REQUEST, VSOCK_HOST_PORT, 2001, 0);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_RST);
}
END_TEST

START_TEST(much_data_to_the_host_arrives_whole)
{
	const size_t total = 4u << 20, piece = 60000;
	uint8_t *data = malloc(total);
	int fd = vsock_guest_connect(&guest, server, 2000);
	size_t sent = 0, got = 0;
	uint32_t fwd_cnt = 0;

	fill_pattern(data, total);
	while (got < total) {
		while (sent < total) {
			size_t size = total - sent < piece ? total - sent : piece;

			if ((uint32_t)sent - fwd_cnt + size > guest.header.buf_alloc)
				break;
			vsock_guest_write(&guest, VSOCK_HOST_PORT, 2000, data + sent, size);
			sent += size;
		}
		size_t size = sent - got < 100000 ? sent - got : 100000;

		vsock_client_expect(&guest, fd, data + got, size);
		got += size;
		vsock_guest_run(&guest);
		while (vsock_guest_receive(&guest)) {
			ck_assert_uint_eq(guest.header.op, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
			fwd_cnt = guest.header.fwd_cnt;
		}
	}
	ck_assert_uint_eq(metrics()->tx_bytes_count, total);
	ck_assert_ptr_null(TAILQ_FIRST(&guest.vsock->table.all)->buffer.data);
	free(data);
	close(fd);
}
END_TEST

START_TEST(much_data_to_the_guest_arrives_whole)
{
	const size_t total = 4u << 20;
	uint8_t *data = malloc(total);
	int fd = vsock_guest_connect(&guest, server, 2000);
	size_t sent = 0, got = 0;

	fill_pattern(data, total);
	while (got < total) {
		ssize_t n = write(fd, data + sent, total - sent);

		sent += n > 0 ? (size_t)n : 0;
		vsock_guest_run(&guest);
		while (vsock_guest_receive(&guest)) {
			ck_assert_uint_eq(guest.header.op, VIRTIO_VSOCK_OP_RW);
			ck_assert_mem_eq(guest.payload, data + got, guest.header.len);
			got += guest.header.len;
		}
		vsock_guest_send(&guest, VIRTIO_VSOCK_OP_CREDIT_UPDATE, VSOCK_HOST_PORT, 2000, 0);
	}
	ck_assert_uint_eq(metrics()->rx_bytes_count, total);
	free(data);
	close(fd);
}
END_TEST

START_TEST(guest_gets_no_more_than_its_credit)
{
	uint8_t data[20000];
	uint32_t got = 0;

	guest.buf_alloc = 10000;
	guest.keep_credit = true;
	int fd = vsock_guest_connect(&guest, server, 2000);

	fill_pattern(data, sizeof(data));
	vsock_client_write(fd, data, sizeof(data));
	vsock_guest_run(&guest);
	while (vsock_guest_receive(&guest))
		got += guest.header.len;
	ck_assert_uint_eq(got, 10000);
	guest.fwd_cnt = 4000;
	vsock_guest_send(&guest, VIRTIO_VSOCK_OP_CREDIT_UPDATE, VSOCK_HOST_PORT, 2000, 0);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_RW);
	ck_assert_uint_eq(guest.header.len, 4000);
	ck_assert_mem_eq(guest.payload, data + 10000, 4000);
	vsock_guest_expect_nothing(&guest);
	/* Nonsense gives none. */
	guest.fwd_cnt = 15000;
	vsock_guest_send(&guest, VIRTIO_VSOCK_OP_CREDIT_UPDATE, VSOCK_HOST_PORT, 2000, 0);
	vsock_guest_expect_nothing(&guest);
	close(fd);
}
END_TEST

START_TEST(counts_wrap_around)
{
	static uint8_t data[200000];
	int fd = vsock_guest_connect(&guest, server, 2000);
	struct vsock_connection *connection =
		vsock_table_find(&guest.vsock->table, VSOCK_HOST_PORT, 2000);
	uint32_t got = 0;

	connection->received = connection->forwarded = connection->announced = UINT32_MAX - 50000;
	connection->sent = guest.fwd_cnt = UINT32_MAX - 1000;
	fill_pattern(data, sizeof(data));
	for (size_t at = 0; at < sizeof(data); at += 50000) {
		vsock_guest_write(&guest, VSOCK_HOST_PORT, 2000, data + at, 50000);
		vsock_client_expect(&guest, fd, data + at, 50000);
	}
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
	ck_assert_uint_lt(guest.header.fwd_cnt, 150000);
	vsock_guest_expect_nothing(&guest);
	vsock_client_write(fd, data, 9000);
	while (got < 9000) {
		vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_RW);
		ck_assert_mem_eq(guest.payload, data + got, guest.header.len);
		got += guest.header.len;
	}
	ck_assert_uint_eq(connection->sent, 9000 - 1001);
	close(fd);
}
END_TEST

START_TEST(credit_request_is_answered)
{
	int fd = vsock_guest_connect(&guest, server, 2000);

	vsock_guest_write(&guest, VSOCK_HOST_PORT, 2000, "12345", 5);
	vsock_guest_send(&guest, VIRTIO_VSOCK_OP_CREDIT_REQUEST, VSOCK_HOST_PORT, 2000, 0);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
	ck_assert_uint_eq(guest.header.fwd_cnt, 5);
	ck_assert_uint_eq(guest.header.buf_alloc, VSOCK_BUFFER_SIZE);
	close(fd);
}
END_TEST

/* Fills the socket and the buffer behind it; returns how much that is. */
static uint32_t stuff(uint32_t guest_port, const uint8_t *data)
{
	uint32_t sent = 0, fwd_cnt = 0;

	for (;;) {
		uint32_t space = VSOCK_BUFFER_SIZE - (sent - fwd_cnt);
		uint32_t size = space < 50000 ? space : 50000;

		if (size == 0)
			return sent;
		vsock_guest_write(&guest, VSOCK_HOST_PORT, guest_port, data + sent % 251, size);
		sent += size;
		vsock_guest_run(&guest);
		while (vsock_guest_receive(&guest)) {
			ck_assert_uint_eq(guest.header.op, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
			fwd_cnt = guest.header.fwd_cnt;
		}
	}
}

START_TEST(host_that_does_not_read_stops_the_guest)
{
	static uint8_t data[1 << 20];
	int fd = vsock_guest_connect(&guest, server, 2000);
	uint32_t sent;

	fill_pattern(data, sizeof(data));
	sent = stuff(2000, data);
	ck_assert_uint_ge(sent, VSOCK_BUFFER_SIZE);
	ck_assert_uint_lt(sent, sizeof(data));
	/* It goes on when the host does. */
	vsock_client_expect(&guest, fd, data, sent);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
	close(fd);
}
END_TEST

START_TEST(guest_that_exceeds_its_credit_is_reset)
{
	static uint8_t data[1 << 20];
	int fd = vsock_guest_connect(&guest, server, 2000);

	stuff(2000, data);
	vsock_guest_write(&guest, VSOCK_HOST_PORT, 2000, "x", 1);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_RST);
	ck_assert_uint_eq(guest.vsock->table.count, 0);
	ck_assert_uint_eq(metrics()->conns_killed, 1);
	close(fd);
}
END_TEST

START_TEST(streams_are_served_in_turns)
{
	static uint8_t data[200000];
	uint32_t a_first = 0, b_bytes = 0;
	int a = vsock_guest_connect(&guest, server, 2000);
	int b = vsock_guest_connect(&guest, server, 2001);

	/* One has much, the other little; the guest has few buffers. */
	guest.buf_alloc = UINT32_MAX;
	vsock_guest_send(&guest, VIRTIO_VSOCK_OP_CREDIT_UPDATE, VSOCK_HOST_PORT, 2000, 0);
	vsock_client_write(a, data, 150000);
	vsock_client_write(b, data, 100);
	while (b_bytes == 0) {
		vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_RW);
		if (guest.header.dst_port == 2001)
			b_bytes += guest.header.len;
		else
			a_first += guest.header.len;
	}
	ck_assert_uint_eq(b_bytes, 100);
	ck_assert_uint_le(a_first, VSOCK_RX_BUFFERS * RX_PAYLOAD);
	close(a);
	close(b);
}
END_TEST

START_TEST(frozen_device_leaves_the_guest_alone)
{
	struct virtio_device *device = vsock_device(guest.vsock);
	const struct virtq *queue = &device->queues[VSOCK_RX_QUEUE];
	uint32_t port;
	int client = vsock_guest_accept(&guest, &port);

	ck_assert_uint_gt(guest.vsock->rx.end, guest.vsock->rx.next);
	ck_assert(virtio_device_freeze(device, 0));
	ck_assert_uint_eq(queue->next_avail, queue->published_used);
	vsock_client_write(client, "for later", 9);
	driver_notify(&guest.driver, VSOCK_RX_QUEUE);
	vsock_guest_run(&guest);
	ck_assert_uint_eq(queue->next_avail, queue->published_used);
	vsock_guest_expect_nothing(&guest);
	/* What the guest has sent is not taken either. */
	vsock_guest_write(&guest, port, VSOCK_PORT, "to the host", 11);
	ck_assert_int_eq(recv(client, guest.payload, 1, MSG_DONTWAIT), -1);
	virtio_device_thaw(device);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_RW);
	ck_assert_mem_eq(guest.payload, "for later", 9);
	vsock_client_expect(&guest, client, "to the host", 11);
	close(client);
}
END_TEST

/* The buffers that it has are those of the driver of before. */
START_TEST(freezing_after_a_reset_gives_nothing_back)
{
	struct virtio_device *device = vsock_device(guest.vsock);
	uint32_t port;
	int client = vsock_guest_accept(&guest, &port);

	ck_assert_uint_gt(guest.vsock->rx.end, guest.vsock->rx.next);
	driver_start(&guest.driver, 0, 0);
	ck_assert(guest.vsock->stale);
	ck_assert(virtio_device_freeze(device, 0));
	ck_assert_uint_eq(device->queues[VSOCK_RX_QUEUE].next_avail, 0);
	ck_assert_uint_eq(guest.vsock->table.count, 0);
	virtio_device_thaw(device);
	close(client);
}
END_TEST

Suite *vsock_suite(void)
{
	return SUITE(
		"vsock", set_up, tear_down, frozen_device_leaves_the_guest_alone,
		freezing_after_a_reset_gives_nothing_back, configuration_is_the_cid,
		client_of_the_host_reaches_the_guest, port_in_use_is_not_given_again,
		client_is_closed_when_the_guest_refuses,
		client_is_closed_when_the_guest_does_not_answer, client_that_leaves_early_is_reset,
		silent_client_is_closed, slow_client_is_waited_for, garbage_closes_the_client,
		what_follows_the_command_is_delivered_first, guest_reaches_a_server_of_the_host,
		guest_is_refused_where_nobody_listens, guest_is_refused_by_a_full_backlog,
		much_data_to_the_host_arrives_whole, much_data_to_the_guest_arrives_whole,
		guest_gets_no_more_than_its_credit, counts_wrap_around, credit_request_is_answered,
		host_that_does_not_read_stops_the_guest, guest_that_exceeds_its_credit_is_reset,
		streams_are_served_in_turns);
}
