/* SPDX-License-Identifier: Apache-2.0 */
/* Frames in, frames out, by a clock of the test's. */
#include "mmds/responder.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/virtio_net.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"
#include "mmds/frame.h"
#include "mmds/mmds.h"
#include "mmds/store.h"
#include "mmds/tcp.h"
#include "tests/unit/mmds_guest.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"
#include "virtio/net/backend.h"

#define SECOND INT64_C(1000000000)
#define GET(path) "GET " path " HTTP/1.1\r\nHost: a\r\n\r\n"
#define HEAD_ENDS "\r\n\r\n"

static struct mmds *mmds;
static struct responder *responder;
static struct net_backend *front;
static struct err err;
static int64_t now;

static uint8_t frame[NET_HEADER_SIZE + GUEST_FRAME_MAX];
static uint8_t out[NET_FRAME_MAX];
static char big[5001]; /* a value in the document */

/* What is behind: it counts. */
static unsigned int passed_on;
static size_t last_passed_on;

static int behind_send(struct net_backend *backend, const struct iovec *iov, unsigned int count)
{
	(void)backend;
	passed_on++;
	last_passed_on = 0;
	for (unsigned int i = 0; i < count; i++)
		last_passed_on += iov[i].iov_len;
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
static struct net_backend behind = { .ops = &behind_ops, .fd = 7, .features = 5 };

static int64_t test_clock(void)
{
	return now;
}

static void put(const char *text)
{
	json_t *data = json_loads(text, 0, NULL);

	ck_assert_int_eq(mmds_put(mmds, data, &err), 0);
	json_decref(data);
}

static void set_up(void)
{
	char text[sizeof(big) + 64];

	now = 1000 * SECOND;
	passed_on = 0;
	memset(big, 'b', sizeof(big) - 1);
	snprintf(text, sizeof(text), "{\"a\": \"one\", \"big\": \"%s\"}", big);
	ck_assert_int_eq(mmds_open(&mmds, MMDS_SIZE_LIMIT, &err), 0);
	put(text);
	ck_assert_int_eq(
		responder_open(&responder, mmds, htonl(SERVICE_ADDRESS), &behind, test_clock, &err),
		0);
	front = responder_backend(responder);
}

static void tear_down(void)
{
	responder_close(responder);
	mmds_close(mmds);
}

/* Of `size` bytes behind the header, in two pieces. */
static int send_frame(size_t size)
{
	const struct iovec iov[] = { { frame, 20 }, { frame + 20, NET_HEADER_SIZE + size - 20 } };

	return front->ops->send(front, iov, 2);
}

static size_t receive_frame(void)
{
	const struct iovec iov[] = { { out, 33 }, { out + 33, sizeof(out) - 33 } };
	ssize_t size = front->ops->receive(front, iov, 2);

	if (size < 0) {
		ck_assert_int_eq(size, -EAGAIN);
		return 0;
	}
	ck_assert(all_bytes(out, NET_HEADER_SIZE, 0));
	return (size_t)size - NET_HEADER_SIZE;
}

static void send_segment(const struct guest_segment *segment)
{
	memset(frame, 0, NET_HEADER_SIZE);
	ck_assert_int_eq(send_frame(guest_tcp(frame + NET_HEADER_SIZE, SERVICE_ADDRESS, segment)),
			 1);
}

/* The next segment; false if there is none now. */
static bool receive_segment(struct guest_segment *segment)
{
	size_t size = receive_frame();

	if (size == 0) {
		ck_assert_int_ne(front->ops->wait(front), 0);
		return false;
	}
	ck_assert(guest_read_tcp(out + NET_HEADER_SIZE, size, segment));
	return true;
}

/* One end of a connection. */
struct client {
	uint16_t port;
	uint16_t window;
	uint32_t seq;
	uint32_t ack;
	char got[8192];
	size_t size;
	bool ended;
};

static void speak(struct client *client, uint8_t flags, const char *text, size_t size)
{
	send_segment(&(struct guest_segment){ .from = client->port,
					      .to = 80,
					      .seq = client->seq,
					      .ack = client->ack,
					      .flags = flags,
					      .window = client->window,
					      .data = (const uint8_t *)text,
					      .size = size });
	client->seq += (uint32_t)size + !!(flags & FIN);
}

static void connect_with(struct client *client, uint16_t port, uint16_t mss)
{
	struct guest_segment segment;

	*client = (struct client){ .port = port, .window = 64000, .seq = 5000 };
	send_segment(&(struct guest_segment){ .from = port,
					      .to = 80,
					      .seq = 4999,
					      .flags = SYN,
					      .window = client->window,
					      .mss = mss });
	ck_assert(receive_segment(&segment));
	ck_assert_uint_eq(segment.flags, SYN | ACK);
	ck_assert_uint_eq(segment.ack, client->seq);
	ck_assert_uint_eq(segment.mss, 1460);
	ck_assert_uint_eq(segment.to, port);
	client->ack = segment.seq + 1;
	speak(client, ACK, NULL, 0);
	ck_assert(!receive_segment(&segment));
}

/* Takes one segment, if there is one, and acknowledges it. */
static bool listen_once(struct client *client)
{
	struct guest_segment segment;

	if (!receive_segment(&segment))
		return false;
	ck_assert_uint_eq(segment.to, client->port);
	ck_assert_uint_eq(segment.seq, client->ack);
	ck_assert(!(segment.flags & RST));
	memcpy(client->got + client->size, segment.data, segment.size);
	client->size += segment.size;
	client->ack += (uint32_t)segment.size;
	if (segment.flags & FIN) {
		client->ack++;
		client->ended = true;
	}
	if (segment.size > 0 || segment.flags & FIN)
		speak(client, ACK, NULL, 0);
	return true;
}

/* The body of the next answer. */
static const char *listen_to(struct client *client)
{
	const char *body;

	client->size = 0;
	while (listen_once(client))
		;
	client->got[client->size] = '\0';
	body = strstr(client->got, HEAD_ENDS);
	ck_assert_msg(body != NULL, "%s", client->got);
	return body + strlen(HEAD_ENDS);
}

static const char *ask(struct client *client, const char *request)
{
	speak(client, ACK | PSH, request, strlen(request));
	return listen_to(client);
}

static uint64_t counted(const uint64_t *counter)
{
	return *counter;
}
#define COUNTED(name) counted(&mmds_metrics(mmds)->name)

START_TEST(arp_requests_are_answered)
{
	static const uint8_t expected[] = {
		2,   0,	  0,   0,   0, 1, 6, 1, 0x23, 0x45, 0x67, 1,	8,    6, /* Ethernet */
		0,   1,	  8,   0,   6, 4, 0, 2, 6,    1,    0x23, 0x45, 0x67, 1,
		169, 254, 169, 254, 2, 0, 0, 0, 0,    1,    10,	  9,	0,    2,
	};

	ck_assert_int_eq(send_frame(guest_arp(frame + NET_HEADER_SIZE, 1, SERVICE_ADDRESS)), 1);
	ck_assert_int_eq(front->ops->wait(front), 0);
	ck_assert_uint_eq(receive_frame(), sizeof(expected));
	ck_assert_mem_eq(out + NET_HEADER_SIZE, expected, sizeof(expected));
	ck_assert_uint_eq(receive_frame(), 0);
	ck_assert_int_eq(front->ops->wait(front), -1);
	ck_assert_uint_eq(COUNTED(tx_frames), 1);
	ck_assert_uint_eq(COUNTED(tx_bytes), sizeof(expected));
}
END_TEST

START_TEST(all_else_passes)
{
	const struct guest_segment segment = { .from = 1, .to = 80, .flags = SYN };
	uint8_t *ethernet = frame + NET_HEADER_SIZE;
	size_t sizes[6], count = 0;

	sizes[count++] = guest_arp(ethernet, 1, SERVICE_ADDRESS + 1);
	ck_assert_int_eq(send_frame(sizes[0]), 0);
	sizes[count++] = guest_tcp(ethernet, SERVICE_ADDRESS - 1, &segment);
	ck_assert_int_eq(send_frame(sizes[1]), 0);
	/* As IPv6, behind a VLAN's tag, and cut short. */
	sizes[count] = guest_tcp(ethernet, SERVICE_ADDRESS, &segment);
	ethernet[12] = 0x86;
	ck_assert_int_eq(send_frame(sizes[count++]), 0);
	ethernet[12] = 0x81;
	ck_assert_int_eq(send_frame(sizes[2]), 0);
	(void)guest_tcp(ethernet, SERVICE_ADDRESS, &segment);
	ck_assert_int_eq(send_frame(33), 0);
	ck_assert_int_eq(send_frame(14), 0);
	ck_assert_uint_eq(passed_on, 6);
	ck_assert_uint_eq(last_passed_on, NET_HEADER_SIZE + 14);
	ck_assert_uint_eq(receive_frame(), 0);
	ck_assert_uint_eq(COUNTED(rx_accepted), 0);
	ck_assert_int_eq(front->fd, behind.fd);
	ck_assert_uint_eq(front->features, behind.features);
}
END_TEST

START_TEST(head_is_looked_at_as_far_as_it_goes)
{
	const struct guest_segment segment = { .from = 1, .to = 80, .flags = SYN };

	(void)guest_arp(frame, 1, SERVICE_ADDRESS);
	for (size_t size = 0; size <= 42; size++)
		ck_assert(frame_is_for(frame, size, htonl(SERVICE_ADDRESS)) == (size == 42));
	(void)guest_tcp(frame, SERVICE_ADDRESS, &segment);
	for (size_t size = 0; size <= 54; size++)
		ck_assert(frame_is_for(frame, size, htonl(SERVICE_ADDRESS)) == (size >= 34));
}
END_TEST

/* For the address, but nothing that is answered. */
START_TEST(what_is_not_asked_for_is_dropped)
{
	const struct guest_segment segment = { .from = 1, .to = 80, .flags = SYN };
	uint8_t *ip = frame + NET_HEADER_SIZE + 14;
	size_t size = guest_arp(frame + NET_HEADER_SIZE, 2, SERVICE_ADDRESS);

	ck_assert_int_eq(send_frame(size), 1);
	size = guest_tcp(frame + NET_HEADER_SIZE, SERVICE_ADDRESS, &segment);
	ip[9] = 17; /* UDP */
	guest_set_ip_checksum(frame + NET_HEADER_SIZE);
	ck_assert_int_eq(send_frame(size), 1);
	ip[9] = 6;
	ip[6] = 0x20; /* more fragments */
	guest_set_ip_checksum(frame + NET_HEADER_SIZE);
	ck_assert_int_eq(send_frame(size), 1);
	ip[6] = 0;
	ip[7] = 1; /* the second one */
	guest_set_ip_checksum(frame + NET_HEADER_SIZE);
	ck_assert_int_eq(send_frame(size), 1);
	ip[7] = 0;
	memcpy(ip + 12, ip + 16, 4); /* from itself */
	guest_set_ip_checksum(frame + NET_HEADER_SIZE);
	ck_assert_int_eq(send_frame(size), 1);
	ck_assert_uint_eq(passed_on, 0);
	ck_assert_uint_eq(COUNTED(rx_accepted_unusual), 5);
	ck_assert_uint_eq(receive_frame(), 0);
	ck_assert_int_eq(front->ops->wait(front), -1);
}
END_TEST

START_TEST(request_is_answered_in_segments)
{
	struct client client;
	struct guest_segment segment;

	connect_with(&client, 40000, 1000);
	ck_assert_str_eq(ask(&client, GET("/a")), "one");
	ck_assert_ptr_nonnull(strstr(client.got, "HTTP/1.1 200 OK\r\n"));
	speak(&client, ACK | PSH, GET("/big"), strlen(GET("/big")));
	ck_assert(receive_segment(&segment));
	ck_assert_uint_eq(segment.size, 1000);
	ck_assert_uint_eq(segment.flags, ACK);
}
END_TEST

START_TEST(whole_of_a_long_answer_arrives)
{
	struct client client;

	connect_with(&client, 40000, _i ? 500 : 0); /* without the option: 536 */
	ck_assert_str_eq(ask(&client, GET("/big")), big);
	ck_assert_str_eq(ask(&client, GET("/big")), big);
	ck_assert_str_eq(ask(&client, GET("/a")), "one");
	ck_assert_uint_eq(COUNTED(connections_created), 1);
}
END_TEST

START_TEST(requests_may_come_in_pieces_and_at_once)
{
	struct client client;
	const char *request = GET("/a"), *rest;

	connect_with(&client, 40000, 1460);
	for (const char *at = request; at[1]; at++) {
		speak(&client, ACK, at, 1);
		ck_assert(listen_once(&client));
	}
	ck_assert_uint_eq(client.size, 0);
	ck_assert_str_eq(ask(&client, "\n"), "one");
	rest = ask(&client, GET("/a") GET("/none"));
	ck_assert_ptr_nonnull(strstr(rest, "one"));
	ck_assert_ptr_nonnull(strstr(rest, "404"));
	/* One before the other is answered. */
	speak(&client, ACK, GET("/a"), strlen(GET("/a")));
	rest = ask(&client, GET("/none"));
	ck_assert_ptr_nonnull(strstr(rest, "one"));
	ck_assert_ptr_nonnull(strstr(rest, "404"));
}
END_TEST

/* A guest that does not keep to the window. */
START_TEST(data_beyond_the_window_are_left)
{
	static char data[4000];
	struct client client;
	struct guest_segment segment;

	memset(data, 'x', sizeof(data));
	connect_with(&client, 40000, 1460);
	speak(&client, ACK, "GET /a HTTP/1.1\r\nX: ", 20);
	ck_assert(listen_once(&client));
	speak(&client, ACK, data, 3000);
	ck_assert(listen_once(&client));
	speak(&client, ACK | FIN, data, sizeof(data));
	ck_assert(receive_segment(&segment));
	ck_assert_uint_eq(segment.flags, RST | ACK);
	ck_assert_uint_eq(segment.ack, 5000 + TCP_IN_SIZE);
	connect_with(&client, 40000, 1460);
	ck_assert_str_eq(ask(&client, GET("/a")), "one");
}
END_TEST

START_TEST(syn_in_the_middle_is_ignored)
{
	struct client client;
	struct guest_segment segment;

	connect_with(&client, 40000, 1460);
	speak(&client, ACK, GET("/a"), strlen(GET("/a")));
	ck_assert(receive_segment(&segment));
	speak(&client, SYN | ACK, NULL, 0);
	ck_assert(!receive_segment(&segment));
	ck_assert_uint_eq(COUNTED(rx_accepted_unusual), 1);
}
END_TEST

/* What follows the end is not looked at. */
START_TEST(nothing_comes_after_the_end)
{
	struct client client;
	struct guest_segment segment;

	connect_with(&client, 40000, 1460);
	speak(&client, ACK | FIN, NULL, 0);
	speak(&client, ACK, GET("/a"), strlen(GET("/a")));
	ck_assert_uint_eq(COUNTED(rx_accepted_unusual), 1);
	ck_assert(receive_segment(&segment));
	ck_assert_uint_eq(segment.flags, ACK | FIN);
	ck_assert_uint_eq(segment.size, 0);
	ck_assert_uint_eq(segment.ack, 5001);
}
END_TEST

START_TEST(end_of_either_side_ends_it)
{
	struct client client;
	struct guest_segment segment;

	connect_with(&client, 40000, 1460);
	if (_i == 0) {
		/* The guest's: its request is answered still. */
		speak(&client, ACK | FIN, GET("/a"), strlen(GET("/a")));
		ck_assert_str_eq(listen_to(&client), "one");
	} else {
		ck_assert_str_eq(ask(&client, "GET /a HTTP/1.1\r\nConnection: close\r\n\r\n"),
				 "one");
		ck_assert(client.ended);
		speak(&client, ACK | FIN, NULL, 0);
		ck_assert(listen_once(&client));
	}
	ck_assert(client.ended);
	ck_assert_uint_eq(COUNTED(connections_destroyed), 1);
	ck_assert_int_eq(front->ops->wait(front), -1);
	/* It is forgotten. */
	speak(&client, ACK, "x", 1);
	ck_assert(receive_segment(&segment));
	ck_assert_uint_eq(segment.flags, RST);
	ck_assert_uint_eq(segment.seq, client.ack);
}
END_TEST

static void assert_reset(uint8_t flags, uint32_t seq, uint32_t ack)
{
	struct guest_segment segment;

	ck_assert(receive_segment(&segment));
	ck_assert_uint_eq(segment.flags, flags);
	ck_assert_uint_eq(segment.seq, seq);
	ck_assert_uint_eq(segment.ack, ack);
	ck_assert(!receive_segment(&segment));
}

START_TEST(what_belongs_to_no_connection_is_refused)
{
	struct guest_segment segment = { .from = 9, .to = 81, .seq = 10, .ack = 20, .flags = SYN };

	send_segment(&segment);
	assert_reset(RST | ACK, 0, 11);
	segment.to = 80;
	segment.flags = ACK;
	send_segment(&segment);
	assert_reset(RST, 20, 0);
	segment.flags = FIN;
	segment.data = (const uint8_t *)"abc";
	segment.size = 3;
	send_segment(&segment);
	assert_reset(RST | ACK, 0, 14);
	segment.flags = RST;
	send_segment(&segment);
	ck_assert(!receive_segment(&segment));
	ck_assert_uint_eq(COUNTED(tx_resets), 3);
}
END_TEST

START_TEST(refusals_that_wait_are_limited)
{
	struct guest_segment segment = { .to = 81, .flags = SYN };
	unsigned int count = 0;

	for (unsigned int i = 1; i <= 1000; i++) {
		segment.from = (uint16_t)i;
		send_segment(&segment);
	}
	while (receive_segment(&segment))
		ck_assert_uint_eq(segment.to, ++count);
	ck_assert_uint_eq(count, 32);
}
END_TEST

START_TEST(lost_answer_is_sent_again)
{
	struct client client;
	struct guest_segment segment;
	int64_t wait, expected = 300000000;

	connect_with(&client, 40000, 1460);
	speak(&client, ACK, GET("/a"), strlen(GET("/a")));
	for (unsigned int i = 0; i <= TCP_RETRIES; i++) {
		ck_assert(receive_segment(&segment));
		ck_assert_uint_eq(segment.seq, client.ack);
		ck_assert_uint_gt(segment.size, 0);
		/* What has been said once stays, whatever the owner changes. */
		ck_assert_mem_eq(segment.data + segment.size - 3, "one", 3);
		put("{\"a\": \"two\"}");
		ck_assert(!receive_segment(&segment));
		wait = front->ops->wait(front);
		ck_assert_int_eq(wait, expected);
		now += wait - 1;
		ck_assert(!receive_segment(&segment));
		now += 1;
		expected = expected * 2 < 5 * SECOND ? expected * 2 : 5 * SECOND;
	}
	ck_assert(receive_segment(&segment));
	ck_assert_uint_eq(segment.flags, RST | ACK);
	ck_assert_int_eq(front->ops->wait(front), -1);
	ck_assert_uint_eq(COUNTED(connections_destroyed), 1);
	ck_assert_uint_eq(COUNTED(tx_resets), 1);
}
END_TEST

START_TEST(lost_middle_is_sent_again)
{
	struct client client;
	struct guest_segment segment;

	connect_with(&client, 40000, 1000);
	speak(&client, ACK, GET("/big"), strlen(GET("/big")));
	ck_assert(listen_once(&client));
	/* The second is lost; what follows is not taken. */
	while (receive_segment(&segment))
		;
	speak(&client, ACK, NULL, 0);
	now += front->ops->wait(front);
	while (listen_once(&client))
		;
	client.got[client.size] = '\0';
	ck_assert_str_eq(strstr(client.got, HEAD_ENDS) + 4, big);
}
END_TEST

START_TEST(lost_syn_is_answered_again)
{
	struct guest_segment first, again,
		syn = { .from = 9, .to = 80, .seq = 1, .flags = SYN, .window = 1000 };

	send_segment(&syn);
	ck_assert(receive_segment(&first));
	send_segment(&syn);
	ck_assert(receive_segment(&again));
	ck_assert_uint_eq(again.seq, first.seq);
	ck_assert_uint_eq(again.flags, SYN | ACK);
	now += front->ops->wait(front);
	ck_assert(receive_segment(&again));
	ck_assert_uint_eq(again.seq, first.seq);
	/* Nor does a reset that is none change it. */
	send_segment(&(struct guest_segment){ .from = 9, .to = 80, .seq = 7, .flags = RST });
	ck_assert(receive_segment(&again));
	ck_assert_uint_eq(again.seq, first.seq);
	/* Another number: the guest has begun anew. */
	syn.seq = 1000;
	send_segment(&syn);
	ck_assert(receive_segment(&again));
	ck_assert_uint_eq(again.ack, 1001);
	ck_assert_uint_ne(again.seq, first.seq);
	ck_assert_uint_eq(COUNTED(connections_created), 2);
	ck_assert_uint_eq(COUNTED(connections_destroyed), 1);
}
END_TEST

START_TEST(numbers_begin_anywhere)
{
	struct guest_segment one, other, syn = { .from = 9, .to = 80, .seq = 1, .flags = SYN };

	send_segment(&syn);
	ck_assert(receive_segment(&one));
	syn.from++;
	send_segment(&syn);
	ck_assert(receive_segment(&other));
	ck_assert_uint_ne(one.seq, other.seq);
}
END_TEST

static void assert_taken(bool taken, size_t size)
{
	struct guest_segment segment;
	uint64_t errors = COUNTED(rx_accepted_err);

	ck_assert_int_eq(send_frame(size), 1);
	ck_assert_uint_eq(COUNTED(rx_accepted_err) - errors, !taken);
	ck_assert(receive_segment(&segment) == taken);
}

START_TEST(checksums_are_looked_at)
{
	struct guest_segment syn = { .from = 9, .to = 80, .flags = SYN, .mss = 1460 };
	uint8_t *ethernet = frame + NET_HEADER_SIZE;
	size_t size = guest_tcp(ethernet, SERVICE_ADDRESS, &syn);

	memset(frame, 0, NET_HEADER_SIZE);
	ethernet[14 + 20 + 16] ^= 1;
	assert_taken(false, size);
	/* That the data are good says only who has received them. */
	frame[0] = VIRTIO_NET_HDR_F_DATA_VALID;
	assert_taken(false, size);
	size = guest_tcp(ethernet, SERVICE_ADDRESS, &syn);
	guest_leave_checksum(ethernet, size);
	assert_taken(false, size);
	frame[0] = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	assert_taken(true, size);
	/* IP's is never left to the device. */
	ethernet[14 + 10] ^= 1;
	assert_taken(false, size);
	/* Cut short, or longer than there is. */
	size = guest_tcp(ethernet, SERVICE_ADDRESS, &syn);
	assert_taken(false, size - 1);
	ethernet[14 + 20 + 12] = 0xf0;
	assert_taken(false, size);
	ethernet[14 + 20 + 12] = 0x40;
	assert_taken(false, size);
	size = guest_tcp(ethernet, SERVICE_ADDRESS, &syn);
	ethernet[14 + 20 + 25] = 1; /* an option's length */
	assert_taken(false, size);
	ethernet[14 + 20 + 25] = 5;
	assert_taken(false, size);
}
END_TEST

/* As a kernel sends it that leaves segmentation to the device. */
START_TEST(request_in_one_large_segment)
{
	static char request[3000];
	struct client client;
	size_t size;

	memset(request, 'x', sizeof(request));
	memcpy(request, "GET /a HTTP/1.1\r\nX: ", 20);
	memcpy(request + sizeof(request) - 4, "\r\n\r\n", 4);
	connect_with(&client, 40000, 1460);
	size = guest_tcp(frame + NET_HEADER_SIZE, SERVICE_ADDRESS,
			 &(struct guest_segment){ .from = client.port,
						  .to = 80,
						  .seq = client.seq,
						  .ack = client.ack,
						  .flags = ACK | PSH,
						  .window = 64000,
						  .data = (const uint8_t *)request,
						  .size = sizeof(request) });
	guest_leave_checksum(frame + NET_HEADER_SIZE, size);
	frame[0] = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	frame[1] = VIRTIO_NET_HDR_GSO_TCPV4;
	ck_assert_int_eq(send_frame(size), 1);
	client.seq += (uint32_t)sizeof(request);
	ck_assert_str_eq(listen_to(&client), "one");
}
END_TEST

START_TEST(segments_out_of_order_are_dropped)
{
	static const char request[] = GET("/a");
	struct client client;

	connect_with(&client, 40000, 1460);
	client.seq += 10;
	speak(&client, ACK, request + 10, sizeof(request) - 1 - 10);
	ck_assert(listen_once(&client));
	ck_assert_uint_eq(client.size, 0);
	ck_assert_uint_eq(COUNTED(rx_accepted_unusual), 1);
	/* Overlapping is fine: what is new is taken. */
	client.seq -= (uint32_t)sizeof(request) - 1;
	speak(&client, ACK, request, 20);
	ck_assert(listen_once(&client));
	client.seq -= 10;
	speak(&client, ACK, request + 10, sizeof(request) - 1 - 10);
	ck_assert_str_eq(listen_to(&client), "one");
}
END_TEST

START_TEST(request_without_an_end_is_broken_off)
{
	static char request[TCP_IN_SIZE];
	struct client client;
	struct guest_segment segment;

	memset(request, 'x', sizeof(request));
	connect_with(&client, 40000, 1460);
	for (size_t at = 0; at < sizeof(request); at += 1024) {
		speak(&client, ACK, request + at, 1024);
		ck_assert(receive_segment(&segment));
		if (at + 1024 < sizeof(request))
			ck_assert_uint_eq(segment.window, sizeof(request) - at - 1024);
	}
	ck_assert_uint_eq(segment.flags, RST | ACK);
	ck_assert_uint_eq(COUNTED(connections_destroyed), 1);
}
END_TEST

START_TEST(window_is_kept)
{
	struct client client;
	struct guest_segment segment;

	connect_with(&client, 40000, 1460);
	client.window = 100;
	speak(&client, ACK, GET("/big"), strlen(GET("/big")));
	ck_assert(receive_segment(&segment));
	ck_assert_uint_eq(segment.size, 100);
	ck_assert(!receive_segment(&segment));
	client.ack += 100;
	client.window = 0;
	speak(&client, ACK, NULL, 0);
	ck_assert(!receive_segment(&segment));
	/* One byte, now and then, to see whether there is room again. */
	for (int i = 0; i < 2; i++) {
		now += front->ops->wait(front);
		ck_assert(receive_segment(&segment));
		ck_assert_uint_eq(segment.size, 1);
		ck_assert_uint_eq(segment.seq, client.ack);
		speak(&client, ACK, NULL, 0);
		ck_assert(!receive_segment(&segment));
	}
	client.window = 64000;
	speak(&client, ACK, NULL, 0);
	ck_assert(listen_once(&client));
	while (listen_once(&client))
		;
	ck_assert_mem_eq(client.got + client.size - 1000, big, 1000);
}
END_TEST

START_TEST(connections_are_limited)
{
	struct guest_segment segment, syn = { .to = 80, .seq = 1, .flags = SYN };
	struct client client;

	for (uint16_t i = 1; i <= RESPONDER_CONNECTIONS; i++)
		connect_with(&client, i, 1460);
	syn.from = 99;
	send_segment(&syn);
	assert_reset(RST | ACK, 0, 2);
	/* The last one moves, and stays. */
	now += RESPONDER_IDLE_NS;
	ck_assert_str_eq(ask(&client, GET("/a")), "one");
	send_segment(&syn);
	ck_assert(receive_segment(&segment));
	ck_assert_uint_eq(segment.to, 1);
	ck_assert_uint_eq(segment.flags, RST | ACK);
	ck_assert(receive_segment(&segment));
	ck_assert_uint_eq(segment.to, 99);
	ck_assert_uint_eq(segment.flags, SYN | ACK);
	ck_assert_str_eq(ask(&client, GET("/a")), "one");
	ck_assert_uint_eq(COUNTED(connections_created), RESPONDER_CONNECTIONS + 1);
	ck_assert_uint_eq(COUNTED(connections_destroyed), 1);
}
END_TEST

START_TEST(reset_must_have_the_right_number)
{
	struct client client;

	connect_with(&client, 40000, 1460);
	client.seq += 1;
	speak(&client, RST, NULL, 0);
	ck_assert_uint_eq(COUNTED(connections_destroyed), 0);
	client.seq -= 1;
	ck_assert(listen_once(&client)); /* an acknowledgement, to ask */
	speak(&client, RST, NULL, 0);
	ck_assert_uint_eq(COUNTED(connections_destroyed), 1);
	ck_assert_uint_eq(receive_frame(), 0);
}
END_TEST

/* Acknowledging what was never sent neither frees nor sends anything. */
START_TEST(wild_acknowledgements_are_ignored)
{
	struct client client;
	uint32_t ack;

	connect_with(&client, 40000, 1000);
	speak(&client, ACK, GET("/big"), strlen(GET("/big")));
	ck_assert(listen_once(&client));
	ack = client.ack;
	for (unsigned int i = 0; i < 32; i++) {
		client.ack = ack + (1u << i) + 4000;
		speak(&client, ACK, NULL, 0);
	}
	client.ack = ack;
	while (listen_once(&client))
		;
	client.got[client.size] = '\0';
	ck_assert_str_eq(strstr(client.got, HEAD_ENDS) + 4, big);
}
END_TEST

Suite *mmds_responder_suite(void)
{
	Suite *suite =
		SUITE("mmds_responder", set_up, tear_down, arp_requests_are_answered,
		      all_else_passes, what_is_not_asked_for_is_dropped,
		      request_is_answered_in_segments, requests_may_come_in_pieces_and_at_once,
		      what_belongs_to_no_connection_is_refused, refusals_that_wait_are_limited,
		      lost_answer_is_sent_again, lost_middle_is_sent_again,
		      lost_syn_is_answered_again, numbers_begin_anywhere, checksums_are_looked_at,
		      request_in_one_large_segment, segments_out_of_order_are_dropped,
		      request_without_an_end_is_broken_off, window_is_kept, connections_are_limited,
		      reset_must_have_the_right_number, head_is_looked_at_as_far_as_it_goes,
		      data_beyond_the_window_are_left, syn_in_the_middle_is_ignored,
		      nothing_comes_after_the_end, wild_acknowledgements_are_ignored);

	add_table_test(suite, set_up, tear_down, end_of_either_side_ends_it, 2);
	add_table_test(suite, set_up, tear_down, whole_of_a_long_answer_arrives, 2);
	return suite;
}
