/* SPDX-License-Identifier: Apache-2.0 */
/* What requests do, with either engine. */
#include "base/array.h"
#include "virtio/block/block.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "tests/unit/block_fixture.h"
#include "tests/unit/suites.h"

static void set_up_sync(void)
{
	block_set_up(BLOCK_ENGINE_SYNC);
}

static void set_up_async(void)
{
	block_set_up(BLOCK_ENGINE_ASYNC);
}

START_TEST(write_reaches_the_file_and_is_read_back)
{
	const uint32_t len = 9 * SECTOR;
	uint8_t in_file[9 * SECTOR];
	uint32_t written;

	open_block();
	memset(guest(DATA, len), 0x5a, len);
	guest(DATA, len)[len - 1] = 0x77;
	ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, 3, len, &written), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(written, 1);
	image_read(in_file, len, 3 * SECTOR);
	ck_assert_mem_eq(in_file, guest(DATA, len), len);
	memset(guest(DATA, len), 0, len);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 3, len, &written), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(written, len + 1);
	ck_assert_mem_eq(in_file, guest(DATA, len), len);
	ck_assert_uint_eq(block->metrics.write_count, 1);
	ck_assert_uint_eq(block->metrics.write_bytes, len);
	ck_assert_uint_eq(block->metrics.read_count, 1);
	ck_assert_uint_eq(block->metrics.read_bytes, len);
	ck_assert_uint_ge(block->metrics.queue_event_count, 2);
	ck_assert(driver_interrupted(&driver));
}
END_TEST

START_TEST(last_sector_is_read_and_written)
{
	open_block();
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, IMAGE_SECTORS - 1, SECTOR, NULL),
			  VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, IMAGE_SECTORS - 1, SECTOR, NULL),
			  VIRTIO_BLK_S_OK);
}
END_TEST

START_TEST(header_may_be_split_anywhere)
{
	open_block();
	for (uint32_t first = 1; first < 16; first++) {
		const struct driver_buffer buffers[] = {
			{ HEADER, first, false }, { HEADER + first, 16 - first, false },
			{ DATA, 1, true },	  { DATA + 1, SECTOR - 1, true },
			{ STATUS, 1, true },
		};
		uint8_t expected[SECTOR];
		uint32_t written;

		put_header(HEADER, VIRTIO_BLK_T_IN, first);
		ck_assert_uint_eq(submit(buffers, ARRAY_SIZE(buffers), &written), VIRTIO_BLK_S_OK);
		ck_assert_uint_eq(written, SECTOR + 1);
		image_read(expected, SECTOR, first * SECTOR);
		ck_assert_mem_eq(guest(DATA, SECTOR), expected, SECTOR);
	}
}
END_TEST

START_TEST(header_and_data_may_share_a_descriptor)
{
	const struct driver_buffer buffers[] = {
		{ HEADER, 16 + 100, false },
		{ HEADER + 16 + 100, SECTOR - 100, false },
		{ STATUS, 1, true },
	};
	uint8_t in_file[SECTOR];

	open_block();
	put_header(HEADER, VIRTIO_BLK_T_OUT, 7);
	fill_pattern(guest(HEADER + 16, SECTOR), SECTOR);
	ck_assert_uint_eq(submit(buffers, ARRAY_SIZE(buffers), NULL), VIRTIO_BLK_S_OK);
	image_read(in_file, SECTOR, 7 * SECTOR);
	ck_assert_mem_eq(in_file, guest(HEADER + 16, SECTOR), SECTOR);
}
END_TEST

