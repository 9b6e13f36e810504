/* SPDX-License-Identifier: Apache-2.0 */
#include "mmds/responder.h"

#include <errno.h>
#include <linux/virtio_net.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/err.h"
#include "mmds/answer.h"
#include "mmds/frame.h"
#include "mmds/internal.h"
#include "mmds/tcp.h"
#include "virtio/net/backend.h"

/* Room for the headers and all that a connection's window takes. */
#define IN_SIZE (NET_HEADER_SIZE + 14 + 60 + 60 + TCP_IN_SIZE)
/* Refusals that wait to be sent; more are left out. */
#define RESETS_MAX 32

struct connection {
	struct tcp tcp;
	struct answer answer; /* what tcp sends */
};

struct responder {
	struct net_backend backend; /* first */
	struct net_backend *behind; /* not owned */
	struct mmds *mmds;	    /* not owned */
	uint32_t address;
	int64_t (*clock)(void);

	bool arp_due;
	struct peer arp_peer;
	struct segment resets[RESETS_MAX];
	unsigned int first_reset, reset_count;
	struct connection connections[RESPONDER_CONNECTIONS];
	unsigned int last_served;
	int64_t when; /* the first of all tcp_when() */
	uint8_t in[IN_SIZE];
	uint8_t out[NET_HEADER_SIZE + FRAME_OUT_MAX];
};

static struct responder *responder_of(struct net_backend *backend)
{
	return (struct responder *)backend;
}

static void refuse_with(struct responder *responder, const struct segment *reset)
{
	unsigned int place = (responder->first_reset + responder->reset_count) % RESETS_MAX;

	if (responder->reset_count == RESETS_MAX) {
		responder->mmds->metrics.tx_errors++;
		return;
	}
	responder->resets[place] = *reset;
	responder->reset_count++;
}

static void refuse(struct responder *responder, const struct segment *segment)
{
	struct segment reset;

	if (tcp_refuse(segment, &reset))
		refuse_with(responder, &reset);
}

/* After whatever may have been its end. */
static void forget_if_closed(struct responder *responder, struct connection *connection)
{
	if (connection->tcp.state != TCP_CLOSED)
		return;
	answer_free(responder->mmds, &connection->answer);
	responder->mmds->metrics.connections_destroyed++;
}

static void break_off(struct responder *responder, struct connection *connection)
{
	struct segment reset;

	tcp_abort(&connection->tcp, &reset);
	refuse_with(responder, &reset);
	forget_if_closed(responder, connection);
}

static struct connection *find(struct responder *responder, const struct peer *peer)
{
	for (unsigned int i = 0; i < RESPONDER_CONNECTIONS; i++) {
		struct tcp *tcp = &responder->connections[i].tcp;

		if (tcp->state != TCP_CLOSED && tcp->peer.port == peer->port &&
		    tcp->peer.address == peer->address)
			return &responder->connections[i];
	}
	return NULL;
}

/* A place for a new one, if need be of the one that has been idle for longest; NULL if none is. */
static struct connection *make_room(struct responder *responder, int64_t now_ns)
{
	struct connection *idle = &responder->connections[0];

	for (unsigned int i = 0; i < RESPONDER_CONNECTIONS; i++) {
		struct connection *connection = &responder->connections[i];

		if (connection->tcp.state == TCP_CLOSED)
			return connection;
		if (connection->tcp.moved_at < idle->tcp.moved_at)
			idle = connection;
	}
	if (now_ns - idle->tcp.moved_at < RESPONDER_IDLE_NS)
		return NULL;
	break_off(responder, idle);
	return idle;
}

static void open_connection(struct responder *responder, const struct segment *syn, int64_t now_ns)
{
	struct connection *connection = make_room(responder, now_ns);
	uint32_t seq;

	if (!connection || getrandom(&seq, sizeof(seq), GRND_NONBLOCK) != sizeof(seq)) {
		refuse(responder, syn);
		return;
	}
	tcp_open(&connection->tcp, syn, seq, now_ns);
	responder->mmds->metrics.connections_created++;
}

