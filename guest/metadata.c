/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/metadata.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#include "guest/failure.h"
#include "guest/network.h"

#define ADDRESS "169.254.169.254"
#define PORT 80
/* As many as the service has room for; more wait. */
#define PAIRS 30
#define CHUNK 4096
#define LISTENER_FD 3

/* One direction of a connection. */
struct flow {
	size_t start, used; /* of what waits to be written */
	bool over;	    /* nothing more comes, and all of it was passed on */
	char data[CHUNK];
};

/* A program's connection, and the host's that it is led to: [0] and [1], with what comes from it */
struct pair {
	int fds[2]; /* owned; -1: the place is free */
	struct flow flows[2];
};

static int open_listener(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(PORT) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	inet_pton(AF_INET, ADDRESS, &address.sin_addr);
	if (fd >= 0 && (bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
			listen(fd, PAIRS) < 0)) {
		close(fd);
		return -1;
	}
	return fd;
}

/* The host's, which answers at once. */
static int connect_to_host(unsigned int port)
{
	const struct sockaddr_vm address = { .svm_family = AF_VSOCK,
					     .svm_port = port,
					     .svm_cid = VMADDR_CID_HOST };
	int fd = socket(AF_VSOCK, SOCK_STREAM, 0);

	if (fd >= 0 && (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
			fcntl(fd, F_SETFL, O_NONBLOCK) < 0)) {
		close(fd);
		return -1;
	}
	return fd;
}

static void close_pair(struct pair *pair)
{
	for (int i = 0; i < 2; i++) {
		if (pair->fds[i] >= 0)
			close(pair->fds[i]);
		pair->fds[i] = -1;
	}
}

/*
 * A free place, or that of one whose host has said all: its program has that, and was to leave.
 * NULL if there is none.
 */
static struct pair *find_place(struct pair *pairs)
{
	struct pair *done = NULL;

	for (int i = 0; i < PAIRS; i++) {
		if (pairs[i].fds[0] < 0)
			return &pairs[i];
		if (pairs[i].flows[1].over)
			done = &pairs[i];
	}
	return done;
}

static void accept_program(struct pair *pair, unsigned int port)
{
	int fd = accept4(LISTENER_FD, NULL, NULL, SOCK_NONBLOCK);

	if (fd < 0)
		return;
	close_pair(pair);
	pair->fds[0] = fd;
	pair->fds[1] = connect_to_host(port);
	for (int i = 0; i < 2; i++) {
		pair->flows[i].used = 0;
		pair->flows[i].over = false;
	}
	if (pair->fds[1] < 0)
		close_pair(pair);
}

static bool would_wait(ssize_t n)
{
	return n < 0 && (errno == EAGAIN || errno == EINTR);
}

/* What an end that has gone does not take is dropped. */
static void pass_on(struct flow *flow, int from, int to)
{
	ssize_t n;

	if (flow->used == 0) {
		n = read(from, flow->data, sizeof(flow->data));
		if (would_wait(n))
			return;
		if (n <= 0) {
			flow->over = true;
			shutdown(to, SHUT_WR);
			return;
		}
		flow->start = 0;
		flow->used = (size_t)n;
	}
	n = write(to, flow->data + flow->start, flow->used);
	if (would_wait(n))
		return;
	flow->start += n < 0 ? flow->used : (size_t)n;
	flow->used -= n < 0 ? flow->used : (size_t)n;
}

static void wait_for(const struct pair *pair, struct pollfd fds[2])
{
	for (int i = 0; i < 2; i++) {
		const bool reads = !pair->flows[i].over && pair->flows[i].used == 0;
		const bool writes = pair->flows[1 - i].used > 0;

		/* One that has nothing to do but to have hung up would not let the rest sleep. */
		fds[i] = (struct pollfd){ .fd = reads || writes ? pair->fds[i] : -1,
					  .events = (short)((reads ? POLLIN : 0) |
							    (writes ? POLLOUT : 0)) };
	}
}

static void serve(struct pair *pair, const struct pollfd fds[2])
{
	for (int i = 0; i < 2; i++) {
		struct flow *flow = &pair->flows[i];

		if (!flow->over && fds[flow->used > 0 ? 1 - i : i].revents)
			pass_on(flow, pair->fds[i], pair->fds[1 - i]);
	}
	if (pair->flows[0].over && pair->flows[1].over)
		close_pair(pair);
}

static _Noreturn void run(unsigned int port)
{
	static struct pair pairs[PAIRS];
	static struct pollfd fds[1 + 2 * PAIRS];

	for (int i = 0; i < PAIRS; i++)
		pairs[i].fds[0] = pairs[i].fds[1] = -1;
	for (;;) {
		struct pair *place = find_place(pairs);

		fds[0] = (struct pollfd){ .fd = place ? LISTENER_FD : -1, .events = POLLIN };
		for (int i = 0; i < PAIRS; i++)
			wait_for(&pairs[i], fds + 1 + 2 * i);
		if (poll(fds, 1 + 2 * PAIRS, -1) < 0)
			continue;
		for (int i = 0; i < PAIRS; i++)
			serve(&pairs[i], fds + 1 + 2 * i);
		if (fds[0].revents)
			accept_program(place, port);
	}
}

/* Of PID 1 it keeps the listener, and standard error. */
static _Noreturn void become_server(int listener, unsigned int port)
{
	sigset_t none;

	prctl(PR_SET_NAME, "mote-metadata");
	if (listener != LISTENER_FD && dup2(listener, LISTENER_FD) < 0)
		_exit(EXIT_FAILURE);
	close_range(LISTENER_FD + 1, ~0u, 0);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	run(port);
}

int metadata_serve(const char *port, struct failure *failure)
{
	const unsigned int number = (unsigned int)strtoul(port, NULL, 10);
	int listener;
	pid_t pid;

	if (network_add_local(ADDRESS) < 0)
		return failure_sys(failure, errno,
				   "metadata: " ADDRESS " on the loopback interface");
	listener = open_listener();
	if (listener < 0)
		return failure_sys(failure, errno, "metadata: " ADDRESS);
	pid = fork();
	if (pid == 0)
		become_server(listener, number);
	close(listener);
	return pid < 0 ? failure_sys(failure, errno, "metadata: a process") : 0;
}
