/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Measures streams, at both ends:
 *
 *	stream_bench unix-server PATH		what vsock guests reach as a port of the host's
 *	stream_bench tcp-server PORT
 *	stream_bench vsock-server PORT		in a guest
 *	stream_bench vsock-client CID PORT TEST COUNT
 *	stream_bench tcp-client ADDRESS PORT TEST COUNT
 *	stream_bench tcp-connections ADDRESS PORT COUNT	all open at once, then a byte there and back
 *
 * TEST is `roundtrip` (COUNT times a byte there and back; prints the mean in us), `send` or
 * `receive` (COUNT MiB; prints MiB/s), or `exchange` (the same both ways at once, each byte of
 *which is checked at the other end). Servers also know `e`, which COUNT bytes follow, and return
 * them.
 */
#include <arpa/inet.h>
#include <linux/vm_sockets.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHUNK (256 * 1024)
#define SEED_CLIENT 0x1000000000000000
#define SEED_SERVER 0x2000000000000000

static union {
	uint8_t bytes[CHUNK];
	uint64_t words[CHUNK / sizeof(uint64_t)];
} buffer;

struct order {
	char test; /* the first letter of its name */
	uint32_t count;
} __attribute__((packed));

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static bool send_all(int fd, uint64_t size)
{
	while (size > 0) {
		ssize_t n = write(fd, buffer.bytes, size < CHUNK ? size : CHUNK);

		if (n <= 0)
			return false;
		size -= (uint64_t)n;
	}
	return true;
}

static bool receive_all(int fd, uint64_t size)
{
	while (size > 0) {
		ssize_t n = read(fd, buffer.bytes, size < CHUNK ? size : CHUNK);

		if (n <= 0)
			return false;
		size -= (uint64_t)n;
	}
	return true;
}

/* No part of it is like another. */
static uint64_t pattern(uint64_t word, uint64_t seed)
{
	return (word ^ seed) * UINT64_C(0x9e3779b97f4a7c15);
}

static bool send_pattern(int fd, uint64_t bytes, uint64_t seed)
{
	uint64_t word = 0;

	for (; bytes > 0; bytes -= CHUNK) {
		for (size_t i = 0; i < CHUNK / sizeof(word); i++)
			buffer.words[i] = pattern(word++, seed);
		if (!send_all(fd, CHUNK))
			return false;
	}
	return true;
}

static bool receive_pattern(int fd, uint64_t bytes, uint64_t seed)
{
	uint64_t word = 0;

	for (; bytes > 0; bytes -= CHUNK) {
		/* Not MSG_WAITALL: Linux's vsock does not wait for as much as its buffer holds. */
		for (size_t got = 0; got < CHUNK;) {
			ssize_t n = read(fd, buffer.bytes + got, CHUNK - got);

			if (n <= 0)
				return false;
			got += (size_t)n;
		}
		for (size_t i = 0; i < CHUNK / sizeof(word); i++) {
			if (buffer.words[i] != pattern(word++, seed))
				return false;
		}
	}
	return true;
}

/* Sends in a process of its own. */
static bool exchange(int fd, uint64_t bytes, uint64_t seed, uint64_t expected)
{
	pid_t sender;
	bool good;
	int status;

	signal(SIGCHLD, SIG_DFL);
	sender = fork();
	if (sender == 0)
		_exit(send_pattern(fd, bytes, seed) ? EXIT_SUCCESS : EXIT_FAILURE);
	good = receive_pattern(fd, bytes, expected);
	/* Or both ends would wait for their senders. */
	if (!good)
		shutdown(fd, SHUT_RDWR);
	return sender > 0 && waitpid(sender, &status, 0) == sender && status == 0 && good;
}

static bool run_server_side(int fd, struct order order)
{
	const uint64_t bytes = (uint64_t)order.count << 20;

	switch (order.test) {
	case 'r':
		for (uint32_t i = 0; i < order.count; i++) {
			if (!receive_all(fd, 1) || !send_all(fd, 1))
				return false;
		}
		return true;
	case 's':
		return receive_all(fd, bytes) && send_all(fd, 1);
	case 'x':
		return exchange(fd, bytes, SEED_SERVER, SEED_CLIENT) && send_all(fd, 1);
	case 'e':
		return order.count <= CHUNK &&
		       recv(fd, buffer.bytes, order.count, MSG_WAITALL) == (ssize_t)order.count &&
		       send_all(fd, order.count);
	default:
		return send_all(fd, bytes);
	}
}

