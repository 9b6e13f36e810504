/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/platform/i8042.h"

#include <errno.h>

#include "tests/unit/suites.h"
#include "tests/unit/support.h"

enum { DATA = 0, STATUS = 4, COMMAND = 4 };

#define OUTPUT_FULL 0x01
#define KEYBOARD_INTERRUPT 0x01
#define CONFIG 0x04
#define ACK 0xfa

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
	ck_assert_int_eq(i8042_open(&i8042, NULL), 0);
}

static void tear_down(void)
{
	i8042_close(&i8042);
	i8042_close(&i8042);
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
	ck_assert_uint_eq(i8042.metrics.reset_count, 1);
	ck_assert_uint_eq(i8042.metrics.write_count, 1);
	ck_assert_uint_eq(i8042.metrics.missed_write_count, 0);
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
	ck_assert_uint_eq(i8042.metrics.missed_write_count, 1);
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
	ck_assert_uint_eq(get(DATA), ACK);
	put(COMMAND, 0x20);
	ck_assert_uint_eq(get(DATA), CONFIG);
}
END_TEST

START_TEST(another_command_cancels_the_one_that_waits)
{
	put(COMMAND, 0x60);
	put(COMMAND, 0xaa);
	put(DATA, 0x74);
	put(COMMAND, 0x20);
	ck_assert_uint_eq(get(DATA), 0x55);
	ck_assert_uint_eq(get(DATA), ACK);
	ck_assert_uint_eq(get(DATA), CONFIG);
}
END_TEST

START_TEST(output_that_is_not_read_is_bounded)
{
	unsigned int bytes = 0;

	for (unsigned int i = 0; i < 100; i++)
		put(DATA, 0);
	for (; get(STATUS) & OUTPUT_FULL; bytes++)
		ck_assert_uint_eq(get(DATA), ACK);
	ck_assert_uint_eq(bytes, I8042_OUTPUT);
}
END_TEST

START_TEST(keys_are_not_pressed_while_nobody_listens)
{
	ck_assert_int_eq(i8042_ctrl_alt_del(&i8042), -ENXIO);
	ck_assert_uint_eq(get(STATUS), 0);
	ck_assert_uint_eq(take_eventfd(i8042.irq_fd), 0);
}
END_TEST

START_TEST(each_byte_of_ctrl_alt_del_is_an_interrupt)
{
	static const uint8_t codes[] = { 0x14, 0x11, 0xe0, 0x71 };

	put(COMMAND, 0x60);
	put(DATA, CONFIG | KEYBOARD_INTERRUPT);
	ck_assert_int_eq(i8042_ctrl_alt_del(&i8042), 0);
	for (size_t i = 0; i < sizeof(codes); i++) {
		ck_assert_uint_eq(take_eventfd(i8042.irq_fd), 1);
		ck_assert_uint_eq(get(DATA), codes[i]);
	}
	ck_assert_uint_eq(take_eventfd(i8042.irq_fd), 0);
	ck_assert_uint_eq(get(STATUS), 0);
}
END_TEST

START_TEST(keys_are_pressed_as_a_whole_or_not)
{
	put(COMMAND, 0x60);
	put(DATA, KEYBOARD_INTERRUPT);
	for (unsigned int i = 0; i < I8042_OUTPUT - 3; i++)
		put(DATA, 0);
	ck_assert_int_eq(i8042_ctrl_alt_del(&i8042), -ENOBUFS);
	(void)get(DATA);
	ck_assert_int_eq(i8042_ctrl_alt_del(&i8042), 0);
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
	return SUITE("i8042", set_up, tear_down, output_that_is_not_read_is_bounded,
		     keys_are_not_pressed_while_nobody_listens,
		     each_byte_of_ctrl_alt_del_is_an_interrupt, keys_are_pressed_as_a_whole_or_not,
		     reset_command_resets_once, reset_value_in_the_data_register_resets_nothing,
		     wide_write_is_no_command, nothing_waits_at_first, self_test_passes,
		     keyboard_interface_test_passes, configuration_byte_is_kept,
		     data_without_a_command_changes_nothing,
		     another_command_cancels_the_one_that_waits, ports_between_read_as_zero);
}
