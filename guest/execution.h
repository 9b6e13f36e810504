/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program that runs for a client: its streams, its end and what it took. Its output is taken only
 * when the client's stream has room, so a slow client slows its program; its input waits here, up
 * to the window of the protocol.
 */
#ifndef MOTE_GUEST_EXECUTION_H
#define MOTE_GUEST_EXECUTION_H

#include <jansson.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/resource.h>

#include "guest/cgroup.h"
#include "guest/failure.h"
#include "guest/program.h"

struct stream;

#define EXECUTION_FDS 5

struct execution {
	json_t *request; /* owned; program refers to it */
	struct program program;
	struct process process;
	struct cgroup cgroup;
	int64_t deadline_ns; /* 0: none */
	int64_t read_ns;     /* when output was last read */
	int64_t resume_ns;   /* output is not looked at before */

	uint8_t *input; /* owned: a ring of PROTOCOL_STDIN_WINDOW bytes; NULL until some come */
	size_t input_at;
	size_t input_used;
	bool input_ends;
	uint32_t taken; /* bytes out of the window that the client has not been told of */

	bool failed; /* to start; failure says why */
	struct failure failure;
	bool err_first;
	bool exited;
	bool alone;    /* nobody is left who could write to its streams */
	uint64_t late; /* bytes of output since its first process ended */
	bool told;     /* the client was told of the end; others still have the streams */
	bool timed_out;
	int status;
	struct rusage usage;
};

/* Takes the request in any case, whose "exec" exec is. NULL with failure set. */
struct execution *execution_start(json_t *request, const json_t *exec, struct failure *failure);
/* Kills what runs, if it is not to be kept. */
void execution_free(struct execution *execution);

/* A frame of the client; false if it does not keep to the protocol. */
bool execution_take(struct execution *execution, uint8_t type, const uint8_t *payload, size_t size);

/* Fills in what to wait for, given whether the client's stream has room. */
void execution_wait(struct execution *execution, bool room, struct pollfd fds[EXECUTION_FDS]);
/* When something is to be done whatever happens, CLOCK_MONOTONIC; INT64_MAX: never. */
int64_t execution_next_ns(const struct execution *execution);
/*
 * Does what can be done; stream NULL: there is no client any more. True when it is over for the
 * client: what that is to be told of the end is in the stream then.
 */
bool execution_serve(struct execution *execution, struct stream *stream,
		     const struct pollfd fds[EXECUTION_FDS]);

/* Nobody writes to its streams any more: it can be freed. */
bool execution_is_over(const struct execution *execution);

/* Its first process has ended. */
void execution_exited(struct execution *execution, int status, const struct rusage *usage);
/* The client has left. */
void execution_abandon(struct execution *execution);
/* Kills it, if its time is over. */
void execution_expire(struct execution *execution, int64_t now_ns);

#endif
