/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rings that break the rules of virtio 1.2, 2.7: of whichever queue of whichever device. The case
 * writes descriptors behind those that the driver has given in good order.
 */
#include "hostile.h"

#define INDIRECT BIT(VIRTIO_RING_F_INDIRECT_DESC)
#define MEMORY_SIZE UINT64_C(0x1000000) /* as the host's test has it */
#define REGISTERS VIRTIO_BASE

static volatile struct vring_desc *table; /* an indirect one, of as many as there is room for */
static uint8_t *data;
static struct virtq *queue;

void hostile_set_up(const void *zero_page)
{
	(void)zero_page;
	table = guest_alloc(0x10000);
	data = guest_alloc(0x10000);
	queue = &hostile_target->virtio->queues[hostile_target->queue];
}

static void start(uint64_t features)
{
	hostile_expect("it starts", hostile_target->start(features));
}

/* The direction that the device expects. */
static uint16_t direction(void)
{
	return hostile_target->writable ? VRING_DESC_F_WRITE : 0;
}

static void describe(volatile struct vring_desc *desc, uint64_t addr, uint32_t len, uint16_t flags,
		     uint16_t next)
{
	desc->addr = addr;
	desc->len = len;
	desc->flags = flags;
	desc->next = next;
}

/* Makes the head available and has the device look. */
static void offer(uint16_t head)
{
	if (!hostile_target->writable) {
		virtq_make_available(queue, head);
	} else {
		/* The ring is full of good buffers, of which the device has taken one at most. */
		for (unsigned int i = 0; i < queue->size; i++)
			queue->avail->ring[i] = head;
		queue->avail->idx = queue->avail_idx;
		guest_barrier();
	}
	hostile_target->provoke();
}

/* One descriptor that is no good. */
static void offer_descriptor(uint64_t addr, uint32_t len, uint16_t flags)
{
	describe(&queue->desc[0], addr, len, (uint16_t)(direction() | flags), 0);
	offer(0);
}

/* A table of `count` descriptors, whose good ones are 16 bytes long. */
static void fill_table(unsigned int count)
{
	for (unsigned int i = 0; i < count; i++)
		describe(&table[i], (uint64_t)data, 16,
			 (uint16_t)(direction() | (i + 1 < count ? VRING_DESC_F_NEXT : 0)),
			 (uint16_t)(i + 1));
}

static void offer_table(uint64_t addr, uint32_t len)
{
	describe(&queue->desc[0], addr, len, VRING_DESC_F_INDIRECT, 0);
	offer(0);
}

static void avail_runs_away(void)
{
	start(0);
	queue->avail_idx = (uint16_t)(queue->avail_idx + queue->size + 1);
	offer(0);
}

static void avail_runs_back(void)
{
	start(0);
	queue->avail_idx = (uint16_t)(queue->avail_idx - queue->size - 2);
	offer(0);
}

static void head_beyond(void)
{
	start(0);
	offer(queue->size);
}

static void head_far_beyond(void)
{
	start(0);
	offer(0xffff);
}

static void next_beyond(void)
{
	start(0);
	describe(&queue->desc[0], (uint64_t)data, 16, direction() | VRING_DESC_F_NEXT, queue->size);
	offer(0);
}

static void loop_of_one(void)
{
	start(0);
	offer_descriptor((uint64_t)data, 16, VRING_DESC_F_NEXT);
}

static void loop_of_two(void)
{
	start(0);
	describe(&queue->desc[1], (uint64_t)data, 16, direction() | VRING_DESC_F_NEXT, 0);
	describe(&queue->desc[0], (uint64_t)data, 16, direction() | VRING_DESC_F_NEXT, 1);
	offer(0);
}

static void zero_length(void)
{
	start(0);
	offer_descriptor((uint64_t)data, 0, 0);
}

static void beyond_memory(void)
{
	start(0);
	offer_descriptor(UINT64_C(1) << 40, 16, 0);
}

static void across_the_end(void)
{
	start(0);
	offer_descriptor(MEMORY_SIZE - 1, 2, 0);
}

static void device_registers(void)
{
	start(0);
	offer_descriptor(REGISTERS, 16, 0);
}

