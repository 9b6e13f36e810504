/* SPDX-License-Identifier: Apache-2.0 */
/*
 * try_syscalls main|vcpu|block|creator FIRST LAST: makes each system call, with arguments that are
 * all -1, in a process of its own under that role's policy, and prints the numbers of those that
 * the policy lets pass.
 *
 * try_syscalls ROLE CALL... does so with arguments that are given: a CALL is its number
 * and up to six of them, with commas between, "own" being the number of the process and "other"
 * another's. Prints those that pass.
 */
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/array.h"
#include "base/err.h"
#include "vmm/seccomp.h"

/* Calls that wait, pause(2) say, are ended by a signal. */
static const struct itimerval PATIENCE = { .it_value = { .tv_usec = 100000 } };

static const char *const roles[] = {
	[SECCOMP_MAIN] = "main",
	[SECCOMP_VCPU] = "vcpu",
	[SECCOMP_BLOCK] = "block",
	[SECCOMP_CREATOR] = "creator",
};

static const long ALL_ONES[6] = { -1, -1, -1, -1, -1, -1 };

static _Noreturn void try(enum seccomp_role role, long number, const long *arguments)
{
	const struct rlimit none = { 0, 0 };
	struct err err;

	setrlimit(RLIMIT_CORE, &none);
	setitimer(ITIMER_REAL, &PATIENCE, NULL);
	if (seccomp_enter(role, &err) < 0) {
		fprintf(stderr, "%s\n", err.text);
		_exit(EXIT_FAILURE);
	}
	syscall(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4],
		arguments[5]);
	syscall(SYS_exit_group, 0);
	__builtin_trap();
}

static long value_of(const char *text)
{
	if (strcmp(text, "own") == 0)
		return getpid();
	return strcmp(text, "other") == 0 ? getppid() : (long)strtoull(text, NULL, 0);
}

static _Noreturn void try_given(enum seccomp_role role, char *call)
{
	long values[7] = { 0 };
	size_t count = 0;

	for (char *part = strtok(call, ","); part && count < 7; part = strtok(NULL, ","))
		values[count++] = value_of(part);
	try(role, values[0], values + 1);
}

/* Whether the policy let what the process tried pass. */
static bool passed(pid_t pid)
{
	int status;

	if (pid < 0 || waitpid(pid, &status, 0) != pid ||
	    (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_FAILURE))
		exit(EXIT_FAILURE);
	return !WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS;
}

static void try_numbers(enum seccomp_role role, long first, long last)
{
	for (long number = first; number <= last; number++) {
		pid_t pid = fork();

		if (pid == 0)
			try(role, number, ALL_ONES);
		if (passed(pid))
			printf("%ld\n", number);
		fflush(stdout);
	}
}

static void try_calls(enum seccomp_role role, char **calls)
{
	for (; *calls; calls++) {
		pid_t pid = fork();

		if (pid == 0)
			try_given(role, *calls);
		if (passed(pid))
			puts(*calls);
		fflush(stdout);
	}
}

int main(int argc, char **argv)
{
	for (unsigned int role = 0; argc > 2 && role < ARRAY_SIZE(roles); role++) {
		if (strcmp(argv[1], roles[role]) != 0)
			continue;
		if (argc == 4 && !strchr(argv[2], ','))
			try_numbers(role, atol(argv[2]), atol(argv[3]));
		else
			try_calls(role, argv + 2);
		return EXIT_SUCCESS;
	}
	return EXIT_FAILURE;
}
