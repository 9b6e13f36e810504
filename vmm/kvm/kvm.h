/* SPDX-License-Identifier: Apache-2.0 */
/* The KVM device and one virtual machine on it (Documentation/virt/kvm/api.rst). */
#ifndef MOTE_VMM_KVM_KVM_H
#define MOTE_VMM_KVM_KVM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cpu_template;
struct err;
struct guest_memory;

struct kvm {
	int dev_fd;	 /* owned */
	int vm_fd;	 /* owned */
	size_t run_size; /* bytes of a vCPU's shared kvm_run mapping */
	bool readonly_memory;
};

/*
 * Opens /dev/kvm, checks its version and every capability that mote and the CPU template need, and
 * creates a VM. 0 or -errno with err naming what is missing; on failure there is nothing to close.
 */
int kvm_open(struct kvm *kvm, const struct cpu_template *template, struct err *err);
/* Safe on a zeroed or already closed object. */
void kvm_close(struct kvm *kvm);

/*
 * Gives the guest its memory, which must outlive the VM. Call it before kvm_create_irqchip: behind
 * that each memory slot costs an SRCU grace period, several milliseconds.
 */
int kvm_set_memory(const struct kvm *kvm, const struct guest_memory *memory, struct err *err);

/*
 * Lets the guest read `size` bytes of the host's at guest physical address addr, in slot `slot`;
 * its writes there are MMIO. Needs kvm->readonly_memory. As costly as kvm_set_memory behind
 * kvm_create_irqchip.
 */
int kvm_set_readonly(const struct kvm *kvm, uint32_t slot, uint64_t addr, void *host, uint64_t size,
		     struct err *err);

/* PIC, IOAPIC, local APICs and PIT, all in the kernel. Before the first vCPU. */
int kvm_create_irqchip(const struct kvm *kvm, struct err *err);

/* Each 1 written to the eventfd becomes an edge on the interrupt line. */
int kvm_add_irqfd(const struct kvm *kvm, int event_fd, uint32_t gsi, struct err *err);

/*
 * A 32-bit write of `value` to guest physical address addr becomes a 1 in the eventfd, without an
 * exit. Like memory, cheaper before kvm_create_irqchip.
 */
int kvm_add_ioeventfd(const struct kvm *kvm, int event_fd, uint64_t addr, uint32_t value,
		      struct err *err);

#endif
