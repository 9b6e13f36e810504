/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a VMM and prints, in microseconds, how long it took from exec until the guest's init said
 * that it is there (the agent's sync on the serial line, which is the VMM's standard output), and
 * until the process had ended after it was told to shut down:
 *
 *	boot_bench COMMAND [ARGUMENT]...
 */
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SYNC "\x01mote/1\n"
#define SYNC_SIZE 8
#define REQUEST "{\"shutdown\": {}}"

static int64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static bool wait_for_sync(int fd)
{
	unsigned int matched = 0;
	unsigned char byte;

	while (matched < SYNC_SIZE) {
		if (read(fd, &byte, 1) != 1)
			return false;
		if (byte == (unsigned char)SYNC[matched])
			matched++;
		else
			matched = byte == (unsigned char)SYNC[0] ? 1 : 0;
	}
	return true;
}

int main(int argc, char **argv)
{
	const unsigned char header[] = { 1, sizeof(REQUEST) - 1, 0, 0, 0 };
	int in[2], out[2], status;
	int64_t start, init;
	char rest[4096];
	pid_t pid;

	if (argc < 2 || pipe(in) < 0 || pipe(out) < 0)
		return EXIT_FAILURE;
	signal(SIGPIPE, SIG_IGN);
	start = now_us();
	pid = fork();
	if (pid < 0)
		return EXIT_FAILURE;
	if (pid == 0) {
		dup2(in[0], STDIN_FILENO);
		dup2(out[1], STDOUT_FILENO);
		close(in[1]);
		close(out[0]);
		execvp(argv[1], argv + 1);
		_exit(127);
	}
	close(in[0]);
	close(out[1]);
	if (!wait_for_sync(out[0])) {
		fprintf(stderr, "boot_bench: %s ended before the guest's init came\n", argv[1]);
		return EXIT_FAILURE;
	}
	init = now_us();
	if (write(in[1], header, sizeof(header)) < 0 ||
	    write(in[1], REQUEST, sizeof(REQUEST) - 1) < 0)
		return EXIT_FAILURE;
	while (read(out[0], rest, sizeof(rest)) > 0)
		;
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		fprintf(stderr, "boot_bench: %s did not end well\n", argv[1]);
		return EXIT_FAILURE;
	}
	printf("%lld %lld\n", (long long)(init - start), (long long)(now_us() - start));
	return EXIT_SUCCESS;
}
