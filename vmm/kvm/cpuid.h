/* SPDX-License-Identifier: Apache-2.0 */
/* What a guest's CPUID instruction says: KVM's supported features, with our topology. */
#ifndef MOTE_VMM_KVM_CPUID_H
#define MOTE_VMM_KVM_CPUID_H

#include "vmm/kvm/cpuid_table.h"

struct err;

struct cpuid_topology {
	unsigned int vcpu_id; /* also the APIC id */
	unsigned int vcpu_count;
	unsigned int threads_per_core; /* 1 or 2 */
};

/* KVM_GET_SUPPORTED_CPUID on the /dev/kvm descriptor. 0 or -errno with err set. */
int cpuid_get_supported(int dev_fd, union cpuid_table *table, struct err *err);

/*
 * Turns the supported features into those of one vCPU: APIC id and topology (leaves 1, 4, 0xB,
 * 0x1F, 0x80000008, 0x8000001D, 0x8000001E), HYPERVISOR and TSC_DEADLINE on, PDCM and the PMU off,
 * a brand string that tells nothing about the host, and neither features of which a part is missing
 * nor nested virtualisation. The vendor stays the host's.
 */
void cpuid_normalise(union cpuid_table *table, const struct cpuid_topology *topology);

#endif
