/* SPDX-License-Identifier: Apache-2.0 */
/*
 * erofs as Linux's Documentation/filesystems/erofs.rst and fs/erofs/erofs_fs.h have it, as far as
 * mkfs.erofs writes it without compression: inodes of both sizes, data in a row of blocks, the rest
 * of which may follow the inode.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/array.h"
#include "base/fd.h"
#include "rootfs-tools/image/image_fs.h"

#define SUPERBLOCK 1024
#define MAGIC 0xe0f5e1e2
#define BLOCK_BITS 12
#define BLOCK (1u << BLOCK_BITS)
#define SLOT 32 /* an inode's number counts these */
#define COMPACT 32
#define EXTENDED 64
#define XATTR_HEADER 12
#define DIRENT 12

enum layout { PLAIN = 0, INLINE = 2 };

struct erofs {
	int fd;
	uint64_t bytes;
	uint64_t meta, xattrs; /* where inodes and shared attributes begin */
	uint64_t build_time;   /* seconds, of inodes that have none of their own */
	uint32_t build_time_ns;
};

/* Where an inode's parts are. */
struct place {
	enum layout layout;
	uint64_t xattrs;
	size_t xattr_bytes;
	uint64_t blocks; /* of its data */
	uint64_t tail;	 /* what is left of an INLINE one's */
};

static uint16_t get16(const uint8_t *at)
{
	return (uint16_t)(at[0] | at[1] << 8);
}

static uint32_t get32(const uint8_t *at)
{
	return get16(at) | (uint32_t)get16(at + 2) << 16;
}

static uint64_t get64(const uint8_t *at)
{
	return get32(at) | (uint64_t)get32(at + 4) << 32;
}

static int read_at(const struct erofs *erofs, uint64_t offset, void *data, size_t length)
{
	if (offset > erofs->bytes || length > erofs->bytes - offset)
		return -EUCLEAN;
	return fd_pread_exact(erofs->fd, data, length, offset);
}

/* The number that Linux writes for a device: new_encode_dev(). */
static dev_t device_of(uint32_t number)
{
	return makedev((number & 0xfff00) >> 8, (number & 0xff) | ((number >> 12) & 0xfff00));
}

static int read_inode(const struct erofs *erofs, uint64_t number, struct image_node *node,
		      struct place *place)
{
	uint8_t raw[EXTENDED];
	uint64_t at;
	bool extended;
	int rc;

	if (number > erofs->bytes / SLOT)
		return -EUCLEAN;
	at = erofs->meta + number * SLOT;
	rc = read_at(erofs, at, raw, COMPACT);
	extended = rc == 0 && (raw[0] & 1);
	if (extended)
		rc = read_at(erofs, at, raw, EXTENDED);
	if (rc < 0)
		return rc;
	place->layout = (enum layout)(get16(raw) >> 1);
	if (place->layout != PLAIN && place->layout != INLINE)
		return -EOPNOTSUPP;
	place->xattrs = at + (extended ? EXTENDED : COMPACT);
	place->xattr_bytes = get16(raw + 2) ? XATTR_HEADER + 4 * ((size_t)get16(raw + 2) - 1) : 0;
	place->tail = place->xattrs + place->xattr_bytes;
	place->blocks = (uint64_t)get32(raw + 16) << BLOCK_BITS;
	*node = (struct image_node){
		.number = number,
		.mode = get16(raw + 4),
		.links = extended ? get32(raw + 44) : get16(raw + 6),
		.size = extended ? get64(raw + 8) : get32(raw + 8),
		.uid = extended ? get32(raw + 24) : get16(raw + 24),
		.gid = extended ? get32(raw + 28) : get16(raw + 26),
		.mtime.tv_sec = (time_t)(extended ? get64(raw + 32) : erofs->build_time),
		.mtime.tv_nsec = extended ? get32(raw + 40) : erofs->build_time_ns,
	};
	if (S_ISCHR(node->mode) || S_ISBLK(node->mode))
		node->device = device_of(get32(raw + 16));
	return node->mtime.tv_nsec < 1000000000 ? 0 : -EUCLEAN;
}

