/* SPDX-License-Identifier: Apache-2.0 */
#include "base/array.h"
#include "vmm/kvm/cpuid.h"

#include <stdlib.h>

#include "tests/unit/suites.h"
#include "tests/unit/support.h"

#define ANY UINT32_C(0xa5a5a5a5)
#define INDEXED KVM_CPUID_FLAG_SIGNIFCANT_INDEX

#define PDCM (1u << 15)
#define TSC_DEADLINE (1u << 24)
#define HYPERVISOR (1u << 31)
#define HTT (1u << 28)
#define VMX (1u << 5)
#define DTES64 (1u << 2)
#define DS (1u << 21)
#define SVM (1u << 2)

enum cache { DATA = 1, CODE, UNIFIED };
#define CACHE(level, type) ((level) << 5 | (type))

static const struct kvm_cpuid_entry2 intel[] = {
	{ 0x0, 0, 0, 0x1f, 0x756e6547, 0x6c65746e, 0x49656e69 },
	{ 0x1, 0, 0, 0x50657, 0x07400842, ANY | PDCM, ANY },
	{ 0x4, 0, INDEXED, 0xfc000000 | CACHE(1, DATA), 0x1c0003f, 63, 0 },
	{ 0x4, 1, INDEXED, 0xfc000000 | CACHE(1, CODE), 0x1c0003f, 63, 0 },
	{ 0x4, 2, INDEXED, 0xfc000000 | CACHE(2, UNIFIED), 0x3c0003f, 1023, 0 },
	{ 0x4, 3, INDEXED, 0xffffc000 | CACHE(3, UNIFIED), 0x280003f, 0xb7ff, 4 },
	{ 0x4, 4, INDEXED, 0, 0, 0, 0 },
	{ 0x7, 0, INDEXED, 0, ANY, ANY, ANY },
	{ 0x7, 1, INDEXED, ANY, ANY, ANY, ANY },
	{ 0xa, 0, 0, 0x08300805, ANY, ANY, ANY },
	{ 0xb, 0, INDEXED, 1, 2, 0x100, 7 },
	{ 0xb, 1, INDEXED, 6, 48, 0x201, 7 },
	/* A Sapphire Rapids, to a process that has asked for the tiles' data, with CET. */
	{ 0xd, 0, INDEXED, 0x602ff, 2816, 11008, 0 },
	{ 0xd, 1, INDEXED, 0x1f, 2816, 0x1800, 0 },
	{ 0xd, 2, INDEXED, 256, 576, 0, 0 },
	{ 0xd, 3, INDEXED, 64, 960, 0, 0 },
	{ 0xd, 4, INDEXED, 64, 1024, 0, 0 },
	{ 0xd, 5, INDEXED, 64, 1088, 0, 0 },
	{ 0xd, 6, INDEXED, 512, 1152, 0, 0 },
	{ 0xd, 7, INDEXED, 1024, 1664, 0, 0 },
	{ 0xd, 9, INDEXED, 8, 2688, 0, 0 },
	{ 0xd, 11, INDEXED, 16, 0, 1, 0 },
	{ 0xd, 12, INDEXED, 24, 0, 1, 0 },
	{ 0xd, 17, INDEXED, 64, 2752, 2, 0 },
	{ 0xd, 18, INDEXED, 8192, 2816, 6, 0 },
	{ 0x1d, 0, INDEXED, 1, 0, 0, 0 },
	{ 0x1d, 1, INDEXED, 0x4002000, 0x80040, 16, 0 },
	{ 0x1e, 0, INDEXED, 0, 0x4010, 0, 0 },
	{ 0x1f, 0, INDEXED, 1, 2, 0x100, 7 },
	{ 0x1f, 1, INDEXED, 6, 48, 0x201, 7 },
	{ 0x1f, 2, INDEXED, 7, 96, 0x502, 7 },
	{ 0x1f, 3, INDEXED, 0, 0, 3, 7 },
	{ 0x40000000, 0, 0, 0x40000001, 0x4b4d564b, 0x564b4d56, 0x4d },
	{ 0x80000000, 0, 0, 0x80000008, 0, 0, 0 },
	{ 0x80000002, 0, 0, ANY, ANY, ANY, ANY },
	{ 0x80000003, 0, 0, ANY, ANY, ANY, ANY },
	{ 0x80000004, 0, 0, ANY, ANY, ANY, ANY },
	{ 0x80000008, 0, 0, 0x302e, ANY, ANY, 0 },
};

