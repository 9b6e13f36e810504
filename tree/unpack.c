/* SPDX-License-Identifier: Apache-2.0 */
#include "tree/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/err.h"
#include "tree/below.h"
#include "tree/tar.h"
#include "tree/unfinished.h"

#define COPY_SIZE 65536
#define HOLE_SIZE 4096

/* Where a stream goes, and how. */
struct unpack {
	int dir;
	struct unfinished *unfinished;
	unsigned int strip; /* parts of every path that are left out */
	struct tar_reader *reader;
	const struct tree_options *options;
	struct tree_counts *counts;
	struct err *err;
};

/* False if it was one too many. */
static bool count_file(const struct unpack *unpack)
{
	const uint64_t max = unpack->options->files_max;

	if (max > 0 && unpack->counts->files >= max) {
		err_set(unpack->err, EINVAL, "the tar stream has too many files");
		return false;
	}
	unpack->counts->files++;
	return true;
}

/* What root brings to somebody's directory is theirs, as is what it replaces; `st` is of either. */
static int adopt(const struct tree_options *options, int fd, const char *name,
		 const struct stat *st)
{
	return !options->plain || geteuid() != 0
		       ? 0
		       : fchownat(fd, name, st->st_uid, st->st_gid,
				  AT_SYMLINK_NOFOLLOW | (name[0] ? 0 : AT_EMPTY_PATH));
}

/* A directory that no entry of the stream is about. 0 or -1. */
static int make_between(const struct unpack *unpack, int above, const char *name)
{
	const struct tree_options *options = unpack->options;
	struct stat st;

	if (mkdirat(above, name, 0755) < 0)
		return errno == EEXIST ? 0 : -1;
	if (options->own && fchownat(above, name, options->uid, options->gid, AT_SYMLINK_NOFOLLOW))
		return -1;
	return fstat(above, &st) < 0 ? -1 : adopt(options, above, name, &st);
}

/*
 * The directory that `path` is to be in, made if need be; *base is the rest. A descriptor or -1
 * with err set.
 */
static int open_parent(const struct unpack *unpack, char *path, const char **base)
{
	char *slash = strrchr(path, '/');
	int parent;

	*base = slash ? slash + 1 : path;
	if (!slash) {
		parent = fcntl(unpack->dir, F_DUPFD_CLOEXEC, 3);
		return parent < 0 ? err_sys(unpack->err, errno, "%.300s", path) : parent;
	}
	*slash = '\0';
	parent = below_open(unpack->dir, path, O_PATH | O_DIRECTORY);
	if (parent < 0 && errno == ENOENT) {
		const char *name;
		int above = count_file(unpack) ? open_parent(unpack, path, &name) : -1;

		if (above < 0)
			return -1;
		if (make_between(unpack, above, name) == 0)
			parent = below_open(unpack->dir, path, O_PATH | O_DIRECTORY);
		close(above);
	}
	if (parent < 0)
		err_sys(unpack->err, errno, "%.300s", path);
	*slash = '/';
	return parent;
}

static int write_all(int fd, const char *data, size_t size)
{
	while (size > 0) {
		ssize_t n = write(fd, data, size);

		if (n < 0 && errno != EINTR)
			return -1;
		if (n > 0) {
			data += n;
			size -= (size_t)n;
		}
	}
	return 0;
}

/*
 * Owner before extended attributes and mode, as a change of the owner takes file capabilities and
 * setuid bits away. Attributes before the mode, which may be one of a file that nobody writes to.
 * 0 or -1 with err set.
 */
static int set_attributes(const struct unpack *unpack, int fd, const struct tar_entry *entry)
{
	const struct tree_options *options = unpack->options;
	const struct timespec times[2] = {
		{ .tv_nsec = UTIME_OMIT },
		{ .tv_sec = entry->mtime, .tv_nsec = entry->mtime_ns },
	};
	struct attribute failed;
	int rc;

	if (!options->plain && fchown(fd, options->own ? options->uid : entry->uid,
				      options->own ? options->gid : entry->gid) < 0)
		return err_sys(unpack->err, errno, "%.300s", entry->path);
	rc = attributes_write(fd, options->plain, entry->attributes, &failed);
	if (rc < 0)
		return err_sys(unpack->err, -rc, "%.300s: extended attribute %.100s", entry->path,
			       failed.name);
	if ((!options->plain && fchmod(fd, entry->mode) < 0) || futimens(fd, times) < 0)
		return err_sys(unpack->err, errno, "%.300s", entry->path);
	return 0;
}

