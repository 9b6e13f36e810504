/* SPDX-License-Identifier: Apache-2.0 */
/* One sentence about what failed, which the client of a request is told. */
#ifndef MOTE_GUEST_FAILURE_H
#define MOTE_GUEST_FAILURE_H

#define FAILURE_SIZE 512

struct failure {
	char text[FAILURE_SIZE];
	int status; /* PROTOCOL_STATUS_... */
};

/* Each sets the sentence, with PROTOCOL_STATUS_AGENT, and returns -1. */
int failure_set(struct failure *failure, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/* The same, with ": " and the description of errnum appended. */
int failure_sys(struct failure *failure, int errnum, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif
