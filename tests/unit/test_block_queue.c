/* SPDX-License-Identifier: Apache-2.0 */
/* The queue of a block device: limits, turns, resets. */
#include "base/array.h"
#include "virtio/block/block.h"

#include <fcntl.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <pthread.h>
#include <unistd.h>

#include "tests/unit/block_fixture.h"
#include "tests/unit/suites.h"

static void set_up(void)
{
	block_set_up(BLOCK_ENGINE_ASYNC);
}

START_TEST(throttled_requests_are_done_in_time)
{
	uint32_t head, written;

	block_config.limiter.ops = (struct token_bucket_config){ .size = 1, .refill_time = 20 };
	open_block();
	put_header(HEADER, VIRTIO_BLK_T_FLUSH, 0);
	for (unsigned int i = 0; i < 5; i++)
		add_request(HEADER, 0, 0, false, STATUS);
	driver_notify(&driver, 0);
	driver_run(&driver);
	ck_assert_ptr_nonnull(block->held);
	for (unsigned int i = 0; i < 5; i++)
		driver_wait_used(&driver, 0, &head, &written);
	ck_assert_uint_ge(block->metrics.rate_limiter_throttled_events, 3);
	ck_assert_uint_ge(block->metrics.rate_limiter_event_count, 3);
	ck_assert_uint_eq(block->metrics.flush_count, 5);
	ck_assert_ptr_null(block->held);
}
END_TEST

START_TEST(bytes_are_limited_but_not_a_flush)
{
	uint32_t head, written;

	/* In effect: nothing beyond the first 4 KiB, ever. */
	block_config.limiter.bandwidth =
		(struct token_bucket_config){ .size = 4096, .refill_time = INT64_C(1) << 40 };
	open_block();
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, 4096, NULL), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_FLUSH, 0, 0, NULL), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_GET_ID, 0, 20, NULL), VIRTIO_BLK_S_OK);
	put_header(HEADER, VIRTIO_BLK_T_OUT, 0);
	add_request(HEADER, DATA, SECTOR, false, STATUS);
	driver_notify(&driver, 0);
	driver_run(&driver);
	ck_assert(!driver_used(&driver, 0, &head, &written));
	ck_assert_uint_eq(block->metrics.rate_limiter_throttled_events, 1);
	/* A new limit counts at once. */
	block_set_limiter(block, &(struct rate_limiter_config){ 0 });
	driver_wait_used(&driver, 0, &head, &written);
	ck_assert_uint_eq(*guest(STATUS, 1), VIRTIO_BLK_S_OK);
}
END_TEST

START_TEST(refused_request_costs_no_tokens)
{
	block_config.limiter.bandwidth =
		(struct token_bucket_config){ .size = 4096, .refill_time = INT64_C(1) << 40 };
	open_block();
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, IMAGE_SECTORS, 4096, NULL), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, 4096, NULL), VIRTIO_BLK_S_OK);
}
END_TEST

/* The first of two writes is done, the second one waits for a limit that is far away. */
static void throttle_a_write(void)
{
	uint32_t head, written;

	block_config.limiter.ops =
		(struct token_bucket_config){ .size = 1, .refill_time = INT64_C(1) << 40 };
	open_block();
	put_header(HEADER, VIRTIO_BLK_T_OUT, 0);
	add_request(HEADER, DATA, SECTOR, false, STATUS);
	add_request(HEADER, DATA, SECTOR, false, STATUS);
	driver_notify(&driver, 0);
	driver_wait_used(&driver, 0, &head, &written);
	ck_assert_ptr_nonnull(block->held);
}

START_TEST(reset_forgets_a_throttled_request)
{
	uint32_t head, written;

	throttle_a_write();
	driver_start(&driver, ALL_FEATURES, 0);
	ck_assert_ptr_null(block->held);
	ck_assert_uint_eq(block->free_count, BLOCK_ENGINE_DEPTH);
	block_set_limiter(block, &(struct rate_limiter_config){ 0 });
	driver_run(&driver);
	ck_assert(!driver_used(&driver, 0, &head, &written));
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, SECTOR, NULL), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(block->metrics.write_count, 1);
}
END_TEST