static int erofs_node(const struct image_fs *fs, uint64_t number, struct image_node *node)
{
	struct place place;

	return read_inode(fs->state, number, node, &place);
}

static int read_data(const struct erofs *erofs, const struct image_node *node,
		     const struct place *place, uint64_t offset, void *data, size_t length)
{
	/* The last block of an INLINE file follows its inode, unless the file ends with a block. */
	uint64_t row = place->layout == INLINE ? node->size & ~(uint64_t)(BLOCK - 1) : node->size;
	size_t in_row = offset >= row ? 0 : row - offset < length ? (size_t)(row - offset) : length;
	int rc = 0;

	/* Where there is no row, there is no place for one either. */
	if (in_row > 0)
		rc = read_at(erofs, place->blocks + offset, data, in_row);
	if (rc == 0 && in_row < length)
		rc = read_at(erofs, place->tail + (offset + in_row - row), (char *)data + in_row,
			     length - in_row);
	return rc;
}

static ssize_t erofs_read(const struct image_fs *fs, const struct image_node *node, uint64_t offset,
			  void *data, size_t length)
{
	const struct erofs *erofs = fs->state;
	struct image_node same;
	struct place place;
	int rc = read_inode(erofs, node->number, &same, &place);

	if (rc < 0)
		return rc;
	if (length > node->size - offset)
		length = (size_t)(node->size - offset);
	rc = read_data(erofs, node, &place, offset, data, length);
	return rc < 0 ? rc : (ssize_t)length;
}

/* A block of a directory: entries, then their names, the first of which tells how many there are.
 */
static int list_block(const uint8_t *block, size_t size, image_fs_file *file, void *context)
{
	size_t first = size >= DIRENT ? get16(block + 8) : 0;
	size_t count = first / DIRENT;

	if (count == 0 || first % DIRENT != 0 || first > size)
		return -EUCLEAN;
	for (size_t i = 0; i < count; i++) {
		const uint8_t *entry = block + i * DIRENT;
		size_t start = get16(entry + 8);
		size_t end = i + 1 < count ? get16(entry + DIRENT + 8) : size;
		const char *name = (const char *)block + start;
		size_t length;
		int rc;

		if (start < first || start >= end || end > size)
			return -EUCLEAN;
		length = strnlen(name, end - start);
		if ((length == 1 && name[0] == '.') ||
		    (length == 2 && name[0] == '.' && name[1] == '.'))
			continue;
		rc = file(context, name, length, get64(entry));
		if (rc != 0)
			return rc;
	}
	return 0;
}

static int erofs_list(const struct image_fs *fs, const struct image_node *dir, image_fs_file *file,
		      void *context)
{
	uint8_t block[BLOCK];
	ssize_t n;
	int rc = 0;

	for (uint64_t at = 0; rc == 0 && at < dir->size; at += BLOCK) {
		n = erofs_read(fs, dir, at, block, sizeof(block));
		rc = n < 0 ? (int)n : list_block(block, (size_t)n, file, context);
	}
	return rc;
}

static const char *attribute_prefix(uint8_t index)
{
	static const char *const prefixes[] = {
		[1] = "user.",
		[2] = "system.posix_acl_access",
		[3] = "system.posix_acl_default",
		[4] = "trusted.",
		[6] = "security.",
	};

	return index < ARRAY_SIZE(prefixes) ? prefixes[index] : NULL;
}

/* The attribute at the start of `size` bytes: what it takes of them, or -errno. */
static ssize_t take_attribute(const uint8_t *entry, size_t size, image_fs_attribute *attribute,
			      void *context)
{
	const char *prefix = size >= 4 ? attribute_prefix(entry[1]) : NULL;
	char name[32 + UINT8_MAX + 1];
	size_t name_length, value_length;
	int rc;

	if (!prefix)
		return -EUCLEAN;
	name_length = entry[0];
	value_length = get16(entry + 2);
	if (4 + name_length + value_length > size || memchr(entry + 4, '\0', name_length))
		return -EUCLEAN;
	snprintf(name, sizeof(name), "%s%.*s", prefix, (int)name_length, (const char *)entry + 4);
	rc = attribute(context, name, entry + 4 + name_length, value_length);
	return rc != 0 ? rc : (ssize_t)((4 + name_length + value_length + 3) & ~(size_t)3);
}

