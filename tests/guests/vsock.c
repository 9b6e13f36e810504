/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a good driver does with a socket device: conversations with the host's echo, then one that
 * a client of the host begins.
 */
#include "vsock.h"

#define GUEST_PORT 77
#define CONVERSATIONS 10

static struct vsock vsock;

static bool converse(void)
{
	for (unsigned int i = 0; i < CONVERSATIONS; i++) {
		if (!vsock_echo(&vsock))
			return false;
	}
	return true;
}

/* Accepts, and sends back the bytes of the first packet in one. */
static bool serve_client(void)
{
	struct virtio_vsock_hdr *header;
	uint32_t port, len;
	uint16_t buffer;

	do {
		header = vsock_receive(&vsock, &buffer);
		if (!header)
			return false;
		vsock_give_back(&vsock, buffer);
	} while (header->op != VIRTIO_VSOCK_OP_REQUEST || header->dst_port != GUEST_PORT);
	port = header->src_port;
	if (!vsock_packet(&vsock, VIRTIO_VSOCK_OP_RESPONSE, GUEST_PORT, port))
		return false;
	do {
		header = vsock_receive(&vsock, &buffer);
		if (!header)
			return false;
	} while (header->op != VIRTIO_VSOCK_OP_RW);
	len = header->len;
	vsock_make(&vsock, VIRTIO_VSOCK_OP_RW, GUEST_PORT, port);
	vsock_header(&vsock)->len = len;
	memcpy(vsock.tx + VSOCK_HEADER_SIZE, header + 1, len);
	vsock_give_back(&vsock, buffer);
	return vsock_send(&vsock, (uint32_t)VSOCK_HEADER_SIZE + len) &&
	       vsock_wait(&vsock, VIRTIO_VSOCK_OP_SHUTDOWN, GUEST_PORT) &&
	       vsock_packet(&vsock, VIRTIO_VSOCK_OP_RST, GUEST_PORT, port);
}

void guest_main(void *zero_page)
{
	bool found = vsock_find(&vsock);

	(void)zero_page;
	guest_check("found", found);
	guest_check("CID", vsock.cid == 3);
	guest_check("started", vsock_start(&vsock, 0));
	vsock_give_buffers(&vsock);
	guest_check("conversations", converse());
	guest_check("started anew", vsock_start(&vsock, BIT(VIRTIO_RING_F_EVENT_IDX)));
	vsock_give_buffers(&vsock);
	guest_check("conversations", converse());
	guest_put("ok listening\n");
	guest_check("a client of the host", serve_client());
}
