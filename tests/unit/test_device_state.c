/* SPDX-License-Identifier: Apache-2.0 */
/* What every device saves, and the transport's registers. */
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>

#include "base/array.h"

#include "base/err.h"
#include "tests/unit/driver.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"

#define FEATURE (UINT64_C(1) << 3)
#define OTHER_FEATURE (UINT64_C(1) << 4)
#define CHANGING (UINT64_C(1) << 5)

/* Where fields are in what is saved. */
#define AT_STATUS 44
#define AT_OFFERED 45
#define AT_FEATURES 53
#define AT_INTERRUPT 61
#define AT_QUEUES 69
#define AT_QUEUE 73
#define IN_QUEUE_READY 2
#define IN_QUEUE_DESC 3

/* A device that writes back what it is sent. */
struct echo {
	struct virtio_device device;
	uint32_t value; /* its own state */
	uint8_t config[4];
};

static struct driver driver;
static struct echo echoes[2];
static struct state_writer saved;

static void echo_notified(struct virtio_device *device, unsigned int index)
{
	struct virtq *queue = &device->queues[index];
	struct iovec iov[VIRTQ_SIZE_MAX];
	struct virtq_chain chain;
	int rc;

	while ((rc = virtq_pop(queue, &chain, iov, VIRTQ_SIZE_MAX)) > 0)
		virtq_push(queue, chain.head, chain.out_len);
	virtio_device_publish(device, queue);
	if (rc < 0)
		virtio_device_fail(device, "%s", virtq_error(queue));
}

static void echo_save(const struct virtio_device *device, struct state_writer *out)
{
	state_put_u32(out, ((const struct echo *)device)->value);
}

static int echo_restore(struct virtio_device *device, struct state_reader *in, uint32_t version,
			struct err *err)
{
	uint32_t value = state_get_u32(in);
	int rc = virtio_device_read_all(device, in, err);

	ck_assert_uint_eq(version, 1);
	if (rc < 0)
		return rc;
	if (value > 99)
		return err_set(err, EINVAL, "%s: saved value %u", device->name, value);
	((struct echo *)device)->value = value;
	return 0;
}

static void echo_close(struct virtio_device *device)
{
	virtio_device_release(device);
}

static const struct virtio_ops echo_ops = {
	.notified = echo_notified,
	.state_version = 1,
	.save = echo_save,
	.restore = echo_restore,
	.changing_features = CHANGING,
	.close = echo_close,
};

static void open_echo(struct echo *echo)
{
	const uint16_t sizes[] = { 64, 256 };
	struct err err;

	memset(echo, 0, sizeof(*echo));
	ck_assert_int_eq(
		virtio_device_open(&echo->device, &echo_ops, VIRTIO_ID_RNG, "echo", sizes, 2, &err),
		0);
	echo->device.features = FEATURE | CHANGING;
	echo->device.config = echo->config;
	echo->device.config_size = sizeof(echo->config);
}

static void set_up(void)
{
	driver_open(&driver);
	open_echo(&echoes[0]);
	open_echo(&echoes[1]);
	driver_attach(&driver, &echoes[0].device);
}

static void tear_down(void)
{
	for (unsigned int i = 0; i < 2; i++)
		virtio_device_close(&echoes[i].device);
	state_writer_free(&saved);
	driver_close(&driver);
}

static void move(void)
{
	saved = driver_save(&driver);
	driver_move(&driver, &echoes[1].device, &saved);
}

/* Saves as a device that runs; the second one is then the driver's, and untouched. */
static void save_running(void)
{
	echoes[0].value = 7;
	driver_start(&driver, FEATURE | CHANGING, 32);
	saved = driver_save(&driver);
	memset(&driver.mmio, 0, sizeof(driver.mmio));
	driver_attach(&driver, &echoes[1].device);
}

static void add(unsigned int queue)
{
	const struct driver_buffer buffer = { DRIVER_DATA, 5, false };

	driver_add(&driver, queue, &buffer, 1);
}

static unsigned int count_used(unsigned int queue)
{
	unsigned int count = 0;
	uint32_t head, len;

	while (driver_used(&driver, queue, &head, &len)) {
		ck_assert_uint_eq(len, 5);
		count++;
	}
	return count;
}

START_TEST(device_without_a_driver)
{
	move();
	ck_assert(!driver_interrupted(&driver));
	ck_assert(!echoes[1].device.active);
	virtio_device_thaw(&echoes[1].device);
	driver_start(&driver, FEATURE, 0);
	add(0);
	driver_notify(&driver, 0);
	driver_run(&driver);
	ck_assert_uint_eq(count_used(0), 1);
}
END_TEST

