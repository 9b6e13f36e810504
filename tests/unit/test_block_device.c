/* SPDX-License-Identifier: Apache-2.0 */
/* A block device's life: opening, limits, errors of the host, replacement, reset. */
#include "virtio/block.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/filter.h>
#include <linux/loop.h>
#include <linux/seccomp.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_mmio.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "tests/unit/block_fixture.h"
#include "tests/unit/suites.h"

static void set_up(void)
{
	block_set_up(BLOCK_ENGINE_ASYNC);
}

static int open_fails(const char *path, const char *sentence)
{
	struct block *other = NULL;
	struct block_config config = block_config;
	struct err err;
	int rc;

	config.path = path;
	rc = block_open(&other, &config, &err);
	ck_assert_int_lt(rc, 0);
	ck_assert_ptr_null(other);
	ck_assert_str_eq(err.text, sentence);
	return rc;
}

START_TEST(opening_what_is_no_disk_fails)
{
	unsigned int before = count_open_fds();

	ck_assert_int_eq(
		open_fails("none.img", "drive rootfs: none.img: No such file or directory"),
		-ENOENT);
	ck_assert_int_eq(open_fails("/dev/null", "drive rootfs: /dev/null: neither a regular file "
						 "nor a block device"),
			 -EINVAL);
	ck_assert_int_eq(mkfifo("fifo", 0600), 0);
	ck_assert_int_eq(
		open_fails("fifo", "drive rootfs: fifo: neither a regular file nor a block device"),
		-EINVAL);
	ck_assert_int_eq(open_fails(".", "drive rootfs: .: Is a directory"), -EISDIR);
	block_config.read_only = true;
	ck_assert_int_eq(
		open_fails(".", "drive rootfs: .: neither a regular file nor a block device"),
		-EINVAL);
	ck_assert_uint_eq(count_open_fds(), before);
	unlink("fifo");
}
END_TEST

START_TEST(one_writer_or_several_readers)
{
	struct block *other;
	struct err err;

	open_block();
	open_fails(IMAGE, "drive rootfs: " IMAGE ": in use by another process or drive");
	block_config.read_only = true;
	open_fails(IMAGE, "drive rootfs: " IMAGE ": in use by another process or drive");
	block_close(block);
	ck_assert_int_eq(block_open(&block, &block_config, &err), 0);
	ck_assert_int_eq(block_open(&other, &block_config, &err), 0);
	block_close(other);
	block_config.read_only = false;
	open_fails(IMAGE, "drive rootfs: " IMAGE ": in use by another process or drive");
}
END_TEST

/* A process that was killed leaves nothing behind that keeps the next one from the image. */
START_TEST(death_releases_the_image)
{
	struct err err;

	for (unsigned int i = 0; i < 20; i++) {
		pid_t child = fork();
		int status;

		if (child == 0) {
			open_block();
			if (request(VIRTIO_BLK_T_IN, 0, SECTOR, NULL) != VIRTIO_BLK_S_OK)
				_exit(1);
			_exit(0);
		}
		ck_assert_int_eq(waitpid(child, &status, 0), child);
		ck_assert_int_eq(status, 0);
		ck_assert_msg(block_open(&block, &block_config, &err) == 0, "%s", err.text);
		block_close(block);
		block = NULL;
	}
}
END_TEST

START_TEST(closing_releases_everything)
{
	unsigned int before = count_open_fds();

	for (unsigned int i = 0; i < 3; i++) {
		open_block();
		ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, SECTOR, NULL), VIRTIO_BLK_S_OK);
		block_detach(block);
		virtio_device_detach(block_device(block));
		block_close(block);
		block = NULL;
	}
	/* The event loop's own, opened with the first event. */
	ck_assert_uint_le(count_open_fds(), before + 1);
	block_close(NULL);
}
END_TEST