static void address_overflow(void)
{
	start(0);
	offer_descriptor(UINT64_MAX - 7, 16, 0);
}

static void longest_length(void)
{
	start(0);
	offer_descriptor((uint64_t)data, UINT32_MAX, 0);
}

static void readable_behind_writable(void)
{
	start(0);
	describe(&queue->desc[0], (uint64_t)data, 16, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 1);
	describe(&queue->desc[1], (uint64_t)data, 16, 0, 0);
	offer(0);
}

static void indirect_not_negotiated(void)
{
	start(0);
	fill_table(1);
	offer_table((uint64_t)table, 16);
}

static void indirect_in_indirect(void)
{
	start(INDIRECT);
	describe(&table[0], (uint64_t)(table + 16), 16, VRING_DESC_F_INDIRECT, 0);
	offer_table((uint64_t)table, 16);
}

static void indirect_in_itself(void)
{
	start(INDIRECT);
	describe(&table[0], (uint64_t)table, 16, VRING_DESC_F_INDIRECT, 0);
	offer_table((uint64_t)table, 16);
}

static void indirect_with_next(void)
{
	start(INDIRECT);
	fill_table(1);
	describe(&queue->desc[0], (uint64_t)table, 16, VRING_DESC_F_INDIRECT | VRING_DESC_F_NEXT,
		 1);
	offer(0);
}

static void indirect_odd(void)
{
	start(INDIRECT);
	fill_table(2);
	offer_table((uint64_t)table, 24);
}

static void indirect_empty(void)
{
	start(INDIRECT);
	offer_table((uint64_t)table, 0);
}

static void indirect_beyond_memory(void)
{
	start(INDIRECT);
	offer_table(MEMORY_SIZE - 16, 32);
}

static void indirect_huge(void)
{
	start(INDIRECT);
	offer_table(0, 0xfffffff0);
}

static void indirect_next_beyond(void)
{
	start(INDIRECT);
	fill_table(2);
	offer_table((uint64_t)table, 16);
}

static void indirect_loop(void)
{
	start(INDIRECT);
	fill_table(2);
	table[1].flags |= VRING_DESC_F_NEXT;
	table[1].next = 0;
	offer_table((uint64_t)table, 32);
}

static void chain_too_long(void)
{
	start(INDIRECT);
	fill_table(queue->size + 1u);
	offer_table((uint64_t)table, (queue->size + 1u) * 16);
}

/* Each of its descriptors is good; but all memory, 256 times over, is 4 GiB. */
static void chain_of_4_gib(void)
{
	virtio_start(hostile_target->virtio, INDIRECT, hostile_target->queue_count, 256);
	for (unsigned int i = 0; i < 256; i++)
		describe(&table[i], 0, MEMORY_SIZE,
			 (uint16_t)(direction() | (i < 255 ? VRING_DESC_F_NEXT : 0)),
			 (uint16_t)(i + 1));
	describe(&queue->desc[0], (uint64_t)table, 4096, VRING_DESC_F_INDIRECT, 0);
	virtq_make_available(queue, 0);
	hostile_target->provoke();
}

/* What is broken stays broken, however often it is notified. */
static void notified_when_broken(void)
{
	start(0);
	offer_descriptor((uint64_t)data, 0, 0);
	for (unsigned int i = 0; i < 20; i++)
		virtio_notify(hostile_target->virtio, hostile_target->queue);
	virtio_wait_needs_reset(hostile_target->virtio);
	for (unsigned int i = 0; i < 20; i++)
		virtio_notify(hostile_target->virtio, hostile_target->queue);
	virtio_write(hostile_target->virtio, VIRTIO_MMIO_STATUS,
		     virtio_read(hostile_target->virtio, VIRTIO_MMIO_STATUS));
}

