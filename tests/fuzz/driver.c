/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fuzz/driver.h"

#include <string.h>

#include "tests/fuzz/fuzz.h"

#define RING_SPACING UINT64_C(0x10000)
#define AVAIL_OFFSET UINT64_C(0x1000)
#define USED_OFFSET UINT64_C(0x2000)
#define TABLES UINT64_C(0x20000)
#define TABLE_SPACING UINT64_C(0x100)

void *driver_memory(const struct driver *driver, uint64_t addr, uint64_t size)
{
	void *pointer = guest_memory_range(driver->memory, addr, size);

	REQUIRE(pointer);
	return pointer;
}

static void *ring_memory(const struct driver *driver, unsigned int index, uint64_t offset)
{
	return driver_memory(driver, RING_SPACING * index + offset, AVAIL_OFFSET);
}

void driver_reset(struct driver *driver, bool indirect)
{
	driver->indirect = indirect;
	memset(driver->rings, 0, sizeof(driver->rings));
	for (unsigned int i = 0; i < DRIVER_QUEUES; i++) {
		driver->rings[i].free = DRIVER_QUEUE_SIZE;
		memset(driver_memory(driver, RING_SPACING * i, USED_OFFSET + AVAIL_OFFSET), 0,
		       USED_OFFSET + AVAIL_OFFSET);
	}
}

void driver_set_up_queue(struct driver *driver, unsigned int index, struct virtq *queue)
{
	queue->desc_addr = RING_SPACING * index;
	queue->avail_addr = queue->desc_addr + AVAIL_OFFSET;
	queue->used_addr = queue->desc_addr + USED_OFFSET;
	queue->ready = true;
	REQUIRE(queue->size == DRIVER_QUEUE_SIZE && virtq_valid(queue, driver->memory));
}

static void make_available(struct driver *driver, unsigned int index, uint16_t head)
{
	struct vring_avail *avail = ring_memory(driver, index, AVAIL_OFFSET);

	avail->ring[avail->idx % DRIVER_QUEUE_SIZE] = head;
	avail->idx++;
}

/* Into a table of `size` descriptors, from `first` on; returns how many. */
static uint16_t describe(struct input *input, struct vring_desc *table, uint16_t size,
			 uint16_t first, struct vring_desc buffer, unsigned int pieces)
{
	uint32_t left = buffer.len;
	uint16_t count = 0;

	while (left > 0) {
		uint16_t slot = (uint16_t)((first + count) % size);

		if (++count < pieces)
			buffer.len = 1 + (uint32_t)take(input);
		if (count == pieces || buffer.len > left)
			buffer.len = left;
		left -= buffer.len;
		table[slot] = buffer;
		if (left > 0) {
			table[slot].flags |= VRING_DESC_F_NEXT;
			table[slot].next = (uint16_t)((slot + 1) % size);
		}
		buffer.addr += buffer.len;
	}
	return count;
}

bool driver_add(struct driver *driver, struct input *input, unsigned int index, uint64_t addr,
		uint32_t len, uint8_t shape)
{
	struct driver_ring *ring = &driver->rings[index];
	struct driver_chain *chain = &ring->chains[ring->end % DRIVER_QUEUE_SIZE];
	struct vring_desc *own = ring_memory(driver, index, 0);
	uint16_t pieces = (uint16_t)((shape & DRIVER_SHAPE_PIECES) + 1);
	bool indirect = driver->indirect && (shape & DRIVER_SHAPE_INDIRECT);
	struct vring_desc buffer = { addr, len, index == 0 ? VRING_DESC_F_WRITE : 0, 0 };

	if (ring->free < (indirect ? 1 : pieces))
		return false;
	*chain = (struct driver_chain){ ring->next, 1, len };
	if (indirect) {
		uint64_t table = TABLES + TABLE_SPACING * (DRIVER_QUEUE_SIZE * index + chain->head);
		uint16_t count = describe(input, driver_memory(driver, table, TABLE_SPACING),
					  DRIVER_PIECES_MAX, 0, buffer, pieces);

		own[chain->head] =
			(struct vring_desc){ table, 16u * count, VRING_DESC_F_INDIRECT, 0 };
	} else {
		chain->descriptors =
			describe(input, own, DRIVER_QUEUE_SIZE, chain->head, buffer, pieces);
	}
	ring->end++;
	ring->free = (uint16_t)(ring->free - chain->descriptors);
	ring->next = (uint16_t)((chain->head + chain->descriptors) % DRIVER_QUEUE_SIZE);
	make_available(driver, index, chain->head);
	return true;
}

void driver_add_raw(struct driver *driver, unsigned int index, uint16_t head,
		    const struct vring_desc *desc)
{
	struct vring_desc *table = ring_memory(driver, index, 0);

	table[head % DRIVER_QUEUE_SIZE] = *desc;
	make_available(driver, index, head);
}

bool driver_used(struct driver *driver, unsigned int index, struct driver_chain *chain,
		 uint32_t *len)
{
	struct driver_ring *ring = &driver->rings[index];
	const struct vring_used *used = ring_memory(driver, index, USED_OFFSET);
	const vring_used_elem_t *element = &used->ring[ring->seen_used % DRIVER_QUEUE_SIZE];

	if (used->idx == ring->seen_used)
		return false;
	REQUIRE(ring->first != ring->end);
	*chain = ring->chains[ring->first++ % DRIVER_QUEUE_SIZE];
	*len = element->len;
	REQUIRE(element->id == chain->head);
	ring->seen_used++;
	ring->free = (uint16_t)(ring->free + chain->descriptors);
	return true;
}
