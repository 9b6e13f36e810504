/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/block_file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/log.h"

/* What st_blksize says beyond this is a wish, not a block that is written as one. */
#define FILE_BLOCK_MAX 4096u
#define DEVICE_BLOCK_MAX 65536u

static int open_checked(const char *path, bool read_only, struct stat *st)
{
	/* O_NONBLOCK: a fifo must not hold us up, only to be refused. */
	const int flags = (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
	CLEANUP_FD int fd = open(path, flags);

	if (fd < 0 || fstat(fd, st) < 0)
		return -errno;
	if (!S_ISREG(st->st_mode) && !S_ISBLK(st->st_mode))
		return -EMEDIUMTYPE;
	/* With it io_uring would answer EAGAIN where it ought to wait. */
	if (fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0)
		return -errno;
	return fd_take(&fd);
}

static int open_failed(int rc, const char *name, const char *path, struct err *err)
{
	if (rc == -EMEDIUMTYPE)
		return err_set(err, EINVAL, "%s: %s: neither a regular file nor a block device",
			       name, path);
	return err_sys(err, -rc, "%s: %s", name, path);
}

/* One writer or several readers. Where locks do not work there is no protection. */
static int lock(int fd, bool read_only)
{
	struct flock whole = { .l_type = read_only ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET };

	if (fcntl(fd, F_OFD_SETLK, &whole) == 0)
		return 0;
	return errno == EAGAIN || errno == EACCES ? -EBUSY : 0;
}

static unsigned int exponent_of(uint64_t block_size, uint64_t max)
{
	if (block_size < BLOCK_SECTOR_SIZE || block_size > max || block_size & (block_size - 1))
		return 0;
	return (unsigned int)__builtin_ctzll(block_size / BLOCK_SECTOR_SIZE);
}

static int probe_block_device(struct block_file *file, uint64_t *size)
{
	/* Not aligned: fails with EINVAL, but with EOPNOTSUPP before that. */
	uint64_t misaligned[2] = { 1, BLOCK_SECTOR_SIZE };
	unsigned int physical = 0;
	int logical = 0;

	if (ioctl(file->fd, BLKGETSIZE64, size) < 0)
		return -errno;
	if (ioctl(file->fd, BLKPBSZGET, &physical) == 0)
		file->physical_exponent = exponent_of(physical, DEVICE_BLOCK_MAX);
	/* A guest's ranges are of sectors; a device with larger blocks does not take them all. */
	if (file->read_only || ioctl(file->fd, BLKSSZGET, &logical) < 0 ||
	    (uint64_t)logical != BLOCK_SECTOR_SIZE)
		return 0;
	file->write_zeroes = true;
	file->discard = ioctl(file->fd, BLKDISCARD, misaligned) < 0 && errno == EINVAL;
	return 0;
}

static bool in_memory(int fd)
{
	struct statfs fs;
	char byte;
	struct iovec iov = { &byte, 1 };

	if (fstatfs(fd, &fs) < 0)
		return false;
	switch ((uint64_t)fs.f_type) {
	case TMPFS_MAGIC:
	case RAMFS_MAGIC:
	case HUGETLBFS_MAGIC:
		/* Where RWF_NOWAIT works, io_uring does at once what can be done at once. */
		return preadv2(fd, &iov, 1, 0, RWF_NOWAIT) < 0 && errno == EOPNOTSUPP;
	default:
		return false;
	}
}

static void probe_regular_file(struct block_file *file, const struct stat *st)
{
	const off_t block = st->st_blksize > 0 ? st->st_blksize : FILE_BLOCK_MAX;
	off_t behind;

	file->physical_exponent = exponent_of((uint64_t)block, FILE_BLOCK_MAX);
	file->in_memory = in_memory(file->fd);
	if (file->read_only)
		return;
	/* Behind the end, where there is nothing to lose. */
	if (__builtin_add_overflow(st->st_size, block, &behind))
		return;
	behind -= behind % block;
	file->discard =
		fallocate(file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, behind, block) == 0;
	file->write_zeroes = file->discard;
}

static int lock_or_share(struct block_file *file, const struct block_file *current)
{
	/*
	 * The lock of the file that is there already would be in the way of its own: both share the
	 * one open file that has it.
	 */
	if (current && current->dev == file->dev && current->ino == file->ino) {
		int fd = fcntl(current->lock_fd, F_DUPFD_CLOEXEC, 0);

		if (fd < 0)
			return -errno;
		fd_close(&file->lock_fd);
		file->lock_fd = fd;
		return 0;
	}
	return lock(file->lock_fd, file->read_only);
}

int block_file_open(struct block_file *file, const char *name, const char *path, bool read_only,
		    const struct block_file *current, struct err *err)
{
	struct stat st = { 0 }, locked = { 0 };
	uint64_t size;
	int rc;

	*file = (struct block_file){ .fd = -1, .lock_fd = -1, .read_only = read_only };
	rc = open_checked(path, read_only, &st);
	if (rc < 0)
		return open_failed(rc, name, path, err);
	file->fd = rc;
	rc = open_checked(path, read_only, &locked);
	if (rc < 0) {
		block_file_close(file);
		return open_failed(rc, name, path, err);
	}
	file->lock_fd = rc;
	file->dev = st.st_dev;
	file->ino = st.st_ino;
	file->block_device = S_ISBLK(st.st_mode);
	rc = st.st_dev == locked.st_dev && st.st_ino == locked.st_ino
		     ? lock_or_share(file, current)
		     : -ESTALE; /* the path has just been given to another file */
	if (rc < 0) {
		block_file_close(file);
		return rc == -EBUSY
			       ? err_set(err, EBUSY, "%s: %s: in use by another process or drive",
					 name, path)
			       : err_sys(err, -rc, "%s: %s", name, path);
	}
	if (file->block_device) {
		rc = probe_block_device(file, &size);
	} else {
		size = (uint64_t)st.st_size;
		probe_regular_file(file, &st);
	}
	if (rc < 0) {
		block_file_close(file);
		return err_sys(err, -rc, "%s: %s: its size", name, path);
	}
	if (size % BLOCK_SECTOR_SIZE)
		log_warn("%s: %s: the last %u bytes are less than a sector, and ignored", name,
			 path, (unsigned int)(size % BLOCK_SECTOR_SIZE));
	file->sectors = size / BLOCK_SECTOR_SIZE;
	return 0;
}

void block_file_close(struct block_file *file)
{
	fd_close(&file->fd);
	fd_close(&file->lock_fd);
}