START_TEST(data_and_status_may_share_a_descriptor)
{
	const struct driver_buffer buffers[] = {
		{ HEADER, 16, false },
		{ STATUS - 2 * SECTOR, 2 * SECTOR + 1, true },
	};
	uint8_t expected[2 * SECTOR];
	uint32_t written;

	open_block();
	put_header(HEADER, VIRTIO_BLK_T_IN, 1);
	ck_assert_uint_eq(submit(buffers, ARRAY_SIZE(buffers), &written), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(written, 2 * SECTOR + 1);
	image_read(expected, sizeof(expected), SECTOR);
	ck_assert_mem_eq(guest(STATUS - 2 * SECTOR, 2 * SECTOR), expected, sizeof(expected));
}
END_TEST

START_TEST(request_without_status_comes_back_empty)
{
	const struct driver_buffer buffers[] = { { HEADER, 16, false } };
	uint32_t written;

	open_block();
	put_header(HEADER, VIRTIO_BLK_T_IN, 0);
	submit(buffers, 1, &written);
	ck_assert_uint_eq(written, 0);
	ck_assert_uint_eq(block->metrics.invalid_reqs_count, 1);
}
END_TEST

START_TEST(request_without_header_fails)
{
	const struct driver_buffer shorter[] = { { HEADER, 15, false }, { STATUS, 1, true } };
	const struct driver_buffer none[] = { { STATUS, 1, true } };
	uint32_t written;

	open_block();
	put_header(HEADER, VIRTIO_BLK_T_FLUSH, 0);
	ck_assert_uint_eq(submit(shorter, 2, &written), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(written, 1);
	ck_assert_uint_eq(submit(none, 1, &written), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(block->metrics.invalid_reqs_count, 2);
}
END_TEST

static const struct {
	uint32_t type;
	uint64_t sector;
	uint32_t len;
	uint8_t status;
} bad_requests[] = {
	{ VIRTIO_BLK_T_IN, 0, 0, VIRTIO_BLK_S_IOERR },
	{ VIRTIO_BLK_T_IN, 0, 1, VIRTIO_BLK_S_IOERR },
	{ VIRTIO_BLK_T_IN, 0, SECTOR - 1, VIRTIO_BLK_S_IOERR },
	{ VIRTIO_BLK_T_OUT, 0, SECTOR + 1, VIRTIO_BLK_S_IOERR },
	{ VIRTIO_BLK_T_OUT, 0, 0, VIRTIO_BLK_S_IOERR },
	{ VIRTIO_BLK_T_IN, IMAGE_SECTORS, SECTOR, VIRTIO_BLK_S_IOERR },
	{ VIRTIO_BLK_T_OUT, IMAGE_SECTORS, SECTOR, VIRTIO_BLK_S_IOERR },
	{ VIRTIO_BLK_T_OUT, IMAGE_SECTORS - 1, 2 * SECTOR, VIRTIO_BLK_S_IOERR },
	{ VIRTIO_BLK_T_OUT, UINT64_MAX, SECTOR, VIRTIO_BLK_S_IOERR },
	{ VIRTIO_BLK_T_IN, UINT64_MAX, 2 * SECTOR, VIRTIO_BLK_S_IOERR },
	{ VIRTIO_BLK_T_IN, UINT64_MAX / SECTOR, 2 * SECTOR, VIRTIO_BLK_S_IOERR },
	{ VIRTIO_BLK_T_OUT, UINT64_MAX / SECTOR + 1, SECTOR, VIRTIO_BLK_S_IOERR },
	{ VIRTIO_BLK_T_SCSI_CMD, 0, SECTOR, VIRTIO_BLK_S_UNSUPP },
	{ VIRTIO_BLK_T_SECURE_ERASE, 0, 16, VIRTIO_BLK_S_UNSUPP },
	{ 3, 0, SECTOR, VIRTIO_BLK_S_UNSUPP },
	{ UINT32_MAX, 0, 0, VIRTIO_BLK_S_UNSUPP },
	{ VIRTIO_BLK_T_OUT | VIRTIO_BLK_T_BARRIER, 0, SECTOR, VIRTIO_BLK_S_UNSUPP },
};

START_TEST(bad_request_is_refused)
{
	uint32_t written;
	struct stat st;

	open_block();
	ck_assert_uint_eq(request(bad_requests[_i].type, bad_requests[_i].sector,
				  bad_requests[_i].len, &written),
			  bad_requests[_i].status);
	ck_assert_uint_eq(written, 1);
	ck_assert_uint_eq(block->metrics.invalid_reqs_count, 1);
	ck_assert_uint_eq(block->metrics.execute_fails, 0);
	ck_assert_int_eq(stat(IMAGE, &st), 0);
	ck_assert_int_eq(st.st_size, IMAGE_SECTORS * SECTOR);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, SECTOR, NULL), VIRTIO_BLK_S_OK);
}
END_TEST

START_TEST(id_is_padded_with_zeroes)
{
	const uint8_t expected[BLOCK_ID_SIZE] = "rootfs";
	uint32_t written;

	open_block();
	memset(guest(DATA, 64), 0xff, 64);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_GET_ID, 0, BLOCK_ID_SIZE, &written),
			  VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(written, BLOCK_ID_SIZE + 1);
	ck_assert_mem_eq(guest(DATA, BLOCK_ID_SIZE), expected, BLOCK_ID_SIZE);
	ck_assert_uint_eq(guest(DATA, 64)[BLOCK_ID_SIZE], 0xff);
}
END_TEST

