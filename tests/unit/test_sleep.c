/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/platform/sleep.h"

#include "tests/unit/suites.h"
#include "tests/unit/support.h"

#define SLP_EN 0x20
#define SLP_TYP(type) ((type) << 2)

static unsigned int power_offs;

static void count(void *opaque)
{
	ck_assert_ptr_eq(opaque, &power_offs);
	power_offs++;
}

static struct sleep_registers registers = { count, &power_offs };

static void set_up(void)
{
	power_offs = 0;
}

static void put(uint64_t offset, unsigned int value, unsigned int len)
{
	const uint8_t data[2] = { (uint8_t)value, 0 };

	sleep_registers_ops.write(&registers, offset, data, len);
}

START_TEST(s5_with_enable_powers_off)
{
	put(0, SLP_EN | SLP_TYP(5), 1);
	ck_assert_uint_eq(power_offs, 1);
}
END_TEST

START_TEST(reserved_bits_do_not_matter)
{
	put(0, SLP_EN | SLP_TYP(5) | 0xc3, 1);
	ck_assert_uint_eq(power_offs, 1);
}
END_TEST

START_TEST(s5_without_enable_does_nothing)
{
	put(0, SLP_TYP(5), 1);
	ck_assert_uint_eq(power_offs, 0);
}
END_TEST

START_TEST(other_states_do_nothing)
{
	for (unsigned int type = 0; type < 8; type++) {
		if (type != 5)
			put(0, SLP_EN | SLP_TYP(type), 1);
	}
	ck_assert_uint_eq(power_offs, 0);
}
END_TEST

START_TEST(status_register_and_wide_writes_do_nothing)
{
	put(1, SLP_EN | SLP_TYP(5), 1);
	put(0, SLP_EN | SLP_TYP(5), 2);
	ck_assert_uint_eq(power_offs, 0);
}
END_TEST

START_TEST(reads_give_zero)
{
	uint8_t data[2] = { 0xff, 0xff };

	sleep_registers_ops.read(&registers, 0, data, sizeof(data));
	ck_assert(all_bytes(data, sizeof(data), 0));
}
END_TEST

Suite *sleep_suite(void)
{
	return SUITE("sleep", set_up, NULL, s5_with_enable_powers_off, reserved_bits_do_not_matter,
		     s5_without_enable_does_nothing, other_states_do_nothing,
		     status_register_and_wide_writes_do_nothing, reads_give_zero);
}
