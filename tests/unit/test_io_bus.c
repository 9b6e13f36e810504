/* SPDX-License-Identifier: Apache-2.0 */
#include "base/array.h"
#include "base/io_bus.h"

#include <errno.h>

#include "tests/unit/suites.h"
#include "tests/unit/support.h"

struct recorder {
	unsigned int accesses;
	uint64_t offset;
	unsigned int len;
	uint8_t written[8];
};

static void record_read(void *device, uint64_t offset, uint8_t *data, unsigned int len)
{
	struct recorder *recorder = device;

	recorder->accesses++;
	recorder->offset = offset;
	recorder->len = len;
	memset(data, 0x5a, len);
}

static void record_write(void *device, uint64_t offset, const uint8_t *data, unsigned int len)
{
	struct recorder *recorder = device;

	recorder->accesses++;
	recorder->offset = offset;
	recorder->len = len;
	memcpy(recorder->written, data, len);
}

static const struct io_ops ops = { record_read, record_write };

static struct io_bus bus;
static struct recorder device;

static void set_up(void)
{
	memset(&bus, 0, sizeof(bus));
	memset(&device, 0, sizeof(device));
	ck_assert_int_eq(io_bus_add(&bus, 0x1000, 0x10, &ops, &device), 0);
}

START_TEST(read_reaches_the_device_at_its_offset)
{
	uint8_t data[2];

	ck_assert(io_bus_read(&bus, 0x1004, data, 2));
	ck_assert_uint_eq(device.offset, 4);
	ck_assert_uint_eq(device.len, 2);
	ck_assert(all_bytes(data, 2, 0x5a));
}
END_TEST

START_TEST(write_reaches_the_device_at_its_offset)
{
	const uint8_t data[4] = { 1, 2, 3, 4 };

	ck_assert(io_bus_write(&bus, 0x100c, data, 4));
	ck_assert_uint_eq(device.offset, 0xc);
	ck_assert_mem_eq(device.written, data, 4);
}
END_TEST

START_TEST(the_right_one_of_several_devices_answers)
{
	struct recorder other = { 0 };
	uint8_t byte;

	ck_assert_int_eq(io_bus_add(&bus, 0x1010, 1, &ops, &other), 0);
	ck_assert(io_bus_read(&bus, 0x1010, &byte, 1));
	ck_assert_uint_eq(other.accesses, 1);
	ck_assert_uint_eq(device.accesses, 0);
}
END_TEST

START_TEST(unclaimed_read_gives_all_ones)
{
	uint8_t data[8] = { 0 };

	ck_assert(!io_bus_read(&bus, 0x2000, data, 8));
	ck_assert(all_bytes(data, 8, 0xff));
}
END_TEST

START_TEST(unclaimed_write_goes_nowhere)
{
	const uint8_t data[8] = { 0 };

	ck_assert(!io_bus_write(&bus, 0xfff, data, 1));
	ck_assert_uint_eq(device.accesses, 0);
}
END_TEST

START_TEST(access_that_straddles_the_end_is_unclaimed)
{
	uint8_t data[4] = { 0 };

	ck_assert(!io_bus_read(&bus, 0x100e, data, 4));
	ck_assert(all_bytes(data, 4, 0xff));
	ck_assert(!io_bus_write(&bus, 0x100e, data, 4));
	ck_assert_uint_eq(device.accesses, 0);
}
END_TEST

START_TEST(access_that_straddles_the_start_is_unclaimed)
{
	uint8_t data[4];

	ck_assert(!io_bus_read(&bus, 0xffe, data, 4));
	ck_assert_uint_eq(device.accesses, 0);
}
END_TEST

static const struct {
	uint64_t base, size;
	int expected;
} additions[] = {
	{ 0x1010, 0x10, 0 },	    { 0x0ff0, 0x10, 0 },
	{ UINT64_MAX, 1, 0 },	    { UINT64_MAX - 0xfff, 0x1000, 0 },
	{ 0x1000, 0x10, -EEXIST },  { 0x100f, 1, -EEXIST },
	{ 0x0ff0, 0x11, -EEXIST },  { 0x1008, 1, -EEXIST },
	{ 0, UINT64_MAX, -EEXIST }, { 0x2000, 0, -EINVAL },
	{ UINT64_MAX, 2, -EINVAL }, { 0x2000, UINT64_MAX, -EINVAL },
};

START_TEST(range_is_checked_when_added)
{
	ck_assert_int_eq(io_bus_add(&bus, additions[_i].base, additions[_i].size, &ops, &device),
			 additions[_i].expected);
}
END_TEST

START_TEST(device_at_the_end_of_the_address_space_answers)
{
	struct recorder last = { 0 };
	uint8_t data[4];

	ck_assert_int_eq(io_bus_add(&bus, UINT64_MAX - 0xf, 0x10, &ops, &last), 0);
	ck_assert(io_bus_read(&bus, UINT64_MAX, data, 1));
	ck_assert_uint_eq(last.offset, 0xf);
	ck_assert(!io_bus_read(&bus, UINT64_MAX - 2, data, 4));
}
END_TEST

START_TEST(full_bus_refuses_another_device)
{
	for (uint64_t i = bus.count; i < IO_BUS_DEVICES; i++)
		ck_assert_int_eq(io_bus_add(&bus, 0x10000 + i, 1, &ops, &device), 0);
	ck_assert_int_eq(io_bus_add(&bus, 0x20000, 1, &ops, &device), -ENOSPC);
}
END_TEST

Suite *io_bus_suite(void)
{
	Suite *suite = SUITE(
		"io_bus", set_up, NULL, read_reaches_the_device_at_its_offset,
		write_reaches_the_device_at_its_offset, the_right_one_of_several_devices_answers,
		unclaimed_read_gives_all_ones, unclaimed_write_goes_nowhere,
		access_that_straddles_the_end_is_unclaimed,
		access_that_straddles_the_start_is_unclaimed,
		device_at_the_end_of_the_address_space_answers, full_bus_refuses_another_device);

	add_table_test(suite, set_up, NULL, range_is_checked_when_added, ARRAY_SIZE(additions));
	return suite;
}