START_TEST(id_is_cut_and_may_be_scattered)
{
	const struct driver_buffer buffers[] = {
		{ HEADER, 16, false },
		{ DATA, 7, true },
		{ DATA + 100, 30, true },
		{ STATUS, 1, true },
	};

	block_config.id = "abcdefghijklmnopqrstuvwxyz";
	open_block();
	put_header(HEADER, VIRTIO_BLK_T_GET_ID, 0);
	memset(guest(DATA, 200), 0xff, 200);
	ck_assert_uint_eq(submit(buffers, ARRAY_SIZE(buffers), NULL), VIRTIO_BLK_S_OK);
	ck_assert_mem_eq(guest(DATA, 7), "abcdefg", 7);
	ck_assert_mem_eq(guest(DATA + 100, 13), "hijklmnopqrst", 13);
	ck_assert(all_bytes(guest(DATA + 113, 17), 17, 0xff));
}
END_TEST

START_TEST(id_needs_its_20_bytes)
{
	open_block();
	memset(guest(DATA, 20), 0xff, 20);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_GET_ID, 0, BLOCK_ID_SIZE - 1, NULL),
			  VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_GET_ID, 0, 0, NULL), VIRTIO_BLK_S_IOERR);
	ck_assert(all_bytes(guest(DATA, 20), 20, 0xff));
}
END_TEST

START_TEST(flush_is_done_with_and_without_writeback)
{
	for (unsigned int writeback = 0; writeback < 2; writeback++) {
		block_config.writeback = writeback;
		open_block();
		ck_assert_uint_eq(request(VIRTIO_BLK_T_FLUSH, 0, 0, NULL), VIRTIO_BLK_S_OK);
		ck_assert_uint_eq(block->metrics.flush_count, 1);
		ck_assert_uint_eq(block_device(block)->features >> VIRTIO_BLK_F_FLUSH & 1,
				  writeback);
		if (!writeback)
			virtio_device_close(block_device(block));
	}
}
END_TEST

START_TEST(writes_are_durable_for_a_driver_that_declines_flush)
{
	uint32_t head, written;

	block_config.writeback = true;
	open_block();
	use_held_engine();
	driver_start(&driver, 0, 0);
	put_header(HEADER, VIRTIO_BLK_T_OUT, 0);
	add_request(HEADER, DATA, SECTOR, false, STATUS);
	driver_notify(&driver, 0);
	driver_run(&driver);
	ck_assert_uint_eq(held.count, 1);
	ck_assert(held.held[0]->durable);
	held_done(0);
	block_publish(block);
	driver_wait_used(&driver, 0, &head, &written);
	/* With an engine that does it. */
	use_real_engine();
	ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, 1, SECTOR, NULL), VIRTIO_BLK_S_OK);
}
END_TEST

