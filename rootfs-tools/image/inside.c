/* SPDX-License-Identifier: Apache-2.0 */
#include "rootfs-tools/image/inside.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"

#define LINKS_MAX 40 /* as Linux has it */

/* The slot that has it, or the one for it. The size is a power of two, and there are free ones. */
static uint64_t *slot_of(const struct inode_set *set, uint64_t inode)
{
	size_t at = inode & (set->size - 1);

	while (set->slots[at] && set->slots[at] != inode)
		at = (at + 1) & (set->size - 1);
	return &set->slots[at];
}

static int grow(struct inode_set *set)
{
	struct inode_set more = { .size = set->size ? 2 * set->size : 1024, .used = set->used };

	more.slots = calloc(more.size, sizeof(*more.slots));
	if (!more.slots)
		return -ENOMEM;
	for (size_t i = 0; i < set->size; i++) {
		if (set->slots[i])
			*slot_of(&more, set->slots[i]) = set->slots[i];
	}
	free(set->slots);
	*set = more;
	return 0;
}

int inode_set_add(struct inode_set *set, uint64_t inode)
{
	uint64_t *slot;

	if (2 * set->used >= set->size && grow(set) < 0)
		return -ENOMEM;
	slot = slot_of(set, inode);
	set->used += *slot != inode;
	*slot = inode;
	return 0;
}

bool inode_set_has(const struct inode_set *set, uint64_t inode)
{
	return set->size > 0 && *slot_of(set, inode) == inode;
}

void inode_set_free(struct inode_set *set)
{
	free(set->slots);
	memset(set, 0, sizeof(*set));
}

int inside_clean(const char *name, char clean[PATH_MAX])
{
	size_t used = 0;

	for (;;) {
		size_t len;

		name += strspn(name, "/");
		len = strcspn(name, "/");
		if (len == 0)
			break;
		if (len == 2 && name[0] == '.' && name[1] == '.')
			return -EPERM;
		if (len > NAME_MAX || used + len + 2 > PATH_MAX)
			return -ENAMETOOLONG;
		if (len != 1 || name[0] != '.') {
			if (used > 0)
				clean[used++] = '/';
			memcpy(clean + used, name, len);
			used += len;
		}
		name += len;
	}
	clean[used] = '\0';
	return 0;
}

const char *inside_base(const char *clean)
{
	const char *slash = strrchr(clean, '/');

	return slash ? slash + 1 : clean;
}

int inside_open(int root, const char *path)
{
	const struct open_how how = {
		.flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
		.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
	};
	int fd = (int)syscall(SYS_openat2, root, *path ? path : ".", &how, sizeof(how));

	return fd < 0 ? -errno : fd;
}

int inside_set_time(int fd, struct timespec time)
{
	const struct timespec times[] = { time, time };
	char self[32];

	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	return utimensat(AT_FDCWD, self, times, 0) < 0 ? -errno : 0;
}

static int make_path(int root, const char *path, int links);

/* To where a link that leads nowhere leads; `before` is the path of its directory. */
static int make_target(int root, int dir, const char *before, const char *base, int links)
{
	char target[PATH_MAX], path[2 * PATH_MAX];
	ssize_t n = readlinkat(dir, base, target, sizeof(target) - 1);

	if (n < 0)
		return -errno;
	target[n] = '\0';
	if (target[0] == '/')
		before = "";
	snprintf(path, sizeof(path), "%s/%s", before, target);
	if (strlen(path) >= PATH_MAX)
		return -ENAMETOOLONG;
	return links >= LINKS_MAX ? -ELOOP : make_path(root, path, links + 1);
}

static int replace(int dir, const char *base)
{
	static const struct timespec zero[2];
	struct stat before;
	int fd, rc;

	if (fstat(dir, &before) < 0 || (unlinkat(dir, base, 0) < 0 && errno != ENOENT) ||
	    mkdirat(dir, base, 0755) < 0 || utimensat(dir, base, zero, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	rc = inside_set_time(dir, before.st_mtim);
	fd = rc < 0 ? rc : openat(dir, base, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return rc == 0 && fd < 0 ? -errno : fd;
}

/* The directory `base` of the directory whose path is `before`. */
static int make_one(int root, int dir, const char *before, const char *base, int error, int links)
{
	struct stat st;

	if (error == -ENOENT && fstatat(dir, base, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	    S_ISLNK(st.st_mode))
		return make_target(root, dir, before, base, links);
	return replace(dir, base);
}

/* Targets of links have "..", too. */
static int make_path(int root, const char *path, int links)
{
	CLEANUP_FD int dir = inside_open(root, "");
	char before[PATH_MAX], base[NAME_MAX + 1];
	const char *at = path;

	for (; dir >= 0; at += strcspn(at, "/")) {
		size_t len;
		int next;

		at += strspn(at, "/");
		len = strcspn(at, "/");
		if (len == 0)
			break;
		if (len > NAME_MAX)
			return -ENAMETOOLONG;
		snprintf(before, sizeof(before), "%.*s", (int)(at - path), path);
		snprintf(base, sizeof(base), "%.*s", (int)len, at);
		next = strcmp(base, "..") == 0
			       ? -1
			       : openat(dir, base, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (next < 0) {
			char here[PATH_MAX];

			snprintf(here, sizeof(here), "%.*s", (int)(at + len - path), path);
			next = inside_open(root, here);
		}
		if (next == -ENOENT || next == -ENOTDIR)
			next = make_one(root, dir, before, base, next, links);
		close(dir);
		dir = next;
	}
	return dir < 0 ? dir : fd_take(&dir);
}

int inside_make(int root, const char *path)
{
	int fd = inside_open(root, path);

	return fd == -ENOENT || fd == -ENOTDIR ? make_path(root, path, 0) : fd;
}

static int remove_one(const FTSENT *file, const struct inode_set *keep)
{
	bool is_dir = file->fts_info == FTS_DP;

	if (file->fts_info == FTS_ERR || file->fts_info == FTS_DNR || file->fts_info == FTS_NS)
		return -file->fts_errno;
	if (file->fts_info == FTS_D || strcmp(file->fts_accpath, ".") == 0 ||
	    (keep && inode_set_has(keep, file->fts_statp->st_ino)))
		return 0;
	if (unlinkat(AT_FDCWD, file->fts_accpath, is_dir ? AT_REMOVEDIR : 0) < 0 &&
	    !(keep && errno == ENOTEMPTY))
		return -errno;
	return 0;
}

int inside_remove(int dir, const char *base, const struct inode_set *keep)
{
	char name[NAME_MAX + 1];
	char *names[] = { name, NULL };
	FTSENT *file;
	int rc = 0;
	FTS *fts;

	snprintf(name, sizeof(name), "%s", base);
	if (fchdir(dir) < 0)
		return -errno;
	fts = fts_open(names, FTS_PHYSICAL, NULL);
	if (!fts)
		return -errno;
	while (rc == 0 && (errno = 0, file = fts_read(fts)) != NULL)
		rc = remove_one(file, keep);
	if (rc == 0)
		rc = -errno;
	fts_close(fts);
	return rc;
}
