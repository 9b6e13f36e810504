/* SPDX-License-Identifier: Apache-2.0 */
/* Over passt's protocol, whose other end is a socket of the test's; taps need a privileged test. */
#include "base/array.h"
#include "virtio/net/internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_net.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/err.h"
#include "tests/unit/driver.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"

#define RX 0
#define TX 1
#define HEADER 12
#define MERGE (UINT64_C(1) << VIRTIO_NET_F_MRG_RXBUF)

static const uint8_t mac[NET_MAC_SIZE] = { 2, 0, 0, 0, 0, 1 };

static struct driver driver;
static struct net *net;
static int peer;
static int taken_fd;
static struct err err;

static const struct net_metrics *counters(void)
{
	return net_device(net)->counters;
}

static void open_net(struct net_config config)
{
	int pair[2];

	/* As if inherited. */
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	peer = pair[0];
	driver_open(&driver);
	config.id = "eth0";
	config.passt_fd = pair[1];
	taken_fd = pair[1];
	ck_assert_msg(net_open(&net, &config, &err) == 0, "%s", err.text);
	driver_attach(&driver, net_device(net));
}

static void set_up(void)
{
	open_net((struct net_config){ .mac = mac, .mtu = 1400 });
}

static void tear_down(void)
{
	virtio_device_close(net_device(net));
	driver_close(&driver);
	close(peer);
}

static void fill(uint8_t *frame, size_t size, unsigned int seed)
{
	for (size_t i = 0; i < size; i++)
		frame[i] = (uint8_t)(i * 7 + seed);
}

static void send_to_guest(const uint8_t *frame, uint32_t size)
{
	uint32_t length = htonl(size);

	ck_assert_int_eq(send(peer, &length, sizeof(length), 0), sizeof(length));
	ck_assert_int_eq(send(peer, frame, size, 0), size);
}

static void receive_from_guest(uint8_t *frame, uint32_t size)
{
	uint32_t length;

	read_all(peer, &length, sizeof(length));
	ck_assert_uint_eq(ntohl(length), size);
	read_all(peer, frame, size);
}

static void add_rx(unsigned int count, uint32_t size)
{
	static unsigned int at;

	for (unsigned int i = 0; i < count; i++) {
		const struct driver_buffer buffer = {
			DRIVER_DATA + (at++ % 128) * UINT64_C(0x11000), size, true
		};

		driver_add(&driver, RX, &buffer, 1);
	}
	driver_notify(&driver, RX);
}

static uint64_t rx_addr(uint32_t head)
{
	return driver.queues[RX].vring.desc[head].addr;
}

static void start(uint64_t features)
{
	driver_start(&driver, features | UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX, 0);
	driver_run(&driver);
}

START_TEST(configuration_says_mac_and_mtu)
{
	uint8_t config[12];

	for (unsigned int i = 0; i < sizeof(config); i++)
		virtio_mmio_ops.read(&driver.mmio, VIRTIO_MMIO_CONFIG + i, &config[i], 1);
	ck_assert_mem_eq(config, mac, NET_MAC_SIZE);
	ck_assert_int_eq(config[10] | config[11] << 8, 1400);
	ck_assert_uint_eq(driver_read(&driver, VIRTIO_MMIO_DEVICE_FEATURES) & 0xffffff,
			  1u << VIRTIO_NET_F_MAC | 1u << VIRTIO_NET_F_MTU | MERGE);
}
END_TEST

START_TEST(frame_to_the_guest)
{
	uint8_t frame[1000];
	const uint8_t *got;
	uint32_t head, len;

	fill(frame, sizeof(frame), 1);
	start(MERGE);
	add_rx(64, 1500);
	driver_run(&driver);
	send_to_guest(frame, sizeof(frame));
	driver_wait_used(&driver, RX, &head, &len);
	ck_assert_uint_eq(len, sizeof(frame) + HEADER);
	got = driver_memory(&driver, rx_addr(head), len);
	ck_assert_mem_eq(got, "\0\0\0\0\0\0\0\0\0\0\1\0", HEADER);
	ck_assert_mem_eq(got + HEADER, frame, sizeof(frame));
	ck_assert(driver_interrupted(&driver));
	ck_assert_uint_eq(counters()->rx_packets_count, 1);
}
END_TEST

