/* SPDX-License-Identifier: Apache-2.0 */
#include "base/array.h"
#include "tree/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/err.h"
#include "tree/tar.h"

#define COPY_SIZE 65536
/* Each level of a tree holds a descriptor. */
#define DEPTH_MAX 500
/* Of a file that does not know its size: it is kept in memory. */
#define UNSIZED_MAX (64u << 20)

struct pack {
	struct tar_writer *writer;
	struct attributes attributes; /* of the file at hand */
	struct tree_counts *counts;
	struct err *err;
};

static int fail(struct pack *pack, const char *path)
{
	return err_sys(pack->err, errno, "%.300s", path);
}

/* Nobody reads the stream any more: that is the reader's to explain. */
static int stream_ended(struct pack *pack)
{
	return err_set(pack->err, EINVAL, "the reader of the tar stream has gone");
}

static bool fill_entry(struct tar_entry *entry, const struct stat *st)
{
	static const struct {
		mode_t kind;
		enum tar_type type;
	} types[] = {
		{ S_IFREG, TAR_FILE },
		{ S_IFDIR, TAR_DIRECTORY },
		{ S_IFLNK, TAR_SYMLINK },
		{ S_IFIFO, TAR_FIFO },
		{ S_IFCHR, TAR_CHARACTER_DEVICE },
		{ S_IFBLK, TAR_BLOCK_DEVICE },
	};

	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		if ((st->st_mode & S_IFMT) != types[i].kind)
			continue;
		entry->type = types[i].type;
		entry->mode = st->st_mode & 07777;
		entry->uid = st->st_uid;
		entry->gid = st->st_gid;
		entry->size = entry->type == TAR_FILE ? (uint64_t)st->st_size : 0;
		entry->mtime = st->st_mtim.tv_sec;
		entry->mtime_ns = (uint32_t)st->st_mtim.tv_nsec;
		entry->major = major(st->st_rdev);
		entry->minor = minor(st->st_rdev);
		return true;
	}
	return false;
}

static int put(struct pack *pack, struct tar_entry *entry)
{
	size_t length = strlen(entry->path);
	int rc;

	/* By convention a directory's name says that it is one. */
	if (entry->type == TAR_DIRECTORY && length + 1 < sizeof(entry->path))
		memcpy(entry->path + length, "/", sizeof("/"));
	rc = tar_put(pack->writer, entry) < 0 ? stream_ended(pack) : 0;
	entry->path[length] = '\0';
	pack->counts->files++;
	return rc;
}

/* Up to `size` bytes, fewer only at the file's end. */
static ssize_t read_full(int fd, char *data, size_t size)
{
	size_t have = 0;

	while (have < size) {
		ssize_t n = read(fd, data + have, size - have);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		if (n == 0)
			break;
		have += (size_t)n;
	}
	return (ssize_t)have;
}

static int put_data(struct pack *pack, const char *data, size_t size)
{
	pack->counts->bytes += size;
	return pack->writer->write(pack->writer->opaque, data, size) < 0 ? stream_ended(pack) : 0;
}

static int end_data(struct pack *pack, const struct tar_entry *entry)
{
	return tar_pad(pack->writer, entry->size) < 0 ? stream_ended(pack) : 0;
}

/*
 * A file that says that it is empty, or has a page, and is longer: it is read to its end before its
 * size goes into the stream. The first `have` of its bytes are in `begin`.
 */
static int pack_unsized(struct pack *pack, int fd, struct tar_entry *entry, const char *begin,
			size_t have)
{
	char *data = NULL;
	size_t room = have;
	ssize_t n = 0;
	int rc;

	do {
		char *more = room < UNSIZED_MAX ? realloc(data, room * 2) : NULL;

		if (!more) {
			errno = EFBIG;
			rc = fail(pack, entry->path);
			free(data);
			return rc;
		}
		if (!data)
			memcpy(more, begin, have);
		data = more;
		room *= 2;
		n = read_full(fd, data + have, room - have);
		have += n > 0 ? (size_t)n : 0;
	} while (have == room);
	entry->size = have;
	rc = n < 0 ? fail(pack, entry->path) : put(pack, entry);
	if (rc == 0)
		rc = put_data(pack, data, have);
	free(data);
	return rc < 0 ? rc : end_data(pack, entry);
}

