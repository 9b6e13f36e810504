/* SPDX-License-Identifier: Apache-2.0 */
/* The metadata service on a network device: through its queues, beside passt's frames. */
#include <arpa/inet.h>
#include <linux/virtio_net.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/err.h"
#include "mmds/mmds.h"
#include "mmds/responder.h"
#include "tests/unit/driver.h"
#include "tests/unit/mmds_guest.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"
#include "virtio/net/net.h"

#define RX 0
#define TX 1
#define HEADER 12
#define RX_SIZE 2000

static struct driver driver;
static struct net *net;
static struct mmds *mmds;
static struct responder *responder;
static int peer;
static struct err err;
static unsigned int rx_added;

static const struct net_metrics *counters(void)
{
	return net_device(net)->counters;
}

static void open_net(struct net_config config)
{
	int pair[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	peer = pair[0];
	driver_open(&driver);
	config.id = "eth0";
	config.passt_fd = pair[1];
	ck_assert_msg(net_open(&net, &config, &err) == 0, "%s", err.text);
	ck_assert_int_eq(mmds_open(&mmds, MMDS_SIZE_LIMIT, &err), 0);
	ck_assert_int_eq(responder_open(&responder, mmds, htonl(SERVICE_ADDRESS), net_backend(net),
					NULL, &err),
			 0);
	net_set_front(net, responder_backend(responder));
	driver_attach(&driver, net_device(net));
	rx_added = 0;
}

static void set_up(void)
{
	open_net((struct net_config){ 0 });
}

static void tear_down(void)
{
	virtio_device_close(net_device(net));
	responder_close(responder);
	mmds_close(mmds);
	driver_close(&driver);
	close(peer);
}

static void add_rx(unsigned int count)
{
	while (count-- > 0) {
		const struct driver_buffer buffer = {
			DRIVER_DATA + 0x10000u + RX_SIZE * (uint64_t)rx_added++, RX_SIZE, true
		};

		driver_add(&driver, RX, &buffer, 1);
	}
	driver_notify(&driver, RX);
	driver_run(&driver);
}

static void send_frames(size_t size, unsigned int count)
{
	const struct driver_buffer buffer = { DRIVER_DATA, (uint32_t)(HEADER + size), false };

	for (unsigned int i = 0; i < count; i++)
		driver_add(&driver, TX, &buffer, 1);
	driver_notify(&driver, TX);
	driver_run(&driver);
}

static uint8_t *tx_frame(void)
{
	uint8_t *frame = driver_memory(&driver, DRIVER_DATA, HEADER + 1514);

	memset(frame, 0, HEADER);
	return frame + HEADER;
}

static void send_syn(uint16_t port)
{
	send_frames(guest_tcp(tx_frame(), SERVICE_ADDRESS,
			      &(struct guest_segment){
				      .from = port, .to = 80, .flags = SYN, .window = 100 }),
		    1);
}

/* Takes a frame to the guest that is there; false if there is none. */
static bool received(struct guest_segment *segment)
{
	uint32_t head, len;
	uint64_t addr;

	if (!driver_used(&driver, RX, &head, &len))
		return false;
	addr = driver.queues[RX].vring.desc[head].addr;
	ck_assert(guest_read_tcp((uint8_t *)driver_memory(&driver, addr, len) + HEADER,
				 len - HEADER, segment));
	return true;
}

static void start(void)
{
	driver_start(&driver,
		     UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX | UINT64_C(1) << VIRTIO_NET_F_MRG_RXBUF,
		     0);
	driver_run(&driver);
}

START_TEST(answer_follows_the_request)
{
	struct guest_segment segment;
	char byte;

	start();
	add_rx(64);
	send_syn(7);
	ck_assert(received(&segment));
	ck_assert_uint_eq(segment.flags, SYN | ACK);
	ck_assert(driver_interrupted(&driver));
	ck_assert_int_lt(recv(peer, &byte, 1, MSG_DONTWAIT), 0);
	/* None of it was the network's, but the guest has received it. */
	ck_assert_uint_eq(counters()->tx_packets_count, 0);
	ck_assert_uint_eq(counters()->rx_packets_count, 1);
	/* The other frames go their way. */
	send_frames(guest_arp(tx_frame(), 1, SERVICE_ADDRESS + 1), 1);
	ck_assert_int_gt(recv(peer, &byte, 1, MSG_DONTWAIT), 0);
	ck_assert_uint_eq(counters()->tx_packets_count, 1);
}
END_TEST

START_TEST(answer_waits_for_buffers)
{
	struct guest_segment segment;

	start();
	for (uint16_t port = 1; port <= 3; port++)
		send_syn(port);
	ck_assert(!received(&segment));
	add_rx(1);
	ck_assert(received(&segment));
	ck_assert(!received(&segment));
	add_rx(40);
	ck_assert(received(&segment));
	ck_assert(received(&segment));
	ck_assert(!received(&segment));
}
END_TEST

/* By the event loop's timer, with nothing else to wake the device. */
START_TEST(what_is_lost_comes_again)
{
	struct guest_segment segment;

	start();
	add_rx(64);
	send_syn(7);
	ck_assert(received(&segment));
	ck_assert(!received(&segment));
	/* A timer of the loop's may come early, and is then set again. */
	while (!received(&segment))
		event_base_loop(driver.base, EVLOOP_ONCE);
	ck_assert_uint_eq(segment.flags, SYN | ACK);
}
END_TEST

/* Neither frames nor the passing of time reach a guest that is paused. */
START_TEST(paused_guest_is_left_alone)
{
	static const uint8_t length_and_frame[4 + 60] = { 0, 0, 0, 60 };
	struct guest_segment segment;
	unsigned int frames = 0;
	uint32_t head, len;
	int events;

	start();
	add_rx(64);
	send_syn(7);
	ck_assert(received(&segment));
	ck_assert(virtio_device_freeze(net_device(net), 0));
	events = event_base_get_num_events(driver.base, EVENT_BASE_COUNT_ADDED);
	ck_assert_int_eq(send(peer, length_and_frame, sizeof(length_and_frame), 0),
			 sizeof(length_and_frame));
	/* The timer that was set before, for what is lost. */
	while (counters()->rx_tap_event_count == 0 ||
	       event_base_get_num_events(driver.base, EVENT_BASE_COUNT_ADDED) == events)
		event_base_loop(driver.base, EVLOOP_ONCE);
	ck_assert(!driver_used(&driver, RX, &head, &len));
	virtio_device_thaw(net_device(net));
	/* The frame, and what was to be sent again, in either order. */
	for (unsigned int i = 0; i < 2; i++) {
		driver_wait_used(&driver, RX, &head, &len);
		frames += len == HEADER + 60;
	}
	ck_assert_uint_eq(frames, 1);
}
END_TEST

/* Frames for the service take nothing of what the guest may send, but wait when nothing may. */
START_TEST(limit_is_the_networks)
{
	size_t size = guest_arp(tx_frame(), 1, SERVICE_ADDRESS);
	uint32_t head, len;
	unsigned int used = 0;

	start();
	add_rx(64);
	send_frames(size, 50);
	ck_assert_uint_eq(counters()->tx_rate_limiter_throttled, 0);
	(void)guest_arp(tx_frame(), 1, SERVICE_ADDRESS + 1);
	send_frames(size, 3);
	while (driver_used(&driver, TX, &head, &len))
		used++;
	ck_assert_uint_eq(used, 52);
	ck_assert_uint_eq(counters()->tx_rate_limiter_throttled, 1);
}
END_TEST

static void limited(void)
{
	open_net((struct net_config){ .tx_limiter.ops = { 2, 0, 3600000 } });
}

/* What the guest receives is limited, whoever sends it. */
START_TEST(answers_are_limited)
{
	struct guest_segment segment;
	unsigned int count = 0;

	start();
	add_rx(64);
	for (uint16_t port = 1; port <= 5; port++)
		send_syn(port);
	while (received(&segment))
		count++;
	ck_assert_uint_eq(count, 2);
	ck_assert_uint_ge(counters()->rx_rate_limiter_throttled, 1);
}
END_TEST

static void limited_to_the_guest(void)
{
	open_net((struct net_config){ .rx_limiter.ops = { 2, 0, 3600000 } });
}

START_TEST(device_is_reset_and_goes_on)
{
	struct guest_segment segment;

	start();
	send_syn(7);
	driver_reset(&driver);
	start();
	rx_added = 0;
	add_rx(64);
	send_syn(8);
	while (received(&segment)) {
		if (segment.to == 8)
			return;
	}
	ck_abort_msg("no answer");
}
END_TEST

Suite *mmds_net_suite(void)
{
	Suite *suite = SUITE("mmds_net", set_up, tear_down, answer_follows_the_request,
			     answer_waits_for_buffers, what_is_lost_comes_again,
			     paused_guest_is_left_alone, device_is_reset_and_goes_on);

	add_tests(suite, "limited", limited, tear_down, limit_is_the_networks);
	add_tests(suite, "limited to the guest", limited_to_the_guest, tear_down,
		  answers_are_limited);
	return suite;
}