START_TEST(large_frame_takes_several_buffers)
{
	uint8_t frame[5000], got[5000];
	uint32_t head, len;
	size_t at = 0;

	fill(frame, sizeof(frame), 2);
	start(MERGE);
	add_rx(_i ? 64 : 5, 1500); /* with room for any frame, and without */
	driver_run(&driver);
	send_to_guest(frame, sizeof(frame));
	for (int i = 0; i < 4; i++) {
		uint32_t skip = i == 0 ? HEADER : 0;
		const uint8_t *buffer;

		driver_wait_used(&driver, RX, &head, &len);
		buffer = driver_memory(&driver, rx_addr(head), len);
		if (i == 0)
			ck_assert_uint_eq(buffer[10], 4);
		memcpy(got + at, buffer + skip, len - skip);
		at += len - skip;
	}
	ck_assert_uint_eq(at, sizeof(frame));
	ck_assert_mem_eq(got, frame, sizeof(frame));
	ck_assert(!driver_used(&driver, RX, &head, &len));
}
END_TEST

START_TEST(frame_waits_for_buffers)
{
	uint8_t frame[3000];
	uint32_t head, len;

	fill(frame, sizeof(frame), 3);
	start(MERGE);
	send_to_guest(frame, sizeof(frame));
	driver_run(&driver);
	add_rx(1, 1500);
	driver_run(&driver);
	ck_assert(!driver_used(&driver, RX, &head, &len));
	ck_assert_uint_ge(counters()->no_rx_avail_buffer, 1);
	add_rx(2, 1500);
	driver_wait_used(&driver, RX, &head, &len);
	ck_assert_uint_eq(len, 1500);
}
END_TEST

/* With room for any frame at once, where a later frame could be read straight into the buffers. */
START_TEST(frame_that_waited_comes_first)
{
	uint8_t frame[100];
	uint32_t head, len;

	fill(frame, sizeof(frame), 3);
	start(MERGE);
	send_to_guest(frame, sizeof(frame));
	driver_run(&driver);
	send_to_guest(frame, sizeof(frame) / 2);
	add_rx(2, 0x11000);
	driver_wait_used(&driver, RX, &head, &len);
	ck_assert_uint_eq(len, HEADER + sizeof(frame));
	driver_wait_used(&driver, RX, &head, &len);
	ck_assert_uint_eq(len, HEADER + sizeof(frame) / 2);
}
END_TEST

START_TEST(frame_too_large_for_the_driver_is_dropped)
{
	uint8_t frame[3000];
	uint32_t head, len;

	fill(frame, sizeof(frame), 4);
	start(0);
	add_rx(4, 1526);
	driver_run(&driver);
	send_to_guest(frame, sizeof(frame));
	send_to_guest(frame, 500);
	driver_wait_used(&driver, RX, &head, &len);
	ck_assert_uint_eq(len, 500 + HEADER);
	ck_assert_uint_eq(counters()->rx_fails, 1);
}
END_TEST

/* Merged, all buffers that the driver has descriptors for do not hold it. */
START_TEST(frame_too_large_for_all_buffers_is_dropped)
{
	const struct driver_buffer pieces[] = { { DRIVER_DATA, 12, true },
						{ DRIVER_DATA + 12, 1, true },
						{ DRIVER_DATA + 13, 99, true } };
	static uint8_t frame[10000];
	uint32_t head, len;

	start(MERGE);
	for (unsigned int i = 0; i < 256 / 3; i++)
		driver_add(&driver, RX, pieces, 3);
	driver_notify(&driver, RX);
	driver_run(&driver);
	send_to_guest(frame, sizeof(frame));
	send_to_guest(frame, 100);
	driver_wait_used(&driver, RX, &head, &len);
	ck_assert_uint_eq(len, 100 + HEADER);
	ck_assert_uint_eq(counters()->rx_fails, 1);
}
END_TEST