static uint64_t config_value(size_t offset, size_t size)
{
	uint64_t value = 0;

	for (size_t i = 0; i < size; i++) {
		uint8_t byte;

		virtio_mmio_ops.read(&driver.mmio, VIRTIO_MMIO_CONFIG + offset + i, &byte, 1);
		value |= (uint64_t)byte << (8 * i);
	}
	return value;
}

#define CONFIG(member)                                                                             \
	config_value(offsetof(struct virtio_blk_config, member),                                   \
		     sizeof(((struct virtio_blk_config *)NULL)->member))

START_TEST(configuration_tells_size_and_limits)
{
	uint64_t features;
	struct stat st;

	/* Less than a sector at the end does not count. */
	ck_assert_int_eq(truncate(IMAGE, IMAGE_SECTORS * SECTOR + 511), 0);
	ck_assert_int_eq(stat(IMAGE, &st), 0);
	open_block();
	features = block_device(block)->features;
	ck_assert_uint_eq(block_device(block)->type, VIRTIO_ID_BLOCK);
	ck_assert_str_eq(block_device(block)->name, "drive rootfs");
	ck_assert_uint_eq(block_device(block)->queues[0].max_size, 256);
	ck_assert_uint_eq(CONFIG(capacity), IMAGE_SECTORS);
	ck_assert_uint_eq(CONFIG(seg_max), 254);
	ck_assert_uint_eq(CONFIG(blk_size), 512);
	ck_assert(features & BLK_FEATURE(SEG_MAX));
	ck_assert(features & BLK_FEATURE(BLK_SIZE));
	ck_assert(!(features & (BLK_FEATURE(RO) | BLK_FEATURE(FLUSH) | BLK_FEATURE(MQ) |
				BLK_FEATURE(CONFIG_WCE) | BLK_FEATURE(SIZE_MAX))));
	if (st.st_blksize == 4096) {
		ck_assert(features & BLK_FEATURE(TOPOLOGY));
		ck_assert_uint_eq(CONFIG(physical_block_exp), 3);
		ck_assert_uint_eq(CONFIG(min_io_size), 8);
	}
	ck_assert(features & BLK_FEATURE(DISCARD));
	ck_assert_uint_eq(CONFIG(max_discard_seg), BLOCK_RANGES_MAX);
	ck_assert_uint_eq(CONFIG(max_discard_sectors), BLOCK_RANGE_SECTORS_MAX);
	ck_assert_uint_eq(CONFIG(geometry.heads), 16);
	ck_assert_uint_eq(CONFIG(geometry.cylinders), IMAGE_SECTORS / (16 * 63));
}
END_TEST

START_TEST(probing_changes_nothing)
{
	struct stat before, after;
	uint8_t *data = malloc(IMAGE_SECTORS * SECTOR), *expected = malloc(IMAGE_SECTORS * SECTOR);

	fill_pattern(expected, IMAGE_SECTORS * SECTOR);
	ck_assert_int_eq(stat(IMAGE, &before), 0);
	open_block();
	ck_assert_int_eq(stat(IMAGE, &after), 0);
	ck_assert_int_eq(before.st_size, after.st_size);
	ck_assert_int_eq(before.st_blocks, after.st_blocks);
	image_read(data, IMAGE_SECTORS * SECTOR, 0);
	ck_assert_mem_eq(data, expected, IMAGE_SECTORS * SECTOR);
	free(data);
	free(expected);
}
END_TEST

START_TEST(empty_file_is_an_empty_disk)
{
	ck_assert_int_eq(truncate(IMAGE, 0), 0);
	open_block();
	ck_assert_uint_eq(CONFIG(capacity), 0);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, SECTOR, NULL), VIRTIO_BLK_S_IOERR);
}
END_TEST

static bool have_uring(void)
{
	struct io_uring ring;

	if (io_uring_queue_init(1, &ring, 0) < 0)
		return false;
	io_uring_queue_exit(&ring);
	return true;
}

