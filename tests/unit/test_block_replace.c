/* SPDX-License-Identifier: Apache-2.0 */
/* Another file for a block device that is there. */
#include "virtio/block/block.h"

#include <linux/virtio_mmio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "tests/unit/block_fixture.h"
#include "tests/unit/suites.h"

static void set_up(void)
{
	block_set_up(BLOCK_ENGINE_ASYNC);
}

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
	ck_assert_uint_eq(block->metrics.update_count, 1);
	/* The first one is free again, the second one is not. */
	open_fails("second.img",
		   "drive rootfs: second.img: in use by another process or drive; " SHARED);
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
	open_fails(IMAGE, "drive rootfs: " IMAGE ": in use by another process or drive; " SHARED);
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
	ck_assert_uint_eq(block->metrics.update_fails, 2);
	ck_assert_uint_eq(block->metrics.update_count, 0);
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
	held.lets_go = true;
	ck_assert_int_eq(block_replace_file(block, "second.img", &err), 0);
	ck_assert_uint_eq(held.count, 0);
	ck_assert(driver_used(&driver, 0, &head, &written));
	ck_assert_uint_eq(*guest(STATUS, 1), VIRTIO_BLK_S_OK);
	unlink("second.img");
}
END_TEST

START_TEST(file_stays_if_its_requests_do_not_end)
{
	unsigned int fds;
	struct err err;

	open_block();
	use_held_engine();
	create_image("second.img", 8);
	put_header(HEADER, VIRTIO_BLK_T_OUT, 0);
	add_request(HEADER, DATA, SECTOR, false, STATUS);
	driver_notify(&driver, 0);
	driver_run(&driver);
	fds = count_open_fds();
	ck_assert_int_eq(block_replace_file(block, "second.img", &err), -EBUSY);
	ck_assert_str_eq(err.text,
			 "drive rootfs: what is in flight on its present file does not end in "
			 "time, and nothing has changed");
	ck_assert_uint_eq(count_open_fds(), fds);
	ck_assert_uint_eq(held.count, 1);
	ck_assert_uint_eq(CONFIG(capacity), IMAGE_SECTORS);
	ck_assert_uint_eq(block->metrics.update_fails, 1);
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
	ck_assert_ptr_nonnull(block->held);
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

Suite *block_replace_suite(void)
{
	return SUITE("block_replace", set_up, block_tear_down, replaced_file_is_served,
		     file_that_has_grown_is_replaced_by_itself, failed_replacement_changes_nothing,
		     replacement_before_the_driver_comes, what_is_in_flight_ends_on_the_old_file,
		     file_stays_if_its_requests_do_not_end,
		     waiting_write_does_not_make_a_shorter_file_grow);
}
