/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/kvm/cpuid_check.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/array.h"
#include "base/err.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"

#define ENTRY_SIZE 28

static union cpuid_table guest, host;
static struct state_writer saved;
static struct err err;

static const struct kvm_cpuid_entry2 entries[] = {
	{ 0x0, 0, 0, 0x1f, 0x756e6547, 0x6c65746e, 0x49656e69 },
	{ 0x1, 0, 0, 0x50657, 0x842, 0, 0 },
	{ 0x7, 0, 1, 2, 0, 0, 0 },
	{ 0x7, 1, 1, 0, 0, 0, 0 },
	{ 0x7, 2, 1, 0, 0, 0, 0 },
	{ 0xd, 0, 1, 7, 0, 0, 0 },
	{ 0xd, 1, 1, 0, 0, 0, 0 },
	{ 0xd, 2, 1, 0x100, 0x240, 0, 0 },
	{ 0xd, 9, 1, 0x8, 0xa80, 0, 0 },
	{ 0xd, 11, 1, 0x10, 0, 1, 0 },
	{ 0xd, 62, 1, 0x80, 0xac0, 0, 0 },
	{ 0x40000001, 0, 0, 0, 0, 0, 0 },
	{ 0x80000001, 0, 0, 0, 0, 0, 0 },
	{ 0x80000007, 0, 0, 0, 0, 0, 0 },
	{ 0x80000008, 0, 0, 0x3030, 0, 0, 0 },
	{ 0x80000021, 0, 0, 0, 0, 0, 0 },
};

static void set_up(void)
{
	saved = (struct state_writer){ 0 };
	memset(&guest, 0, sizeof(guest));
	memcpy(guest.kvm.entries, entries, sizeof(entries));
	guest.kvm.nent = ARRAY_SIZE(entries);
	host = guest;
}

static void tear_down(void)
{
	state_writer_free(&saved);
}

static uint32_t *reg_of(union cpuid_table *table, uint32_t function, uint32_t index, char reg)
{
	for (uint32_t i = 0; i < table->kvm.nent; i++) {
		struct kvm_cpuid_entry2 *entry = &table->kvm.entries[i];

		if (entry->function == function && entry->index == index)
			return reg == 'a'   ? &entry->eax
			       : reg == 'b' ? &entry->ebx
			       : reg == 'c' ? &entry->ecx
					    : &entry->edx;
	}
	ck_abort_msg("no leaf 0x%x.%u", function, index);
	return NULL;
}

START_TEST(same_is_good)
{
	ck_assert_int_eq(cpuid_compare(&guest, &host, &err), 0);
}
END_TEST

/* Each register that is compared, with a bit of it, and its name. */
static const struct {
	uint32_t function, index;
	char reg;
	unsigned int bit;
	const char *name;
} promised[] = {
	{ 0x1, 0, 'c', 25, " (aes)" },
	{ 0x1, 0, 'c', 0, " (pni)" },
	{ 0x1, 0, 'c', 30, " (rdrand)" },
	{ 0x1, 0, 'd', 26, " (sse2)" },
	{ 0x7, 0, 'b', 5, " (avx2)" },
	{ 0x7, 0, 'b', 31, " (avx512vl)" },
	{ 0x7, 0, 'c', 8, " (gfni)" },
	{ 0x7, 0, 'c', 15, "" },
	{ 0x7, 0, 'd', 24, " (amx_tile)" },
	{ 0x7, 0, 'd', 31, " (ssbd)" },
	{ 0x7, 1, 'a', 4, "" },
	{ 0x7, 1, 'b', 0, "" },
	{ 0x7, 1, 'd', 31, "" },
	{ 0x7, 2, 'd', 1, "" },
	{ 0xd, 0, 'a', 9, "" },
	{ 0xd, 0, 'd', 30, "" },
	{ 0xd, 1, 'a', 3, " (xsaves)" },
	{ 0xd, 1, 'c', 12, "" },
	{ 0x40000001, 0, 'a', 3, "" },
	{ 0x80000001, 0, 'c', 5, " (abm)" },
	{ 0x80000001, 0, 'd', 27, " (rdtscp)" },
	{ 0x80000007, 0, 'd', 8, "" },
	{ 0x80000008, 0, 'b', 12, " (ibpb)" },
	{ 0x80000021, 0, 'a', 0, "" },
};