START_TEST(ring_is_made_by_the_first_request)
{
	open_block();
	ck_assert_ptr_null(block->engine);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_GET_ID, 0, BLOCK_ID_SIZE, NULL), VIRTIO_BLK_S_OK);
	ck_assert_ptr_null(block->engine);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, SECTOR, NULL), VIRTIO_BLK_S_OK);
	ck_assert_ptr_nonnull(block->engine);
	if (have_uring())
		ck_assert_int_ge(block->engine->event_fd, 0);
}
END_TEST

START_TEST(without_io_uring_it_works_all_the_same)
{
	struct rlimit limit, none;

	open_block();
	driver_run(&driver);
	/* No ring without a file descriptor. */
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	none = limit;
	none.rlim_cur = 1;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, SECTOR, NULL), VIRTIO_BLK_S_OK);
	ck_assert(block->uring_refused);
	ck_assert_int_eq(block->engine->event_fd, -1);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, 0, SECTOR, NULL), VIRTIO_BLK_S_OK);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
}
END_TEST

/* From now on this process's system call fails so, as under a policy of the host. */
static void refuse_call(unsigned int number, unsigned int errnum)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | errnum),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const struct sock_fprog program = { ARRAY_SIZE(filter), filter };

	ck_assert_int_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	ck_assert_int_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

static const unsigned int refusals[] = { ENOSYS, EPERM, EACCES, ENOMEM };

START_TEST(refused_ring_is_asked_for_once)
{
	struct err err;

	refuse_call(__NR_io_uring_setup, refusals[_i]);
	open_block();
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, SECTOR, NULL), VIRTIO_BLK_S_OK);
	ck_assert_int_eq(block->engine->event_fd, -1);
	ck_assert(block->uring_refused);
	ck_assert_int_eq(block_replace_file(block, IMAGE, &err), 0);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, 0, SECTOR, NULL), VIRTIO_BLK_S_OK);
}
END_TEST

START_TEST(ring_that_breaks_is_done_without)
{
	uint8_t data[SECTOR];

	open_block();
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, SECTOR, NULL), VIRTIO_BLK_S_OK);
	refuse_call(__NR_io_uring_enter, EPERM);
	memset(guest(DATA, SECTOR), 0x21, SECTOR);
	for (unsigned int i = 0; i < 300; i++)
		ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, i, SECTOR, NULL), VIRTIO_BLK_S_OK);
	image_read(data, SECTOR, 299 * SECTOR);
	ck_assert(all_bytes(data, SECTOR, 0x21));
	ck_assert_uint_eq(block->free_count, BLOCK_ENGINE_DEPTH);
}
END_TEST

/* What the kernel has no memory for now is neither lost nor done behind a reset. */
START_TEST(ring_short_of_memory_is_tried_again)
{
	uint32_t head, written;
	struct err err;

	open_block();
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, SECTOR, NULL), VIRTIO_BLK_S_OK);
	if (block->engine->event_fd < 0)
		return;
	refuse_call(__NR_io_uring_enter, EAGAIN);
	put_header(HEADER, VIRTIO_BLK_T_IN, 0);
	for (unsigned int i = 0; i < 10; i++)
		add_request(HEADER, DATA, SECTOR, true, STATUS);
	driver_notify(&driver, 0);
	for (unsigned int i = 0; i < 10; i++)
		event_base_loop(driver.base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
	ck_assert(!driver_used(&driver, 0, &head, &written));
	if (_i == 0) {
		driver_start(&driver, ALL_FEATURES, 0);
		ck_assert_uint_eq(block->free_count, BLOCK_ENGINE_DEPTH);
		driver_run(&driver);
		ck_assert(!driver_used(&driver, 0, &head, &written));
	} else {
		ck_assert_int_eq(block_replace_file(block, IMAGE, &err), 0);
		for (unsigned int i = 0; i < 10; i++)
			ck_assert(driver_used(&driver, 0, &head, &written));
		driver_run(&driver);
	}
	ck_assert_uint_eq(block->free_count, BLOCK_ENGINE_DEPTH);
}
END_TEST

