/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The input is a sequence of operations: chains of a driver that may be hostile, and frames or
 * nonsense of the program at the other end of passt's socket. As long as the driver keeps the rules
 * the device must work, and each frame arrive once, whole and in order; frames to the guest may be
 * dropped only as the counters say.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/err.h"
#include "base/guest_memory.h"
#include "base/log.h"
#include "tests/fuzz/driver.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/input.h"
#include "virtio/net/backend.h"
#include "virtio/net/net.h"

#define RX 0
#define TX 1
#define QUEUE_SIZE 256
#define LENGTH_SIZE 4
#define ETHERNET_MIN (NET_FRAME_MIN - NET_HEADER_SIZE)
#define ETHERNET_MAX (NET_FRAME_MAX - NET_HEADER_SIZE)

/* Guest memory, behind the driver's. */
#define MEMORY_SIZE (UINT64_C(32) << 20)
#define TX_DATA DRIVER_END
#define TX_DATA_SIZE UINT64_C(0x20000)
#define RX_DATA UINT64_C(0x100000)
#define RX_ROOM UINT64_C(0x11000) /* for each head */

#define OPERATIONS_MAX 256
#define FRAMES_MAX 4096

enum operation {
	SEND,
	SEND_RAW,
	GIVE,
	GIVE_RAW,
	COLLECT,
	HOST_SENDS,
	HOST_SENDS_RAW,
	HOST_READS,
	HOST_LEAVES,
	RESTART,
	OPERATIONS,
};

/* Bytes of the pattern. */
struct frame {
	uint32_t at;
	uint32_t size;
};

struct frames {
	unsigned int first, end;
	struct frame frames[FRAMES_MAX];
};

static uint8_t pattern[TX_DATA_SIZE];
static struct guest_memory memory;
static struct event_base *base;
static struct net *net;
static struct virtio_device *device;
static struct driver driver;
static int idle_events;
static bool mergeable;
static bool driver_honest; /* from the start to the end of the input */
static bool host_honest;

static int host = -1;
static struct frames to_guest, to_host;
static unsigned int lost_by_reset;
static unsigned int not_received;
static uint8_t host_out[LENGTH_SIZE + ETHERNET_MAX];
static size_t host_out_at, host_out_end;
static uint8_t host_in[LENGTH_SIZE + ETHERNET_MAX];
static size_t host_in_end;
static uint64_t host_packets, host_bytes;

static const struct net_metrics *counters(void)
{
	return net_device(net)->counters;
}

static bool push_frame(struct frames *frames, uint32_t offset, uint32_t size)
{
	if (frames->end == FRAMES_MAX)
		return false;
	frames->frames[frames->end++] = (struct frame){ offset, size };
	return true;
}

static bool frame_is(const struct frame *frame, const uint8_t *data, size_t size)
{
	return frame->size == size && memcmp(pattern + frame->at, data, size) == 0;
}

static void set_up(void)
{
	uint32_t state = 1;
	struct err err;

	log_set_level(LOG_ERROR);
	for (size_t i = 0; i < sizeof(pattern); i++) {
		state = state * 1664525 + 1013904223;
		pattern[i] = (uint8_t)(state >> 24);
	}
	REQUIRE(guest_memory_open(&memory, MEMORY_SIZE, UINT64_C(3) << 30, UINT64_C(4) << 30,
				  HUGE_PAGES_NONE, &err) == 0);
	driver.memory = &memory;
	base = event_base_new();
	REQUIRE(base);
}

static void run(void)
{
	for (unsigned int i = 0; i < 3; i++)
		REQUIRE(event_base_loop(base, EVLOOP_NONBLOCK) >= 0);
}

static void restart(struct input *input)
{
	uint8_t features = take(input);

	pthread_mutex_lock(&device->lock);
	virtio_device_reset(device);
	driver_reset(&driver, features & 1);
	for (unsigned int i = 0; i < 2; i++)
		driver_set_up_queue(&driver, i, &device->queues[i]);
	mergeable = features & 4;
	device->driver_features = (uint64_t)(features & 3) << VIRTIO_RING_F_INDIRECT_DESC |
				  (uint64_t)mergeable << VIRTIO_NET_F_MRG_RXBUF;
	virtio_device_activate(device);
	pthread_mutex_unlock(&device->lock);
	/* What has been read aside is gone, and what has not been sent. */
	lost_by_reset++;
	if (driver_honest)
		to_host.end = (unsigned int)counters()->tx_packets_count;
}

static void notify(unsigned int queue)
{
	const uint64_t one = 1;

	REQUIRE(write(device->notify_fds[queue], &one, sizeof(one)) == sizeof(one));
}

