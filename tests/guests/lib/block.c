/* SPDX-License-Identifier: Apache-2.0 */
#include "block.h"

#include <linux/virtio_ids.h>

#define PAGE 4096

bool block_find(struct block *block, unsigned int nth)
{
	uint8_t *page = guest_alloc(PAGE);

	*block = (struct block){ 0 };
	block->header = (struct virtio_blk_outhdr *)page;
	block->status = page + sizeof(*block->header);
	block->table = (volatile struct vring_desc *)(page + PAGE / 2);
	return virtio_find(&block->virtio, VIRTIO_ID_BLOCK, nth);
}

bool block_start(struct block *block, uint64_t features, uint16_t size)
{
	return virtio_start(&block->virtio, features, 1, size);
}

uint16_t block_add(struct block *block, void *data, uint32_t len, bool writable)
{
	struct virtq *queue = &block->virtio.queues[0];
	struct virtq_buffer buffers[3] = { { block->header, sizeof(*block->header), false } };
	unsigned int count = 1;
	uint16_t head;

	if (len > 0)
		buffers[count++] = (struct virtq_buffer){ data, len, writable };
	buffers[count++] = (struct virtq_buffer){ block->status, 1, true };
	head = block->virtio.features & BIT(VIRTIO_RING_F_INDIRECT_DESC)
		       ? virtq_chain_indirect(queue, block->table, buffers, count)
		       : virtq_chain(queue, buffers, count);
	virtq_make_available(queue, head);
	return head;
}

unsigned int block_request(struct block *block, uint32_t type, uint64_t sector, void *data,
			   uint32_t len, bool writable)
{
	struct vring_used_elem element;
	uint16_t head;

	block->header->type = type;
	block->header->ioprio = 0;
	block->header->sector = sector;
	*block->status = 0xff;
	head = block_add(block, data, len, writable);
	virtio_kick(&block->virtio, 0);
	if (!virtq_wait_used(&block->virtio.queues[0], &element) || element.id != head)
		return BLOCK_NO_ANSWER;
	block->used_len = element.len;
	return *block->status;
}

uint64_t block_capacity(const struct block *block)
{
	return virtio_read(&block->virtio, VIRTIO_MMIO_CONFIG) |
	       (uint64_t)virtio_read(&block->virtio, VIRTIO_MMIO_CONFIG + 4) << 32;
}
