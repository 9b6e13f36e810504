/* SPDX-License-Identifier: Apache-2.0 */
/*
 * try_syscalls main|vcpu FIRST LAST: makes each system call, with arguments that are all -1, in a
 * process of its own under that role's policy, and prints the numbers of those that the policy lets
 * pass.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "vmm/seccomp.h"

/* Calls that wait, pause(2) say, are ended by a signal. */
static const struct itimerval PATIENCE = { .it_value = { .tv_usec = 100000 } };

static _Noreturn void try(enum seccomp_role role, long number)
{
	const struct rlimit none = { 0, 0 };
	struct err err;

	setrlimit(RLIMIT_CORE, &none);
	setitimer(ITIMER_REAL, &PATIENCE, NULL);
	if (seccomp_enter(role, &err) < 0) {
		fprintf(stderr, "%s\n", err.text);
		_exit(EXIT_FAILURE);
	}
	syscall(number, -1L, -1L, -1L, -1L, -1L, -1L);
	syscall(SYS_exit_group, 0);
	__builtin_trap();
}

int main(int argc, char **argv)
{
	const long first = argc == 4 ? atol(argv[2]) : 0, last = argc == 4 ? atol(argv[3]) : -1;
	const enum seccomp_role role =
		argc == 4 && strcmp(argv[1], "vcpu") == 0 ? SECCOMP_VCPU : SECCOMP_MAIN;

	for (long number = first; number <= last; number++) {
		pid_t pid = fork();
		int status;

		if (pid == 0)
			try(role, number);
		if (pid < 0 || waitpid(pid, &status, 0) != pid ||
		    (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_FAILURE))
			return EXIT_FAILURE;
		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS)
			printf("%ld\n", number);
	}
	return EXIT_SUCCESS;
}
