/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/core/queue.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stddef.h>
#include <string.h>

#include "base/guest_memory.h"
#include "base/state.h"

#define DESC_ALIGN 16
#define AVAIL_ALIGN 2
#define USED_ALIGN 4

_Static_assert(sizeof(struct vring_desc) == 16, "virtio 1.2, 2.7.5");

static uint64_t avail_bytes(uint16_t size)
{
	/* used_event behind the ring is there whether or not it is negotiated (2.7.6). */
	return sizeof(struct vring_avail) + sizeof(uint16_t) * size + sizeof(uint16_t);
}

static uint64_t used_bytes(uint16_t size)
{
	return sizeof(struct vring_used) + sizeof(struct vring_used_elem) * size + sizeof(uint16_t);
}

static volatile uint16_t *used_event(const struct virtq *queue)
{
	return &queue->avail->ring[queue->size];
}

static volatile uint16_t *avail_event(const struct virtq *queue)
{
	return (volatile uint16_t *)&queue->used->ring[queue->size];
}

void virtq_reset(struct virtq *queue)
{
	uint16_t max_size = queue->max_size;

	memset(queue, 0, sizeof(*queue));
	queue->max_size = max_size;
	queue->size = max_size;
}

bool virtq_valid(const struct virtq *queue, const struct guest_memory *memory)
{
	uint16_t size = queue->size;

	return size > 0 && size <= queue->max_size && (size & (size - 1)) == 0 &&
	       queue->desc_addr % DESC_ALIGN == 0 && queue->avail_addr % AVAIL_ALIGN == 0 &&
	       queue->used_addr % USED_ALIGN == 0 &&
	       guest_memory_range(memory, queue->desc_addr, sizeof(struct vring_desc) * size) &&
	       guest_memory_range(memory, queue->avail_addr, avail_bytes(size)) &&
	       guest_memory_range(memory, queue->used_addr, used_bytes(size));
}

void virtq_start(struct virtq *queue, const struct guest_memory *memory, uint64_t features)
{
	uint16_t size = queue->size;

	queue->memory = memory;
	queue->desc =
		guest_memory_range(memory, queue->desc_addr, sizeof(struct vring_desc) * size);
	queue->avail = guest_memory_range(memory, queue->avail_addr, avail_bytes(size));
	queue->used = guest_memory_range(memory, queue->used_addr, used_bytes(size));
	queue->event_idx = features >> VIRTIO_RING_F_EVENT_IDX & 1;
	queue->indirect = features >> VIRTIO_RING_F_INDIRECT_DESC & 1;
	queue->next_avail = 0;
	queue->next_used = 0;
	queue->published_used = 0;
	queue->error = NULL;
}

void virtq_save(const struct virtq *queue, struct state_writer *out)
{
	state_put_u16(out, queue->size);
	state_put_bool(out, queue->ready);
	state_put_u64(out, queue->desc_addr);
	state_put_u64(out, queue->avail_addr);
	state_put_u64(out, queue->used_addr);
	state_put_u16(out, queue->next_avail);
	state_put_u16(out, queue->published_used);
}

void virtq_load(struct virtq *queue, struct state_reader *in)
{
	queue->size = state_get_u16(in);
	queue->ready = state_get_bool(in);
	queue->desc_addr = state_get_u64(in);
	queue->avail_addr = state_get_u64(in);
	queue->used_addr = state_get_u64(in);
	queue->next_avail = state_get_u16(in);
	queue->published_used = state_get_u16(in);
}

void virtq_continue(struct virtq *queue, const struct guest_memory *memory, uint64_t features)
{
	const struct virtq saved = *queue;

	virtq_start(queue, memory, features);
	queue->next_avail = saved.next_avail;
	queue->next_used = queue->published_used = saved.published_used;
}

/* __atomic_thread_fence(), which gcc refuses to build for the thread sanitizer. */
static void full_barrier(void)
{
	__sync_synchronize();
}

static int broken(struct virtq *queue, const char *rule)
{
	queue->error = rule;
	return -EPROTO;
}

/* From an address of any alignment; the compiler may not go back to it for a second look. */
static struct vring_desc copy_descriptor(const volatile struct vring_desc *from)
{
	struct vring_desc copy;

	memcpy(&copy, (const void *)(uintptr_t)from, sizeof(copy));
	__asm__ volatile("" : "+m"(copy));
	return copy;
}

/* Where a chain's descriptors are read from: the queue's own table or an indirect one. */
struct walk {
	const volatile struct vring_desc *table;
	uint32_t table_size;
	uint32_t next;
	bool indirect;
};

/* 2.7.5.3: an indirect table holds the rest of the chain, and none of it refers to another. */
static int enter_indirect(struct virtq *queue, struct walk *walk, const struct vring_desc *desc)
{
	if (!queue->indirect)
		return broken(queue, "an indirect descriptor, which was not negotiated");
	if (walk->indirect)
		return broken(queue, "an indirect descriptor inside an indirect table");
	if (desc->flags & VRING_DESC_F_NEXT)
		return broken(queue, "an indirect descriptor that has a next one");
	if (desc->len == 0 || desc->len % sizeof(struct vring_desc))
		return broken(queue, "an indirect table whose length is no multiple of 16");
	walk->table = guest_memory_range(queue->memory, desc->addr, desc->len);
	if (!walk->table)
		return broken(queue, "an indirect table outside of guest memory");
	walk->table_size = desc->len / sizeof(struct vring_desc);
	walk->next = 0;
	walk->indirect = true;
	return 0;
}

