/* SPDX-License-Identifier: Apache-2.0 */
#include "base/array.h"
#include "virtio/core/mmio.h"

#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>

#include "base/err.h"
#include "tests/unit/driver.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"

#define FEATURE (UINT64_C(1) << 3)
#define VERSION_1 (UINT64_C(1) << VIRTIO_F_VERSION_1)

/* A device that writes back what it is sent, and breaks when it is asked to. */
static struct echo {
	struct virtio_device device;
	unsigned int activations, resets, notifications;
	int refuse;
	bool busy; /* a reset has to wait */
	int holds; /* begun and not done */
	uint8_t config[5];
	uint8_t beyond[VIRTIO_MMIO_SIZE]; /* what no driver sees */
} echo;

static struct driver driver;

static int echo_activate(struct virtio_device *device)
{
	(void)device;
	echo.activations++;
	return echo.refuse;
}

static bool echo_reset(struct virtio_device *device)
{
	ck_assert(!device->active);
	echo.resets++;
	return !echo.busy;
}

static void hold(void *opaque, bool begins)
{
	ck_assert_ptr_eq(opaque, &echo);
	echo.holds += begins ? 1 : -1;
}

static void echo_notified(struct virtio_device *device, unsigned int index)
{
	struct virtq *queue = &device->queues[index];
	struct iovec iov[VIRTQ_SIZE_MAX];
	struct virtq_chain chain;
	int rc;

	echo.notifications++;
	while ((rc = virtq_pop(queue, &chain, iov, VIRTQ_SIZE_MAX)) > 0)
		virtq_push(queue, chain.head, chain.out_len);
	virtio_device_publish(device, queue);
	if (rc < 0)
		virtio_device_fail(device, "%s", virtq_error(queue));
}

static void echo_close(struct virtio_device *device)
{
	virtio_device_release(device);
}

static const struct virtio_ops echo_ops = {
	.activate = echo_activate,
	.reset = echo_reset,
	.notified = echo_notified,
	.close = echo_close,
};

static void set_up(void)
{
	const uint16_t sizes[] = { 64, 256 };
	struct err err;

	memset(&echo, 0, sizeof(echo));
	memset(echo.beyond, 0xee, sizeof(echo.beyond));
	driver_open(&driver);
	ck_assert_int_eq(
		virtio_device_open(&echo.device, &echo_ops, VIRTIO_ID_RNG, "echo", sizes, 2, &err),
		0);
	echo.device.features = FEATURE;
	memcpy(echo.config, "\x11\x22\x33\x44\x55", 5);
	echo.device.config = echo.config;
	echo.device.config_size = sizeof(echo.config);
	driver_attach(&driver, &echo.device);
}

static void tear_down(void)
{
	virtio_device_close(&echo.device);
	driver_close(&driver);
}

static uint32_t status(void)
{
	return driver_read(&driver, VIRTIO_MMIO_STATUS);
}

