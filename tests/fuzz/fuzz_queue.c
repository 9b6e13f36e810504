/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The input is a sequence of operations on a split virtqueue: what a hostile driver writes to its
 * memory, and what a device asks of the queue. A copy of the memory says what must be in the
 * original behind each operation, and a walk of our own over the copy what each chain must be.
 */
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdbool.h>
#include <string.h>

#include "base/err.h"
#include "base/guest_memory.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/input.h"
#include "virtio/core/queue.h"

/* Two regions with a gap between them. */
#define REGION_SIZE UINT64_C(0x4000)
#define GAP_END UINT64_C(0x8000)
#define ADDRESSES (GAP_END + REGION_SIZE)
#define OPERATIONS_MAX 1024
#define OUTSTANDING_MAX 1024

enum operation {
	POP,
	PUSH,
	PUBLISH,
	ENABLE_NOTIFY,
	DISABLE_NOTIFY,
	DESCRIBE,
	MAKE_AVAILABLE,
	SET_AVAILABLE,
	SET_USED_EVENT,
	SET_FLAGS,
	SCRIBBLE,
	RESTART,
	OPERATIONS,
};

/* What a chain must be. */
struct expected {
	bool broken;
	unsigned int count;
	unsigned int own; /* descriptors of the queue's table */
	struct vring_desc buffers[VIRTQ_SIZE_MAX];
};

static struct guest_memory memory;
static uint8_t copy[ADDRESSES]; /* by guest address; nothing in the gap */
static struct virtq queue = { .max_size = VIRTQ_SIZE_MAX };
static bool started;
static bool failed;
static unsigned int pops; /* since something was written */
static uint16_t pushes;	  /* since the last publish */
static uint16_t outstanding[OUTSTANDING_MAX];
static unsigned int outstanding_count;

static bool in_memory(uint64_t addr, uint64_t len)
{
	uint64_t end;

	if (len == 0 || __builtin_add_overflow(addr, len, &end))
		return false;
	return end <= REGION_SIZE || (addr >= GAP_END && end <= ADDRESSES);
}

static uint8_t *host(uint64_t addr)
{
	return addr < REGION_SIZE ? memory.regions[0].host + addr
				  : memory.regions[1].host + (addr - GAP_END);
}

static void check_memory(void)
{
	REQUIRE(memcmp(copy, memory.regions[0].host, REGION_SIZE) == 0);
	REQUIRE(memcmp(copy + GAP_END, memory.regions[1].host, REGION_SIZE) == 0);
}

static uint16_t read_u16(uint64_t addr)
{
	uint16_t value;

	memcpy(&value, copy + addr, sizeof(value));
	return value;
}

/* What the device must have written. */
static void expect_write(uint64_t addr, const void *data, size_t size)
{
	memcpy(copy + addr, data, size);
	pops = 0;
}

static void expect_u16(uint64_t addr, uint16_t value)
{
	expect_write(addr, &value, sizeof(value));
}

static void driver_write(uint64_t addr, const void *data, size_t size)
{
	if (!in_memory(addr, size))
		return;
	expect_write(addr, data, size);
	memcpy(host(addr), data, size);
}

static void driver_write_u16(uint64_t addr, uint16_t value)
{
	driver_write(addr, &value, sizeof(value));
}

static uint64_t avail_ring(unsigned int index)
{
	return queue.avail_addr + offsetof(struct vring_avail, ring) + 2ull * index;
}

static uint64_t used_ring(unsigned int index)
{
	return queue.used_addr + offsetof(struct vring_used, ring) +
	       sizeof(struct vring_used_elem) * index;
}

static uint16_t avail_idx(void)
{
	return read_u16(queue.avail_addr + offsetof(struct vring_avail, idx));
}

static bool has_more(void)
{
	return !failed && avail_idx() != queue.next_avail;
}

static bool good_table(const struct vring_desc *desc)
{
	return queue.indirect && !(desc->flags & VRING_DESC_F_NEXT) && desc->len % 16 == 0 &&
	       in_memory(desc->addr, desc->len);
}

static void walk(struct expected *expected, uint16_t index)
{
	uint64_t table = queue.desc_addr, size = queue.size;
	bool writable = false, indirect = false;
	struct vring_desc desc;

	expected->broken = true;
	expected->count = expected->own = 0;
	do {
		if (index >= size)
			return;
		memcpy(&desc, copy + table + 16ull * index, sizeof(desc));
		expected->own += !indirect;
		if (desc.flags & VRING_DESC_F_INDIRECT) {
			if (indirect || !good_table(&desc))
				return;
			indirect = true;
			table = desc.addr;
			size = desc.len / 16;
			index = 0;
			desc.flags = VRING_DESC_F_NEXT;
			continue;
		}
		if (expected->count == queue.size || !in_memory(desc.addr, desc.len) ||
		    (writable && !(desc.flags & VRING_DESC_F_WRITE)))
			return;
		writable = desc.flags & VRING_DESC_F_WRITE;
		expected->buffers[expected->count++] = desc;
		index = desc.next;
	} while (desc.flags & VRING_DESC_F_NEXT);
	expected->broken = false;
}

