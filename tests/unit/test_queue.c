/* SPDX-License-Identifier: Apache-2.0 */
#include "base/array.h"
#include "virtio/core/queue.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/guest_memory.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"

#define SIZE 16
#define DESC 0x1000
#define AVAIL 0x2000
#define USED 0x3000
#define TABLE 0x4000 /* indirect */
#define DATA 0x100000
#define TRAP_FLAG 0x100 /* of the processor: one instruction, then SIGTRAP */
#define FEATURES                                                                                   \
	(UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX | UINT64_C(1) << VIRTIO_RING_F_INDIRECT_DESC)

static struct guest_memory memory;
static struct virtq queue;
static struct vring vring;
static struct virtq_chain chain;
static struct iovec iov[VIRTQ_SIZE_MAX];

static void start(uint16_t size, uint64_t features)
{
	queue.max_size = VIRTQ_SIZE_MAX;
	virtq_reset(&queue);
	queue.size = size;
	queue.desc_addr = DESC;
	queue.avail_addr = AVAIL;
	queue.used_addr = USED;
	ck_assert(virtq_valid(&queue, &memory));
	virtq_start(&queue, &memory, features);
	vring.num = size;
	vring.desc = guest_memory_range(&memory, DESC, sizeof(vring_desc_t) * size);
	vring.avail = guest_memory_range(&memory, AVAIL, 6 + 2u * size);
	vring.used = guest_memory_range(&memory, USED, 6 + 8u * size);
}

static void set_up(void)
{
	open_guest_memory(&memory, MIB(16));
	start(SIZE, FEATURES);
}

static void tear_down(void)
{
	guest_memory_close(&memory);
}

static void set_desc(unsigned int index, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
	vring.desc[index] = (vring_desc_t){ addr, len, flags, next };
}

static void make_available(uint16_t head)
{
	vring.avail->ring[vring.avail->idx & (vring.num - 1)] = head;
	vring.avail->idx++;
}

static int pop(void)
{
	return virtq_pop(&queue, &chain, iov, VIRTQ_SIZE_MAX);
}

static uint16_t avail_event(void)
{
	uint16_t value;

	memcpy(&value, &vring.used->ring[vring.num], sizeof(value));
	return value;
}

START_TEST(bad_set_up_is_refused)
{
	const struct {
		uint16_t size;
		uint64_t desc, avail, used;
	} bad[] = {
		{ 0, DESC, AVAIL, USED },	    { 3, DESC, AVAIL, USED },
		{ 512, DESC, AVAIL, USED },	    { SIZE, DESC + 8, AVAIL, USED },
		{ SIZE, DESC, AVAIL + 1, USED },    { SIZE, DESC, AVAIL, USED + 2 },
		{ SIZE, MIB(16), AVAIL, USED },	    { SIZE, MIB(16) - 16, AVAIL, USED },
		{ SIZE, DESC, MIB(16) - 36, USED }, { SIZE, DESC, AVAIL, MIB(16) - 132 },
		{ SIZE, -16ULL, AVAIL, USED },	    { SIZE, DESC, -2ULL, USED },
		{ SIZE, DESC, AVAIL, GIB(5) },
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		queue.size = bad[i].size;
		queue.desc_addr = bad[i].desc;
		queue.avail_addr = bad[i].avail;
		queue.used_addr = bad[i].used;
		ck_assert_msg(!virtq_valid(&queue, &memory), "row %zu", i);
	}
	queue = (struct virtq){ .size = SIZE,
				.max_size = 256,
				.desc_addr = DESC,
				.avail_addr = MIB(16) - 38,
				.used_addr = MIB(16) - 136 };
	ck_assert(virtq_valid(&queue, &memory));
}
END_TEST

START_TEST(chain_becomes_host_memory)
{
	set_desc(3, DATA, 100, VRING_DESC_F_NEXT, 7);
	set_desc(7, DATA + 4096, 1, VRING_DESC_F_NEXT, 1);
	set_desc(1, DATA + 8192, 4096, VRING_DESC_F_WRITE, 0);
	ck_assert_int_eq(pop(), 0);
	make_available(3);
	ck_assert(virtq_has_more(&queue));
	ck_assert_int_eq(pop(), 1);
	ck_assert_uint_eq(chain.head, 3);
	ck_assert_uint_eq(chain.out_count, 2);
	ck_assert_uint_eq(chain.in_count, 1);
	ck_assert_uint_eq(chain.out_len, 101);
	ck_assert_uint_eq(chain.in_len, 4096);
	ck_assert_ptr_eq(iov[0].iov_base, guest_memory_range(&memory, DATA, 1));
	ck_assert_ptr_eq(iov[2].iov_base, guest_memory_range(&memory, DATA + 8192, 1));
	ck_assert_uint_eq(iov[2].iov_len, 4096);
	ck_assert_int_eq(pop(), 0);
}
END_TEST

