/* SPDX-License-Identifier: Apache-2.0 */
/* CPUID of a guest that was saved, beside what this host has. */
#ifndef MOTE_VMM_KVM_CPUID_CHECK_H
#define MOTE_VMM_KVM_CPUID_CHECK_H

#include "base/state.h"
#include "vmm/kvm/cpuid_table.h"

struct err;

/* Writes a table, or reads one; one with more entries than there is room for fails the reader. */
void cpuid_code(const struct state_codec *codec, union cpuid_table *table);

/*
 * Whether a host that supports `host` keeps what `guest` was promised: the vendor, each feature,
 * the size of addresses, and each component of the extended state, in its place. 0, or -ENOTSUP
 * with err naming the first that it lacks.
 */
int cpuid_compare(const union cpuid_table *guest, const union cpuid_table *host, struct err *err);

/*
 * The same for this host, on which the vCPU is new: what KVM supports, and what it lets every guest
 * see whatever it is told. Or -errno of /dev/kvm.
 */
int cpuid_check(int dev_fd, int vcpu_fd, const union cpuid_table *guest, struct err *err);

#endif
