/* SPDX-License-Identifier: Apache-2.0 */
/*
 * As much as a queue takes of what costs a disk the most: `requests` of `type`, with `pieces` times
 * a MiB of data, or that many ranges of `sectors`. With `reset`, a reset when the host says so, by
 * another size of the second drive; or all of it again for `rounds`. On the first drive, or on
 * `drives` at a time.
 */
#include "block.h"

#define PIECE (UINT32_C(1) << 20)
#define RANGES_MAX 16

#define DRIVES_MAX 16

static struct block blocks[DRIVES_MAX];
static unsigned int drives;

static struct virtio_blk_discard_write_zeroes *make_ranges(uint32_t sectors)
{
	struct virtio_blk_discard_write_zeroes *ranges = guest_alloc(RANGES_MAX * sizeof(*ranges));

	for (unsigned int i = 0; i < RANGES_MAX; i++) {
		ranges[i].num_sectors = sectors;
		ranges[i].sector = (uint64_t)i * sectors;
	}
	return ranges;
}

static unsigned int make_buffers(struct block *block, struct virtq_buffer *buffers, uint32_t type,
				 unsigned int pieces, uint32_t sectors)
{
	unsigned int count = 0;

	buffers[count++] = (struct virtq_buffer){ block->header, sizeof(*block->header), false };
	if (type == VIRTIO_BLK_T_DISCARD || type == VIRTIO_BLK_T_WRITE_ZEROES) {
		uint32_t len = pieces * sizeof(struct virtio_blk_discard_write_zeroes);

		buffers[count++] = (struct virtq_buffer){ make_ranges(sectors), len, false };
	} else {
		void *data = guest_alloc(PIECE);

		while (count <= pieces)
			buffers[count++] =
				(struct virtq_buffer){ data, PIECE, type == VIRTIO_BLK_T_IN };
	}
	buffers[count++] = (struct virtq_buffer){ block->status, 1, true };
	return count;
}

static void add_requests(struct block *block, const struct virtq_buffer *buffers,
			 unsigned int count, unsigned int requests)
{
	struct virtq *queue = &block->virtio.queues[0];

	for (unsigned int i = 0; i < requests; i++)
		virtq_make_available(queue,
				     virtq_chain_indirect(queue, block->table, buffers, count));
	virtio_notify(&block->virtio, 0);
}

static void await_requests(struct block *block, unsigned int requests)
{
	struct vring_used_elem element;

	while (requests > 0) {
		if (virtq_take_used(&block->virtio.queues[0], &element))
			requests--;
		else
			__asm__ volatile("pause");
	}
}

void guest_main(void *zero_page)
{
	const uint32_t type = guest_number(zero_page, "type", VIRTIO_BLK_T_IN);
	const unsigned int requests = guest_number(zero_page, "requests", 200);
	const unsigned int rounds = guest_number(zero_page, "rounds", 1);
	struct virtq_buffer buffers[256];
	unsigned int count = 0;
	struct block signal;
	uint64_t size = 0;

	if (guest_number(zero_page, "reset", 0) && block_find(&signal, 1))
		size = block_capacity(&signal);
	drives = guest_number(zero_page, "drives", 1);
	for (unsigned int i = 0; i < drives; i++) {
		if (!block_find(&blocks[i], i) || !block_start(&blocks[i], UINT64_MAX, 256)) {
			guest_put("FAIL no drive\n");
			return;
		}
		blocks[i].header->type = type;
		blocks[i].table = guest_alloc(4096);
	}
	count = make_buffers(&blocks[0], buffers, type, guest_number(zero_page, "pieces", 1),
			     guest_number(zero_page, "sectors", 1));
	for (unsigned int round = 0; round < rounds; round++) {
		for (unsigned int i = 0; i < drives; i++)
			add_requests(&blocks[i], buffers, count, requests);
		if (round == 0)
			guest_put("in flight\n");
		if (guest_number(zero_page, "reset", 0)) {
			while (block_capacity(&signal) == size)
				__asm__ volatile("pause");
			guest_put("resetting\n");
			/* As Linux does it, which does not look whether that is done. */
			virtio_write(&blocks[0].virtio, VIRTIO_MMIO_STATUS, 0);
			guest_put("reset\n");
			return;
		}
		for (unsigned int i = 0; i < drives; i++)
			await_requests(&blocks[i], requests);
	}
	guest_put("done\n");
}