static void add_same_again(unsigned int times)
{
	struct vring *vring = &driver.queues[0].vring;

	for (unsigned int i = 0; i < times; i++) {
		vring->avail->ring[vring->avail->idx % vring->num] = 0;
		vring->avail->idx++;
	}
}

START_TEST(exhausted_slots_hold_the_queue_up)
{
	uint32_t head, written;

	open_block();
	use_held_engine();
	driver_start(&driver, ALL_FEATURES, 0);
	put_header(HEADER, VIRTIO_BLK_T_IN, 0);
	add_request(HEADER, DATA, SECTOR, true, STATUS);
	add_same_again(199);
	driver_notify(&driver, 0);
	driver_run(&driver);
	ck_assert_uint_eq(held.count, 200);
	add_same_again(200);
	driver_notify(&driver, 0);
	driver_run(&driver);
	ck_assert_uint_eq(held.count, BLOCK_ENGINE_DEPTH);
	ck_assert_uint_ge(block->metrics.io_engine_throttled_events, 1);
	ck_assert(block_device(block)->active);
	/* As completions come the rest is taken. */
	for (unsigned int i = 0; i < 100; i++)
		held_done(0);
	block_request_turn(block);
	driver_run(&driver);
	ck_assert_uint_eq(held.count, BLOCK_ENGINE_DEPTH);
	while (held.count > 0)
		held_done(0);
	block_request_turn(block);
	for (unsigned int i = 0; i < 400; i++) {
		if (i == 356) {
			driver_run(&driver);
			while (held.count > 0)
				held_done(0);
			block_request_turn(block);
		}
		driver_wait_used(&driver, 0, &head, &written);
	}
	ck_assert_uint_eq(block->free_count, BLOCK_ENGINE_DEPTH);
}
END_TEST

START_TEST(reset_drops_what_is_in_flight)
{
	uint32_t head, written;

	open_block();
	use_held_engine();
	put_header(HEADER, VIRTIO_BLK_T_IN, 0);
	*guest(STATUS, 1) = NO_STATUS;
	for (unsigned int i = 0; i < 50; i++)
		add_request(HEADER, DATA, SECTOR, true, STATUS);
	driver_notify(&driver, 0);
	driver_run(&driver);
	ck_assert_uint_eq(held.count, 50);
	driver_start(&driver, ALL_FEATURES, 0);
	ck_assert_uint_eq(held.count, 0);
	ck_assert_uint_eq(block->free_count, BLOCK_ENGINE_DEPTH);
	driver_run(&driver);
	ck_assert(!driver_used(&driver, 0, &head, &written));
	ck_assert_uint_eq(*guest(STATUS, 1), NO_STATUS);
	use_real_engine();
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, SECTOR, NULL), VIRTIO_BLK_S_OK);
}
END_TEST

/* On a disk that does not answer: the driver is held, everybody else goes on. */
START_TEST(reset_waits_for_the_disk_without_the_lock)
{
	uint32_t head, written;

	open_block();
	use_held_engine();
	put_header(HEADER, VIRTIO_BLK_T_IN, 0);
	*guest(STATUS, 1) = NO_STATUS;
	for (unsigned int i = 0; i < 3; i++)
		add_request(HEADER, DATA, SECTOR, true, STATUS);
	driver_notify(&driver, 0);
	driver_run(&driver);
	held.stuck = true;
	driver_write(&driver, VIRTIO_MMIO_STATUS, 0);
	ck_assert(block_device(block)->resetting);
	ck_assert_int_eq(pthread_mutex_trylock(&block_device(block)->lock), 0);
	pthread_mutex_unlock(&block_device(block)->lock);
	block_request_turn(block);
	driver_run(&driver);
	ck_assert(block_device(block)->resetting);
	held.lets_go = true;
	block_request_turn(block);
	driver_run(&driver);
	ck_assert(!block_device(block)->resetting);
	ck_assert_uint_eq(driver_read(&driver, VIRTIO_MMIO_STATUS), 0);
	ck_assert_uint_eq(*guest(STATUS, 1), NO_STATUS);
	ck_assert_uint_eq(block->free_count, BLOCK_ENGINE_DEPTH);
	use_real_engine();
	driver_start(&driver, ALL_FEATURES, 0);
	ck_assert(!driver_used(&driver, 0, &head, &written));
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, SECTOR, NULL), VIRTIO_BLK_S_OK);
}
END_TEST

