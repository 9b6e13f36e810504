/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The processor state at a kernel's entry: by the 64-bit boot protocol (Documentation/arch/x86/
 * boot.rst, "64-bit Boot Protocol") or by PVH (Xen's docs/misc/pvh.pandoc).
 */
#ifndef MOTE_VMM_KVM_REGISTERS_H
#define MOTE_VMM_KVM_REGISTERS_H

#include <linux/kvm.h>
#include <stdint.h>

#include "vmm/boot/kernel_image.h"

struct err;
struct guest_memory;

/* GDT, IDT, and for the 64-bit entry the page tables that map the first GiB onto itself. */
void registers_write_tables(const struct guest_memory *memory, enum kernel_entry entry);

/* The pure parts: they start from what KVM_GET_* answered. */
void registers_entry(struct kvm_regs *regs, enum kernel_entry entry, uint64_t address);
void registers_segments(struct kvm_sregs *sregs, enum kernel_entry entry);
void registers_lapic(struct kvm_lapic_state *lapic);

/*
 * Sets MSRs, FPU and LAPIC of a vCPU, and of the boot processor also segments and general
 * registers. 0 or -errno with err naming the ioctl.
 */
int registers_set_up(int vcpu_fd, unsigned int vcpu_id, enum kernel_entry entry, uint64_t address,
		     struct err *err);

/* Writes all registers of a stopped vCPU to the log. */
void registers_log(int vcpu_fd);

#endif