static const struct kvm_cpuid_entry2 amd[] = {
	{ 0x0, 0, 0, 0x10, 0x68747541, 0x444d4163, 0x69746e65 },
	{ 0x1, 0, 0, 0xa20f10, 0x07400842, ANY | PDCM, ANY },
	{ 0xb, 0, INDEXED, 1, 2, 0x100, 7 },
	{ 0xb, 1, INDEXED, 7, 128, 0x201, 7 },
	{ 0x80000000, 0, 0, 0x8000001e, 0x68747541, 0x444d4163, 0x69746e65 },
	{ 0x80000001, 0, 0, 0xa20f10, 0, ANY | SVM, ANY },
	{ 0x80000002, 0, 0, ANY, ANY, ANY, ANY },
	{ 0x80000003, 0, 0, ANY, ANY, ANY, ANY },
	{ 0x80000004, 0, 0, ANY, ANY, ANY, ANY },
	{ 0x80000008, 0, 0, 0x3030, ANY, 0x707f, 0 },
	{ 0x8000000a, 0, 0, 1, 8, 0, ANY },
	{ 0x8000001d, 0, INDEXED, 0x4000 | CACHE(1, DATA), 0x1c0003f, 63, 0 },
	{ 0x8000001d, 1, INDEXED, 0x4000 | CACHE(1, CODE), 0x1c0003f, 63, 0 },
	{ 0x8000001d, 2, INDEXED, 0x4000 | CACHE(2, UNIFIED), 0x1c0003f, 1023, 2 },
	{ 0x8000001d, 3, INDEXED, 0x3c000 | CACHE(3, UNIFIED), 0x3c0003f, 32767, 1 },
	{ 0x8000001d, 4, INDEXED, 0, 0, 0, 0 },
	{ 0x8000001e, 0, 0, 99, 0x163, 0x703, 0 },
};

/* How many bits of the APIC id number threads in a core, and all threads. */
static const struct shape {
	unsigned int vcpu_count, threads_per_core, thread_bits, package_bits;
} shapes[] = {
	{ 1, 1, 0, 0 }, { 2, 1, 0, 1 }, { 3, 1, 0, 2 },	 { 32, 1, 0, 5 },
	{ 2, 2, 1, 1 }, { 4, 2, 1, 2 }, { 32, 2, 1, 5 },
};

static union cpuid_table table;

static void fill(const struct kvm_cpuid_entry2 *entries, size_t count)
{
	memset(&table, 0, sizeof(table));
	memcpy(table.kvm.entries, entries, count * sizeof(entries[0]));
	table.kvm.nent = (uint32_t)count;
}

static void normalise(const struct shape *shape, unsigned int vcpu_id)
{
	cpuid_normalise(&table, &(struct cpuid_topology){ vcpu_id, shape->vcpu_count,
							  shape->threads_per_core });
}

static void normalise_intel(const struct shape *shape, unsigned int vcpu_id)
{
	fill(intel, ARRAY_SIZE(intel));
	normalise(shape, vcpu_id);
}

static void normalise_amd(const struct shape *shape, unsigned int vcpu_id)
{
	fill(amd, ARRAY_SIZE(amd));
	normalise(shape, vcpu_id);
}

/* The one entry of a leaf and subleaf. */
static const struct kvm_cpuid_entry2 *leaf(uint32_t function, uint32_t index)
{
	const struct kvm_cpuid_entry2 *found = NULL;

	for (uint32_t i = 0; i < table.kvm.nent; i++) {
		const struct kvm_cpuid_entry2 *entry = &table.kvm.entries[i];

		if (entry->function == function && entry->index == index) {
			ck_assert_msg(!found, "leaf 0x%x.%u is there twice", function, index);
			found = entry;
		}
	}
	ck_assert_msg(found != NULL, "leaf 0x%x.%u is missing", function, index);
	return found;
}