START_TEST(feature_that_the_host_lacks_is_named)
{
	char expected[ERR_TEXT_SIZE];

	*reg_of(&guest, promised[_i].function, promised[_i].index, promised[_i].reg) |=
		UINT32_C(1) << promised[_i].bit;
	ck_assert_int_eq(cpuid_compare(&guest, &host, &err), -ENOTSUP);
	snprintf(expected, sizeof(expected),
		 "the guest was told of a feature of the processor that this host lacks: bit %u of "
		 "e%cx in CPUID leaf 0x%x.%u%s",
		 promised[_i].bit, promised[_i].reg, promised[_i].function, promised[_i].index,
		 promised[_i].name);
	ck_assert_str_eq(err.text, expected);
	/* The other way round it is good. */
	ck_assert_int_eq(cpuid_compare(&host, &guest, &err), 0);
}
END_TEST

START_TEST(lowest_bit_is_named)
{
	*reg_of(&guest, 0x7, 0, 'b') = UINT32_MAX;
	*reg_of(&host, 0x7, 0, 'b') = 0x5f;
	ck_assert_int_eq(cpuid_compare(&guest, &host, &err), -ENOTSUP);
	assert_contains(err.text, "bit 5 of ebx in CPUID leaf 0x7.0 (avx2)");
}
END_TEST

/* The VMM gives them whatever the host has, or the guest's own registers do. */
static const struct {
	uint32_t function;
	char reg;
	unsigned int bit;
} ours[] = {
	{ 0x1, 'c', 24 }, { 0x1, 'c', 27 }, { 0x1, 'c', 31 },
	{ 0x1, 'd', 28 }, { 0x7, 'c', 4 },  { 0x80000001, 'c', 1 },
};

START_TEST(what_is_ours_is_not_compared)
{
	*reg_of(&guest, ours[_i].function, 0, ours[_i].reg) |= UINT32_C(1) << ours[_i].bit;
	ck_assert_int_eq(cpuid_compare(&guest, &host, &err), 0);
}
END_TEST

START_TEST(larger_addresses_are_refused)
{
	*reg_of(&guest, 0x80000008, 0, 'a') = 0x3034;
	ck_assert_int_eq(cpuid_compare(&guest, &host, &err), -ENOTSUP);
	ck_assert_str_eq(err.text, "the guest was told that physical addresses have 52 bits, and "
				   "this host's have 48");
	/* The other way round it is good, and the size of linear ones is a feature's, la57's. */
	ck_assert_int_eq(cpuid_compare(&host, &guest, &err), 0);
	*reg_of(&guest, 0x80000008, 0, 'a') = 0x3930;
	ck_assert_int_eq(cpuid_compare(&guest, &host, &err), 0);
}
END_TEST

/* Of which register of leaf 0xd says that the guest has the component. */
static const struct {
	uint32_t component, index;
	char reg;
} components[] = { { 2, 0, 'a' }, { 9, 0, 'a' }, { 11, 1, 'c' }, { 62, 0, 'd' } };

START_TEST(component_elsewhere_is_refused)
{
	const uint32_t component = components[_i].component, index = components[_i].index;
	char expected[64];

	*reg_of(&guest, 0xd, 0, 'a') = *reg_of(&host, 0xd, 0, 'a') = 3;
	for (const char *reg = "ab"; *reg; reg++) {
		uint32_t *bits = reg_of(&guest, 0xd, index, components[_i].reg);
		const uint32_t before = *bits;

		*reg_of(&host, 0xd, component, *reg) += 8;
		/* It is nothing to a guest without the component. */
		ck_assert_int_eq(cpuid_compare(&guest, &host, &err), 0);
		*bits |= UINT32_C(1) << component % 32;
		*reg_of(&host, 0xd, index, components[_i].reg) |= *bits;
		ck_assert_int_eq(cpuid_compare(&guest, &host, &err), -ENOTSUP);
		snprintf(expected, sizeof(expected), "XSAVE's component %u than this host has",
			 component);
		assert_contains(err.text, expected);
		*reg_of(&host, 0xd, component, *reg) -= 8;
		ck_assert_int_eq(cpuid_compare(&guest, &host, &err), 0);
		*bits = before;
	}
}
END_TEST

/* The family and stepping, the APIC's id: such numbers are not features. */
START_TEST(numbers_are_not_compared)
{
	*reg_of(&guest, 0x1, 0, 'a') |= 0xf;
	*reg_of(&guest, 0x1, 0, 'b') |= 0xff000000;
	*reg_of(&guest, 0x0, 0, 'a') |= 0xff;
	ck_assert_int_eq(cpuid_compare(&guest, &host, &err), 0);
}
END_TEST

