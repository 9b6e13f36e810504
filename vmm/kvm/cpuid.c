/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/kvm/cpuid.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/err.h"
#include "vmm/kvm/cpuid_features.h"

/* Leaf 1 */
#define ECX_PDCM (1u << 15)
#define ECX_TSC_DEADLINE (1u << 24)
#define ECX_HYPERVISOR (1u << 31)
#define EDX_HTT (1u << 28)
#define CACHE_LINE_QUADWORDS 8

#define LEVEL_SMT 1
#define LEVEL_CORE 2

#define BRAND_LENGTH 48

struct topology {
	struct cpuid_topology cpu;
	unsigned int thread_bits;  /* of the APIC id that number threads in a core */
	unsigned int core_bits;	   /* that number cores in the package */
	unsigned int package_bits; /* of the APIC id that number threads in the package */
	bool amd;
};

static unsigned int bits_for(unsigned int count)
{
	unsigned int bits = 0;

	while ((1u << bits) < count)
		bits++;
	return bits;
}

static void set_field(uint32_t *reg, unsigned int shift, unsigned int width, uint32_t value)
{
	uint32_t mask = (width == 32 ? UINT32_MAX : (1u << width) - 1) << shift;

	*reg = (*reg & ~mask) | (value << shift & mask);
}

static const struct kvm_cpuid_entry2 *find(const union cpuid_table *table, uint32_t function)
{
	for (uint32_t i = 0; i < table->kvm.nent; i++) {
		if (table->kvm.entries[i].function == function)
			return &table->kvm.entries[i];
	}
	return NULL;
}

static void set_features(struct kvm_cpuid_entry2 *entry, const struct topology *topology)
{
	set_field(&entry->ebx, 8, 8, CACHE_LINE_QUADWORDS);
	set_field(&entry->ebx, 16, 8, 1u << topology->package_bits);
	set_field(&entry->ebx, 24, 8, topology->cpu.vcpu_id);
	entry->ecx |= ECX_TSC_DEADLINE | ECX_HYPERVISOR;
	entry->ecx &= ~ECX_PDCM;
	if (topology->cpu.vcpu_count > 1)
		entry->edx |= EDX_HTT;
	else
		entry->edx &= ~EDX_HTT;
}

/* Leaves 4 (Intel) and 0x8000001D (AMD): who shares each cache. */
static void set_cache_sharing(struct kvm_cpuid_entry2 *entry, const struct topology *topology)
{
	unsigned int level = entry->eax >> 5 & 0x7;
	unsigned int threads = topology->cpu.threads_per_core;

	if ((entry->eax & 0x1f) == 0)
		return;
	/* The last level is the package's, the others are their core's. */
	set_field(&entry->eax, 14, 12, (level >= 3 ? 1u << topology->package_bits : threads) - 1);
	if (entry->function == 0x4)
		set_field(&entry->eax, 26, 6, (1u << topology->core_bits) - 1);
}

/* Leaves 0xB and 0x1F: one subleaf a level. */
static void set_extended_topology(struct kvm_cpuid_entry2 *entry, const struct topology *topology)
{
	entry->eax = entry->ebx = entry->ecx = 0;
	entry->edx = topology->cpu.vcpu_id;
	entry->ecx = entry->index & 0xff;
	if (entry->index == 0) {
		entry->eax = topology->thread_bits;
		entry->ebx = topology->cpu.threads_per_core;
		entry->ecx |= LEVEL_SMT << 8;
	} else if (entry->index == 1) {
		entry->eax = topology->package_bits;
		entry->ebx = topology->cpu.vcpu_count;
		entry->ecx |= LEVEL_CORE << 8;
	}
}

static void set_brand(struct kvm_cpuid_entry2 *entry, const struct topology *topology)
{
	char brand[BRAND_LENGTH] = "Intel(R) Xeon(R) Processor";
	uint32_t words[4];

	if (topology->amd)
		strncpy(brand, "AMD EPYC", sizeof(brand));
	memcpy(words, brand + (entry->function - 0x80000002) * sizeof(words), sizeof(words));
	entry->eax = words[0];
	entry->ebx = words[1];
	entry->ecx = words[2];
	entry->edx = words[3];
}

static void set_entry(struct kvm_cpuid_entry2 *entry, const struct topology *topology)
{
	unsigned int threads = topology->cpu.threads_per_core;

	switch (entry->function) {
	case 0x1:
		set_features(entry, topology);
		break;
	case 0x4:
	case 0x8000001d:
		set_cache_sharing(entry, topology);
		break;
	case 0xa:
		entry->eax = entry->ebx = entry->ecx = entry->edx = 0;
		break;
	case 0xb:
	case 0x1f:
		set_extended_topology(entry, topology);
		break;
	case 0x80000002:
	case 0x80000003:
	case 0x80000004:
		set_brand(entry, topology);
		break;
	case 0x80000008:
		if (topology->amd) {
			set_field(&entry->ecx, 0, 8, topology->cpu.vcpu_count - 1);
			set_field(&entry->ecx, 12, 4, topology->package_bits);
		}
		break;
	case 0x8000001e:
		entry->eax = topology->cpu.vcpu_id;
		set_field(&entry->ebx, 0, 8, topology->cpu.vcpu_id >> topology->thread_bits);
		set_field(&entry->ebx, 8, 8, threads - 1);
		entry->ecx = 0; /* one node */
		break;
	default:
		break;
	}
}

/* KVM lists as many subleaves as the host has; ours are two levels and the end. */
static void add_topology_levels(union cpuid_table *table, uint32_t function)
{
	uint32_t kept = 0;
	bool known = find(table, function) != NULL;

	if (!known)
		return;
	for (uint32_t i = 0; i < table->kvm.nent; i++) {
		if (table->kvm.entries[i].function != function)
			table->kvm.entries[kept++] = table->kvm.entries[i];
	}
	for (uint32_t index = 0; index < 3 && kept < CPUID_ENTRIES; index++)
		table->kvm.entries[kept++] = (struct kvm_cpuid_entry2){
			.function = function,
			.index = index,
			.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
		};
	table->kvm.nent = kept;
}

int cpuid_get_supported(int dev_fd, union cpuid_table *table, struct err *err)
{
	memset(table, 0, sizeof(*table));
	table->kvm.nent = CPUID_ENTRIES;
	if (ioctl(dev_fd, KVM_GET_SUPPORTED_CPUID, &table->kvm) < 0)
		return err_sys(err, errno, "/dev/kvm: KVM_GET_SUPPORTED_CPUID");
	return 0;
}

void cpuid_normalise(union cpuid_table *table, const struct cpuid_topology *cpu)
{
	const struct kvm_cpuid_entry2 *vendor = find(table, 0);
	const struct topology topology = {
		.cpu = *cpu,
		.thread_bits = bits_for(cpu->threads_per_core),
		.core_bits = bits_for(cpu->vcpu_count / cpu->threads_per_core),
		.package_bits = bits_for(cpu->vcpu_count),
		/* "Auth"enticAMD, or "Hygo"nGenuine, which is AMD's design. */
		.amd = vendor && (vendor->ebx == 0x68747541 || vendor->ebx == 0x6f677948),
	};

	cpuid_hide_incomplete(table);
	cpuid_hide_nested_virtualisation(table);
	add_topology_levels(table, 0xb);
	add_topology_levels(table, 0x1f);
	for (uint32_t i = 0; i < table->kvm.nent; i++)
		set_entry(&table->kvm.entries[i], &topology);
}