static int take_shared(const struct erofs *erofs, uint32_t id, uint8_t *entry,
		       image_fs_attribute *attribute, void *context)
{
	uint64_t at = erofs->xattrs + 4 * (uint64_t)id;
	int rc = read_at(erofs, at, entry, 4);
	size_t size = rc < 0 ? 0 : 4 + (size_t)entry[0] + get16(entry + 2);

	if (rc == 0)
		rc = read_at(erofs, at, entry, size);
	if (rc == 0) {
		ssize_t taken = take_attribute(entry, size, attribute, context);

		rc = taken < 0 ? (int)taken : 0;
	}
	return rc;
}

static int take_all(const struct erofs *erofs, const uint8_t *data, size_t size, uint8_t *entry,
		    image_fs_attribute *attribute, void *context)
{
	size_t shared = data[4];
	size_t at = XATTR_HEADER + 4 * shared;
	int rc = at > size ? -EUCLEAN : 0;

	for (size_t i = 0; rc == 0 && i < shared; i++)
		rc = take_shared(erofs, get32(data + XATTR_HEADER + 4 * i), entry, attribute,
				 context);
	while (rc == 0 && at < size) {
		ssize_t taken = take_attribute(data + at, size - at, attribute, context);

		/* The last one's padding may be left out. */
		rc = taken < 0 ? (int)taken : 0;
		at += taken < 0 ? 0 : (size_t)taken;
	}
	return rc;
}

static int erofs_attributes(const struct image_fs *fs, const struct image_node *node,
			    image_fs_attribute *attribute, void *context)
{
	const struct erofs *erofs = fs->state;
	struct image_node same;
	struct place place;
	uint8_t *data;
	int rc = read_inode(erofs, node->number, &same, &place);

	if (rc < 0 || place.xattr_bytes == 0)
		return rc;
	/* And after it room for a shared one. */
	data = malloc(place.xattr_bytes + 4 + UINT8_MAX + UINT16_MAX);
	rc = data ? read_at(erofs, place.xattrs, data, place.xattr_bytes) : -ENOMEM;
	if (rc == 0)
		rc = take_all(erofs, data, place.xattr_bytes, data + place.xattr_bytes, attribute,
			      context);
	free(data);
	return rc;
}

static void erofs_close(struct image_fs *fs)
{
	free(fs->state);
}

int image_erofs_open(struct image_fs *fs, int fd, struct err *err)
{
	static const struct image_fs_kind kind = {
		.node = erofs_node,
		.list = erofs_list,
		.read = erofs_read,
		.attributes = erofs_attributes,
		.close = erofs_close,
	};
	struct erofs *erofs = calloc(1, sizeof(*erofs));
	uint8_t super[128];
	struct stat st;

	memset(fs, 0, sizeof(*fs));
	if (!erofs || fstat(fd, &st) < 0) {
		free(erofs);
		return err_sys(err, erofs ? errno : ENOMEM, "the image");
	}
	*fs = (struct image_fs){ .kind = &kind, .state = erofs };
	erofs->fd = fd;
	erofs->bytes = (uint64_t)st.st_size;
	if (read_at(erofs, SUPERBLOCK, super, sizeof(super)) < 0 || get32(super) != MAGIC)
		return err_set(err, EINVAL, "the image is no erofs file system");
	/* Incompatible features are compression, other devices and parts of files in common. */
	if (super[12] != BLOCK_BITS || get32(super + 80) != 0)
		return err_set(err, EOPNOTSUPP,
			       "the image is an erofs file system of another kind");
	erofs->build_time = get64(super + 24);
	erofs->build_time_ns = get32(super + 32);
	erofs->meta = (uint64_t)get32(super + 40) << BLOCK_BITS;
	erofs->xattrs = (uint64_t)get32(super + 44) << BLOCK_BITS;
	fs->root = get16(super + 14);
	return 0;
}
