/* SPDX-License-Identifier: Apache-2.0 */
#include "rootfs-tools/image/layer.h"

#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "rootfs-tools/image/inside.h"

#define FLAGS                                                                                      \
	(ARCHIVE_EXTRACT_OWNER | ARCHIVE_EXTRACT_PERM | ARCHIVE_EXTRACT_TIME |                     \
	 ARCHIVE_EXTRACT_ACL | ARCHIVE_EXTRACT_XATTR)
#define WHITEOUT ".wh."
#define OPAQUE ".wh..wh..opq"
#define WAITING_MAX (64 << 20) /* bytes of names */
#define TURNS_MAX 40	       /* of links that wait for one another */

/* A hard link to a file that has not come yet. */
struct waiting {
	struct waiting *next;
	char *name, *target;
};

struct unpacking {
	struct archive *in;
	struct layer_target *target;
	/* The directory that the last entry was put in, and the time that it keeps. */
	char parent[PATH_MAX];
	int parent_fd;
	struct timespec parent_time;
	/* What this layer has brought, which its own whiteouts are not about. */
	struct inode_set brought;
	struct waiting *first, **last;
	size_t waiting_bytes;
};

struct archive *layer_reader(bool raw)
{
	struct archive *in = archive_read_new();

	if (!in)
		return NULL;
	archive_read_support_filter_gzip(in);
	archive_read_support_filter_bzip2(in);
	archive_read_support_filter_xz(in);
	archive_read_support_filter_zstd(in);
	if (raw)
		archive_read_support_format_raw(in);
	else
		archive_read_support_format_tar(in);
	return in;
}

int layer_error(struct archive *archive, const char *object, struct err *err)
{
	const char *cause = archive_error_string(archive);
	int errnum = archive_errno(archive);

	/* What there is no room for has to be told by its errno. */
	if (errnum == EFBIG || errnum == ENOSPC)
		cause = strerror(errnum);
	return err_set(err, errnum > 0 ? errnum : EINVAL, "%s%s%s", object, *object ? ": " : "",
		       cause ? cause : "not readable");
}

/* Whoever unpacks, a directory is as old as it was before files were put in it. */
static void leave_parent(struct unpacking *u)
{
	if (u->parent_fd >= 0)
		(void)inside_set_time(u->parent_fd, u->parent_time);
	fd_close(&u->parent_fd);
}

/* The directory at the path, made if it may be. */
static int enter_parent(struct unpacking *u, const char *path, size_t length, bool make)
{
	struct stat st;
	int fd;

	if (u->parent_fd >= 0 && strlen(u->parent) == length &&
	    memcmp(u->parent, path, length) == 0)
		return 0;
	leave_parent(u);
	snprintf(u->parent, sizeof(u->parent), "%.*s", (int)length, path);
	fd = make ? inside_make(u->target->root, u->parent)
		  : inside_open(u->target->root, u->parent);
	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0) {
		close(fd);
		return -errno;
	}
	u->parent_fd = fd;
	u->parent_time = st.st_mtim;
	return 0;
}

static size_t parent_length(const char *clean)
{
	const char *slash = strrchr(clean, '/');

	return slash ? (size_t)(slash - clean) : 0;
}

static bool is_mapped(int64_t id, const char *map)
{
	FILE *file = fopen(map, "re");
	long long first, outside, count;
	bool found = false;

	while (file && fscanf(file, "%lld %lld %lld", &first, &outside, &count) == 3)
		found = found || (id >= first && id < first + count);
	if (file)
		fclose(file);
	return found;
}

static int write_error(struct archive *in, struct archive_entry *entry, const char *name,
		       struct err *err)
{
	int64_t uid = archive_entry_uid(entry), gid = archive_entry_gid(entry);

	if (archive_errno(in) == EINVAL &&
	    (!is_mapped(uid, "/proc/self/uid_map") || !is_mapped(gid, "/proc/self/gid_map")))
		return err_set(err, EINVAL,
			       "%s: its owner %lld:%lld is not among the ids that /etc/subuid and "
			       "/etc/subgid give",
			       name, (long long)uid, (long long)gid);
	return layer_error(in, name, err);
}

bool layer_keeps_attribute(const char *name)
{
	return strncmp(name, "user.", 5) == 0 || strncmp(name, "system.posix_acl_", 17) == 0 ||
	       strcmp(name, "security.capability") == 0;
}

/* Attributes that only the kernel of the machine that made them goes by. */
static int drop_attributes(struct archive_entry *entry)
{
	struct archive_entry *copy;
	const char *name;
	const void *value;
	size_t size;

	copy = archive_entry_xattr_count(entry) > 0 ? archive_entry_clone(entry) : NULL;
	if (!copy)
		return archive_entry_xattr_count(entry) > 0 ? -ENOMEM : 0;
	archive_entry_xattr_clear(entry);
	archive_entry_xattr_reset(copy);
	while (archive_entry_xattr_next(copy, &name, &value, &size) == ARCHIVE_OK) {
		if (name && layer_keeps_attribute(name))
			archive_entry_xattr_add_entry(entry, name, value, size);
	}
	archive_entry_free(copy);
	return 0;
}

