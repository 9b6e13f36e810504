/* SPDX-License-Identifier: Apache-2.0 */
/* What a process may do by who it is and by its limits. Each is for good. */
#ifndef MOTE_JAILER_PRIVILEGES_H
#define MOTE_JAILER_PRIVILEGES_H

struct err;
struct jailer_args;

/*
 * Of the calling process. Core dumps are none, even for a handler that is a pipe; locked memory is
 * what io_uring takes for the drives.
 */
int privileges_limit(const struct jailer_args *args, struct err *err);

/*
 * Becomes uid and gid, without supplementary groups, and without any capability in any set, now or
 * by any means later; verified.
 */
int privileges_drop(const struct jailer_args *args, struct err *err);

#endif
