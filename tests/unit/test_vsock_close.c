/* SPDX-License-Identifier: Apache-2.0 */
/* How streams of the socket device end, in order and otherwise. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/array.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"
#include "tests/unit/vsock_guest.h"

#define PORT 2000

enum { RCV = VIRTIO_VSOCK_SHUTDOWN_RCV, SEND = VIRTIO_VSOCK_SHUTDOWN_SEND, BOTH = RCV | SEND };

static struct vsock_guest guest;
static int server, peer;
static uint8_t data[1 << 20];

static void set_up(void)
{
	fill_pattern(data, sizeof(data));
	vsock_guest_open(&guest, 128);
	server = vsock_server_listen(16);
	peer = vsock_guest_connect(&guest, server, PORT);
}

static void tear_down(void)
{
	if (peer >= 0)
		close(peer);
	close(server);
	vsock_guest_close(&guest);
}

static void close_peer(void)
{
	close(peer);
	peer = -1;
}

static void send_op(enum virtio_vsock_op op, uint32_t flags)
{
	vsock_guest_send(&guest, op, VSOCK_HOST_PORT, PORT, flags);
}

static void expect_shutdown(uint32_t flags)
{
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_SHUTDOWN);
	ck_assert_uint_eq(guest.header.flags, flags);
}

static void expect_gone(void)
{
	vsock_guest_expect_nothing(&guest);
	ck_assert_uint_eq(guest.vsock->table.count, 0);
	ck_assert_ptr_null(vsock_table_find(&guest.vsock->table, VSOCK_HOST_PORT, PORT));
}

/* More than the socket takes, so that there is something in the buffer. */
static uint32_t fill_buffer(void)
{
	const struct vsock_connection *connection =
		vsock_table_find(&guest.vsock->table, VSOCK_HOST_PORT, PORT);
	uint32_t sent = 0;

	while (connection->buffer.used == 0) {
		vsock_guest_write(&guest, VSOCK_HOST_PORT, PORT, data + sent, 50000);
		sent += 50000;
	}
	vsock_guest_run(&guest);
	while (vsock_guest_receive(&guest))
		ck_assert_uint_eq(guest.header.op, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
	return sent;
}

START_TEST(end_of_the_hosts_data_reaches_the_guest)
{
	vsock_client_write(peer, "last words", 10);
	shutdown(peer, SHUT_WR);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_RW);
	ck_assert_mem_eq(guest.payload, "last words", 10);
	expect_shutdown(SEND);
	/* The other direction goes on. */
	vsock_guest_write(&guest, VSOCK_HOST_PORT, PORT, "answer", 6);
	vsock_client_expect(&guest, peer, "answer", 6);
	/* Until the guest ends, too. */
	send_op(VIRTIO_VSOCK_OP_SHUTDOWN, BOTH);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_RST);
	vsock_client_expect_end(&guest, peer);
	expect_gone();
}
END_TEST

START_TEST(half_closed_host_that_goes_is_noticed)
{
	shutdown(peer, SHUT_WR);
	expect_shutdown(SEND);
	close_peer();
	expect_shutdown(BOTH);
	send_op(VIRTIO_VSOCK_OP_RST, 0);
	expect_gone();
}
END_TEST

START_TEST(end_of_the_guests_data_reaches_the_host)
{
	vsock_guest_write(&guest, VSOCK_HOST_PORT, PORT, "request", 7);
	send_op(VIRTIO_VSOCK_OP_SHUTDOWN, SEND);
	vsock_client_expect(&guest, peer, "request", 7);
	vsock_client_expect_end(&guest, peer);
	vsock_client_write(peer, "reply", 5);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_RW);
	ck_assert_mem_eq(guest.payload, "reply", 5);
	close_peer();
	expect_shutdown(BOTH);
	send_op(VIRTIO_VSOCK_OP_RST, 0);
	expect_gone();
	ck_assert_uint_eq(guest.vsock->metrics.conns_killed, 0);
}
END_TEST

