/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Wall-clock from exec of mote-vmm to the first byte that its guest writes to the serial port, the
 * guest's first instructions: start_bench COUNT MOTE_VMM CONFIG. Prints microseconds, a line each.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int main(int argc, char **argv)
{
	int count = argc == 4 ? atoi(argv[1]) : 0;

	for (int i = 0; i < count; i++) {
		int out[2], status, null;
		int64_t start, first;
		char byte;
		pid_t pid;

		if (pipe2(out, O_CLOEXEC) < 0)
			return EXIT_FAILURE;
		start = now_us();
		pid = fork();
		if (pid == 0) {
			null = open("/dev/null", O_RDWR);
			dup2(null, STDIN_FILENO);
			dup2(null, STDERR_FILENO);
			dup2(out[1], STDOUT_FILENO);
			execl(argv[2], argv[2], "--no-api", "--config-file", argv[3], NULL);
			_exit(127);
		}
		close(out[1]);
		if (pid < 0 || read(out[0], &byte, 1) != 1)
			return EXIT_FAILURE;
		first = now_us();
		printf("%lld\n", (long long)(first - start));
		while (read(out[0], &byte, 1) > 0)
			;
		close(out[0]);
		if (waitpid(pid, &status, 0) != pid || status != 0)
			return EXIT_FAILURE;
	}
	return count > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