/* Each breaks one rule; the queue then stays broken. */
static const struct broken {
	const char *says;
	uint64_t features;
	vring_desc_t desc[4];
	vring_desc_t table[4];
	uint16_t head;
	uint16_t ahead; /* of the available index */
} broken[] = {
	{ "length 0", FEATURES, { { DATA, 0, 0, 0 } }, { { 0 } }, 0, 1 },
	{ "outside of guest memory", FEATURES, { { MIB(16), 1, 0, 0 } }, { { 0 } }, 0, 1 },
	{ "outside of guest memory", FEATURES, { { MIB(16) - 1, 2, 0, 0 } }, { { 0 } }, 0, 1 },
	{ "outside of guest memory", FEATURES, { { -1ULL, 2, 0, 0 } }, { { 0 } }, 0, 1 },
	{ "beyond its table", FEATURES, { { DATA, 1, VRING_DESC_F_NEXT, SIZE } }, { { 0 } }, 0, 1 },
	{ "beyond its table", FEATURES, { { 0 } }, { { 0 } }, SIZE, 1 },
	{ "beyond its table", FEATURES, { { 0 } }, { { 0 } }, 65535, 1 },
	{ "longer than the queue",
	  FEATURES,
	  { { DATA, 1, VRING_DESC_F_NEXT, 0 } },
	  { { 0 } },
	  0,
	  1 },
	{ "longer than the queue",
	  FEATURES,
	  { { DATA, 1, VRING_DESC_F_NEXT, 1 }, { DATA, 1, VRING_DESC_F_NEXT, 0 } },
	  { { 0 } },
	  0,
	  1 },
	{ "readable descriptor behind",
	  FEATURES,
	  { { DATA, 1, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 1 }, { DATA, 1, 0, 0 } },
	  { { 0 } },
	  0,
	  1 },
	{ "runs away", FEATURES, { { DATA, 1, 0, 0 } }, { { 0 } }, 0, SIZE + 1 },
	{ "runs away", FEATURES, { { DATA, 1, 0, 0 } }, { { 0 } }, 0, 65535 },
	{ "not negotiated",
	  0,
	  { { TABLE, 16, VRING_DESC_F_INDIRECT, 0 } },
	  { { DATA, 1, 0, 0 } },
	  0,
	  1 },
	{ "inside an indirect",
	  FEATURES,
	  { { TABLE, 16, VRING_DESC_F_INDIRECT, 0 } },
	  { { TABLE, 16, VRING_DESC_F_INDIRECT, 0 } },
	  0,
	  1 },
	{ "has a next",
	  FEATURES,
	  { { TABLE, 16, VRING_DESC_F_INDIRECT | VRING_DESC_F_NEXT, 1 }, { DATA, 1, 0, 0 } },
	  { { DATA, 1, 0, 0 } },
	  0,
	  1 },
	{ "multiple of 16",
	  FEATURES,
	  { { TABLE, 17, VRING_DESC_F_INDIRECT, 0 } },
	  { { 0 } },
	  0,
	  1 },
	{ "multiple of 16", FEATURES, { { TABLE, 0, VRING_DESC_F_INDIRECT, 0 } }, { { 0 } }, 0, 1 },
	{ "table outside",
	  FEATURES,
	  { { MIB(16) - 16, 32, VRING_DESC_F_INDIRECT, 0 } },
	  { { 0 } },
	  0,
	  1 },
	{ "table outside",
	  FEATURES,
	  { { DATA, UINT32_MAX - 15, VRING_DESC_F_INDIRECT, 0 } },
	  { { 0 } },
	  0,
	  1 },
	{ "beyond its table",
	  FEATURES,
	  { { TABLE, 16, VRING_DESC_F_INDIRECT, 0 } },
	  { { DATA, 1, VRING_DESC_F_NEXT, 1 } },
	  0,
	  1 },
	{ "longer than the queue",
	  FEATURES,
	  { { TABLE, 32, VRING_DESC_F_INDIRECT, 0 } },
	  { { DATA, 1, VRING_DESC_F_NEXT, 1 }, { DATA, 1, VRING_DESC_F_NEXT, 0 } },
	  0,
	  1 },
};