START_TEST(end_of_the_guests_data_waits_for_the_data)
{
	uint32_t sent = fill_buffer();

	send_op(VIRTIO_VSOCK_OP_SHUTDOWN, SEND);
	vsock_client_expect(&guest, peer, data, sent);
	vsock_client_expect_end(&guest, peer);
	ck_assert_uint_eq(guest.vsock->table.count, 1);
}
END_TEST

START_TEST(closing_guest_need_not_wait_for_a_slow_host)
{
	uint32_t sent = fill_buffer();

	send_op(VIRTIO_VSOCK_OP_SHUTDOWN, BOTH);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_RST);
	/* The ports are free again. */
	int second = vsock_guest_connect(&guest, server, PORT);

	vsock_client_expect(&guest, peer, data, sent);
	vsock_client_expect_end(&guest, peer);
	ck_assert_uint_eq(guest.vsock->table.count, 1);
	vsock_guest_write(&guest, VSOCK_HOST_PORT, PORT, "new", 3);
	vsock_client_expect(&guest, second, "new", 3);
	close(second);
}
END_TEST

START_TEST(confirmation_does_not_lose_what_was_sent)
{
	uint32_t sent = fill_buffer();

	send_op(VIRTIO_VSOCK_OP_SHUTDOWN, SEND);
	shutdown(peer, SHUT_WR);
	expect_shutdown(BOTH);
	send_op(VIRTIO_VSOCK_OP_RST, 0);
	vsock_client_expect(&guest, peer, data, sent);
	vsock_client_expect_end(&guest, peer);
	expect_gone();
}
END_TEST

START_TEST(lingering_ends_with_the_host)
{
	fill_buffer();
	send_op(VIRTIO_VSOCK_OP_SHUTDOWN, BOTH);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_RST);
	ck_assert_uint_eq(guest.vsock->table.count, 1);
	close_peer();
	expect_gone();
}
END_TEST

static struct vsock_connection *only_connection(void)
{
	ck_assert_uint_eq(guest.vsock->table.count, 1);
	return TAILQ_FIRST(&guest.vsock->table.all);
}

START_TEST(lingering_ends_when_the_host_never_reads)
{
	guest.vsock->table.timeouts.linger = 20;
	fill_buffer();
	send_op(VIRTIO_VSOCK_OP_SHUTDOWN, BOTH);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_RST);
	while (guest.vsock->table.count > 0)
		event_base_loop(guest.driver.base, EVLOOP_ONCE);
	ck_assert_uint_eq(guest.vsock->metrics.conns_killed, 1);
}
END_TEST

START_TEST(lingering_may_last_as_long_as_the_host_reads)
{
	uint32_t sent = fill_buffer(), got = 0;

	send_op(VIRTIO_VSOCK_OP_SHUTDOWN, BOTH);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_RST);
	while (only_connection()->buffer.used > 0) {
		const uint32_t used = only_connection()->buffer.used;
		const int64_t deadline = only_connection()->deadline;

		ck_assert_int_gt(deadline, 0);
		vsock_client_expect(&guest, peer, data + got, 10000);
		got += 10000;
		vsock_guest_run(&guest);
		if (guest.vsock->table.count == 0)
			break;
		ck_assert((only_connection()->buffer.used < used) ==
			  (only_connection()->deadline > deadline));
	}
	vsock_client_expect(&guest, peer, data + got, sent - got);
	vsock_client_expect_end(&guest, peer);
	expect_gone();
}
END_TEST

