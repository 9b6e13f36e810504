/* SPDX-License-Identifier: Apache-2.0 */
/* The input is a topology and the entries that KVM is supposed to have given. */
#include <stdbool.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "vmm/kvm/cpuid.h"

/* As the configuration allows it. */
static struct cpuid_topology topology_from(const uint8_t data[3])
{
	struct cpuid_topology topology = {
		.vcpu_count = data[0] % 32u + 1,
		.threads_per_core = data[1] % 2u + 1,
	};

	if (topology.vcpu_count % 2)
		topology.threads_per_core = 1;
	topology.vcpu_id = data[2] % topology.vcpu_count;
	return topology;
}

static void check_entry(const struct kvm_cpuid_entry2 *entry, const struct cpuid_topology *topology)
{
	switch (entry->function) {
	case 0x1:
		REQUIRE(entry->ebx >> 24 == topology->vcpu_id);
		REQUIRE(entry->ecx >> 31 == 1);
		break;
	case 0xa:
		REQUIRE((entry->eax | entry->ebx | entry->ecx | entry->edx) == 0);
		break;
	case 0xb:
	case 0x1f:
		REQUIRE(entry->index < 3);
		REQUIRE(entry->edx == topology->vcpu_id);
		break;
	case 0x8000001e:
		REQUIRE(entry->eax == topology->vcpu_id);
		break;
	default:
		break;
	}
}

static const struct kvm_cpuid_entry2 *find(const union cpuid_table *table, uint32_t function,
					   uint32_t index)
{
	static const struct kvm_cpuid_entry2 none;

	for (uint32_t i = 0; i < table->kvm.nent; i++) {
		const struct kvm_cpuid_entry2 *entry = &table->kvm.entries[i];

		if (entry->function == function && entry->index == index)
			return entry;
	}
	return &none;
}

/* All of these components, or none. */
static bool all_or_none(uint32_t components, uint32_t group)
{
	return (components & group) == 0 || (components & group) == group;
}

/* A Linux that takes these features enables all that is in XCR0, and believes the size. */
static void check_features(const union cpuid_table *table)
{
	const struct kvm_cpuid_entry2 *user = find(table, 0xd, 0), *seven = find(table, 0x7, 0);
	uint32_t components = user->eax | find(table, 0xd, 1)->ecx;

	REQUIRE(all_or_none(components, 3u << 3) && all_or_none(components, 7u << 5));
	REQUIRE(all_or_none(components, 3u << 11) && all_or_none(components, 3u << 17));
	REQUIRE(!(components & 1u << 5) || components & 1u << 2);
	REQUIRE(!(components & 1u << 2) || components & 1u << 1);
	REQUIRE(!(find(table, 0x1, 0)->ecx & 1u << 28) || components & 1u << 2);
	REQUIRE(!(seven->ebx & 1u << 16) || components & 1u << 5);
	REQUIRE(!(seven->ecx & 1u << 3) || components & 1u << 9);
	REQUIRE(!(seven->edx & 1u << 24) || components & 1u << 18);
	REQUIRE(!(find(table, 0x1, 0)->ecx & 1u << 5));
	REQUIRE(!(find(table, 0x80000001, 0)->ecx & 1u << 2));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static union cpuid_table table;
	struct cpuid_topology topology;

	if (size < 3)
		return 0;
	topology = topology_from(data);
	data += 3;
	size -= 3;
	memset(&table, 0, sizeof(table));
	table.kvm.nent = (uint32_t)(size / sizeof(table.kvm.entries[0]));
	if (table.kvm.nent > CPUID_ENTRIES)
		table.kvm.nent = CPUID_ENTRIES;
	memcpy(table.kvm.entries, data, table.kvm.nent * sizeof(table.kvm.entries[0]));
	cpuid_normalise(&table, &topology);
	REQUIRE(table.kvm.nent <= CPUID_ENTRIES);
	check_features(&table);
	for (uint32_t i = 0; i < table.kvm.nent; i++)
		check_entry(&table.kvm.entries[i], &topology);
	return 0;
}