static uint32_t bits(uint32_t reg, unsigned int high, unsigned int low)
{
	return reg >> low & ((2u << (high - low)) - 1);
}

START_TEST(apic_id_is_the_vcpu_number)
{
	const struct shape *shape = &shapes[_i];

	for (unsigned int id = 0; id < shape->vcpu_count; id++) {
		normalise_intel(shape, id);
		ck_assert_uint_eq(bits(leaf(0x1, 0)->ebx, 31, 24), id);
		for (uint32_t index = 0; index < 3; index++) {
			ck_assert_uint_eq(leaf(0xb, index)->edx, id);
			ck_assert_uint_eq(leaf(0x1f, index)->edx, id);
		}
		normalise_amd(shape, id);
		ck_assert_uint_eq(bits(leaf(0x1, 0)->ebx, 31, 24), id);
		ck_assert_uint_eq(leaf(0x8000001e, 0)->eax, id);
	}
}
END_TEST

START_TEST(leaf_1_counts_the_apic_ids_of_the_package)
{
	normalise_intel(&shapes[_i], 0);
	ck_assert_uint_eq(bits(leaf(0x1, 0)->ebx, 23, 16), 1u << shapes[_i].package_bits);
	ck_assert_uint_eq(!!(leaf(0x1, 0)->edx & HTT), shapes[_i].vcpu_count > 1);
}
END_TEST

static void assert_extended_topology(uint32_t function, const struct shape *shape)
{
	const struct kvm_cpuid_entry2 *threads = leaf(function, 0);
	const struct kvm_cpuid_entry2 *cores = leaf(function, 1);
	const struct kvm_cpuid_entry2 *end = leaf(function, 2);

	ck_assert_uint_eq(threads->eax, shape->thread_bits);
	ck_assert_uint_eq(threads->ebx, shape->threads_per_core);
	ck_assert_uint_eq(threads->ecx, 0x100);
	ck_assert_uint_eq(cores->eax, shape->package_bits);
	ck_assert_uint_eq(cores->ebx, shape->vcpu_count);
	ck_assert_uint_eq(cores->ecx, 0x201);
	ck_assert_uint_eq(end->eax, 0);
	ck_assert_uint_eq(end->ebx, 0);
	ck_assert_uint_eq(end->ecx, 2);
}

START_TEST(extended_topology_has_threads_and_cores)
{
	normalise_intel(&shapes[_i], 0);
	assert_extended_topology(0xb, &shapes[_i]);
	assert_extended_topology(0x1f, &shapes[_i]);
	normalise_amd(&shapes[_i], 0);
	assert_extended_topology(0xb, &shapes[_i]);
}
END_TEST

START_TEST(intel_caches_are_shared_by_core_and_package)
{
	const struct shape *shape = &shapes[_i];
	unsigned int core_ids = 1u << (shape->package_bits - shape->thread_bits);

	normalise_intel(shape, 0);
	for (uint32_t index = 0; index < 3; index++) {
		ck_assert_uint_eq(bits(leaf(0x4, index)->eax, 25, 14), shape->threads_per_core - 1);
		ck_assert_uint_eq(bits(leaf(0x4, index)->eax, 31, 26), core_ids - 1);
	}
	ck_assert_uint_eq(bits(leaf(0x4, 3)->eax, 25, 14), (1u << shape->package_bits) - 1);
	ck_assert_uint_eq(leaf(0x4, 4)->eax, 0);
}
END_TEST

