/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A socket device that is saved at every point of its life, and the one that takes its place: the
 * guest hears that its connections are gone before it hears anything else.
 */
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/array.h"
#include "base/err.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"
#include "tests/unit/vsock_guest.h"

#define EVENT_BUFFERS (DRIVER_DATA + MIB(12))
#define EVENT_SIZE 4
#define EVENT_IDX (UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX)

static struct vsock_guest guest;
static struct state_writer saved;
static uint64_t cid;
static int server;

static void set_up(void)
{
	cid = VSOCK_GUEST_CID;
	vsock_guest_open(&guest, 16);
	server = vsock_server_listen(8);
}

static void tear_down(void)
{
	close(server);
	unlink("v.sock_1024");
	state_writer_free(&saved);
	vsock_guest_close(&guest);
}

static void replace(void)
{
	const struct vsock_config config = { cid, VSOCK_PATH };
	struct err err;

	state_writer_free(&saved);
	saved = driver_save(&guest.driver);
	virtio_device_close(vsock_device(guest.vsock));
	ck_assert_msg(vsock_open(&guest.vsock, &config, &err) == 0, "%s", err.text);
}

static void move(void)
{
	replace();
	driver_move(&guest.driver, vsock_device(guest.vsock), &saved);
}

static void thaw(void)
{
	virtio_device_thaw(vsock_device(guest.vsock));
	vsock_guest_run(&guest);
}

static void attach_another(void)
{
	replace();
	memset(&guest.driver.mmio, 0, sizeof(guest.driver.mmio));
	driver_attach(&guest.driver, vsock_device(guest.vsock));
}

/* As Linux's driver does at its start, and after each event. */
static void give_event_buffer(void)
{
	const struct driver_buffer buffer = { EVENT_BUFFERS, EVENT_SIZE, true };

	memset(driver_memory(&guest.driver, EVENT_BUFFERS, 64), 0xee, 64);
	driver_add(&guest.driver, VSOCK_EVENT_QUEUE, &buffer, 1);
}

static void notify_events(void)
{
	driver_notify(&guest.driver, VSOCK_EVENT_QUEUE);
	vsock_guest_run(&guest);
}

static void give_event_buffers(unsigned int count)
{
	for (unsigned int i = 0; i < count; i++)
		give_event_buffer();
	notify_events();
}

/* Whether there is an event, which must be the one that resets all connections. */
static bool take_event(void)
{
	uint32_t head, len, id;

	if (!driver_used(&guest.driver, VSOCK_EVENT_QUEUE, &head, &len))
		return false;
	ck_assert_uint_eq(len, EVENT_SIZE);
	memcpy(&id, driver_memory(&guest.driver, EVENT_BUFFERS, EVENT_SIZE), sizeof(id));
	ck_assert_uint_eq(id, VIRTIO_VSOCK_EVENT_TRANSPORT_RESET);
	return true;
}

/* Both directions, by new connections. */
static void expect_connections(void)
{
	uint32_t host_port;
	int client = vsock_guest_accept(&guest, &host_port);
	int served = vsock_guest_connect(&guest, server, 700);

	vsock_client_write(client, "in", 2);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_RW);
	ck_assert_mem_eq(guest.payload, "in", 2);
	vsock_guest_write(&guest, VSOCK_HOST_PORT, 700, "out", 3);
	vsock_client_expect(&guest, served, "out", 3);
	close(client);
	close(served);
}

START_TEST(device_without_a_driver)
{
	driver_reset(&guest.driver);
	vsock_guest_run(&guest);
	move();
	ck_assert_int_eq(guest.vsock->transport_reset, VSOCK_EVENT_NONE);
	thaw();
	vsock_guest_restart(&guest, 16);
	expect_connections();
}
END_TEST