/* A tmpfs, where there is one. */
#define MEMORY_IMAGE "/dev/shm/mote-test-block.img"

START_TEST(file_in_memory_is_served_at_once)
{
	uint8_t data[SECTOR];
	int fd;

	unlink(MEMORY_IMAGE);
	if (access("/dev/shm", W_OK) < 0)
		return;
	create_image(MEMORY_IMAGE, IMAGE_SECTORS);
	block_config.path = MEMORY_IMAGE;
	open_block();
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, SECTOR, NULL), VIRTIO_BLK_S_OK);
	if (block->file.in_memory)
		ck_assert_int_eq(block->engine->event_fd, -1);
	/* tmpfs has no ZERO_RANGE. */
	put_range(0, 8, 8, 0);
	put_range(1, 24, 8, 1);
	ck_assert_uint_eq(request_ranges(VIRTIO_BLK_T_WRITE_ZEROES, 2), VIRTIO_BLK_S_OK);
	fd = open(MEMORY_IMAGE, O_RDONLY | O_CLOEXEC);
	ck_assert_int_eq(fd_pread_exact(fd, data, SECTOR, 8 * SECTOR), 0);
	ck_assert(all_bytes(data, SECTOR, 0));
	ck_assert_int_eq(fd_pread_exact(fd, data, SECTOR, 16 * SECTOR), 0);
	ck_assert(!all_bytes(data, SECTOR, 0));
	close(fd);
}
END_TEST

static void remove_memory_image(void)
{
	block_tear_down();
	unlink(MEMORY_IMAGE);
}

static const struct {
	uint32_t type;
	int result;
	uint8_t status;
} host_errors[] = {
	{ VIRTIO_BLK_T_IN, -EIO, VIRTIO_BLK_S_IOERR },
	{ VIRTIO_BLK_T_OUT, -ENOSPC, VIRTIO_BLK_S_IOERR },
	{ VIRTIO_BLK_T_OUT, -EIO, VIRTIO_BLK_S_IOERR },
	{ VIRTIO_BLK_T_OUT, -EDQUOT, VIRTIO_BLK_S_IOERR },
	{ VIRTIO_BLK_T_FLUSH, -EIO, VIRTIO_BLK_S_IOERR },
	{ VIRTIO_BLK_T_OUT, -12345, VIRTIO_BLK_S_IOERR },
	{ VIRTIO_BLK_T_FLUSH, -EOPNOTSUPP, VIRTIO_BLK_S_UNSUPP },
};

START_TEST(error_of_the_host_fails_one_request)
{
	const uint32_t type = host_errors[_i].type;
	uint32_t head, written;

	block_config.writeback = true;
	open_block();
	use_held_engine();
	put_header(HEADER, type, 5);
	add_request(HEADER, DATA, type == VIRTIO_BLK_T_FLUSH ? 0 : SECTOR, type == VIRTIO_BLK_T_IN,
		    STATUS);
	driver_notify(&driver, 0);
	driver_run(&driver);
	ck_assert_uint_eq(held.count, 1);
	held_done(host_errors[_i].result);
	block_publish(block);
	ck_assert(driver_used(&driver, 0, &head, &written));
	ck_assert_uint_eq(written, 1);
	ck_assert_uint_eq(*guest(STATUS, 1), host_errors[_i].status);
	ck_assert_uint_eq(block_metrics(block)->execute_fails, 1);
	ck_assert_uint_eq(block_metrics(block)->write_count, 0);
	ck_assert(block_device(block)->active);
}
END_TEST

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
	ck_assert_ptr_nonnull(block->throttled);
	for (unsigned int i = 0; i < 5; i++)
		driver_wait_used(&driver, 0, &head, &written);
	ck_assert_uint_ge(block_metrics(block)->rate_limiter_throttled_events, 3);
	ck_assert_uint_ge(block_metrics(block)->rate_limiter_event_count, 3);
	ck_assert_uint_eq(block_metrics(block)->flush_count, 5);
	ck_assert_ptr_null(block->throttled);
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
	ck_assert_uint_eq(block_metrics(block)->rate_limiter_throttled_events, 1);
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

