/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/net/rx_buffers.h"

#include <errno.h>
#include <linux/virtio_net.h>
#include <string.h>

void net_rx_buffers_reset(struct net_rx_buffers *buffers, bool mergeable)
{
	buffers->mergeable = mergeable;
	buffers->queue = NULL;
	buffers->room = 0;
	buffers->descriptors = 0;
	buffers->first = buffers->end = buffers->iov_end = 0;
}

void net_rx_buffers_give_back(struct net_rx_buffers *buffers)
{
	if (buffers->queue)
		virtq_unpop(buffers->queue, buffers->end - buffers->first);
	net_rx_buffers_reset(buffers, buffers->mergeable);
}

/* Moves what waits to the beginning. */
static void compact(struct net_rx_buffers *buffers)
{
	unsigned int count = buffers->end - buffers->first;
	unsigned int iov_first =
		count > 0 ? (unsigned int)(buffers->chains[buffers->first].iov - buffers->iov)
			  : buffers->iov_end;

	if (buffers->first == 0)
		return;
	memmove(buffers->chains, buffers->chains + buffers->first,
		count * sizeof(buffers->chains[0]));
	memmove(buffers->iov, buffers->iov + iov_first,
		(buffers->iov_end - iov_first) * sizeof(buffers->iov[0]));
	for (unsigned int i = 0; i < count; i++)
		buffers->chains[i].iov -= iov_first;
	buffers->first = 0;
	buffers->end = count;
	buffers->iov_end -= iov_first;
}

int net_rx_buffers_fill(struct net_rx_buffers *buffers, struct virtq *queue, size_t wanted)
{
	buffers->queue = queue;
	/* Without merging, a frame has one buffer: only the first one's room counts. */
	while (buffers->mergeable ? buffers->room < wanted : buffers->first == buffers->end) {
		struct virtq_chain *chain;
		int rc;

		if (NET_RX_IOV - buffers->iov_end < VIRTQ_SIZE_MAX || buffers->end == NET_RX_IOV)
			compact(buffers);
		if (NET_RX_IOV - buffers->iov_end < VIRTQ_SIZE_MAX)
			return 0;
		chain = &buffers->chains[buffers->end];
		rc = virtq_pop(queue, chain, buffers->iov + buffers->iov_end, VIRTQ_SIZE_MAX);
		if (rc <= 0)
			return rc;
		if (chain->out_count > 0 || chain->in_len < sizeof(struct virtio_net_hdr_v1)) {
			queue->error = "a receive buffer that is not writable or has no room for "
				       "a header";
			return -EPROTO;
		}
		buffers->end++;
		buffers->iov_end += chain->in_count;
		buffers->room += chain->in_len;
		buffers->descriptors += chain->descriptors;
	}
	return 0;
}

const struct iovec *net_rx_buffers_iov(const struct net_rx_buffers *buffers, size_t wanted,
				       unsigned int *count)
{
	const struct virtq_chain *first = &buffers->chains[buffers->first];

	if (buffers->first == buffers->end)
		return NULL;
	if (!buffers->mergeable) {
		*count = first->in_count;
		return first->in_len < wanted ? NULL : first->iov;
	}
	*count = buffers->iov_end - (unsigned int)(first->iov - buffers->iov);
	return buffers->room < wanted ? NULL : first->iov;
}

static void copy_to(const struct iovec *iov, size_t offset, const uint8_t *from, size_t size)
{
	for (; size > 0; iov++) {
		size_t n;

		if (offset >= iov->iov_len) {
			offset -= iov->iov_len;
			continue;
		}
		n = size < iov->iov_len - offset ? size : iov->iov_len - offset;
		memcpy((uint8_t *)iov->iov_base + offset, from, n);
		from += n;
		size -= n;
		offset = 0;
	}
}

enum net_rx_result net_rx_buffers_copy(const struct net_rx_buffers *buffers, const uint8_t *frame,
				       size_t size)
{
	const struct virtq_chain *first = &buffers->chains[buffers->first];

	if (buffers->first == buffers->end)
		return NET_RX_WAIT;
	if (!buffers->mergeable && first->in_len < size)
		return NET_RX_NEVER;
	/* All buffers that the driver has descriptors for are here, or all that we can hold. */
	if (buffers->room < size)
		return buffers->descriptors + first->descriptors > buffers->queue->size ||
				       NET_RX_IOV - buffers->iov_end < VIRTQ_SIZE_MAX
			       ? NET_RX_NEVER
			       : NET_RX_WAIT;
	copy_to(first->iov, 0, frame, size);
	return NET_RX_COPIED;
}

void net_rx_buffers_return(struct net_rx_buffers *buffers, size_t size)
{
	const struct iovec *header = buffers->chains[buffers->first].iov;
	uint16_t count = 0;

	while (size > 0) {
		const struct virtq_chain *chain = &buffers->chains[buffers->first++];
		uint32_t used = size < chain->in_len ? (uint32_t)size : chain->in_len;

		virtq_push(buffers->queue, chain->head, used);
		buffers->room -= chain->in_len;
		buffers->descriptors -= chain->descriptors;
		size -= used;
		count++;
	}
	copy_to(header, offsetof(struct virtio_net_hdr_v1, num_buffers), (const uint8_t *)&count,
		sizeof(count));
	if (buffers->first == buffers->end)
		buffers->first = buffers->end = buffers->iov_end = 0;
}
