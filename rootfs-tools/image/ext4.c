/* SPDX-License-Identifier: Apache-2.0 */
/* ext4, by libext2fs. */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <ext2fs/ext2fs.h>

#include "rootfs-tools/image/image_fs.h"

/* Beyond its own error numbers libext2fs passes errno on. */
static int error_of(errcode_t code)
{
	if (code == 0)
		return 0;
	if (code == EXT2_ET_NO_MEMORY)
		return -ENOMEM;
	return code > 0 && code < 4096 ? -(int)code : -EUCLEAN;
}

static int read_inode(const struct image_fs *fs, uint64_t number, struct ext2_inode_large *inode)
{
	memset(inode, 0, sizeof(*inode));
	if (number == 0 || number > UINT32_MAX)
		return -EUCLEAN;
	return error_of(ext2fs_read_inode_full(fs->state, (ext2_ino_t)number,
					       (struct ext2_inode *)inode, sizeof(*inode)));
}

/* Numbers of devices as Linux writes them: old_encode_dev() in the first word, or new_encode_dev().
 */
static dev_t device_of(const struct ext2_inode_large *inode)
{
	uint32_t old = inode->i_block[0], new = inode->i_block[1];

	if (old)
		return makedev((old >> 8) & 0xff, old & 0xff);
	return makedev((new & 0xfff00) >> 8, (new & 0xff) | ((new >> 12) & 0xfff00));
}

static int ext4_node(const struct image_fs *fs, uint64_t number, struct image_node *node)
{
	struct ext2_inode_large inode;
	uint32_t more = 0;
	int rc = read_inode(fs, number, &inode);

	if (rc < 0)
		return rc;
	/* Two bits of seconds, and nanoseconds; only inodes that are large enough have them. */
	if (inode.i_extra_isize >= 12)
		more = inode.i_mtime_extra;
	*node = (struct image_node){
		.number = number,
		.mode = inode.i_mode,
		.uid = inode.i_uid | (uint32_t)inode.osd2.linux2.l_i_uid_high << 16,
		.gid = inode.i_gid | (uint32_t)inode.osd2.linux2.l_i_gid_high << 16,
		.links = inode.i_links_count,
		.size = EXT2_I_SIZE((struct ext2_inode *)&inode),
		.mtime.tv_sec = (int32_t)inode.i_mtime + ((time_t)(more & 3) << 32),
		.mtime.tv_nsec = more >> 2,
	};
	if (S_ISCHR(node->mode) || S_ISBLK(node->mode))
		node->device = device_of(&inode);
	return node->mtime.tv_nsec < 1000000000 ? 0 : -EUCLEAN;
}

struct listing {
	ext2_ino_t lost_and_found;
	image_fs_file *file;
	void *context;
	int rc;
};

static bool is_dot(const struct ext2_dir_entry *entry)
{
	int length = ext2fs_dirent_name_len(entry);

	return (length == 1 && entry->name[0] == '.') ||
	       (length == 2 && entry->name[0] == '.' && entry->name[1] == '.');
}

static int find_entry(struct ext2_dir_entry *entry, int offset, int size, char *buffer, void *data)
{
	bool *found = data;

	(void)offset;
	(void)size;
	(void)buffer;
	*found = !is_dot(entry);
	return *found ? DIRENT_ABORT : 0;
}

/* mke2fs's own directory in the root directory, unless its source has put something in it; or 0. */
static ext2_ino_t find_lost_and_found(ext2_filsys fs)
{
	ext2_ino_t number = EXT2_FIRST_INODE(fs->super);
	bool found = false;
	errcode_t code = ext2fs_dir_iterate(fs, number, 0, NULL, find_entry, &found);

	return code == 0 && !found ? number : 0;
}

static bool is_left_out(const struct listing *l, const struct ext2_dir_entry *entry)
{
	return is_dot(entry) ||
	       (l->lost_and_found && entry->inode == l->lost_and_found &&
		ext2fs_dirent_name_len(entry) == 10 && memcmp(entry->name, "lost+found", 10) == 0);
}

