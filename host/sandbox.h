/* SPDX-License-Identifier: Apache-2.0 */
/* One mote-vmm process: started, listened to, ended and reaped. */
#ifndef MOTE_HOST_SANDBOX_H
#define MOTE_HOST_SANDBOX_H

#include <jansson.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/printable.h"
#include "base/record.h"

struct sandbox_config {
	char kernel[PATH_MAX];
	char initrd[PATH_MAX];
	const char *boot_args;
	int vcpu_count;
	int mem_size_mib;
	const char *huge_pages; /* "None", "Transparent" or "2M" */
	json_t *drives;		/* lists of the API's bodies; owned by the caller */
	json_t *interfaces;
	const char *vsock;	 /* where its Unix socket is to be, as mote-vmm sees it */
	const char *api;	 /* the same of the API's */
	const struct jail *jail; /* which mote-vmm is put into; NULL: none */
	bool tap;		 /* one of the interfaces is a tap device */
	const char *metadata;	 /* a file, for the guest at 169.254.169.254; NULL: none */
	int passt_fd;		 /* inherited by mote-vmm as SANDBOX_PASST_FD; 0: none */
};

#define SANDBOX_PASST_FD 4
/* What mote-vmm and its jailer write records to (base/record.h). */
#define SANDBOX_RECORD_FD 5
/* The exit status of a process that could not become mote-vmm or its jailer. */
#define SANDBOX_EXIT 125

/* Microseconds from the start of the process; -1 where not reached. */
struct sandbox_phases {
	int64_t kvm_ready_us;
	int64_t kernel_loaded_us;
	int64_t first_instruction_us;
	int64_t init_us;
};

#define SANDBOX_FILES_MAX 32

/* What mote-vmm is given as open files, knows as /dev/fd/N, and calls by their path. */
struct sandbox_file {
	int fd;		  /* -1 once it has been started */
	int number;	  /* N */
	const char *path; /* the configuration's */
};

struct sandbox {
	pid_t pid;	  /* 0 once reaped */
	int pid_fd;	  /* owned; readable when the process has ended */
	int console_fd;	  /* owned; what the guest writes to its serial port; non-blocking */
	int record_fd;	  /* owned; non-blocking */
	int log_fd;	  /* owned; non-blocking; for people */
	bool verbose;	  /* which is copied to standard error */
	int64_t start_ns; /* CLOCK_MONOTONIC */
	struct sandbox_phases phases;
	char record[RECORD_MAX]; /* the unfinished one */
	size_t record_used;
	struct printable printable; /* of the log */
	char error[ERR_TEXT_SIZE];  /* the last that was recorded; "" if none was */
	char reason[ERR_TEXT_SIZE]; /* of the VM's end, likewise */
	int status;		    /* as waitpid gives it, once reaped */
	bool jailed;
	struct sandbox_file files[SANDBOX_FILES_MAX]; /* closed once it has been started */
	unsigned int file_count;
};

/* 0 or -errno with err set; on failure there is nothing to close. */
int sandbox_start(struct sandbox *sandbox, const struct sandbox_config *config, bool verbose,
		  struct err *err);

/* Whether it ended otherwise than by its guest's or our wish, once reaped. */
bool sandbox_has_failed(const struct sandbox *sandbox);

/* Each reads what there is; false at its end. */
bool sandbox_read_records(struct sandbox *sandbox);
bool sandbox_read_log(struct sandbox *sandbox);

/*
 * Waits up to timeout_ms for the process to end by itself, or until there is something to read from
 * interrupt_fd (-1: nothing will be), then kills it; reaps it. Whether it ended by itself.
 */
bool sandbox_finish(struct sandbox *sandbox, int timeout_ms, int interrupt_fd);
/* Safe on a zeroed object. Kills what still runs. */
void sandbox_close(struct sandbox *sandbox);

#endif
