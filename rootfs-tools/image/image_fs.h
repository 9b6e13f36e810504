/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file system that an image is, read without being mounted. Its bytes are hostile: whatever
 * they say, nothing beyond the image is read, and every call ends. Errors are -errno; -EUCLEAN is a
 * file system that contradicts itself.
 */
#ifndef MOTE_IMAGE_FS_H
#define MOTE_IMAGE_FS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "base/err.h"

struct image_node {
	uint64_t number; /* what hard links have in common */
	mode_t mode;
	uint32_t uid, gid, links;
	uint64_t size; /* bytes, of a symbolic link's target, too */
	dev_t device;
	struct timespec mtime;
};

/* Called for each; what is not 0 ends the call and is its result. The bytes are the caller's. */
typedef int image_fs_file(void *context, const char *name, size_t length, uint64_t number);
typedef int image_fs_attribute(void *context, const char *name, const void *value, size_t size);

struct image_fs {
	const struct image_fs_kind *kind;
	uint64_t root; /* number of the root directory */
	void *state;   /* the kind's */
};

struct image_fs_kind {
	int (*node)(const struct image_fs *fs, uint64_t number, struct image_node *node);
	/* Without "." and ".."; names are whatever is written there. */
	int (*list)(const struct image_fs *fs, const struct image_node *dir, image_fs_file *file,
		    void *context);
	/* Bytes of a file or a link's target: at most `length`, at least one; all are below `size`.
	 */
	ssize_t (*read)(const struct image_fs *fs, const struct image_node *node, uint64_t offset,
			void *data, size_t length);
	int (*attributes)(const struct image_fs *fs, const struct image_node *node,
			  image_fs_attribute *attribute, void *context);
	void (*close)(struct image_fs *fs);
};

/* As mkfs.erofs makes them without compression. The descriptor stays the caller's. */
int image_erofs_open(struct image_fs *fs, int fd, struct err *err);
/* Whatever libext2fs knows. */
int image_ext4_open(struct image_fs *fs, const char *path, struct err *err);
/* After a failure, too. */
static inline void image_fs_close(struct image_fs *fs)
{
	if (fs->kind)
		fs->kind->close(fs);
	fs->kind = NULL;
}

#endif