static void check_chain(const struct virtq_chain *chain, const struct expected *expected)
{
	uint64_t out_len = 0, in_len = 0;

	REQUIRE(chain->head < queue.size);
	REQUIRE(chain->descriptors == expected->own && expected->own <= queue.size);
	REQUIRE((unsigned int)chain->out_count + chain->in_count == expected->count);
	REQUIRE(expected->count > 0 && expected->count <= VIRTQ_SIZE_MAX);
	for (unsigned int i = 0; i < expected->count; i++) {
		const struct vring_desc *desc = &expected->buffers[i];

		REQUIRE(chain->iov[i].iov_base == host(desc->addr));
		REQUIRE(chain->iov[i].iov_len == desc->len);
		REQUIRE(!(desc->flags & VRING_DESC_F_WRITE) == (i < chain->out_count));
		*(i < chain->out_count ? &out_len : &in_len) += desc->len;
	}
	REQUIRE(chain->out_len == out_len && chain->in_len == in_len);
}

static void pop(void)
{
	static struct iovec iov[VIRTQ_SIZE_MAX];
	static struct expected expected;
	uint16_t next = queue.next_avail;
	uint16_t pending = (uint16_t)(avail_idx() - next);
	struct virtq_chain chain;
	int rc = virtq_pop(&queue, &chain, iov, VIRTQ_SIZE_MAX);

	if (!failed && pending == 0) {
		REQUIRE(rc == 0 && queue.next_avail == next);
		return;
	}
	if (!failed && pending <= queue.size) {
		uint16_t head = read_u16(avail_ring(next % queue.size));

		walk(&expected, head);
		if (!expected.broken) {
			REQUIRE(rc == 1 && chain.head == head);
			REQUIRE(queue.next_avail == (uint16_t)(next + 1));
			check_chain(&chain, &expected);
			REQUIRE(++pops <= queue.size);
			if (outstanding_count < OUTSTANDING_MAX)
				outstanding[outstanding_count++] = chain.head;
			return;
		}
	}
	REQUIRE(rc == -EPROTO && virtq_error(&queue) && queue.next_avail == next);
	failed = true;
}

static void push(struct input *input)
{
	uint8_t choice = take(input);
	struct vring_used_elem element = { .len = take_u16(input) };

	if (outstanding_count == 0)
		return;
	choice = (uint8_t)(choice % outstanding_count);
	element.id = outstanding[choice];
	outstanding[choice] = outstanding[--outstanding_count];
	expect_write(used_ring(queue.next_used % queue.size), &element, sizeof(element));
	virtq_push(&queue, (uint16_t)element.id, element.len);
	pushes++;
}

static void publish(void)
{
	uint16_t old = queue.published_used;
	bool wanted = virtq_publish(&queue);

	REQUIRE(queue.published_used == (uint16_t)(old + pushes));
	REQUIRE(queue.next_used == queue.published_used);
	if (pushes == 0) {
		REQUIRE(!wanted);
		return;
	}
	expect_u16(queue.used_addr + offsetof(struct vring_used, idx), queue.next_used);
	if (queue.event_idx)
		/* 2.7.7.2: the wish is for the element at used_event, and this has shown it. */
		REQUIRE(wanted == ((uint16_t)(read_u16(avail_ring(queue.size)) - old) < pushes));
	else
		REQUIRE(wanted == !(read_u16(queue.avail_addr) & VRING_AVAIL_F_NO_INTERRUPT));
	pushes = 0;
}

static void enable_notify(void)
{
	bool more = virtq_enable_notify(&queue);

	if (queue.event_idx)
		expect_u16(used_ring(queue.size), queue.next_avail);
	else
		expect_u16(queue.used_addr, 0);
	REQUIRE(more == has_more());
}

static void disable_notify(void)
{
	virtq_disable_notify(&queue);
	if (!queue.event_idx)
		expect_u16(queue.used_addr, VRING_USED_F_NO_NOTIFY);
}