/* The three rings at one place: what the device writes are descriptors to it. */
static void rings_at_one_place(void)
{
	struct virtio *virtio = hostile_target->virtio;
	const uint64_t place = (uint64_t)data;

	virtio_reset(virtio);
	virtio_negotiate(virtio, BIT(VIRTIO_F_VERSION_1));
	for (unsigned int i = 0; i < hostile_target->queue_count; i++) {
		virtio_write(virtio, VIRTIO_MMIO_QUEUE_SEL, i);
		virtio_write(virtio, VIRTIO_MMIO_QUEUE_NUM, 16);
		virtio_write(virtio, VIRTIO_MMIO_QUEUE_DESC_LOW, (uint32_t)place);
		virtio_write(virtio, VIRTIO_MMIO_QUEUE_AVAIL_LOW, (uint32_t)place);
		virtio_write(virtio, VIRTIO_MMIO_QUEUE_USED_LOW, (uint32_t)place);
		virtio_write(virtio, VIRTIO_MMIO_QUEUE_READY, 1);
	}
	for (unsigned int i = 0; i < 16; i++)
		describe((volatile struct vring_desc *)data + i, place, 64, direction(), 0);
	virtio_write(virtio, VIRTIO_MMIO_STATUS, 0xf);
	for (unsigned int i = 0; i < 10; i++)
		virtio_notify(virtio, hostile_target->queue);
}

/* One descriptor in every entry of the ring: the device has it many times at once. */
static void one_descriptor_many_times(void)
{
	start(0);
	describe(&queue->desc[0], (uint64_t)data, 64, direction(), 0);
	for (unsigned int i = 0; i < queue->size; i++)
		queue->avail->ring[i] = 0;
	queue->avail->idx =
		(uint16_t)(queue->avail->idx + (hostile_target->writable ? 0 : queue->size));
	hostile_target->provoke();
}

/* used_event, avail_event and the flags say what they like. */
static void events_nonsense(void)
{
	start(BIT(VIRTIO_RING_F_EVENT_IDX));
	for (unsigned int i = 0; i < 8; i++) {
		queue->avail->ring[queue->size] = (uint16_t)(i * 0x2fff);
		queue->avail->flags = (uint16_t)~i;
		virtio_notify(hostile_target->virtio, hostile_target->queue);
	}
	queue->kicked = (uint16_t)(queue->avail_idx - 1);
}

const struct hostile_case hostile_cases[] = {
	{ "avail-runs-away", NEEDS_RESET, avail_runs_away },
	{ "avail-runs-back", NEEDS_RESET, avail_runs_back },
	{ "head-beyond", NEEDS_RESET, head_beyond },
	{ "head-far-beyond", NEEDS_RESET, head_far_beyond },
	{ "next-beyond", NEEDS_RESET, next_beyond },
	{ "loop-of-one", NEEDS_RESET, loop_of_one },
	{ "loop-of-two", NEEDS_RESET, loop_of_two },
	{ "zero-length", NEEDS_RESET, zero_length },
	{ "beyond-memory", NEEDS_RESET, beyond_memory },
	{ "across-the-end", NEEDS_RESET, across_the_end },
	{ "device-registers", NEEDS_RESET, device_registers },
	{ "address-overflow", NEEDS_RESET, address_overflow },
	{ "longest-length", NEEDS_RESET, longest_length },
	{ "readable-behind-writable", NEEDS_RESET, readable_behind_writable },
	{ "indirect-not-negotiated", NEEDS_RESET, indirect_not_negotiated },
	{ "indirect-in-indirect", NEEDS_RESET, indirect_in_indirect },
	{ "indirect-in-itself", NEEDS_RESET, indirect_in_itself },
	{ "indirect-with-next", NEEDS_RESET, indirect_with_next },
	{ "indirect-odd", NEEDS_RESET, indirect_odd },
	{ "indirect-empty", NEEDS_RESET, indirect_empty },
	{ "indirect-beyond-memory", NEEDS_RESET, indirect_beyond_memory },
	{ "indirect-huge", NEEDS_RESET, indirect_huge },
	{ "indirect-next-beyond", NEEDS_RESET, indirect_next_beyond },
	{ "indirect-loop", NEEDS_RESET, indirect_loop },
	{ "chain-too-long", NEEDS_RESET, chain_too_long },
	{ "chain-of-4-gib", NEEDS_RESET, chain_of_4_gib },
	{ "notified-when-broken", NEEDS_RESET, notified_when_broken },
	{ "rings-at-one-place", EITHER, rings_at_one_place },
	{ "one-descriptor-many-times", EITHER, one_descriptor_many_times },
	{ "events-nonsense", RUNS_ON, events_nonsense },
	{ NULL },
};