/* A file and its entry; what could be read of its beginning at once is what it has. */
static int pack_file(struct pack *pack, int fd, struct tar_entry *entry, blksize_t page)
{
	static char data[COPY_SIZE];
	ssize_t n = read_full(fd, data, sizeof(data));
	uint64_t left;
	int rc;

	if (n < 0)
		return fail(pack, entry->path);
	if ((size_t)n == sizeof(data) && entry->size <= (uint64_t)page)
		return pack_unsized(pack, fd, entry, data, (size_t)n);
	if ((size_t)n < sizeof(data))
		entry->size = (uint64_t)n;
	rc = put(pack, entry);
	for (left = entry->size; rc == 0 && left > 0; left -= (uint64_t)n) {
		if (left != entry->size)
			n = read_full(fd, data, left < sizeof(data) ? (size_t)left : sizeof(data));
		else if ((uint64_t)n > left)
			n = (ssize_t)left;
		if (n < 0)
			return fail(pack, entry->path);
		if ((uint64_t)n < left && (size_t)n < sizeof(data))
			return err_set(pack->err, EINVAL,
				       "%.300s: it became shorter while it was read", entry->path);
		rc = put_data(pack, data, (size_t)n);
	}
	return rc < 0 ? rc : end_data(pack, entry);
}

static int pack_one(struct pack *pack, int parent, const char *name, struct tar_entry *entry,
		    int depth);

static int pack_children(struct pack *pack, int fd, struct tar_entry *entry, int depth)
{
	DIR *dir = fdopendir(fd);
	size_t length = strlen(entry->path);
	const struct dirent *child;
	size_t name_length;
	int rc = 0;

	if (!dir) {
		rc = fail(pack, entry->path);
		close(fd);
		return rc;
	}
	while (rc == 0 && (child = readdir(dir)) != NULL) {
		if (strcmp(child->d_name, ".") == 0 || strcmp(child->d_name, "..") == 0)
			continue;
		name_length = strlen(child->d_name);
		if (length + name_length + 2 > sizeof(entry->path) || depth >= DEPTH_MAX) {
			errno = ENAMETOOLONG;
			rc = fail(pack, entry->path);
			break;
		}
		entry->path[length] = '/';
		memcpy(entry->path + length + 1, child->d_name, name_length + 1);
		rc = pack_one(pack, dirfd(dir), child->d_name, entry, depth + 1);
		entry->path[length] = '\0';
	}
	closedir(dir);
	return rc;
}

/* The receiver decides which of them it takes. */
static int read_attributes(struct pack *pack, int fd, struct tar_entry *entry)
{
	int rc;

	attributes_clear(&pack->attributes);
	rc = attributes_read(fd, false, &pack->attributes);
	entry->attributes = &pack->attributes;
	return rc < 0 ? err_sys(pack->err, -rc, "%.300s: its extended attributes", entry->path) : 0;
}

/* Takes the descriptor of a file or directory over. What was opened counts, whatever it was before.
 */
static int pack_open(struct pack *pack, int fd, struct tar_entry *entry, int depth)
{
	struct stat st;
	int rc;

	if (fstat(fd, &st) < 0 || !fill_entry(entry, &st))
		rc = fail(pack, entry->path);
	else if ((rc = read_attributes(pack, fd, entry)) < 0)
		;
	else if (!S_ISDIR(st.st_mode))
		rc = pack_file(pack, fd, entry, st.st_blksize);
	else if ((rc = put(pack, entry)) == 0)
		return pack_children(pack, fd, entry, depth);
	close(fd);
	return rc;
}

