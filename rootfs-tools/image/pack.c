/* SPDX-License-Identifier: Apache-2.0 */
#include "rootfs-tools/image/pack.h"

#include <archive_entry.h>
#include <errno.h>
#include <limits.h>
#include <search.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "rootfs-tools/image/inside.h"
#include "rootfs-tools/image/layer.h"

#define HEADER 512
#define CHUNK (256 << 10)
#define NAMES_MAX_MIB 256 /* of those with hard links; and of a directory's and those around it */
#define NAMES_MAX ((size_t)NAMES_MAX_MIB << 20)

struct named {
	char *name;
	uint64_t number;
};

struct names {
	struct packing *packing;
	struct named *list;
	size_t count, room;
	size_t bytes; /* of memory, counted in the packing's as well */
};

/* A file with more than one name, and the first one. */
struct linked {
	uint64_t number;
	char *name;
};

struct attribute {
	char *name;
	void *value;
	size_t size;
};

#define ATTRIBUTES_MAX 4096 /* of a file; Linux lists 64 KiB of names */

struct attributes {
	struct attribute list[ATTRIBUTES_MAX];
	size_t count;
};

struct packing {
	const struct image_fs *fs;
	struct archive *out;
	uint64_t left; /* bytes */
	unsigned sockets;
	struct inode_set dirs; /* numbers of those that have been entered, and one */
	void *linked;	       /* tsearch(3) */
	size_t linked_bytes;
	size_t listed_bytes; /* of names, in all directories that are being packed */
	char path[PATH_MAX]; /* of the file at hand */
	char *data;	     /* CHUNK bytes */
	struct archive_entry *entry;
	struct attributes attributes; /* of the file at hand */
	struct err *err;
};

static int pack_dir(struct packing *p, const struct image_node *dir, size_t length);

struct archive *pack_writer(void)
{
	struct archive *out = archive_write_new();

	if (out && (archive_write_set_format_pax(out) != ARCHIVE_OK ||
		    archive_write_set_options(
			    out, "pax:hdrcharset=BINARY,pax:xattrheader=SCHILY") != ARCHIVE_OK ||
		    archive_write_set_bytes_in_last_block(out, 1) != ARCHIVE_OK)) {
		archive_write_free(out);
		out = NULL;
	}
	return out;
}

static int fail(struct packing *p, int rc)
{
	const char *name = *p->path ? p->path : "the root directory";

	if (rc == -EUCLEAN)
		return err_set(p->err, EUCLEAN, "%s: the image's file system contradicts itself",
			       name);
	if (rc == -ENOBUFS)
		return err_set(p->err, ENOBUFS,
			       "%s: the names in it and the directories around it are more than %d "
			       "MiB",
			       name, NAMES_MAX_MIB);
	return err_sys(p->err, -rc, "%s", name);
}

static int spend(struct packing *p, uint64_t bytes)
{
	if (bytes > p->left)
		return -EFBIG;
	p->left -= bytes;
	return 0;
}

static int compare_linked(const void *a, const void *b)
{
	uint64_t one = ((const struct linked *)a)->number;
	uint64_t other = ((const struct linked *)b)->number;

	return (one > other) - (one < other);
}

static void free_linked(void *linked)
{
	free(((struct linked *)linked)->name);
	free(linked);
}

/* The name that the file has had before, or NULL, and then it has this one from now on. */
static int first_name(struct packing *p, const struct image_node *node, const char **before)
{
	struct linked *new = malloc(sizeof(*new)), **found;

	*before = NULL;
	p->linked_bytes += sizeof(*new) + strlen(p->path) + 1;
	if (!new || p->linked_bytes > NAMES_MAX) {
		free(new);
		return -ENOMEM;
	}
	new->number = node->number;
	new->name = strdup(p->path);
	found = new->name ? tsearch(new, &p->linked, compare_linked) : NULL;
	if (!found) {
		free_linked(new);
		return -ENOMEM;
	}
	if (*found != new) {
		free_linked(new);
		*before = (*found)->name;
	}
	return 0;
}

static int take_attribute(void *context, const char *name, const void *value, size_t size)
{
	struct packing *p = context;
	struct attribute *new = &p->attributes.list[p->attributes.count];

	if (!layer_keeps_attribute(name))
		return 0;
	if (p->attributes.count == ATTRIBUTES_MAX)
		return -E2BIG;
	p->attributes.count++;
	*new = (struct attribute){ .name = strdup(name), .value = malloc(size + 1), .size = size };
	if (!new->name || !new->value)
		return -ENOMEM;
	memcpy(new->value, value, size);
	/* With its length before it and a line's end after it. */
	return spend(p, strlen(name) + size + 64);
}