START_TEST(amd_caches_are_shared_by_core_and_package)
{
	const struct shape *shape = &shapes[_i];

	normalise_amd(shape, 0);
	for (uint32_t index = 0; index < 3; index++)
		ck_assert_uint_eq(bits(leaf(0x8000001d, index)->eax, 25, 14),
				  shape->threads_per_core - 1);
	ck_assert_uint_eq(bits(leaf(0x8000001d, 3)->eax, 25, 14), (1u << shape->package_bits) - 1);
	ck_assert_uint_eq(leaf(0x8000001d, 4)->eax, 0);
}
END_TEST

START_TEST(amd_core_id_counts_cores)
{
	const struct shape *shape = &shapes[_i];

	for (unsigned int id = 0; id < shape->vcpu_count; id++) {
		normalise_amd(shape, id);
		ck_assert_uint_eq(bits(leaf(0x8000001e, 0)->ebx, 7, 0), id >> shape->thread_bits);
		ck_assert_uint_eq(bits(leaf(0x8000001e, 0)->ebx, 15, 8),
				  shape->threads_per_core - 1);
		ck_assert_uint_eq(leaf(0x8000001e, 0)->ecx, 0);
	}
}
END_TEST

START_TEST(amd_size_identifiers_count_threads)
{
	normalise_amd(&shapes[_i], 0);
	ck_assert_uint_eq(bits(leaf(0x80000008, 0)->ecx, 7, 0), shapes[_i].vcpu_count - 1);
	ck_assert_uint_eq(bits(leaf(0x80000008, 0)->ecx, 15, 12), shapes[_i].package_bits);
	ck_assert_uint_eq(leaf(0x80000008, 0)->eax, 0x3030);
}
END_TEST

START_TEST(hypervisor_and_tsc_deadline_are_on_and_pdcm_off)
{
	fill(intel, ARRAY_SIZE(intel));
	table.kvm.entries[1].ecx = PDCM | VMX | DTES64 | 1;
	normalise(&shapes[0], 0);
	ck_assert_uint_eq(leaf(0x1, 0)->ecx, HYPERVISOR | TSC_DEADLINE | 1);
}
END_TEST

START_TEST(leaf_1_keeps_signature_brand_index_and_cache_line)
{
	normalise_intel(&shapes[0], 0);
	ck_assert_uint_eq(leaf(0x1, 0)->eax, 0x50657);
	ck_assert_uint_eq(bits(leaf(0x1, 0)->ebx, 7, 0), 0x42);
	ck_assert_uint_eq(bits(leaf(0x1, 0)->ebx, 15, 8), 8);
	ck_assert_uint_eq(leaf(0x1, 0)->edx, ANY & ~HTT & ~DS);
}
END_TEST

START_TEST(performance_counters_are_hidden)
{
	const struct kvm_cpuid_entry2 *entry;

	normalise_intel(&shapes[0], 0);
	entry = leaf(0xa, 0);
	ck_assert_uint_eq(entry->eax | entry->ebx | entry->ecx | entry->edx, 0);
}
END_TEST

static void assert_brand(const char *expected)
{
	char brand[48], padded[48] = "";

	for (uint32_t i = 0; i < 3; i++) {
		const struct kvm_cpuid_entry2 *entry = leaf(0x80000002 + i, 0);
		const uint32_t words[] = { entry->eax, entry->ebx, entry->ecx, entry->edx };

		memcpy(brand + i * sizeof(words), words, sizeof(words));
	}
	memcpy(padded, expected, strlen(expected));
	ck_assert_mem_eq(brand, padded, sizeof(brand));
}

START_TEST(brand_string_tells_only_the_vendor)
{
	normalise_intel(&shapes[0], 0);
	assert_brand("Intel(R) Xeon(R) Processor");
	normalise_amd(&shapes[0], 0);
	assert_brand("AMD EPYC");
}
END_TEST

START_TEST(hygon_is_treated_as_amd)
{
	fill(amd, ARRAY_SIZE(amd));
	table.kvm.entries[0].ebx = 0x6f677948;
	normalise(&shapes[1], 0);
	ck_assert_uint_eq(bits(leaf(0x80000008, 0)->ecx, 7, 0), 1);
}
END_TEST