/* Into the queue's own table, or into one that is meant to be indirect. */
static void describe(struct input *input)
{
	uint8_t where = take(input), index = take(input), what = take(input);
	struct vring_desc desc = {
		.addr = take_u16(input),
		.len = take_u16(input),
		.flags = what & 7,
		.next = take(input),
	};
	uint64_t table = where & 0x80 ? (where & 0x7full) << 8 : queue.desc_addr;

	if (what & 0x08)
		desc.flags |= (uint16_t)(take(input) << 3);
	if (what & 0x10)
		desc.addr |= (uint64_t)take_u16(input) << 48;
	if (what & 0x20)
		desc.len |= (uint32_t)take_u16(input) << 16;
	if (what & 0x40)
		desc.next |= (uint16_t)(take(input) << 8);
	driver_write(table + 16ull * index, &desc, sizeof(desc));
}

static void make_available(struct input *input)
{
	uint16_t idx = avail_idx();

	driver_write_u16(avail_ring(idx % queue.size), take(input));
	driver_write_u16(queue.avail_addr + offsetof(struct vring_avail, idx), (uint16_t)(idx + 1));
}

static void scribble(struct input *input)
{
	uint64_t addr = take_u16(input);
	size_t size = take(input);

	size = size < input->size ? size : input->size;
	driver_write(addr, input->data, size);
	input->data += size;
	input->size -= size;
}

static bool power_of_two(unsigned int value)
{
	return __builtin_popcount(value) == 1;
}

static void check_valid(bool valid)
{
	uint64_t size = queue.size;

	REQUIRE(valid == (power_of_two(queue.size) && size <= queue.max_size &&
			  queue.desc_addr % 16 == 0 && queue.avail_addr % 2 == 0 &&
			  queue.used_addr % 4 == 0 && in_memory(queue.desc_addr, 16 * size) &&
			  in_memory(queue.avail_addr, 6 + 2 * size) &&
			  in_memory(queue.used_addr, 6 + 8 * size)));
}

/* At addresses of the driver's choice or, so that most inputs have a queue, at good ones. */
static void restart(struct input *input)
{
	uint8_t choice = take(input);

	virtq_reset(&queue);
	REQUIRE(queue.max_size == VIRTQ_SIZE_MAX && queue.size == VIRTQ_SIZE_MAX && !queue.ready);
	failed = false;
	pops = outstanding_count = 0;
	pushes = 0;
	queue.desc_addr = 0;
	queue.avail_addr = 0x1000;
	queue.used_addr = 0x2000;
	queue.size = (uint16_t)(1u << (choice & 15));
	if (choice & 0x10)
		queue.size = take_u16(input);
	if (choice & 0x20) {
		queue.desc_addr = take_u16(input);
		queue.avail_addr = take_u16(input);
		queue.used_addr = take_u16(input);
	}
	started = virtq_valid(&queue, &memory);
	check_valid(started);
	if (started)
		virtq_start(&queue, &memory,
			    (uint64_t)(choice >> 6) << VIRTIO_RING_F_INDIRECT_DESC);
}

static void operate(struct input *input)
{
	enum operation operation = take(input) % OPERATIONS;

	/* Registers that are not a good queue's never reach the device. */
	if (!started && operation != SCRIBBLE) {
		restart(input);
		return;
	}
	switch (operation) {
	case POP:
		pop();
		break;
	case PUSH:
		push(input);
		break;
	case PUBLISH:
		publish();
		break;
	case ENABLE_NOTIFY:
		enable_notify();
		break;
	case DISABLE_NOTIFY:
		disable_notify();
		break;
	case DESCRIBE:
		describe(input);
		break;
	case MAKE_AVAILABLE:
		make_available(input);
		break;
	case SET_AVAILABLE:
		driver_write_u16(queue.avail_addr + offsetof(struct vring_avail, idx),
				 take_u16(input));
		break;
	case SET_USED_EVENT:
		driver_write_u16(avail_ring(queue.size), take_u16(input));
		break;
	case SET_FLAGS:
		driver_write_u16(queue.avail_addr, take(input));
		break;
	case SCRIBBLE:
		scribble(input);
		break;
	default:
		restart(input);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = { data, size };
	struct err err;

	if (!memory.mapping)
		REQUIRE(guest_memory_open(&memory, 2 * REGION_SIZE, REGION_SIZE, GAP_END,
					  HUGE_PAGES_NONE, &err) == 0);
	memset(copy, 0, sizeof(copy));
	memset(memory.regions[0].host, 0, REGION_SIZE);
	memset(memory.regions[1].host, 0, REGION_SIZE);
	restart(&input);
	for (unsigned int i = 0; i < OPERATIONS_MAX && input.size > 0; i++) {
		operate(&input);
		check_memory();
		if (started)
			REQUIRE(virtq_has_more(&queue) == has_more());
		REQUIRE(!virtq_error(&queue) == !failed);
	}
	return 0;
}
