/* SPDX-License-Identifier: Apache-2.0 */
/* Which of the features that KVM supports a guest is told of. */
#ifndef MOTE_VMM_KVM_CPUID_FEATURES_H
#define MOTE_VMM_KVM_CPUID_FEATURES_H

union cpuid_table;

/*
 * Hides state components (leaf 0xD) of which a part is missing, and features whose components are
 * missing; the area's size follows. KVM of Linux 6.1 lists AMX's tile configuration to a process
 * that has not asked for the tiles' data (arch_prctl, ARCH_REQ_XCOMP_GUEST_PERM): a guest that
 * believes it sets one of two bits of XCR0 that belong together, which is a general protection
 * fault early in its boot.
 */
void cpuid_hide_incomplete(union cpuid_table *table);

/*
 * Hides VMX and SVM, and with them the largest part of KVM that a guest could reach, and the debug
 * store (DS, DTES64), which KVM does not have.
 */
void cpuid_hide_nested_virtualisation(union cpuid_table *table);

#endif
