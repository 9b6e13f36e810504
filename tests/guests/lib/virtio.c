/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio.h"

#define MAGIC 0x74726976

#define IOAPIC 0xfec00000
#define IOAPIC_DATA (IOAPIC + 0x10)
#define IOAPIC_REDIRECTION 0x10 /* two registers for each interrupt */
#define LAPIC 0xfee00000
#define LAPIC_SPURIOUS (LAPIC + 0xf0)
#define LAPIC_SPURIOUS_ENABLED 0x1ff
#define LAPIC_REQUESTS (LAPIC + 0x200) /* 32 vectors in each 16 bytes */
#define VECTOR 0x40		       /* of interrupt 0 */

#define HUGE_PAGE UINT64_C(0x200000)

bool virtio_find(struct virtio *device, uint32_t type, unsigned int nth)
{
	*device = (struct virtio){ 0 };
	guest_map(VIRTIO_BASE & ~(HUGE_PAGE - 1));
	for (unsigned int i = 0; i < VIRTIO_WINDOWS; i++) {
		device->base = VIRTIO_BASE + i * VIRTIO_WINDOW;
		device->irq = VIRTIO_IRQ + i;
		if (virtio_read(device, VIRTIO_MMIO_MAGIC_VALUE) != MAGIC)
			return false;
		if (virtio_read(device, VIRTIO_MMIO_DEVICE_ID) == type && nth-- == 0)
			return virtio_read(device, VIRTIO_MMIO_VERSION) == 2;
	}
	return false;
}

void virtio_reset(const struct virtio *device)
{
	virtio_write(device, VIRTIO_MMIO_STATUS, 0);
	while (virtio_read(device, VIRTIO_MMIO_STATUS) != 0)
		;
}

