/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the VMM's threads may ask of the host's kernel while a guest runs: a policy for each role
 * (vmm/policies/), for good. Anything else ends the process: by SIGSYS, which no handler sees; at
 * log level Debug the fatal handler names the call first.
 */
#ifndef MOTE_VMM_SECCOMP_H
#define MOTE_VMM_SECCOMP_H

struct err;

enum seccomp_role { SECCOMP_MAIN, SECCOMP_VCPU, SECCOMP_BLOCK, SECCOMP_CREATOR };

/*
 * Puts the calling thread under its role's policy. 0 or -errno with err set. The sanitizers need
 * calls of their own: in a build with one, this does nothing.
 */
int seccomp_enter(enum seccomp_role role, struct err *err);

#endif
