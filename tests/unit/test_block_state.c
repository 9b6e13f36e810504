/* SPDX-License-Identifier: Apache-2.0 */
/* A drive that is saved at every point of its life, and the drive that takes its place. */
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/err.h"
#include "tests/unit/block_fixture.h"
#include "tests/unit/suites.h"

#define REQUESTS 40

static struct state_writer saved;

static void set_up(void)
{
	block_set_up(BLOCK_ENGINE_ASYNC);
}

static void tear_down(void)
{
	state_writer_free(&saved);
	block_tear_down();
}

/* Saves and closes the one that there is, and opens another. */
static void replace(void)
{
	struct err err;

	saved = driver_save(&driver);
	virtio_device_close(block_device(block));
	ck_assert_msg(block_open(&block, &block_config, &err) == 0, "%s", err.text);
}

static void move(void)
{
	replace();
	driver_move(&driver, block_device(block), &saved);
}

/* As move(), but the drive has not been asked to take what was saved. */
static void attach_another(void)
{
	replace();
	memset(&driver.mmio, 0, sizeof(driver.mmio));
	driver_attach(&driver, block_device(block));
}

static void thaw(void)
{
	virtio_device_thaw(block_device(block));
}

static void add_read(unsigned int i)
{
	put_header(HEADER + 16 * i, VIRTIO_BLK_T_IN, i);
	*guest(STATUS + i, 1) = NO_STATUS;
	add_request(HEADER + 16 * i, DATA + (uint64_t)i * SECTOR, SECTOR, true, STATUS + i);
}

static void expect_reads(unsigned int count)
{
	uint8_t expected[SECTOR];
	uint32_t head, written;

	for (unsigned int i = 0; i < count; i++) {
		driver_wait_used(&driver, 0, &head, &written);
		ck_assert_uint_eq(written, SECTOR + 1);
	}
	for (unsigned int i = 0; i < count; i++) {
		ck_assert_uint_eq(*guest(STATUS + i, 1), VIRTIO_BLK_S_OK);
		image_read(expected, SECTOR, (uint64_t)i * SECTOR);
		ck_assert_mem_eq(guest(DATA + (uint64_t)i * SECTOR, SECTOR), expected, SECTOR);
	}
}

START_TEST(drive_without_a_driver)
{
	open_block();
	driver_reset(&driver);
	move();
	thaw();
	driver_start(&driver, ALL_FEATURES, 0);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, SECTOR, NULL), VIRTIO_BLK_S_OK);
}
END_TEST

START_TEST(idle_drive)
{
	open_block();
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, SECTOR, NULL), VIRTIO_BLK_S_OK);
	move();
	thaw();
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, SECTOR, NULL), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, 5, SECTOR, NULL), VIRTIO_BLK_S_OK);
}
END_TEST

START_TEST(requests_that_nobody_has_looked_at)
{
	open_block();
	for (unsigned int i = 0; i < REQUESTS; i++)
		add_read(i);
	move();
	driver_notify(&driver, 0);
	driver_run(&driver);
	ck_assert_uint_eq(*guest(STATUS, 1), NO_STATUS);
	thaw();
	expect_reads(REQUESTS);
}
END_TEST

/* They end before the drive is saved, and their interrupt comes again. */
START_TEST(requests_in_flight)
{
	open_block();
	for (unsigned int i = 0; i < REQUESTS; i++)
		add_read(i);
	driver_notify(&driver, 0);
	driver_run(&driver);
	move();
	ck_assert(driver_interrupted(&driver));
	ck_assert_uint_eq(driver_read(&driver, VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_ISR_QUEUE);
	thaw();
	expect_reads(REQUESTS);
	ck_assert_uint_eq(block->free_count, BLOCK_ENGINE_DEPTH);
}
END_TEST

START_TEST(request_that_the_disk_still_has)
{
	uint32_t head, written;

	open_block();
	use_held_engine();
	add_read(0);
	driver_notify(&driver, 0);
	driver_run(&driver);
	ck_assert_uint_eq(held.count, 1);
	held.lets_go = true;
	saved = driver_save(&driver);
	held.real->ops->close(held.real);
	held.real = NULL;
	virtio_device_close(block_device(block));
	ck_assert(driver_used(&driver, 0, &head, &written));
	ck_assert_uint_eq(*guest(STATUS, 1), VIRTIO_BLK_S_OK);
	ck_assert_int_eq(block_open(&block, &block_config, NULL), 0);
	driver_move(&driver, block_device(block), &saved);
	ck_assert(driver_interrupted(&driver));
	thaw();
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, SECTOR, NULL), VIRTIO_BLK_S_OK);
}
END_TEST

