/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MOTE_VMM_KVM_CPUID_TABLE_H
#define MOTE_VMM_KVM_CPUID_TABLE_H

#include <linux/kvm.h>

#define CPUID_ENTRIES 128

/* KVM's flexible array, with room. */
union cpuid_table {
	struct kvm_cpuid2 kvm;
	char room[sizeof(struct kvm_cpuid2) + CPUID_ENTRIES * sizeof(struct kvm_cpuid_entry2)];
};

#endif
