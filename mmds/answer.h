/* SPDX-License-Identifier: Apache-2.0 */
/* One HTTP request of the guest's, and the answer to it. */
#ifndef MOTE_MMDS_ANSWER_H
#define MOTE_MMDS_ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mmds;

struct answer {
	char *text; /* owned; NULL none */
	size_t size;
	bool close; /* it is the last on its connection */
};

/* The size of the first request of these bytes, up to the empty line; 0 if it is not whole. */
size_t answer_request_size(const char *bytes, size_t size);

/*
 * Answers it. 0, or -ENOMEM. What answers of all connections take together is limited: beyond it
 * they are just 503.
 */
int answer_make(struct mmds *mmds, const char *request, size_t size, int64_t now_ns,
		struct answer *answer);
/* Safe on a zeroed one. */
void answer_free(struct mmds *mmds, struct answer *answer);

#endif
