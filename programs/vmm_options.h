/* SPDX-License-Identifier: Apache-2.0 */
/* mote-vmm's command line, Firecracker's. */
#ifndef MOTE_PROGRAMS_VMM_OPTIONS_H
#define MOTE_PROGRAMS_VMM_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Firecracker's exit codes. */
#define EXIT_BAD_CONFIGURATION 152
#define EXIT_BAD_ARGUMENTS 153

struct vmm_options {
	const char *api_sock;	 /* NULL: no API */
	const char *config_file; /* NULL: none */
	const char *id;
	const char *log_path;	  /* NULL: standard error */
	const char *metrics_path; /* NULL: none are written */
	const char *metadata;	  /* a file; NULL: none */
	bool boot_timer;
	bool no_seccomp;
	bool wants_pci;
	size_t body_max;	/* of the API's requests, bytes */
	size_t mmds_size_limit; /* of the metadata, bytes */
	int64_t start_time_us;	/* CLOCK_MONOTONIC; 0: not given */
	int64_t start_cpu_us;	/* CLOCK_PROCESS_CPUTIME_ID at the start */
	int64_t parent_cpu_us;	/* what the parent had used then */
};

/*
 * Sets the log's level and format, where records go, and what descriptors are called, too. 0; the
 * status to exit with, the cause being printed; or -1 if the answer is printed and nothing is left
 * to do.
 */
int vmm_options_parse(int argc, char **argv, struct vmm_options *options);

#endif