START_TEST(reset_forgets_a_throttled_request)
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
	ck_assert_ptr_nonnull(block->throttled);
	driver_start(&driver, ALL_FEATURES, 0);
	ck_assert_ptr_null(block->throttled);
	ck_assert_uint_eq(block->free_count, BLOCK_ENGINE_DEPTH);
	block_set_limiter(block, &(struct rate_limiter_config){ 0 });
	driver_run(&driver);
	ck_assert(!driver_used(&driver, 0, &head, &written));
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, SECTOR, NULL), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(block_metrics(block)->write_count, 1);
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
	ck_assert_uint_ge(block_metrics(block)->io_engine_throttled_events, 1);
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
	block->engine = NULL;
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, SECTOR, NULL), VIRTIO_BLK_S_OK);
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

static void expect_replace_fails(const char *path, const char *sentence)
{
	struct err err;

	ck_assert_int_lt(block_replace_file(block, path, &err), 0);
	ck_assert_str_eq(err.text, sentence);
}

START_TEST(replaced_file_is_served)
{
	uint8_t data[SECTOR];
	uint32_t generation;
	struct err err;

	open_block();
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, SECTOR, NULL), VIRTIO_BLK_S_OK);
	memset(data, 0x31, SECTOR);
	write_file("second.img", data, SECTOR);
	while (driver_interrupted(&driver))
		;
	generation = driver_read(&driver, VIRTIO_MMIO_CONFIG_GENERATION);
	ck_assert_int_eq(block_replace_file(block, "second.img", &err), 0);
	ck_assert(driver_interrupted(&driver));
	ck_assert_uint_ne(driver_read(&driver, VIRTIO_MMIO_CONFIG_GENERATION), generation);
	ck_assert_uint_eq(CONFIG(capacity), 1);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, SECTOR, NULL), VIRTIO_BLK_S_OK);
	ck_assert(all_bytes(guest(DATA, SECTOR), SECTOR, 0x31));
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 1, SECTOR, NULL), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(block_metrics(block)->update_count, 1);
	/* The first one is free again, the second one is not. */
	open_fails("second.img", "drive rootfs: second.img: in use by another process or drive");
	ck_assert_int_eq(block_replace_file(block, IMAGE, &err), 0);
	ck_assert_uint_eq(CONFIG(capacity), IMAGE_SECTORS);
	unlink("second.img");
}
END_TEST

START_TEST(file_that_has_grown_is_replaced_by_itself)
{
	struct err err;

	open_block();
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, IMAGE_SECTORS, SECTOR, NULL),
			  VIRTIO_BLK_S_IOERR);
	ck_assert_int_eq(truncate(IMAGE, 2 * IMAGE_SECTORS * SECTOR), 0);
	for (unsigned int i = 0; i < 3; i++)
		ck_assert_msg(block_replace_file(block, IMAGE, &err) == 0, "%s", err.text);
	ck_assert_uint_eq(CONFIG(capacity), 2 * IMAGE_SECTORS);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, IMAGE_SECTORS, SECTOR, NULL), VIRTIO_BLK_S_OK);
	open_fails(IMAGE, "drive rootfs: " IMAGE ": in use by another process or drive");
}
END_TEST

