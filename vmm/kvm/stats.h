/* SPDX-License-Identifier: Apache-2.0 */
/* KVM's own counters of a vCPU (Documentation/virt/kvm/api.rst, KVM_GET_STATS_FD). */
#ifndef MOTE_VMM_KVM_STATS_H
#define MOTE_VMM_KVM_STATS_H

/* Writes every counter that is not zero to the log, at level Debug; nothing on older kernels. */
void stats_log(int vcpu_fd, unsigned int vcpu_id);

#endif
