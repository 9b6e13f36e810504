/* SPDX-License-Identifier: Apache-2.0 */
#include "jailer/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <linux/mount.h>
#include <mntent.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "base/array.h"
#include "base/err.h"
#include "base/fd.h"
#include "jailer/args.h"

#define PLACES_MAX (sizeof(((struct cgroup *)NULL)->places) / sizeof(struct cgroup_place))
#define USUAL_MOUNT "/sys/fs/cgroup"
#define OPEN_DIRECTORY (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
#define FILE_SIZE_MAX 4096

/* How long processes that were killed may take to leave; each try waits for one to end. */
#define REMOVE_TRIES 1000
/* Against jailers with the same id in other bases, one of which gets on each time. */
#define MAKE_TRIES 100

static bool is_mount(const char *path, unsigned int version)
{
	const long wanted = version == 2 ? CGROUP2_SUPER_MAGIC : CGROUP_SUPER_MAGIC;
	struct statfs st;

	return statfs(path, &st) == 0 && st.f_type == wanted;
}

/* Where the host has mounted it, if not in the usual place. */
static int search_mounts(char path[PATH_MAX], unsigned int version, const char *controller)
{
	FILE *file = setmntent("/proc/self/mounts", "re");
	char buffer[8192];
	struct mntent entry;
	int rc = -ENOENT;

	if (!file)
		return -errno;
	while (rc < 0 && getmntent_r(file, &entry, buffer, sizeof(buffer))) {
		if (version == 2 ? strcmp(entry.mnt_type, "cgroup2") == 0
				 : strcmp(entry.mnt_type, "cgroup") == 0 &&
					   hasmntopt(&entry, controller)) {
			snprintf(path, PATH_MAX, "%s", entry.mnt_dir);
			rc = 0;
		}
	}
	endmntent(file);
	return rc;
}

/* One of our own, attached nowhere: `ip netns exec` hides the host's behind another /sys. */
static int mount_detached(unsigned int version, const char *controller)
{
	CLEANUP_FD int fs =
		(int)syscall(SYS_fsopen, version == 2 ? "cgroup2" : "cgroup", FSOPEN_CLOEXEC);

	if (fs < 0 ||
	    (version == 1 &&
	     syscall(SYS_fsconfig, fs, FSCONFIG_SET_FLAG, controller, NULL, 0) < 0) ||
	    syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return -1;
	return (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC,
			    MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
}

static int open_mount(unsigned int version, const char *controller, struct err *err)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), USUAL_MOUNT "%s%s", version == 1 ? "/" : "",
		 version == 1 ? controller : "");
	/* What is listed may be hidden by another mount. */
	if (!is_mount(path, version) &&
	    (search_mounts(path, version, controller) < 0 || !is_mount(path, version))) {
		fd = mount_detached(version, controller);
		if (fd >= 0)
			return fd;
		return version == 2
			       ? err_set(err, ENOENT, "cgroup version 2 is not mounted")
			       : err_set(err, ENOENT,
					 "cgroup version 1: no hierarchy has the controller %s",
					 controller);
	}
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? err_sys(err, errno, "cgroup %s", path) : fd;
}

/* The file's content without the last newline; -errno. */
static int read_file(int dir, const char *name, char *text, size_t size)
{
	CLEANUP_FD int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, size - 1);

	if (n < 0)
		return -errno;
	while (n > 0 && text[n - 1] == '\n')
		n--;
	text[n] = '\0';
	return 0;
}

static int write_file(int dir, const char *name, const char *text)
{
	CLEANUP_FD int fd = openat(dir, name, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);

	/* The kernel takes a value by one write, or not at all. */
	return fd < 0 || write(fd, text, strlen(text)) < 0 ? -errno : 0;
}

static bool has_word(const char *text, const char *word)
{
	size_t len = strlen(word);

	for (const char *at = strstr(text, word); at; at = strstr(at + 1, word)) {
		if ((at == text || at[-1] == ' ') && (at[len] == ' ' || at[len] == '\0'))
			return true;
	}
	return false;
}

/* Version 2: the directory's children have the controller. Nothing is written if they do already.
 */
static int enable(int dir, const char *controller, struct err *err)
{
	char text[FILE_SIZE_MAX], word[40];
	int rc = read_file(dir, "cgroup.subtree_control", text, sizeof(text));

	if (rc == 0 && has_word(text, controller))
		return 0;
	snprintf(word, sizeof(word), "+%s", controller);
	if (rc == 0)
		rc = write_file(dir, "cgroup.subtree_control", word);
	return rc < 0 ? err_sys(err, -rc, "cgroup controller %s cannot be enabled", controller) : 0;
}

