/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For the benches: a mote-vmm with its API socket, api.sock in the working directory. What fails
 * ends the bench with a sentence.
 */
#ifndef MOTE_TESTS_BENCH_CLIENT_H
#define MOTE_TESTS_BENCH_CLIENT_H

#include <stdint.h>
#include <sys/types.h>

#define API_SOCKET "api.sock"

int64_t now_ns(void);
/* A line "NAME MICROSECONDS", of the time since then. */
void report(const char *name, int64_t start_ns);
_Noreturn void fail(const char *what);

struct client {
	pid_t pid;
	int out;   /* what it writes to its standard output */
	int fd;	   /* a connection to its API */
	int watch; /* of its folder; closing it takes milliseconds */
	int64_t start_ns;
};

/* Starts it, and returns as soon as it takes connections. */
void client_open(struct client *client, const char *vmm);
/* The descriptors. */
void client_close(struct client *client);
/* Kills it, too. */
void client_kill(struct client *client);

/* A request, "METHOD PATH", that must succeed. */
void request(const struct client *client, const char *line, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif
