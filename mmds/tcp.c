/* SPDX-License-Identifier: Apache-2.0 */
#include "mmds/tcp.h"

#include <string.h>

#define MSS_MIN 48 /* less would be more header than data; Linux' own limit */

/* Whether a is before b: sequence numbers wrap (RFC 9293, 3.4). */
static bool before(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) < 0;
}

static uint32_t out_end(const struct tcp *tcp)
{
	return tcp->out_seq + (uint32_t)tcp->out_size;
}

/* The number after all that there is to send. */
static uint32_t end(const struct tcp *tcp)
{
	return out_end(tcp) + (tcp->ends ? 1 : 0);
}

static int64_t wait_ns(const struct tcp *tcp)
{
	int64_t wait = TCP_WAIT_NS << tcp->retries;

	return wait < TCP_WAIT_MAX_NS ? wait : TCP_WAIT_MAX_NS;
}

/* Something is new: the wait begins again, if there is one. */
static void progress(struct tcp *tcp, int64_t now_ns)
{
	tcp->moved_at = now_ns;
	tcp->retries = 0;
	tcp->again_at = tcp->acked == end(tcp) ? TCP_NEVER : now_ns + wait_ns(tcp);
}

void tcp_open(struct tcp *tcp, const struct segment *syn, uint32_t seq, int64_t now_ns)
{
	uint16_t mss = syn->mss > 0 ? syn->mss : FRAME_MSS_DEFAULT;

	memset(tcp, 0, offsetof(struct tcp, in));
	tcp->state = TCP_SYN_RECEIVED;
	tcp->peer = syn->peer;
	tcp->port = syn->port;
	tcp->mss = mss < MSS_MIN ? MSS_MIN : mss > FRAME_MSS_MAX ? FRAME_MSS_MAX : mss;
	tcp->acked = tcp->next = tcp->sent = seq;
	/* The SYN takes a number. */
	tcp->out_seq = seq + 1;
	tcp->edge = tcp->out_seq + syn->window;
	tcp->expected = syn->seq + 1;
	progress(tcp, now_ns);
}

/* False if it acknowledges what was never sent. */
static bool take_ack(struct tcp *tcp, const struct segment *segment, int64_t now_ns)
{
	if (before(tcp->sent, segment->ack))
		return false;
	if (before(segment->ack, tcp->acked))
		return true; /* an old one */
	tcp->edge = segment->ack + segment->window;
	if (segment->ack == tcp->acked)
		return true;
	tcp->acked = segment->ack;
	if (before(tcp->next, tcp->acked))
		tcp->next = tcp->acked;
	progress(tcp, now_ns);
	return true;
}

static bool take_data(struct tcp *tcp, const struct segment *segment, int64_t now_ns)
{
	uint32_t known = tcp->expected - segment->seq;
	size_t size = segment->size, room = sizeof(tcp->in) - tcp->in_size;
	bool ends = segment->flags & TCP_FIN;
	const uint8_t *data = segment->data;

	/* Nothing of an acknowledgement alone is waited for. */
	if (size == 0 && !ends && known == 0)
		return true;
	tcp->ack_due = true;
	/* All known, or, as numbers wrap, further on than what is expected. */
	if (known > size || tcp->peer_ended)
		return false;
	data += known;
	size -= known;
	/* What comes after the end of the conversation is not looked at. */
	if (!tcp->ends) {
		if (size > room) {
			size = room;
			ends = false;
		}
		memcpy(tcp->in + tcp->in_size, data, size);
		tcp->in_size += size;
	}
	tcp->expected += (uint32_t)size + ends;
	tcp->peer_ended = ends;
	if (size > 0 || ends)
		tcp->moved_at = now_ns;
	return true;
}

/* Both have ended, and know it of each other. */
static bool is_over(const struct tcp *tcp)
{
	return tcp->ends && tcp->peer_ended && tcp->acked == end(tcp) && !tcp->ack_due;
}

bool tcp_receive(struct tcp *tcp, const struct segment *segment, int64_t now_ns)
{
	bool good;

	if (segment->flags & TCP_RST) {
		/* Exactly, so that it is hard to guess (RFC 5961, 3.2). */
		if (segment->seq == tcp->expected)
			tcp->state = TCP_CLOSED;
		else
			tcp->ack_due = true;
		return segment->seq == tcp->expected;
	}
	if (segment->flags & TCP_SYN) {
		/* The same once more: our answer was lost. */
		if (tcp->state != TCP_SYN_RECEIVED || segment->seq + 1 != tcp->expected)
			return false;
		tcp->next = tcp->acked;
		return true;
	}
	if (!(segment->flags & TCP_ACK))
		return false;
	if (!take_ack(tcp, segment, now_ns)) {
		tcp->ack_due = tcp->state == TCP_ESTABLISHED;
		return false;
	}
	if (tcp->state == TCP_SYN_RECEIVED) {
		if (segment->ack != tcp->out_seq)
			return false;
		tcp->state = TCP_ESTABLISHED;
	}
	good = take_data(tcp, segment, now_ns);
	if (is_over(tcp))
		tcp->state = TCP_CLOSED;
	return good;
}