START_TEST(other_vendor_is_named)
{
	*reg_of(&host, 0, 0, 'b') = 0x68747541;
	*reg_of(&host, 0, 0, 'c') = 0x444d4163;
	*reg_of(&host, 0, 0, 'd') = 0x69746e65;
	ck_assert_int_eq(cpuid_compare(&guest, &host, &err), -ENOTSUP);
	ck_assert_str_eq(err.text, "the guest was started on a processor of the vendor "
				   "\"GenuineIntel\", and this host's is of \"AuthenticAMD\"");
	for (const char *reg = "bcd"; *reg; reg++) {
		host = guest;
		*reg_of(&host, 0, 0, *reg) ^= 1;
		ck_assert_int_eq(cpuid_compare(&guest, &host, &err), -ENOTSUP);
	}
}
END_TEST

/* A leaf that one of them has not is all zeros. */
START_TEST(missing_leaf_has_nothing)
{
	*reg_of(&guest, 0x80000021, 0, 'a') = 4;
	host.kvm.nent--;
	ck_assert_int_eq(cpuid_compare(&guest, &host, &err), -ENOTSUP);
	assert_contains(err.text, "bit 2 of eax in CPUID leaf 0x80000021.0");
	*reg_of(&guest, 0x80000021, 0, 'a') = 0;
	ck_assert_int_eq(cpuid_compare(&guest, &host, &err), 0);
	guest.kvm.nent = 0;
	ck_assert_int_eq(cpuid_compare(&guest, &host, &err), -ENOTSUP);
	assert_contains(err.text, "of the vendor \"\"");
}
END_TEST

static void save(void)
{
	const struct state_codec codec = { .out = &saved };

	cpuid_code(&codec, &guest);
	ck_assert(!saved.failed);
}

static bool load(size_t size, union cpuid_table *table)
{
	/* A copy of that size: the address sanitizer sees what is beyond it. */
	uint8_t *copy = malloc(size + 1);
	struct state_reader reader = { .at = copy + 1, .left = size };
	const struct state_codec codec = { .in = &reader };

	ck_assert_ptr_nonnull(copy);
	memcpy(copy + 1, saved.data, size);
	memset(table, 0xff, sizeof(*table));
	cpuid_code(&codec, table);
	free(copy);
	return state_is_done(&reader);
}

START_TEST(table_is_read_as_it_was_written)
{
	static union cpuid_table again;

	for (size_t i = 0; i < sizeof(guest); i++)
		((uint8_t *)&guest)[i] = (uint8_t)(i * 7);
	guest.kvm.nent = CPUID_ENTRIES;
	for (size_t i = 0; i < CPUID_ENTRIES; i++)
		memset(guest.kvm.entries[i].padding, 0, sizeof(guest.kvm.entries[i].padding));
	guest.kvm.padding = 0;
	save();
	ck_assert_uint_eq(saved.size, 4 + ENTRY_SIZE * CPUID_ENTRIES);
	ck_assert(load(saved.size, &again));
	ck_assert_mem_eq(&again, &guest, sizeof(guest));
}
END_TEST

START_TEST(table_that_is_cut_off_fails)
{
	static union cpuid_table again;

	save();
	for (size_t size = 0; size < saved.size; size++)
		ck_assert(!load(size, &again));
	ck_assert(load(saved.size, &again));
}
END_TEST

START_TEST(table_of_too_many_fails)
{
	static const uint32_t counts[] = { CPUID_ENTRIES + 1, 0x10000, INT32_MAX, 0x80000000,
					   UINT32_MAX };
	static union cpuid_table again;
	static uint8_t rest[ENTRY_SIZE * (CPUID_ENTRIES + 1)];

	for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
		state_writer_free(&saved);
		state_put_u32(&saved, counts[i]);
		state_put_bytes(&saved, rest, sizeof(rest));
		ck_assert(!load(saved.size, &again));
		ck_assert_uint_eq(again.kvm.nent, 0);
	}
}
END_TEST

Suite *cpuid_check_suite(void)
{
	Suite *suite =
		SUITE("cpuid_check", set_up, tear_down, same_is_good, lowest_bit_is_named,
		      larger_addresses_are_refused, numbers_are_not_compared, other_vendor_is_named,
		      missing_leaf_has_nothing, table_is_read_as_it_was_written,
		      table_that_is_cut_off_fails, table_of_too_many_fails);

	add_table_test(suite, set_up, tear_down, feature_that_the_host_lacks_is_named,
		       ARRAY_SIZE(promised));
	add_table_test(suite, set_up, tear_down, component_elsewhere_is_refused,
		       ARRAY_SIZE(components));
	add_table_test(suite, set_up, tear_down, what_is_ours_is_not_compared, ARRAY_SIZE(ours));
	return suite;
}
