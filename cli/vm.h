/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is known of the running VMs: a folder for each under the runtime directory, with its
 * sockets, its console's log and meta.json. A VM's supervisor, the `mote run` process, holds the
 * folder's lock as long as it lives; who finds the lock free knows that the VM is gone.
 */
#ifndef MOTE_CLI_VM_H
#define MOTE_CLI_VM_H

#include <jansson.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/un.h>

struct err;

#define VM_ID_LENGTH 12
#define VM_NAME_MAX 63

struct vm {
	char id[VM_ID_LENGTH + 1];
	char dir[PATH_MAX];
	int lock_fd;  /* owned; -1: not ours */
	json_t *meta; /* owned */
};

/*
 * A new folder, locked, with "id" and "name" in its meta. The name is `name`, or the id if that is
 * NULL; one that a running VM has is refused. 0 or -errno with err set.
 */
int vm_create(struct vm *vm, const char *name, struct err *err);
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
/* Removes one that has ended. 0 or -errno with err set. */
int vm_forget(const json_t *meta, struct err *err);
/* A string of its meta; "" if there is none. */
const char *vm_string(const json_t *meta, const char *key);
int64_t vm_number(const json_t *meta, const char *key); /* 0 if there is none */
/* Its "state" while volumes come back, behind its command. */
#define VM_ENDING "ending"
/* Waits for its supervisor to have ended; false if it has not in that time. */
bool vm_wait(const json_t *meta, int timeout_ms);

/* DIR/name; false if that is too long. */
bool vm_path(const struct vm *vm, const char *name, char path[PATH_MAX]);

#endif
