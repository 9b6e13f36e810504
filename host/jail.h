/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The jail that mote run puts its VMM into, by mote-jailer: as root that of a user which no other
 * VM has, otherwise a user namespace. What the VMM needs comes as descriptors; its root has nothing
 * but the program, device nodes, and the sockets in /run.
 */
#ifndef MOTE_HOST_JAIL_H
#define MOTE_HOST_JAIL_H

#include <limits.h>
#include <stdbool.h>

struct err;

/* Where the VMM makes its vsock socket, as it sees it itself. */
#define JAIL_VSOCK "/run/vsock"
#define JAIL_API "/run/api"

struct jail {
	bool none;	     /* --no-jail */
	bool weaker_cgroup;  /* --weaker-jail cgroup */
	char base[PATH_MAX]; /* of all jails */
	char id[64];
	unsigned int uid;
	unsigned int gid;
};

/*
 * Makes the /run of the jail of this id, and `folder`, the VM's, lead to it: `vsock` and `api` in
 * that are the VMM's sockets, and a socket that is made at `listen`_PORT is the one that the VMM
 * finds. 0 or -errno with err set.
 */
int jail_prepare(struct jail *jail, const char *id, const char *folder, char listen[PATH_MAX],
		 struct err *err);

/* Lets the VMM connect to a socket at this path, which is in the jail's /run. */
int jail_share(const struct jail *jail, const char *socket, struct err *err);

/*
 * What mote-jailer has left of it, because it refused it or was killed. The jail's VMM must have
 * ended. Safe on a zeroed object.
 */
void jail_remove(const struct jail *jail, const char *socket);

/* The same for the VM of this id, whose supervisor has not lived to do it. */
void jail_sweep(const char *id);

#define JAIL_ARGUMENTS_MAX 96

/* mote-jailer's own arguments. */
struct jail_arguments {
	char *words[JAIL_ARGUMENTS_MAX]; /* end with NULL, and are in `text` */
	unsigned int count;
	char text[4 * PATH_MAX];
	unsigned int used;
};

/* What is put into the jail, and what it may use. */
struct jail_contents {
	const char *vmm;  /* the program */
	int mem_size_mib; /* of the guest */
	int vcpu_count;
	bool tap;	/* it needs a tap device of the network namespace that mote is in */
	int record_fd;	/* which both inherit, for records */
	const int *fds; /* that it inherits besides */
	unsigned int count;
};

/* The command up to and with its "--". -E2BIG if it does not fit. */
int jail_command(const struct jail *jail, const char *jailer, const struct jail_contents *contents,
		 struct jail_arguments *arguments);

#endif
