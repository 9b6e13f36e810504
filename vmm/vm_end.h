/* SPDX-License-Identifier: Apache-2.0 */
/* How a virtual machine came to its end. */
#ifndef MOTE_VMM_VM_END_H
#define MOTE_VMM_VM_END_H

enum vm_end_kind {
	VM_END_NONE,
	VM_END_POWER_OFF,    /* the guest entered sleep state S5 */
	VM_END_RESET,	     /* the guest reset the machine through the i8042 */
	VM_END_STOPPED,	     /* the host asked for it */
	VM_END_PANIC,	     /* reset or triple fault behind a panic message */
	VM_END_TRIPLE_FAULT, /* KVM_EXIT_SHUTDOWN */
	VM_END_KVM_ERROR,    /* KVM could not go on; the registers are in the log */
};

struct vm_end {
	enum vm_end_kind kind;
	char text[256]; /* one sentence */
};

/*
 * The process's exit status. Resets count as a good end, as for Firecracker, whose guests have no
 * other way to power off.
 */
static inline int vm_end_exit_status(const struct vm_end *end)
{
	switch (end->kind) {
	case VM_END_PANIC:
		return 160;
	case VM_END_TRIPLE_FAULT:
		return 161;
	case VM_END_KVM_ERROR:
		return 162;
	default:
		return 0;
	}
}

#endif
