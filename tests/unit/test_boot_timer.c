/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/platform/boot_timer.h"

#include "tests/unit/suites.h"
#include "tests/unit/support.h"

static unsigned int reached;

static void count(void *opaque)
{
	ck_assert_ptr_eq(opaque, &reached);
	reached++;
}

static struct boot_timer timer = { count, &reached };

static void put(uint64_t offset, uint8_t value, unsigned int len)
{
	const uint8_t data[8] = { value };

	boot_timer_ops.write(&timer, offset, data, len);
}

START_TEST(the_byte_123_is_counted)
{
	put(0, 123, 1);
	put(0, 123, 1);
	ck_assert_uint_eq(reached, 2);
}
END_TEST

START_TEST(other_bytes_are_not)
{
	for (unsigned int value = 0; value <= UINT8_MAX; value++) {
		if (value != 123)
			put(0, (uint8_t)value, 1);
	}
	ck_assert_uint_eq(reached, 0);
}
END_TEST

START_TEST(other_offsets_are_not)
{
	for (uint64_t offset = 1; offset < BOOT_TIMER_SIZE; offset++)
		put(offset, 123, 1);
	ck_assert_uint_eq(reached, 0);
}
END_TEST

START_TEST(wider_writes_are_not)
{
	put(0, 123, 2);
	put(0, 123, 4);
	put(0, 123, 8);
	ck_assert_uint_eq(reached, 0);
}
END_TEST

START_TEST(reads_give_zero)
{
	uint8_t data[8];

	memset(data, 0xff, sizeof(data));
	boot_timer_ops.read(&timer, 0, data, sizeof(data));
	ck_assert(all_bytes(data, sizeof(data), 0));
	ck_assert_uint_eq(reached, 0);
}
END_TEST

static void set_up(void)
{
	reached = 0;
}

Suite *boot_timer_suite(void)
{
	return SUITE("boot_timer", set_up, NULL, the_byte_123_is_counted, other_bytes_are_not,
		     other_offsets_are_not, wider_writes_are_not, reads_give_zero);
}
