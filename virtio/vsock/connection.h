/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One stream between a guest's port and a Unix socket (virtio 1.2, 5.10.6): what packets of the
 * guest and events of the host do to it, and what it has to tell the guest. A call may free the
 * connection unless it says otherwise. Main thread, under the device's lock.
 */
#ifndef MOTE_VIRTIO_VSOCK_CONNECTION_H
#define MOTE_VIRTIO_VSOCK_CONNECTION_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "virtio/vsock/packet.h"
#include "virtio/vsock/table.h"

/* A client has connected. False if there is no room for it; it is then still the caller's. */
bool vsock_connection_accept(struct vsock_table *table, int fd);

/*
 * A packet of the guest for a stream of ours, with the header->len bytes of its payload, whose
 * entries may be changed. False if the answer is a RST that belongs to no connection.
 */
bool vsock_connection_receive(struct vsock_table *table, const struct vsock_header *header,
			      struct iovec *payload, unsigned int count);

/* The host's socket may have something to read, or take more. */
void vsock_connection_readable(struct vsock_connection *connection);
void vsock_connection_writable(struct vsock_connection *connection);

/* Its time is over. */
void vsock_connection_expire(struct vsock_connection *connection);

/* Whether there is something for the guest, of either of the two kinds below. */
bool vsock_connection_wants(const struct vsock_connection *connection);

/* Fills in the next packet without data; 0 if there is none. Behind a RST the connection is over.
 */
bool vsock_connection_reply(struct vsock_connection *connection, struct vsock_header *header);

/* How many bytes of data the guest takes now; 0 if there are none for it. */
uint32_t vsock_connection_room(const struct vsock_connection *connection);
/* Reads data for the guest: the number of bytes; 0 if there were none. Does not free it. */
uint32_t vsock_connection_read(struct vsock_connection *connection, const struct iovec *iov,
			       unsigned int count);
/* The header for len bytes of what has been read. */
void vsock_connection_data(struct vsock_connection *connection, struct vsock_header *header,
			   uint32_t len);

/* The RST behind which the connection is over has been sent. */
void vsock_connection_reset_sent(struct vsock_connection *connection);

#endif
