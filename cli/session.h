/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One exec request over a stream to the agent: passes input, output, signals and the terminal's
 * size through, and keeps how it ended. The caller polls, together with what else it waits for.
 */
#ifndef MOTE_CLI_SESSION_H
#define MOTE_CLI_SESSION_H

#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "cli/terminal.h"
#include "host/agent_client.h"

/* What is to be run, and how. Strings are not owned; NULL: the image's or the agent's default. */
struct session_request {
	json_t *argv;	 /* owned; of strings, which need not be UTF-8 */
	json_t *env;	 /* likewise, NAME=VALUE */
	json_t *rlimits; /* owned; as the protocol has them, or NULL */
	const char *cwd;
	bool make_cwd; /* if it is not there */
	const char *user;
	int64_t timeout_ms; /* 0: none */
	bool tty;
	bool keep; /* what it starts outlives this client */
	bool no_stdin;
};

enum session_end {
	SESSION_RUNS,
	SESSION_EXITED,	  /* with `status` */
	SESSION_SIGNALED, /* by signal `status` */
	SESSION_REFUSED,  /* `error`, with a shell's status */
	SESSION_LEFT,	  /* given up on the host's side, with the status to exit with */
	SESSION_OVERDUE,  /* its time was over, and the agent has not ended it */
	SESSION_LOST,	  /* the agent has gone */
};

struct session_result {
	enum session_end end;
	int status;
	bool timed_out;
	bool oom_killed;
	uint64_t user_us;
	uint64_t system_us;
	uint64_t memory_peak_bytes;
	uint64_t stdin_bytes; /* passed on, each */
	uint64_t stdout_bytes;
	uint64_t stderr_bytes;
	struct err error;
};

#define SESSION_FDS 3

struct session {
	int fd;	       /* owned; -1 before session_start */
	int signal_fd; /* owned; see session_open */
	bool holds_signals;
	sigset_t mask_before;
	bool tty;
	struct terminal terminal;
	bool stdin_over;
	uint32_t window;     /* bytes of input that the agent takes */
	bool started;	     /* one that is to be kept */
	bool interrupted;    /* the program has been sent a signal */
	int64_t deadline_ms; /* of clock_ms(), when it is overdue; 0: never */
	struct session_result result;
	/* Where output goes instead of to standard output and error; NULL: there. */
	void (*sink)(void *opaque, const void *data, size_t size);
	void *sink_opaque;
	int gathered_fd; /* small pieces of output, for one write */
	size_t gathered;
	uint8_t output[PROTOCOL_PAYLOAD_MAX];
	struct agent_reader reader;
	uint8_t *request; /* owned: the frames that ask for it, before all others; or NULL */
	size_t request_size;
	size_t request_at;
	size_t out_used;
	size_t out_at;
	uint8_t out[2 * (PROTOCOL_HEADER_SIZE + PROTOCOL_PAYLOAD_MAX)]; /* to the agent */
};

/* Takes the signals over that are passed on (signals.h). 0 or -errno with err set. */
int session_open(struct session *session, struct err *err);
/* Restores the terminal; the program is killed by its agent if it still runs. */
void session_close(struct session *session);
/*
 * What may wait for others after the session can be interrupted: signals do again what they did
 * before session_open. Those that came too late for the program are dropped.
 */
void session_release_signals(struct session *session);

/* Takes the stream, and makes the request on it. 0 or -errno with err set. */
int session_start(struct session *session, int fd, const struct session_request *request,
		  struct err *err);

/* What to wait for; signals before the start, too. */
void session_wait(const struct session *session, struct pollfd fds[SESSION_FDS]);
/* For poll(): until when nothing need be done. */
int session_timeout_ms(const struct session *session);
/*
 * Does what can be done. 0 or -errno with err set; session->result.end tells whether it is over.
 */
int session_serve(struct session *session, const struct pollfd fds[SESSION_FDS], struct err *err);

/*
 * For those that wait for something else while signal_fd is readable: takes a signal, and tells
 * whether it ends the session.
 */
bool session_take_signal(struct session *session);

/* Says on standard error what the user should know of it; the status to exit with. */
int session_report(const struct session_result *result);

#endif