START_TEST(broken_rule_breaks_the_queue)
{
	const struct broken *row = &broken[_i];

	start(SIZE, row->features);
	memcpy(vring.desc, row->desc, sizeof(row->desc));
	ck_assert_int_eq(guest_memory_write(&memory, TABLE, row->table, sizeof(row->table)), 0);
	vring.avail->ring[0] = row->head;
	vring.avail->idx = row->ahead;
	ck_assert_int_eq(pop(), -EPROTO);
	ck_assert_ptr_nonnull(virtq_error(&queue));
	assert_contains(virtq_error(&queue), row->says);
	/* Mending the ring does not mend the queue; a reset does. */
	set_desc(0, DATA, 1, 0, 0);
	vring.avail->ring[0] = 0;
	vring.avail->idx = 1;
	ck_assert_int_eq(pop(), -EPROTO);
	ck_assert(!virtq_has_more(&queue));
	start(SIZE, FEATURES);
	ck_assert_int_eq(pop(), 1);
}
END_TEST

START_TEST(four_gibibytes_in_one_chain_are_refused)
{
	struct guest_memory large;

	open_guest_memory(&large, GIB(3));
	queue.memory = &large;
	set_desc(0, 0, 0xc0000000, VRING_DESC_F_NEXT, 1);
	set_desc(1, 0, 0xc0000000, 0, 0);
	make_available(0);
	ck_assert_int_eq(pop(), -EPROTO);
	assert_contains(virtq_error(&queue), "4 GiB");
	guest_memory_close(&large);
}
END_TEST

START_TEST(indirect_table_may_lie_anywhere_and_follow_others)
{
	vring_desc_t *table = guest_memory_range(&memory, TABLE + 1, 32);
	const vring_desc_t first = { DATA + 10, 20, VRING_DESC_F_NEXT, 1 };
	const vring_desc_t second = { DATA + 50, 60, VRING_DESC_F_WRITE, 9 };

	memcpy(table, &first, sizeof(first));
	memcpy((char *)table + 16, &second, sizeof(second));
	set_desc(0, DATA, 8, VRING_DESC_F_NEXT, 5);
	/* The write flag of such a descriptor is to be ignored (2.7.5.3.2). */
	set_desc(5, TABLE + 1, 32, VRING_DESC_F_INDIRECT | VRING_DESC_F_WRITE, 0);
	make_available(0);
	ck_assert_int_eq(pop(), 1);
	ck_assert_uint_eq(chain.out_count, 2);
	ck_assert_uint_eq(chain.in_count, 1);
	ck_assert_uint_eq(chain.out_len, 28);
	ck_assert_uint_eq(chain.in_len, 60);
}
END_TEST

START_TEST(chain_of_the_whole_queue_is_the_longest)
{
	for (unsigned int i = 0; i < SIZE; i++)
		set_desc(i, DATA + i, 1, i + 1 < SIZE ? VRING_DESC_F_NEXT : 0, (uint16_t)(i + 1));
	make_available(0);
	ck_assert_int_eq(pop(), 1);
	ck_assert_uint_eq(chain.out_count, SIZE);
}
END_TEST

START_TEST(event_index_says_when_to_interrupt)
{
	uint16_t *used_event = &vring.avail->ring[SIZE];

	*used_event = 2;
	for (unsigned int i = 0; i < 5; i++) {
		virtq_push(&queue, (uint16_t)i, i);
		ck_assert_int_eq(virtq_publish(&queue), i == 2);
		ck_assert_uint_eq(vring.used->idx, i + 1);
	}
	*used_event = 6;
	for (unsigned int i = 5; i < 9; i++)
		virtq_push(&queue, (uint16_t)i, i);
	ck_assert_uint_eq(vring.used->idx, 5);
	ck_assert(virtq_publish(&queue));
	ck_assert(!virtq_publish(&queue));
	ck_assert_uint_eq(vring.used->ring[7].id, 7);
	ck_assert_uint_eq(vring.used->ring[7].len, 7);
}
END_TEST

START_TEST(flags_say_when_to_interrupt_without_it)
{
	start(SIZE, 0);
	virtq_push(&queue, 0, 0);
	ck_assert(virtq_publish(&queue));
	vring.avail->flags = VRING_AVAIL_F_NO_INTERRUPT;
	virtq_push(&queue, 0, 0);
	ck_assert(!virtq_publish(&queue));
	virtq_disable_notify(&queue);
	ck_assert_uint_eq(vring.used->flags, VRING_USED_F_NO_NOTIFY);
	ck_assert(!virtq_enable_notify(&queue));
	ck_assert_uint_eq(vring.used->flags, 0);
}
END_TEST

