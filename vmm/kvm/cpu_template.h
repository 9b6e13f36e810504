/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A custom CPU template: which of a guest's CPUID and MSR bits differ from what mote would show,
 * and which of KVM's capabilities are checked at the start. The format is Firecracker's.
 */
#ifndef MOTE_VMM_KVM_CPU_TEMPLATE_H
#define MOTE_VMM_KVM_CPU_TEMPLATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
union cpuid_table;

#define CPU_TEMPLATE_ENTRIES_MAX 256 /* of each list */

/* Bits in the mask become those of the value; the value has no others. */
struct bitmap {
	uint64_t mask;
	uint64_t value;
};

enum cpuid_register { CPUID_EAX, CPUID_EBX, CPUID_ECX, CPUID_EDX, CPUID_REGISTERS };

struct cpuid_modifier {
	uint32_t leaf;
	uint32_t subleaf;
	uint32_t flags; /* KVM_CPUID_FLAG_*: the entry's, from now on */
	struct bitmap registers[CPUID_REGISTERS];
};

struct msr_modifier {
	uint32_t addr;
	struct bitmap bitmap;
};

struct capability_check {
	uint32_t number; /* KVM_CAP_* */
	bool dropped;	 /* no longer needed, although mote would need it */
};

/* The lists are owned (malloc). Zeroed, it changes nothing. */
struct cpu_template {
	struct capability_check *capabilities;
	size_t capability_count;
	struct cpuid_modifier *cpuid;
	size_t cpuid_count;
	struct msr_modifier *msrs;
	size_t msr_count;
};

void cpu_template_free(struct cpu_template *template);

static inline uint64_t bitmap_apply(const struct bitmap *bitmap, uint64_t value)
{
	return (value & ~bitmap->mask) | bitmap->value;
}

/* Whether the capability, which mote needs by itself, is to be checked. The last word counts. */
bool cpu_template_needs(const struct cpu_template *template, uint32_t number, bool otherwise);

/* Whether KVM has the capabilities asked for besides. 0 or -errno with err naming the first not. */
int cpu_template_check(const struct cpu_template *template, int kvm_fd, struct err *err);

/*
 * Changes a vCPU's finished table, in the template's order. -ENOTSUP with err naming a leaf that is
 * not in the table; the table is then half changed.
 */
int cpu_template_apply_cpuid(const struct cpu_template *template, union cpuid_table *table,
			     struct err *err);

/* Changes a vCPU's MSRs, in the template's order. 0 or -errno with err naming the MSR refused. */
int cpu_template_apply_msrs(const struct cpu_template *template, int vcpu_fd, struct err *err);

#endif