START_TEST(many_frames_keep_their_order)
{
	uint8_t frame[1400];
	uint32_t head, len;

	start(MERGE);
	for (unsigned int round = 0; round < 40; round++) {
		add_rx(100, 1600);
		for (unsigned int i = 0; i < 100; i++) {
			fill(frame, sizeof(frame), round + i);
			send_to_guest(frame, sizeof(frame) - i);
			driver_wait_used(&driver, RX, &head, &len);
			ck_assert_uint_eq(len, sizeof(frame) - i + HEADER);
			ck_assert_mem_eq((uint8_t *)driver_memory(&driver, rx_addr(head), len) +
						 HEADER,
					 frame, sizeof(frame) - i);
		}
	}
}
END_TEST

START_TEST(frame_from_the_guest_in_pieces)
{
	const struct driver_buffer buffers[] = { { DRIVER_DATA, 5, false },
						 { DRIVER_DATA + 5, 9, false },
						 { DRIVER_DATA + 14, 998, false } };
	uint8_t *frame = driver_memory(&driver, DRIVER_DATA, HEADER + 1000);
	uint8_t got[1000];
	uint32_t head, len;

	start(MERGE);
	memset(frame, 0, HEADER);
	fill(frame + HEADER, 1000, 5);
	driver_add(&driver, TX, buffers, 3);
	driver_notify(&driver, TX);
	driver_wait_used(&driver, TX, &head, &len);
	ck_assert_uint_eq(len, 0);
	receive_from_guest(got, sizeof(got));
	ck_assert_mem_eq(got, frame + HEADER, sizeof(got));
	ck_assert_uint_eq(counters()->tx_bytes_count, 1012);
}
END_TEST

START_TEST(malformed_frames_are_dropped)
{
	const struct driver_buffer bad[] = {
		{ DRIVER_DATA, 1, false },
		{ DRIVER_DATA, HEADER + 13, false },
		{ DRIVER_DATA, HEADER + 65535 + 19, false },
		{ DRIVER_DATA, 2000, true },
	};
	uint32_t head, len;

	start(MERGE);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		driver_add(&driver, TX, &bad[i], 1);
		driver_notify(&driver, TX);
		driver_wait_used(&driver, TX, &head, &len);
	}
	ck_assert_uint_eq(counters()->tx_malformed_frames, ARRAY_SIZE(bad));
	ck_assert(net_device(net)->active);
}
END_TEST

/* The peer reads only after the guest has filled all that there is between them. */
START_TEST(slow_host_loses_no_frame)
{
	const struct driver_buffer buffer = { DRIVER_DATA, HEADER + 30000, false };
	uint8_t *frame = driver_memory(&driver, DRIVER_DATA, HEADER + 30000);
	static uint8_t got[30000];
	uint32_t head, len;
	unsigned int used = 0;

	start(MERGE);
	fill(frame + HEADER, 30000, 6);
	for (unsigned int i = 0; i < 200; i++)
		driver_add(&driver, TX, &buffer, 1);
	driver_notify(&driver, TX);
	for (unsigned int i = 0; i < 100; i++)
		driver_run(&driver);
	while (driver_used(&driver, TX, &head, &len))
		used++;
	ck_assert_uint_lt(used, 200);
	for (unsigned int i = 0; i < 200; i++) {
		uint32_t length;
		size_t at = 0;

		while (at < sizeof(length) + sizeof(got)) {
			ssize_t n = at < sizeof(length)
					    ? recv(peer, (uint8_t *)&length + at,
						   sizeof(length) - at, MSG_DONTWAIT)
					    : recv(peer, got + at - sizeof(length),
						   sizeof(got) + sizeof(length) - at, MSG_DONTWAIT);

			if (n > 0)
				at += (size_t)n;
			else
				driver_run(&driver);
		}
		ck_assert_uint_eq(ntohl(length), sizeof(got));
		ck_assert_mem_eq(got, frame + HEADER, sizeof(got));
	}
	while (used < 200) {
		driver_wait_used(&driver, TX, &head, &len);
		used++;
	}
	ck_assert_uint_eq(counters()->tx_packets_count, 200);
}
END_TEST