/* A stream by the host, one by the guest that is half-closed, and data on its way. */
START_TEST(streams_end_and_new_ones_work)
{
	uint32_t host_port;
	int client, served;

	give_event_buffers(8);
	client = vsock_guest_accept(&guest, &host_port);
	served = vsock_guest_connect(&guest, server, 600);
	vsock_guest_send(&guest, VIRTIO_VSOCK_OP_SHUTDOWN, VSOCK_HOST_PORT, 600,
			 VIRTIO_VSOCK_SHUTDOWN_SEND);
	vsock_client_write(client, "lost", 4);
	while (driver_interrupted(&guest.driver))
		;
	driver_write(&guest.driver, VIRTIO_MMIO_INTERRUPT_ACK, 3);
	move();
	vsock_client_expect_end(&guest, client);
	vsock_client_expect_end(&guest, served);
	ck_assert(!take_event());
	thaw();
	ck_assert(driver_interrupted(&guest.driver));
	ck_assert(take_event());
	/* Before the driver has taken it: nothing, not even for a packet of before. */
	close(client);
	client = vsock_client_connect();
	vsock_client_write(client, "CONNECT 52\n", 11);
	vsock_guest_write(&guest, VSOCK_HOST_PORT, 600, "old", 3);
	vsock_guest_expect_nothing(&guest);
	ck_assert_uint_eq(guest.vsock->table.count, 0);
	give_event_buffers(1);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_RST);
	ck_assert_uint_eq(guest.header.dst_port, 600);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_REQUEST);
	/* Not the port that a socket of the guest may still have for a peer. */
	ck_assert_uint_gt(guest.header.src_port, host_port);
	vsock_guest_send(&guest, VIRTIO_VSOCK_OP_RST, guest.header.src_port, VSOCK_PORT, 0);
	expect_connections();
	ck_assert(!take_event());
	close(client);
	close(served);
}
END_TEST

START_TEST(event_waits_for_a_buffer)
{
	move();
	thaw();
	vsock_guest_expect_nothing(&guest);
	ck_assert_int_eq(guest.vsock->transport_reset, VSOCK_EVENT_DUE);
	give_event_buffers(1);
	ck_assert(take_event());
	ck_assert_int_eq(guest.vsock->transport_reset, VSOCK_EVENT_PUT);
	give_event_buffers(1);
	expect_connections();
}
END_TEST

/* Buffers that were there before are none that were given back. */
START_TEST(driver_notifies_when_it_has_taken_the_event)
{
	struct vring *vring = &guest.driver.queues[VSOCK_EVENT_QUEUE].vring;

	driver_start(&guest.driver, _i ? EVENT_IDX : 0, 0);
	guest.rx_next = guest.tx_next = 0;
	vsock_guest_give(&guest, 16);
	give_event_buffers(8);
	vring->used->flags = VRING_USED_F_NO_NOTIFY;
	move();
	thaw();
	ck_assert(take_event());
	if (_i)
		ck_assert_uint_eq(vring_avail_event(vring), 8);
	else
		ck_assert_uint_eq(vring->used->flags, 0);
	driver_notify(&guest.driver, VSOCK_EVENT_QUEUE);
	driver_notify(&guest.driver, VSOCK_TX_QUEUE);
	vsock_guest_run(&guest);
	ck_assert_int_eq(guest.vsock->transport_reset, VSOCK_EVENT_PUT);
	give_event_buffers(1);
	ck_assert_int_eq(guest.vsock->transport_reset, VSOCK_EVENT_NONE);
}
END_TEST

/* Or with another notification, if that of the event queue is lost. */
START_TEST(any_notification_shows_that_the_event_was_taken)
{
	give_event_buffers(1);
	move();
	thaw();
	ck_assert(take_event());
	give_event_buffer();
	driver_notify(&guest.driver, VSOCK_RX_QUEUE);
	vsock_guest_run(&guest);
	ck_assert_int_eq(guest.vsock->transport_reset, VSOCK_EVENT_NONE);
}
END_TEST

START_TEST(pause_is_no_reset)
{
	uint32_t host_port;
	int client;

	give_event_buffers(8);
	client = vsock_guest_accept(&guest, &host_port);
	ck_assert(virtio_device_freeze(vsock_device(guest.vsock), 0));
	thaw();
	ck_assert(!take_event());
	vsock_client_write(client, "on", 2);
	vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_RW);
	close(client);
}
END_TEST

/* The event that is due or put is not forgotten by it. */
START_TEST(pause_after_a_restore_changes_nothing)
{
	move();
	thaw();
	ck_assert(virtio_device_freeze(vsock_device(guest.vsock), 0));
	give_event_buffers(1);
	ck_assert(!take_event());
	thaw();
	ck_assert(take_event());
	ck_assert(virtio_device_freeze(vsock_device(guest.vsock), 0));
	thaw();
	ck_assert(!take_event());
	ck_assert_int_eq(guest.vsock->transport_reset, VSOCK_EVENT_PUT);
	give_event_buffers(1);
	expect_connections();
}
END_TEST

