/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/mmds_client.h"

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "mmds/responder.h"
#include "mmds/store.h"
#include "tests/unit/support.h"

struct mmds *mmds;
static struct responder *responder;
struct net_backend *front;
static struct err err;
int64_t now;

uint8_t frame[NET_HEADER_SIZE + GUEST_FRAME_MAX];
uint8_t out[NET_FRAME_MAX];
char big[5001]; /* a value in the document */

unsigned int passed_on;
size_t last_passed_on;

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
struct net_backend behind = { .ops = &behind_ops, .fd = 7, .features = 5 };

static int64_t test_clock(void)
{
	return now;
}

void put(const char *text)
{
	json_t *data = json_loads(text, 0, NULL);

	ck_assert_int_eq(mmds_put(mmds, data, &err), 0);
	json_decref(data);
}

void mmds_client_set_up(void)
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

void mmds_client_tear_down(void)
{
	responder_close(responder);
	mmds_close(mmds);
}

int send_frame(size_t size)
{
	const struct iovec iov[] = { { frame, 20 }, { frame + 20, NET_HEADER_SIZE + size - 20 } };

	return front->ops->send(front, iov, 2);
}

size_t receive_frame(void)
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

void send_segment(const struct guest_segment *segment)
{
	memset(frame, 0, NET_HEADER_SIZE);
	ck_assert_int_eq(send_frame(guest_tcp(frame + NET_HEADER_SIZE, SERVICE_ADDRESS, segment)),
			 1);
}

bool receive_segment(struct guest_segment *segment)
{
	size_t size = receive_frame();

	if (size == 0) {
		ck_assert_int_ne(front->ops->wait(front), 0);
		return false;
	}
	ck_assert(guest_read_tcp(out + NET_HEADER_SIZE, size, segment));
	return true;
}

void speak(struct client *client, uint8_t flags, const char *text, size_t size)
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

void connect_with(struct client *client, uint16_t port, uint16_t mss)
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

bool listen_once(struct client *client)
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

const char *listen_to(struct client *client)
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

const char *ask(struct client *client, const char *request)
{
	speak(client, ACK | PSH, request, strlen(request));
	return listen_to(client);
}

uint64_t counted(const uint64_t *counter)
{
	return *counter;
}
