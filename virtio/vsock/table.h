/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The connections of a socket device: who there is, found by their ports; who has something for the
 * guest, first come first served; and whose time is limited. At most VSOCK_CONNECTIONS_MAX, each
 * with one descriptor of the host. Main thread, under the device's lock.
 */
#ifndef MOTE_VIRTIO_VSOCK_TABLE_H
#define MOTE_VIRTIO_VSOCK_TABLE_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "virtio/vsock/buffer.h"
#include "virtio/vsock/host.h"

struct vsock_metrics;
struct vsock_table;

#define VSOCK_CONNECTIONS_MAX 1023
#define VSOCK_BUCKET_BITS 10

/* Of these a client of the host gets one. */
#define VSOCK_HOST_PORTS_START (UINT32_C(1) << 30)
#define VSOCK_HOST_PORTS_END (UINT32_C(1) << 31)

/* How long an end of a connection may take; milliseconds. */
#define VSOCK_HANDSHAKE_TIMEOUT 60000 /* a client to send its command line; a person types it */
#define VSOCK_CONNECT_TIMEOUT 2000    /* the guest to answer a REQUEST */
#define VSOCK_CLOSE_TIMEOUT 8000      /* the guest to confirm a SHUTDOWN */
/* The host's program to read something of what a guest that is done has sent before. It may be one
   whose user reads page by page. */
#define VSOCK_LINGER_TIMEOUT 600000

struct vsock_timeouts {
	unsigned int handshake;
	unsigned int connect;
	unsigned int close;
	unsigned int linger;
};

enum vsock_state {
	VSOCK_HANDSHAKE,   /* a client of the host that has not sent its command line yet */
	VSOCK_CONNECTING,  /* REQUEST for the guest to answer */
	VSOCK_ESTABLISHED, /* also with one direction shut down */
	VSOCK_CLOSING,	   /* told the guest that both directions are; it confirms with RST */
	VSOCK_RESETTING,   /* RST is to be sent, nothing else comes any more */
	VSOCK_LINGERING,   /* the guest is done; the rest of its data goes to the host */
};

/* Packets other than data that wait for a buffer of the guest. */
enum vsock_reply {
	VSOCK_REPLY_REQUEST = 1 << 0,
	VSOCK_REPLY_RESPONSE = 1 << 1,
	VSOCK_REPLY_CREDIT_UPDATE = 1 << 2,
	VSOCK_REPLY_SHUTDOWN = 1 << 3,
	VSOCK_REPLY_RST = 1 << 4, /* alone */
};

struct vsock_connection {
	struct vsock_table *table;
	TAILQ_ENTRY(vsock_connection) all;
	TAILQ_ENTRY(vsock_connection) waiting;
	struct vsock_connection *bucket_next;
	int64_t deadline; /* CLOCK_MONOTONIC, ns; 0 none */

	int fd; /* owned; -1 when the host's side is closed */
	struct event *read_event;
	struct event *write_event; /* pending while there is something in `buffer` */

	uint8_t state;		/* enum vsock_state */
	uint8_t replies;	/* enum vsock_reply */
	uint8_t guest_shutdown; /* VIRTIO_VSOCK_SHUTDOWN_*: what the guest has told us */
	uint8_t host_shutdown;	/* and we the guest */
	bool has_ports;		/* stands in a bucket */
	bool is_waiting;
	bool readable; /* the host's socket may have something, or has ended */

	uint32_t host_port;
	uint32_t guest_port;

	/* Free-running counts of bytes (5.10.6.3). From the guest: */
	uint32_t received;
	uint32_t forwarded; /* fwd_cnt */
	uint32_t announced; /* of it, what the guest knows */
	struct vsock_buffer buffer;
	/* To the guest: */
	uint32_t sent;
	uint32_t guest_buf_alloc;
	uint32_t guest_fwd_cnt;

	struct vsock_command command;
};

struct vsock_table {
	struct vsock_connection *buckets[1 << VSOCK_BUCKET_BITS];
	TAILQ_HEAD(vsock_all, vsock_connection) all;
	TAILQ_HEAD(vsock_waiting, vsock_connection) waiting;
	unsigned int count;
	unsigned int handshakes;
	uint64_t hash_key;
	uint32_t last_port; /* given to a client of the host */
	struct vsock_timeouts timeouts;
	int64_t next_deadline; /* what the timer is set to; 0 none */

	/* The device's; not owned. */
	uint64_t guest_cid;
	const char *uds_path;
	struct vsock_metrics *metrics;
	struct event_base *base;
	struct event *timer;
	event_callback_fn on_readable; /* of a connection's socket */
	event_callback_fn on_writable;
};

void vsock_table_init(struct vsock_table *table);

/*
 * Takes the socket in, edge-triggered, in the given state. NULL if there is no room, and then it is
 * still the caller's.
 */
struct vsock_connection *vsock_table_add(struct vsock_table *table, int fd, enum vsock_state state);
/* Closes and frees it, without a word to the guest. */
void vsock_table_remove(struct vsock_connection *connection);
void vsock_table_remove_all(struct vsock_table *table);

/* From now on the connection is found by these ports. */
void vsock_table_set_ports(struct vsock_connection *connection, uint32_t host_port,
			   uint32_t guest_port);
void vsock_table_clear_ports(struct vsock_connection *connection);
struct vsock_connection *vsock_table_find(const struct vsock_table *table, uint32_t host_port,
					  uint32_t guest_port);
/* A port of the host that no connection uses. */
uint32_t vsock_table_new_port(struct vsock_table *table);

/* Closes the socket and drops what was to be written to it. */
void vsock_table_close_host(struct vsock_connection *connection);

/* Puts it at the end of those who have something for the guest, unless it is among them. */
void vsock_table_wait(struct vsock_connection *connection);
/* Takes the first of them out; NULL if there is none. */
struct vsock_connection *vsock_table_next(struct vsock_table *table);

/* Limits the time until vsock_table_clear_deadline; milliseconds. */
void vsock_table_set_deadline(struct vsock_connection *connection, unsigned int timeout);
void vsock_table_clear_deadline(struct vsock_connection *connection);
/* The next connection whose time is over, without its deadline now; NULL: none, timer set. */
struct vsock_connection *vsock_table_expired(struct vsock_table *table);

#endif
