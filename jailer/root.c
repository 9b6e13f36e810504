/* SPDX-License-Identifier: Apache-2.0 */
#include "jailer/root.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/array.h"
#include "base/err.h"
#include "base/fd.h"
#include "jailer/args.h"
#include "jailer/tree.h"

/* sys/mount.h and linux/mount.h do not go together in Debian 12. */
extern int mount(const char *source, const char *target, const char *type, unsigned long flags,
		 const void *data);
extern int umount2(const char *target, int flags);
#define UMOUNT_DETACH 2

/*
 * A copy of the mount under an open file or directory, with those that its owner has put below it,
 * attached nowhere yet; -errno.
 */
static int clone_mount(int fd, uint64_t set, uint64_t clear, uint64_t propagation)
{
	const struct mount_attr attr = {
		.attr_set = set | MOUNT_ATTR_NOSUID,
		.attr_clr = clear,
		.propagation = propagation,
	};
	const unsigned int whole = AT_EMPTY_PATH | AT_RECURSIVE;
	CLEANUP_FD int mount_fd =
		(int)syscall(SYS_open_tree, fd, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | whole);

	if (mount_fd < 0 ||
	    syscall(SYS_mount_setattr, mount_fd, "", whole, &attr, sizeof(attr)) < 0)
		return -errno;
	return fd_take(&mount_fd);
}

/* Over the file or directory of this name in the working directory. */
static int attach(int mount_fd, const char *name)
{
	CLEANUP_FD int target = open(name, O_PATH | O_NOFOLLOW | O_CLOEXEC);

	if (target < 0 || syscall(SYS_move_mount, mount_fd, "", target, "",
				  MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
		return -errno;
	return 0;
}

/* Mounts what is there onto itself, with other attributes. */
static int mount_again(const char *name, uint64_t set, uint64_t clear, struct err *err)
{
	CLEANUP_FD int fd = open(name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	CLEANUP_FD int mount_fd = fd < 0 ? -errno : clone_mount(fd, set, clear, MS_PRIVATE);
	int rc = mount_fd < 0 ? mount_fd : attach(mount_fd, name);

	return rc < 0 ? err_sys(err, -rc, "the jail's /%s: mount", name) : 0;
}

/* The tree's root/ once more, as this mount namespace has it. */
static int open_again(const struct tree *tree, struct err *err)
{
	CLEANUP_FD int fd = open(tree->path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct stat here, there;

	if (fd < 0 || fstat(fd, &here) < 0 || fstat(tree->root_fd, &there) < 0)
		return err_sys(err, errno, "%s", tree->path);
	if (here.st_dev != there.st_dev || here.st_ino != there.st_ino)
		return err_set(err, ESTALE, "%s: another directory than a moment ago", tree->path);
	return fd_take(&fd);
}

static int pivot(const struct tree *tree, struct err *err)
{
	/*
	 * The owner may bring drives into a root that is not read-only, as files, as device nodes
	 * or by mounts, at any time. The VMM itself can make neither of the last two.
	 */
	const bool read_only = tree->args->read_only_root;
	const uint64_t attributes =
		MOUNT_ATTR_NOEXEC | (read_only ? MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV : 0);
	CLEANUP_FD int fd = open_again(tree, err);
	CLEANUP_FD int mount_fd = -1;

	if (fd < 0)
		return fd;
	mount_fd = clone_mount(fd, attributes, 0, read_only ? MS_PRIVATE : MS_SLAVE);
	/* On top of the old root, which needs no path to be looked up. */
	if (mount_fd < 0 ||
	    syscall(SYS_move_mount, mount_fd, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) < 0 ||
	    fchdir(mount_fd) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 ||
	    umount2(".", UMOUNT_DETACH) < 0 || chdir("/") < 0)
		return err_sys(err, mount_fd < 0 ? -mount_fd : errno, "%s: cannot become a root",
			       tree->path);
	return 0;
}

/* The host's devices, which a user namespace cannot make itself. */
static const char *const devices[] = { "/dev/kvm", "/dev/net/tun", "/dev/userfaultfd" };
#define DEVICES (ARRAY_SIZE(devices))

static int clone_devices(const struct jailer_args *args, int mounts[DEVICES], struct err *err)
{
	const bool wanted[DEVICES] = { true, args->tun, args->uffd };

	for (size_t i = 0; i < DEVICES; i++) {
		CLEANUP_FD int fd = -1;

		if (!args->rootless || !wanted[i])
			continue;
		fd = open(devices[i], O_PATH | O_NOFOLLOW | O_CLOEXEC);
		mounts[i] = fd < 0 ? -errno : clone_mount(fd, MOUNT_ATTR_NOEXEC, 0, MS_PRIVATE);
		if (mounts[i] < 0)
			return err_sys(err, -mounts[i], "%s for the jail", devices[i]);
	}
	return 0;
}

static int attach_devices(const int mounts[DEVICES], struct err *err)
{
	for (size_t i = 0; i < DEVICES; i++) {
		int rc = mounts[i] < 0 ? 0 : attach(mounts[i], devices[i]);

		if (rc < 0)
			return err_sys(err, -rc, "the jail's %s: mount", devices[i]);
	}
	return 0;
}

static int make_root(const struct tree *tree, struct err *err)
{
	const bool read_only = tree->args->read_only_root;
	int rc = pivot(tree, err);

	if (rc == 0 && read_only)
		rc = mount_again("run", MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, MOUNT_ATTR_RDONLY,
				 err);
	if (rc == 0)
		rc = mount_again("dev", MOUNT_ATTR_NOEXEC | MOUNT_ATTR_RDONLY, MOUNT_ATTR_NODEV,
				 err);
	if (rc == 0)
		rc = mount_again(tree->args->exec_name, MOUNT_ATTR_NODEV | MOUNT_ATTR_RDONLY,
				 MOUNT_ATTR_NOEXEC, err);
	return rc;
}

int root_enter(const struct tree *tree, struct err *err)
{
	int mounts[DEVICES] = { -1, -1, -1 };
	int rc;

	/* Nothing that is mounted or detached from here on is seen by the host. */
	if (mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL) < 0)
		return err_sys(err, errno, "the jail's mounts cannot be made its own");
	rc = clone_devices(tree->args, mounts, err);
	if (rc == 0)
		rc = make_root(tree, err);
	if (rc == 0)
		rc = attach_devices(mounts, err);
	for (size_t i = 0; i < DEVICES; i++)
		fd_close(&mounts[i]);
	return rc;
}