static void negotiate(uint64_t features)
{
	driver_reset(&driver);
	driver_write(&driver, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	driver_write(&driver, VIRTIO_MMIO_STATUS,
		     VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	for (uint32_t half = 0; half < 2; half++) {
		driver_write(&driver, VIRTIO_MMIO_DRIVER_FEATURES_SEL, half);
		driver_write(&driver, VIRTIO_MMIO_DRIVER_FEATURES,
			     (uint32_t)(features >> (32 * half)));
	}
	driver_write(&driver, VIRTIO_MMIO_STATUS, status() | VIRTIO_CONFIG_S_FEATURES_OK);
}

START_TEST(identity_and_offer)
{
	ck_assert_uint_eq(driver_read(&driver, VIRTIO_MMIO_MAGIC_VALUE), 0x74726976);
	ck_assert_uint_eq(driver_read(&driver, VIRTIO_MMIO_VERSION), 2);
	ck_assert_uint_eq(driver_read(&driver, VIRTIO_MMIO_DEVICE_ID), VIRTIO_ID_RNG);
	ck_assert_uint_eq(driver_read(&driver, VIRTIO_MMIO_DEVICE_FEATURES),
			  FEATURE | 1u << VIRTIO_RING_F_EVENT_IDX |
				  1u << VIRTIO_RING_F_INDIRECT_DESC);
	driver_write(&driver, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
	ck_assert_uint_eq(driver_read(&driver, VIRTIO_MMIO_DEVICE_FEATURES), 1);
	driver_write(&driver, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 2);
	ck_assert_uint_eq(driver_read(&driver, VIRTIO_MMIO_DEVICE_FEATURES), 0);
	for (uint32_t queue = 0; queue < 4; queue++) {
		static const uint32_t sizes[] = { 64, 256, 0, 0 };

		driver_write(&driver, VIRTIO_MMIO_QUEUE_SEL, queue);
		ck_assert_uint_eq(driver_read(&driver, VIRTIO_MMIO_QUEUE_NUM_MAX), sizes[queue]);
	}
	ck_assert_uint_eq(driver_read(&driver, VIRTIO_MMIO_SHM_LEN_LOW), UINT32_MAX);
	ck_assert_uint_eq(driver_read(&driver, VIRTIO_MMIO_SHM_BASE_HIGH), UINT32_MAX);
}
END_TEST

START_TEST(configuration_is_read_in_any_width)
{
	uint8_t data[8];

	virtio_mmio_ops.read(&driver.mmio, VIRTIO_MMIO_CONFIG + 1, data, 2);
	ck_assert_mem_eq(data, "\x22\x33", 2);
	virtio_mmio_ops.read(&driver.mmio, VIRTIO_MMIO_CONFIG, data, 8);
	ck_assert_mem_eq(data, "\x11\x22\x33\x44\x55\0\0\0", 8);
	virtio_mmio_ops.read(&driver.mmio, VIRTIO_MMIO_CONFIG + 5, data, 1);
	ck_assert_uint_eq(data[0], 0);
	virtio_mmio_ops.read(&driver.mmio, VIRTIO_MMIO_SIZE - 8, data, 8);
	ck_assert_uint_eq(data[7], 0);
	driver_write(&driver, VIRTIO_MMIO_CONFIG, 0);
	ck_assert_mem_eq(echo.config, "\x11\x22\x33\x44\x55", 5);
}
END_TEST

START_TEST(registers_are_words)
{
	uint8_t data[8] = { 0xff };

	virtio_mmio_ops.read(&driver.mmio, VIRTIO_MMIO_MAGIC_VALUE, data, 1);
	ck_assert_uint_eq(data[0], 0);
	virtio_mmio_ops.read(&driver.mmio, VIRTIO_MMIO_MAGIC_VALUE + 2, data, 4);
	ck_assert_mem_eq(data, "\0\0\0\0", 4);
	virtio_mmio_ops.write(&driver.mmio, VIRTIO_MMIO_STATUS, (const uint8_t *)"\1", 1);
	ck_assert_uint_eq(status(), 0);
	virtio_mmio_ops.write(&driver.mmio, VIRTIO_MMIO_STATUS, (const uint8_t *)"\1\0\0\0\0\0\0\0",
			      8);
	ck_assert_uint_eq(status(), 0);
}
END_TEST

START_TEST(every_register_takes_every_value)
{
	static const uint32_t values[] = { 0, 1, 2, 0x80, 0xff, 0x100, 0x10000, UINT32_MAX };

	for (uint64_t offset = 0; offset < VIRTIO_MMIO_SIZE; offset += 4) {
		for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
			driver_write(&driver, offset, values[i]);
			driver_read(&driver, offset);
		}
	}
	driver_start(&driver, FEATURE, 0);
	for (uint64_t offset = 0; offset < VIRTIO_MMIO_SIZE; offset += 4) {
		for (size_t i = 0; i < ARRAY_SIZE(values); i++)
			driver_write(&driver, offset, values[i]);
	}
	driver_reset(&driver);
	driver_start(&driver, FEATURE, 0);
	ck_assert(echo.device.active);
}
END_TEST

START_TEST(negotiation_takes_a_part_of_the_offer)
{
	negotiate(VERSION_1 | FEATURE);
	ck_assert_uint_eq(status(), VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |
					    VIRTIO_CONFIG_S_FEATURES_OK);
	/* They are final now. */
	driver_write(&driver, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
	driver_write(&driver, VIRTIO_MMIO_DRIVER_FEATURES, 0);
	ck_assert_uint_eq(echo.device.driver_features, VERSION_1 | FEATURE);
	negotiate(VERSION_1);
	ck_assert(status() & VIRTIO_CONFIG_S_FEATURES_OK);
}
END_TEST

START_TEST(negotiation_refuses_what_was_not_offered)
{
	negotiate(FEATURE);
	ck_assert(!(status() & VIRTIO_CONFIG_S_FEATURES_OK));
	negotiate(VERSION_1 | 2);
	ck_assert(!(status() & VIRTIO_CONFIG_S_FEATURES_OK));
	negotiate(VERSION_1 | UINT64_C(1) << 63);
	ck_assert(!(status() & VIRTIO_CONFIG_S_FEATURES_OK));
	/* So the device cannot be started. */
	driver_write(&driver, VIRTIO_MMIO_STATUS, status() | VIRTIO_CONFIG_S_DRIVER_OK);
	ck_assert(!(status() & VIRTIO_CONFIG_S_DRIVER_OK));
	ck_assert_uint_eq(echo.activations, 0);
}
END_TEST

START_TEST(status_bits_come_in_their_order)
{
	static const uint32_t bad[] = {
		VIRTIO_CONFIG_S_DRIVER,
		VIRTIO_CONFIG_S_FEATURES_OK,
		VIRTIO_CONFIG_S_DRIVER_OK,
		VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_FEATURES_OK,
		VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_DRIVER_OK,
		0x100 | VIRTIO_CONFIG_S_ACKNOWLEDGE,
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		driver_write(&driver, VIRTIO_MMIO_STATUS, bad[i]);
		ck_assert_uint_eq(status(), 0);
	}
	driver_write(&driver, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	driver_write(&driver, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_DRIVER);
	ck_assert_uint_eq(status(), VIRTIO_CONFIG_S_ACKNOWLEDGE);
	driver_write(&driver, VIRTIO_MMIO_STATUS,
		     VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_FAILED);
	ck_assert_uint_eq(status(), VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_FAILED);
	driver_reset(&driver);
}
END_TEST

START_TEST(queues_are_set_up_in_their_time)
{
	driver_write(&driver, VIRTIO_MMIO_QUEUE_NUM, 32);
	ck_assert_uint_eq(echo.device.queues[0].size, 64);
	driver_start(&driver, FEATURE, 32);
	ck_assert_uint_eq(echo.device.queues[0].size, 32);
	driver_write(&driver, VIRTIO_MMIO_QUEUE_SEL, 0);
	driver_write(&driver, VIRTIO_MMIO_QUEUE_NUM, 16);
	driver_write(&driver, VIRTIO_MMIO_QUEUE_DESC_LOW, 0);
	driver_write(&driver, VIRTIO_MMIO_QUEUE_READY, 0);
	ck_assert_uint_eq(echo.device.queues[0].size, 32);
	ck_assert_uint_eq(echo.device.queues[0].desc_addr, DRIVER_RINGS);
	ck_assert_uint_eq(driver_read(&driver, VIRTIO_MMIO_QUEUE_READY), 1);
}
END_TEST

/* 4.2.2.2: neither while it is ready, before the device is. */
START_TEST(ready_queue_is_not_changed)
{
	negotiate(VERSION_1);
	driver_write(&driver, VIRTIO_MMIO_QUEUE_SEL, 0);
	driver_write(&driver, VIRTIO_MMIO_QUEUE_NUM, 32);
	driver_write(&driver, VIRTIO_MMIO_QUEUE_READY, 1);
	driver_write(&driver, VIRTIO_MMIO_QUEUE_NUM, 16);
	driver_write(&driver, VIRTIO_MMIO_QUEUE_USED_HIGH, 1);
	ck_assert_uint_eq(echo.device.queues[0].size, 32);
	ck_assert_uint_eq(echo.device.queues[0].used_addr, 0);
	driver_write(&driver, VIRTIO_MMIO_QUEUE_READY, 0);
	driver_write(&driver, VIRTIO_MMIO_QUEUE_NUM, 16);
	ck_assert_uint_eq(echo.device.queues[0].size, 16);
}
END_TEST

START_TEST(bad_queue_does_not_become_ready)
{
	negotiate(VERSION_1);
	driver_write(&driver, VIRTIO_MMIO_QUEUE_SEL, 0);
	driver_write(&driver, VIRTIO_MMIO_QUEUE_NUM, 65536 + 64);
	driver_write(&driver, VIRTIO_MMIO_QUEUE_READY, 1);
	ck_assert_uint_eq(driver_read(&driver, VIRTIO_MMIO_QUEUE_READY), 0);
	driver_write(&driver, VIRTIO_MMIO_QUEUE_NUM, 64);
	driver_write(&driver, VIRTIO_MMIO_QUEUE_USED_HIGH, 1);
	driver_write(&driver, VIRTIO_MMIO_QUEUE_READY, 1);
	ck_assert_uint_eq(driver_read(&driver, VIRTIO_MMIO_QUEUE_READY), 0);
	driver_write(&driver, VIRTIO_MMIO_QUEUE_USED_HIGH, 0);
	driver_write(&driver, VIRTIO_MMIO_QUEUE_READY, 1);
	ck_assert_uint_eq(driver_read(&driver, VIRTIO_MMIO_QUEUE_READY), 1);
	/* Without the others, the device starts all the same; they are not served. */
	driver_write(&driver, VIRTIO_MMIO_STATUS, status() | VIRTIO_CONFIG_S_DRIVER_OK);
	ck_assert(echo.device.active);
	driver_notify(&driver, 1);
	driver_run(&driver);
	ck_assert_uint_eq(echo.notifications, 1);
}
END_TEST

START_TEST(buffers_go_and_come_back)
{
	const struct driver_buffer buffers[] = { { DRIVER_DATA, 10, false },
						 { DRIVER_DATA + 100, 20, true } };
	uint32_t head, len;
	uint16_t added;

	driver_start(&driver, FEATURE, 0);
	driver_run(&driver);
	echo.notifications = 0;
	added = driver_add(&driver, 1, buffers, 2);
	driver_notify(&driver, 1);
	driver_notify(&driver, 1);
	driver_run(&driver);
	ck_assert(driver_used(&driver, 1, &head, &len));
	ck_assert_uint_eq(head, added);
	ck_assert_uint_eq(len, 10);
	ck_assert(!driver_used(&driver, 1, &head, &len));
	ck_assert_uint_eq(echo.notifications, 1);
	ck_assert(driver_interrupted(&driver));
	ck_assert_uint_eq(driver_read(&driver, VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_ISR_QUEUE);
	driver_write(&driver, VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_ISR_QUEUE);
	ck_assert_uint_eq(driver_read(&driver, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
}
END_TEST

START_TEST(what_is_there_at_the_start_is_served)
{
	const struct driver_buffer buffer = { DRIVER_DATA, 10, false };
	uint32_t head, len;

	driver_start(&driver, FEATURE, 0);
	driver_add(&driver, 0, &buffer, 1);
	driver_run(&driver);
	ck_assert(driver_used(&driver, 0, &head, &len));
}
END_TEST

START_TEST(broken_ring_needs_a_reset)
{
	const struct driver_buffer bad = { DRIVER_MEMORY, 10, false };
	const struct driver_buffer good = { DRIVER_DATA, 10, false };
	uint32_t head, len;

	driver_start(&driver, FEATURE, 0);
	for (unsigned int round = 1; round <= 3; round++) {
		driver_add(&driver, 0, &bad, 1);
		driver_notify(&driver, 0);
		driver_run(&driver);
		ck_assert(status() & VIRTIO_CONFIG_S_NEEDS_RESET);
		ck_assert_uint_eq(echo.device.broken_count, round);
		ck_assert_uint_eq(driver_read(&driver, VIRTIO_MMIO_INTERRUPT_STATUS),
				  VIRTIO_ISR_CONFIG);
		/* It is dead until then, and its other queue, too. */
		driver_add(&driver, 1, &good, 1);
		driver_notify(&driver, 1);
		driver_run(&driver);
		ck_assert(!driver_used(&driver, 1, &head, &len));
		driver_start(&driver, FEATURE, 0);
		ck_assert_uint_eq(driver_read(&driver, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
		driver_add(&driver, 1, &good, 1);
		driver_notify(&driver, 1);
		driver_run(&driver);
		ck_assert(driver_used(&driver, 1, &head, &len));
		driver_write(&driver, VIRTIO_MMIO_INTERRUPT_ACK, 3);
	}
}
END_TEST

START_TEST(device_that_refuses_to_start_needs_a_reset)
{
	echo.refuse = -5;
	negotiate(VERSION_1);
	driver_write(&driver, VIRTIO_MMIO_STATUS, status() | VIRTIO_CONFIG_S_DRIVER_OK);
	ck_assert(status() & VIRTIO_CONFIG_S_NEEDS_RESET);
	ck_assert(!echo.device.active);
	driver_reset(&driver);
	echo.refuse = 0;
	driver_start(&driver, FEATURE, 0);
	ck_assert(echo.device.active);
}
END_TEST

START_TEST(configuration_change_is_told)
{
	uint32_t generation = driver_read(&driver, VIRTIO_MMIO_CONFIG_GENERATION);

	virtio_device_config_changed(&echo.device);
	ck_assert_uint_ne(driver_read(&driver, VIRTIO_MMIO_CONFIG_GENERATION), generation);
	ck_assert(!driver_interrupted(&driver));
	driver_start(&driver, FEATURE, 0);
	virtio_device_config_changed(&echo.device);
	ck_assert(driver_interrupted(&driver));
	ck_assert_uint_eq(driver_read(&driver, VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_ISR_CONFIG);
}
END_TEST

START_TEST(reset_forgets_the_driver)
{
	driver_start(&driver, FEATURE, 32);
	driver_reset(&driver);
	ck_assert_uint_ge(echo.resets, 1);
	ck_assert(!echo.device.active);
	ck_assert_uint_eq(echo.device.driver_features, 0);
	ck_assert_uint_eq(echo.device.queues[1].size, 256);
	ck_assert_uint_eq(echo.device.queues[1].max_size, 256);
	ck_assert(!echo.device.queues[1].ready);
	echo.notifications = 0;
	driver_notify(&driver, 0);
	driver_run(&driver);
	ck_assert_uint_eq(echo.notifications, 0);
}
END_TEST

/* Until it is done its driver, which takes its memory back then, must not go on. */
START_TEST(reset_that_has_to_wait_holds_its_driver)
{
	driver_start(&driver, FEATURE, 0);
	echo.device.hold = hold;
	echo.device.hold_opaque = &echo;
	echo.busy = true;
	echo.resets = 0;
	driver_write(&driver, VIRTIO_MMIO_STATUS, 0);
	ck_assert_int_eq(echo.holds, 1);
	ck_assert(!echo.device.active);
	ck_assert_uint_ne(driver_read(&driver, VIRTIO_MMIO_STATUS), 0);
	/* Another vCPU's writes: one more reset, and the next driver's first steps. */
	driver_write(&driver, VIRTIO_MMIO_STATUS, 0);
	driver_write(&driver, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	driver_write(&driver, VIRTIO_MMIO_STATUS,
		     driver_read(&driver, VIRTIO_MMIO_STATUS) | VIRTIO_CONFIG_S_FAILED);
	ck_assert(!(driver_read(&driver, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_FAILED));
	ck_assert_uint_eq(echo.resets, 1);
	ck_assert_int_eq(echo.holds, 1);
	ck_assert(echo.device.queues[0].ready);
	virtio_device_reset_done(&echo.device);
	ck_assert_int_eq(echo.holds, 0);
	ck_assert_uint_eq(driver_read(&driver, VIRTIO_MMIO_STATUS), 0);
	ck_assert(!echo.device.queues[0].ready);
	echo.busy = false;
	driver_start(&driver, FEATURE, 0);
	ck_assert_int_eq(echo.holds, 0);
}
END_TEST

Suite *mmio_suite(void)
{
	return SUITE("mmio", set_up, tear_down, identity_and_offer,
		     configuration_is_read_in_any_width, registers_are_words,
		     every_register_takes_every_value, negotiation_takes_a_part_of_the_offer,
		     negotiation_refuses_what_was_not_offered, status_bits_come_in_their_order,
		     queues_are_set_up_in_their_time, ready_queue_is_not_changed,
		     bad_queue_does_not_become_ready, buffers_go_and_come_back,
		     what_is_there_at_the_start_is_served, broken_ring_needs_a_reset,
		     device_that_refuses_to_start_needs_a_reset, configuration_change_is_told,
		     reset_forgets_the_driver, reset_that_has_to_wait_holds_its_driver);
}
