/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The jail's files as the host sees them, BASE/NAME/ID/root:
 *
 *	root/NAME      the copy of the VMM, which only can be executed
 *	root/NAME.pid  the VMM's process id on the host
 *	root/dev/      device nodes
 *	root/run/      for the VMM's sockets
 *
 * Its owner may put files into root/ before and while the VM runs (disks, kernels); they stay. Who
 * works on a tree holds a lock on the file ID/lock, which nobody else can open: a tree that nobody
 * holds is a left-over, and what is in it of the above is replaced. Everything is done relative to
 *open directories, following no symbolic link, while root/ belongs to the jailer alone.
 */
#ifndef MOTE_JAILER_TREE_H
#define MOTE_JAILER_TREE_H

#include <limits.h>
#include <sys/types.h>

struct err;
struct jailer_args;

struct tree {
	char path[PATH_MAX]; /* of root/, without symbolic links */
	int name_fd;	     /* BASE/NAME */
	int id_fd;
	int lock_fd; /* -1: not ours */
	int root_fd;
	const struct jailer_args *args; /* not owned */
};

#define TREE_NONE                                                                                  \
	{                                                                                          \
		.name_fd = -1, .id_fd = -1, .lock_fd = -1, .root_fd = -1                           \
	}

/*
 * Makes the directories, and takes root/ over. 0 or -errno with err set; -EBUSY if the id is in
 * use. To be closed in each case.
 */
int tree_open(struct tree *tree, const struct jailer_args *args, struct err *err);

/* The device nodes that the arguments ask for; what is not needed is not there. */
int tree_add_devices(const struct tree *tree, struct err *err);

/* The open file of --exec-file, if it is one that may be jailed; or -errno. */
int tree_open_exec(const struct jailer_args *args, struct err *err);
int tree_copy_exec(const struct tree *tree, int exec_fd, struct err *err);

/* root/ belongs to the VMM from now on. */
int tree_give(const struct tree *tree, struct err *err);

int tree_write_pid(const struct tree *tree, pid_t pid, struct err *err);

/*
 * Removes what was made here and the VMM's sockets; directories, if nothing else is in them. Where
 * the VMM could write to run/ alone, what is in that is nobody else's and goes, too.
 */
void tree_remove(const struct tree *tree);
/* Ends the lock. */
void tree_close(struct tree *tree);

#endif