/*
 * A plain file is made with its mode, of which the umask takes its part; but extended attributes
 * are set on what its owner may write to.
 */
static bool is_writable_for_now(const struct unpack *unpack, const struct tar_entry *entry)
{
	return unpack->options->plain && entry->attributes->size > 0 && !(entry->mode & S_IWUSR);
}

/*
 * Whose the file is to be: of `old`, which it replaces, or of the directory it comes to. 0 or -1
 * with err set.
 */
static int finish_file(const struct unpack *unpack, int parent, int fd, const struct stat *old,
		       const struct tar_entry *entry)
{
	struct stat st;

	if ((!old && fstat(parent, &st) < 0) || adopt(unpack->options, fd, "", old ? old : &st) < 0)
		return err_sys(unpack->err, errno, "%.300s", entry->path);
	if (set_attributes(unpack, fd, entry) < 0)
		return -1;
	if (is_writable_for_now(unpack, entry) &&
	    (fstat(fd, &st) < 0 || fchmod(fd, st.st_mode & (0777 ^ S_IWUSR)) < 0))
		return err_sys(unpack->err, errno, "%.300s", entry->path);
	return 0;
}

static bool is_zero(const char *data, size_t size)
{
	return data[0] == 0 && memcmp(data, data + 1, size - 1) == 0;
}

/* Whole pages of zeroes become holes: the stream does not tell those of a file that was sparse. */
static int write_sparse(int fd, const char *data, size_t size)
{
	for (size_t begin = 0, end; begin < size; begin = end) {
		const bool hole = size - begin >= HOLE_SIZE && is_zero(data + begin, HOLE_SIZE);

		end = begin;
		do
			end += size - end < HOLE_SIZE ? size - end : HOLE_SIZE;
		while (size - end >= HOLE_SIZE && is_zero(data + end, HOLE_SIZE) == hole);
		if (hole ? lseek(fd, (off_t)(end - begin), SEEK_CUR) < 0
			 : write_all(fd, data + begin, end - begin) < 0)
			return -1;
	}
	return 0;
}

/* The data of the entry. 0 or -1 with err set. */
static int write_file(const struct unpack *unpack, int fd, const struct tar_entry *entry)
{
	static char data[COPY_SIZE];
	size_t have = 0;
	ssize_t n;

	do {
		n = tar_data(unpack->reader, data + have, sizeof(data) - have, unpack->err);
		if (n < 0)
			return -1;
		have += (size_t)n;
		if (have < sizeof(data) && n > 0)
			continue;
		if (write_sparse(fd, data, have) < 0)
			return err_sys(unpack->err, errno, "%.300s", entry->path);
		unpack->counts->bytes += have;
		have = 0;
	} while (n > 0);
	/* A hole at the end is written by nothing else. */
	return ftruncate(fd, (off_t)entry->size) < 0
		       ? err_sys(unpack->err, errno, "%.300s", entry->path)
		       : 0;
}