static int add_buffer(struct virtq *queue, struct virtq_chain *chain, const struct vring_desc *desc)
{
	bool writable = desc->flags & VRING_DESC_F_WRITE;
	uint32_t *total = writable ? &chain->in_len : &chain->out_len;
	struct iovec *iov = &chain->iov[chain->out_count + chain->in_count];

	if (!writable && chain->in_count > 0)
		return broken(queue, "a device-readable descriptor behind a device-writable one");
	if (desc->len == 0)
		return broken(queue, "a descriptor of length 0");
	if (__builtin_add_overflow(*total, desc->len, total))
		return broken(queue, "a chain of more than 4 GiB");
	iov->iov_base = guest_memory_range(queue->memory, desc->addr, desc->len);
	iov->iov_len = desc->len;
	if (!iov->iov_base)
		return broken(queue, "a descriptor outside of guest memory");
	if (writable)
		chain->in_count++;
	else
		chain->out_count++;
	return 0;
}

static int walk_chain(struct virtq *queue, struct virtq_chain *chain, unsigned int room)
{
	struct walk walk = { queue->desc, queue->size, chain->head, false };
	unsigned int limit = queue->size < room ? queue->size : room;
	struct vring_desc desc;
	int rc;

	do {
		if (walk.next >= walk.table_size)
			return broken(queue, "a descriptor index beyond its table");
		desc = copy_descriptor(&walk.table[walk.next]);
		chain->descriptors += !walk.indirect;
		walk.next = desc.next;
		if (desc.flags & VRING_DESC_F_INDIRECT) {
			rc = enter_indirect(queue, &walk, &desc);
			if (rc < 0)
				return rc;
			desc.flags = VRING_DESC_F_NEXT;
			continue;
		}
		/* Also what ends a loop. */
		if (chain->out_count + chain->in_count >= (int)limit)
			return broken(queue, "a chain longer than the queue");
		rc = add_buffer(queue, chain, &desc);
		if (rc < 0)
			return rc;
	} while (desc.flags & VRING_DESC_F_NEXT);
	return 1;
}

int virtq_pop(struct virtq *queue, struct virtq_chain *chain, struct iovec *iov, unsigned int room)
{
	uint16_t avail_idx, pending;
	int rc;

	if (queue->error)
		return -EPROTO;
	avail_idx = virtq_available(queue);
	pending = (uint16_t)(avail_idx - queue->next_avail);
	if (pending == 0)
		return 0;
	if (pending > queue->size)
		return broken(queue, "an available index that runs away");
	*chain = (struct virtq_chain){ .iov = iov };
	chain->head = queue->avail->ring[queue->next_avail & (queue->size - 1)];
	rc = walk_chain(queue, chain, room);
	if (rc > 0)
		queue->next_avail++;
	return rc;
}

void virtq_unpop(struct virtq *queue, unsigned int count)
{
	queue->next_avail = (uint16_t)(queue->next_avail - count);
}

bool virtq_has_more(const struct virtq *queue)
{
	return !queue->error && virtq_available(queue) != queue->next_avail;
}

void virtq_push(struct virtq *queue, uint16_t head, uint32_t written)
{
	volatile struct vring_used_elem *element =
		&queue->used->ring[queue->next_used & (queue->size - 1)];

	element->id = head;
	element->len = written;
	queue->next_used++;
}

bool virtq_publish(struct virtq *queue)
{
	uint16_t old = queue->published_used;

	if (queue->next_used == old)
		return false;
	__atomic_store_n(&queue->used->idx, queue->next_used, __ATOMIC_RELEASE);
	queue->published_used = queue->next_used;
	/* The index must be visible before the wish is read: the driver does it the other way. */
	full_barrier();
	if (queue->event_idx)
		return vring_need_event(*used_event(queue), queue->next_used, old);
	return !(queue->avail->flags & VRING_AVAIL_F_NO_INTERRUPT);
}

void virtq_disable_notify(struct virtq *queue)
{
	/* With EVENT_IDX the driver notifies once per avail_event, which then stays behind. */
	if (!queue->event_idx)
		queue->used->flags = VRING_USED_F_NO_NOTIFY;
}

static void ask_for_notify(struct virtq *queue, uint16_t available)
{
	if (queue->event_idx)
		*avail_event(queue) = available;
	else
		queue->used->flags = 0;
	/* The wish must be visible before the index is read again. */
	full_barrier();
}

bool virtq_enable_notify(struct virtq *queue)
{
	ask_for_notify(queue, queue->next_avail);
	return virtq_has_more(queue);
}

uint16_t virtq_available(const struct virtq *queue)
{
	return __atomic_load_n(&queue->avail->idx, __ATOMIC_ACQUIRE);
}

bool virtq_enable_notify_beyond(struct virtq *queue, uint16_t available)
{
	ask_for_notify(queue, available);
	return virtq_available(queue) != available;
}
