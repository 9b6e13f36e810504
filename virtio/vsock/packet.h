/* SPDX-License-Identifier: Apache-2.0 */
/* Packets of the socket device (virtio 1.2, 5.10.6), and slices of the chains that hold them. */
#ifndef MOTE_VIRTIO_VSOCK_PACKET_H
#define MOTE_VIRTIO_VSOCK_PACKET_H

#include <linux/virtio_vsock.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define VSOCK_HOST_CID 2
#define VSOCK_HEADER_SIZE sizeof(struct virtio_vsock_hdr)
#define VSOCK_PAYLOAD_MAX (64u << 10)
#define VSOCK_SHUTDOWN_BOTH (VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND)

/* struct virtio_vsock_hdr in the host's byte order. */
struct vsock_header {
	uint64_t src_cid;
	uint64_t dst_cid;
	uint32_t src_port;
	uint32_t dst_port;
	uint32_t len;
	uint16_t type;
	uint16_t op;
	uint32_t flags;
	uint32_t buf_alloc;
	uint32_t fwd_cnt;
};

/* Copies the header at the start of a chain that is long enough. */
void vsock_header_read(struct vsock_header *header, const struct iovec *iov);
void vsock_header_write(const struct vsock_header *header, const struct iovec *iov);

/*
 * The entries of `to` that stand for len bytes at offset of the `count` entries of iov, and how
 * many they are. `to` may be iov itself; what iov does not have is left out.
 */
unsigned int vsock_slice(struct iovec *to, const struct iovec *iov, unsigned int count,
			 size_t offset, size_t len);

#endif
