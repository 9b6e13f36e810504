/* SPDX-License-Identifier: Apache-2.0 */
/* Saving and restoring the device that a driver has. */
#include <check.h>
#include <linux/virtio_mmio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "tests/unit/driver.h"

#define FREEZE_MS 20000

/* Kind and version before it. */
#define HEADER_SIZE 16
#define SIZE_AT 8
#define MMIO_FIELDS 12
#define DEVICE_FIELDS 29
#define QUEUE_FIELDS 31

struct state_writer driver_save(struct driver *driver)
{
	struct state_writer saved = { 0 };

	ck_assert(virtio_device_freeze(driver->device, clock_ns() + FREEZE_MS * NS_PER_MS));
	virtio_mmio_save(&driver->mmio, &saved);
	ck_assert(!saved.failed);
	ck_assert(virtio_device_detach(driver->device, 0));
	return saved;
}

static int restore(struct driver *driver, const struct state_writer *saved, struct err *err)
{
	/* A copy of that size: the address sanitizer sees what is beyond it. */
	uint8_t *copy = malloc(saved->size + 1);
	struct state_reader reader = { .at = copy + 1, .left = saved->size };
	int rc;

	ck_assert_ptr_nonnull(copy);
	if (saved->size > 0)
		memcpy(copy + 1, saved->data, saved->size);
	rc = virtio_mmio_restore(&driver->mmio, &reader, err);
	if (rc == 0)
		ck_assert(state_is_done(&reader));
	free(copy);
	return rc;
}

void driver_move(struct driver *driver, struct virtio_device *device,
		 const struct state_writer *saved)
{
	struct err err;

	memset(&driver->mmio, 0, sizeof(driver->mmio));
	driver_attach(driver, device);
	ck_assert_msg(restore(driver, saved, &err) == 0, "%s", err.text);
	ck_assert(device->frozen);
}

void driver_restore_fails(struct driver *driver, const struct state_writer *saved,
			  const char *sentence)
{
	struct err err = { "" };

	ck_assert_int_lt(restore(driver, saved, &err), 0);
	ck_assert_str_eq(err.text, sentence);
	ck_assert_uint_eq(driver_read(driver, VIRTIO_MMIO_STATUS), 0);
	ck_assert(!driver->device->frozen);
}

size_t driver_own_section(const struct driver *driver)
{
	return HEADER_SIZE + MMIO_FIELDS + HEADER_SIZE + DEVICE_FIELDS +
	       driver->device->queue_count * QUEUE_FIELDS + HEADER_SIZE;
}

/* True if it is restored. */
static bool try_one(struct driver *driver, const struct state_writer *saved)
{
	const char *name = driver->device->name;
	const uint64_t offered = driver->device->features;
	struct err err = { "" };

	if (restore(driver, saved, &err) < 0) {
		ck_assert_uint_eq(driver->device->features, offered);
		ck_assert_msg(strncmp(err.text, name, strlen(name)) == 0, "%s", err.text);
		ck_assert_uint_eq(driver_read(driver, VIRTIO_MMIO_STATUS), 0);
		return false;
	}
	virtio_device_thaw(driver->device);
	driver_run(driver);
	driver_reset(driver);
	driver_run(driver);
	/* That part of the offer which the bytes have left. */
	driver->device->features = offered;
	return true;
}

static void add_to_size(const struct state_writer *saved, size_t section, int64_t more)
{
	uint64_t size;

	memcpy(&size, saved->data + section + SIZE_AT, sizeof(size));
	size += (uint64_t)more;
	memcpy(saved->data + section + SIZE_AT, &size, sizeof(size));
}

static void try_longer(struct driver *driver, struct state_writer *saved)
{
	const size_t sections[] = { 0, HEADER_SIZE + MMIO_FIELDS,
				    driver_own_section(driver) - HEADER_SIZE };

	state_put_u8(saved, 0);
	for (unsigned int i = 0; i < 3; i++) {
		add_to_size(saved, sections[i], 1);
		ck_assert(!try_one(driver, saved));
	}
	for (unsigned int i = 0; i < 3; i++)
		add_to_size(saved, sections[i], -1);
	saved->size--;
}

/* All sections end where the file does. */
static void try_cut(struct driver *driver, struct state_writer *saved, unsigned int depth)
{
	const size_t sections[] = { 0, HEADER_SIZE + MMIO_FIELDS,
				    driver_own_section(driver) - HEADER_SIZE };
	const size_t size = saved->size;

	while (saved->size > sections[depth] + HEADER_SIZE) {
		saved->size--;
		for (unsigned int i = 0; i <= depth; i++)
			add_to_size(saved, sections[i], -1);
		ck_assert(!try_one(driver, saved));
	}
	for (unsigned int i = 0; i <= depth; i++)
		add_to_size(saved, sections[i], (int64_t)(size - saved->size));
	saved->size = size;
}

void driver_try_mangled(struct driver *driver, struct state_writer *saved)
{
	static const uint8_t flips[] = { 0x01, 0x02, 0x08, 0x40, 0x80, 0xff };
	const size_t size = saved->size;

	for (size_t i = 0; i < size; i++) {
		for (unsigned int flip = 0; flip < sizeof(flips); flip++) {
			saved->data[i] ^= flips[flip];
			(void)try_one(driver, saved);
			saved->data[i] ^= flips[flip];
		}
	}
	for (saved->size = 0; saved->size < size; saved->size++)
		ck_assert(!try_one(driver, saved));
	for (unsigned int depth = 0; depth < 3; depth++)
		try_cut(driver, saved, depth);
	try_longer(driver, saved);
	ck_assert(try_one(driver, saved));
	state_writer_free(saved);
}
