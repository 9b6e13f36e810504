/* SPDX-License-Identifier: Apache-2.0 */
/* A block device: opening, its configuration, a block device of the host. */
#include "virtio/block/block.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <linux/virtio_ids.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
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
	open_fails(IMAGE, "drive rootfs: " IMAGE ": in use by another process or drive; " SHARED);
	block_config.read_only = true;
	open_fails(IMAGE, "drive rootfs: " IMAGE ": in use by another process or drive; " SHARED);
	virtio_device_close(block_device(block));
	ck_assert_int_eq(block_open(&block, &block_config, &err), 0);
	ck_assert_int_eq(block_open(&other, &block_config, &err), 0);
	virtio_device_close(block_device(other));
	block_config.read_only = false;
	open_fails(IMAGE, "drive rootfs: " IMAGE ": in use by another process or drive; " SHARED);
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
		virtio_device_close(block_device(block));
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
		virtio_device_close(block_device(block));
		block = NULL;
	}
	/* The event loop's own, opened with the first event. */
	ck_assert_uint_le(count_open_fds(), before + 1);
	virtio_device_close(NULL);
}
END_TEST

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
	virtio_device_close(block_device(block));
	block = NULL;
	ck_assert_int_eq(ioctl(loop, LOOP_CLR_FD, 0), 0);
}
END_TEST

Suite *block_device_suite(void)
{
	Suite *suite = SUITE("block_device", set_up, block_tear_down, opening_what_is_no_disk_fails,
			     one_writer_or_several_readers, death_releases_the_image,
			     closing_releases_everything, configuration_tells_size_and_limits,
			     probing_changes_nothing, empty_file_is_an_empty_disk);

	add_table_test(suite, set_up, block_tear_down, block_device_of_the_host_is_served, 2);
	return suite;
}
