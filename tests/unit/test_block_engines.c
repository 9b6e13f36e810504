/* SPDX-License-Identifier: Apache-2.0 */
/* The engines of a block device: which one serves it, and what the host refuses them. */
#include "base/array.h"
#include "virtio/block/block.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "tests/unit/block_fixture.h"
#include "tests/unit/suites.h"

static const uint8_t zeroes[64 * SECTOR];

static void set_up(void)
{
	block_set_up(BLOCK_ENGINE_ASYNC);
}

static bool have_uring(void)
{
	struct io_uring ring;

	if (io_uring_queue_init(1, &ring, 0) < 0)
		return false;
	io_uring_queue_exit(&ring);
	return true;
}

START_TEST(ring_is_there_before_the_first_request)
{
	open_block();
	if (have_uring())
		ck_assert(!block->engine->discards);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, SECTOR, NULL), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(block->metrics.engine_async_count, have_uring());
	ck_assert_uint_eq(block->metrics.engine_sync_count, !have_uring());
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

START_TEST(refused_ring_is_done_without)
{
	struct err err;

	refuse_call(__NR_io_uring_setup, refusals[_i]);
	open_block();
	ck_assert(block->engine->discards);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, SECTOR, NULL), VIRTIO_BLK_S_OK);
	ck_assert_int_eq(block_replace_file(block, IMAGE, &err), 0);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, 0, SECTOR, NULL), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(block->metrics.engine_sync_count, 2);
	ck_assert_uint_eq(block->metrics.engine_async_count, 0);
}
END_TEST

/* As under the filter of a running VM: no ring can be made, the one that is there goes on. */
START_TEST(another_file_goes_through_the_same_ring)
{
	uint8_t data[SECTOR];
	struct err err;
	int event_fd;

	open_block();
	if (!have_uring())
		return;
	event_fd = block->engine->event_fd;
	write_file("other", zeroes, sizeof(zeroes));
	refuse_call(__NR_io_uring_setup, EPERM);
	ck_assert_int_eq(block_replace_file(block, "other", &err), 0);
	memset(guest(DATA, SECTOR), 0x42, SECTOR);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, 3, SECTOR, NULL), VIRTIO_BLK_S_OK);
	ck_assert_int_eq(block->engine->event_fd, event_fd);
	image_read(data, SECTOR, 3 * SECTOR);
	ck_assert(!all_bytes(data, SECTOR, 0x42));
	ck_assert_int_eq(pread(block->file.fd, data, SECTOR, 3 * SECTOR), SECTOR);
	ck_assert(all_bytes(data, SECTOR, 0x42));
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
	if (block->engine->discards)
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
		ck_assert_int_eq(block_replace_file(block, IMAGE, &err), -EBUSY);
		ck_assert_uint_eq(block->free_count, BLOCK_ENGINE_DEPTH - 10);
	}
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
	if (!block->file.in_memory)
		return;
	use_held_engine();
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
	ck_assert_uint_eq(block->metrics.execute_fails, 1);
	ck_assert_uint_eq(block->metrics.write_count, 0);
	ck_assert(block_device(block)->active);
}
END_TEST

/* The device's ring, as a VMM that is not ours any more would use it; false if there is none. */
static bool find_ring(struct io_uring *ring)
{
	struct io_uring_params params = { 0 };
	int other = (int)syscall(__NR_io_uring_setup, BLOCK_ENGINE_DEPTH, &params);
	char path[64], target[64] = "";

	for (int fd = 3; other >= 0 && fd < other; fd++) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		memset(target, 0, sizeof(target));
		if (readlink(path, target, sizeof(target) - 1) > 0 &&
		    strcmp(target, "anon_inode:[io_uring]") == 0 &&
		    io_uring_queue_mmap(fd, &params, ring) == 0) {
			close(other);
			return true;
		}
	}
	return false;
}

static int run_on(struct io_uring *ring, uint8_t operation, uint8_t flags)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	struct io_uring_cqe *cqe;
	static char data[SECTOR];
	struct iovec iov = { data, sizeof(data) };
	int result;

	if (!sqe)
		ck_abort();
	io_uring_prep_rw(operation, sqe, 0, &iov, 1, 0);
	if (operation == IORING_OP_READ)
		io_uring_prep_read(sqe, 0, data, sizeof(data), 0);
	sqe->flags = flags;
	ck_assert_int_ge(io_uring_submit_and_wait(ring, 1), 0);
	ck_assert_int_eq(io_uring_peek_cqe(ring, &cqe), 0);
	result = cqe->res;
	io_uring_cqe_seen(ring, cqe);
	return result;
}

/* Files and sockets, other processes' memory, and operations that go on without being asked. */
START_TEST(ring_does_nothing_but_the_io_of_its_file)
{
	static const uint8_t allowed[] = { IORING_OP_NOP,      IORING_OP_READ,	 IORING_OP_READV,
					   IORING_OP_WRITE,    IORING_OP_WRITEV, IORING_OP_FSYNC,
					   IORING_OP_FALLOCATE };
	static const unsigned int registrations[] = {
		IORING_REGISTER_BUFFERS, IORING_UNREGISTER_BUFFERS, IORING_UNREGISTER_EVENTFD,
		IORING_REGISTER_PERSONALITY, IORING_REGISTER_RESTRICTIONS
	};
	struct io_uring ring;
	int rc;

	open_block();
	if (block->engine->discards || !find_ring(&ring))
		return;
	ck_assert_int_eq(run_on(&ring, IORING_OP_READ, IOSQE_FIXED_FILE), SECTOR);
	for (unsigned int operation = 0; operation < IORING_OP_LAST; operation++) {
		/* Of any other file, by its descriptor. */
		ck_assert_int_eq(run_on(&ring, (uint8_t)operation, 0), -EACCES);
		if (!memchr(allowed, (int)operation, sizeof(allowed)))
			ck_assert_int_eq(run_on(&ring, (uint8_t)operation, IOSQE_FIXED_FILE),
					 -EACCES);
	}
	ck_assert_int_eq(run_on(&ring, IORING_OP_NOP, IOSQE_FIXED_FILE | IOSQE_IO_DRAIN), -EACCES);
	ck_assert_int_eq(run_on(&ring, IORING_OP_NOP, IOSQE_FIXED_FILE | IOSQE_IO_LINK), -EACCES);
	for (size_t i = 0; i < ARRAY_SIZE(registrations); i++) {
		rc = (int)syscall(__NR_io_uring_register, ring.ring_fd, registrations[i], NULL, 0);
		ck_assert_int_eq(rc, -1);
		ck_assert_msg(errno == EACCES || registrations[i] == IORING_REGISTER_RESTRICTIONS,
			      "registration %u: %s", registrations[i], strerror(errno));
	}
}
END_TEST

Suite *block_engines_suite(void)
{
	Suite *suite = SUITE(
		"block_engines", set_up, block_tear_down, ring_is_there_before_the_first_request,
		another_file_goes_through_the_same_ring, ring_that_breaks_is_done_without,
		ring_does_nothing_but_the_io_of_its_file);

	add_tests(suite, "memory", set_up, remove_memory_image, file_in_memory_is_served_at_once);
	add_table_test(suite, set_up, block_tear_down, error_of_the_host_fails_one_request,
		       ARRAY_SIZE(host_errors));
	add_table_test(suite, set_up, block_tear_down, refused_ring_is_done_without,
		       ARRAY_SIZE(refusals));
	add_table_test(suite, set_up, block_tear_down, ring_short_of_memory_is_tried_again, 2);
	return suite;
}
