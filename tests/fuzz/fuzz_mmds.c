/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The input is a sequence of operations of a guest that may be hostile: raw frames, well-formed
 * segments of several connections, time that goes by, buffers that are there or not. Whatever
 * comes, the metadata service answers only from its address and to who has sent something, in
 * frames that are whole and right; has no more connections than it may; sends nothing before it is
 * asked; and is quiet in the end. What is not for its address passes, unchanged.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/virtio_net.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "base/err.h"
#include "mmds/frame.h"
#include "mmds/mmds.h"
#include "mmds/responder.h"
#include "mmds/store.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/input.h"
#include "tests/unit/packet.h"
#include "virtio/net/backend.h"

#define SERVICE 0xa9fea9feu
#define PORTS 40
#define OPERATIONS_MAX 512
#define FRAME_SIZE 6000
#define HEAD (NET_HEADER_SIZE + 54) /* of a segment without options */

enum operation { RAW, ARP, SEGMENT, REQUEST, LISTEN, SLEEP, CHANGE, OPERATIONS };

/* What the guest knows of a connection. */
struct end {
	bool open;
	uint32_t seq;
	uint32_t ack;
};

static struct mmds *mmds;
static struct responder *responder;
static struct net_backend *front;
static int64_t now;
static struct end ends[PORTS];
static unsigned int asked; /* frames for the address since the service last had nothing to say */
static unsigned int passed;
static uint8_t frame[FRAME_SIZE];
static size_t frame_size;
static uint8_t out[NET_FRAME_MAX];

static const char *const requests[] = {
	"GET / HTTP/1.1\r\n\r\n",
	"GET /big HTTP/1.1\r\nAccept: application/json\r\n\r\n",
	"PUT /latest/api/token HTTP/1.1\r\nX-metadata-token-ttl-seconds: 9\r\n\r\n",
	"GET /a HTTP/1.1\r\nConnection: close\r\n\r\n",
	"GET /a HTTP/1.1\r\nX-metadata-token: 0\r\n",
	"\r\n\r\n",
};

/* Whether it is the service's, by what the frame says: not by the code under test. */
static bool is_its(const uint8_t *ethernet, size_t size)
{
	if (size >= 42 && get(ethernet + 12, 2) == 0x0806)
		return get(ethernet + 38, 4) == SERVICE;
	return size >= 34 && get(ethernet + 12, 2) == 0x0800 && get(ethernet + 30, 4) == SERVICE;
}

static int behind_send(struct net_backend *backend, const struct iovec *iov, unsigned int count)
{
	size_t at = 0;

	(void)backend;
	for (unsigned int i = 0; i < count; i++) {
		REQUIRE(memcmp(frame + at, iov[i].iov_base, iov[i].iov_len) == 0);
		at += iov[i].iov_len;
	}
	REQUIRE(at == frame_size);
	passed++;
	return 0;
}

static ssize_t behind_receive(struct net_backend *backend, const struct iovec *iov,
			      unsigned int count)
{
	(void)backend;
	(void)iov;
	(void)count;
	return -EAGAIN;
}

static const struct net_backend_ops behind_ops = { .send = behind_send, .receive = behind_receive };
static struct net_backend behind = { .ops = &behind_ops };

static int64_t fuzz_clock(void)
{
	return now;
}

/* In pieces, as the input has it. */
static void send_frame(struct input *input)
{
	struct iovec iov[4];
	unsigned int count = 0, before = passed;
	uint8_t *pieces[4];
	size_t at = 0;
	bool its = is_its(frame + NET_HEADER_SIZE, frame_size - NET_HEADER_SIZE);

	while (at < frame_size) {
		size_t size = count < 3 ? 1u + take(input) : frame_size;

		if (size > frame_size - at)
			size = frame_size - at;
		/* Each in memory of its own, which ends where the piece does. */
		pieces[count] = malloc(size);
		memcpy(pieces[count], frame + at, size);
		iov[count] = (struct iovec){ pieces[count], size };
		at += size;
		count++;
	}
	REQUIRE(front->ops->send(front, iov, count) == (its ? 1 : 0));
	REQUIRE(passed - before == !its);
	if (its)
		asked++;
	while (count-- > 0)
		free(pieces[count]);
}

