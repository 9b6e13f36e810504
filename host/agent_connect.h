/* SPDX-License-Identifier: Apache-2.0 */
/* Ways to the agent of a guest, through the Unix socket of its vsock device. */
#ifndef MOTE_HOST_AGENT_CONNECT_H
#define MOTE_HOST_AGENT_CONNECT_H

#include <stddef.h>

struct err;

/* An agent that is there answers in that time, once its processor is given some. */
#define ANSWER_TIMEOUT_MS 10000

/* Asked once when there is no answer for a while: 0 to wait on, or -errno with err set. */
typedef int agent_silence(const void *opaque, struct err *err);

/*
 * A non-blocking stream to the agent of the VM whose vsock socket is at `path`; or -errno.
 * `silence` may be NULL.
 */
int agent_connect(const char *path, agent_silence *silence, const void *opaque, struct err *err);

/* Listens for the agent of a VM that is about to start; the descriptor, or -errno. */
int agent_listen(const char *path, struct err *err);
/* The stream that the agent has opened, non-blocking; or -errno. */
int agent_accept(int listener, struct err *err);

/* Asks a guest to shut down; what it answers is not waited for. 0 or -errno. */
int agent_shut_down(const char *path, int grace_ms, struct err *err);

#endif