START_TEST(saved_again_before_the_event_was_taken)
{
	give_event_buffers(8);
	move();
	thaw();
	move();
	thaw();
	ck_assert(take_event());
	ck_assert(take_event());
	vsock_guest_expect_nothing(&guest);
	give_event_buffers(1);
	expect_connections();
}
END_TEST

START_TEST(reset_by_the_driver_needs_no_event)
{
	give_event_buffers(8);
	move();
	thaw();
	vsock_guest_restart(&guest, 16);
	expect_connections();
}
END_TEST

/* More of them than there is room for, while nothing goes to the guest. */
START_TEST(packets_of_before_wait_in_the_tx_queue)
{
	give_event_buffers(1);
	move();
	thaw();
	for (unsigned int i = 0; i < VSOCK_RESETS_MAX + 40; i++)
		vsock_guest_write(&guest, VSOCK_HOST_PORT, 1000 + i, "x", 1);
	vsock_guest_expect_nothing(&guest);
	ck_assert_uint_eq(guest.vsock->rx.reset_count, VSOCK_RESETS_MAX);
	give_event_buffers(1);
	for (unsigned int i = 0; i < VSOCK_RESETS_MAX + 40; i++) {
		vsock_guest_expect(&guest, VIRTIO_VSOCK_OP_RST);
		ck_assert_uint_eq(guest.header.dst_port, 1000 + i);
	}
	vsock_guest_reap(&guest);
	expect_connections();
}
END_TEST

START_TEST(driver_without_an_event_queue)
{
	const size_t own = driver_own_section(&guest.driver);

	replace();
	/* QueueReady of the last queue, which stands before the device's own section. */
	saved.data[own - 16 - 31 + 2] = 0;
	driver_move(&guest.driver, vsock_device(guest.vsock), &saved);
	thaw();
	expect_connections();
}
END_TEST

