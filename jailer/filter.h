/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System calls that nothing in a jail needs from its first instruction on: refused with EPERM. It
 * is the wall for the time before a VM is started; then the VMM's own policies (vmm/policies/),
 * which name the few calls that are possible, come on top.
 */
#ifndef MOTE_JAILER_FILTER_H
#define MOTE_JAILER_FILTER_H

#include <stdbool.h>

struct err;

/* Needs no_new_privs. With `uffd`, userfaultfd(2) is left. */
int filter_enter(bool uffd, struct err *err);

#endif