/* The header is what the pattern has there: anything. */
static void send_frames(struct input *input)
{
	uint8_t shape = take(input);
	uint32_t len = take_u16(input) + (shape & 0x20 ? 64 : 1);
	uint32_t offset = take_u16(input) % (TX_DATA_SIZE - 0x10100u);
	unsigned int count = shape & 0x40 ? 1 + take(input) : 1;

	while (count-- > 0 && to_host.end < FRAMES_MAX &&
	       driver_add(&driver, input, TX, TX_DATA + offset, len, shape)) {
		if (len >= NET_FRAME_MIN && len <= NET_FRAME_MAX)
			push_frame(&to_host, offset + NET_HEADER_SIZE, len - NET_HEADER_SIZE);
	}
	notify(TX);
}

static void give(struct input *input)
{
	uint8_t shape = take(input);
	uint32_t len = take_u16(input) + NET_HEADER_SIZE + (shape & 0x20 ? 64 : 0);
	unsigned int count = shape & 0x40 ? 1 + take(input) : 1;

	while (count-- > 0 && driver_add(&driver, input, RX,
					 RX_DATA + RX_ROOM * driver.rings[RX].next, len, shape))
		;
	notify(RX);
}

static void add_raw(struct input *input, unsigned int queue)
{
	struct vring_desc desc = { .addr = take_u32(input), .len = take_u32(input) };
	uint16_t head = take(input);

	desc.flags = take(input);
	desc.next = take(input);
	driver_add_raw(&driver, queue, head, &desc);
	notify(queue);
	driver_honest = false;
}

/* One that was sent, behind those that were received before. */
static void check_received(const uint8_t *data, size_t size)
{
	if (!host_honest)
		return;
	while (to_guest.first < to_guest.end) {
		if (frame_is(&to_guest.frames[to_guest.first++], data, size))
			return;
		not_received++;
	}
	REQUIRE(!"a frame that was never sent");
}

static bool collect_rx(void)
{
	static const uint8_t no_offloads[NET_HEADER_SIZE - 2];
	static uint8_t frame[NET_FRAME_MAX];
	struct driver_chain chain;
	uint16_t buffers, i = 0;
	uint32_t len;
	size_t size = 0;

	if (!driver_used(&driver, RX, &chain, &len))
		return false;
	REQUIRE(len >= NET_HEADER_SIZE);
	memcpy(&buffers,
	       driver_memory(&driver, RX_DATA + RX_ROOM * chain.head + sizeof(no_offloads), 2), 2);
	REQUIRE(buffers == 1 || (mergeable && buffers > 1));
	do {
		REQUIRE(len > 0 && len <= chain.len && size + len <= sizeof(frame));
		memcpy(frame + size, driver_memory(&driver, RX_DATA + RX_ROOM * chain.head, len),
		       len);
		size += len;
		if (++i == buffers)
			break;
		REQUIRE(len == chain.len);
		REQUIRE(driver_used(&driver, RX, &chain, &len));
	} while (true);
	REQUIRE(size >= NET_FRAME_MIN);
	REQUIRE(memcmp(frame, no_offloads, sizeof(no_offloads)) == 0);
	check_received(frame + NET_HEADER_SIZE, size - NET_HEADER_SIZE);
	return true;
}

static bool collect(void)
{
	bool some = false;
	struct driver_chain chain;
	uint32_t len;

	while (driver_honest && collect_rx())
		some = true;
	while (driver_honest && driver_used(&driver, TX, &chain, &len)) {
		REQUIRE(len == 0);
		some = true;
	}
	return some;
}

static bool host_flush(void)
{
	while (host_out_at < host_out_end) {
		ssize_t n = send(host, host_out + host_out_at, host_out_end - host_out_at,
				 MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0)
			return false;
		host_out_at += (size_t)n;
	}
	host_out_at = host_out_end = 0;
	return true;
}

static void host_sends(struct input *input)
{
	uint8_t shape = take(input);
	uint32_t size = 1 + take_u16(input) % ETHERNET_MAX;
	uint32_t offset = take(input);
	unsigned int count = shape & 1 ? 1 + take(input) : 1;
	const uint32_t length = htonl(size);

	while (count-- > 0 && host_flush()) {
		if (size >= ETHERNET_MIN && !push_frame(&to_guest, offset, size))
			return;
		memcpy(host_out, &length, sizeof(length));
		memcpy(host_out + LENGTH_SIZE, pattern + offset, size);
		host_out_end = LENGTH_SIZE + size;
		(void)host_flush();
	}
}

