/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The model-specific registers of a vCPU: those that KVM lists, less those that it then refuses to
 * read, and all of its own (0x4b564d00 to 0x4b564dff).
 */
#ifndef MOTE_VMM_KVM_MSR_STATE_H
#define MOTE_VMM_KVM_MSR_STATE_H

#include "base/state.h"

struct err;
struct kvm;
struct kvm_lapic_state;

/*
 * Adds them. A timer whose deadline KVM does not tell any more (it reads as 0 once it is due) comes
 * due at once after the restore. 0 or -errno with err set.
 */
int msr_state_save(const struct kvm *kvm, int vcpu_fd, const struct kvm_lapic_state *lapic,
		   struct state_writer *out, struct err *err);

/*
 * Sets them, after CPUID and the local APIC; the timer's deadline after the counter that it counts
 * by. The bytes may be hostile. 0 or -errno with err naming the register that is refused.
 */
int msr_state_restore(int vcpu_fd, struct state_reader *in, struct err *err);

#endif
