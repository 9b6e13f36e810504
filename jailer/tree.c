/* SPDX-License-Identifier: Apache-2.0 */
#include "jailer/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/own_dir.h"
#include "jailer/args.h"

#define OPEN_DIRECTORY (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
#define COPY_AT_ONCE (64 << 20)
#define FILE_NAME_SIZE (JAILER_ID_LENGTH_MAX + sizeof(".pid"))

#define LOCK "lock"
/* Each level holds a descriptor; the VMM makes no directories where the kernel has Landlock. */
#define DEPTH_MAX 100

#define KVM makedev(10, 232)
#define TUN makedev(10, 200)

/* The path without symbolic links; its last components need not exist yet. */
static int resolve(const char *base, char path[PATH_MAX], struct err *err)
{
	char head[PATH_MAX / 2], real[PATH_MAX];
	const char *rest;
	int n;

	if (*base != '/' || strlen(base) >= sizeof(head))
		return err_set(err, EINVAL, "--chroot-base-dir %s: an absolute path is expected",
			       base);
	snprintf(head, sizeof(head), "%s", base);
	while (!realpath(head, real)) {
		char *slash = strrchr(head, '/');

		if (errno != ENOENT || !slash)
			return err_sys(err, errno, "--chroot-base-dir %s", base);
		slash[slash == head ? 1 : 0] = '\0';
	}
	rest = base + strlen(head);
	n = snprintf(path, PATH_MAX, "%s%s%s", strcmp(real, "/") == 0 ? "" : real,
		     *rest && *rest != '/' ? "/" : "", rest);
	if (strstr(rest, "..") || n >= PATH_MAX / 2)
		return err_set(err, EINVAL, "--chroot-base-dir %s: not a path for a jail", base);
	return 0;
}

/* Opens, one after the other, the directories of an absolute path; those missing are made. */
static int walk(const char *path, struct err *err)
{
	CLEANUP_FD int fd = open("/", OPEN_DIRECTORY);
	const char *at = path + strspn(path, "/");
	char upto[PATH_MAX];

	while (fd >= 0 && *at) {
		char name[NAME_MAX + 1];
		const size_t len = strcspn(at, "/");
		int next;

		if (len > NAME_MAX)
			return err_sys(err, ENAMETOOLONG, "%s", path);
		memcpy(name, at, len);
		name[len] = '\0';
		at += len;
		snprintf(upto, sizeof(upto), "%.*s", (int)(at - path), path);
		at += strspn(at, "/");
		next = own_dir_open_at(fd, name, upto, 0755, *at != '\0', err);
		if (next < 0)
			return next;
		fd_close(&fd);
		fd = next;
	}
	return fd < 0 ? err_sys(err, errno, "/") : fd_take(&fd);
}

/* From now on only the jailer can change what is in it. */
static int take_over(int parent, const char *name, mode_t mode, const char *path, int *fd,
		     struct err *err)
{
	if (mkdirat(parent, name, mode) < 0 && errno != EEXIST)
		return err_sys(err, errno, "%s/%s", path, name);
	*fd = openat(parent, name, OPEN_DIRECTORY);
	if (*fd < 0 || fchown(*fd, geteuid(), getegid()) < 0 || fchmod(*fd, mode) < 0)
		return err_sys(err, errno, "%s/%s", path, name);
	return 0;
}

/*
 * 0 with the lock, -EBUSY if another has it. The file is nobody else's to open, as anybody who can
 * open a file for reading can lock it. -ENOENT: it, or its directory, has been removed meanwhile.
 */
