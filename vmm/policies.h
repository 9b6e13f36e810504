/* SPDX-License-Identifier: Apache-2.0 */
/* The compiled policies of vmm/policies/. */
#ifndef MOTE_VMM_POLICIES_H
#define MOTE_VMM_POLICIES_H

#include <linux/filter.h>

/* Stands in a compiled policy where the number of the process is to be; no argument is this. */
#define POLICY_OWN_PID 0x4f57504eU

extern const struct sock_filter policy_main[];
extern const unsigned short policy_main_length; /* instructions */
extern const struct sock_filter policy_vcpu[];
extern const unsigned short policy_vcpu_length;
extern const struct sock_filter policy_block[];
extern const unsigned short policy_block_length;
extern const struct sock_filter policy_creator[];
extern const unsigned short policy_creator_length;

#endif
