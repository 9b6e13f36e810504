/* SPDX-License-Identifier: Apache-2.0 */
/* A supervisor in the background, whose parent waits until it says how it began. */
#ifndef MOTE_CLI_DETACH_H
#define MOTE_CLI_DETACH_H

struct err;

/*
 * Forks. In the parent: prints what the child says once it is well under way, or its error, and
 * sets *status to what to exit with; returns 0. In the child, which has no terminal and no
 * descriptor of its caller any more: the descriptor for detach_ready. Or -errno with err set.
 */
int detach_fork(int *status, struct err *err);

/* All is well; closes *fd. */
void detach_ready(int *fd, const char *line);
/* It has failed, with this sentence; closes *fd. */
void detach_failed(int *fd, const char *sentence);

#endif
