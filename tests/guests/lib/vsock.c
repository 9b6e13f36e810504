/* SPDX-License-Identifier: Apache-2.0 */
#include "vsock.h"

#include <linux/virtio_ids.h>

#define FIRST_PORT 1000

static const char word[] = "echo";

bool vsock_find(struct vsock *vsock)
{
	*vsock = (struct vsock){ .next_port = FIRST_PORT };
	vsock->tx = guest_alloc(VSOCK_TX_ROOM);
	for (unsigned int i = 0; i < VSOCK_BUFFERS; i++)
		vsock->rx[i] = guest_alloc(VSOCK_BUFFER_SIZE);
	if (!virtio_find(&vsock->virtio, VIRTIO_ID_VSOCK, 0))
		return false;
	vsock->cid = virtio_read(&vsock->virtio, VIRTIO_MMIO_CONFIG);
	return true;
}

bool vsock_start(struct vsock *vsock, uint64_t features)
{
	return virtio_start(&vsock->virtio, features, 2, VSOCK_BUFFERS);
}

void vsock_give_buffers(struct vsock *vsock)
{
	struct virtq *queue = &vsock->virtio.queues[VSOCK_RX];

	/* A buffer's descriptor has its index, because there are as many. */
	for (unsigned int i = 0; i < VSOCK_BUFFERS; i++) {
		const struct virtq_buffer buffer = { vsock->rx[i], VSOCK_BUFFER_SIZE, true };

		virtq_make_available(queue, virtq_chain(queue, &buffer, 1));
	}
	virtio_kick(&vsock->virtio, VSOCK_RX);
}

void vsock_make(struct vsock *vsock, uint16_t op, uint32_t src_port, uint32_t dst_port)
{
	*vsock_header(vsock) = (struct virtio_vsock_hdr){
		.src_cid = vsock->cid,
		.dst_cid = VSOCK_HOST_CID,
		.src_port = src_port,
		.dst_port = dst_port,
		.type = VIRTIO_VSOCK_TYPE_STREAM,
		.op = op,
		.buf_alloc = VSOCK_CREDIT,
		.fwd_cnt = vsock->received,
	};
}

bool vsock_send(struct vsock *vsock, uint32_t len)
{
	const struct virtq_buffer buffer = { vsock->tx, len, false };
	struct virtq *queue = &vsock->virtio.queues[VSOCK_TX];
	struct vring_used_elem element;
	uint16_t head = virtq_chain(queue, &buffer, 1);

	virtq_make_available(queue, head);
	virtio_kick(&vsock->virtio, VSOCK_TX);
	return virtq_wait_used(queue, &element) && element.id == head;
}

bool vsock_packet(struct vsock *vsock, uint16_t op, uint32_t src_port, uint32_t dst_port)
{
	vsock_make(vsock, op, src_port, dst_port);
	return vsock_send(vsock, VSOCK_HEADER_SIZE);
}

struct virtio_vsock_hdr *vsock_receive(struct vsock *vsock, uint16_t *buffer)
{
	struct vring_used_elem element;

	if (!virtq_wait_used(&vsock->virtio.queues[VSOCK_RX], &element) ||
	    element.id >= VSOCK_BUFFERS || element.len < VSOCK_HEADER_SIZE)
		return NULL;
	*buffer = (uint16_t)element.id;
	return (struct virtio_vsock_hdr *)vsock->rx[element.id];
}

void vsock_give_back(struct vsock *vsock, uint16_t buffer)
{
	virtq_make_available(&vsock->virtio.queues[VSOCK_RX], buffer);
	virtio_kick(&vsock->virtio, VSOCK_RX);
}

bool vsock_wait(struct vsock *vsock, uint16_t op, uint32_t port)
{
	for (;;) {
		uint16_t buffer;
		const struct virtio_vsock_hdr *header = vsock_receive(vsock, &buffer);
		bool found = header && header->op == op && header->dst_port == port;

		if (!header)
			return false;
		vsock_give_back(vsock, buffer);
		if (found)
			return true;
	}
}

/* Waits for the word, in however many packets. */
static bool wait_for_word(struct vsock *vsock, uint32_t port)
{
	char text[sizeof(word)];

	vsock->received = 0;
	while (vsock->received < sizeof(word)) {
		uint16_t buffer;
		const struct virtio_vsock_hdr *header = vsock_receive(vsock, &buffer);
		const char *data = (const char *)(header + 1);

		if (!header)
			return false;
		if (header->op == VIRTIO_VSOCK_OP_RW && header->dst_port == port) {
			for (uint32_t i = 0; i < header->len && vsock->received < sizeof(word); i++)
				text[vsock->received++] = data[i];
		}
		vsock_give_back(vsock, buffer);
	}
	return memcmp(text, word, sizeof(word)) == 0;
}

bool vsock_echo(struct vsock *vsock)
{
	uint32_t port = vsock->next_port++;
	bool good;

	vsock->received = 0;
	if (!vsock_packet(vsock, VIRTIO_VSOCK_OP_REQUEST, port, VSOCK_ECHO_PORT) ||
	    !vsock_wait(vsock, VIRTIO_VSOCK_OP_RESPONSE, port))
		return false;
	vsock_make(vsock, VIRTIO_VSOCK_OP_RW, port, VSOCK_ECHO_PORT);
	vsock_header(vsock)->len = sizeof(word);
	memcpy(vsock->tx + VSOCK_HEADER_SIZE, word, sizeof(word));
	if (!vsock_send(vsock, VSOCK_HEADER_SIZE + sizeof(word)) || !wait_for_word(vsock, port))
		return false;
	vsock_make(vsock, VIRTIO_VSOCK_OP_SHUTDOWN, port, VSOCK_ECHO_PORT);
	vsock_header(vsock)->flags = VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND;
	good = vsock_send(vsock, VSOCK_HEADER_SIZE) && vsock_wait(vsock, VIRTIO_VSOCK_OP_RST, port);
	vsock->received = 0;
	return good;
}