START_TEST(nested_virtualisation_is_hidden)
{
	normalise_intel(&shapes[0], 0);
	ck_assert_uint_eq(leaf(0x1, 0)->ecx & VMX, 0);
	normalise_amd(&shapes[0], 0);
	ck_assert_uint_eq(leaf(0x80000001, 0)->ecx & SVM, 0);
	ck_assert_uint_eq(
		leaf(0x8000000a, 0)->eax | leaf(0x8000000a, 0)->ebx | leaf(0x8000000a, 0)->edx, 0);
}
END_TEST

static struct kvm_cpuid_entry2 *entry_of(uint32_t function, uint32_t index)
{
	return (struct kvm_cpuid_entry2 *)(uintptr_t)leaf(function, index);
}

/*
 * Of leaf 0xD: what KVM lists in XCR0 and in IA32_XSS, what is left of it, the size of the area;
 * and bits of leaf 7 that must be gone: EBX, ECX, EDX, and of subleaf 1 EAX and EDX.
 */
static const struct incomplete {
	uint32_t xcr0, xss, xcr0_left, xss_left, size;
	uint32_t ebx, ecx, edx, eax_1, edx_1;
} incomplete[] = {
	/* Linux 6.1, to a process that has not asked for the tiles' data. */
	{ 0x202ff, 0x1800, 0x2ff, 0x1800, 2696, 0, 0, 1u << 22 | 1u << 24 | 1u << 25, 1u << 21,
	  1u << 8 },
	{ 0x402ff, 0x1800, 0x2ff, 0x1800, 2696, 0, 0, 1u << 24, 1u << 21, 1u << 8 },
	{ 0x602ff, 0x800, 0x602ff, 0, 11008, 0, 1u << 7, 1u << 20, 0, 0 },
	{ 0x6027f, 0x1800, 0x6021f, 0x1800, 11008, 0xdc230000, 0x5842, 0x80010c, 1u << 5, 0 },
	{ 0x60297, 0x1800, 0x60207, 0x1800, 11008, 1u << 14 | 1u << 16, 0, 0, 0, 0 },
	{ 0x600ff, 0x1800, 0x600ff, 0x1800, 11008, 0, 0x18, 0, 0, 0 },
	/* Without AVX there is no AVX-512 either. */
	{ 0xe3, 0, 0x3, 0, 576, 1u << 5 | 1u << 16, 1u << 9 | 1u << 10 | 1u << 1, 0, 1u << 4,
	  0x430 },
	{ 0x5, 0, 0x1, 0, 576, 1u << 5, 0, 0, 0, 0 },
};

START_TEST(incomplete_features_are_hidden)
{
	const struct incomplete *row = &incomplete[_i];
	const uint32_t left = row->xcr0_left | row->xss_left;

	fill(intel, ARRAY_SIZE(intel));
	entry_of(0xd, 0)->eax = row->xcr0;
	entry_of(0xd, 1)->ecx = row->xss;
	*entry_of(0x7, 0) = (struct kvm_cpuid_entry2){ 0x7, 0, INDEXED, 1, -1u, -1u, -1u, { 0 } };
	*entry_of(0x7, 1) = (struct kvm_cpuid_entry2){ 0x7, 1, INDEXED, -1u, -1u, -1u, -1u, { 0 } };
	normalise(&shapes[0], 0);
	ck_assert_uint_eq(leaf(0xd, 0)->eax, row->xcr0_left);
	ck_assert_uint_eq(leaf(0xd, 1)->ecx, row->xss_left);
	ck_assert_uint_eq(leaf(0xd, 0)->ecx, row->size);
	ck_assert_uint_eq(leaf(0x7, 0)->ebx & row->ebx, 0);
	ck_assert_uint_eq(leaf(0x7, 0)->ecx & row->ecx, 0);
	ck_assert_uint_eq(leaf(0x7, 0)->edx & row->edx, 0);
	ck_assert_uint_eq(leaf(0x7, 1)->eax & row->eax_1, 0);
	ck_assert_uint_eq(leaf(0x7, 1)->edx & row->edx_1, 0);
	/* Bits of no component stay. */
	ck_assert_uint_eq(leaf(0x7, 0)->ebx & 1u << 9, 1u << 9);
	ck_assert_uint_eq(leaf(0x1d, 1)->eax != 0, (left & 3u << 17) != 0);
	ck_assert_uint_eq(leaf(0xd, 1)->eax, left & 1u << 18 ? 0x1f : 0xf);
	for (uint32_t i = 0; i < table.kvm.nent; i++) {
		const struct kvm_cpuid_entry2 *entry = &table.kvm.entries[i];

		if (entry->function == 0xd && entry->index >= 2)
			ck_assert((row->xcr0 | row->xss) >> entry->index & 1
					  ? left >> entry->index & 1
					  : 1);
	}
}
END_TEST

