/* SPDX-License-Identifier: Apache-2.0 */
/* mote-jailer: builds a jail, runs mote-vmm in it, and ends as that ends. Wiring only. */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/record.h"
#include "jailer/args.h"
#include "jailer/keeper.h"

static int fail(int status, const struct err *err)
{
	fprintf(stderr, "mote-jailer: %s\n", err->text);
	record_error(err->text);
	return status;
}

/* By the same signal, so that whoever waits for us sees what happened to the VMM. */
static int end_by_signal(int number)
{
	sigset_t one;

	/* Whoever handles core dumps would get this one's. */
	prctl(PR_SET_DUMPABLE, 0);
	signal(number, SIG_DFL);
	sigemptyset(&one);
	sigaddset(&one, number);
	raise(number);
	sigprocmask(SIG_UNBLOCK, &one, NULL);
	return 128 + number;
}

int main(int argc, char **argv)
{
	const int64_t start_us = clock_ns() / NS_PER_US;
	struct jailer_args args;
	struct err err;
	int rc;

	fd_reserve_standard();
	rc = jailer_args_parse(argc, argv, &args, &err);
	record_to(args.record_fd);
	if (rc != 0)
		return rc < 0 ? fail(JAILER_EXIT_BAD_ARGUMENTS, &err) : EXIT_SUCCESS;
	rc = keeper_run(&args, start_us, &err);
	if (rc < 0)
		return fail(EXIT_FAILURE, &err);
	return WIFSIGNALED(rc) ? end_by_signal(WTERMSIG(rc)) : WEXITSTATUS(rc);
}
