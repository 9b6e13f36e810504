/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The model-specific registers of a vCPU: those that KVM lists, less those that it then refuses to
 * read, and all of its own (0x4b564d00 to 0x4b564dff).
 */
#ifndef MOTE_VMM_KVM_MSR_STATE_H
#define MOTE_VMM_KVM_MSR_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/state.h"

struct err;
struct kvm;

/*
 * When the timer of the local APIC is due, by the time-stamp counter; 0: not any more. False if the
 * vCPU has no such register. It comes due on a vCPU that stands still, too: KVM then makes it 0 and
 * puts the interrupt into the local APIC.
 */
bool msr_state_deadline(int vcpu_fd, uint64_t *deadline);

/* Adds them, the deadline as it was when the local APIC was read. 0 or -errno with err set. */
int msr_state_save(const struct kvm *kvm, int vcpu_fd, uint64_t deadline, struct state_writer *out,
		   struct err *err);

/*
 * Sets them, after CPUID and the local APIC; the timer's deadline after the counter that it counts
 * by. The bytes may be hostile. 0 or -errno with err naming the register that is refused.
 */
int msr_state_restore(int vcpu_fd, struct state_reader *in, struct err *err);

#endif