START_TEST(zeroes_are_written)
{
	uint8_t data[16 * SECTOR];

	open_block();
	put_range(0, 8, 8, 0);
	put_range(1, 100, 3, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP);
	ck_assert_uint_eq(request_ranges(VIRTIO_BLK_T_WRITE_ZEROES, 2), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(block->metrics.write_zeroes_count, 1);
	image_read(data, 16 * SECTOR, 4 * SECTOR);
	ck_assert(!all_bytes(data, 4 * SECTOR, 0));
	ck_assert(all_bytes(data + 4 * SECTOR, 8 * SECTOR, 0));
	ck_assert(!all_bytes(data + 12 * SECTOR, SECTOR, 0));
	image_read(data, 5 * SECTOR, 99 * SECTOR);
	ck_assert(!all_bytes(data, SECTOR, 0));
	ck_assert(all_bytes(data + SECTOR, 3 * SECTOR, 0));
	ck_assert(!all_bytes(data + 4 * SECTOR, SECTOR, 0));
}
END_TEST

START_TEST(discarded_blocks_are_given_back)
{
	struct stat before, after;

	open_block();
	ck_assert_int_eq(stat(IMAGE, &before), 0);
	put_range(0, 0, IMAGE_SECTORS, 0);
	ck_assert_uint_eq(request_ranges(VIRTIO_BLK_T_DISCARD, 1), VIRTIO_BLK_S_OK);
	ck_assert_int_eq(stat(IMAGE, &after), 0);
	ck_assert_int_lt(after.st_blocks, before.st_blocks);
	ck_assert_int_eq(after.st_size, before.st_size);
	ck_assert_uint_eq(block->metrics.discard_count, 1);
}
END_TEST

START_TEST(sixteen_ranges_are_done)
{
	uint8_t data[SECTOR];

	open_block();
	for (unsigned int i = 0; i < BLOCK_RANGES_MAX; i++)
		put_range(i, i * 16, 8, 0);
	ck_assert_uint_eq(request_ranges(VIRTIO_BLK_T_DISCARD, BLOCK_RANGES_MAX), VIRTIO_BLK_S_OK);
	for (unsigned int i = 0; i < BLOCK_RANGES_MAX; i++) {
		image_read(data, SECTOR, i * 16 * SECTOR);
		ck_assert(all_bytes(data, SECTOR, 0));
		image_read(data, SECTOR, (i * 16 + 8) * SECTOR);
		ck_assert(!all_bytes(data, SECTOR, 0));
	}
}
END_TEST

static const struct {
	uint32_t type;
	unsigned int count;
	uint64_t sector;
	uint32_t sectors;
	uint32_t flags;
	uint8_t status;
} bad_ranges[] = {
	{ VIRTIO_BLK_T_DISCARD, 0, 0, 8, 0, VIRTIO_BLK_S_IOERR },
	{ VIRTIO_BLK_T_DISCARD, BLOCK_RANGES_MAX + 1, 0, 8, 0, VIRTIO_BLK_S_IOERR },
	{ VIRTIO_BLK_T_DISCARD, 1, 0, 0, 0, VIRTIO_BLK_S_IOERR },
	{ VIRTIO_BLK_T_DISCARD, 1, IMAGE_SECTORS, 1, 0, VIRTIO_BLK_S_IOERR },
	{ VIRTIO_BLK_T_DISCARD, 1, IMAGE_SECTORS - 1, 2, 0, VIRTIO_BLK_S_IOERR },
	{ VIRTIO_BLK_T_DISCARD, 1, UINT64_MAX, 2, 0, VIRTIO_BLK_S_IOERR },
	{ VIRTIO_BLK_T_DISCARD, 1, 0, UINT32_MAX, 0, VIRTIO_BLK_S_IOERR },
	{ VIRTIO_BLK_T_DISCARD, 1, 0, 8, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP, VIRTIO_BLK_S_UNSUPP },
	{ VIRTIO_BLK_T_DISCARD, 2, 0, 8, 2, VIRTIO_BLK_S_UNSUPP },
	{ VIRTIO_BLK_T_WRITE_ZEROES, 1, 0, 8, 2, VIRTIO_BLK_S_UNSUPP },
	{ VIRTIO_BLK_T_WRITE_ZEROES, 1, 0, 8, 0x80000001, VIRTIO_BLK_S_UNSUPP },
	{ VIRTIO_BLK_T_WRITE_ZEROES, 0, 0, 8, 0, VIRTIO_BLK_S_IOERR },
	{ VIRTIO_BLK_T_WRITE_ZEROES, 1, IMAGE_SECTORS - 7, 8, 1, VIRTIO_BLK_S_IOERR },
};

/* What the device says of itself holds for a disk that is larger, too. */
START_TEST(range_above_the_maximum_is_refused)
{
	ck_assert_int_eq(truncate(IMAGE, 2 * (off_t)BLOCK_RANGE_SECTORS_MAX * SECTOR), 0);
	open_block();
	put_range(0, 0, BLOCK_RANGE_SECTORS_MAX + 1, 0);
	ck_assert_uint_eq(request_ranges(VIRTIO_BLK_T_DISCARD, 1), VIRTIO_BLK_S_IOERR);
	put_range(0, 0, BLOCK_RANGE_SECTORS_MAX, 0);
	ck_assert_uint_eq(request_ranges(VIRTIO_BLK_T_DISCARD, 1), VIRTIO_BLK_S_OK);
}
END_TEST

/* The bad one is the last: those before it must not be done, either. */
START_TEST(bad_range_is_refused)
{
	const unsigned int count = bad_ranges[_i].count;
	uint8_t data[SECTOR];

	open_block();
	for (unsigned int i = 0; i < count; i++)
		put_range(i, 0, 8, 0);
	if (count > 0)
		put_range(count - 1, bad_ranges[_i].sector, bad_ranges[_i].sectors,
			  bad_ranges[_i].flags);
	ck_assert_uint_eq(request_ranges(bad_ranges[_i].type, count), bad_ranges[_i].status);
	ck_assert_uint_eq(block->metrics.invalid_reqs_count, 1);
	image_read(data, SECTOR, 0);
	ck_assert(!all_bytes(data, SECTOR, 0));
}
END_TEST

START_TEST(ranges_of_odd_length_are_refused)
{
	const struct driver_buffer buffers[] = { { HEADER, 16, false },
						 { RANGES, 17, false },
						 { STATUS, 1, true } };

	open_block();
	put_range(0, 0, 8, 0);
	put_header(HEADER, VIRTIO_BLK_T_DISCARD, 0);
	ck_assert_uint_eq(submit(buffers, ARRAY_SIZE(buffers), NULL), VIRTIO_BLK_S_IOERR);
}
END_TEST

START_TEST(ranges_need_their_feature)
{
	open_block();
	driver_start(&driver, 0, 0);
	put_range(0, 0, 8, 0);
	ck_assert_uint_eq(request_ranges(VIRTIO_BLK_T_DISCARD, 1), VIRTIO_BLK_S_UNSUPP);
	ck_assert_uint_eq(request_ranges(VIRTIO_BLK_T_WRITE_ZEROES, 1), VIRTIO_BLK_S_UNSUPP);
}
END_TEST

START_TEST(read_only_drive_is_not_written)
{
	uint8_t before[SECTOR], after[SECTOR];

	block_config.read_only = true;
	image_read(before, SECTOR, 0);
	open_block();
	ck_assert(block_device(block)->features & BLK_FEATURE(RO));
	ck_assert(!(block_device(block)->features &
		    (BLK_FEATURE(DISCARD) | BLK_FEATURE(WRITE_ZEROES))));
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, SECTOR, NULL), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, 0, SECTOR, NULL), VIRTIO_BLK_S_IOERR);
	put_range(0, 0, 8, 0);
	ck_assert_uint_eq(request_ranges(VIRTIO_BLK_T_DISCARD, 1), VIRTIO_BLK_S_UNSUPP);
	image_read(after, SECTOR, 0);
	ck_assert_mem_eq(before, after, SECTOR);
}
END_TEST

