/* SPDX-License-Identifier: Apache-2.0 */
/* The input is a topology and the entries that KVM is supposed to have given. */
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
	for (uint32_t i = 0; i < table.kvm.nent; i++)
		check_entry(&table.kvm.entries[i], &topology);
	return 0;
}
