/* SPDX-License-Identifier: Apache-2.0 */
/* A socket device's driver (virtio 1.2, 5.10): packets as they are, and a good conversation. */
#ifndef MOTE_TESTS_GUESTS_VSOCK_H
#define MOTE_TESTS_GUESTS_VSOCK_H

#include <linux/virtio_vsock.h>

#include "virtio.h"

#define VSOCK_RX 0
#define VSOCK_TX 1
#define VSOCK_EVENT 2
#define VSOCK_HOST_CID 2
#define VSOCK_HEADER_SIZE sizeof(struct virtio_vsock_hdr)
#define VSOCK_BUFFERS 16
#define VSOCK_BUFFER_SIZE 4096
#define VSOCK_CREDIT (64 << 10)
#define VSOCK_TX_ROOM (128 << 10)

/* Where the host's test listens, and sends back what it reads. */
#define VSOCK_ECHO_PORT 52

struct vsock {
	struct virtio virtio;
	uint64_t cid;
	uint8_t *tx; /* a packet; VSOCK_TX_ROOM of it */
	uint8_t *rx[VSOCK_BUFFERS];
	uint32_t next_port;
	uint32_t received; /* bytes of the conversation */
};

static inline struct virtio_vsock_hdr *vsock_header(const struct vsock *vsock)
{
	return (struct virtio_vsock_hdr *)vsock->tx;
}

bool vsock_find(struct vsock *vsock);
/* Without buffers; they are given by vsock_give_buffers. */
bool vsock_start(struct vsock *vsock, uint64_t features);
void vsock_give_buffers(struct vsock *vsock);

/* Makes a good header in vsock->tx, of a packet without data. */
void vsock_make(struct vsock *vsock, uint16_t op, uint32_t src_port, uint32_t dst_port);
/* Sends `len` bytes of vsock->tx: whether they were taken. */
bool vsock_send(struct vsock *vsock, uint32_t len);
/* Both. */
bool vsock_packet(struct vsock *vsock, uint16_t op, uint32_t src_port, uint32_t dst_port);

/* Waits for a packet; the buffer is the device's again with vsock_give_back. NULL: none came. */
struct virtio_vsock_hdr *vsock_receive(struct vsock *vsock, uint16_t *buffer);
void vsock_give_back(struct vsock *vsock, uint16_t buffer);
/* Waits for a packet to this port with this op, passing over all others: false if none came. */
bool vsock_wait(struct vsock *vsock, uint16_t op, uint32_t port);

/* Connects to the echo, sends a word, reads it back, closes. */
bool vsock_echo(struct vsock *vsock);

#endif
