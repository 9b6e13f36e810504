/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The whole state of a virtual processor, saved and restored in the order that KVM needs: the MP
 * state is read first, as reading it may change the local APIC, and events last; the local APIC is
 * set after the special registers, which set its base, and events after the registers, which clear
 * them. The vCPU is out of KVM_RUN, with no half-finished I/O. Main thread.
 */
#ifndef MOTE_VMM_KVM_VCPU_STATE_H
#define MOTE_VMM_KVM_VCPU_STATE_H

#include "base/state.h"

struct err;
struct kvm;

#define VCPU_STATE_VERSION 1

/* Adds the body of a vCPU's section. 0 or -errno with err naming the ioctl. */
int vcpu_state_save(const struct kvm *kvm, int vcpu_fd, struct state_writer *out, struct err *err);

/*
 * Gives it to a new vCPU. The bytes may be hostile. 0 or -errno with err naming what this host, or
 * KVM, does not take; then the vCPU is only good to be closed.
 */
int vcpu_state_restore(const struct kvm *kvm, int vcpu_fd, struct state_reader *in,
		       struct err *err);

#endif
