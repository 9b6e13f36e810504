/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "tree/tree.h"

/* Each level of a tree holds a descriptor. */
#define DEPTH_MAX 500

static int remove_one(int parent, const char *name, int depth);

static int remove_children(int fd, int depth)
{
	DIR *dir = fdopendir(fd);
	const struct dirent *child;
	int rc = 0;

	if (!dir) {
		close(fd);
		return -1;
	}
	while (rc == 0 && (child = readdir(dir)) != NULL) {
		if (strcmp(child->d_name, ".") != 0 && strcmp(child->d_name, "..") != 0)
			rc = remove_one(dirfd(dir), child->d_name, depth + 1);
	}
	closedir(dir);
	return rc;
}

static int remove_one(int parent, const char *name, int depth)
{
	int fd;

	/* Linux says EISDIR of a directory, POSIX EPERM. */
	if (unlinkat(parent, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return -1;
	if (depth >= DEPTH_MAX) {
		errno = ENAMETOOLONG;
		return -1;
	}
	fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || remove_children(fd, depth) < 0)
		return -1;
	return unlinkat(parent, name, AT_REMOVEDIR);
}

int tree_remove(int dir, const char *name)
{
	/* These could not be removed themselves, but all that is below them. */
	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
		errno = EINVAL;
		return -1;
	}
	return remove_one(dir, name, 0);
}