START_TEST(failed_replacement_changes_nothing)
{
	unsigned int fds;

	open_block();
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, SECTOR, NULL), VIRTIO_BLK_S_OK);
	while (driver_interrupted(&driver))
		;
	fds = count_open_fds();
	expect_replace_fails("none.img", "drive rootfs: none.img: No such file or directory");
	expect_replace_fails("/dev/zero",
			     "drive rootfs: /dev/zero: neither a regular file nor a block device");
	ck_assert_uint_eq(count_open_fds(), fds);
	ck_assert(!driver_interrupted(&driver));
	ck_assert_uint_eq(CONFIG(capacity), IMAGE_SECTORS);
	ck_assert_uint_eq(block_metrics(block)->update_fails, 2);
	ck_assert_uint_eq(block_metrics(block)->update_count, 0);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, 0, SECTOR, NULL), VIRTIO_BLK_S_OK);
}
END_TEST

START_TEST(replacement_before_the_driver_comes)
{
	struct err err;

	ck_assert_int_eq(block_open(&block, &block_config, &err), 0);
	create_image("second.img", 8);
	ck_assert_int_eq(block_replace_file(block, "second.img", &err), 0);
	driver_attach(&driver, block_device(block));
	ck_assert_int_eq(block_attach(block, driver.base, &err), 0);
	driver_start(&driver, ALL_FEATURES, 0);
	ck_assert_uint_eq(CONFIG(capacity), 8);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 7, SECTOR, NULL), VIRTIO_BLK_S_OK);
	unlink("second.img");
}
END_TEST

START_TEST(what_is_in_flight_ends_on_the_old_file)
{
	uint32_t head, written;
	struct err err;

	open_block();
	use_held_engine();
	create_image("second.img", 8);
	put_header(HEADER, VIRTIO_BLK_T_OUT, 0);
	add_request(HEADER, DATA, SECTOR, false, STATUS);
	driver_notify(&driver, 0);
	driver_run(&driver);
	ck_assert_uint_eq(held.count, 1);
	ck_assert_int_eq(block_replace_file(block, "second.img", &err), 0);
	ck_assert_uint_eq(held.count, 0);
	ck_assert(driver_used(&driver, 0, &head, &written));
	ck_assert_uint_eq(*guest(STATUS, 1), VIRTIO_BLK_S_OK);
	unlink("second.img");
}
END_TEST

START_TEST(waiting_write_does_not_make_a_shorter_file_grow)
{
	uint32_t head, written;
	struct err err;
	struct stat st;

	block_config.limiter.ops =
		(struct token_bucket_config){ .size = 1, .refill_time = INT64_C(1) << 40 };
	open_block();
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, SECTOR, NULL), VIRTIO_BLK_S_OK);
	put_header(HEADER, VIRTIO_BLK_T_OUT, 100);
	add_request(HEADER, DATA, SECTOR, false, STATUS);
	driver_notify(&driver, 0);
	driver_run(&driver);
	ck_assert_ptr_nonnull(block->throttled);
	create_image("second.img", 8);
	ck_assert_int_eq(block_replace_file(block, "second.img", &err), 0);
	block_set_limiter(block, &(struct rate_limiter_config){ 0 });
	driver_wait_used(&driver, 0, &head, &written);
	ck_assert_uint_eq(*guest(STATUS, 1), VIRTIO_BLK_S_IOERR);
	ck_assert_int_eq(stat("second.img", &st), 0);
	ck_assert_int_eq(st.st_size, 8 * SECTOR);
	unlink("second.img");
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
		pthread_join(other, NULL);
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

/* A loop device on the image, where the host lets us have one. Its number, or -1. */
static int make_loop_device(char path[32])
{
	CLEANUP_FD int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	CLEANUP_FD int image = open(IMAGE, O_RDWR | O_CLOEXEC);
	int number = control < 0 ? -1 : ioctl(control, LOOP_CTL_GET_FREE);
	int fd;

	if (number < 0)
		return -1;
	snprintf(path, 32, "/dev/loop%d", number);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd >= 0 && ioctl(fd, LOOP_SET_FD, image) < 0)
		fd_close(&fd);
	return fd;
}

