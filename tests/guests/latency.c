/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long a read of 4 KiB takes, from just before the notification to the used ring's index,
 * which the driver polls: the ticks of the processor's clock, a line for each of `reads`, between
 * which there are `between` more that are not told.
 */
#include "block.h"

#define READ_SIZE 4096
#define READ_SECTORS (READ_SIZE / SECTOR_SIZE)
#define WARM_UP 100

static struct block block;
static uint8_t *data;

/* 0: it failed. */
static uint64_t read_once(uint64_t sector)
{
	struct virtq *queue = &block.virtio.queues[0];
	uint16_t before = queue->used->idx;
	struct vring_used_elem element;
	uint64_t start, end;

	block.header->type = VIRTIO_BLK_T_IN;
	block.header->sector = sector;
	*block.status = 0xff;
	block_add(&block, data, READ_SIZE, true);
	start = guest_clock();
	virtio_notify(&block.virtio, 0);
	while (queue->used->idx == before)
		__asm__ volatile("pause");
	end = guest_clock();
	virtq_take_used(queue, &element);
	return *block.status == VIRTIO_BLK_S_OK ? end - start : 0;
}

void guest_main(void *zero_page)
{
	unsigned int reads = guest_number(zero_page, "reads", 1000);
	unsigned int between = guest_number(zero_page, "between", 0);
	uint64_t *ticks = guest_alloc(reads * sizeof(*ticks));
	uint64_t sectors;

	data = guest_alloc(READ_SIZE);
	if (!block_find(&block, 0) || !block_start(&block, 0, 16)) {
		guest_put("FAIL no drive\n");
		return;
	}
	/* No interrupts: nobody takes them. */
	block.virtio.queues[0].avail->flags = VRING_AVAIL_F_NO_INTERRUPT;
	sectors = block_capacity(&block);
	for (unsigned int i = 0; i < WARM_UP; i++)
		read_once(i * READ_SECTORS % sectors);
	for (unsigned int i = 0; i < reads; i++) {
		ticks[i] = read_once(i * READ_SECTORS % sectors);
		for (unsigned int j = 0; j < between; j++)
			read_once(j * READ_SECTORS % sectors);
	}
	for (unsigned int i = 0; i < reads; i++) {
		guest_put_number(ticks[i]);
		guest_put("\n");
	}
}