/* Answers one request after the other: the next when the answer to the last has arrived. */
static void serve(struct responder *responder, struct connection *connection, int64_t now_ns)
{
	struct tcp *tcp = &connection->tcp;
	size_t size;

	if (!tcp_is_sent(tcp))
		return;
	answer_free(responder->mmds, &connection->answer);
	size = answer_request_size((const char *)tcp->in, tcp->in_size);
	if (size == 0 && tcp->in_size == sizeof(tcp->in)) {
		responder->mmds->metrics.rx_accepted_err++;
		break_off(responder, connection);
		return;
	}
	if (size > 0) {
		if (answer_make(responder->mmds, (const char *)tcp->in, size, now_ns,
				&connection->answer) < 0) {
			break_off(responder, connection);
			return;
		}
		tcp_take(tcp, size);
		tcp_send(tcp, connection->answer.text, connection->answer.size, now_ns);
	}
	if (connection->answer.close || (size == 0 && tcp->peer_ended))
		tcp_end(tcp, now_ns);
}

static void take_segment(struct responder *responder, const struct segment *segment)
{
	struct mmds_metrics *metrics = &responder->mmds->metrics;
	const int64_t now_ns = responder->clock();
	const bool opens = (segment->flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN;
	struct connection *connection = find(responder, &segment->peer);

	metrics->rx_count++;
	if (segment->port != RESPONDER_PORT) {
		metrics->rx_accepted_unusual++;
		refuse(responder, segment);
		return;
	}
	/* A peer that begins anew has forgotten what was before. */
	if (connection && opens && segment->seq + 1 != connection->tcp.expected) {
		connection->tcp.state = TCP_CLOSED;
		forget_if_closed(responder, connection);
		connection = NULL;
	}
	if (!connection && opens) {
		open_connection(responder, segment, now_ns);
		return;
	}
	if (!connection) {
		metrics->rx_accepted_unusual++;
		refuse(responder, segment);
		return;
	}
	memcpy(connection->tcp.peer.mac, segment->peer.mac, FRAME_MAC_SIZE);
	if (!tcp_receive(&connection->tcp, segment, now_ns))
		metrics->rx_accepted_unusual++;
	if (connection->tcp.state == TCP_ESTABLISHED)
		serve(responder, connection, now_ns);
	else
		forget_if_closed(responder, connection);
}

/* After whatever may have changed it. */
static void find_when(struct responder *responder)
{
	responder->when = TCP_NEVER;
	for (unsigned int i = 0; i < RESPONDER_CONNECTIONS; i++) {
		int64_t when = tcp_when(&responder->connections[i].tcp);

		if (when < responder->when)
			responder->when = when;
	}
}

static void take_frame(struct responder *responder, const uint8_t *frame, size_t size,
		       bool checksum_left)
{
	struct mmds_metrics *metrics = &responder->mmds->metrics;
	struct segment segment;

	metrics->rx_accepted++;
	switch (frame_read(frame, size, checksum_left, responder->address, &segment)) {
	case FRAME_BAD:
		metrics->rx_accepted_err++;
		break;
	case FRAME_UNUSUAL:
		metrics->rx_accepted_unusual++;
		break;
	case FRAME_ARP_REQUEST:
		metrics->rx_count++;
		responder->arp_due = true;
		responder->arp_peer = segment.peer;
		break;
	case FRAME_SEGMENT:
		take_segment(responder, &segment);
		break;
	}
}

/* Copies what is there, at most `size`. */
static size_t gather(uint8_t *to, size_t size, const struct iovec *iov, unsigned int count)
{
	size_t copied = 0;

	for (unsigned int i = 0; i < count && copied < size; i++) {
		size_t n = iov[i].iov_len < size - copied ? iov[i].iov_len : size - copied;

		memcpy(to + copied, iov[i].iov_base, n);
		copied += n;
	}
	return copied;
}

static void scatter(const struct iovec *iov, const uint8_t *from, size_t size)
{
	for (; size > 0; iov++) {
		size_t n = size < iov->iov_len ? size : iov->iov_len;

		memcpy(iov->iov_base, from, n);
		from += n;
		size -= n;
	}
}

/*
 * The guest can change a frame while it is looked at: whether it is taken is decided by one copy of
 * its head, what is taken is a copy of the whole, which is judged on its own.
 */
static int responder_send(struct net_backend *backend, const struct iovec *iov, unsigned int count)
{
	struct responder *responder = responder_of(backend);
	uint8_t head[NET_HEADER_SIZE + FRAME_HEAD_SIZE];
	size_t size = gather(head, sizeof(head), iov, count);
	bool checksum_left;

	if (size < NET_HEADER_SIZE ||
	    !frame_is_for(head + NET_HEADER_SIZE, size - NET_HEADER_SIZE, responder->address))
		return responder->behind->ops->send(responder->behind, iov, count);
	size = gather(responder->in, sizeof(responder->in), iov, count);
	checksum_left = responder->in[offsetof(struct virtio_net_hdr_v1, flags)] &
			VIRTIO_NET_HDR_F_NEEDS_CSUM;
	take_frame(responder, responder->in + NET_HEADER_SIZE, size - NET_HEADER_SIZE,
		   checksum_left);
	find_when(responder);
	return 1;
}

/* Each connection in its turn, however much another has to send. */
static size_t next_of_connections(struct responder *responder, uint8_t *frame)
{
	const int64_t now_ns = responder->clock();
	struct connection *connection;
	struct segment segment;
	size_t size;

	if (responder->when > now_ns)
		return 0;
	do {
		responder->last_served = (responder->last_served + 1) % RESPONDER_CONNECTIONS;
		connection = &responder->connections[responder->last_served];
	} while (tcp_when(&connection->tcp) > now_ns);
	tcp_next(&connection->tcp, &segment, now_ns);
	if (segment.flags & TCP_RST)
		responder->mmds->metrics.tx_resets++;
	size = frame_write_segment(frame, responder->address, &segment);
	forget_if_closed(responder, connection);
	find_when(responder);
	return size;
}

/* The size of the next frame in `frame`, 0 if there is none now. */
static size_t next_frame(struct responder *responder, uint8_t *frame)
{
	struct segment segment;

	if (responder->arp_due) {
		responder->arp_due = false;
		return frame_write_arp_reply(frame, responder->address, &responder->arp_peer);
	}
	if (responder->reset_count > 0) {
		segment = responder->resets[responder->first_reset];
		responder->first_reset = (responder->first_reset + 1) % RESETS_MAX;
		responder->reset_count--;
		responder->mmds->metrics.tx_resets++;
		return frame_write_segment(frame, responder->address, &segment);
	}
	return responder->when == TCP_NEVER ? 0 : next_of_connections(responder, frame);
}

static ssize_t responder_receive(struct net_backend *backend, const struct iovec *iov,
				 unsigned int count)
{
	struct responder *responder = responder_of(backend);
	size_t size = next_frame(responder, responder->out + NET_HEADER_SIZE);

	if (size == 0)
		return responder->behind->ops->receive(responder->behind, iov, count);
	/* The header stays zero: no offloads. */
	size += NET_HEADER_SIZE;
	scatter(iov, responder->out, size);
	responder->mmds->metrics.tx_frames++;
	responder->mmds->metrics.tx_count++;
	responder->mmds->metrics.tx_bytes += size - NET_HEADER_SIZE;
	return (ssize_t)size;
}

static int64_t responder_wait(struct net_backend *backend)
{
	const struct responder *responder = responder_of(backend);
	int64_t now_ns;

	if (responder->arp_due || responder->reset_count > 0 || responder->when == 0)
		return 0;
	if (responder->when == TCP_NEVER)
		return -1;
	now_ns = responder->clock();
	return responder->when > now_ns ? responder->when - now_ns : 0;
}

static int responder_flush(struct net_backend *backend)
{
	struct net_backend *behind = responder_of(backend)->behind;

	return behind->ops->flush ? behind->ops->flush(behind) : 0;
}

static int responder_set_offloads(struct net_backend *backend, uint64_t features)
{
	struct net_backend *behind = responder_of(backend)->behind;

	return behind->ops->set_offloads(behind, features);
}

static void responder_close_backend(struct net_backend *backend)
{
	responder_close(responder_of(backend));
}

static const struct net_backend_ops responder_ops = {
	responder_send,		responder_flush,	 responder_receive,
	responder_set_offloads, responder_close_backend, responder_wait,
};

int responder_open(struct responder **opened, struct mmds *mmds, uint32_t address,
		   struct net_backend *behind, int64_t (*clock)(void), struct err *err)
{
	struct responder *responder = calloc(1, sizeof(*responder));

	*opened = responder;
	if (!responder)
		return err_sys(err, ENOMEM, "metadata");
	responder->backend = (struct net_backend){ &responder_ops, behind->fd, behind->features };
	responder->behind = behind;
	responder->mmds = mmds;
	responder->address = address;
	responder->clock = clock ? clock : clock_ns;
	responder->when = TCP_NEVER;
	return 0;
}

void responder_close(struct responder *responder)
{
	if (!responder)
		return;
	for (unsigned int i = 0; i < RESPONDER_CONNECTIONS; i++)
		answer_free(responder->mmds, &responder->connections[i].answer);
	free(responder);
}

struct net_backend *responder_backend(struct responder *responder)
{
	return &responder->backend;
}