static int compare_attributes(const void *a, const void *b)
{
	return strcmp(((const struct attribute *)a)->name, ((const struct attribute *)b)->name);
}

/* In the same order, whatever the file system keeps them in. */
static int describe_attributes(struct packing *p, const struct image_node *node)
{
	struct attribute *list = p->attributes.list;
	int rc;

	p->attributes.count = 0;
	rc = p->fs->kind->attributes(p->fs, node, take_attribute, p);
	if (rc == 0)
		qsort(list, p->attributes.count, sizeof(*list), compare_attributes);
	for (size_t i = 0; i < p->attributes.count; i++) {
		if (rc == 0)
			archive_entry_xattr_add_entry(p->entry, list[i].name, list[i].value,
						      list[i].size);
		free(list[i].name);
		free(list[i].value);
	}
	return rc;
}

static int read_target(struct packing *p, const struct image_node *node)
{
	char target[PATH_MAX];
	size_t used = 0;

	if (node->size == 0 || node->size >= sizeof(target))
		return -EUCLEAN;
	while (used < node->size) {
		ssize_t n = p->fs->kind->read(p->fs, node, used, target + used,
					      (size_t)node->size - used);

		if (n < 0)
			return (int)n;
		used += (size_t)n;
	}
	target[used] = '\0';
	if (strlen(target) != used)
		return -EUCLEAN;
	archive_entry_copy_symlink(p->entry, target);
	return 0;
}

static int write_data(struct packing *p, const struct image_node *node)
{
	uint64_t at = 0;

	while (at < node->size) {
		uint64_t left = node->size - at;
		ssize_t n = p->fs->kind->read(p->fs, node, at, p->data,
					      left < CHUNK ? (size_t)left : CHUNK);

		if (n < 0)
			return fail(p, (int)n);
		if (archive_write_data(p->out, p->data, (size_t)n) != n)
			return layer_error(p->out, p->path, p->err);
		at += (uint64_t)n;
	}
	return 0;
}

/* libarchive 3.6 writes -1.5 for -1 and half a second. Between -1 and 0 there
 * is no right way. */
static void describe_time(struct packing *p, struct timespec time)
{
	if (time.tv_sec < 0 && time.tv_nsec > 0) {
		time.tv_nsec = time.tv_sec < -1 ? 1000000000 - time.tv_nsec : 0;
		time.tv_sec += time.tv_sec < -1;
	}
	archive_entry_set_mtime(p->entry, time.tv_sec, time.tv_nsec);
}

/* All but its data. */
static int describe(struct packing *p, const struct image_node *node)
{
	const char *before = NULL;
	int rc = spend(p, 3 * HEADER + 2 * strlen(p->path));

	archive_entry_clear(p->entry);
	archive_entry_copy_pathname(p->entry, *p->path ? p->path : "./");
	archive_entry_set_mode(p->entry, node->mode);
	archive_entry_set_uid(p->entry, node->uid);
	archive_entry_set_gid(p->entry, node->gid);
	describe_time(p, node->mtime);
	archive_entry_set_size(p->entry, S_ISREG(node->mode) ? (int64_t)node->size : 0);
	if (S_ISCHR(node->mode) || S_ISBLK(node->mode))
		archive_entry_set_rdev(p->entry, node->device);
	if (rc == 0 && !S_ISDIR(node->mode) && node->links > 1)
		rc = first_name(p, node, &before);
	if (rc == 0 && before) {
		archive_entry_copy_hardlink(p->entry, before);
		archive_entry_set_size(p->entry, 0);
		return 1;
	}
	/* What is listed of a directory takes time, though no room, and may be others' as well. */
	if (rc == 0 && (S_ISREG(node->mode) || S_ISDIR(node->mode)))
		rc = spend(p, node->size);
	if (rc == 0 && S_ISLNK(node->mode))
		rc = read_target(p, node);
	if (rc == 0)
		rc = describe_attributes(p, node);
	return rc;
}