/* Chains may name the same memory again and again, and so be of any size. */
static void add_large(unsigned int pieces)
{
	struct driver_buffer buffers[200];

	buffers[0] = (struct driver_buffer){ HEADER, 16, false };
	for (unsigned int i = 1; i <= pieces; i++)
		buffers[i] = (struct driver_buffer){ DATA, 1 << 20, false };
	buffers[pieces + 1] = (struct driver_buffer){ STATUS, 1, true };
	driver_add(&driver, 0, buffers, pieces + 2);
}

START_TEST(bytes_in_flight_are_bounded)
{
	uint32_t head, written;

	ck_assert_int_eq(truncate(IMAGE, 100 << 20), 0);
	block_config.writeback = true;
	open_block();
	use_held_engine();
	driver_start(&driver, ALL_FEATURES, 0);
	put_header(HEADER, VIRTIO_BLK_T_OUT, 0);
	/* One of 40 MiB goes alone; then as many of 12 as make no more than 32. */
	add_large(40);
	for (unsigned int i = 0; i < 5; i++)
		add_large(12);
	driver_notify(&driver, 0);
	driver_run(&driver);
	ck_assert_uint_eq(held.count, 1);
	ck_assert_uint_eq(block->cost_in_flight, 40 << 20);
	for (unsigned int expected = 2; expected > 0; expected = held.count) {
		while (held.count > 0)
			held_done(0);
		block_request_turn(block);
		driver_run(&driver);
		ck_assert_uint_le(block->cost_in_flight, BLOCK_IN_FLIGHT_MAX);
		if (held.count == 0)
			break;
	}
	for (unsigned int i = 0; i < 6; i++)
		driver_wait_used(&driver, 0, &head, &written);
	ck_assert_uint_eq(block->cost_in_flight, 0);
	ck_assert_uint_eq(block->metrics.rate_limiter_throttled_events, 0);
	/* Steps without data have their share. */
	put_header(HEADER, VIRTIO_BLK_T_FLUSH, 0);
	for (unsigned int i = 0; i < 20; i++)
		add_request(HEADER, DATA, 0, false, STATUS);
	driver_notify(&driver, 0);
	driver_run(&driver);
	ck_assert_uint_eq(held.count, BLOCK_IN_FLIGHT_MAX / BLOCK_STEP_MAX);
}
END_TEST

static const uint32_t range_types[] = { VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES };

START_TEST(ranges_are_limited_like_data)
{
	uint32_t head, written;

	block_config.limiter.bandwidth =
		(struct token_bucket_config){ .size = 64 * SECTOR,
					      .refill_time = INT64_C(1) << 40 };
	open_block();
	if (!block->file.discard)
		return;
	put_range(0, 0, 64, 0);
	ck_assert_uint_eq(request_ranges(range_types[_i], 1), VIRTIO_BLK_S_OK);
	put_header(HEADER, range_types[_i], 0);
	add_request(HEADER, RANGES, 16, false, STATUS);
	driver_notify(&driver, 0);
	driver_run(&driver);
	ck_assert_ptr_nonnull(block->held);
	ck_assert(!driver_used(&driver, 0, &head, &written));
	ck_assert_uint_eq(block->metrics.rate_limiter_throttled_events, 1);
}
END_TEST