void tcp_take(struct tcp *tcp, size_t size)
{
	tcp->in_size -= size;
	memmove(tcp->in, tcp->in + size, tcp->in_size);
	/* The peer may wait for the room. */
	tcp->ack_due = true;
}

void tcp_send(struct tcp *tcp, const char *bytes, size_t size, int64_t now_ns)
{
	tcp->out_seq = tcp->sent;
	tcp->out = bytes;
	tcp->out_size = size;
	progress(tcp, now_ns);
}

bool tcp_is_sent(const struct tcp *tcp)
{
	return !before(tcp->acked, out_end(tcp));
}

void tcp_end(struct tcp *tcp, int64_t now_ns)
{
	if (tcp->ends)
		return;
	tcp->ends = true;
	tcp->in_size = 0;
	if (tcp->again_at == TCP_NEVER)
		tcp->again_at = now_ns + wait_ns(tcp);
}

/* Bytes that the peer has room for now. */
static uint32_t room(const struct tcp *tcp)
{
	return before(tcp->next, tcp->edge) ? tcp->edge - tcp->next : 0;
}

static uint32_t unsent(const struct tcp *tcp)
{
	return before(tcp->next, out_end(tcp)) ? out_end(tcp) - tcp->next : 0;
}

int64_t tcp_when(const struct tcp *tcp)
{
	bool syn = tcp->state == TCP_SYN_RECEIVED;

	if (tcp->state == TCP_CLOSED)
		return TCP_NEVER;
	if (tcp->ack_due || (syn && tcp->next == tcp->acked))
		return 0;
	if (!syn && tcp->next != end(tcp) && (unsent(tcp) == 0 || room(tcp) > 0))
		return 0;
	return tcp->again_at;
}

static void fill(const struct tcp *tcp, struct segment *segment, uint8_t flags, uint32_t seq)
{
	*segment = (struct segment){
		.peer = tcp->peer,
		.port = tcp->port,
		.flags = flags,
		.window = (uint16_t)(sizeof(tcp->in) - tcp->in_size),
		.seq = seq,
		.ack = tcp->expected,
	};
}

void tcp_abort(struct tcp *tcp, struct segment *reset)
{
	fill(tcp, reset, TCP_RST | TCP_ACK, tcp->sent);
	tcp->state = TCP_CLOSED;
}

/* Sends again from what is not acknowledged; false if that was enough. */
static bool again(struct tcp *tcp, int64_t now_ns)
{
	if (tcp->retries == TCP_RETRIES)
		return false;
	tcp->retries++;
	tcp->again_at = now_ns + wait_ns(tcp);
	tcp->next = tcp->acked;
	tcp->probing = room(tcp) == 0;
	return true;
}

static void send_syn(struct tcp *tcp, struct segment *segment)
{
	fill(tcp, segment, TCP_SYN | TCP_ACK, tcp->acked);
	segment->mss = FRAME_MSS_MAX;
	tcp->next = tcp->out_seq;
}

static void send_data(struct tcp *tcp, struct segment *segment)
{
	uint32_t size = unsent(tcp), space = tcp->probing ? 1 : room(tcp);

	fill(tcp, segment, TCP_ACK, tcp->next);
	size = size < space ? size : space;
	if (size > tcp->mss)
		size = tcp->mss;
	if (size > 0)
		segment->data = (const uint8_t *)tcp->out + (tcp->next - tcp->out_seq);
	segment->size = size;
	if (tcp->probing && size > 0) {
		/* It may have been dropped: what is sent once there is room begins with it. */
		tcp->probing = false;
		if (before(tcp->sent, tcp->next + size))
			tcp->sent = tcp->next + size;
		return;
	}
	tcp->probing = false;
	tcp->next += size;
	if (size > 0 && tcp->next == out_end(tcp))
		segment->flags |= TCP_PSH;
	if (tcp->ends && tcp->next == out_end(tcp)) {
		segment->flags |= TCP_FIN;
		tcp->next++;
	}
}

void tcp_next(struct tcp *tcp, struct segment *segment, int64_t now_ns)
{
	if (tcp->again_at <= now_ns && !again(tcp, now_ns)) {
		tcp_abort(tcp, segment);
		return;
	}
	tcp->ack_due = false;
	if (tcp->state == TCP_SYN_RECEIVED)
		send_syn(tcp, segment);
	else
		send_data(tcp, segment);
	if (before(tcp->sent, tcp->next))
		tcp->sent = tcp->next;
	if (is_over(tcp))
		tcp->state = TCP_CLOSED;
}

bool tcp_refuse(const struct segment *segment, struct segment *reset)
{
	bool acks = segment->flags & TCP_ACK;

	if (segment->flags & TCP_RST)
		return false;
	*reset = (struct segment){
		.peer = segment->peer,
		.port = segment->port,
		.flags = acks ? TCP_RST : TCP_RST | TCP_ACK,
		.seq = acks ? segment->ack : 0,
		.ack = acks ? 0
			    : segment->seq + (uint32_t)segment->size +
				       !!(segment->flags & TCP_SYN) + !!(segment->flags & TCP_FIN),
	};
	return true;
}