START_TEST(read_of_a_file_that_was_cut_off_fails)
{
	open_block();
	ck_assert_int_eq(truncate(IMAGE, 10 * SECTOR + 100), 0);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, 10 * SECTOR, NULL), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 9, 2 * SECTOR, NULL), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 100, SECTOR, NULL), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(block->metrics.execute_fails, 2);
	ck_assert_uint_eq(block->metrics.invalid_reqs_count, 0);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, SECTOR, NULL), VIRTIO_BLK_S_OK);
}
END_TEST

START_TEST(write_that_the_host_refuses_fails)
{
	const struct rlimit limit = { 64 * SECTOR, RLIM_INFINITY };

	open_block();
	signal(SIGXFSZ, SIG_IGN);
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, 100, SECTOR, NULL), VIRTIO_BLK_S_IOERR);
	/* Half of it is within the limit. */
	ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, 60, 8 * SECTOR, NULL), VIRTIO_BLK_S_IOERR);
	ck_assert_uint_eq(block->metrics.execute_fails, 2);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, 0, SECTOR, NULL), VIRTIO_BLK_S_OK);
}
END_TEST

/* The data of all requests at a time, each at its own sectors and its own place in memory. */
START_TEST(many_requests_at_a_time_keep_their_data)
{
	const unsigned int count = 85, sectors = 8; /* 85 chains of 3 fill the queue */
	const uint32_t len = sectors * SECTOR;
	uint8_t *expected = malloc(len);
	uint32_t head, written;

	open_block();
	for (unsigned int round = 0; round < 20; round++) {
		const bool in = round % 2;

		for (unsigned int i = 0; i < count; i++) {
			const uint64_t data = DATA + i * len;
			const uint64_t sector = (i * 7 + round / 2) % count * sectors;

			put_header(HEADER + i * 16, in ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT,
				   sector);
			memset(guest(data, len), in ? 0xee : (int)(sector / sectors + round), len);
			*guest(HEADER + 0x4000 + i, 1) = NO_STATUS;
			add_request(HEADER + i * 16, data, len, in, HEADER + 0x4000 + i);
		}
		driver_notify(&driver, 0);
		for (unsigned int i = 0; i < count; i++)
			driver_wait_used(&driver, 0, &head, &written);
		for (unsigned int i = 0; i < count; i++) {
			const uint64_t sector = (i * 7 + round / 2) % count * sectors;

			ck_assert_uint_eq(*guest(HEADER + 0x4000 + i, 1), VIRTIO_BLK_S_OK);
			if (in) {
				memset(expected, (int)(sector / sectors + round - 1), len);
				ck_assert_mem_eq(guest(DATA + i * len, len), expected, len);
			}
		}
	}
	ck_assert_uint_eq(block->free_count, BLOCK_ENGINE_DEPTH);
	free(expected);
}
END_TEST