START_TEST(broken_ring_needs_a_reset)
{
	open_block();
	driver.queues[0].vring.avail->idx = 5000;
	driver_notify(&driver, 0);
	driver_run(&driver);
	ck_assert(driver_read(&driver, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
	driver_run(&driver);
	driver_start(&driver, ALL_FEATURES, 0);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, SECTOR, NULL), VIRTIO_BLK_S_OK);
}
END_TEST

static void count_turn(evutil_socket_t fd, short events, void *opaque)
{
	uint64_t count;

	(void)events;
	ck_assert_int_eq(read(fd, &count, sizeof(count)), sizeof(count));
	++*(unsigned int *)opaque;
}

/* A file descriptor of another device, which is ready while there are gigabytes to read. */
START_TEST(others_have_their_turn)
{
	const uint32_t len = 8 << 20;
	const unsigned int count = 64;
	unsigned int others = 0, turns = 0;
	uint32_t head, written;
	const uint64_t one = 1;
	struct event *other;

	block_config.engine = _i ? BLOCK_ENGINE_SYNC : BLOCK_ENGINE_ASYNC;
	ck_assert_int_eq(truncate(IMAGE, len), 0);
	open_block();
	other = event_new(driver.base, block_device(block)->irq_fd, EV_READ | EV_PERSIST,
			  count_turn, &others);
	event_add(other, NULL);
	put_header(HEADER, VIRTIO_BLK_T_IN, 0);
	for (unsigned int i = 0; i < count; i++)
		add_request(HEADER, DATA, len, true, STATUS);
	driver_notify(&driver, 0);
	for (unsigned int done = 0; done < count; turns++) {
		ck_assert_int_eq(write(block_device(block)->irq_fd, &one, sizeof(one)),
				 sizeof(one));
		ck_assert_int_ge(event_base_loop(driver.base, EVLOOP_ONCE | EVLOOP_NONBLOCK), 0);
		while (driver_used(&driver, 0, &head, &written))
			done++;
		ck_assert_uint_lt(turns, 1000000);
	}
	/* 512 MiB, at most twice 32 MiB each. */
	ck_assert_uint_ge(turns, 8);
	ck_assert_uint_ge(others + 1, turns);
	event_free(other);
}
END_TEST

struct stress {
	pthread_t thread;
	int image;
	atomic_bool ended;
};

/* What a vCPU does: requests, and a reset in the middle of them. */
static void *vcpu(void *opaque)
{
	struct stress *stress = opaque;

	for (unsigned int round = 0; round < 100; round++) {
		/* Reads of what is not cached take their time. */
		if (round % 4 == 0) {
			fdatasync(stress->image);
			posix_fadvise(stress->image, 0, 0, POSIX_FADV_DONTNEED);
		}
		driver_start(&driver, ALL_FEATURES, 0);
		for (unsigned int i = 0; i < 80; i++) {
			put_header(HEADER + i * 16, i % 3 ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT,
				   (i * 37 + round) % 1000);
			add_request(HEADER + i * 16, DATA + i * 0x10000, 64 * SECTOR, i % 3,
				    HEADER + 0x4000 + i);
			if (i % 10 == 9)
				driver_notify(&driver, 0);
		}
	}
	driver_reset(&driver);
	atomic_store(&stress->ended, true);
	return NULL;
}

static void look(evutil_socket_t fd, short events, void *opaque)
{
	struct stress *stress = opaque;

	(void)fd;
	(void)events;
	if (atomic_load(&stress->ended))
		event_base_loopbreak(driver.base);
}