/* The file at p->path. */
static int pack_file(struct packing *p, const struct image_node *node, size_t length)
{
	bool has_data;
	int rc, wrote;

	if (S_ISSOCK(node->mode)) {
		p->sockets++;
		return 0;
	}
	if (!S_ISDIR(node->mode) && !S_ISREG(node->mode) && !S_ISLNK(node->mode) &&
	    !S_ISCHR(node->mode) && !S_ISBLK(node->mode) && !S_ISFIFO(node->mode))
		return fail(p, -EUCLEAN);
	rc = describe(p, node);
	if (rc < 0)
		return fail(p, rc);
	has_data = rc == 0 && S_ISREG(node->mode);
	wrote = archive_write_header(p->out, p->entry);
	if (wrote != ARCHIVE_OK && wrote != ARCHIVE_WARN)
		return layer_error(p->out, p->path, p->err);
	if (S_ISDIR(node->mode))
		return pack_dir(p, node, length);
	return has_data ? write_data(p, node) : 0;
}

static int take_entry(void *context, const char *name, size_t length, uint64_t number)
{
	struct names *entries = context;
	/* With what malloc(3) and a list's growth take. */
	size_t bytes = sizeof(struct named) + length + 32;

	if (length == 0 || length > NAME_MAX || memchr(name, '/', length) ||
	    memchr(name, '\0', length))
		return -EUCLEAN;
	/* Before there is a list of more than there may be. */
	if (spend(entries->packing, HEADER) < 0)
		return -EFBIG;
	entries->bytes += bytes;
	entries->packing->listed_bytes += bytes;
	if (entries->packing->listed_bytes > NAMES_MAX)
		return -ENOBUFS;
	if (entries->count == entries->room) {
		size_t room = entries->room ? 2 * entries->room : 16;
		struct named *more = reallocarray(entries->list, room, sizeof(*more));

		if (!more)
			return -ENOMEM;
		entries->list = more;
		entries->room = room;
	}
	entries->list[entries->count] =
		(struct named){ .name = strndup(name, length), .number = number };
	return entries->list[entries->count++].name ? 0 : -ENOMEM;
}

static int compare_entries(const void *a, const void *b)
{
	return strcmp(((const struct named *)a)->name, ((const struct named *)b)->name);
}

static int pack_entry(struct packing *p, const struct named *entry, size_t length)
{
	size_t more = strlen(entry->name) + (length > 0);
	struct image_node node;
	int rc;

	if (length + more >= sizeof(p->path))
		return fail(p, -ENAMETOOLONG);
	snprintf(p->path + length, sizeof(p->path) - length, "%s%s", length > 0 ? "/" : "",
		 entry->name);
	rc = p->fs->kind->node(p->fs, entry->number, &node);
	rc = rc < 0 ? fail(p, rc) : pack_file(p, &node, length + more);
	p->path[length] = '\0';
	return rc;
}

/* What is in the directory at p->path, whose length that is, by name. */
static int pack_dir(struct packing *p, const struct image_node *dir, size_t length)
{
	struct names entries = { .packing = p };
	int rc = 0;

	if (inode_set_has(&p->dirs, dir->number + 1))
		return fail(p, -EUCLEAN);
	if (inode_set_add(&p->dirs, dir->number + 1) < 0)
		return fail(p, -ENOMEM);
	rc = p->fs->kind->list(p->fs, dir, take_entry, &entries);
	if (rc < 0)
		rc = fail(p, rc);
	if (rc == 0 && entries.count > 0)
		qsort(entries.list, entries.count, sizeof(*entries.list), compare_entries);
	for (size_t i = 0; rc == 0 && i < entries.count; i++)
		rc = pack_entry(p, &entries.list[i], length);
	for (size_t i = 0; i < entries.count; i++)
		free(entries.list[i].name);
	free(entries.list);
	p->listed_bytes -= entries.bytes;
	return rc;
}

int pack_files(const struct image_fs *fs, struct archive *out, uint64_t max, unsigned *sockets,
	       struct err *err)
{
	static struct packing p;
	struct image_node root;
	int rc;

	p = (struct packing){ .fs = fs, .out = out, .left = max, .err = err };
	p.data = malloc(CHUNK);
	p.entry = archive_entry_new();
	rc = p.data && p.entry ? fs->kind->node(fs, fs->root, &root) : -ENOMEM;
	if (rc == 0 && !S_ISDIR(root.mode))
		rc = -EUCLEAN;
	rc = rc < 0 ? fail(&p, rc) : pack_file(&p, &root, 0);
	if (rc == 0 && archive_write_close(out) != ARCHIVE_OK)
		rc = layer_error(out, "", err);
	/* Or it would write all that is left of the file that failed, as zeroes. */
	if (rc < 0)
		archive_write_fail(out);
	*sockets = p.sockets;
	archive_entry_free(p.entry);
	free(p.data);
	inode_set_free(&p.dirs);
	tdestroy(p.linked, free_linked);
	return rc;
}