/* More than a turn, in steps that end within buffers; and the buffers are the guest's whole data.
 */
START_TEST(large_request_is_done_in_steps)
{
	const uint32_t piece = 7 << 20, tail = 512 * 3, pieces = 10;
	struct driver_buffer buffers[13];
	uint32_t written;
	uint8_t last[512 * 3];

	ck_assert_int_eq(truncate(IMAGE, (off_t)piece * pieces + tail), 0);
	fill_pattern(last, tail);
	{
		int fd = open(IMAGE, O_WRONLY | O_CLOEXEC);

		ck_assert_int_eq(pwrite(fd, last, tail, (off_t)piece * pieces), tail);
		close(fd);
	}
	open_block();
	buffers[0] = (struct driver_buffer){ HEADER, 16, false };
	for (unsigned int i = 0; i < pieces; i++)
		buffers[1 + i] = (struct driver_buffer){ DATA, piece, true };
	buffers[1 + pieces] = (struct driver_buffer){ DATA + piece, tail, true };
	buffers[2 + pieces] = (struct driver_buffer){ STATUS, 1, true };
	put_header(HEADER, VIRTIO_BLK_T_IN, 0);
	ck_assert_uint_eq(submit(buffers, 3 + pieces, &written), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(written, piece * pieces + tail + 1);
	ck_assert_mem_eq(guest(DATA + piece, tail), last, tail);
	ck_assert_uint_eq(block->metrics.read_bytes, piece * pieces + tail);
}
END_TEST

START_TEST(large_write_is_done_in_steps)
{
	const uint32_t len = (9 << 20) + SECTOR;
	uint8_t *data = malloc(len);

	ck_assert_int_eq(truncate(IMAGE, len + SECTOR), 0);
	open_block();
	fill_pattern(guest(DATA, len), len);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, 1, len, NULL), VIRTIO_BLK_S_OK);
	image_read(data, len, SECTOR);
	ck_assert_mem_eq(data, guest(DATA, len), len);
	free(data);
}
END_TEST