static void check_segment(const uint8_t *ethernet, size_t size)
{
	const uint8_t *ip = ethernet + 14, *tcp = ip + 20;
	size_t head;

	REQUIRE(size >= 54 && size <= 1514);
	REQUIRE(ip[0] == 0x45 && get(ip + 2, 2) == size - 14 && ip[9] == 6);
	REQUIRE(get(ip + 12, 4) == SERVICE && get(ip + 16, 4) != SERVICE);
	REQUIRE(sum(ip, 20, 0) == 0xffff);
	REQUIRE(sum(tcp, size - 34, (uint32_t)sum(ip + 12, 8, 6 + (uint32_t)(size - 34))) ==
		0xffff);
	head = (size_t)(tcp[12] >> 4) * 4;
	REQUIRE(head >= 20 && head <= size - 34);
	/* Refusals have the port that was asked for; nothing else is said from another. */
	REQUIRE(get(tcp, 2) == 80 || tcp[13] & 4);
	if (get(ip + 16, 4) == 0x0a090002 && get(tcp + 2, 2) < PORTS && get(tcp, 2) == 80) {
		struct end *end = &ends[get(tcp + 2, 2)];

		if (tcp[13] & 2)
			*end = (struct end){ true, get(tcp + 8, 4), get(tcp + 4, 4) + 1 };
		else if (end->ack == get(tcp + 4, 4))
			end->ack += (uint32_t)(size - 34 - head) + (tcp[13] & 1);
	}
}

/* False if there is nothing. */
static bool listen_once(void)
{
	const struct iovec iov[] = { { out, 15 }, { out + 15, sizeof(out) - 15 } };
	ssize_t size = front->ops->receive(front, iov, 2);
	const uint8_t *ethernet = out + NET_HEADER_SIZE;

	if (size < 0) {
		REQUIRE(front->ops->wait(front) != 0);
		return false;
	}
	REQUIRE(asked > 0);
	for (unsigned int i = 0; i < NET_HEADER_SIZE; i++)
		REQUIRE(out[i] == 0);
	size -= NET_HEADER_SIZE;
	if (get(ethernet + 12, 2) == 0x0806) {
		REQUIRE(size == 42 && get(ethernet + 20, 2) == 2 &&
			get(ethernet + 28, 4) == SERVICE);
	} else {
		REQUIRE(get(ethernet + 12, 2) == 0x0800);
		check_segment(ethernet, (size_t)size);
	}
	return true;
}

static void make_raw(struct input *input)
{
	uint16_t size = take_u16(input) % (FRAME_SIZE - NET_HEADER_SIZE);

	frame_size = NET_HEADER_SIZE + size;
	for (size_t i = 0; i < frame_size; i++)
		frame[i] = take(input);
}

static void make_arp(struct input *input)
{
	static const uint8_t head[] = { 8, 6, 0, 1, 8, 0, 6, 4, 0, 1 };

	frame_size = NET_HEADER_SIZE + 42;
	memset(frame, take(input), frame_size);
	memcpy(frame + NET_HEADER_SIZE + 12, head, sizeof(head));
	put(frame + NET_HEADER_SIZE + 38, SERVICE + (take(input) == 0xff), 4);
}