START_TEST(peer_that_goes_away_is_survived)
{
	const struct driver_buffer buffer = { DRIVER_DATA, HEADER + 100, false };
	uint32_t head, len;

	start(MERGE);
	add_rx(4, 1526);
	driver_run(&driver);
	close(peer);
	driver_run(&driver);
	driver_add(&driver, TX, &buffer, 1);
	driver_notify(&driver, TX);
	driver_wait_used(&driver, TX, &head, &len);
	ck_assert_uint_eq(counters()->tx_fails, 1);
	ck_assert(net_device(net)->active);
	peer = dup(0);
}
END_TEST

START_TEST(peer_with_another_protocol_is_left)
{
	uint32_t head, len;

	start(MERGE);
	add_rx(64, 1526);
	driver_run(&driver);
	ck_assert_int_eq(send(peer, "HTTP/1.1", 8, 0), 8);
	driver_run(&driver);
	driver_run(&driver);
	ck_assert(!driver_used(&driver, RX, &head, &len));
	ck_assert_uint_eq(counters()->tap_read_fails, 1);
}
END_TEST

START_TEST(reset_drops_what_was_on_its_way)
{
	uint8_t frame[3000];
	uint32_t head, len;

	fill(frame, sizeof(frame), 7);
	start(MERGE);
	add_rx(1, 1526);
	send_to_guest(frame, sizeof(frame));
	driver_run(&driver);
	start(MERGE);
	add_rx(64, 1526);
	driver_run(&driver);
	send_to_guest(frame, 60);
	driver_wait_used(&driver, RX, &head, &len);
	ck_assert_uint_eq(len, 60 + HEADER);
}
END_TEST