/* Attributes that only the old one has make no difference. */
static bool is_the_same(const struct unpack *unpack, int parent, const char *name,
			const struct stat *old, const struct tar_entry *entry)
{
	bool same = S_ISREG(old->st_mode) && (uint64_t)old->st_size == entry->size &&
		    old->st_mtim.tv_sec == entry->mtime &&
		    old->st_mtim.tv_nsec == (long)entry->mtime_ns &&
		    (old->st_mode & 0777) == (entry->mode & 0777);
	int fd;

	if (!same || entry->attributes->size == 0)
		return same;
	fd = openat(parent, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	same = fd >= 0 && attributes_are_there(fd, unpack->options->plain, entry->attributes);
	if (fd >= 0)
		close(fd);
	return same;
}

/* Under another name until it is complete: one that is there stays, if the stream ends early. */
static int unpack_file(const struct unpack *unpack, int parent, const char *name,
		       const struct tar_entry *entry)
{
	const mode_t extra = is_writable_for_now(unpack, entry) ? S_IWUSR : 0;
	const mode_t mode = unpack->options->plain ? (entry->mode & 0777) | extra : 0600;
	struct err *err = unpack->err;
	struct stat old;
	bool replaces = fstatat(parent, name, &old, AT_SYMLINK_NOFOLLOW) == 0;
	char temporary[32];
	int fd, rc;

	if (replaces && unpack->options->update && is_the_same(unpack, parent, name, &old, entry))
		return 0;
	if (replaces && S_ISDIR(old.st_mode) && !unpack->options->update)
		return err_sys(err, EISDIR, "%.300s: what is there cannot be replaced",
			       entry->path);
	snprintf(temporary, sizeof(temporary), ".mote-%d", (int)getpid());
	fd = openat(parent, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
	if (fd < 0)
		return err_sys(err, errno, "%.300s", entry->path);
	rc = write_file(unpack, fd, entry);
	if (rc == 0)
		rc = finish_file(unpack, parent, fd, replaces ? &old : NULL, entry);
	if (rc == 0 && ((replaces && S_ISDIR(old.st_mode) && tree_remove(parent, name) < 0) ||
			renameat(parent, temporary, parent, name) < 0))
		rc = err_sys(err, errno, "%.300s", entry->path);
	close(fd);
	if (rc < 0)
		unlinkat(parent, temporary, 0);
	return rc;
}

static int link_below(int dir, unsigned int strip, const struct tar_entry *entry, int parent,
		      const char *name)
{
	char target[PATH_MAX], *slash;
	int fd, rc = -1;

	if (!below_clean(entry->link, strip, target) || !target[0]) {
		errno = EXDEV;
		return -1;
	}
	/* The last part is not followed: a link to a symbolic link is one to that itself. */
	slash = strrchr(target, '/');
	if (slash)
		*slash = '\0';
	fd = slash ? below_open(dir, target, O_PATH | O_DIRECTORY) : fcntl(dir, F_DUPFD_CLOEXEC, 3);
	if (fd >= 0) {
		rc = linkat(fd, slash ? slash + 1 : target, parent, name, 0);
		close(fd);
	}
	return rc;
}

/* Devices and fifos, which `plain` has none of. */
static int make_node(int parent, const char *name, const struct tar_entry *entry,
		     const struct tree_options *options)
{
	mode_t kind = entry->type == TAR_FIFO		? S_IFIFO
		      : entry->type == TAR_BLOCK_DEVICE ? S_IFBLK
							: S_IFCHR;

	if (mknodat(parent, name, kind | 0600, makedev(entry->major, entry->minor)) < 0 ||
	    fchownat(parent, name, options->own ? options->uid : entry->uid,
		     options->own ? options->gid : entry->gid, AT_SYMLINK_NOFOLLOW) < 0)
		return -1;
	return fchmodat(parent, name, entry->mode, AT_SYMLINK_NOFOLLOW);
}

static int make_symlink(int parent, const char *name, const struct tar_entry *entry,
			const struct tree_options *options)
{
	struct stat st;

	if (symlinkat(entry->link, parent, name) < 0 || fstat(parent, &st) < 0)
		return -1;
	return options->plain
		       ? adopt(options, parent, name, &st)
		       : fchownat(parent, name, options->own ? options->uid : entry->uid,
				  options->own ? options->gid : entry->gid, AT_SYMLINK_NOFOLLOW);
}

/* A plain one can be written to, as what is in it comes later, and stays as it is if it is there.
 */
static int make_directory(const struct unpack *unpack, int parent, const char *name,
			  const struct tar_entry *entry)
{
	const struct tree_options *options = unpack->options;
	const mode_t mode = options->plain ? (entry->mode & 0777) | 0700 : 0700;
	struct stat st;
	int fd, rc;

	if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		st.st_mode = 0;
	else if (!S_ISDIR(st.st_mode) && !options->update)
		return err_sys(unpack->err, ENOTDIR, "%.300s", entry->path);
	else if (!S_ISDIR(st.st_mode) && unlinkat(parent, name, 0) < 0)
		return err_sys(unpack->err, errno, "%.300s", entry->path);
	if (!S_ISDIR(st.st_mode) && (mkdirat(parent, name, mode) < 0 || fstat(parent, &st) < 0 ||
				     adopt(options, parent, name, &st) < 0))
		return err_sys(unpack->err, errno, "%.300s", entry->path);
	fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return err_sys(unpack->err, errno, "%.300s", entry->path);
	rc = set_attributes(unpack, fd, entry);
	close(fd);
	return rc;
}

static int unpack_entry(const struct unpack *unpack, int parent, const char *name,
			const struct tar_entry *entry)
{
	struct err *err = unpack->err;
	int rc = 0;

	if (unpack->options->plain && entry->type > TAR_SYMLINK && entry->type != TAR_DIRECTORY) {
		unpack->counts->left_out++;
		return 0;
	}
	if (entry->type != TAR_DIRECTORY && entry->type != TAR_FILE &&
	    (unpack->options->update ? tree_remove(parent, name) : unlinkat(parent, name, 0)) < 0 &&
	    errno != ENOENT)
		return err_sys(err, errno, "%.300s: what is there cannot be replaced", entry->path);
	switch (entry->type) {
	case TAR_FILE:
		return unpack_file(unpack, parent, name, entry);
	case TAR_DIRECTORY:
		return make_directory(unpack, parent, name, entry);
	case TAR_SYMLINK:
		rc = make_symlink(parent, name, entry, unpack->options);
		break;
	case TAR_HARD_LINK:
		if (link_below(unpack->dir, unpack->strip, entry, parent, name) < 0)
			return err_sys(err, errno, "%.200s: hard link to %.200s", entry->path,
				       entry->link);
		return 0;
	default:
		rc = make_node(parent, name, entry, unpack->options);
		break;
	}
	if (rc < 0)
		return err_sys(err, errno, "%.300s", entry->path);
	return 0;
}

static int unpack_one(const struct unpack *unpack, const struct tar_entry *entry)
{
	char path[PATH_MAX];
	const char *name;
	int parent, rc;

	if (!below_clean(entry->path, unpack->strip, path))
		return err_set(unpack->err, EINVAL, "%.300s: the path leads out of the destination",
			       entry->path);
	/* The destination itself is there. */
	if (!path[0])
		return 0;
	if (!count_file(unpack))
		return -1;
	unfinished_finish(unpack->unfinished, unpack->dir, path);
	parent = open_parent(unpack, path, &name);
	if (parent < 0)
		return -1;
	rc = unpack_entry(unpack, parent, name, entry);
	close(parent);
	if (rc == 0 && entry->type == TAR_DIRECTORY)
		unfinished_begin(unpack->unfinished, path, entry);
	return rc;
}

static int unpack_rest(struct unpack *unpack, struct tar_entry *entry)
{
	static struct unfinished unfinished;
	int rc;

	unfinished.depth = 0;
	unpack->unfinished = &unfinished;
	while ((rc = tar_next(unpack->reader, entry, unpack->err)) > 0) {
		if (unpack_one(unpack, entry) < 0)
			return -1;
	}
	unfinished_finish(&unfinished, unpack->dir, "");
	return rc;
}

int tree_unpack(int dir, struct tar_reader *reader, const struct tree_options *options,
		struct tree_counts *counts, struct err *err)
{
	static struct tar_entry entry;
	struct unpack unpack = {
		.dir = dir, .reader = reader, .options = options, .counts = counts, .err = err
	};

	return unpack_rest(&unpack, &entry);
}

/* Its contents go below it, and nowhere else. */
static int unpack_directory(struct unpack *unpack, const char *name, struct tar_entry *entry)
{
	const struct timespec mtime = { entry->mtime, entry->mtime_ns };
	int rc = -1;

	unpack->dir = openat(unpack->dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (unpack->dir < 0)
		return err_sys(unpack->err, errno, "%.300s", name);
	unpack->strip = 1;
	rc = unpack_rest(unpack, entry);
	unfinished_set_times(unpack->dir, mtime);
	close(unpack->dir);
	return rc;
}

int tree_unpack_as(int dir, const char *name, struct tar_reader *reader,
		   const struct tree_options *options, struct tree_counts *counts, struct err *err)
{
	static struct tar_entry entry;
	struct unpack unpack = {
		.dir = dir, .reader = reader, .options = options, .counts = counts, .err = err
	};
	int rc = tar_next(reader, &entry, err);

	if (rc <= 0)
		return rc < 0 ? -1 : err_set(err, EINVAL, "the tar stream is empty");
	if (entry.type == TAR_HARD_LINK)
		return err_set(err, EINVAL, "the tar stream begins with a hard link");
	/* The directory itself stays, whatever it was elsewhere. */
	if (strcmp(name, ".") == 0 && entry.type != TAR_DIRECTORY)
		return err_set(err, EINVAL, "%.300s: it is not a directory any more", entry.path);
	counts->files++;
	if (unpack_entry(&unpack, dir, name, &entry) < 0)
		return -1;
	if (counts->left_out > 0)
		return err_set(err, EINVAL, "%.300s: a device or fifo is not taken", entry.path);
	if (entry.type == TAR_DIRECTORY)
		return unpack_directory(&unpack, name, &entry);
	rc = tar_next(reader, &entry, err);
	return rc > 0 ? err_set(err, EINVAL, "the tar stream has more than one file") : rc;
}