START_TEST(throttled_request_stays_throttled)
{
	uint32_t head, written;

	block_config.limiter.ops =
		(struct token_bucket_config){ .size = 1, .refill_time = INT64_C(1) << 40 };
	open_block();
	add_read(0);
	add_read(1);
	driver_notify(&driver, 0);
	driver_wait_used(&driver, 0, &head, &written);
	ck_assert_ptr_nonnull(block->held);
	/* What was saved counts, not what the new one is opened with. */
	memset(&block_config.limiter, 0, sizeof(block_config.limiter));
	move();
	thaw();
	driver_run(&driver);
	driver_run(&driver);
	ck_assert(!driver_used(&driver, 0, &head, &written));
	ck_assert_uint_eq(block->metrics.rate_limiter_throttled_events, 1);
	ck_assert_uint_eq(block->limiter.ops.size, 1);
	ck_assert_int_eq(block->limiter.ops.budget, 0);
	block_set_limiter(block, &(struct rate_limiter_config){ 0 });
	driver_wait_used(&driver, 0, &head, &written);
	ck_assert_uint_eq(*guest(STATUS + 1, 1), VIRTIO_BLK_S_OK);
}
END_TEST

START_TEST(drive_that_needs_a_reset)
{
	open_block();
	driver.queues[0].vring.avail->idx = 999;
	driver_notify(&driver, 0);
	driver_run(&driver);
	move();
	thaw();
	driver_run(&driver);
	ck_assert(driver_read(&driver, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
	driver_start(&driver, ALL_FEATURES, 0);
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, SECTOR, NULL), VIRTIO_BLK_S_OK);
}
END_TEST

/* The restored file cannot discard: what was negotiated stays, and each request is told. */
START_TEST(file_that_can_less)
{
	open_block();
	ck_assert(virtio_has_feature(block_device(block), VIRTIO_BLK_F_DISCARD));
	replace();
	block->file.discard = false;
	block_offer_features(block);
	driver_move(&driver, block_device(block), &saved);
	thaw();
	ck_assert(virtio_has_feature(block_device(block), VIRTIO_BLK_F_DISCARD));
	put_range(0, 0, 8, 0);
	ck_assert_uint_eq(request_ranges(VIRTIO_BLK_T_DISCARD, 1), VIRTIO_BLK_S_UNSUPP);
	driver_start(&driver, ALL_FEATURES, 0);
	ck_assert(!virtio_has_feature(block_device(block), VIRTIO_BLK_F_DISCARD));
}
END_TEST

START_TEST(drive_of_another_size_is_refused)
{
	create_image(IMAGE, 16);
	open_block();
	create_image("other.img", 8);
	block_config.path = "other.img";
	attach_another();
	driver_restore_fails(&driver, &saved,
			     "drive rootfs: has 4096 bytes, and 8192 when it was saved");
	unlink("other.img");
}
END_TEST

START_TEST(drive_with_another_id_is_refused)
{
	open_block();
	block_config.id = "data";
	attach_another();
	driver_restore_fails(&driver, &saved,
			     "drive data: it had another serial number when it was saved");
}
END_TEST

START_TEST(read_only_drive_stays_one)
{
	block_config.read_only = true;
	open_block();
	block_config.read_only = false;
	attach_another();
	driver_restore_fails(&driver, &saved,
			     "drive rootfs: it offered features 0x20 when it was saved, which it "
			     "cannot here");
}
END_TEST

START_TEST(limiter_that_cannot_be_is_refused)
{
	open_block();
	attach_another();
	/* The bandwidth's size, but no time to refill. */
	saved.data[driver_own_section(&driver) + 8 + BLOCK_ID_SIZE] = 1;
	driver_restore_fails(&driver, &saved, "drive rootfs: saved rate limiter that cannot be");
}
END_TEST

START_TEST(mangled_state_is_refused_or_harmless)
{
	open_block();
	add_read(0);
	attach_another();
	driver_try_mangled(&driver, &saved);
	driver_start(&driver, ALL_FEATURES, 0);
	block_set_limiter(block, &(struct rate_limiter_config){ 0 });
	ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, SECTOR, NULL), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(block->free_count, BLOCK_ENGINE_DEPTH);
}
END_TEST

Suite *block_state_suite(void)
{
	return SUITE("block_state", set_up, tear_down, drive_without_a_driver, idle_drive,
		     requests_that_nobody_has_looked_at, requests_in_flight,
		     request_that_the_disk_still_has, throttled_request_stays_throttled,
		     drive_that_needs_a_reset, file_that_can_less, drive_of_another_size_is_refused,
		     drive_with_another_id_is_refused, read_only_drive_stays_one,
		     limiter_that_cannot_be_is_refused, mangled_state_is_refused_or_harmless);
}
