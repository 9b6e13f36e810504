/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a VMM and prints, in microseconds, how long it took from exec until the guest's agent had
 * connected to its port of the host (docs/agent-protocol.md), and until the process had ended after
 * the agent was told to shut down:
 *
 *	boot_bench SOCKET COMMAND [ARGUMENT]...
 *
 * SOCKET is where the VMM's vsock device has its Unix socket, or "vhost" if it is the kernel's.
 */
#include <linux/vm_sockets.h>
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

#define AGENT_PORT 52
#define REQUEST "{\"shutdown\": {}}"
#define TIME_LIMIT_S 120

static int64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static int listen_at(const char *path)
{
	const struct sockaddr_vm vm = { .svm_family = AF_VSOCK,
					.svm_port = AGENT_PORT,
					.svm_cid = VMADDR_CID_ANY };
	struct sockaddr_un local = { .sun_family = AF_UNIX };
	bool vhost = strcmp(path, "vhost") == 0;
	int fd = socket(vhost ? AF_VSOCK : AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(local.sun_path, sizeof(local.sun_path), "%s_%d", path, AGENT_PORT);
	if (!vhost)
		unlink(local.sun_path);
	if (fd < 0 ||
	    bind(fd, vhost ? (const struct sockaddr *)&vm : (const struct sockaddr *)&local,
		 vhost ? sizeof(vm) : sizeof(local)) < 0 ||
	    listen(fd, 1) < 0) {
		perror(path);
		exit(EXIT_FAILURE);
	}
	return fd;
}

int main(int argc, char **argv)
{
	const unsigned char header[] = { 1, sizeof(REQUEST) - 1, 0, 0, 0 };
	char answer[256];
	int listener, stream, status;
	int64_t start, init;
	pid_t pid;

	if (argc < 3)
		return EXIT_FAILURE;
	listener = listen_at(argv[1]);
	start = now_us();
	pid = fork();
	if (pid < 0)
		return EXIT_FAILURE;
	if (pid == 0) {
		dup2(STDERR_FILENO, STDOUT_FILENO); /* its console */
		execvp(argv[2], argv + 2);
		_exit(127);
	}
	/* A guest that never comes ends this program, and the bench with it. */
	alarm(TIME_LIMIT_S);
	stream = accept(listener, NULL, NULL);
	init = now_us();
	if (stream < 0 || write(stream, header, sizeof(header)) < 0 ||
	    write(stream, REQUEST, sizeof(REQUEST) - 1) < 0)
		return EXIT_FAILURE;
	/* The guest waits until the stream's end has been taken, which vhost tells it at the close.
	 */
	while (read(stream, answer, sizeof(answer)) > 0)
		;
	close(stream);
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		fprintf(stderr, "boot_bench: %s did not end well\n", argv[2]);
		return EXIT_FAILURE;
	}
	printf("%lld %lld\n", (long long)(init - start), (long long)(now_us() - start));
	return EXIT_SUCCESS;
}