START_TEST(reset_from_a_vcpu_while_the_device_works)
{
	const struct timeval often = { .tv_usec = 1000 };
	struct stress stress = { .ended = false };
	struct event *looking;

	block_config.engine = _i ? BLOCK_ENGINE_SYNC : BLOCK_ENGINE_ASYNC;
	stress.image = open(IMAGE, O_RDWR | O_CLOEXEC);
	open_block();
	looking = event_new(driver.base, -1, EV_PERSIST, look, &stress);
	event_add(looking, &often);
	ck_assert_int_eq(pthread_create(&stress.thread, NULL, vcpu, &stress), 0);
	event_base_loop(driver.base, 0);
	pthread_join(stress.thread, NULL);
	event_free(looking);
	close(stress.image);
	ck_assert_uint_eq(block->free_count, BLOCK_ENGINE_DEPTH);
	driver_start(&driver, ALL_FEATURES, 0);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, SECTOR, NULL), VIRTIO_BLK_S_OK);
}
END_TEST

static void *reset_device(void *opaque)
{
	(void)opaque;
	driver_reset(&driver);
	return NULL;
}

/* Reads that wait for the disk, submitted by this thread, are waited for by another one. */
START_TEST(reset_waits_for_the_disk)
{
	const unsigned int count = 80;
	const uint32_t len = 16 * SECTOR;
	pthread_t other;
	int image = open(IMAGE, O_RDWR | O_CLOEXEC);

	open_block();
	for (unsigned int round = 0; round < 30; round++) {
		driver_start(&driver, ALL_FEATURES, 0);
		fdatasync(image);
		posix_fadvise(image, 0, 0, POSIX_FADV_DONTNEED);
		for (unsigned int i = 0; i < count; i++) {
			put_header(HEADER + i * 16, VIRTIO_BLK_T_IN, i * 37 % 79 * 16);
			add_request(HEADER + i * 16, DATA + i * len, len, true,
				    HEADER + 0x4000 + i);
		}
		driver_notify(&driver, 0);
		event_base_loop(driver.base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
		ck_assert_int_eq(pthread_create(&other, NULL, reset_device, NULL), 0);
		while (pthread_tryjoin_np(other, NULL) != 0)
			driver_run(&driver);
		ck_assert_uint_eq(block->free_count, BLOCK_ENGINE_DEPTH);
		/* Nothing comes late. */
		memset(guest(DATA, count * len), 0x66, count * len);
		driver_run(&driver);
		ck_assert(all_bytes(guest(DATA, count * len), count * len, 0x66));
	}
	close(image);
	driver_start(&driver, ALL_FEATURES, 0);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, SECTOR, NULL), VIRTIO_BLK_S_OK);
}
END_TEST

/* Its rings are enough to go on: what was popped for later is in them again. */
static void assert_only_rings(void)
{
	const struct virtq *queue = &block_device(block)->queues[0];

	ck_assert_ptr_null(block->held);
	ck_assert_uint_eq(block->free_count, BLOCK_ENGINE_DEPTH);
	ck_assert_uint_eq(queue->next_avail, queue->published_used);
}

START_TEST(freezing_gives_a_throttled_request_back)
{
	uint32_t head, written;

	throttle_a_write();
	ck_assert(virtio_device_freeze(block_device(block), 0));
	assert_only_rings();
	block_set_limiter(block, &(struct rate_limiter_config){ 0 });
	driver_notify(&driver, 0);
	driver_run(&driver);
	ck_assert(!driver_used(&driver, 0, &head, &written));
	assert_only_rings();
	virtio_device_thaw(block_device(block));
	driver_wait_used(&driver, 0, &head, &written);
	ck_assert_uint_eq(block->metrics.write_count, 2);
}
END_TEST

