/* SPDX-License-Identifier: Apache-2.0 */
/* What a client may ask for, by the one member of its request. */
#ifndef MOTE_GUEST_REQUEST_H
#define MOTE_GUEST_REQUEST_H

#include <stddef.h>
#include <stdint.h>

struct execution;
struct failure;
struct stream;

enum request_outcome {
	REQUEST_FAILED,	  /* failure says why */
	REQUEST_ANSWERED, /* the answer is in the stream */
	REQUEST_ENDS,	  /* the same, and the machine is to end within grace_ms */
	REQUEST_EXECUTES, /* a program runs, `execution` */
	REQUEST_GIVEN,	  /* a process of its own has the stream */
};

struct request {
	/* What a request may ask for, or change. */
	unsigned int streams;
	int64_t *epoch;
	/* What comes of it. */
	struct execution *execution;
	int64_t grace_ms;
};

enum request_outcome request_begin(struct request *request, struct stream *stream,
				   const uint8_t *payload, size_t size, struct failure *failure);

#endif
