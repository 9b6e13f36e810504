/* SPDX-License-Identifier: Apache-2.0 */
/* Which of the descriptors that the jailer inherited the VMM inherits. */
#ifndef MOTE_JAILER_DESCRIPTORS_H
#define MOTE_JAILER_DESCRIPTORS_H

struct err;
struct jailer_args;

/*
 * Closes all but the standard ones and those of --keep-fd. A directory is refused: from it the
 * whole file system around it could be reached.
 */
int descriptors_prepare(const struct jailer_args *args, struct err *err);

/* Once the VMM has them: the jailer's own copies of --keep-fd's, which it has no use for. */
void descriptors_close_kept(const struct jailer_args *args);

/* /dev/null in the place of the standard ones. */
int descriptors_detach(struct err *err);

#endif
