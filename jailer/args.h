/* SPDX-License-Identifier: Apache-2.0 */
/* mote-jailer's command line: Firecracker's, and what only mote has. */
#ifndef MOTE_JAILER_ARGS_H
#define MOTE_JAILER_ARGS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct err;

#define JAILER_EXIT_BAD_ARGUMENTS 153
#define JAILER_ID_LENGTH_MAX 64
#define JAILER_CGROUP_VALUES_MAX 32
#define JAILER_KEEP_FDS_MAX 32

/* A value for a file of the VM's cgroup. */
struct jailer_cgroup_value {
	char controller[32]; /* "memory"; empty for the files of every cgroup ("cgroup.freeze") */
	char file[64];	     /* "memory.max" */
	const char *value;
};

/* What --resource-limit sets; RLIM_INFINITY leaves that limit as it was. */
struct jailer_limits {
	uint64_t no_file;
	uint64_t fsize;
	uint64_t nproc;
};

/* All strings are the command line's own. */
struct jailer_args {
	const char *id;
	const char *exec_file;
	const char *exec_name; /* its last component */
	const char *chroot_base;
	const char *netns; /* the network namespace to join; NULL: it stays where it is, or */
	const char *parent_cgroup;
	bool in_parent; /* it was given, and its limits are to hold */
	uid_t uid;
	gid_t gid;
	unsigned int cgroup_version; /* 1 or 2; 0: what the host has */
	struct jailer_cgroup_value cgroup[JAILER_CGROUP_VALUES_MAX];
	unsigned int cgroup_count;
	struct jailer_limits limits;
	int keep_fds[JAILER_KEEP_FDS_MAX]; /* in ascending order */
	unsigned int keep_count;
	int record_fd; /* one of them, for errors (base/record.h); -1: none */
	bool daemonize;
	bool new_netns; /* has one of its own, empty */
	bool tun;
	bool uffd;
	bool read_only_root;
	bool remove;	    /* only what a jail of this id has left behind */
	bool weaker_cgroup; /* go on without a cgroup where it cannot be made */
	bool has_uid, has_gid;
	bool as_root;	 /* one of them is 0 */
	bool rootless;	 /* not started by root: in a user namespace, as whoever started it */
	char **vmm_args; /* behind "--"; ends with NULL */
};

/* 0; -errno with err set; 1 if the answer (--help, --version) is printed and nothing is left to do.
 */
int jailer_args_parse(int argc, char **argv, struct jailer_args *args, struct err *err);

#endif
