/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One TCP connection (RFC 9293), the end that was called. The network between is memory: segments
 * are taken in order only, there is no congestion, and what is lost is sent again after a while. It
 * holds no frames: what is to be sent is made when there is room for it.
 */
#ifndef MOTE_MMDS_TCP_H
#define MOTE_MMDS_TCP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mmds/frame.h"

#define TCP_IN_SIZE 4096
/* The first wait for an acknowledgement, which doubles, and how often what waits is sent again. */
#define TCP_WAIT_NS INT64_C(300000000)
#define TCP_WAIT_MAX_NS INT64_C(5000000000)
#define TCP_RETRIES 10
#define TCP_NEVER INT64_MAX

enum tcp_state {
	TCP_CLOSED,
	TCP_SYN_RECEIVED,
	TCP_ESTABLISHED,
};

struct tcp {
	enum tcp_state state;
	struct peer peer;
	uint16_t port;
	uint16_t mss; /* of what is sent */
	bool ack_due;
	bool ends; /* our FIN is behind what there is to send */
	bool peer_ended;
	bool probing; /* a byte goes into a closed window */
	unsigned int retries;
	int64_t again_at; /* when what is not acknowledged is sent again */
	int64_t moved_at; /* when something was last taken or acknowledged that was not before */

	/* Sequence numbers (3.4); their names there are SND.UNA, SND.NXT and RCV.NXT. */
	uint32_t acked;
	uint32_t next;
	uint32_t sent; /* the highest that next has been */
	uint32_t edge; /* of the peer's window */
	uint32_t expected;

	uint32_t out_seq; /* of the first byte of out */
	size_t out_size;
	const char *out; /* not owned; NULL none */

	size_t in_size;
	uint8_t in[TCP_IN_SIZE]; /* what has come and was not taken */
};

/* Of a SYN; seq is the first number of ours. */
void tcp_open(struct tcp *tcp, const struct segment *syn, uint32_t seq, int64_t now_ns);

/*
 * A segment of that peer's. False if it was none that belongs here (unusual, and ignored). The
 * state is TCP_CLOSED after it where that was its end.
 */
bool tcp_receive(struct tcp *tcp, const struct segment *segment, int64_t now_ns);

/* Drops the first bytes of what has come. */
void tcp_take(struct tcp *tcp, size_t size);

/* The bytes must stay until tcp_is_sent, before which there cannot be more. */
void tcp_send(struct tcp *tcp, const char *bytes, size_t size, int64_t now_ns);
/* Whether the peer has all that there was to send. */
bool tcp_is_sent(const struct tcp *tcp);
/* No more is sent after what there is, and no more taken. */
void tcp_end(struct tcp *tcp, int64_t now_ns);

/* When tcp_next has a segment: a time, in the past if it has one already, or TCP_NEVER. */
int64_t tcp_when(const struct tcp *tcp);
/*
 * The next segment, if tcp_when is in the past. The state is TCP_CLOSED after it where it was the
 * last.
 */
void tcp_next(struct tcp *tcp, struct segment *segment, int64_t now_ns);

/* What breaks the connection off; the state is TCP_CLOSED after it. */
void tcp_abort(struct tcp *tcp, struct segment *reset);

/* What answers a segment that belongs to no connection (3.5.2, group 1); false if nothing does. */
bool tcp_refuse(const struct segment *segment, struct segment *reset);

#endif