/* The host's end goes, and the place is kept until the guest has heard of it. */
START_TEST(lingering_ends_before_the_guest_takes_its_reset)
{
	struct vsock_connection *connection;

	vsock_guest_restart(&guest, 0);
	close_peer();
	vsock_guest_run(&guest);
	close(server);
	server = vsock_server_listen(16);
	send_op(VIRTIO_VSOCK_OP_REQUEST, 0);
	peer = accept4(server, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	fill_buffer();
	guest.vsock->table.timeouts.linger = 20;
	send_op(VIRTIO_VSOCK_OP_SHUTDOWN, BOTH);
	connection = only_connection();
	while (connection->fd >= 0)
		event_base_loop(guest.driver.base, EVLOOP_ONCE);
	ck_assert_uint_eq(connection->buffer.used, 0);
	ck_assert_ptr_eq(only_connection(), connection);
	vsock_guest_give(&guest, 8);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_RST);
	expect_gone();
}
END_TEST

START_TEST(guest_that_does_not_receive_stops_the_host)
{
	send_op(VIRTIO_VSOCK_OP_SHUTDOWN, RCV);
	vsock_guest_run(&guest);
	ck_assert_int_eq(write(peer, "x", 1), -1);
	ck_assert_int_eq(errno, EPIPE);
	vsock_guest_write(&guest, VSOCK_HOST_PORT, PORT, "still", 5);
	vsock_client_expect(&guest, peer, "still", 5);
	close_peer();
	expect_shutdown(BOTH);
	send_op(VIRTIO_VSOCK_OP_RST, 0);
	expect_gone();
}
END_TEST

START_TEST(host_that_does_not_receive_stops_the_guest)
{
	shutdown(peer, SHUT_RD);
	vsock_guest_write(&guest, VSOCK_HOST_PORT, PORT, "unwanted", 8);
	expect_shutdown(RCV);
	/* What was on its way is dropped, and the other direction goes on. */
	vsock_guest_write(&guest, VSOCK_HOST_PORT, PORT, "unwanted", 8);
	vsock_client_write(peer, "wanted", 6);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_RW);
	ck_assert_uint_eq(guest.header.fwd_cnt, 16);
	close_peer();
	expect_shutdown(BOTH);
	send_op(VIRTIO_VSOCK_OP_RST, 0);
	expect_gone();
}
END_TEST

START_TEST(dead_host_loses_nothing_it_has_sent)
{
	uint32_t got = 0;

	guest.keep_credit = true;
	guest.buf_alloc = 5000;
	send_op(VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0);
	vsock_guest_write(&guest, VSOCK_HOST_PORT, PORT, "unread", 6);
	vsock_client_write(peer, data, 20000);
	close_peer();
	while (got < 20000) {
		vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_RW);
		ck_assert_mem_eq(guest.payload, data + got, guest.header.len);
		got += guest.header.len;
		guest.fwd_cnt = got;
		send_op(VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0);
	}
	expect_shutdown(BOTH);
	/* The guest may not have heard it when it sends more. */
	vsock_guest_write(&guest, VSOCK_HOST_PORT, PORT, "late", 4);
	send_op(VIRTIO_VSOCK_OP_SHUTDOWN, BOTH);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_RST);
	expect_gone();
}
END_TEST

START_TEST(host_that_dies_with_a_full_buffer_is_noticed)
{
	fill_buffer();
	close_peer();
	do {
		vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_SHUTDOWN);
	} while (guest.header.flags != BOTH);
	send_op(VIRTIO_VSOCK_OP_RST, 0);
	expect_gone();
}
END_TEST

START_TEST(guest_that_does_not_confirm_is_reset)
{
	guest.vsock->table.timeouts.close = 20;
	close_peer();
	expect_shutdown(BOTH);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_RST);
	expect_gone();
	ck_assert_uint_eq(guest.vsock->metrics.conns_killed, 1);
}
END_TEST

START_TEST(reset_by_the_guest_closes_the_host)
{
	send_op(VIRTIO_VSOCK_OP_RST, 0);
	vsock_client_expect_end(&guest, peer);
	expect_gone();
	send_op(VIRTIO_VSOCK_OP_RST, 0);
	expect_gone();
}
END_TEST