/* Version 1: without processors and memory nodes a cpuset takes no process. */
static int inherit_cpuset(int parent, int dir, struct err *err)
{
	static const char *const files[] = { "cpuset.cpus", "cpuset.mems" };

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		char text[FILE_SIZE_MAX];
		int rc = read_file(dir, files[i], text, sizeof(text));

		if (rc == 0 && text[0])
			continue;
		if (rc == 0)
			rc = read_file(parent, files[i], text, sizeof(text));
		if (rc == 0)
			rc = write_file(dir, files[i], text);
		if (rc < 0)
			return err_sys(err, -rc, "cgroup's %s", files[i]);
	}
	return 0;
}

/* Before a directory below dir is made use of. */
static int prepare(const struct cgroup *cgroup, const struct jailer_args *args, int dir,
		   struct err *err)
{
	int rc = 0;

	for (unsigned int i = 0; cgroup->version == 2 && rc == 0 && i < args->cgroup_count; i++) {
		if (args->cgroup[i].controller[0])
			rc = enable(dir, args->cgroup[i].controller, err);
	}
	return rc;
}

static int descend(int dir, const char *name, const char *controller, struct err *err)
{
	CLEANUP_FD int fd = -1;
	int rc = 0;

	if (mkdirat(dir, name, 0755) < 0 && errno != EEXIST)
		return err_sys(err, errno, "cgroup %s", name);
	fd = openat(dir, name, OPEN_DIRECTORY);
	if (fd < 0)
		return err_sys(err, errno, "cgroup %s", name);
	if (controller && strcmp(controller, "cpuset") == 0)
		rc = inherit_cpuset(dir, fd, err);
	return rc < 0 ? rc : fd_take(&fd);
}

/*
 * Where PARENT begins: at the hierarchy's root; without root beside the cgroup of the caller, as
 * far as somebody has handed that over to its user.
 */
static int open_top(const struct cgroup *cgroup, const struct jailer_args *args,
		    const char *controller, struct err *err)
{
	CLEANUP_FD int mount_fd = open_mount(cgroup->version, controller, err);
	char text[FILE_SIZE_MAX], *own, *slash;
	int fd;

	if (mount_fd < 0 || !args->rootless || cgroup->version != 2)
		return fd_take(&mount_fd);
	if (read_file(AT_FDCWD, "/proc/self/cgroup", text, sizeof(text)) < 0 ||
	    !(own = strstr(text, "0::/")))
		return err_set(err, ENOENT, "/proc/self/cgroup: no cgroup of version 2");
	own += strlen("0::/");
	own[strcspn(own, "\n")] = '\0';
	slash = strrchr(own, '/');
	*(slash ? slash : own) = '\0';
	fd = openat(mount_fd, *own ? own : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? err_sys(err, errno, "cgroup %s", own) : fd;
}

static int open_parent(const struct cgroup *cgroup, const struct jailer_args *args,
		       const char *controller, struct err *err)
{
	CLEANUP_FD int fd = open_top(cgroup, args, controller, err);
	const char *at = args->parent_cgroup;
	int rc = fd < 0 ? fd : prepare(cgroup, args, fd, err);

	while (rc == 0 && *at) {
		char name[NAME_MAX + 1];
		size_t len = strcspn(at, "/");
		int next;

		if (len > NAME_MAX)
			return err_sys(err, ENAMETOOLONG, "cgroup %s", args->parent_cgroup);
		memcpy(name, at, len);
		name[len] = '\0';
		at += len + (at[len] == '/');
		next = descend(fd, name, cgroup->version == 1 ? controller : NULL, err);
		if (next < 0)
			return next;
		fd_close(&fd);
		fd = next;
		rc = prepare(cgroup, args, fd, err);
	}
	return rc < 0 ? rc : fd_take(&fd);
}

/* Kills those that are in it, and waits for one of them to have ended; false if there is none. */
static bool kill_processes(int dir)
{
	char text[FILE_SIZE_MAX];
	char *at = text, *end;
	CLEANUP_FD int last = -1;

	if (read_file(dir, "cgroup.procs", text, sizeof(text)) < 0)
		return false;
	for (long pid = strtol(at, &end, 10); end != at && pid > 0; pid = strtol(at, &end, 10)) {
		int fd = (int)syscall(SYS_pidfd_open, pid, 0);

		if (fd >= 0) {
			syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0);
			fd_close(&last);
			last = fd;
		}
		at = end;
	}
	if (last < 0)
		return false;
	poll(&(struct pollfd){ .fd = last, .events = POLLIN }, 1, -1);
	return true;
}

