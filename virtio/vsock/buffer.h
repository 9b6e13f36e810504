/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a guest has sent and the host's program has not taken yet. It cannot grow beyond the credit
 * that the guest was given (virtio 1.2, 5.10.6.3), and takes memory only while there is something
 * in it.
 */
#ifndef MOTE_VIRTIO_VSOCK_BUFFER_H
#define MOTE_VIRTIO_VSOCK_BUFFER_H

#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#define VSOCK_BUFFER_SIZE (256u << 10)

/* A ring; zeroed it is empty. */
struct vsock_buffer {
	uint8_t *data;
	uint32_t start;
	uint32_t used;
};

/* Adds what the entries hold, for which there is room. 0 or -ENOMEM. */
int vsock_buffer_append(struct vsock_buffer *buffer, const struct iovec *iov, unsigned int count);

/* Writes to the socket what it takes: the number of bytes, 0 if it takes none, or -errno. */
ssize_t vsock_buffer_flush(struct vsock_buffer *buffer, int fd);

/* Empties it. */
void vsock_buffer_drop(struct vsock_buffer *buffer);

#endif