START_TEST(data_behind_its_end_is_reset)
{
	send_op(VIRTIO_VSOCK_OP_SHUTDOWN, SEND);
	vsock_guest_write(&guest, VSOCK_HOST_PORT, PORT, "more", 4);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_RST);
	expect_gone();
}
END_TEST

static const uint16_t wrong_ops[] = {
	VIRTIO_VSOCK_OP_INVALID, VIRTIO_VSOCK_OP_REQUEST, VIRTIO_VSOCK_OP_RESPONSE, 8, UINT16_MAX,
};

START_TEST(operation_out_of_place_is_reset)
{
	send_op((enum virtio_vsock_op)wrong_ops[_i], 0);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_RST);
	vsock_client_expect_end(&guest, peer);
	expect_gone();
}
END_TEST

START_TEST(replies_wait_for_a_buffer_once_each)
{
	vsock_guest_restart(&guest, 0);
	close_peer();
	vsock_guest_run(&guest);
	close(server);
	server = vsock_server_listen(16);
	guest.keep_rx = true;
	send_op(VIRTIO_VSOCK_OP_REQUEST, 0);
	for (unsigned int i = 0; i < 1000; i++)
		send_op(VIRTIO_VSOCK_OP_CREDIT_REQUEST, 0);
	peer = accept4(server, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	vsock_client_write(peer, "data", 4);
	shutdown(peer, SHUT_WR);
	vsock_guest_expect_nothing(&guest);
	vsock_guest_give(&guest, 8);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_RESPONSE);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_RW);
	expect_shutdown(SEND);
	vsock_guest_expect_nothing(&guest);
}
END_TEST

START_TEST(reset_of_the_device_closes_all)
{
	uint32_t port;
	int client = vsock_guest_accept(&guest, &port);
	int waiting = vsock_client_connect();

	fill_buffer();
	vsock_guest_run(&guest);
	vsock_guest_restart(&guest, 16);
	vsock_client_expect_end(&guest, client);
	vsock_client_expect_end(&guest, waiting);
	expect_gone();
	/* A packet for a stream of before belongs to none. */
	vsock_guest_write(&guest, VSOCK_HOST_PORT, PORT, "x", 1);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_RST);
	expect_gone();
	close(client);
	client = vsock_guest_accept(&guest, &port);
	close(client);
	close(waiting);
}
END_TEST

/* Reset and started again, before the device's main thread has heard of either. */
static void restart_unseen(void)
{
	driver_reset(&guest.driver);
	driver_start(&guest.driver, 0, 0);
	guest.rx_next = guest.tx_next = 0;
	vsock_guest_give(&guest, 16);
}

START_TEST(new_driver_sees_nothing_of_the_old_ones)
{
	vsock_client_write(peer, data, 20000);
	restart_unseen();
	expect_gone();
	vsock_client_expect_end(&guest, peer);
}
END_TEST

static void on_restart(evutil_socket_t fd, short events, void *opaque)
{
	(void)fd;
	(void)events;
	(void)opaque;
	restart_unseen();
}

/* It comes while a socket has been heard, but its data not yet put into the guest's buffers. */
START_TEST(new_driver_in_the_middle_of_a_turn_sees_nothing)
{
	int fd = eventfd(1, EFD_CLOEXEC);
	struct event *event = event_new(guest.driver.base, fd, EV_READ, on_restart, NULL);

	vsock_client_write(peer, data, 20000);
	event_add(event, NULL);
	vsock_guest_run(&guest);
	event_free(event);
	close(fd);
	expect_gone();
	vsock_client_expect_end(&guest, peer);
}
END_TEST

