/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/vsock/rx.h"

#include "virtio/vsock/connection.h"
#include "virtio/vsock/metrics.h"

/* In one turn of the event loop. */
#define TURN_PACKETS 512
#define TURN_BYTES (1u << 20)
/* Of one connection, before it is the next one's turn. */
#define READ_BYTES (256u << 10)

void vsock_rx_give_back(struct vsock_rx *rx)
{
	virtq_unpop(rx->queue, rx->end - rx->next);
	rx->next = rx->end = 0;
}

void vsock_rx_clear(struct vsock_rx *rx)
{
	rx->next = rx->end = 0;
	rx->reset_first = rx->reset_count = 0;
}

void vsock_rx_reset(struct vsock_rx *rx, const struct vsock_header *packet)
{
	unsigned int at = (rx->reset_first + rx->reset_count) % VSOCK_RESETS_MAX;

	rx->resets[at] = (struct vsock_header){
		.src_cid = packet->dst_cid,
		.dst_cid = packet->src_cid,
		.src_port = packet->dst_port,
		.dst_port = packet->src_port,
		.type = packet->type,
		.op = VIRTIO_VSOCK_OP_RST,
	};
	rx->reset_count++;
}

/* Pops buffers: 1 if there are some, 0 if the driver has none, -EPROTO if the device has failed. */
static int pop_buffers(struct vsock_rx *rx)
{
	unsigned int used = 0;
	int rc = 0;

	rx->next = rx->end = 0;
	while (rx->end < VSOCK_RX_BUFFERS && VSOCK_RX_IOVECS - used >= VIRTQ_SIZE_MAX) {
		struct virtq_chain chain;

		rc = virtq_pop(rx->queue, &chain, rx->iov + used, VSOCK_RX_IOVECS - used);
		if (rc <= 0)
			break;
		if (chain.out_count > 0 || chain.in_len <= VSOCK_HEADER_SIZE) {
			virtio_device_fail(rx->device, "an rx buffer that cannot hold a packet");
			return -EPROTO;
		}
		rx->buffers[rx->end++] = (struct vsock_rx_buffer){ chain.head, chain.in_count,
								   chain.in_len, chain.iov };
		used += chain.in_count;
	}
	if (rc < 0) {
		virtio_device_fail(rx->device, "rx queue: %s", virtq_error(rx->queue));
		return rc;
	}
	return rx->end > 0;
}

/* As pop_buffers, but asks the driver to notify when there are none. */
static int get_buffers(struct vsock_rx *rx)
{
	int rc;

	if (rx->next < rx->end)
		return 1;
	rc = pop_buffers(rx);
	if (rc == 0 && virtq_enable_notify(rx->queue)) {
		virtq_disable_notify(rx->queue);
		rc = pop_buffers(rx);
	}
	return rc;
}

/* Fills the next buffer's header, its data being there. */
static void send_packet(struct vsock_rx *rx, const struct vsock_header *header)
{
	const struct vsock_rx_buffer *buffer = &rx->buffers[rx->next++];

	vsock_header_write(header, buffer->first);
	virtq_push(rx->queue, buffer->head, (uint32_t)VSOCK_HEADER_SIZE + header->len);
	rx->metrics->rx_packets_count++;
}

static void send_reset(struct vsock_rx *rx)
{
	send_packet(rx, &rx->resets[rx->reset_first]);
	rx->reset_first = (rx->reset_first + 1) % VSOCK_RESETS_MAX;
	rx->reset_count--;
}

/* The entries of all buffers' data parts, at most `room` bytes. */
static unsigned int gather(struct vsock_rx *rx, size_t room)
{
	unsigned int count = 0;

	for (unsigned int i = rx->next; i < rx->end && room > 0; i++) {
		const struct vsock_rx_buffer *buffer = &rx->buffers[i];
		size_t size = buffer->size - VSOCK_HEADER_SIZE;

		size = size < VSOCK_PAYLOAD_MAX ? size : VSOCK_PAYLOAD_MAX;
		size = size < room ? size : room;
		count += vsock_slice(rx->payload + count, buffer->first, buffer->count,
				     VSOCK_HEADER_SIZE, size);
		room -= size;
	}
	return count;
}

static void send_data(struct vsock_rx *rx, struct vsock_connection *connection, uint32_t len)
{
	while (len > 0) {
		uint32_t size = rx->buffers[rx->next].size - (uint32_t)VSOCK_HEADER_SIZE;
		struct vsock_header header;

		size = size < VSOCK_PAYLOAD_MAX ? size : VSOCK_PAYLOAD_MAX;
		size = size < len ? size : len;
		vsock_connection_data(connection, &header, size);
		send_packet(rx, &header);
		len -= size;
	}
}

/* One packet without data, or one read, into the buffers there are: the bytes read. */
static uint32_t serve_connection(struct vsock_rx *rx, struct vsock_connection *connection)
{
	struct vsock_header header;
	uint32_t room, len = 0;

	if (vsock_connection_reply(connection, &header)) {
		send_packet(rx, &header);
		if (header.op == VIRTIO_VSOCK_OP_RST) {
			vsock_connection_reset_sent(connection);
			return 0;
		}
	} else {
		room = vsock_connection_room(connection);
		room = room < READ_BYTES ? room : READ_BYTES;
		if (room > 0)
			len = vsock_connection_read(connection, rx->payload, gather(rx, room));
		send_data(rx, connection, len);
	}
	if (vsock_connection_wants(connection))
		vsock_table_wait(connection);
	return len;
}

static bool has_work(const struct vsock_rx *rx)
{
	return rx->reset_count > 0 || !TAILQ_EMPTY(&rx->table->waiting);
}

bool vsock_rx_serve(struct vsock_rx *rx)
{
	uint32_t bytes = 0;
	unsigned int packets = 0;
	int rc = 1;

	virtq_disable_notify(rx->queue);
	while (has_work(rx) && bytes < TURN_BYTES && packets < TURN_PACKETS) {
		rc = get_buffers(rx);
		if (rc <= 0)
			break;
		if (rx->reset_count > 0)
			send_reset(rx);
		else
			bytes += serve_connection(rx, vsock_table_next(rx->table));
		packets++;
	}
	if (rc < 0)
		return false;
	virtio_device_publish(rx->device, rx->queue);
	return rc > 0 && has_work(rx);
}
