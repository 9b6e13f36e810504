/* SPDX-License-Identifier: Apache-2.0 */
#include "base/own_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"

#define OPEN_DIRECTORY (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
#define LINKS_MAX 40 /* as many as the kernel follows */

static int check_owner(const struct stat *st, const char *path, struct err *err)
{
	if (st->st_uid != 0 && st->st_uid != geteuid())
		return err_set(err, EPERM, "%s: belongs to another user (%u)", path, st->st_uid);
	return 0;
}

int own_dir_check(int fd, const char *path, bool sticky_will_do, struct err *err)
{
	struct stat st;
	mode_t others = S_IWGRP | S_IWOTH;
	int rc;

	if (fstat(fd, &st) < 0)
		return err_sys(err, errno, "%s", path);
	rc = check_owner(&st, path, err);
	if (rc < 0)
		return rc;
	/* An ordinary user's own group is often that user's alone. */
	if (geteuid() != 0 && st.st_uid == geteuid() && st.st_gid == getegid())
		others = S_IWOTH;
	if (st.st_mode & others && !(sticky_will_do && st.st_mode & S_ISVTX))
		return err_set(err, EPERM, "%s: others can write to it", path);
	return 0;
}

int own_dir_open_at(int parent, const char *name, const char *path, mode_t mode,
		    bool sticky_will_do, struct err *err)
{
	CLEANUP_FD int fd = -1;
	int rc;

	if (mode != 0 && mkdirat(parent, name, mode) < 0 && errno != EEXIST)
		return err_sys(err, errno, "%s", path);
	fd = openat(parent, name, OPEN_DIRECTORY);
	if (fd < 0 && (errno == ELOOP || errno == ENOTDIR))
		return err_set(err, ENOTDIR, "%s: not a directory", path);
	if (fd < 0)
		return err_sys(err, errno, "%s", path);
	rc = own_dir_check(fd, path, sticky_will_do, err);
	return rc < 0 ? rc : fd_take(&fd);
}

/* A path that is walked along. */
struct walk {
	const char *path; /* as it was given, for sentences */
	mode_t mode;
	unsigned int links;
	char rest[2 * PATH_MAX]; /* what is to be walked */
};

/* 1 if `name` is a symbolic link, which is in walk->rest now; 0 if it is not; -errno with err set.
 */
static int follow(struct walk *walk, int parent, const char *name, const char *rest,
		  struct err *err)
{
	char target[2 * PATH_MAX];
	struct stat st;
	ssize_t n;
	int rc;

	if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISLNK(st.st_mode))
		return 0;
	rc = check_owner(&st, walk->path, err);
	if (rc < 0)
		return rc;
	n = readlinkat(parent, name, target, PATH_MAX);
	if (n < 0)
		return err_sys(err, errno, "%s", walk->path);
	if (++walk->links > LINKS_MAX || (size_t)n + strlen(rest) + 2 > sizeof(walk->rest))
		return err_sys(err, ELOOP, "%s", walk->path);
	snprintf(target + n, sizeof(target) - (size_t)n, "/%s", rest);
	memcpy(walk->rest, target, strlen(target) + 1);
	return 1;
}

/* One step from *fd on; walk->rest is not empty. */
static int step(struct walk *walk, int *fd, struct err *err)
{
	char name[NAME_MAX + 1];
	const size_t length = strcspn(walk->rest, "/");
	const char *rest = walk->rest + length;
	int next, rc;

	if (length > NAME_MAX)
		return err_sys(err, ENAMETOOLONG, "%s", walk->path);
	memcpy(name, walk->rest, length);
	name[length] = '\0';
	rest += strspn(rest, "/");
	rc = follow(walk, *fd, name, rest, err);
	if (rc < 0)
		return rc;
	if (rc == 0) {
		next = own_dir_open_at(*fd, name, walk->path,
				       walk->mode && *rest ? 0755 : walk->mode, *rest != '\0', err);
		if (next < 0)
			return next;
		memmove(walk->rest, rest, strlen(rest) + 1);
	} else if (walk->rest[0] == '/') {
		next = open("/", OPEN_DIRECTORY);
	} else {
		return 0;
	}
	fd_close(fd);
	*fd = next;
	return next < 0 ? err_sys(err, errno, "/") : 0;
}

int own_dir_open(const char *path, mode_t mode, struct err *err)
{
	struct walk walk = { .path = path, .mode = mode };
	CLEANUP_FD int fd = open("/", OPEN_DIRECTORY);

	if (fd < 0)
		return err_sys(err, errno, "/");
	if (path[0] != '/' || strlen(path) >= PATH_MAX)
		return err_set(err, EINVAL, "%s: an absolute path is expected", path);
	memcpy(walk.rest, path, strlen(path) + 1);
	for (;;) {
		const size_t slashes = strspn(walk.rest, "/");
		int rc;

		memmove(walk.rest, walk.rest + slashes, strlen(walk.rest + slashes) + 1);
		if (!walk.rest[0])
			return fd_take(&fd);
		rc = step(&walk, &fd, err);
		if (rc < 0)
			return rc;
	}
}