START_TEST(freezing_waits_for_what_is_in_flight)
{
	uint32_t head, written;

	open_block();
	use_held_engine();
	driver_start(&driver, ALL_FEATURES, 0);
	put_header(HEADER, VIRTIO_BLK_T_IN, 0);
	for (unsigned int i = 0; i < 3; i++)
		add_request(HEADER, DATA, SECTOR, true, STATUS);
	driver_notify(&driver, 0);
	driver_run(&driver);
	ck_assert_uint_eq(held.count, 3);
	/* It does not end: the device goes on. */
	ck_assert(!virtio_device_freeze(block_device(block), 0));
	held_done(0);
	block_request_turn(block);
	driver_run(&driver);
	driver_wait_used(&driver, 0, &head, &written);
	held.lets_go = true;
	ck_assert(virtio_device_freeze(block_device(block), 0));
	ck_assert(driver_interrupted(&driver));
	assert_only_rings();
	for (unsigned int i = 0; i < 2; i++)
		ck_assert(driver_used(&driver, 0, &head, &written));
	add_request(HEADER, DATA, SECTOR, true, STATUS);
	driver_notify(&driver, 0);
	block_request_turn(block);
	driver_run(&driver);
	ck_assert(!driver_used(&driver, 0, &head, &written));
	virtio_device_thaw(block_device(block));
	driver_wait_used(&driver, 0, &head, &written);
	use_real_engine();
}
END_TEST

/* Its driver broke a rule while reads were in flight, which end in the guest's memory all the same.
 */
START_TEST(freezing_waits_for_a_failed_device)
{
	open_block();
	use_held_engine();
	put_header(HEADER, VIRTIO_BLK_T_IN, 0);
	add_request(HEADER, DATA, SECTOR, true, STATUS);
	driver_notify(&driver, 0);
	driver_run(&driver);
	driver.queues[0].vring.avail->idx = (uint16_t)(driver.queues[0].vring.avail->idx + 1000);
	driver_notify(&driver, 0);
	driver_run(&driver);
	ck_assert(!block_device(block)->active);
	ck_assert_uint_eq(held.count, 1);
	ck_assert(!virtio_device_freeze(block_device(block), 0));
	held.lets_go = true;
	ck_assert(virtio_device_freeze(block_device(block), 0));
	ck_assert_uint_eq(held.count, 0);
	virtio_device_thaw(block_device(block));
	use_real_engine();
}
END_TEST

START_TEST(freezing_ends_a_reset)
{
	open_block();
	use_held_engine();
	put_header(HEADER, VIRTIO_BLK_T_IN, 0);
	add_request(HEADER, DATA, SECTOR, true, STATUS);
	driver_notify(&driver, 0);
	driver_run(&driver);
	held.stuck = true;
	driver_write(&driver, VIRTIO_MMIO_STATUS, 0);
	ck_assert(!virtio_device_freeze(block_device(block), 0));
	ck_assert(block_device(block)->resetting);
	held.lets_go = true;
	ck_assert(virtio_device_freeze(block_device(block), 0));
	ck_assert(!block_device(block)->resetting);
	ck_assert_int_eq(driver.holds, 0);
	virtio_device_thaw(block_device(block));
	use_real_engine();
	driver_start(&driver, ALL_FEATURES, 0);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, SECTOR, NULL), VIRTIO_BLK_S_OK);
}
END_TEST

Suite *block_queue_suite(void)
{
	Suite *suite = SUITE(
		"block_queue", set_up, block_tear_down, freezing_gives_a_throttled_request_back,
		freezing_waits_for_what_is_in_flight, freezing_waits_for_a_failed_device,
		freezing_ends_a_reset, throttled_requests_are_done_in_time,
		bytes_are_limited_but_not_a_flush, refused_request_costs_no_tokens,
		reset_forgets_a_throttled_request, reset_waits_for_the_disk_without_the_lock,
		bytes_in_flight_are_bounded, exhausted_slots_hold_the_queue_up,
		reset_drops_what_is_in_flight, reset_waits_for_the_disk, broken_ring_needs_a_reset);

	add_table_test(suite, set_up, block_tear_down, others_have_their_turn, 2);
	add_table_test(suite, set_up, block_tear_down, ranges_are_limited_like_data,
		       ARRAY_SIZE(range_types));
	add_table_test(suite, set_up, block_tear_down, reset_from_a_vcpu_while_the_device_works, 2);
	return suite;
}