static int serve(int listener)
{
	signal(SIGPIPE, SIG_IGN);
	signal(SIGCHLD, SIG_IGN);
	if (listener < 0 || listen(listener, 200) < 0) {
		perror("listen");
		return EXIT_FAILURE;
	}
	for (;;) {
		int fd = accept(listener, NULL, NULL);
		const int on = 1;
		struct order order;

		if (fork() == 0) {
			close(listener);
			setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
			_exit(read(fd, &order, sizeof(order)) == sizeof(order) &&
					      run_server_side(fd, order)
				      ? EXIT_SUCCESS
				      : EXIT_FAILURE);
		}
		close(fd);
	}
}

static int unix_listener(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
	unlink(path);
	return bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ? -1 : fd;
}

static int tcp_listener(uint16_t port)
{
	const struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	return bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ? -1 : fd;
}

static int vsock_listener(unsigned int port)
{
	const struct sockaddr_vm address = {
		.svm_family = AF_VSOCK,
		.svm_cid = VMADDR_CID_ANY,
		.svm_port = port,
	};
	int fd = socket(AF_VSOCK, SOCK_STREAM, 0);

	return bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ? -1 : fd;
}

static int connect_vsock(unsigned int cid, unsigned int port)
{
	const struct sockaddr_vm address = {
		.svm_family = AF_VSOCK,
		.svm_cid = cid,
		.svm_port = port,
	};
	/* Linux's own is 2 s, which a busy emulated machine can take for a hundred at once. */
	const struct timeval patience = { .tv_sec = 60 };
	int fd = socket(AF_VSOCK, SOCK_STREAM, 0);

	setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT, &patience, sizeof(patience));
	return connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ? -1 : fd;
}

static int connect_tcp(const char *host, uint16_t port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };
	const int on = 1;
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	inet_pton(AF_INET, host, &address.sin_addr);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ? -1 : fd;
}

static char order_of(const char *test)
{
	if (strcmp(test, "receive") == 0)
		return 'g';
	return strcmp(test, "exchange") == 0 ? 'x' : test[0];
}

static int measure(int fd, const char *test, uint32_t count)
{
	const struct order order = { order_of(test), count };
	const uint64_t bytes = (uint64_t)count << 20;
	bool good = fd >= 0 && write(fd, &order, sizeof(order)) == sizeof(order);
	int64_t start = now_ns();
	double seconds;

	if (order.test == 'r') {
		for (uint32_t i = 0; i < count && good; i++)
			good = send_all(fd, 1) && receive_all(fd, 1);
	} else if (order.test == 'x') {
		good = good && exchange(fd, bytes, SEED_CLIENT, SEED_SERVER) && receive_all(fd, 1);
	} else if (order.test == 's') {
		good = good && send_all(fd, bytes) && receive_all(fd, 1);
	} else {
		good = good && receive_all(fd, bytes);
	}
	if (!good) {
		perror(test);
		return EXIT_FAILURE;
	}
	seconds = (double)(now_ns() - start) / 1e9;
	printf("%.3f\n", order.test == 'r' ? seconds * 1e6 / count : count / seconds);
	return EXIT_SUCCESS;
}

/* Prints how many. */
static int open_many(const char *host, uint16_t port, unsigned int count)
{
	struct __attribute__((packed)) {
		struct order order;
		uint8_t byte;
	} message = { { 'r', 1 }, 0 };
	int *fds = calloc(count, sizeof(*fds));
	bool good = fds;

	for (unsigned int i = 0; i < count && good; i++) {
		fds[i] = connect_tcp(host, port);
		good = fds[i] >= 0;
	}
	for (unsigned int i = 0; i < count && good; i++)
		good = write(fds[i], &message, sizeof(message)) == sizeof(message);
	for (unsigned int i = 0; i < count && good; i++)
		good = receive_all(fds[i], 1);
	if (!good) {
		perror("tcp-connections");
		return EXIT_FAILURE;
	}
	printf("%u\n", count);
	return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "unix-server") == 0)
		return serve(unix_listener(argv[2]));
	if (argc == 3 && strcmp(argv[1], "tcp-server") == 0)
		return serve(tcp_listener((uint16_t)atoi(argv[2])));
	if (argc == 3 && strcmp(argv[1], "vsock-server") == 0)
		return serve(vsock_listener((unsigned int)atoi(argv[2])));
	if (argc == 6 && strcmp(argv[1], "vsock-client") == 0)
		return measure(
			connect_vsock((unsigned int)atoi(argv[2]), (unsigned int)atoi(argv[3])),
			argv[4], (uint32_t)atoi(argv[5]));
	if (argc == 6 && strcmp(argv[1], "tcp-client") == 0)
		return measure(connect_tcp(argv[2], (uint16_t)atoi(argv[3])), argv[4],
			       (uint32_t)atoi(argv[5]));
	if (argc == 5 && strcmp(argv[1], "tcp-connections") == 0)
		return open_many(argv[2], (uint16_t)atoi(argv[3]), (unsigned int)atoi(argv[4]));
	fputs("stream_bench: see the comment in its source\n", stderr);
	return EXIT_FAILURE;
}