static int lock(struct tree *tree, const char *path, struct err *err)
{
	CLEANUP_FD int fd = openat(tree->id_fd, LOCK,
				   O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
	struct stat ours, there;

	if (fd < 0)
		return errno == ENOENT ? -ENOENT : err_sys(err, errno, "%s/" LOCK, path);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK
			       ? err_set(err, EBUSY, "%s: a jail of this id is running", path)
			       : err_sys(err, errno, "%s/" LOCK, path);
	if (fstat(fd, &ours) < 0 || fstatat(tree->id_fd, LOCK, &there, AT_SYMLINK_NOFOLLOW) < 0 ||
	    ours.st_ino != there.st_ino)
		return -ENOENT;
	tree->lock_fd = fd_take(&fd);
	return 0;
}

/*
 * The directory of this id, locked. The one before us may have removed it, or its lock, between our
 * opening and locking it: then once more.
 */
static int open_id(struct tree *tree, const char *path, struct err *err)
{
	int rc;

	do {
		fd_close(&tree->id_fd);
		tree->id_fd =
			own_dir_open_at(tree->name_fd, tree->args->id, path, 0755, false, err);
		rc = tree->id_fd < 0 ? tree->id_fd : lock(tree, path, err);
		/* A file that root's VMM made setuid would be root's for whoever gets there. */
		if (rc == 0 && fchmod(tree->id_fd, tree->args->as_root ? 0700 : 0755) < 0)
			rc = err_sys(err, errno, "%s", path);
	} while (rc == -ENOENT);
	return rc;
}

int tree_open(struct tree *tree, const struct jailer_args *args, struct err *err)
{
	CLEANUP_FD int base_fd = -1, run_fd = -1;
	char base[PATH_MAX] = "";
	size_t used;
	int rc;

	*tree = (struct tree)TREE_NONE;
	tree->args = args;
	rc = resolve(args->chroot_base, base, err);
	if (rc < 0)
		return rc;
	base_fd = walk(base, err);
	if (base_fd < 0)
		return base_fd;
	used = (size_t)snprintf(tree->path, sizeof(tree->path), "%s/%s", base, args->exec_name);
	tree->name_fd = own_dir_open_at(base_fd, args->exec_name, tree->path, 0755, false, err);
	if (tree->name_fd < 0)
		return tree->name_fd;
	used += (size_t)snprintf(tree->path + used, sizeof(tree->path) - used, "/%s", args->id);
	rc = open_id(tree, tree->path, err);
	if (rc < 0)
		return rc;
	rc = take_over(tree->id_fd, "root", 0700, tree->path, &tree->root_fd, err);
	snprintf(tree->path + used, sizeof(tree->path) - used, "/root");
	if (rc == 0)
		rc = take_over(tree->root_fd, "run", 0700, tree->path, &run_fd, err);
	if (rc == 0 && fchown(run_fd, args->uid, args->gid) < 0)
		rc = err_sys(err, errno, "%s/run", tree->path);
	return rc;
}

static int remove_old(const struct tree *tree, const char *name, struct err *err)
{
	if (unlinkat(tree->root_fd, name, 0) < 0 && errno != ENOENT)
		return err_sys(err, errno, "%s/%s: left by an earlier jail", tree->path, name);
	return 0;
}

static int add_device(const struct tree *tree, int parent, const char *name, dev_t number,
		      struct err *err)
{
	/* Without root an empty file, over which the host's own device is mounted. */
	const mode_t type = tree->args->rootless ? S_IFREG : S_IFCHR;

	if ((unlinkat(parent, name, 0) < 0 && errno != ENOENT) ||
	    mknodat(parent, name, type | 0600, type == S_IFCHR ? number : 0) < 0 ||
	    fchownat(parent, name, tree->args->uid, tree->args->gid, AT_SYMLINK_NOFOLLOW) < 0)
		return err_sys(err, errno, "%s: device %s", tree->path, name);
	return 0;
}

/* The number of a device that is found by its name in /proc/misc. */
static int find_misc(const char *wanted, dev_t *number, struct err *err)
{
	FILE *file = fopen("/proc/misc", "re");
	unsigned int minor;
	char name[32];
	int rc = -ENOENT;

	while (file && rc < 0 && fscanf(file, "%u %31s", &minor, name) == 2) {
		if (strcmp(name, wanted) == 0) {
			*number = makedev(10, minor);
			rc = 0;
		}
	}
	if (file)
		fclose(file);
	return rc < 0 ? err_set(err, ENOENT, "/proc/misc: this kernel has no %s", wanted) : 0;
}

int tree_add_devices(const struct tree *tree, struct err *err)
{
	CLEANUP_FD int dev_fd = -1, net_fd = -1;
	dev_t uffd = 0;
	int rc = take_over(tree->root_fd, "dev", 0755, tree->path, &dev_fd, err);

	if (rc == 0)
		rc = add_device(tree, dev_fd, "kvm", KVM, err);
	if (rc == 0 && tree->args->tun)
		rc = take_over(dev_fd, "net", 0755, tree->path, &net_fd, err);
	if (rc == 0 && tree->args->tun)
		rc = add_device(tree, net_fd, "tun", TUN, err);
	if (rc == 0 && tree->args->uffd)
		rc = find_misc("userfaultfd", &uffd, err);
	if (rc == 0 && tree->args->uffd)
		rc = add_device(tree, dev_fd, "userfaultfd", uffd, err);
	return rc;
}

int tree_open_exec(const struct jailer_args *args, struct err *err)
{
	CLEANUP_FD int fd = open(args->exec_file, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	const char *fault = NULL;
	struct stat st;

	if (fd < 0)
		return err_sys(err, errno, "--exec-file %s", args->exec_file);
	if (fstat(fd, &st) < 0)
		return err_sys(err, errno, "--exec-file %s", args->exec_file);
	if (!S_ISREG(st.st_mode))
		fault = "not a file";
	else if (st.st_mode & (S_ISUID | S_ISGID))
		fault = "setuid or setgid";
	else if (!(st.st_mode & S_IXUSR))
		fault = "not executable";
	if (fault)
		return err_set(err, EINVAL, "--exec-file %s: %s", args->exec_file, fault);
	return fd_take(&fd);
}

/* Mode 0111: what a process cannot read it cannot be made to dump, nor be traced by its own user.
 */
int tree_copy_exec(const struct tree *tree, int exec_fd, struct err *err)
{
	CLEANUP_FD int fd = -1;
	ssize_t n;
	int rc = remove_old(tree, tree->args->exec_name, err);

	if (rc < 0)
		return rc;
	fd = openat(tree->root_fd, tree->args->exec_name,
		    O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0);
	if (fd < 0)
		return err_sys(err, errno, "%s/%s", tree->path, tree->args->exec_name);
	do {
		n = sendfile(fd, exec_fd, NULL, COPY_AT_ONCE);
	} while (n > 0 || (n < 0 && errno == EINTR));
	if (n < 0 || fchmod(fd, 0111) < 0)
		return err_sys(err, errno, "%s/%s", tree->path, tree->args->exec_name);
	return 0;
}

int tree_write_pid(const struct tree *tree, pid_t pid, struct err *err)
{
	CLEANUP_FD int fd = -1;
	char name[FILE_NAME_SIZE], text[16];
	int rc;

	snprintf(name, sizeof(name), "%s.pid", tree->args->exec_name);
	snprintf(text, sizeof(text), "%d", pid);
	rc = remove_old(tree, name, err);
	if (rc < 0)
		return rc;
	fd = openat(tree->root_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
		    0644);
	rc = fd < 0 ? -errno : fd_write_all(fd, text, strlen(text));
	return rc < 0 ? err_sys(err, -rc, "%s/%s", tree->path, name) : 0;
}

int tree_give(const struct tree *tree, struct err *err)
{
	if (fchown(tree->root_fd, tree->args->uid, tree->args->gid) < 0)
		return err_sys(err, errno, "%s", tree->path);
	return 0;
}

/* Nobody listens on them any more. Takes fd over. */
static void remove_sockets(int fd)
{
	DIR *dir = fdopendir(fd);
	struct dirent *entry;

	if (!dir) {
		fd_close(&fd);
		return;
	}
	while ((entry = readdir(dir)) != NULL) {
		if (entry->d_type == DT_SOCK)
			unlinkat(fd, entry->d_name, 0);
	}
	closedir(dir);
}

/* All that is in it, which nobody uses any more. Takes fd over. */
static void remove_contents(int fd, unsigned int depth)
{
	DIR *dir = fd < 0 || fchown(fd, geteuid(), getegid()) < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	if (!dir) {
		fd_close(&fd);
		return;
	}
	while ((entry = readdir(dir)) != NULL) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
		    unlinkat(fd, entry->d_name, 0) == 0 || errno != EISDIR)
			continue;
		if (depth < DEPTH_MAX)
			remove_contents(openat(fd, entry->d_name, OPEN_DIRECTORY), depth + 1);
		unlinkat(fd, entry->d_name, AT_REMOVEDIR);
	}
	closedir(dir);
}