/* In the middle of its set-up, which goes on. */
START_TEST(driver_that_has_not_come_far)
{
	static const struct {
		uint32_t offset, value;
	} steps[] = {
		{ VIRTIO_MMIO_STATUS, 1 },
		{ VIRTIO_MMIO_STATUS, 3 },
		{ VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1 },
		{ VIRTIO_MMIO_DRIVER_FEATURES, 1 },
		{ VIRTIO_MMIO_STATUS, 11 },
		{ VIRTIO_MMIO_QUEUE_SEL, 1 },
		{ VIRTIO_MMIO_QUEUE_NUM, 16 },
		{ VIRTIO_MMIO_QUEUE_DESC_LOW, 0x10000 },
		{ VIRTIO_MMIO_QUEUE_AVAIL_LOW, 0x20000 },
		{ VIRTIO_MMIO_QUEUE_USED_LOW, 0x30000 },
		{ VIRTIO_MMIO_QUEUE_READY, 1 },
		{ VIRTIO_MMIO_STATUS, 15 },
	};
	unsigned int which = 0;

	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		struct state_writer state = driver_save(&driver);

		which ^= 1;
		virtio_device_close(&echoes[which].device);
		open_echo(&echoes[which]);
		driver_move(&driver, &echoes[which].device, &state);
		state_writer_free(&state);
		virtio_device_thaw(&echoes[which].device);
		driver_write(&driver, steps[i].offset, steps[i].value);
	}
	ck_assert_uint_eq(driver_read(&driver, VIRTIO_MMIO_STATUS), 15);
	ck_assert_uint_eq(driver_read(&driver, VIRTIO_MMIO_QUEUE_READY), 1);
	ck_assert(echoes[which].device.active);
	ck_assert_uint_eq(echoes[which].device.queues[1].size, 16);
}
END_TEST

START_TEST(driver_goes_on_with_the_new_device)
{
	echoes[0].value = 42;
	driver_start(&driver, FEATURE, 16);
	for (unsigned int i = 0; i < 21; i++) {
		add(1);
		driver_notify(&driver, 1);
		driver_run(&driver);
		ck_assert_uint_eq(count_used(1), 1);
	}
	driver_write(&driver, VIRTIO_MMIO_INTERRUPT_ACK, 3);
	move();
	ck_assert_uint_eq(echoes[1].value, 42);
	ck_assert_uint_eq(driver_read(&driver, VIRTIO_MMIO_QUEUE_READY), 1);
	ck_assert_uint_eq(driver_read(&driver, VIRTIO_MMIO_STATUS), 15);
	ck_assert(!driver_interrupted(&driver));
	/* Frozen: it looks at nothing. */
	add(1);
	driver_notify(&driver, 1);
	driver_run(&driver);
	ck_assert_uint_eq(count_used(1), 0);
	virtio_device_thaw(&echoes[1].device);
	driver_run(&driver);
	ck_assert_uint_eq(count_used(1), 1);
	ck_assert(driver_interrupted(&driver));
}
END_TEST

START_TEST(requests_that_nobody_has_looked_at_are_served)
{
	driver_start(&driver, FEATURE | UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX, 0);
	add(0);
	add(1);
	add(1);
	move();
	virtio_device_thaw(&echoes[1].device);
	driver_run(&driver);
	ck_assert_uint_eq(count_used(0), 1);
	ck_assert_uint_eq(count_used(1), 2);
}
END_TEST