/* libarchive 3.6 reads -1.5 as -1 and half a second. */
static void correct_time(struct archive_entry *entry)
{
	time_t seconds = archive_entry_mtime(entry);
	long ns = archive_entry_mtime_nsec(entry);

	if (seconds < 0 && ns > 0)
		archive_entry_set_mtime(entry, seconds - 1, 1000000000 - ns);
}

/* The entry as `base` of the working directory, by libarchive. */
static int write_entry(struct unpacking *u, struct archive_entry *entry, const char *base,
		       const char *name, struct err *err)
{
	struct archive *out = archive_write_disk_new();
	char own[NAME_MAX + 1];
	int rc;

	if (!out || drop_attributes(entry) < 0) {
		archive_write_free(out);
		return err_sys(err, ENOMEM, "%s", name);
	}
	snprintf(own, sizeof(own), "%s", base);
	archive_entry_copy_pathname(entry, own);
	correct_time(entry);
	archive_write_disk_set_options(out, FLAGS);
	rc = archive_read_extract2(u->in, entry, out);
	if (rc != ARCHIVE_OK && archive_errno(u->in) == EPERM &&
	    (archive_entry_filetype(entry) == AE_IFCHR ||
	     archive_entry_filetype(entry) == AE_IFBLK)) {
		u->target->left_out++;
		rc = 0;
	} else if (rc != ARCHIVE_OK) {
		rc = write_error(u->in, entry, name, err);
	} else if (archive_write_close(out) != ARCHIVE_OK) {
		rc = layer_error(out, name, err);
	}
	archive_write_free(out);
	return rc;
}