static void remove_devices(const struct tree *tree)
{
	CLEANUP_FD int dev_fd = openat(tree->root_fd, "dev", OPEN_DIRECTORY);
	CLEANUP_FD int net_fd = openat(dev_fd, "net", OPEN_DIRECTORY);

	if (net_fd >= 0)
		unlinkat(net_fd, "tun", 0);
	if (dev_fd >= 0) {
		unlinkat(dev_fd, "net", AT_REMOVEDIR);
		unlinkat(dev_fd, "kvm", 0);
		unlinkat(dev_fd, "userfaultfd", 0);
	}
	unlinkat(tree->root_fd, "dev", AT_REMOVEDIR);
}

/* The VMM has gone, but its user may have other processes: they lose root/ first. */
static void remove_root(const struct tree *tree)
{
	char name[FILE_NAME_SIZE];

	if (fchown(tree->root_fd, geteuid(), getegid()) < 0)
		return;
	remove_sockets(openat(tree->root_fd, ".", OPEN_DIRECTORY));
	if (tree->args->read_only_root)
		remove_contents(openat(tree->root_fd, "run", OPEN_DIRECTORY), 0);
	else
		remove_sockets(openat(tree->root_fd, "run", OPEN_DIRECTORY));
	unlinkat(tree->root_fd, "run", AT_REMOVEDIR);
	remove_devices(tree);
	snprintf(name, sizeof(name), "%s.pid", tree->args->exec_name);
	unlinkat(tree->root_fd, name, 0);
	unlinkat(tree->root_fd, tree->args->exec_name, 0);
	/* Files that are not ours are in it: their owner finds them as they were. */
	if (unlinkat(tree->id_fd, "root", AT_REMOVEDIR) < 0)
		(void)tree_give(tree, NULL);
}

void tree_remove(const struct tree *tree)
{
	/* What is not locked by us is not ours to remove. */
	if (tree->lock_fd < 0)
		return;
	if (tree->root_fd >= 0)
		remove_root(tree);
	unlinkat(tree->id_fd, LOCK, 0);
	unlinkat(tree->name_fd, tree->args->id, AT_REMOVEDIR);
}

void tree_close(struct tree *tree)
{
	fd_close(&tree->root_fd);
	fd_close(&tree->lock_fd);
	fd_close(&tree->id_fd);
	fd_close(&tree->name_fd);
}
