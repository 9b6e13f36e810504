/* SPDX-License-Identifier: Apache-2.0 */
#include "host/vm.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "host/jail.h"
#include "host/paths.h"

#define LOCK "lock"
#define META "meta.json"
#define META_NEW "meta.json.new"

bool vm_path(const struct vm *vm, const char *name, char path[PATH_MAX])
{
	return snprintf(path, PATH_MAX, "%s/%s", vm->dir, name) < PATH_MAX;
}

static bool is_name(const char *name)
{
	size_t length = strlen(name);

	/* It becomes a word of the kernel's command line and the guest's host name. */
	return length >= 1 && length <= VM_NAME_MAX && name[0] != '-' && name[0] != '.' &&
	       strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") ==
		       length;
}

/* Nobody else changes which VMs there are, while this is held. */
static int lock_all(const char *dir, struct err *err)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || flock(fd, LOCK_EX) < 0) {
		fd_close(&fd);
		return err_sys(err, errno, "%s", dir);
	}
	return fd;
}

static void remove_folder(int parent, const char *id)
{
	int fd = openat(parent, id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *entry;

	if (!dir) {
		fd_close(&fd);
		return;
	}
	while ((entry = readdir(dir)) != NULL) {
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			unlinkat(fd, entry->d_name, 0);
	}
	closedir(dir);
	unlinkat(parent, id, AT_REMOVEDIR);
}

static bool is_running(int folder)
{
	CLEANUP_FD int lock = openat(folder, LOCK, O_RDWR | O_CLOEXEC);

	/* What cannot be known is not to be cleaned up. */
	return lock < 0 ? errno != ENOENT : flock(lock, LOCK_EX | LOCK_NB) < 0;
}

/* NULL if it is gone, and what is left of it is removed. */
static json_t *read_entry(int all, const char *dir, const char *id)
{
	CLEANUP_FD int folder = openat(all, id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	CLEANUP_FD int file = -1;
	json_t *meta;
	bool running;

	if (folder < 0)
		return NULL;
	running = is_running(folder);
	file = openat(folder, META, O_RDONLY | O_CLOEXEC);
	meta = file < 0 ? NULL : json_loadfd(file, 0, NULL);
	if (!running && !json_object_get(meta, "exit_status")) {
		json_decref(meta);
		jail_sweep(id);
		remove_folder(all, id);
		return NULL;
	}
	if (!meta)
		return NULL; /* it is only just being made */
	json_object_set_new(meta, "running", json_boolean(running));
	json_object_set_new(meta, "dir", json_sprintf("%s/%s", dir, id));
	return meta;
}

/* The caller holds the lock. */
static int read_all(int all, const char *dir, json_t **list, struct err *err)
{
	int fd = fcntl(all, F_DUPFD_CLOEXEC, 0);
	DIR *folder = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *entry;

	*list = json_array();
	if (!folder) {
		int rc = err_sys(err, errno, "%s", dir);

		fd_close(&fd);
		return rc;
	}
	while ((entry = readdir(folder)) != NULL) {
		json_t *meta = entry->d_name[0] == '.' ? NULL : read_entry(all, dir, entry->d_name);

		if (meta)
			json_array_append_new(*list, meta);
	}
	closedir(folder);
	return 0;
}

int vm_list(json_t **list, struct err *err)
{
	char dir[PATH_MAX];
	CLEANUP_FD int all = -1;
	int rc = paths_vms(dir, err);

	*list = NULL;
	if (rc < 0)
		return rc;
	all = lock_all(dir, err);
	return all < 0 ? all : read_all(all, dir, list, err);
}

/* Whether none of those that are there is called so. */
static int check_free(int all, const char *dir, const char *name, struct err *err)
{
	json_t *list, *meta;
	size_t i;
	int rc = read_all(all, dir, &list, err);

	json_array_foreach (list, i, meta) {
		const char *other = json_string_value(json_object_get(meta, "name"));

		if (rc == 0 && name && other && strcmp(name, other) == 0)
			rc = err_set(err, EEXIST, "--name %s: %s microVM has this name", name,
				     json_is_true(json_object_get(meta, "running")) ? "a running"
										    : "an ended");
	}
	json_decref(list);
	return rc;
}

static int make_id(char id[VM_ID_LENGTH + 1], struct err *err)
{
	uint8_t bytes[VM_ID_LENGTH / 2];

	if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
		return err_sys(err, errno, "getrandom");
	for (size_t i = 0; i < sizeof(bytes); i++)
		snprintf(id + 2 * i, 3, "%02x", bytes[i]);
	return 0;
}

/* What every one has. */
static int complete(struct vm *vm, const char *name, struct err *err)
{
	json_t *own = json_pack("{s:s, s:s, s:o, s:o}", "id", vm->id, "name", name ? name : vm->id,
				"vsock", json_sprintf("%s/vsock", vm->dir), "api",
				json_sprintf("%s/api", vm->dir));
	int rc = json_object_update(vm->meta, own);

	json_decref(own);
	vm_set_process(vm->meta, VM_SUPERVISOR, getpid());
	return rc < 0 ? err_set(err, EINVAL, "%s: " META " cannot be written", vm->dir) : 0;
}

int vm_create(struct vm *vm, const char *name, json_t *meta, struct err *err)
{
	char dir[PATH_MAX], path[PATH_MAX];
	CLEANUP_FD int all = -1, lock = -1;
	int rc;

	*vm = (struct vm){ .lock_fd = -1, .meta = meta };
	if (name && !is_name(name))
		return err_set(err, EINVAL,
			       "--name %s: 1 to %d letters, digits, dashes, dots and underscores "
			       "are possible",
			       name, VM_NAME_MAX);
	rc = paths_vms(dir, err);
	if (rc == 0)
		rc = make_id(vm->id, err);
	if (rc < 0)
		return rc;
	all = lock_all(dir, err);
	if (all < 0)
		return all;
	rc = check_free(all, dir, name, err);
	if (rc < 0)
		return rc;
	if (snprintf(vm->dir, sizeof(vm->dir), "%s/%s", dir, vm->id) >= (int)sizeof(vm->dir) ||
	    !vm_path(vm, LOCK, path))
		return err_set(err, ENAMETOOLONG, "%s: the path is too long", dir);
	if (mkdirat(all, vm->id, 0700) < 0)
		return err_sys(err, errno, "%s", vm->dir);
	lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (lock < 0 || flock(lock, LOCK_EX | LOCK_NB) < 0) {
		rc = err_sys(err, errno, "%s", path);
		remove_folder(all, vm->id);
		return rc;
	}
	vm->lock_fd = fd_take(&lock);
	rc = complete(vm, name, err);
	if (rc == 0)
		rc = vm_save(vm, err);
	if (rc < 0)
		remove_folder(all, vm->id);
	return rc;
}

int vm_save(const struct vm *vm, struct err *err)
{
	char path[PATH_MAX], new_path[PATH_MAX];
	CLEANUP_FD int fd = -1;
	char *text = vm->meta ? json_dumps(vm->meta, JSON_COMPACT) : NULL;
	int rc = 0;

	if (!text || !vm_path(vm, META, path) || !vm_path(vm, META_NEW, new_path)) {
		free(text);
		return err_set(err, EINVAL, "%s: " META " cannot be written", vm->dir);
	}
	fd = open(new_path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		rc = -errno;
	else
		rc = fd_write_all(fd, text, strlen(text));
	free(text);
	if (rc == 0 && rename(new_path, path) < 0)
		rc = -errno;
	return rc < 0 ? err_sys(err, -rc, "%s", path) : 0;
}

void vm_remove(struct vm *vm)
{
	char *slash = strrchr(vm->dir, '/');

	if (slash) {
		CLEANUP_FD int all = -1;

		*slash = '\0';
		all = lock_all(vm->dir, NULL);
		if (all >= 0)
			remove_folder(all, vm->id);
		*slash = '/';
	}
	vm_close(vm);
}

void vm_close(struct vm *vm)
{
	/* Descriptor 0 is standard input, so a zeroed object is recognised by it. */
	if (vm->lock_fd > 0)
		fd_close(&vm->lock_fd);
	json_decref(vm->meta);
	memset(vm, 0, sizeof(*vm));
}

int vm_forget(const json_t *meta, struct err *err)
{
	char dir[PATH_MAX];
	CLEANUP_FD int all = -1;
	int rc = paths_vms(dir, err);

	if (rc < 0)
		return rc;
	all = lock_all(dir, err);
	if (all < 0)
		return all;
	remove_folder(all, vm_string(meta, "id"));
	return 0;
}
