/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kill_at N keeper|prisoner COMMAND...: runs mote-jailer, and kills it, or its child, with SIGKILL
 * when they have made N system calls, whatever the call. Waits for the end of both, and prints
 * "killed", or "over" if there were not so many calls.
 */
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#define OPTIONS                                                                                    \
	(PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEEXEC)
#define SYSCALL_STOP (SIGTRAP | 0x80)

int main(int argc, char **argv)
{
	const long wanted = argc > 3 ? atol(argv[1]) : 0;
	const bool prisoner = argc > 3 && strcmp(argv[2], "prisoner") == 0;
	bool killed = false;
	long calls = 0;
	pid_t first, pid;
	int status;

	if (wanted < 1)
		return EXIT_FAILURE;
	first = fork();
	if (first == 0) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		execv(argv[3], argv + 3);
		_exit(127);
	}
	if (waitpid(first, &status, 0) != first || !WIFSTOPPED(status))
		return EXIT_FAILURE;
	ptrace(PTRACE_SETOPTIONS, first, NULL, OPTIONS);
	ptrace(PTRACE_CONT, first, NULL, NULL);
	while ((pid = waitpid(-1, &status, __WALL)) > 0) {
		int number;

		if (!WIFSTOPPED(status))
			continue;
		number = WSTOPSIG(status);
		/* Each call stops twice, at its beginning and its end; both are points to die at.
		 */
		if (number == SYSCALL_STOP && prisoner == (pid != first) && ++calls == wanted) {
			kill(pid, SIGKILL);
			killed = true;
			continue;
		}
		if (number == SYSCALL_STOP || number == SIGTRAP || number == SIGSTOP)
			number = 0;
		ptrace(killed ? PTRACE_CONT : PTRACE_SYSCALL, pid, NULL, number);
	}
	puts(killed ? "killed" : "over");
	return errno == ECHILD ? EXIT_SUCCESS : EXIT_FAILURE;
}