/*
 * A process has left its cgroup a moment after it can be waited for, which nothing announces in
 * version 1.
 */
static int remove_place(const struct cgroup *cgroup, const struct cgroup_place *place)
{
	const struct timespec moment = { .tv_nsec = 200000 };

	for (int i = 0; i < REMOVE_TRIES; i++) {
		if (unlinkat(place->parent_fd, cgroup->id, AT_REMOVEDIR) == 0 || errno == ENOENT)
			return 0;
		if (errno != EBUSY)
			break;
		if (!kill_processes(place->fd))
			nanosleep(&moment, NULL);
	}
	return -errno;
}

/* Version 1's hierarchies can have several controllers. */
static const struct cgroup_place *find_same(const struct cgroup *cgroup, int parent_fd)
{
	struct stat here, there;

	for (unsigned int i = 0; i + 1 < cgroup->count; i++) {
		if (fstat(parent_fd, &here) == 0 &&
		    fstat(cgroup->places[i].parent_fd, &there) == 0 &&
		    here.st_dev == there.st_dev && here.st_ino == there.st_ino)
			return &cgroup->places[i];
	}
	return NULL;
}

/* Whether the open directory is still PARENT/ID; another jailer may have removed it. */
static bool is_there(const struct cgroup *cgroup, const struct cgroup_place *place)
{
	struct stat ours, there;

	return fstat(place->fd, &ours) == 0 &&
	       fstatat(place->parent_fd, cgroup->id, &there, AT_SYMLINK_NOFOLLOW) == 0 &&
	       ours.st_ino == there.st_ino;
}

/*
 * Whoever can open a file for reading can lock it, so it is one that nobody else needs to read. It
 * is held as long as the cgroup is, to tell one that is in use from one that was left behind; who
 * holds it alone removes that.
 */
static int lock_place(const struct cgroup *cgroup, struct cgroup_place *place, struct err *err)
{
	const char *name = cgroup->version == 2 ? "cgroup.kill" : "notify_on_release";
	CLEANUP_FD int fd = openat(place->fd, name, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0 || fchmod(fd, 0600) < 0)
		return is_there(cgroup, place)
			       ? err_sys(err, errno, "cgroup %s: %s", cgroup->id, name)
			       : -ESTALE;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK
			       ? err_set(err, EBUSY,
					 "cgroup %s: a jail of this id is running in another base "
					 "directory",
					 cgroup->id)
			       : err_sys(err, errno, "cgroup %s", cgroup->id);
	if (!is_there(cgroup, place))
		return -ESTALE;
	place->lock_fd = fd_take(&fd);
	return 0;
}

static void close_place(struct cgroup_place *place)
{
	fd_close(&place->lock_fd);
	fd_close(&place->fd);
}

/* One that is there already, and is nobody's any more. -ESTALE: there is another by now. */
static int remove_left_over(const struct cgroup *cgroup, struct cgroup_place *place,
			    struct err *err)
{
	int rc;

	place->fd = openat(place->parent_fd, cgroup->id, OPEN_DIRECTORY);
	if (place->fd < 0)
		return errno == ENOENT ? 0 : err_sys(err, errno, "cgroup %s", cgroup->id);
	rc = lock_place(cgroup, place, err);
	if (rc == 0) {
		rc = remove_place(cgroup, place);
		if (rc < 0)
			err_sys(err, -rc, "cgroup %s: left by an earlier jail", cgroup->id);
	}
	close_place(place);
	return rc;
}

/* A new one, locked. -ESTALE: another jailer was faster. */
static int make_place(const struct cgroup *cgroup, struct cgroup_place *place, const char *own,
		      struct err *err)
{
	int rc = remove_left_over(cgroup, place, err);

	if (rc < 0)
		return rc;
	rc = descend(place->parent_fd, cgroup->id, own, err);
	if (rc < 0)
		return rc == -ENOENT ? -ESTALE : rc;
	place->fd = rc;
	rc = lock_place(cgroup, place, err);
	if (rc < 0)
		close_place(place);
	return rc;
}

static int open_place(struct cgroup *cgroup, const struct jailer_args *args, const char *controller,
		      struct err *err)
{
	struct cgroup_place *place = &cgroup->places[cgroup->count];
	const char *own = cgroup->version == 1 ? controller : NULL;
	const struct cgroup_place *same;
	int rc;