START_TEST(notifications_are_wanted_from_the_next_chain_on)
{
	set_desc(0, DATA, 1, 0, 0);
	make_available(0);
	ck_assert(virtq_enable_notify(&queue));
	ck_assert_uint_eq(avail_event(), 0);
	ck_assert_int_eq(pop(), 1);
	ck_assert(!virtq_enable_notify(&queue));
	ck_assert_uint_eq(avail_event(), 1);
}
END_TEST

/* The arithmetic of both indexes over more than their 2^16, against counters that do not wrap. */
START_TEST(indexes_wrap)
{
	uint64_t popped = 0, published = 0;
	uint16_t *used_event = &vring.avail->ring[SIZE];

	for (unsigned int i = 0; i < SIZE; i++)
		set_desc(i, DATA + i, 1, 0, 0);
	srand(1);
	while (popped < 200000) {
		unsigned int count = (unsigned int)rand() % SIZE + 1;
		uint64_t event = published + (unsigned int)rand() % (SIZE + 4);

		*used_event = (uint16_t)event;
		for (unsigned int i = 0; i < count; i++)
			make_available((uint16_t)((popped + i) % SIZE));
		for (unsigned int i = 0; i < count; i++) {
			ck_assert_int_eq(pop(), 1);
			ck_assert_uint_eq(chain.head, popped % SIZE);
			virtq_push(&queue, chain.head, (uint32_t)popped);
			popped++;
		}
		ck_assert_int_eq(pop(), 0);
		ck_assert_int_eq(virtq_publish(&queue), event < popped);
		published = popped;
		ck_assert_uint_eq(vring.used->idx, (uint16_t)published);
		ck_assert_uint_eq(vring.used->ring[(published - 1) % SIZE].len,
				  (uint32_t)(published - 1));
	}
}
END_TEST

struct model {
	unsigned int out_count, in_count;
	uint64_t addr[SIZE];
	uint32_t len[SIZE];
};

/* Builds a random legal chain from free descriptors, direct or with an indirect tail. */
static void build(struct model *model, uint16_t *order)
{
	unsigned int count = (unsigned int)rand() % SIZE + 1;
	unsigned int out = (unsigned int)rand() % (count + 1);
	unsigned int direct = rand() % 2 ? count : (unsigned int)rand() % count;
	uint64_t at = TABLE;

	*model = (struct model){ .out_count = out, .in_count = count - out };
	for (unsigned int i = 0; i < count; i++) {
		uint16_t flags = (uint16_t)((i >= out ? VRING_DESC_F_WRITE : 0) |
					    (i + 1 < count ? VRING_DESC_F_NEXT : 0));
		vring_desc_t desc;

		model->len[i] = (uint32_t)rand() % 8192 + 1;
		model->addr[i] = DATA + (uint64_t)rand() % (MIB(15) - 8193);
		desc = (vring_desc_t){ model->addr[i], model->len[i], flags, 0 };
		if (i < direct) {
			desc.next = order[i + 1];
			vring.desc[order[i]] = desc;
		} else {
			desc.next = (uint16_t)(i - direct + 1);
			guest_memory_write(&memory, at, &desc, sizeof(desc));
			at += sizeof(desc);
		}
	}
	if (direct < count)
		set_desc(order[direct], TABLE, (uint32_t)(at - TABLE), VRING_DESC_F_INDIRECT, 0);
}

START_TEST(random_chains_are_what_a_model_says)
{
	uint16_t order[SIZE + 1];
	struct model model;

	srand((unsigned int)_i);
	for (uint16_t i = 0; i <= SIZE; i++)
		order[i] = i % SIZE;
	for (int round = 0; round < 20000; round++) {
		for (unsigned int i = SIZE - 1; i > 0; i--) {
			unsigned int j = (unsigned int)rand() % (i + 1);
			uint16_t other = order[i];

			order[i] = order[j];
			order[j] = other;
		}
		build(&model, order);
		make_available(order[0]);
		ck_assert_int_eq(pop(), 1);
		ck_assert_uint_eq(chain.head, order[0]);
		ck_assert_uint_eq(chain.out_count, model.out_count);
		ck_assert_uint_eq(chain.in_count, model.in_count);
		for (unsigned int i = 0; i < model.out_count + model.in_count; i++) {
			ck_assert_uint_eq(iov[i].iov_len, model.len[i]);
			ck_assert_ptr_eq(iov[i].iov_base,
					 guest_memory_range(&memory, model.addr[i], 1));
		}
	}
}
END_TEST

