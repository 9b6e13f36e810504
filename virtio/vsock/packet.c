/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/vsock/packet.h"

#include <endian.h>
#include <string.h>

_Static_assert(VSOCK_HEADER_SIZE == 44, "virtio 1.2, 5.10.6");

void vsock_header_read(struct vsock_header *header, const struct iovec *iov)
{
	struct virtio_vsock_hdr raw;

	for (size_t at = 0; at < sizeof(raw); iov++) {
		size_t size = sizeof(raw) - at < iov->iov_len ? sizeof(raw) - at : iov->iov_len;

		memcpy((uint8_t *)&raw + at, iov->iov_base, size);
		at += size;
	}
	*header = (struct vsock_header){
		.src_cid = le64toh(raw.src_cid),
		.dst_cid = le64toh(raw.dst_cid),
		.src_port = le32toh(raw.src_port),
		.dst_port = le32toh(raw.dst_port),
		.len = le32toh(raw.len),
		.type = le16toh(raw.type),
		.op = le16toh(raw.op),
		.flags = le32toh(raw.flags),
		.buf_alloc = le32toh(raw.buf_alloc),
		.fwd_cnt = le32toh(raw.fwd_cnt),
	};
}

void vsock_header_write(const struct vsock_header *header, const struct iovec *iov)
{
	const struct virtio_vsock_hdr raw = {
		.src_cid = htole64(header->src_cid),
		.dst_cid = htole64(header->dst_cid),
		.src_port = htole32(header->src_port),
		.dst_port = htole32(header->dst_port),
		.len = htole32(header->len),
		.type = htole16(header->type),
		.op = htole16(header->op),
		.flags = htole32(header->flags),
		.buf_alloc = htole32(header->buf_alloc),
		.fwd_cnt = htole32(header->fwd_cnt),
	};

	for (size_t at = 0; at < sizeof(raw); iov++) {
		size_t size = sizeof(raw) - at < iov->iov_len ? sizeof(raw) - at : iov->iov_len;

		memcpy(iov->iov_base, (const uint8_t *)&raw + at, size);
		at += size;
	}
}

unsigned int vsock_slice(struct iovec *to, const struct iovec *iov, unsigned int count,
			 size_t offset, size_t len)
{
	unsigned int filled = 0;

	for (unsigned int i = 0; i < count && len > 0; i++) {
		const struct iovec entry = iov[i];
		size_t size;

		if (offset >= entry.iov_len) {
			offset -= entry.iov_len;
			continue;
		}
		size = entry.iov_len - offset < len ? entry.iov_len - offset : len;
		to[filled].iov_base = (uint8_t *)entry.iov_base + offset;
		to[filled].iov_len = size;
		filled++;
		len -= size;
		offset = 0;
	}
	return filled;
}