static int take_entry(struct ext2_dir_entry *entry, int offset, int size, char *buffer, void *data)
{
	struct listing *l = data;
	size_t length = (size_t)ext2fs_dirent_name_len(entry);

	(void)offset;
	(void)size;
	(void)buffer;
	if (is_left_out(l, entry))
		return 0;
	l->rc = l->file(l->context, entry->name, length, entry->inode);
	return l->rc != 0 ? DIRENT_ABORT : 0;
}

static int ext4_list(const struct image_fs *fs, const struct image_node *dir, image_fs_file *file,
		     void *context)
{
	struct listing listing = { .file = file, .context = context };
	errcode_t code;

	if (dir->number == EXT2_ROOT_INO)
		listing.lost_and_found = find_lost_and_found(fs->state);
	code = ext2fs_dir_iterate(fs->state, (ext2_ino_t)dir->number, 0, NULL, take_entry,
				  &listing);

	return listing.rc != 0 ? listing.rc : error_of(code);
}

static ssize_t ext4_read(const struct image_fs *fs, const struct image_node *node, uint64_t offset,
			 void *data, size_t length)
{
	struct ext2_inode_large inode;
	unsigned got = 0;
	ext2_file_t file;
	errcode_t code;
	int rc = read_inode(fs, node->number, &inode);

	if (rc < 0)
		return rc;
	if (S_ISLNK(node->mode) && ext2fs_is_fast_symlink((struct ext2_inode *)&inode)) {
		if (node->size > sizeof(inode.i_block))
			return -EUCLEAN;
		length = length < node->size - offset ? length : (size_t)(node->size - offset);
		memcpy(data, (const char *)inode.i_block + offset, length);
		return (ssize_t)length;
	}
	code = ext2fs_file_open2(fs->state, (ext2_ino_t)node->number, (struct ext2_inode *)&inode,
				 0, &file);
	if (code)
		return error_of(code);
	code = ext2fs_file_llseek(file, offset, EXT2_SEEK_SET, NULL);
	if (code == 0)
		code = ext2fs_file_read(file, data, (unsigned)length, &got);
	ext2fs_file_close(file);
	if (code)
		return error_of(code);
	return got > 0 ? (ssize_t)got : -EUCLEAN;
}

struct attributes {
	image_fs_attribute *attribute;
	void *context;
	int rc;
};

static int take_attribute(char *name, char *value, size_t size, void *data)
{
	struct attributes *a = data;

	a->rc = a->attribute(a->context, name, value, size);
	return a->rc != 0 ? XATTR_ABORT : 0;
}

static int ext4_attributes(const struct image_fs *fs, const struct image_node *node,
			   image_fs_attribute *attribute, void *context)
{
	struct attributes attributes = { .attribute = attribute, .context = context };
	struct ext2_xattr_handle *handle;
	errcode_t code = ext2fs_xattrs_open(fs->state, (ext2_ino_t)node->number, &handle);

	if (code)
		return error_of(code);
	code = ext2fs_xattrs_read(handle);
	if (code == 0)
		code = ext2fs_xattrs_iterate(handle, take_attribute, &attributes);
	ext2fs_xattrs_close(&handle);
	return attributes.rc != 0 ? attributes.rc : error_of(code);
}

static void ext4_close(struct image_fs *fs)
{
	ext2fs_free(fs->state);
}

int image_ext4_open(struct image_fs *fs, const char *path, struct err *err)
{
	static const struct image_fs_kind kind = {
		.node = ext4_node,
		.list = ext4_list,
		.read = ext4_read,
		.attributes = ext4_attributes,
		.close = ext4_close,
	};
	ext2_filsys opened;

	memset(fs, 0, sizeof(*fs));
	if (ext2fs_open(path, EXT2_FLAG_64BITS, 0, 0, unix_io_manager, &opened) != 0)
		return err_set(err, EINVAL, "the image is no ext4 file system");
	*fs = (struct image_fs){ .kind = &kind, .root = EXT2_ROOT_INO, .state = opened };
	if (ext2fs_has_feature_journal_needs_recovery(opened->super))
		return err_set(err, EUCLEAN,
			       "the image was written to, and not unmounted after that");
	return 0;
}
