/* SPDX-License-Identifier: Apache-2.0 */
/* What an exec request asks for, and the process that becomes of it. */
#ifndef MOTE_GUEST_PROGRAM_H
#define MOTE_GUEST_PROGRAM_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "guest/rlimits.h"
#include "guest/users.h"

struct cgroup;
struct failure;

struct program {
	const json_t *argv; /* arrays of strings, in the request */
	const json_t *env;  /* may be NULL */
	const char *cwd;
	bool make_cwd; /* if it is not there, as root */
	struct limits limits;
	struct user user;
	bool tty;
	uint16_t rows;
	uint16_t columns;
	bool no_stdin;	    /* it reads nothing from the beginning */
	bool keep;	    /* it outlives its client, and its processes outlive it */
	int64_t timeout_ms; /* 0: none */
};

/* Of the value of "exec". What it refers to is the request's. 0 or -1 with failure set. */
int program_parse(struct program *program, const json_t *exec, struct failure *failure);

/* A started program, and our ends of its streams: -1 where there is none, else non-blocking. */
struct process {
	pid_t pid;
	int report; /* ends when the program runs; or says why not, see program_report */
	int in;
	int out;
	int err;
};

/* 0 or -1 with failure set. */
int program_start(const struct program *program, const struct cgroup *cgroup,
		  struct process *process, struct failure *failure);

/*
 * What the report's pipe has: 0 if it has ended, 1 if nothing has come yet, -1 with failure set if
 * the program could not be run.
 */
int program_report(int report, const struct program *program, struct failure *failure);

/* All of an absolute path that is not there. 0 or -1 with errno set. */
int program_make_directories(const char *path);

void program_set_window(int tty, uint16_t rows, uint16_t columns);

#endif
