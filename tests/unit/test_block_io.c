/* SPDX-License-Identifier: Apache-2.0 */
/* The steps of an I/O, and what its results teach about the file. */
#include "virtio/block/io.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>

#include "tests/unit/suites.h"
#include "tests/unit/support.h"
#include "virtio/block/file.h"

#define PUNCH_HOLE (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
#define ZERO_RANGE (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE)

static struct block_file file;

static struct block_io zeroes(uint64_t len, bool unmap)
{
	return (struct block_io){ .kind = BLOCK_IO_WRITE_ZEROES,
				  .file = &file,
				  .ranges = { { 0, len, unmap } },
				  .range_count = 1 };
}

static void set_up(void)
{
	file = (struct block_file){ .fd = -1, .write_zeroes = true, .discard = true };
}

static int mode_of_next(struct block_io *io)
{
	struct block_step step;

	block_io_next(io, &step);
	return step.fallocate_mode;
}

/* Both have been begun before the first one's answer is there. */
START_TEST(two_that_are_refused_at_once_teach_the_same)
{
	struct block_io one = zeroes(SIZE_MAX / 4, _i), other = one;
	const int first = mode_of_next(&one),
		  second = first == ZERO_RANGE ? PUNCH_HOLE : ZERO_RANGE;

	ck_assert_int_eq(mode_of_next(&other), first);
	ck_assert_int_eq(block_io_advance(&one, -EOPNOTSUPP), 1);
	ck_assert_int_eq(block_io_advance(&other, -EOPNOTSUPP), 1);
	ck_assert_int_eq(file.no_zero_range, first == ZERO_RANGE);
	ck_assert_int_eq(file.no_punch_hole, first == PUNCH_HOLE);
	ck_assert_int_eq(mode_of_next(&one), second);
	ck_assert_int_eq(mode_of_next(&other), second);
	/* Refused both ways, there is none. */
	ck_assert_int_eq(block_io_advance(&one, -EOPNOTSUPP), -EOPNOTSUPP);
	ck_assert_int_eq(block_io_advance(&other, -EOPNOTSUPP), -EOPNOTSUPP);
}
END_TEST

START_TEST(ranges_are_done_in_bounded_steps)
{
	const uint64_t first = 5 * BLOCK_RANGE_STEP_MAX + 512, second = 4096;
	struct block_io io = { .kind = _i ? BLOCK_IO_DISCARD : BLOCK_IO_WRITE_ZEROES,
			       .file = &file,
			       .ranges = { { 512, first, false }, { GIB(1), second, true } },
			       .range_count = 2 };
	uint64_t offset = 512, left = first;
	struct block_step step;
	int rc;

	do {
		block_io_next(&io, &step);
		ck_assert_uint_le(step.len, BLOCK_RANGE_STEP_MAX);
		ck_assert_uint_ge(block_step_cost(&step), BLOCK_STEP_MAX);
		ck_assert_uint_eq(step.offset, offset);
		ck_assert_uint_le(step.len, left);
		offset += step.len;
		left -= step.len;
		rc = block_io_advance(&io, 0);
		if (left == 0 && rc > 0) {
			ck_assert_uint_eq(offset, 512 + first);
			offset = GIB(1);
			left = second;
		}
	} while (rc > 0);
	ck_assert_int_eq(rc, 0);
	ck_assert_uint_eq(left, 0);
	ck_assert_uint_eq(offset, GIB(1) + second);
}
END_TEST

START_TEST(transfer_goes_on_after_an_interruption_and_ends_with_the_file)
{
	char data[1024];
	struct iovec iov = { data, sizeof(data) };
	struct block_io io = { .kind = _i ? BLOCK_IO_WRITE : BLOCK_IO_READ,
			       .file = &file,
			       .iov = &iov,
			       .iov_count = 1,
			       .len = sizeof(data) };

	ck_assert_int_eq(block_io_advance(&io, -EINTR), 1);
	ck_assert_uint_eq(io.len, sizeof(data));
	ck_assert_int_eq(block_io_advance(&io, 512), 1);
	ck_assert_uint_eq(io.offset, 512);
	ck_assert_ptr_eq(io.iov[0].iov_base, data + 512);
	/* Nothing more is there, and would not be the next time either. */
	ck_assert_int_eq(block_io_advance(&io, 0), -ENODATA);
	ck_assert_int_eq(block_io_advance(&io, 513), -EIO);
	ck_assert_int_eq(block_io_advance(&io, 512), 0);
}
END_TEST

Suite *block_io_suite(void)
{
	Suite *suite = suite_create("block_io");

	add_table_test(suite, set_up, NULL, two_that_are_refused_at_once_teach_the_same, 2);
	add_table_test(suite, set_up, NULL, ranges_are_done_in_bounded_steps, 2);
	add_table_test(suite, set_up, NULL,
		       transfer_goes_on_after_an_interruption_and_ends_with_the_file, 2);
	return suite;
}
