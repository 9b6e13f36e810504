/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/block/file.h"

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
	CLEANUP_FD int fd = fd_open(path, flags);

	if (fd < 0)
		return fd;
	if (fstat(fd, st) < 0)
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

static void unlock(int fd)
{
	struct flock whole = { .l_type = F_UNLCK, .l_whence = SEEK_SET };

	(void)fcntl(fd, F_OFD_SETLK, &whole);
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

/* Where RWF_NOWAIT works, io_uring does at once what can be done at once. */
static bool knows_nowait(int fd)
{
	char byte;
	struct iovec iov = { &byte, 1 };

	return preadv2(fd, &iov, 1, 0, RWF_NOWAIT) >= 0 || errno != EOPNOTSUPP;
}

static bool in_memory(int fd)
{
	struct statfs fs;

	if (fstatfs(fd, &fs) < 0)
		return false;
	switch ((uint64_t)fs.f_type) {
	case TMPFS_MAGIC:
	case RAMFS_MAGIC:
	case HUGETLBFS_MAGIC:
		return true;
	default:
		return false;
	}
}

static void probe_regular_file(struct block_file *file, const struct stat *st)
{
	const off_t block = st->st_blksize > 0 ? st->st_blksize : FILE_BLOCK_MAX;
	off_t behind;

	file->physical_exponent = exponent_of((uint64_t)block, FILE_BLOCK_MAX);
	if (!knows_nowait(file->fd)) {
		file->in_memory = in_memory(file->fd);
		file->needs_worker = !file->in_memory;
	}
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

/* The lock of the file that is to be replaced must not be in the way, if it is the same file. */
static int lock_or_take_over(struct block_file *file, const struct block_file *current)
{
	int rc;

	if (!current || current->dev != file->dev || current->ino != file->ino)
		return lock(file->lock_fd, file->read_only);
	if (current->read_only == file->read_only) {
		/* Both share the one open file that has the lock. */
		int fd = fcntl(current->lock_fd, F_DUPFD_CLOEXEC, 0);

		if (fd < 0)
			return -errno;
		fd_close(&file->lock_fd);
		file->lock_fd = fd;
		return 0;
	}
	unlock(current->lock_fd);
	rc = lock(file->lock_fd, file->read_only);
	if (rc < 0)
		(void)lock(current->lock_fd, current->read_only);
	return rc;
}

static int probe(struct block_file *file, const struct stat *st, uint64_t *size)
{
	file->dev = st->st_dev;
	file->ino = st->st_ino;
	file->block_device = S_ISBLK(st->st_mode);
	if (file->block_device)
		return probe_block_device(file, size);
	*size = (uint64_t)st->st_size;
	probe_regular_file(file, st);
	return 0;
}

static int open_and_lock(struct block_file *file, const char *name, const char *path,
			 const struct block_file *current, uint64_t *size, struct err *err)
{
	const char *shown = fd_name(path);
	struct stat st = { 0 }, locked = { 0 };
	int rc = open_checked(path, file->read_only, &st);

	if (rc < 0)
		return open_failed(rc, name, shown, err);
	file->fd = rc;
	rc = open_checked(path, file->read_only, &locked);
	if (rc < 0)
		return open_failed(rc, name, shown, err);
	file->lock_fd = rc;
	rc = probe(file, &st, size);
	if (rc < 0)
		return err_sys(err, -rc, "%s: %s: its size", name, shown);
	/* Last, because whoever has it now loses it. */
	rc = st.st_dev == locked.st_dev && st.st_ino == locked.st_ino
		     ? lock_or_take_over(file, current)
		     : -ESTALE; /* the path has just been given to another file */
	if (rc == -EBUSY)
		return err_set(err, EBUSY,
			       "%s: %s: in use by another process or drive; all that only read it "
			       "can share it",
			       name, shown);
	return rc < 0 ? err_sys(err, -rc, "%s: %s", name, shown) : 0;
}

int block_file_open(struct block_file *file, const char *name, const char *path, bool read_only,
		    const struct block_file *current, struct err *err)
{
	uint64_t size = 0;
	int rc;

	*file = (struct block_file){ .fd = -1, .lock_fd = -1, .read_only = read_only };
	rc = open_and_lock(file, name, path, current, &size, err);
	if (rc < 0) {
		block_file_close(file);
		return rc;
	}
	if (size % BLOCK_SECTOR_SIZE)
		log_warn("%s: %s: the last %u bytes are less than a sector, and ignored", name,
			 fd_name(path), (unsigned int)(size % BLOCK_SECTOR_SIZE));
	file->sectors = size / BLOCK_SECTOR_SIZE;
	return 0;
}

void block_file_close(struct block_file *file)
{
	fd_close(&file->fd);
	fd_close(&file->lock_fd);
}
