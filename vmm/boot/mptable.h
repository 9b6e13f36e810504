/* SPDX-License-Identifier: Apache-2.0 */
/* The MPTable (Intel MultiProcessor Specification 1.4), for kernels without ACPI. */
#ifndef MOTE_VMM_BOOT_MPTABLE_H
#define MOTE_VMM_BOOT_MPTABLE_H

struct guest_memory;

/*
 * Describes vcpu_count processors (APIC ids from 0), one IOAPIC (id vcpu_count) with its first 24
 * inputs wired to ISA interrupts of the same number, and the local interrupts.
 */
void mptable_write(const struct guest_memory *memory, unsigned int vcpu_count);

#endif
