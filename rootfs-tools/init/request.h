/* SPDX-License-Identifier: Apache-2.0 */
/* What a client may ask for, by the one member of its request. */
#ifndef MOTE_INIT_REQUEST_H
#define MOTE_INIT_REQUEST_H

#include <stddef.h>
#include <stdint.h>

struct agent;
struct execution;
struct failure;
struct stream;

enum request_outcome {
	REQUEST_FAILED,	  /* failure says why */
	REQUEST_ANSWERED, /* the answer is in the stream */
	REQUEST_EXECUTES, /* a program runs, *execution */
};

enum request_outcome request_begin(struct agent *agent, struct stream *stream,
				   const uint8_t *payload, size_t size,
				   struct execution **execution, struct failure *failure);

#endif