START_TEST(block_device_of_the_host_is_served)
{
	char path[32];
	uint8_t data[SECTOR];
	CLEANUP_FD int loop = make_loop_device(path);

	if (loop < 0)
		return;
	block_config.engine = _i ? BLOCK_ENGINE_SYNC : BLOCK_ENGINE_ASYNC;
	block_config.path = path;
	block_config.writeback = true;
	open_block();
	ck_assert(block->file.block_device);
	ck_assert_uint_eq(CONFIG(capacity), IMAGE_SECTORS);
	memset(guest(DATA, SECTOR), 0x44, SECTOR);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, 1, SECTOR, NULL), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_FLUSH, 0, 0, NULL), VIRTIO_BLK_S_OK);
	image_read(data, SECTOR, SECTOR);
	ck_assert(all_bytes(data, SECTOR, 0x44));
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 7, SECTOR, NULL), VIRTIO_BLK_S_OK);
	ck_assert(!all_bytes(guest(DATA, SECTOR), SECTOR, 0));
	put_range(0, 8, 8, 0);
	put_range(1, 24, 8, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP);
	ck_assert_uint_eq(request_ranges(VIRTIO_BLK_T_WRITE_ZEROES, 2), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 8, SECTOR, NULL), VIRTIO_BLK_S_OK);
	ck_assert(all_bytes(guest(DATA, SECTOR), SECTOR, 0));
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 24, SECTOR, NULL), VIRTIO_BLK_S_OK);
	ck_assert(all_bytes(guest(DATA, SECTOR), SECTOR, 0));
	if (block->file.discard) {
		put_range(0, 64, 64, 0);
		ck_assert_uint_eq(request_ranges(VIRTIO_BLK_T_DISCARD, 1), VIRTIO_BLK_S_OK);
	}
	block_detach(block);
	virtio_device_detach(block_device(block));
	block_close(block);
	block = NULL;
	ck_assert_int_eq(ioctl(loop, LOOP_CLR_FD, 0), 0);
}
END_TEST

Suite *block_device_suite(void)
{
	Suite *suite =
		SUITE("block_device", set_up, block_tear_down, opening_what_is_no_disk_fails,
		      one_writer_or_several_readers, death_releases_the_image,
		      closing_releases_everything, configuration_tells_size_and_limits,
		      probing_changes_nothing, empty_file_is_an_empty_disk,
		      ring_is_made_by_the_first_request, without_io_uring_it_works_all_the_same,
		      ring_that_breaks_is_done_without, throttled_requests_are_done_in_time,
		      bytes_are_limited_but_not_a_flush, refused_request_costs_no_tokens,
		      reset_forgets_a_throttled_request, exhausted_slots_hold_the_queue_up,
		      reset_drops_what_is_in_flight, reset_waits_for_the_disk,
		      broken_ring_needs_a_reset, replaced_file_is_served,
		      file_that_has_grown_is_replaced_by_itself, failed_replacement_changes_nothing,
		      replacement_before_the_driver_comes, what_is_in_flight_ends_on_the_old_file,
		      waiting_write_does_not_make_a_shorter_file_grow);

	add_tests(suite, "memory", set_up, remove_memory_image, file_in_memory_is_served_at_once);
	add_table_test(suite, set_up, block_tear_down, error_of_the_host_fails_one_request,
		       ARRAY_SIZE(host_errors));
	add_table_test(suite, set_up, block_tear_down, refused_ring_is_asked_for_once,
		       ARRAY_SIZE(refusals));
	add_table_test(suite, set_up, block_tear_down, ring_short_of_memory_is_tried_again, 2);
	/* With both engines. */
	add_table_test(suite, set_up, block_tear_down, others_have_their_turn, 2);
	add_table_test(suite, set_up, block_tear_down, reset_from_a_vcpu_while_the_device_works, 2);
	add_table_test(suite, set_up, block_tear_down, block_device_of_the_host_is_served, 2);
	return suite;
}
