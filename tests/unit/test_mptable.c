/* SPDX-License-Identifier: Apache-2.0 */
#include "base/array.h"
#include "vmm/boot/mptable.h"

#include "base/guest_memory.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"
#include "vmm/boot/layout.h"

#define FLOATING LAYOUT_SYSTEM_TABLES
#define FLOATING_SIZE 16
#define HEADER_SIZE 44
#define PROCESSOR_SIZE 20
#define ENTRY_SIZE 8

enum { PROCESSOR, BUS, IOAPIC, INTERRUPT, LOCAL_INTERRUPT, ENTRY_TYPES };

static const unsigned int vcpu_counts[] = { 1, 2, 3, 32 };

static struct guest_memory memory;

static void set_up(void)
{
	open_guest_memory(&memory, MIB(16));
}

static void tear_down(void)
{
	guest_memory_close(&memory);
}

static uint64_t table_addr(void)
{
	return guest_value(&memory, FLOATING + 4, 4);
}

static uint64_t table_length(void)
{
	return guest_value(&memory, table_addr() + 4, 2);
}

/* The address of the n-th entry of a type, from 0; 0 if there is none. */
static uint64_t find_entry(unsigned int type, unsigned int n)
{
	uint64_t at = table_addr() + HEADER_SIZE;
	uint64_t end = table_addr() + table_length();

	while (at < end) {
		uint64_t found = guest_value(&memory, at, 1);

		ck_assert_uint_lt(found, ENTRY_TYPES);
		if (found == type && n-- == 0)
			return at;
		at += found == PROCESSOR ? PROCESSOR_SIZE : ENTRY_SIZE;
	}
	ck_assert_uint_eq(at, end);
	return 0;
}

static unsigned int count_entries(unsigned int type)
{
	unsigned int n = 0;

	while (find_entry(type, n))
		n++;
	return n;
}

START_TEST(floating_pointer_is_valid)
{
	mptable_write(&memory, vcpu_counts[_i]);
	ck_assert(guest_has(&memory, FLOATING, "_MP_"));
	ck_assert_uint_eq(guest_value(&memory, FLOATING + 8, 1), 1);
	ck_assert_uint_eq(guest_value(&memory, FLOATING + 9, 1), 4);
	ck_assert_uint_eq(guest_sum(&memory, FLOATING, FLOATING_SIZE), 0);
}
END_TEST

START_TEST(table_is_valid)
{
	mptable_write(&memory, vcpu_counts[_i]);
	ck_assert(guest_has(&memory, table_addr(), "PCMP"));
	ck_assert_uint_eq(guest_value(&memory, table_addr() + 6, 1), 4);
	ck_assert_uint_eq(guest_value(&memory, table_addr() + 36, 4), LAYOUT_LAPIC);
	ck_assert_uint_eq(guest_sum(&memory, table_addr(), table_length()), 0);
}
END_TEST

START_TEST(entry_count_is_that_of_the_entries)
{
	unsigned int count = 0;

	mptable_write(&memory, vcpu_counts[_i]);
	for (unsigned int type = 0; type < ENTRY_TYPES; type++)
		count += count_entries(type);
	ck_assert_uint_eq(guest_value(&memory, table_addr() + 34, 2), count);
}
END_TEST

START_TEST(each_vcpu_is_an_enabled_processor)
{
	mptable_write(&memory, vcpu_counts[_i]);
	ck_assert_uint_eq(count_entries(PROCESSOR), vcpu_counts[_i]);
	for (unsigned int i = 0; i < vcpu_counts[_i]; i++) {
		uint64_t at = find_entry(PROCESSOR, i);

		ck_assert_uint_eq(guest_value(&memory, at + 1, 1), i);
		ck_assert_uint_eq(guest_value(&memory, at + 3, 1), i == 0 ? 3 : 1);
	}
}
END_TEST

START_TEST(ioapic_id_follows_the_processors)
{
	uint64_t at;

	mptable_write(&memory, vcpu_counts[_i]);
	ck_assert_uint_eq(count_entries(IOAPIC), 1);
	at = find_entry(IOAPIC, 0);
	ck_assert_uint_eq(guest_value(&memory, at + 1, 1), vcpu_counts[_i]);
	ck_assert_uint_eq(guest_value(&memory, at + 3, 1), 1);
	ck_assert_uint_eq(guest_value(&memory, at + 4, 4), LAYOUT_IOAPIC);
}
END_TEST

START_TEST(interrupts_are_wired_one_to_one)
{
	mptable_write(&memory, vcpu_counts[_i]);
	ck_assert_uint_eq(count_entries(BUS), 1);
	ck_assert(guest_has(&memory, find_entry(BUS, 0) + 2, "ISA   "));
	ck_assert_uint_eq(count_entries(INTERRUPT), 24);
	for (unsigned int i = 0; i < 24; i++) {
		uint64_t at = find_entry(INTERRUPT, i);

		ck_assert_uint_eq(guest_value(&memory, at + 1, 1), 0);
		ck_assert_uint_eq(guest_value(&memory, at + 4, 1), 0);
		ck_assert_uint_eq(guest_value(&memory, at + 5, 1), i);
		ck_assert_uint_eq(guest_value(&memory, at + 6, 1), vcpu_counts[_i]);
		ck_assert_uint_eq(guest_value(&memory, at + 7, 1), i);
	}
}
END_TEST

START_TEST(local_interrupts_are_extint_and_nmi)
{
	uint64_t extint, nmi;

	mptable_write(&memory, vcpu_counts[_i]);
	ck_assert_uint_eq(count_entries(LOCAL_INTERRUPT), 2);
	extint = find_entry(LOCAL_INTERRUPT, 0);
	nmi = find_entry(LOCAL_INTERRUPT, 1);
	ck_assert_uint_eq(guest_value(&memory, extint + 1, 1), 3);
	ck_assert_uint_eq(guest_value(&memory, extint + 7, 1), 0);
	ck_assert_uint_eq(guest_value(&memory, nmi + 1, 1), 1);
	ck_assert_uint_eq(guest_value(&memory, nmi + 6, 1), 0xff);
	ck_assert_uint_eq(guest_value(&memory, nmi + 7, 1), 1);
}
END_TEST

/* Kernels look for it in the last KiB of base memory; the ACPI tables follow. */
START_TEST(table_stays_in_its_place)
{
	mptable_write(&memory, vcpu_counts[_i]);
	ck_assert_uint_eq(FLOATING % 16, 0);
	ck_assert_uint_eq(table_addr(), FLOATING + FLOATING_SIZE);
	ck_assert_uint_le(table_addr() + table_length(), LAYOUT_ACPI_TABLES);
}
END_TEST

Suite *mptable_suite(void)
{
	const TTest *const tests[] = {
		floating_pointer_is_valid,	     table_is_valid,
		entry_count_is_that_of_the_entries,  each_vcpu_is_an_enabled_processor,
		ioapic_id_follows_the_processors,    interrupts_are_wired_one_to_one,
		local_interrupts_are_extint_and_nmi, table_stays_in_its_place,
	};
	Suite *suite = suite_create("mptable");

	for (size_t i = 0; i < ARRAY_SIZE(tests); i++)
		add_table_test(suite, set_up, tear_down, tests[i], ARRAY_SIZE(vcpu_counts));
	return suite;
}