static int note_brought(struct unpacking *u, const char *base)
{
	struct stat st;

	if (!u->target->has_lower || fstatat(u->parent_fd, base, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	return inode_set_add(&u->brought, st.st_ino);
}

/* Makes place for an entry. 1 if a directory may stay, for it is one. */
static int make_place(struct unpacking *u, const char *base, bool is_dir)
{
	struct stat st;

	if (fstatat(u->parent_fd, base, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (S_ISDIR(st.st_mode) && is_dir)
		return 1;
	return inside_remove(u->parent_fd, base, NULL);
}

/* -ENOENT if there is no such file (yet); err is set but then. */
static int make_link(struct unpacking *u, const char *name, const char *to, struct err *err)
{
	CLEANUP_FD int dir = -1;
	char before[PATH_MAX];
	struct stat old, new;
	int rc;

	snprintf(before, sizeof(before), "%.*s", (int)parent_length(to), to);
	dir = inside_open(u->target->root, before);
	if (dir < 0)
		return dir == -ENOENT || dir == -ENOTDIR ? -ENOENT : err_sys(err, -dir, "%s", to);
	if (fstatat(dir, *to ? inside_base(to) : ".", &old, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? -ENOENT : err_sys(err, errno, "%s", to);
	if (S_ISDIR(old.st_mode))
		return err_set(err, EISDIR, "%s: a hard link to the directory %s", name, to);
	rc = enter_parent(u, name, parent_length(name), true);
	if (rc < 0)
		return err_sys(err, -rc, "%s", name);
	if (fstatat(u->parent_fd, inside_base(name), &new, AT_SYMLINK_NOFOLLOW) == 0 &&
	    new.st_ino == old.st_ino &&new.st_dev == old.st_dev)
		return 0;
	rc = make_place(u, inside_base(name), false);
	if (rc == 0 && linkat(dir, inside_base(to), u->parent_fd, inside_base(name), 0) < 0)
		rc = -errno;
	/* It was below what has made place. */
	return rc < 0 ? err_sys(err, -rc, "%s: a hard link to %s", name, to) : 0;
}

static int wait_for(struct unpacking *u, const char *name, const char *to, struct err *err)
{
	struct waiting *waiting = calloc(1, sizeof(*waiting));

	u->waiting_bytes += sizeof(*waiting) + strlen(name) + strlen(to) + 2;
	if (waiting) {
		*u->last = waiting;
		u->last = &waiting->next;
		waiting->name = strdup(name);
		waiting->target = strdup(to);
	}
	if (!waiting || !waiting->name || !waiting->target || u->waiting_bytes > WAITING_MAX)
		return err_set(err, ENOMEM, "%s: too many hard links to files that are not there",
			       name);
	return 0;
}

/* Those that wait for one another take several turns. */
static int make_waiting(struct unpacking *u, struct err *err)
{
	bool goes_on = true;

	for (int turn = 0; u->first && goes_on && turn < TURNS_MAX; turn++) {
		struct waiting **at = &u->first;

		goes_on = false;
		while (*at) {
			struct waiting *waiting = *at;
			int rc = make_link(u, waiting->name, waiting->target, err);

			if (rc < 0 && rc != -ENOENT)
				return rc;
			if (rc == -ENOENT) {
				at = &waiting->next;
				continue;
			}
			goes_on = true;
			*at = waiting->next;
			free(waiting->name);
			free(waiting->target);
			free(waiting);
		}
	}
	if (u->first)
		return err_set(err, ENOENT, "%s: a hard link to %s, which is not there",
			       u->first->name, u->first->target);
	return 0;
}

static void free_waiting(struct unpacking *u)
{
	while (u->first) {
		struct waiting *waiting = u->first;

		u->first = waiting->next;
		free(waiting->name);
		free(waiting->target);
		free(waiting);
	}
}

/* What layers below have put there; what is not there is not missed. */
static int white_out(struct unpacking *u, const char *name, struct err *err)
{
	const char *base = inside_base(name);
	const char *gone = base + strlen(WHITEOUT);
	int rc;

	if (!*gone || strcmp(gone, ".") == 0 || strcmp(gone, "..") == 0)
		return err_set(err, EINVAL, "%s: a whiteout of no file", name);
	/* Those that begin with it twice are of aufs, and about nothing but itself. */
	if (!u->target->has_lower ||
	    (strncmp(gone, WHITEOUT, strlen(WHITEOUT)) == 0 && strcmp(base, OPAQUE) != 0))
		return 0;
	rc = enter_parent(u, name, parent_length(name), false);
	if (rc == 0)
		rc = inside_remove(u->parent_fd, strcmp(base, OPAQUE) == 0 ? "." : gone,
				   &u->brought);
	return rc == 0 || rc == -ENOENT || rc == -ENOTDIR ? 0 : err_sys(err, -rc, "%s", name);
}

static int unpack_root(struct unpacking *u, struct archive_entry *entry, struct err *err)
{
	if (archive_entry_filetype(entry) != AE_IFDIR || archive_entry_hardlink(entry))
		return err_set(err, EINVAL, "it has a file in the place of the root directory");
	leave_parent(u);
	if (fchdir(u->target->root) < 0)
		return err_sys(err, errno, "the root directory");
	return write_entry(u, entry, ".", "the root directory", err);
}

static int unpack_link(struct unpacking *u, const char *name, const char *target, struct err *err)
{
	char to[PATH_MAX];
	int rc = inside_clean(target, to);

	if (rc < 0)
		return err_set(err, -rc, "%s: a hard link to %s: %s", name, target,
			       rc == -EPERM ? "Path contains '..'" : strerror(-rc));
	rc = make_link(u, name, to, err);
	return rc == -ENOENT ? wait_for(u, name, to, err) : rc;
}

static int unpack_entry(struct unpacking *u, struct archive_entry *entry, struct err *err)
{
	const char *given = archive_entry_pathname(entry);
	const char *target = archive_entry_hardlink(entry);
	char name[PATH_MAX];
	int rc = given ? inside_clean(given, name) : -ENOENT;

	if (rc < 0)
		return err_set(err, -rc, "%s: %s", given ? given : "a file without a name",
			       rc == -EPERM ? "Path contains '..'" : strerror(-rc));
	if (!*name)
		return unpack_root(u, entry, err);
	if (u->target->is_layer && strncmp(inside_base(name), WHITEOUT, strlen(WHITEOUT)) == 0)
		return white_out(u, name, err);
	if (target)
		return unpack_link(u, name, target, err);
	rc = enter_parent(u, name, parent_length(name), true);
	if (rc == 0)
		rc = make_place(u, inside_base(name), archive_entry_filetype(entry) == AE_IFDIR);
	if (rc < 0 || fchdir(u->parent_fd) < 0)
		return err_sys(err, rc < 0 ? -rc : errno, "%s", name);
	rc = write_entry(u, entry, inside_base(name), name, err);
	if (rc == 0 && note_brought(u, inside_base(name)) < 0)
		rc = err_sys(err, ENOMEM, "%s", name);
	return rc;
}

int layer_unpack(struct archive *in, struct layer_target *target, struct err *err)
{
	struct unpacking u = { .in = in, .target = target, .parent_fd = -1 };
	struct archive_entry *entry;
	bool is_empty = true;
	int rc = 0, got;

	u.last = &u.first;
	while (rc == 0) {
		got = archive_read_next_header(in, &entry);
		if (got == ARCHIVE_EOF)
			break;
		/* Warnings are of what another locale would name differently, say: the bytes are
		 * kept. */
		if (got != ARCHIVE_OK && got != ARCHIVE_WARN)
			rc = layer_error(in, "", err);
		else
			rc = unpack_entry(&u, entry, err);
		is_empty = false;
	}
	if (rc == 0)
		rc = make_waiting(&u, err);
	/* Zeroes are the end of a tarball, and the beginning of much else; but a layer may say that
	 * nothing changes. */
	if (rc == 0 && is_empty && !target->is_layer)
		rc = err_set(err, EINVAL, "no file is in it");
	leave_parent(&u);
	inode_set_free(&u.brought);
	free_waiting(&u);
	return rc;
}
