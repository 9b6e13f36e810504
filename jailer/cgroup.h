/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The VM's cgroup, PARENT/ID in version 2's hierarchy or in each of version 1's that --cgroup names
 * a controller of. The parents are made if they are missing, and stay: they are shared.
 */
#ifndef MOTE_JAILER_CGROUP_H
#define MOTE_JAILER_CGROUP_H

struct err;
struct jailer_args;

struct cgroup {
	unsigned int version; /* 1 or 2; 0: there is none */
	unsigned int count;   /* hierarchies */
	struct cgroup_place {
		const char *controller;
		int parent_fd; /* PARENT */
		int fd;	       /* PARENT/ID; -1: not ours */
		int lock_fd;   /* a file of it that nobody else can open; the lock is on it */
	} places[8];
	const char *id;
};

/*
 * Makes it, ends what an earlier jail of the same id may have left in it, and sets its values. The
 * id is this jail's alone in its base only: -EBUSY if one of another base has the cgroup. 0 or
 * -errno with err set; to be removed and closed in each case.
 */
int cgroup_open(struct cgroup *cgroup, const struct jailer_args *args, struct err *err);

/* For clone3's CLONE_INTO_CGROUP; -1 if there is none, or cgroup_enter() is the way. */
int cgroup_to_clone_into(const struct cgroup *cgroup);
/* The calling process, which must have one thread only, enters the cgroups of version 1. */
int cgroup_enter(const struct cgroup *cgroup, struct err *err);

/* In version 1 what is frozen does not even die; in version 2 it does. */
void cgroup_thaw(const struct cgroup *cgroup);

/* Kills what still is in it, and waits for its end. */
void cgroup_remove(const struct cgroup *cgroup);
void cgroup_close(struct cgroup *cgroup);

#endif
