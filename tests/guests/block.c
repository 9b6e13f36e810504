/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a good driver does with a block device, once without and once with the features of the
 * ring. The host's test wrote the file and looks at it afterwards.
 */
#include "block.h"

#define READ_SECTOR 1	  /* "sector 1" by the host */
#define WRITE_SECTOR 8	  /* "from the guest" by us, 4 KiB */
#define DISCARD_SECTOR 64 /* 64 KiB that the host filled */
#define DISCARD_SECTORS 128

#define RING_FEATURES (BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(VIRTIO_RING_F_INDIRECT_DESC))
#define BLOCK_FEATURES (BIT(VIRTIO_BLK_F_FLUSH) | BIT(VIRTIO_BLK_F_DISCARD))

static struct block block;
static uint8_t *data;

static void check_requests(void)
{
	const struct virtio_blk_discard_write_zeroes range = {
		.sector = DISCARD_SECTOR,
		.num_sectors = DISCARD_SECTORS,
	};

	guest_check("read",
		    block_request(&block, VIRTIO_BLK_T_IN, READ_SECTOR, data, SECTOR_SIZE, true) ==
				    VIRTIO_BLK_S_OK &&
			    memcmp(data, "sector 1", 8) == 0 && block.used_len == SECTOR_SIZE + 1);
	memset(data, 0, 4096);
	memcpy(data, "from the guest", 14);
	guest_check("write", block_request(&block, VIRTIO_BLK_T_OUT, WRITE_SECTOR, data, 4096,
					   false) == VIRTIO_BLK_S_OK &&
				     block.used_len == 1);
	guest_check("flush", block_request(&block, VIRTIO_BLK_T_FLUSH, 0, NULL, 0, false) ==
				     VIRTIO_BLK_S_OK);
	memset(data, 0, 4096);
	guest_check("read what was written", block_request(&block, VIRTIO_BLK_T_IN, WRITE_SECTOR,
							   data, 4096, true) == VIRTIO_BLK_S_OK &&
						     memcmp(data, "from the guest\0", 15) == 0);
	guest_check("identification", block_request(&block, VIRTIO_BLK_T_GET_ID, 0, data,
						    VIRTIO_BLK_ID_BYTES, true) == VIRTIO_BLK_S_OK &&
					      memcmp(data, "scratch\0", 8) == 0);
	memcpy(data, &range, sizeof(range));
	guest_check("discard", block_request(&block, VIRTIO_BLK_T_DISCARD, 0, data, sizeof(range),
					     false) == VIRTIO_BLK_S_OK);
}

static void check_interrupt(void)
{
	bool before;

	virtio_route_interrupt(&block.virtio);
	before = virtio_interrupt_came(&block.virtio);
	/* The next used element is what EVENT_IDX asks for. */
	block.virtio.queues[0].avail->ring[block.virtio.queues[0].size] =
		block.virtio.queues[0].used_seen;
	block_request(&block, VIRTIO_BLK_T_IN, 0, data, SECTOR_SIZE, true);
	/* The used index is there before the interrupt. */
	while (!before && !virtio_interrupt_came(&block.virtio))
		;
	guest_check("interrupt",
		    !before && virtio_read(&block.virtio, VIRTIO_MMIO_INTERRUPT_STATUS) == 1);
	virtio_write(&block.virtio, VIRTIO_MMIO_INTERRUPT_ACK, 1);
	guest_check("acknowledged", virtio_read(&block.virtio, VIRTIO_MMIO_INTERRUPT_STATUS) == 0);
}

/* The queue full of requests, with one notification. */
static void check_batch(void)
{
	struct virtq *queue = &block.virtio.queues[0];
	struct vring_used_elem element;
	unsigned int done = 0;

	block.header->type = VIRTIO_BLK_T_IN;
	block.header->sector = READ_SECTOR;
	for (unsigned int i = 0; i < queue->size; i++)
		block_add(&block, data, SECTOR_SIZE, true);
	virtio_kick(&block.virtio, 0);
	while (done < queue->size && virtq_wait_used(queue, &element))
		done += element.len == SECTOR_SIZE + 1;
	guest_check("a full queue", done == queue->size);
}

void guest_main(void *zero_page)
{
	(void)zero_page;
	data = guest_alloc(65536);
	guest_check("found", block_find(&block, 0));
	guest_check("capacity", block_capacity(&block) == 2048);
	guest_check("started", block_start(&block, BLOCK_FEATURES, 16));
	check_requests();
	guest_check("started anew", block_start(&block, BLOCK_FEATURES | RING_FEATURES, 256));
	check_requests();
	check_batch();
	check_interrupt();
}