START_TEST(slots_serve_a_driver_that_never_waits)
{
	uint32_t head, written;
	unsigned int done = 0;

	open_block();
	/* Always the same chain: legal for no driver, harmful to no device. */
	for (unsigned int i = 0; i < 2000; i++) {
		struct vring *vring = &driver.queues[0].vring;

		if (i == 0) {
			put_header(HEADER, VIRTIO_BLK_T_IN, 0);
			add_request(HEADER, DATA, SECTOR, true, STATUS);
		} else {
			vring->avail->ring[vring->avail->idx % vring->num] = 0;
			vring->avail->idx++;
		}
		if (i % 200 == 199) {
			driver_notify(&driver, 0);
			while (done <= i) {
				driver_wait_used(&driver, 0, &head, &written);
				done++;
			}
		}
	}
	ck_assert_uint_eq(block->metrics.read_count, 2000);
}
END_TEST

#define BOTH_ENGINES(suite, ...)                                                                   \
	do {                                                                                       \
		add_tests(suite, "sync", set_up_sync, block_tear_down, __VA_ARGS__);               \
		add_tests(suite, "async", set_up_async, block_tear_down, __VA_ARGS__);             \
	} while (0)

Suite *block_suite(void)
{
	Suite *suite = suite_create("block");

	BOTH_ENGINES(suite, write_reaches_the_file_and_is_read_back,
		     last_sector_is_read_and_written, header_may_be_split_anywhere,
		     header_and_data_may_share_a_descriptor, data_and_status_may_share_a_descriptor,
		     request_without_status_comes_back_empty, request_without_header_fails,
		     id_is_padded_with_zeroes, id_is_cut_and_may_be_scattered,
		     id_needs_its_20_bytes, flush_is_done_with_and_without_writeback,
		     writes_are_durable_for_a_driver_that_declines_flush, zeroes_are_written,
		     range_above_the_maximum_is_refused, discarded_blocks_are_given_back,
		     range_above_the_maximum_is_refused, sixteen_ranges_are_done,
		     ranges_of_odd_length_are_refused, ranges_need_their_feature,
		     read_only_drive_is_not_written, read_of_a_file_that_was_cut_off_fails,
		     write_that_the_host_refuses_fails, many_requests_at_a_time_keep_their_data,
		     large_request_is_done_in_steps, large_write_is_done_in_steps,
		     slots_serve_a_driver_that_never_waits);
	add_table_test(suite, set_up_sync, block_tear_down, bad_request_is_refused,
		       ARRAY_SIZE(bad_requests));
	add_table_test(suite, set_up_async, block_tear_down, bad_range_is_refused,
		       ARRAY_SIZE(bad_ranges));
	return suite;
}