static void host_sends_raw(struct input *input)
{
	size_t size = take(input);

	size = size < input->size ? size : input->size;
	host_honest = false;
	if (host_flush())
		(void)!send(host, input->data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
	input->data += size;
	input->size -= size;
}

/* The device sends nothing but whole frames of lengths that Ethernet has. */
static void host_takes(void)
{
	while (host_in_end >= LENGTH_SIZE) {
		uint32_t length;
		size_t size;

		memcpy(&length, host_in, sizeof(length));
		size = ntohl(length);
		REQUIRE(size >= ETHERNET_MIN && size <= ETHERNET_MAX);
		if (host_in_end < LENGTH_SIZE + size)
			return;
		if (driver_honest) {
			REQUIRE(to_host.first < to_host.end);
			REQUIRE(frame_is(&to_host.frames[to_host.first++], host_in + LENGTH_SIZE,
					 size));
		}
		host_packets++;
		host_bytes += NET_HEADER_SIZE + size;
		host_in_end -= LENGTH_SIZE + size;
		memmove(host_in, host_in + LENGTH_SIZE + size, host_in_end);
	}
}

static bool host_reads(size_t limit)
{
	size_t room = sizeof(host_in) - host_in_end;
	ssize_t n = recv(host, host_in + host_in_end, limit < room ? limit : room, MSG_DONTWAIT);

	if (n <= 0)
		return false;
	host_in_end += (size_t)n;
	host_takes();
	return true;
}

static void operate(struct input *input)
{
	uint8_t first = take(input);

	switch ((enum operation)(first % OPERATIONS)) {
	case SEND:
		send_frames(input);
		break;
	case SEND_RAW:
		add_raw(input, TX);
		break;
	case GIVE:
		give(input);
		break;
	case GIVE_RAW:
		add_raw(input, RX);
		break;
	case COLLECT:
		collect();
		break;
	case HOST_SENDS:
		host_sends(input);
		break;
	case HOST_SENDS_RAW:
		host_sends_raw(input);
		break;
	case HOST_READS:
		host_reads(1 + take_u16(input));
		break;
	case HOST_LEAVES:
		shutdown(host, take(input) % 3);
		host_honest = false;
		break;
	default:
		collect();
		restart(input);
		break;
	}
	/* Several at once, sometimes. */
	if (!(first & 0x80))
		run();
	if (driver_honest)
		REQUIRE(device->active);
}

/* Until nothing moves any more: the host reads all, and an honest driver gives buffers. */
static void finish(void)
{
	const struct net_metrics *metrics = counters();
	uint64_t dropped;
	size_t left;
	int events;
	bool more;

	do {
		struct input large = { (const uint8_t[]){ 0x60, 0xff, 0xff, 0xff }, 4 };

		dropped = metrics->rx_fails;
		if (driver_honest)
			give(&large);
		run();
		left = host_out_end - host_out_at;
		(void)host_flush();
		more = host_out_end - host_out_at < left;
		while (host_reads(SIZE_MAX))
			more = true;
		more |= collect();
		/* The device's timers, set when it has more to do. */
		events = event_base_get_num_events(base, EVENT_BASE_COUNT_ADDED);
	} while (more || metrics->rx_fails > dropped || events > idle_events);
	if (!host_honest)
		return;
	REQUIRE(host_in_end == 0 && host_packets == metrics->tx_packets_count);
	REQUIRE(host_bytes == metrics->tx_bytes_count && metrics->tx_fails == 0);
	if (!driver_honest)
		return;
	REQUIRE(to_host.first == to_host.end && driver.rings[TX].first == driver.rings[TX].end);
	not_received += to_guest.end - to_guest.first;
	REQUIRE(not_received <= metrics->rx_fails + lost_by_reset);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t mac[NET_MAC_SIZE] = { 2, 0, 0, 0, 0, 1 };
	struct input input = { data, size };
	struct net_config config = { .id = "eth0", .mac = mac };
	struct err err;
	int pair[2];

	if (!memory.mapping)
		set_up();
	REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0); /* as if inherited */
	host = pair[0];
	config.passt_fd = pair[1];
	REQUIRE(net_open(&net, &config, &err) == 0);
	device = net_device(net);
	REQUIRE(virtio_device_attach(device, &(struct virtio_host){ &memory, base }, &err) == 0);
	idle_events = event_base_get_num_events(base, EVENT_BASE_COUNT_ADDED);
	memcpy(driver_memory(&driver, TX_DATA, TX_DATA_SIZE), pattern, sizeof(pattern));
	driver_honest = host_honest = true;
	to_guest.first = to_guest.end = to_host.first = to_host.end = 0;
	not_received = 0;
	host_out_at = host_out_end = host_in_end = 0;
	host_packets = host_bytes = 0;
	restart(&input);
	lost_by_reset = 0;
	for (unsigned int i = 0; i < OPERATIONS_MAX && input.size > 0; i++)
		operate(&input);
	finish();
	virtio_device_close(device);
	close(host);
	return 0;
}
