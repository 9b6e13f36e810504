/* SPDX-License-Identifier: Apache-2.0 */
/* The state of what KVM emulates beside the vCPUs: interrupt controllers, PIT, clock. */
#ifndef MOTE_VMM_KVM_VM_STATE_H
#define MOTE_VMM_KVM_VM_STATE_H

#include <stdbool.h>

#include "base/state.h"

struct err;
struct kvm;

#define VM_STATE_VERSION 1

/* With all vCPUs out of the guest. 0 or -errno with err naming the ioctl. Main thread. */
int vm_state_save(const struct kvm *kvm, struct state_writer *out, struct err *err);

/*
 * To a new VM that has its interrupt controllers, after its vCPUs have theirs. The guest's clock
 * goes on where it was, or with clock_realtime where it would be by now. The bytes may be hostile.
 * 0 or -errno with err set.
 */
int vm_state_restore(const struct kvm *kvm, bool clock_realtime, struct state_reader *in,
		     struct err *err);

#endif
