/* SPDX-License-Identifier: Apache-2.0 */
/* A network interface that is saved at every point of its life, and the one that takes its place.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_net.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/array.h"
#include "base/err.h"
#include "tests/unit/driver.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"
#include "virtio/net/internal.h"

#define HEADER NET_HEADER_SIZE
#define MERGE (UINT64_C(1) << VIRTIO_NET_F_MRG_RXBUF)
#define RX_SIZE 1526u

static const uint8_t mac[NET_MAC_SIZE] = { 2, 0, 0, 0, 0, 1 };
static const uint8_t other_mac[NET_MAC_SIZE] = { 2, 0, 0, 0, 0, 2 };

/* Where its own part's fields are. */
#define AT_MTU NET_MAC_SIZE
#define AT_RX_LIMITER (AT_MTU + 2)
#define AT_TX_LIMITER (AT_RX_LIMITER + 80)

static struct driver driver;
static struct net_config config;
static struct net *net;
static struct state_writer saved;
static int peer;
static uint8_t frame[900];

static void open_net(void)
{
	struct err err;
	int pair[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	peer = pair[0];
	config.id = "eth0";
	config.passt_fd = pair[1];
	ck_assert_msg(net_open(&net, &config, &err) == 0, "%s", err.text);
}

static void close_net(void)
{
	virtio_device_close(net_device(net));
	close(peer);
}

static void set_up(void)
{
	driver_open(&driver);
	config = (struct net_config){ .mac = mac, .mtu = 1400 };
	fill_pattern(frame, sizeof(frame));
	open_net();
	driver_attach(&driver, net_device(net));
}

static void tear_down(void)
{
	close_net();
	state_writer_free(&saved);
	driver_close(&driver);
}

static void replace(void)
{
	saved = driver_save(&driver);
	close_net();
	open_net();
}

static void move(void)
{
	replace();
	driver_move(&driver, net_device(net), &saved);
}

static void attach_another(void)
{
	replace();
	memset(&driver.mmio, 0, sizeof(driver.mmio));
	driver_attach(&driver, net_device(net));
}

static void thaw(void)
{
	virtio_device_thaw(net_device(net));
}

static void start(void)
{
	driver_start(&driver, MERGE, 0);
	driver_run(&driver);
}

static void add_rx(unsigned int count)
{
	static unsigned int at;

	for (unsigned int i = 0; i < count; i++) {
		const struct driver_buffer buffer = { DRIVER_DATA + MIB(1) + at++ % 256 * 0x1000,
						      RX_SIZE, true };

		driver_add(&driver, NET_RX_QUEUE, &buffer, 1);
	}
}

static void add_tx(void)
{
	const struct driver_buffer buffer = { DRIVER_DATA, HEADER + sizeof(frame), false };

	memcpy((uint8_t *)driver_memory(&driver, DRIVER_DATA, HEADER + sizeof(frame)) + HEADER,
	       frame, sizeof(frame));
	driver_add(&driver, NET_TX_QUEUE, &buffer, 1);
}

static void send_to_guest(void)
{
	const uint32_t length = htonl(sizeof(frame));

	ck_assert_int_eq(send(peer, &length, sizeof(length), 0), sizeof(length));
	ck_assert_int_eq(send(peer, frame, sizeof(frame), 0), sizeof(frame));
}

static void expect_from_guest(void)
{
	uint8_t got[sizeof(frame)];
	uint32_t head, len, length;

	driver_wait_used(&driver, NET_TX_QUEUE, &head, &len);
	read_all(peer, &length, sizeof(length));
	ck_assert_uint_eq(ntohl(length), sizeof(frame));
	read_all(peer, got, sizeof(got));
	ck_assert_mem_eq(got, frame, sizeof(frame));
}

static void expect_to_guest(void)
{
	uint32_t head, len;

	driver_wait_used(&driver, NET_RX_QUEUE, &head, &len);
	ck_assert_uint_eq(len, HEADER + sizeof(frame));
	ck_assert_mem_eq((uint8_t *)driver_memory(
				 &driver, driver.queues[NET_RX_QUEUE].vring.desc[head].addr, len) +
				 HEADER,
			 frame, sizeof(frame));
}

static void expect_both_ways(void)
{
	add_rx(4);
	driver_notify(&driver, NET_RX_QUEUE);
	send_to_guest();
	expect_to_guest();
	add_tx();
	driver_notify(&driver, NET_TX_QUEUE);
	expect_from_guest();
}

START_TEST(interface_without_a_driver)
{
	move();
	thaw();
	start();
	expect_both_ways();
}
END_TEST

START_TEST(idle_interface)
{
	start();
	expect_both_ways();
	move();
	ck_assert(net->rx.mergeable);
	thaw();
	expect_both_ways();
}
END_TEST

START_TEST(buffers_that_nobody_has_looked_at)
{
	start();
	add_rx(2);
	add_tx();
	move();
	send_to_guest();
	driver_run(&driver);
	driver_run(&driver);
	ck_assert(!driver_used(&driver, NET_RX_QUEUE, &(uint32_t){ 0 }, &(uint32_t){ 0 }));
	thaw();
	expect_from_guest();
	expect_to_guest();
}
END_TEST

/* Many more than the frames so far took. */
START_TEST(buffers_that_were_taken_ahead)
{
	start();
	add_rx(128);
	driver_notify(&driver, NET_RX_QUEUE);
	for (unsigned int i = 0; i < 5; i++) {
		send_to_guest();
		expect_to_guest();
	}
	ck_assert_uint_gt(net_device(net)->queues[NET_RX_QUEUE].next_avail, 5);
	move();
	thaw();
	for (unsigned int i = 0; i < 123; i++) {
		send_to_guest();
		expect_to_guest();
	}
}
END_TEST

START_TEST(frame_that_was_not_acknowledged)
{
	start();
	add_rx(1);
	driver_notify(&driver, NET_RX_QUEUE);
	send_to_guest();
	for (unsigned int i = 0; i < 3; i++)
		driver_run(&driver);
	move();
	ck_assert(driver_interrupted(&driver));
	ck_assert_uint_eq(driver_read(&driver, VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_ISR_QUEUE);
	expect_to_guest();
	thaw();
	expect_both_ways();
}
END_TEST

/* passt has no room for it; the new one has. */
START_TEST(pending_frame_is_sent_by_the_new_one)
{
	unsigned int sent = 0, used = 0;
	uint32_t head, len;

	start();
	while (!net->tx_pending.iov) {
		add_tx();
		driver_notify(&driver, NET_TX_QUEUE);
		driver_run(&driver);
		sent++;
		while (driver_used(&driver, NET_TX_QUEUE, &head, &len))
			used++;
	}
	move();
	thaw();
	for (; used < sent; used++)
		expect_from_guest();
}
END_TEST

START_TEST(throttled_interface_stays_throttled)
{
	uint32_t head, len;

	close_net();
	config.rx_limiter.ops = (struct token_bucket_config){ 1, 0, INT64_C(1) << 40 };
	config.tx_limiter.ops = (struct token_bucket_config){ 1, 0, INT64_C(1) << 40 };
	open_net();
	memset(&driver.mmio, 0, sizeof(driver.mmio));
	driver_attach(&driver, net_device(net));
	start();
	expect_both_ways();
	/* What was saved counts, not what the new one is opened with. */
	memset(&config.rx_limiter, 0, sizeof(config.rx_limiter));
	memset(&config.tx_limiter, 0, sizeof(config.tx_limiter));
	add_tx();
	move();
	send_to_guest();
	thaw();
	for (unsigned int i = 0; i < 3; i++)
		driver_run(&driver);
	ck_assert(!driver_used(&driver, NET_TX_QUEUE, &head, &len));
	ck_assert(!driver_used(&driver, NET_RX_QUEUE, &head, &len));
	net_set_limiters(net, &(struct rate_limiter_config){ 0 }, NULL);
	expect_to_guest();
	ck_assert(!driver_used(&driver, NET_TX_QUEUE, &head, &len));
	net_set_limiters(net, NULL, &(struct rate_limiter_config){ 0 });
	expect_from_guest();
}
END_TEST

START_TEST(interface_that_needs_a_reset)
{
	start();
	driver.queues[NET_TX_QUEUE].vring.avail->idx = 999;
	driver_notify(&driver, NET_TX_QUEUE);
	driver_run(&driver);
	move();
	thaw();
	driver_run(&driver);
	ck_assert(driver_read(&driver, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
	start();
	expect_both_ways();
}
END_TEST

START_TEST(address_and_mtu_are_those_that_the_guest_has_seen)
{
	uint8_t seen[12];

	start();
	config.mac = other_mac;
	config.mtu = 9000;
	move();
	for (unsigned int i = 0; i < sizeof(seen); i++)
		virtio_mmio_ops.read(&driver.mmio, VIRTIO_MMIO_CONFIG + i, &seen[i], 1);
	ck_assert_mem_eq(seen, mac, NET_MAC_SIZE);
	ck_assert_int_eq(seen[10] | seen[11] << 8, 1400);
}
END_TEST

/* A host's side that says what it was told. */
static uint64_t told;
static int answer;

static int tell(struct net_backend *backend, uint64_t features)
{
	(void)backend;
	told = features;
	return answer;
}

static struct net_backend *telling_front(void)
{
	static struct net_backend_ops ops;
	static struct net_backend front;

	ops = *net_backend(net)->ops;
	ops.set_offloads = tell;
	front = *net_backend(net);
	front.ops = &ops;
	told = 0;
	return &front;
}

START_TEST(host_is_told_the_offloads_again)
{
	uint64_t negotiated;

	net_device(net)->features |= UINT64_C(1) << VIRTIO_NET_F_GUEST_CSUM;
	driver_start(&driver, ~UINT64_C(0), 0);
	negotiated = net_device(net)->driver_features;
	ck_assert(negotiated >> VIRTIO_NET_F_GUEST_CSUM & 1);
	replace();
	net_device(net)->features |= UINT64_C(1) << VIRTIO_NET_F_GUEST_CSUM;
	net_set_front(net, telling_front());
	if (_i == 0) {
		driver_move(&driver, net_device(net), &saved);
		ck_assert_uint_eq(told, negotiated);
	} else {
		answer = -EPERM;
		memset(&driver.mmio, 0, sizeof(driver.mmio));
		driver_attach(&driver, net_device(net));
		driver_restore_fails(&driver, &saved,
				     "network interface eth0: offloads: Operation not permitted");
		answer = 0;
	}
	net_set_front(net, NULL);
}
END_TEST

START_TEST(host_is_told_nothing_without_a_driver)
{
	replace();
	net_set_front(net, telling_front());
	answer = -EPERM;
	driver_move(&driver, net_device(net), &saved);
	answer = 0;
	net_set_front(net, NULL);
}
END_TEST

START_TEST(offloads_that_this_host_has_not_are_refused)
{
	net_device(net)->features |= UINT64_C(1) << VIRTIO_NET_F_CSUM;
	driver_start(&driver, ~UINT64_C(0), 0);
	attach_another();
	driver_restore_fails(&driver, &saved,
			     "network interface eth0: it offered features 0x1 when it was saved, "
			     "which it cannot here");
}
END_TEST

static const struct {
	size_t at;
	uint8_t byte;
	const char *sentence;
} hostile[] = {
	{ AT_MTU + 1, 0, "network interface eth0: saved MTU 67" },
	{ AT_RX_LIMITER, 1, "network interface eth0: saved rate limiter that cannot be" },
	{ AT_TX_LIMITER + 40, 1, "network interface eth0: saved rate limiter that cannot be" },
};

START_TEST(hostile_value_is_refused)
{
	start();
	attach_another();
	/* 1400 and more, by one byte 67. */
	saved.data[driver_own_section(&driver) + AT_MTU] = 67;
	saved.data[driver_own_section(&driver) + hostile[_i].at] = hostile[_i].byte;
	driver_restore_fails(&driver, &saved, hostile[_i].sentence);
	ck_assert_mem_eq(net->config.mac, mac, NET_MAC_SIZE);
}
END_TEST

START_TEST(mangled_state_is_refused_or_harmless)
{
	start();
	add_rx(2);
	add_tx();
	attach_another();
	driver_try_mangled(&driver, &saved);
}
END_TEST

Suite *net_state_suite(void)
{
	Suite *suite = SUITE(
		"net_state", set_up, tear_down, interface_without_a_driver, idle_interface,
		buffers_that_nobody_has_looked_at, buffers_that_were_taken_ahead,
		frame_that_was_not_acknowledged, pending_frame_is_sent_by_the_new_one,
		throttled_interface_stays_throttled, interface_that_needs_a_reset,
		address_and_mtu_are_those_that_the_guest_has_seen,
		host_is_told_nothing_without_a_driver, offloads_that_this_host_has_not_are_refused,
		mangled_state_is_refused_or_harmless);

	add_table_test(suite, set_up, tear_down, host_is_told_the_offloads_again, 2);
	add_table_test(suite, set_up, tear_down, hostile_value_is_refused, ARRAY_SIZE(hostile));
	return suite;
}