START_TEST(receive_buffer_that_is_not_writable_breaks_the_device)
{
	const struct driver_buffer buffer = { DRIVER_DATA, 1526, false };
	uint8_t frame[100] = { 0 };

	start(MERGE);
	driver_add(&driver, RX, &buffer, 1);
	send_to_guest(frame, sizeof(frame));
	driver_notify(&driver, RX);
	driver_run(&driver);
	ck_assert(driver_read(&driver, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
}
END_TEST

START_TEST(receive_buffer_that_is_partly_readable_breaks_the_device)
{
	const struct driver_buffer buffers[] = { { DRIVER_DATA, 100, false },
						 { DRIVER_DATA + 100, 1526, true } };
	uint8_t frame[100] = { 0 };

	start(MERGE);
	driver_add(&driver, RX, buffers, 2);
	send_to_guest(frame, sizeof(frame));
	driver_notify(&driver, RX);
	driver_run(&driver);
	ck_assert(driver_read(&driver, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
}
END_TEST

START_TEST(receive_buffer_without_room_for_a_header_breaks_the_device)
{
	const struct driver_buffer buffer = { DRIVER_DATA, HEADER - 1, true };
	uint8_t frame[100] = { 0 };

	start(MERGE);
	driver_add(&driver, RX, &buffer, 1);
	send_to_guest(frame, sizeof(frame));
	driver_notify(&driver, RX);
	driver_run(&driver);
	ck_assert(driver_read(&driver, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
}
END_TEST

START_TEST(frames_of_another_source_are_counted)
{
	const struct driver_buffer buffer = { DRIVER_DATA, HEADER + 60, false };
	uint8_t *frame;
	uint32_t head, len;

	start(MERGE | UINT64_C(1) << VIRTIO_NET_F_MAC);
	frame = driver_memory(&driver, DRIVER_DATA, HEADER + 60);
	memset(frame, 0, HEADER + 60);
	for (unsigned int other = 0; other < 2; other++) {
		memcpy(frame + HEADER + NET_MAC_SIZE, mac, NET_MAC_SIZE);
		frame[HEADER + NET_MAC_SIZE] ^= (uint8_t)(4 * other);
		driver_add(&driver, TX, &buffer, 1);
		driver_notify(&driver, TX);
		driver_wait_used(&driver, TX, &head, &len);
		ck_assert_uint_eq(counters()->tx_spoofed_mac_count, other);
	}
}
END_TEST

START_TEST(limits_hold_frames_back)
{
	const struct net_config config = {
		.rx_limiter.ops = { 2, 0, 50 },
		.tx_limiter.bandwidth = { 1000, 0, 50 },
	};
	const struct driver_buffer buffer = { DRIVER_DATA, HEADER + 900, false };
	uint8_t frame[900] = { 0 };
	uint32_t head, len;

	tear_down();
	open_net(config);
	start(MERGE);
	add_rx(64, 1526);
	for (int i = 0; i < 6; i++) {
		send_to_guest(frame, 100);
		driver_add(&driver, TX, &buffer, 1);
	}
	driver_notify(&driver, TX);
	for (int i = 0; i < 6; i++)
		driver_wait_used(&driver, TX, &head, &len);
	for (int i = 0; i < 6; i++)
		driver_wait_used(&driver, RX, &head, &len);
	ck_assert_uint_ge(counters()->rx_rate_limiter_throttled, 1);
	ck_assert_uint_ge(counters()->tx_rate_limiter_throttled, 1);
	/* A limit that is taken away lets go what waits. */
	net_set_limiters(net, &(struct rate_limiter_config){ .ops = { 1, 0, 3600000 } }, NULL);
	send_to_guest(frame, 100);
	send_to_guest(frame, 100);
	driver_wait_used(&driver, RX, &head, &len);
	ck_assert(!driver_used(&driver, RX, &head, &len));
	net_set_limiters(net, &(struct rate_limiter_config){ 0 }, NULL);
	driver_wait_used(&driver, RX, &head, &len);
}
END_TEST

START_TEST(bad_configuration_is_refused)
{
	struct net *other;
	unsigned int before = count_open_fds();

	ck_assert_int_eq(
		net_open(&other, &(struct net_config){ .id = "a", .tap = "no_such_tap" }, &err),
		-ENODEV);
	assert_contains(err.text, "network interface a: there is no tap device no_such_tap");
	ck_assert_int_lt(net_open(&other,
				  &(struct net_config){ .id = "a", .tap = "longer_than_16_bytes" },
				  &err),
			 0);
	ck_assert_int_lt(net_open(&other, &(struct net_config){ .id = "a", .tap = "lo" }, &err), 0);
	ck_assert_int_lt(net_open(&other,
				  &(struct net_config){
					  .id = "a", .passt_socket = "absent", .passt_fd = -1 },
				  &err),
			 0);
	assert_contains(err.text, "absent");
	/* Of this process's own, and taken over once already. */
	ck_assert_int_eq(
		net_open(&other, &(struct net_config){ .id = "a", .passt_fd = taken_fd }, &err),
		-EBADF);
	assert_contains(err.text, "not inherited");
	ck_assert_ptr_null(other);
	ck_assert_uint_eq(count_open_fds(), before);
}
END_TEST

/* Its rings are enough to go on: what was popped for later is in them again. */
static void assert_only_rings(void)
{
	for (unsigned int i = 0; i < NET_QUEUES; i++) {
		const struct virtq *queue = &net_device(net)->queues[i];

		ck_assert_uint_eq(queue->next_avail, queue->published_used);
	}
}

START_TEST(frozen_device_receives_nothing)
{
	uint8_t frame[100];
	uint32_t head, len;

	fill(frame, sizeof(frame), 1);
	start(MERGE);
	add_rx(64, 1526);
	send_to_guest(frame, sizeof(frame));
	driver_wait_used(&driver, RX, &head, &len);
	/* There is room for any frame. */
	ck_assert_uint_gt(net_device(net)->queues[RX].next_avail, 1);
	ck_assert(virtio_device_freeze(net_device(net), 0));
	assert_only_rings();
	send_to_guest(frame, sizeof(frame));
	driver_notify(&driver, RX);
	net_set_limiters(net, &(struct rate_limiter_config){ 0 }, NULL);
	driver_run(&driver);
	driver_run(&driver);
	ck_assert_uint_eq(counters()->rx_tap_event_count, 2);
	ck_assert(!driver_used(&driver, RX, &head, &len));
	assert_only_rings();
	virtio_device_thaw(net_device(net));
	driver_wait_used(&driver, RX, &head, &len);
	ck_assert_mem_eq((uint8_t *)driver_memory(&driver, rx_addr(head), len) + HEADER, frame,
			 sizeof(frame));
}
END_TEST

/* One that passt had no room for, which it gets afterwards. */
START_TEST(freezing_gives_a_pending_frame_back)
{
	const struct driver_buffer buffer = { DRIVER_DATA, HEADER + 60000, false };
	static uint8_t got[4 + 60000];
	unsigned int sent = 0, used = 0;
	uint32_t head, len;

	start(MERGE);
	while (!net->tx_pending.iov) {
		driver_add(&driver, TX, &buffer, 1);
		driver_notify(&driver, TX);
		driver_run(&driver);
		sent++;
	}
	while (driver_used(&driver, TX, &head, &len))
		used++;
	ck_assert_uint_lt(used, sent);
	ck_assert(virtio_device_freeze(net_device(net), 0));
	assert_only_rings();
	driver_notify(&driver, TX);
	driver_run(&driver);
	ck_assert(!driver_used(&driver, TX, &head, &len));
	assert_only_rings();
	virtio_device_thaw(net_device(net));
	for (unsigned int i = 0; i < sent; i++) {
		for (size_t at = 0; at < sizeof(got);) {
			ssize_t n = recv(peer, got + at, sizeof(got) - at, MSG_DONTWAIT);

			if (n > 0)
				at += (size_t)n;
			else
				driver_run(&driver);
		}
	}
	for (; used < sent; used++)
		driver_wait_used(&driver, TX, &head, &len);
	ck_assert_uint_eq(counters()->tx_packets_count, sent);
}
END_TEST

Suite *net_suite(void)
{
	Suite *suite =
		SUITE("net", set_up, tear_down, frozen_device_receives_nothing,
		      freezing_gives_a_pending_frame_back, configuration_says_mac_and_mtu,
		      frame_to_the_guest, frame_waits_for_buffers, frame_that_waited_comes_first,
		      frame_too_large_for_the_driver_is_dropped,
		      frame_too_large_for_all_buffers_is_dropped, many_frames_keep_their_order,
		      frame_from_the_guest_in_pieces, malformed_frames_are_dropped,
		      slow_host_loses_no_frame, peer_that_goes_away_is_survived,
		      peer_with_another_protocol_is_left, reset_drops_what_was_on_its_way,
		      receive_buffer_that_is_not_writable_breaks_the_device,
		      receive_buffer_that_is_partly_readable_breaks_the_device,
		      receive_buffer_without_room_for_a_header_breaks_the_device,
		      frames_of_another_source_are_counted, limits_hold_frames_back,
		      bad_configuration_is_refused);

	add_table_test(suite, set_up, tear_down, large_frame_takes_several_buffers, 2);
	return suite;
}
