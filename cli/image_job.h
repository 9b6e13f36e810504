/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rootfs-tools/image/build-image.sh, run and watched in a directory of its own in the store, so
 * that it may be interrupted and leaves nothing. Progress and errors are printed.
 */
#ifndef MOTE_CLI_IMAGE_JOB_H
#define MOTE_CLI_IMAGE_JOB_H

#include <limits.h>
#include <signal.h>

#include "host/image_store.h"

struct image_job {
	char scratch[PATH_MAX]; /* what the script leaves is there */
	int lock_fd;
	int signal_fd;
	sigset_t mask_before;
};

/*
 * Signals that end a process are the script's until the job is closed. Removes what jobs that were
 * killed have left. 0, or -1 with *status set to the process's exit status and all of it said; then
 * nothing is open.
 */
int image_job_open(struct image_job *job, struct image_store *store, int *status);
void image_job_close(struct image_job *job);

/*
 * Runs the script to its end with its arguments, `source_fd` (-1: none) as its standard input. What
 * it says is `about` that. 0, or -1 as above.
 */
int image_job_run(const struct image_job *job, const char *format, const char *kind,
		  const char *detail, int max_mib, int source_fd, const char *about, int *status);

/* A small file's bytes with a zero after them (owned by the caller), or NULL with err set. */
char *image_job_read(const struct image_job *job, const char *name, size_t *length,
		     struct err *err);

/* Removes what jobs that were killed have left. The process's exit status. */
int image_prune(struct image_store *store);

#endif