uint64_t virtio_offered(const struct virtio *device)
{
	uint64_t features;

	virtio_write(device, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
	features = (uint64_t)virtio_read(device, VIRTIO_MMIO_DEVICE_FEATURES) << 32;
	virtio_write(device, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
	return features | virtio_read(device, VIRTIO_MMIO_DEVICE_FEATURES);
}

bool virtio_negotiate(struct virtio *device, uint64_t features)
{
	uint32_t status = VIRTIO_CONFIG_S_ACKNOWLEDGE;

	virtio_write(device, VIRTIO_MMIO_STATUS, status);
	status |= VIRTIO_CONFIG_S_DRIVER;
	virtio_write(device, VIRTIO_MMIO_STATUS, status);
	device->features = features;
	for (uint32_t half = 0; half < 2; half++) {
		virtio_write(device, VIRTIO_MMIO_DRIVER_FEATURES_SEL, half);
		virtio_write(device, VIRTIO_MMIO_DRIVER_FEATURES,
			     (uint32_t)(features >> 32 * half));
	}
	status |= VIRTIO_CONFIG_S_FEATURES_OK;
	virtio_write(device, VIRTIO_MMIO_STATUS, status);
	return virtio_read(device, VIRTIO_MMIO_STATUS) == status;
}

/* Behind the used ring (2.7.8). */
static volatile uint16_t *avail_event(const struct virtq *queue)
{
	volatile void *at = &queue->used->ring[queue->size];

	return at;
}

void virtio_prepare_queue(struct virtio *device, unsigned int index, uint16_t size)
{
	struct virtq *queue = &device->queues[index];

	if (!queue->desc) {
		queue->desc = guest_alloc(VIRTQ_SIZE_MAX * sizeof(*queue->desc));
		queue->avail = guest_alloc(2 * (VIRTQ_SIZE_MAX + 3));
		queue->used = guest_alloc(8 * VIRTQ_SIZE_MAX + 6);
	}
	queue->size = size;
	queue->next_desc = 0;
	queue->avail_idx = 0;
	queue->used_seen = 0;
	queue->kicked = 0;
	queue->avail->flags = 0;
	queue->avail->idx = 0;
	queue->avail->ring[size] = 0; /* used_event */
	queue->used->flags = 0;
	queue->used->idx = 0;
	*avail_event(queue) = 0;
}

static void write_address(const struct virtio *device, uint64_t offset, uint64_t address)
{
	virtio_write(device, offset, (uint32_t)address);
	if (address >> 32) /* a reset has made it 0 */
		virtio_write(device, offset + 4, (uint32_t)(address >> 32));
}

bool virtio_set_up_queue(const struct virtio *device, unsigned int index)
{
	const struct virtq *queue = &device->queues[index];

	virtio_write(device, VIRTIO_MMIO_QUEUE_SEL, index);
	virtio_write(device, VIRTIO_MMIO_QUEUE_NUM, queue->size);
	write_address(device, VIRTIO_MMIO_QUEUE_DESC_LOW, (uint64_t)queue->desc);
	write_address(device, VIRTIO_MMIO_QUEUE_AVAIL_LOW, (uint64_t)queue->avail);
	write_address(device, VIRTIO_MMIO_QUEUE_USED_LOW, (uint64_t)queue->used);
	virtio_write(device, VIRTIO_MMIO_QUEUE_READY, 1);
	return virtio_read(device, VIRTIO_MMIO_QUEUE_READY) == 1;
}

bool virtio_start(struct virtio *device, uint64_t features, unsigned int count, uint16_t size)
{
	virtio_reset(device);
	features = (features | BIT(VIRTIO_F_VERSION_1)) & virtio_offered(device);
	if (!virtio_negotiate(device, features))
		return false;
	for (unsigned int i = 0; i < count; i++) {
		virtio_prepare_queue(device, i, size);
		if (!virtio_set_up_queue(device, i))
			return false;
	}
	virtio_write(device, VIRTIO_MMIO_STATUS,
		     virtio_read(device, VIRTIO_MMIO_STATUS) | VIRTIO_CONFIG_S_DRIVER_OK);
	return true;
}

static void fill(volatile struct vring_desc *desc, const struct virtq_buffer *buffer, bool last,
		 uint16_t next)
{
	desc->addr = (uint64_t)buffer->addr;
	desc->len = buffer->len;
	desc->flags = (uint16_t)((buffer->writable ? VRING_DESC_F_WRITE : 0) |
				 (last ? 0 : VRING_DESC_F_NEXT));
	desc->next = last ? 0 : next;
}

static uint16_t new_descriptor(struct virtq *queue)
{
	return queue->next_desc++ & (queue->size - 1);
}

uint16_t virtq_chain(struct virtq *queue, const struct virtq_buffer *buffers, unsigned int count)
{
	uint16_t head = queue->next_desc & (queue->size - 1);

	for (unsigned int i = 0; i < count; i++) {
		uint16_t at = new_descriptor(queue);

		fill(&queue->desc[at], &buffers[i], i + 1 == count,
		     queue->next_desc & (queue->size - 1));
	}
	return head;
}

uint16_t virtq_chain_indirect(struct virtq *queue, volatile struct vring_desc *table,
			      const struct virtq_buffer *buffers, unsigned int count)
{
	uint16_t head = new_descriptor(queue);

	for (unsigned int i = 0; i < count; i++)
		fill(&table[i], &buffers[i], i + 1 == count, (uint16_t)(i + 1));
	queue->desc[head].addr = (uint64_t)table;
	queue->desc[head].len = (uint32_t)(count * sizeof(*table));
	queue->desc[head].flags = VRING_DESC_F_INDIRECT;
	queue->desc[head].next = 0;
	return head;
}

void virtq_make_available(struct virtq *queue, uint16_t head)
{
	queue->avail->ring[queue->avail_idx & (queue->size - 1)] = head;
	guest_barrier();
	queue->avail->idx = ++queue->avail_idx;
	guest_barrier();
}

void virtio_notify(const struct virtio *device, unsigned int index)
{
	virtio_write(device, VIRTIO_MMIO_QUEUE_NOTIFY, index);
}

bool virtio_kick(struct virtio *device, unsigned int index)
{
	struct virtq *queue = &device->queues[index];
	uint16_t before = queue->kicked;
	bool wanted;

	queue->kicked = queue->avail_idx;
	if (device->features & BIT(VIRTIO_RING_F_EVENT_IDX))
		wanted = vring_need_event(*avail_event(queue), queue->avail_idx, before);
	else
		wanted = !(queue->used->flags & VRING_USED_F_NO_NOTIFY);
	if (wanted)
		virtio_notify(device, index);
	return wanted;
}

bool virtq_take_used(struct virtq *queue, struct vring_used_elem *element)
{
	const volatile struct vring_used_elem *from;

	if (queue->used->idx == queue->used_seen)
		return false;
	guest_barrier();
	from = &queue->used->ring[queue->used_seen & (queue->size - 1)];
	element->id = from->id;
	element->len = from->len;
	queue->used_seen++;
	return true;
}

bool virtq_wait_used(struct virtq *queue, struct vring_used_elem *element)
{
	uint64_t start = guest_clock();

	while (!virtq_take_used(queue, element)) {
		if (guest_clock() - start > GUEST_PATIENCE)
			return false;
		__asm__ volatile("pause");
	}
	return true;
}

static void write_ioapic(uint32_t index, uint32_t value)
{
	write32(IOAPIC, index);
	write32(IOAPIC_DATA, value);
}

/* Edge-triggered, to the processor with APIC ID 0, at the vector that belongs to the interrupt. */
void virtio_route_interrupt(const struct virtio *device)
{
	guest_map(IOAPIC & ~(HUGE_PAGE - 1));
	guest_map(LAPIC & ~(HUGE_PAGE - 1));
	write32(LAPIC_SPURIOUS, LAPIC_SPURIOUS_ENABLED);
	write_ioapic(IOAPIC_REDIRECTION + 2 * device->irq + 1, 0);
	write_ioapic(IOAPIC_REDIRECTION + 2 * device->irq, VECTOR + device->irq);
}

bool virtio_interrupt_came(const struct virtio *device)
{
	unsigned int vector = VECTOR + device->irq;

	return read32(LAPIC_REQUESTS + vector / 32 * 16) >> vector % 32 & 1;
}

bool virtio_needs_reset(const struct virtio *device)
{
	return virtio_read(device, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET;
}

bool virtio_wait_needs_reset(const struct virtio *device)
{
	uint64_t start = guest_clock();

	while (!virtio_needs_reset(device)) {
		if (guest_clock() - start > GUEST_PATIENCE)
			return false;
	}
	return true;
}