	if (own && !*own)
		return err_set(err, EINVAL, "--cgroup: cgroup.* are files of version 2");
	if (cgroup->count == PLACES_MAX)
		return err_set(err, E2BIG, "--cgroup: more than %zu controllers", PLACES_MAX);
	*place = (struct cgroup_place){ controller, -1, -1, -1 };
	cgroup->count++;
	place->parent_fd = open_parent(cgroup, args, controller, err);
	if (place->parent_fd < 0)
		return place->parent_fd;
	same = find_same(cgroup, place->parent_fd);
	if (same) {
		place->fd = fcntl(same->fd, F_DUPFD_CLOEXEC, 0);
		return place->fd < 0 ? err_sys(err, errno, "cgroup %s", cgroup->id) : 0;
	}
	rc = -ESTALE;
	for (int i = 0; i < MAKE_TRIES && rc == -ESTALE; i++)
		rc = make_place(cgroup, place, own, err);
	return rc == -ESTALE ? err_sys(err, ESTALE, "cgroup %s", cgroup->id) : rc;
}

static struct cgroup_place *find_place(struct cgroup *cgroup, const char *controller)
{
	for (unsigned int i = 0; i < cgroup->count; i++) {
		if (cgroup->version == 2 || strcmp(cgroup->places[i].controller, controller) == 0)
			return &cgroup->places[i];
	}
	return NULL;
}

static int set_value(struct cgroup *cgroup, const struct jailer_args *args,
		     const struct jailer_cgroup_value *value, struct err *err)
{
	struct cgroup_place *place = find_place(cgroup, value->controller);
	int rc = 0;

	if (!place) {
		rc = open_place(cgroup, args, value->controller, err);
		if (rc < 0)
			return rc;
		place = &cgroup->places[cgroup->count - 1];
	}
	rc = write_file(place->fd, value->file, value->value);
	return rc < 0 ? err_sys(err, -rc, "--cgroup %s=%s", value->file, value->value) : 0;
}

/* Version 2 alone is one line; each hierarchy of version 1 is one more. */
static unsigned int version_in_use(void)
{
	char text[FILE_SIZE_MAX];

	return read_file(AT_FDCWD, "/proc/self/cgroup", text, sizeof(text)) == 0 &&
			       strncmp(text, "0::", 3) == 0 && !strchr(text, '\n')
		       ? 2
		       : 1;
}

int cgroup_open(struct cgroup *cgroup, const struct jailer_args *args, struct err *err)
{
	int rc = 0;

	*cgroup = (struct cgroup){ .id = args->id };
	if (args->cgroup_count == 0 && !args->in_parent)
		return 0;
	cgroup->version = args->cgroup_version;
	if (cgroup->version == 0)
		cgroup->version = version_in_use();
	for (unsigned int i = 0; rc == 0 && i < args->cgroup_count; i++)
		rc = set_value(cgroup, args, &args->cgroup[i], err);
	/* Without limits of its own those of the parent hold. */
	if (args->cgroup_count == 0)
		rc = cgroup->version == 2
			     ? open_place(cgroup, args, "", err)
			     : err_set(err, EINVAL,
				       "--parent-cgroup %s: in version 1 it goes with --cgroup, "
				       "which names controllers",
				       args->parent_cgroup);
	return rc;
}

int cgroup_to_clone_into(const struct cgroup *cgroup)
{
	return cgroup->version == 2 ? cgroup->places[0].fd : -1;
}

int cgroup_enter(const struct cgroup *cgroup, struct err *err)
{
	for (unsigned int i = 0; cgroup->version == 1 && i < cgroup->count; i++) {
		/* A single thread that moves itself does not wait for the whole host's threads. */
		int rc = write_file(cgroup->places[i].fd, "tasks", "0");

		if (rc < 0)
			return err_sys(err, -rc, "cgroup %s of the controller %s", cgroup->id,
				       cgroup->places[i].controller);
	}
	return 0;
}

void cgroup_thaw(const struct cgroup *cgroup)
{
	for (unsigned int i = 0; i < cgroup->count; i++) {
		if (cgroup->version == 1 && cgroup->places[i].fd >= 0)
			(void)write_file(cgroup->places[i].fd, "freezer.state", "THAWED");
	}
}

void cgroup_remove(const struct cgroup *cgroup)
{
	cgroup_thaw(cgroup);
	for (unsigned int i = 0; i < cgroup->count; i++) {
		if (cgroup->places[i].fd >= 0)
			(void)remove_place(cgroup, &cgroup->places[i]);
	}
}

void cgroup_close(struct cgroup *cgroup)
{
	for (unsigned int i = 0; i < cgroup->count; i++) {
		fd_close(&cgroup->places[i].lock_fd);
		fd_close(&cgroup->places[i].fd);
		fd_close(&cgroup->places[i].parent_fd);
	}
	cgroup->count = 0;
}