/* KVM may not have given it to the guest yet. */
START_TEST(interrupt_that_was_not_acknowledged_comes_again)
{
	driver_start(&driver, FEATURE, 0);
	add(0);
	driver_notify(&driver, 0);
	driver_run(&driver);
	ck_assert(driver_interrupted(&driver));
	move();
	ck_assert(driver_interrupted(&driver));
	ck_assert_uint_eq(driver_read(&driver, VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_ISR_QUEUE);
	ck_assert_uint_eq(count_used(0), 1);
}
END_TEST

START_TEST(device_that_needs_a_reset_does_so_still)
{
	driver_start(&driver, FEATURE, 0);
	driver.queues[0].vring.avail->idx = 999;
	driver_notify(&driver, 0);
	driver_run(&driver);
	move();
	ck_assert_uint_eq(driver_read(&driver, VIRTIO_MMIO_STATUS),
			  15 | VIRTIO_CONFIG_S_NEEDS_RESET);
	ck_assert_uint_eq(driver_read(&driver, VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_ISR_CONFIG);
	ck_assert(driver_interrupted(&driver));
	ck_assert(!echoes[1].device.active);
	virtio_device_thaw(&echoes[1].device);
	driver_run(&driver);
	driver_start(&driver, FEATURE, 0);
	add(0);
	driver_notify(&driver, 0);
	driver_run(&driver);
	ck_assert_uint_eq(count_used(0), 1);
}
END_TEST

START_TEST(generation_is_kept)
{
	virtio_device_config_changed(&echoes[0].device);
	virtio_device_config_changed(&echoes[0].device);
	move();
	ck_assert_uint_eq(driver_read(&driver, VIRTIO_MMIO_CONFIG_GENERATION), 2);
}
END_TEST

/* Whether the page is there before the restore or comes after it. */
START_TEST(page_shows_what_was_restored)
{
	uint32_t *page = calloc(1, VIRTIO_MMIO_SIZE);

	driver_start(&driver, FEATURE, 32);
	add(0);
	driver_notify(&driver, 0);
	driver_run(&driver);
	driver_write(&driver, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
	driver_write(&driver, VIRTIO_MMIO_QUEUE_SEL, 0);
	saved = driver_save(&driver);
	if (_i == 0) {
		driver.mmio.device = &echoes[1].device;
		virtio_mmio_show(&driver.mmio, page);
		driver_attach(&driver, &echoes[1].device);
		struct state_reader reader = { .at = saved.data, .left = saved.size };
		struct err err;

		ck_assert_int_eq(virtio_mmio_restore(&driver.mmio, &reader, &err), 0);
	} else {
		driver_move(&driver, &echoes[1].device, &saved);
		virtio_mmio_show(&driver.mmio, page);
	}
	ck_assert_uint_eq(page[VIRTIO_MMIO_STATUS / 4], 15);
	ck_assert_uint_eq(page[VIRTIO_MMIO_QUEUE_READY / 4], 1);
	ck_assert_uint_eq(page[VIRTIO_MMIO_QUEUE_NUM_MAX / 4], 64);
	ck_assert_uint_eq(page[VIRTIO_MMIO_DEVICE_FEATURES / 4], 1);
	ck_assert_uint_eq(page[VIRTIO_MMIO_INTERRUPT_STATUS / 4], VIRTIO_ISR_QUEUE);
	virtio_mmio_hide(&driver.mmio);
	free(page);
}
END_TEST

/* What is behind the device can less here; the driver keeps what it has. */
START_TEST(feature_that_may_change_is_kept)
{
	driver_start(&driver, FEATURE | CHANGING, 0);
	echoes[1].device.features = FEATURE;
	move();
	driver_write(&driver, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
	ck_assert_uint_eq(driver_read(&driver, VIRTIO_MMIO_DEVICE_FEATURES) & CHANGING, CHANGING);
	ck_assert(virtio_has_feature(&echoes[1].device, 5));
}
END_TEST

START_TEST(device_without_a_driver_offers_what_it_can)
{
	echoes[0].device.features = OTHER_FEATURE;
	move();
	ck_assert_uint_eq(echoes[1].device.features, FEATURE | CHANGING);
}
END_TEST

START_TEST(feature_that_is_not_there_is_refused)
{
	save_running();
	echoes[1].device.features = 0;
	driver_restore_fails(&driver, &saved,
			     "echo: it offered features 0x8 when it was saved, which it cannot "
			     "here");
	ck_assert_uint_eq(echoes[1].device.features, 0);
}
END_TEST

static const struct {
	size_t at;
	uint64_t value;
	unsigned int size;
	const char *sentence;
} hostile[] = {
	{ 0, 9, 4, "echo: its saved state is of kind 9 instead of 1" },
	{ 4, 0, 4, "echo: its saved state has version 0, and this program knows version 1" },
	{ 4, 2, 4, "echo: its saved state has version 2, and this program knows version 1" },
	{ 8, 1, 8,
	  "echo: its saved state is cut off, or has a value or a size that it cannot have" },
	{ 28, 9, 4, "echo: its saved state is of kind 9 instead of 2" },
	{ 32, 9, 4, "echo: its saved state has version 9, and this program knows version 1" },
	{ AT_STATUS, 4, 1, "echo: saved status 0x4, which no driver can reach" },
	{ AT_STATUS, 31, 1, "echo: saved status 0x1f, which no driver can reach" },
	{ AT_STATUS, 3, 1, "echo: saved queue 0 is ready too early" },
	{ AT_OFFERED, 8 | 16, 8,
	  "echo: it offered features 0x10 when it was saved, which it cannot here" },
	{ AT_FEATURES, 8 | 16 | UINT64_C(1) << 32, 8,
	  "echo: saved features 0x100000018, of which 0x28 were offered" },
	{ AT_FEATURES, 8, 8, "echo: saved features 0x8, of which 0x28 were offered" },
	{ AT_INTERRUPT, 4, 4, "echo: saved interrupt status 0x4" },
	{ AT_QUEUES, 3, 4, "echo: it has 2 queues, and 3 in its saved state" },
	{ AT_QUEUE, 0, 2, "echo: saved queue 0 has a bad size or address" },
	{ AT_QUEUE, 24, 2, "echo: saved queue 0 has a bad size or address" },
	{ AT_QUEUE, 128, 2, "echo: saved queue 0 has a bad size or address" },
	{ AT_QUEUE + 31, 512, 2, "echo: saved queue 1 has a bad size or address" },
	{ AT_QUEUE + IN_QUEUE_DESC, DRIVER_MEMORY, 8,
	  "echo: saved queue 0 has a bad size or address" },
	{ AT_QUEUE + IN_QUEUE_DESC, DRIVER_RINGS + 8, 8,
	  "echo: saved queue 0 has a bad size or address" },
	{ AT_QUEUE + IN_QUEUE_READY, 2, 1,
	  "echo: its saved state is cut off, or has a value or a size that it cannot have" },
	{ AT_QUEUE + 62, 9, 4, "echo: its saved state is of kind 9 instead of 4" },
	{ AT_QUEUE + 66, 2, 4,
	  "echo: its saved state has version 2, and this program knows version 1" },
	{ AT_QUEUE + 78, 100, 4, "echo: saved value 100" },
};

START_TEST(hostile_value_is_refused)
{
	save_running();
	ck_assert_uint_le(hostile[_i].at + hostile[_i].size, saved.size);
	memcpy(saved.data + hostile[_i].at, &hostile[_i].value, hostile[_i].size);
	driver_restore_fails(&driver, &saved, hostile[_i].sentence);
	ck_assert(!driver_interrupted(&driver));
}
END_TEST

/* Of the transport, the device, and the device type. */
START_TEST(byte_too_many_in_a_section_is_refused)
{
	static const size_t sizes[] = { 8, 36, AT_QUEUE + 70 };

	save_running();
	state_put_u8(&saved, 0);
	for (int i = 0; i <= _i; i++)
		saved.data[sizes[i]]++;
	driver_restore_fails(&driver, &saved,
			     "echo: its saved state is cut off, or has a value or a size that it "
			     "cannot have");
}
END_TEST

/* Ring indices are free. */
START_TEST(hostile_indices_break_the_queue)
{
	driver_start(&driver, FEATURE, 0);
	saved = driver_save(&driver);
	memset(saved.data + AT_QUEUE + 27, 0x55, 4);
	driver_move(&driver, &echoes[1].device, &saved);
	virtio_device_thaw(&echoes[1].device);
	driver_run(&driver);
	ck_assert(driver_read(&driver, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
}
END_TEST

START_TEST(mangled_state_is_refused_or_harmless)
{
	save_running();
	driver_try_mangled(&driver, &saved);
}
END_TEST

Suite *device_state_suite(void)
{
	Suite *suite =
		SUITE("device_state", set_up, tear_down, device_without_a_driver,
		      driver_that_has_not_come_far, driver_goes_on_with_the_new_device,
		      requests_that_nobody_has_looked_at_are_served,
		      interrupt_that_was_not_acknowledged_comes_again,
		      device_that_needs_a_reset_does_so_still, generation_is_kept,
		      feature_that_may_change_is_kept, device_without_a_driver_offers_what_it_can,
		      feature_that_is_not_there_is_refused, hostile_indices_break_the_queue,
		      mangled_state_is_refused_or_harmless);

	add_table_test(suite, set_up, tear_down, page_shows_what_was_restored, 2);
	add_table_test(suite, set_up, tear_down, byte_too_many_in_a_section_is_refused, 3);
	add_table_test(suite, set_up, tear_down, hostile_value_is_refused, ARRAY_SIZE(hostile));
	return suite;
}