/* The last driver's notification is what the main thread hears first. */
START_TEST(new_driver_sees_no_reply_to_the_old_one)
{
	close_peer();
	vsock_guest_restart(&guest, 0);
	send_op(VIRTIO_VSOCK_OP_REQUEST, 0);
	peer = accept4(server, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	driver_notify(&guest.driver, VSOCK_RX_QUEUE);
	restart_unseen();
	expect_gone();
	vsock_client_expect_end(&guest, peer);
}
END_TEST

static void *restart_driver(void *opaque)
{
	atomic_bool *ended = opaque;

	for (unsigned int i = 0; i < 300; i++) {
		driver_reset(&guest.driver);
		driver_start(&guest.driver, 0, 0);
	}
	atomic_store(ended, true);
	return NULL;
}

START_TEST(resets_come_from_other_threads)
{
	atomic_bool ended = false;
	unsigned int received;
	pthread_t thread;
	uint32_t port;

	ck_assert_int_eq(pthread_create(&thread, NULL, restart_driver, &ended), 0);
	while (!atomic_load(&ended)) {
		int client = vsock_client_connect();

		vsock_client_write(client, "CONNECT 52\n", 11);
		driver_notify(&guest.driver, VSOCK_RX_QUEUE);
		driver_notify(&guest.driver, VSOCK_TX_QUEUE);
		vsock_guest_run(&guest);
		close(client);
	}
	pthread_join(thread, NULL);
	vsock_guest_restart(&guest, 16);
	/* The last clients may have waited in the listener's queue for this driver. */
	do {
		received = 0;
		vsock_guest_run(&guest);
		while (vsock_guest_receive(&guest))
			received++;
	} while (received > 0 || guest.vsock->table.count > 0);
	close(vsock_guest_accept(&guest, &port));
}
END_TEST

START_TEST(clients_wait_for_the_driver)
{
	driver_reset(&guest.driver);
	vsock_guest_run(&guest);
	int client = vsock_client_connect();

	vsock_client_write(client, "CONNECT 52\n", 11);
	vsock_guest_run(&guest);
	ck_assert_uint_eq(guest.vsock->table.count, 0);
	vsock_guest_restart(&guest, 16);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_REQUEST);
	close(client);
}
END_TEST

START_TEST(detaching_closes_all)
{
	fill_buffer();
	ck_assert(virtio_device_detach(vsock_device(guest.vsock), 0));
	ck_assert_uint_eq(guest.vsock->table.count, 0);
	while (read(peer, data, sizeof(data)) > 0)
		;
	vsock_client_expect_end(&guest, peer);
}
END_TEST

Suite *vsock_close_suite(void)
{
	Suite *suite = SUITE(
		"vsock_close", set_up, tear_down, end_of_the_hosts_data_reaches_the_guest,
		half_closed_host_that_goes_is_noticed, end_of_the_guests_data_reaches_the_host,
		end_of_the_guests_data_waits_for_the_data,
		closing_guest_need_not_wait_for_a_slow_host,
		confirmation_does_not_lose_what_was_sent, lingering_ends_with_the_host,
		lingering_ends_when_the_host_never_reads,
		lingering_may_last_as_long_as_the_host_reads,
		lingering_ends_before_the_guest_takes_its_reset,
		guest_that_does_not_receive_stops_the_host,
		host_that_does_not_receive_stops_the_guest, dead_host_loses_nothing_it_has_sent,
		host_that_dies_with_a_full_buffer_is_noticed, guest_that_does_not_confirm_is_reset,
		reset_by_the_guest_closes_the_host, data_behind_its_end_is_reset,
		replies_wait_for_a_buffer_once_each, reset_of_the_device_closes_all,
		new_driver_sees_nothing_of_the_old_ones,
		new_driver_in_the_middle_of_a_turn_sees_nothing,
		new_driver_sees_no_reply_to_the_old_one, clients_wait_for_the_driver,
		resets_come_from_other_threads, detaching_closes_all);

	add_table_test(suite, set_up, tear_down, operation_out_of_place_is_reset,
		       ARRAY_SIZE(wrong_ops));
	return suite;
}
