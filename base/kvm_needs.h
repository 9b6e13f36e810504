/* SPDX-License-Identifier: Apache-2.0 */
/* The capabilities of KVM without which no microVM is made. */
#ifndef MOTE_BASE_KVM_NEEDS_H
#define MOTE_BASE_KVM_NEEDS_H

/* NEED(capability) for each. */
#define KVM_NEEDS(NEED)                                                                            \
	NEED(KVM_CAP_USER_MEMORY)                                                                  \
	NEED(KVM_CAP_SET_TSS_ADDR)                                                                 \
	NEED(KVM_CAP_IRQCHIP)                                                                      \
	NEED(KVM_CAP_PIT2)                                                                         \
	NEED(KVM_CAP_IRQFD)                                                                        \
	NEED(KVM_CAP_IOEVENTFD)                                                                    \
	NEED(KVM_CAP_EXT_CPUID)                                                                    \
	NEED(KVM_CAP_MP_STATE)                                                                     \
	NEED(KVM_CAP_VCPU_EVENTS)                                                                  \
	NEED(KVM_CAP_IMMEDIATE_EXIT)                                                               \
	NEED(KVM_CAP_TSC_DEADLINE_TIMER)

#endif