/* What has no data: a symbolic link, `name` in `at` or that itself, or a node. */
static int pack_other(struct pack *pack, int at, const char *name, const struct stat *st,
		      struct tar_entry *entry)
{
	ssize_t n = 0;

	if (S_ISLNK(st->st_mode)) {
		n = readlinkat(at, name, entry->link, sizeof(entry->link) - 1);
		if (n < 0)
			return fail(pack, entry->path);
	}
	entry->link[n] = '\0';
	entry->attributes = NULL;
	return fill_entry(entry, st) ? put(pack, entry) : 0;
}

/* entry->path is its path in the stream; the rest is filled in. */
static int pack_one(struct pack *pack, int parent, const char *name, struct tar_entry *entry,
		    int depth)
{
	struct stat st;
	int fd;

	if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : fail(pack, entry->path);
	if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
		return pack_other(pack, parent, name, &st, entry);
	entry->link[0] = '\0';
	fd = openat(parent, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	return fd < 0 ? fail(pack, entry->path) : pack_open(pack, fd, entry, depth);
}

/* The last part of the path; of one that ends with dots, or is the root, that of the open file. */
static void name_of(const char *path, int fd, char name[NAME_MAX + 1])
{
	char real[PATH_MAX], link[32];
	size_t end = strlen(path), begin;
	ssize_t n;

	while (end > 0 && path[end - 1] == '/')
		end--;
	for (begin = end; begin > 0 && path[begin - 1] != '/'; begin--)
		;
	path += begin;
	if (end - begin == strspn(path, ".") && end - begin <= 2) {
		snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
		n = readlink(link, real, sizeof(real) - 1);
		real[n > 0 ? n : 0] = '\0';
		path = strrchr(real, '/');
		path = path && path[1] ? path + 1 : ".";
		begin = 0;
		end = strlen(path);
	}
	snprintf(name, NAME_MAX + 1, "%.*s", (int)(end - begin), path);
}

int tree_open(const char *path, bool follow, char name[NAME_MAX + 1], struct err *err)
{
	int found = open(path, O_PATH | O_CLOEXEC | (follow ? 0 : O_NOFOLLOW));
	char link[32];
	struct stat st;
	int fd;

	if (found < 0 || fstat(found, &st) < 0) {
		(void)err_sys(err, errno, "%.300s", path);
		if (found >= 0)
			close(found);
		return -1;
	}
	name_of(path, found, name);
	if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
		return found;
	/* The same once more, to be read; the path may lead elsewhere by now. */
	snprintf(link, sizeof(link), "/proc/self/fd/%d", found);
	fd = open(link, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		(void)err_sys(err, errno, "%.300s", path);
	close(found);
	return fd;
}

static int pack_top(struct pack *pack, int fd, const struct stat *st, struct tar_entry *entry)
{
	int own;

	if (!S_ISREG(st->st_mode) && !S_ISDIR(st->st_mode))
		return pack_other(pack, fd, "", st, entry);
	/* A directory may be read several times. */
	own = S_ISDIR(st->st_mode) ? openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
				   : fcntl(fd, F_DUPFD_CLOEXEC, 3);
	return own < 0 ? fail(pack, entry->path) : pack_open(pack, own, entry, 0);
}

int tree_pack(int fd, const char *name, struct tar_writer *writer, struct tree_counts *counts,
	      struct err *err)
{
	struct pack pack = { .writer = writer, .counts = counts, .err = err };
	struct tar_entry *entry = calloc(1, sizeof(*entry));
	struct stat st;
	int rc;

	err->text[0] = '\0';
	if (!entry || fstat(fd, &st) < 0) {
		rc = err_sys(err, errno, "%.300s", name);
	} else {
		snprintf(entry->path, sizeof(entry->path), "%s", name);
		rc = pack_top(&pack, fd, &st, entry);
	}
	if (rc == 0 && tar_finish(writer) < 0)
		rc = stream_ended(&pack);
	free(entry);
	attributes_free(&pack.attributes);
	return rc;
}
