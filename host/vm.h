/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is known of the running VMs: a folder for each under the runtime directory, with its
 * sockets, its console's log and meta.json. A VM's supervisor, the `mote run` process, holds the
 * folder's lock as long as it lives; who finds the lock free knows that the VM is gone.
 */
#ifndef MOTE_HOST_VM_H
#define MOTE_HOST_VM_H

#include <jansson.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct err;

#define VM_ID_LENGTH 12
#define VM_NAME_MAX 63

struct vm {
	char id[VM_ID_LENGTH + 1];
	char dir[PATH_MAX];
	int lock_fd;  /* owned; -1: not ours */
	json_t *meta; /* owned */
};

/* The processes of a VM's meta. */
#define VM_SUPERVISOR "pid" /* mote run */
#define VM_VMM "vmm_pid"    /* the VMM, or its jailer */

/*
 * A new folder, locked. Its meta is what is known of it, of which a reference is taken over, and
 * "id", "name", "vsock", "api" and the calling process as its supervisor: others see all of it or
 * nothing. The name is `name`, or the id if that is NULL; one that a running VM has is refused. 0
 * or -errno with err set.
 */
int vm_create(struct vm *vm, const char *name, json_t *meta, struct err *err);
/* Writes meta.json anew; who reads it sees the old or the new one. 0 or -errno with err set. */
int vm_save(const struct vm *vm, struct err *err);
/* Removes the folder. Safe on a zeroed object. */
void vm_remove(struct vm *vm);
/* Lets go of it; the folder stays. Safe on a zeroed object. */
void vm_close(struct vm *vm);

/*
 * Removes what crashed supervisors have left, and lists the rest: each one's meta, with "dir" and
 * "running" added; one that has ended in order, and was to be kept, has "exit_status". The caller
 * owns the list. 0 or -errno with err set.
 */
int vm_list(json_t **list, struct err *err);

/*
 * The one of the list whose name or id this is, or begins so: its meta, a new reference; or NULL
 * with err set.
 */
json_t *vm_find(const char *name, struct err *err);
/* The same, but it must be running. */
json_t *vm_find_running(const char *name, struct err *err);
/* Whether its VMM says so; false if that says nothing. */
bool vm_is_paused(const json_t *meta);
/* 0, or -EAGAIN with err set if it is paused. */
int vm_check_awake(const json_t *meta, struct err *err);
/* As vm_find_running, and its guest must be able to answer, for it is not paused. */
json_t *vm_find_awake(const char *name, struct err *err);
/* Removes one that has ended. 0 or -errno with err set. */
int vm_forget(const json_t *meta, struct err *err);
/* A string of its meta; "" if there is none. */
const char *vm_string(const json_t *meta, const char *key);
int64_t vm_number(const json_t *meta, const char *key); /* 0 if there is none */
/* Its "state" before its command runs, and while volumes come back after it. */
#define VM_STARTING "starting"
#define VM_ENDING "ending"

/*
 * A process is told by its number and by when it started, so that never another one is meant that
 * got the number later: vm_set_process keeps both.
 */
void vm_set_process(json_t *meta, const char *key, pid_t pid);
/* A pidfd, owned by the caller; -ESRCH if it has gone, or was never there. */
int vm_open_process(const json_t *meta, const char *key);
/* False if it has gone. */
bool vm_signal(const json_t *meta, const char *key, int number);
/* Waits for its supervisor to have ended; false if it has not in that time. */
bool vm_wait(const json_t *meta, int timeout_ms);

/* DIR/name; false if that is too long. */
bool vm_path(const struct vm *vm, const char *name, char path[PATH_MAX]);

#endif
