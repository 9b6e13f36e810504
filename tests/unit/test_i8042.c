/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/platform/i8042.h"

#include "tests/unit/suites.h"
#include "tests/unit/support.h"

enum { DATA = 0, STATUS = 4, COMMAND = 4 };

#define OUTPUT_FULL 0x01

static unsigned int resets;
static struct i8042 i8042;

static void count(void *opaque)
{
	ck_assert_ptr_eq(opaque, &resets);
	resets++;
}

static void set_up(void)
{
	resets = 0;
	memset(&i8042, 0, sizeof(i8042));
	i8042.reset = count;
	i8042.opaque = &resets;
}

static void put(uint64_t reg, uint8_t value)
{
	i8042_ops.write(&i8042, reg, &value, 1);
}

static uint8_t get(uint64_t reg)
{
	uint8_t value;

	i8042_ops.read(&i8042, reg, &value, 1);
	return value;
}

START_TEST(reset_command_resets_once)
{
	put(COMMAND, 0xfe);
	ck_assert_uint_eq(resets, 1);
}
END_TEST

START_TEST(reset_value_in_the_data_register_resets_nothing)
{
	put(DATA, 0xfe);
	ck_assert_uint_eq(resets, 0);
}
END_TEST

START_TEST(wide_write_is_no_command)
{
	const uint8_t data[2] = { 0xfe, 0xfe };

	i8042_ops.write(&i8042, COMMAND, data, 2);
	ck_assert_uint_eq(resets, 0);
}
END_TEST

START_TEST(nothing_waits_at_first)
{
	ck_assert_uint_eq(get(STATUS), 0);
}
END_TEST

START_TEST(self_test_passes)
{
	put(COMMAND, 0xaa);
	ck_assert_uint_eq(get(STATUS), OUTPUT_FULL);
	ck_assert_uint_eq(get(DATA), 0x55);
	ck_assert_uint_eq(get(STATUS), 0);
}
END_TEST

START_TEST(keyboard_interface_test_passes)
{
	put(COMMAND, 0xab);
	ck_assert_uint_eq(get(STATUS), OUTPUT_FULL);
	ck_assert_uint_eq(get(DATA), 0);
}
END_TEST

START_TEST(configuration_byte_is_kept)
{
	put(COMMAND, 0x60);
	put(DATA, 0x74);
	put(COMMAND, 0x20);
	ck_assert_uint_eq(get(DATA), 0x74);
}
END_TEST

START_TEST(data_without_a_command_changes_nothing)
{
	put(DATA, 0x74);
	put(COMMAND, 0x20);
	ck_assert_uint_eq(get(DATA), 0);
}
END_TEST

START_TEST(another_command_cancels_the_one_that_waits)
{
	put(COMMAND, 0x60);
	put(COMMAND, 0xaa);
	put(DATA, 0x74);
	put(COMMAND, 0x20);
	ck_assert_uint_eq(get(DATA), 0);
}
END_TEST

START_TEST(ports_between_read_as_zero)
{
	put(COMMAND, 0xaa);
	for (uint64_t port = 1; port < 4; port++)
		ck_assert_uint_eq(get(port), 0);
	ck_assert_uint_eq(get(STATUS), OUTPUT_FULL);
}
END_TEST

Suite *i8042_suite(void)
{
	return SUITE("i8042", set_up, NULL, reset_command_resets_once,
		     reset_value_in_the_data_register_resets_nothing, wide_write_is_no_command,
		     nothing_waits_at_first, self_test_passes, keyboard_interface_test_passes,
		     configuration_byte_is_kept, data_without_a_command_changes_nothing,
		     another_command_cancels_the_one_that_waits, ports_between_read_as_zero);
}