static const uint32_t untouched[] = { 0x0, 0x7, 0xd, 0x1d, 0x40000000, 0x80000000, 0x80000008 };

START_TEST(other_leaves_stay_as_the_host_has_them)
{
	struct kvm_cpuid_entry2 before;

	fill(intel, ARRAY_SIZE(intel));
	before = *leaf(untouched[_i], 0);
	normalise(&shapes[3], 5);
	ck_assert_mem_eq(leaf(untouched[_i], 0), &before, sizeof(before));
}
END_TEST

START_TEST(missing_leaves_are_not_invented)
{
	fill(intel, 2);
	normalise(&shapes[1], 1);
	ck_assert_uint_eq(table.kvm.nent, 2);
}
END_TEST

START_TEST(empty_table_stays_empty)
{
	fill(intel, 0);
	normalise(&shapes[0], 0);
	ck_assert_uint_eq(table.kvm.nent, 0);
}
END_TEST

START_TEST(full_table_does_not_overflow)
{
	const size_t behind = sizeof(struct kvm_cpuid_entry2);
	union cpuid_table *full = calloc(1, sizeof(*full) + behind);

	ck_assert_ptr_nonnull(full);
	memset(full + 1, 0xee, behind);
	full->kvm.nent = CPUID_ENTRIES;
	for (uint32_t i = 0; i < CPUID_ENTRIES; i++)
		full->kvm.entries[i].function = i % 2 ? 0x7 : 0x80000002;
	full->kvm.entries[0].function = 0xb;
	full->kvm.entries[1].function = 0x1f;
	cpuid_normalise(full, &(struct cpuid_topology){ 1, 2, 1 });
	ck_assert_uint_eq(full->kvm.nent, CPUID_ENTRIES);
	ck_assert(all_bytes(full + 1, behind, 0xee));
	free(full);
}
END_TEST

Suite *cpuid_suite(void)
{
	Suite *suite = SUITE("cpuid", NULL, NULL, hypervisor_and_tsc_deadline_are_on_and_pdcm_off,
			     leaf_1_keeps_signature_brand_index_and_cache_line,
			     performance_counters_are_hidden, brand_string_tells_only_the_vendor,
			     hygon_is_treated_as_amd, missing_leaves_are_not_invented,
			     empty_table_stays_empty, full_table_does_not_overflow,
			     nested_virtualisation_is_hidden);
	const TTest *const shape_tests[] = {
		apic_id_is_the_vcpu_number,
		leaf_1_counts_the_apic_ids_of_the_package,
		extended_topology_has_threads_and_cores,
		intel_caches_are_shared_by_core_and_package,
		amd_caches_are_shared_by_core_and_package,
		amd_core_id_counts_cores,
		amd_size_identifiers_count_threads,
	};

	for (size_t i = 0; i < ARRAY_SIZE(shape_tests); i++)
		add_table_test(suite, NULL, NULL, shape_tests[i], ARRAY_SIZE(shapes));
	add_table_test(suite, NULL, NULL, other_leaves_stay_as_the_host_has_them,
		       ARRAY_SIZE(untouched));
	add_table_test(suite, NULL, NULL, incomplete_features_are_hidden, ARRAY_SIZE(incomplete));
	return suite;
}