/* A segment that is right but for what the input says. */
static void make_segment(struct input *input, const void *data, size_t size)
{
	uint8_t port = take(input) % PORTS, flags = take(input), wrong = take(input);
	uint8_t *ip = frame + NET_HEADER_SIZE + 14, *tcp = ip + 20;
	struct end *end = &ends[port];

	memset(frame, 0, HEAD);
	frame_size = HEAD + size;
	put(frame + NET_HEADER_SIZE + 12, 0x0800, 2);
	ip[0] = 0x45;
	put(ip + 2, (uint32_t)(40 + size), 2);
	ip[9] = 6;
	put(ip + 12, wrong & 128 ? SERVICE + take(input) : 0x0a090002, 4);
	put(ip + 16, SERVICE, 4);
	put(ip + 10, (uint16_t)~sum(ip, 20, 0), 2);
	put(tcp, port, 2);
	put(tcp + 2, wrong & 1 ? 80u + take(input) : 80, 2);
	put(tcp + 4, end->seq + (wrong & 2 ? (uint32_t)(int8_t)take(input) : 0), 4);
	put(tcp + 8, end->ack + (wrong & 4 ? take_u32(input) : 0), 4);
	tcp[12] = 0x50;
	tcp[13] = flags;
	put(tcp + 14, wrong & 8 ? take(input) : 60000, 2);
	if (wrong & 16)
		put(tcp + 12, take(input), 1);
	memcpy(tcp + 20, data, size);
	if (wrong & 32)
		frame[0] = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	else
		put(tcp + 16,
		    (uint16_t)~sum(tcp, 20 + size,
				   (uint32_t)sum(ip + 12, 8, 6 + (uint32_t)(20 + size))),
		    2);
	if (!(wrong & 64))
		end->seq += (uint32_t)size + !!(flags & 1) + !!(flags & 2);
}

static void change(struct input *input)
{
	static char text[3000];
	json_t *data = json_object();
	struct err err;

	memset(text, 'x', sizeof(text) - 1);
	json_object_set_new(data, "big", json_string(text + take(input) * 10));
	json_object_set_new(data, "a", json_integer(take(input)));
	(void)mmds_put(mmds, data, &err);
	json_decref(data);
}

static void operate(struct input *input)
{
	static const uint8_t nothing[1];
	const char *request;
	unsigned int count;

	switch ((enum operation)(take(input) % OPERATIONS)) {
	case RAW:
		make_raw(input);
		send_frame(input);
		break;
	case ARP:
		make_arp(input);
		send_frame(input);
		break;
	case SEGMENT:
		make_segment(input, nothing, take(input) % 2);
		send_frame(input);
		break;
	case REQUEST:
		request = requests[take(input) % (ARRAY_SIZE(requests))];
		make_segment(input, request, strlen(request));
		send_frame(input);
		break;
	case LISTEN:
		for (count = take(input); count > 0 && listen_once(); count--)
			;
		break;
	case SLEEP:
		now += (int64_t)take_u16(input) * 1000000;
		break;
	default:
		change(input);
	}
	REQUIRE(mmds_metrics(mmds)->connections_created -
			mmds_metrics(mmds)->connections_destroyed <=
		RESPONDER_CONNECTIONS);
}

/* Nobody answers any more: it falls silent after a while. */
static void finish(void)
{
	int64_t wait;

	for (unsigned int i = 0; i < 1000000; i++) {
		while (listen_once())
			;
		wait = front->ops->wait(front);
		REQUIRE(wait != 0);
		if (wait < 0)
			return;
		now += wait;
	}
	REQUIRE(!"it never stops");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = { data, size };
	struct err err;

	now = 1;
	asked = passed = 0;
	memset(ends, 0, sizeof(ends));
	REQUIRE(mmds_open(&mmds, 4096, &err) == 0);
	mmds_configure(mmds, take(&input) & 1 ? MMDS_V2 : MMDS_V1, false);
	REQUIRE(responder_open(&responder, mmds, htonl(SERVICE), &behind, fuzz_clock, &err) == 0);
	front = responder_backend(responder);
	for (unsigned int i = 0; i < OPERATIONS_MAX && input.size > 0; i++)
		operate(&input);
	finish();
	responder_close(responder);
	mmds_close(mmds);
	return 0;
}
