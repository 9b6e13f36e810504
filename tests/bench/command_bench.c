/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a command that must succeed, and prints how many microseconds it took from exec to its end.
 */
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
	int64_t start;
	int status;
	pid_t pid;

	if (argc < 2)
		return EXIT_FAILURE;
	start = now_us();
	pid = fork();
	if (pid < 0)
		return EXIT_FAILURE;
	if (pid == 0) {
		dup2(STDERR_FILENO, STDOUT_FILENO);
		execvp(argv[1], argv + 1);
		_exit(127);
	}
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		fprintf(stderr, "command_bench: %s did not end well\n", argv[1]);
		return EXIT_FAILURE;
	}
	printf("%lld\n", (long long)(now_us() - start));
	return EXIT_SUCCESS;
}
