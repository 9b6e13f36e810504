/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/client.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void report(const char *name, int64_t start_ns)
{
	printf("%s %.1f\n", name, (double)(now_ns() - start_ns) / 1000);
}

_Noreturn void fail(const char *what)
{
	fprintf(stderr, "bench: %s: %s\n", what, strerror(errno));
	exit(EXIT_FAILURE);
}

static pid_t start_vmm(const char *path, int out[2])
{
	pid_t pid;
	int null;

	if (pipe2(out, O_CLOEXEC) < 0)
		fail("pipe");
	pid = fork();
	if (pid < 0)
		fail("fork");
	if (pid == 0) {
		null = open("/dev/null", O_RDWR);
		dup2(null, STDIN_FILENO);
		dup2(out[1], STDOUT_FILENO);
		execl(path, path, "--api-sock", API_SOCKET, NULL);
		_exit(127);
	}
	close(out[1]);
	return pid;
}

/* Waits for the socket's file, and for the moment from there until it listens. */
static int connect_api(pid_t pid, int watch)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = API_SOCKET };
	char event[sizeof(struct inotify_event) + NAME_MAX + 1];

	if (read(watch, event, sizeof(event)) < 0)
		fail("inotify");
	while (waitpid(pid, NULL, WNOHANG) == 0) {
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

		if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
			return fd;
		close(fd);
		/* It may need this very processor to get there. */
		sched_yield();
	}
	fail("mote-vmm ended");
}

void request(const struct client *client, const char *line, const char *fmt, ...)
{
	char body[1024], text[2048];
	va_list args;
	ssize_t n;
	int len;

	va_start(args, fmt);
	len = vsnprintf(body, sizeof(body), fmt, args);
	va_end(args);
	len = snprintf(text, sizeof(text), "%s HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s", line, len,
		       body);
	if (write(client->fd, text, (size_t)len) != len)
		fail(line);
	/* An answer comes whole: it is one write. */
	n = read(client->fd, text, sizeof(text) - 1);
	text[n > 0 ? n : 0] = '\0';
	if (strncmp(text, "HTTP/1.1 20", 11) != 0) {
		fprintf(stderr, "bench: %s: %s\n", line, text);
		exit(EXIT_FAILURE);
	}
}

void client_open(struct client *client, const char *vmm)
{
	int out[2];

	client->watch = inotify_init1(IN_CLOEXEC);
	if (client->watch < 0 || inotify_add_watch(client->watch, ".", IN_CREATE) < 0)
		fail("inotify");
	client->start_ns = now_ns();
	client->pid = start_vmm(vmm, out);
	client->out = out[0];
	client->fd = connect_api(client->pid, client->watch);
}

void client_close(struct client *client)
{
	close(client->watch);
	close(client->out);
	close(client->fd);
}

void client_kill(struct client *client)
{
	kill(client->pid, SIGKILL);
	waitpid(client->pid, NULL, 0);
	client_close(client);
	unlink(API_SOCKET);
}