START_TEST(indirect_chain_is_no_longer_than_the_queue)
{
	vring_desc_t table[SIZE + 1];

	for (unsigned int i = 0; i <= SIZE; i++)
		table[i] = (vring_desc_t){ DATA, 1, i < SIZE ? VRING_DESC_F_NEXT : 0,
					   (uint16_t)(i + 1) };
	ck_assert_int_eq(guest_memory_write(&memory, TABLE, table, sizeof(table)), 0);
	set_desc(0, TABLE, sizeof(table), VRING_DESC_F_INDIRECT, 0);
	make_available(0);
	ck_assert_int_eq(pop(), -EPROTO);
	assert_contains(virtq_error(&queue), "longer than the queue");
}
END_TEST

/*
 * A guest that changes a descriptor between two looks at it: its page is closed, so that each
 * instruction that reads it is seen, and after the one with this number the length is another.
 */
static struct watch {
	void *page;
	unsigned int reads, change_after;
} watch;

static void on_read(int number, siginfo_t *info, void *context)
{
	ucontext_t *state = context;

	(void)number;
	if ((uintptr_t)info->si_addr - (uintptr_t)watch.page >= 4096)
		_exit(EXIT_FAILURE);
	mprotect(watch.page, 4096, PROT_READ | PROT_WRITE);
	state->uc_mcontext.gregs[REG_EFL] |= TRAP_FLAG;
}

static void after_read(int number, siginfo_t *info, void *context)
{
	ucontext_t *state = context;

	(void)number;
	(void)info;
	if (++watch.reads == watch.change_after)
		vring.desc[0].len = UINT32_MAX;
	state->uc_mcontext.gregs[REG_EFL] &= ~(greg_t)TRAP_FLAG;
	mprotect(watch.page, 4096, PROT_NONE);
}

START_TEST(descriptor_that_changes_is_looked_at_once)
{
	const struct sigaction on_fault = { .sa_sigaction = on_read, .sa_flags = SA_SIGINFO };
	const struct sigaction on_step = { .sa_sigaction = after_read, .sa_flags = SA_SIGINFO };
	int rc;

	watch = (struct watch){ vring.desc, 0, (unsigned int)_i };
	set_desc(0, MIB(16) - 4096, 4096, 0, 0);
	make_available(0);
	sigaction(SIGSEGV, &on_fault, NULL);
	sigaction(SIGTRAP, &on_step, NULL);
	mprotect(watch.page, 4096, PROT_NONE);
	rc = pop();
	mprotect(watch.page, 4096, PROT_READ | PROT_WRITE);
	ck_assert_uint_ge(watch.reads, 1);
	/* Before it was looked at, or too late: what was checked is what is used. */
	if (rc == 1)
		ck_assert_uint_eq(iov[0].iov_len, 4096);
	else
		ck_assert_int_eq(rc, -EPROTO);
	ck_assert_int_eq(rc, watch.change_after >= watch.reads ? 1 : rc);
}
END_TEST

START_TEST(chains_that_are_given_back_come_again)
{
	for (uint16_t i = 0; i < 3; i++) {
		set_desc(i, DATA + i * 0x1000u, 16, 0, 0);
		make_available(i);
	}
	for (unsigned int i = 0; i < 3; i++)
		ck_assert_int_eq(pop(), 1);
	virtq_unpop(&queue, 2);
	/* As the driver has it by then. */
	vring.desc[1].len = 32;
	for (unsigned int i = 1; i < 3; i++) {
		ck_assert_int_eq(pop(), 1);
		ck_assert_uint_eq(chain.head, i);
		ck_assert_uint_eq(chain.out_len, i == 1 ? 32 : 16);
	}
	ck_assert_int_eq(pop(), 0);
}
END_TEST

Suite *queue_suite(void)
{
	Suite *suite =
		SUITE("queue", set_up, tear_down, chains_that_are_given_back_come_again,
		      bad_set_up_is_refused, chain_becomes_host_memory,
		      four_gibibytes_in_one_chain_are_refused,
		      indirect_table_may_lie_anywhere_and_follow_others,
		      chain_of_the_whole_queue_is_the_longest, event_index_says_when_to_interrupt,
		      flags_say_when_to_interrupt_without_it,
		      notifications_are_wanted_from_the_next_chain_on, indexes_wrap,
		      indirect_chain_is_no_longer_than_the_queue);

	add_table_test(suite, set_up, tear_down, broken_rule_breaks_the_queue, ARRAY_SIZE(broken));
	add_table_test(suite, set_up, tear_down, descriptor_that_changes_is_looked_at_once, 8);
	add_table_test(suite, set_up, tear_down, random_chains_are_what_a_model_says, 3);
	return suite;
}