START_TEST(device_that_needs_a_reset)
{
	guest.driver.queues[VSOCK_TX_QUEUE].vring.avail->idx = 999;
	driver_notify(&guest.driver, VSOCK_TX_QUEUE);
	vsock_guest_run(&guest);
	move();
	ck_assert_int_eq(guest.vsock->transport_reset, VSOCK_EVENT_NONE);
	thaw();
	ck_assert(driver_read(&guest.driver, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
	vsock_guest_restart(&guest, 16);
	expect_connections();
}
END_TEST

static const struct driver_buffer bad_buffers[][2] = {
	{ { EVENT_BUFFERS, 1, true }, { EVENT_BUFFERS, EVENT_SIZE - 2, true } },
	{ { EVENT_BUFFERS, EVENT_SIZE, false }, { EVENT_BUFFERS, EVENT_SIZE, true } },
};

START_TEST(event_buffer_that_cannot_hold_it_breaks_the_device)
{
	driver_add(&guest.driver, VSOCK_EVENT_QUEUE, bad_buffers[_i], 2);
	move();
	thaw();
	ck_assert(driver_read(&guest.driver, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
	ck_assert(!take_event());
	vsock_guest_restart(&guest, 16);
	expect_connections();
}
END_TEST

START_TEST(broken_event_queue_breaks_the_device)
{
	guest.driver.queues[VSOCK_EVENT_QUEUE].vring.avail->idx = 999;
	move();
	thaw();
	ck_assert(driver_read(&guest.driver, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
	vsock_guest_restart(&guest, 16);
	expect_connections();
}
END_TEST

START_TEST(event_in_pieces)
{
	const struct driver_buffer pieces[] = { { EVENT_BUFFERS, 1, true },
						{ EVENT_BUFFERS + 1, 2, true },
						{ EVENT_BUFFERS + 3, 9, true } };
	const uint8_t *bytes = driver_memory(&guest.driver, EVENT_BUFFERS, 64);

	memset(driver_memory(&guest.driver, EVENT_BUFFERS, 64), 0xee, 64);
	driver_add(&guest.driver, VSOCK_EVENT_QUEUE, pieces, ARRAY_SIZE(pieces));
	move();
	thaw();
	ck_assert(take_event());
	ck_assert_uint_eq(bytes[EVENT_SIZE], 0xee);
}
END_TEST

START_TEST(cid_is_the_one_that_was_saved)
{
	uint64_t seen = 0;

	give_event_buffers(1);
	cid = 77;
	move();
	for (unsigned int i = 0; i < sizeof(seen); i++)
		virtio_mmio_ops.read(&guest.driver.mmio, VIRTIO_MMIO_CONFIG + i,
				     (uint8_t *)&seen + i, 1);
	ck_assert_uint_eq(seen, VSOCK_GUEST_CID);
	thaw();
	ck_assert(take_event());
	give_event_buffers(1);
	expect_connections();
}
END_TEST

/* Of its own part, or of its queues. */
static const struct {
	int at;
	uint64_t value;
	unsigned int size;
	const char *sentence;
} hostile[] = {
	{ 0, 2, 8, "vsock: saved guest CID 2" },
	{ 0, UINT32_MAX, 8, "vsock: saved guest CID 4294967295" },
	{ 8, VSOCK_HOST_PORTS_START - 1, 4, "vsock: saved port 1073741823" },
	{ 8, VSOCK_HOST_PORTS_END, 4, "vsock: saved port 2147483648" },
	{ -16 - 3 * 31 + 2, 0, 1,
	  "vsock: saved status DRIVER_OK without a receive and a transmit queue" },
	{ -16 - 2 * 31 + 2, 0, 1,
	  "vsock: saved status DRIVER_OK without a receive and a transmit queue" },
};

START_TEST(hostile_value_is_refused)
{
	attach_another();
	memcpy(saved.data + (int)driver_own_section(&guest.driver) + hostile[_i].at,
	       &hostile[_i].value, hostile[_i].size);
	driver_restore_fails(&guest.driver, &saved, hostile[_i].sentence);
	ck_assert_uint_eq(guest.vsock->table.guest_cid, VSOCK_GUEST_CID);
	ck_assert_int_eq(guest.vsock->transport_reset, VSOCK_EVENT_NONE);
	vsock_guest_run(&guest);
	vsock_guest_restart(&guest, 16);
	expect_connections();
}
END_TEST

/* The device's wish for notifications is the available index: there seems to be more for ever. */
START_TEST(rings_that_lie_on_each_other_keep_nobody_busy)
{
	const size_t tx = driver_own_section(&guest.driver) - 16 - 2 * 31;
	uint64_t used;

	replace();
	memcpy(&used, saved.data + tx + 19, sizeof(used));
	used -= 2;
	memcpy(saved.data + tx + 11, &used, sizeof(used));
	saved.data[tx + 27] = 1;
	driver_move(&guest.driver, vsock_device(guest.vsock), &saved);
	virtio_device_thaw(vsock_device(guest.vsock));
	for (unsigned int i = 0; i < 8; i++)
		event_base_loop(guest.driver.base, EVLOOP_NONBLOCK | EVLOOP_ONCE);
	ck_assert_uint_eq(guest.vsock->metrics.tx_packets_count, 0);
}
END_TEST

START_TEST(mangled_state_is_refused_or_harmless)
{
	give_event_buffers(2);
	attach_another();
	driver_try_mangled(&guest.driver, &saved);
	guest.vsock->table.guest_cid = VSOCK_GUEST_CID;
	vsock_guest_restart(&guest, 16);
	expect_connections();
}
END_TEST

Suite *vsock_state_suite(void)
{
	Suite *suite =
		SUITE("vsock_state", set_up, tear_down, device_without_a_driver,
		      streams_end_and_new_ones_work, event_waits_for_a_buffer,
		      any_notification_shows_that_the_event_was_taken, pause_is_no_reset,
		      pause_after_a_restore_changes_nothing, saved_again_before_the_event_was_taken,
		      reset_by_the_driver_needs_no_event, packets_of_before_wait_in_the_tx_queue,
		      driver_without_an_event_queue, device_that_needs_a_reset,
		      broken_event_queue_breaks_the_device, event_in_pieces,
		      cid_is_the_one_that_was_saved, rings_that_lie_on_each_other_keep_nobody_busy,
		      mangled_state_is_refused_or_harmless);

	add_table_test(suite, set_up, tear_down, driver_notifies_when_it_has_taken_the_event, 2);
	add_table_test(suite, set_up, tear_down, event_buffer_that_cannot_hold_it_breaks_the_device,
		       ARRAY_SIZE(bad_buffers));
	add_table_test(suite, set_up, tear_down, hostile_value_is_refused, ARRAY_SIZE(hostile));
	return suite;
}
