/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/block/io.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "virtio/block/file.h"

#define PUNCH_HOLE (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
#define ZERO_RANGE (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE)

static void next_transfer(struct block_io *io, struct block_step *step)
{
	step->kind = io->kind == BLOCK_IO_READ ? BLOCK_STEP_READ : BLOCK_STEP_WRITE;
	step->durable = io->durable;
	step->offset = io->offset;
	step->iov = io->iov;
	while (step->iov_count < io->iov_count &&
	       io->iov[step->iov_count].iov_len <= BLOCK_STEP_MAX - step->len)
		step->len += io->iov[step->iov_count++].iov_len;
	if (step->iov_count > 0)
		return;
	io->part = (struct iovec){ io->iov[0].iov_base, BLOCK_STEP_MAX };
	step->iov = &io->part;
	step->iov_count = 1;
	step->len = BLOCK_STEP_MAX;
}

/*
 * Zeroes that must not become a hole do where there is no other way: they read the same. On a block
 * device PUNCH_HOLE is only for what the device does by itself.
 */
static int zeroes_mode(const struct block_file *file, bool unmap)
{
	if (unmap)
		return file->no_punch_hole ? ZERO_RANGE : PUNCH_HOLE;
	return file->no_zero_range ? PUNCH_HOLE : ZERO_RANGE;
}

static uint64_t range_step(const struct block_range *range)
{
	return range->len < BLOCK_RANGE_STEP_MAX ? range->len : BLOCK_RANGE_STEP_MAX;
}

void block_io_next(struct block_io *io, struct block_step *step)
{
	const struct block_range *range = &io->ranges[io->range];

	*step = (struct block_step){ 0 };
	switch (io->kind) {
	case BLOCK_IO_READ:
	case BLOCK_IO_WRITE:
		next_transfer(io, step);
		return;
	case BLOCK_IO_SYNC:
		step->kind = BLOCK_STEP_SYNC;
		return;
	case BLOCK_IO_DISCARD:
		step->kind = io->file->block_device ? BLOCK_STEP_DISCARD : BLOCK_STEP_FALLOCATE;
		io->fallocate_mode = PUNCH_HOLE;
		break;
	case BLOCK_IO_WRITE_ZEROES:
		step->kind = BLOCK_STEP_FALLOCATE;
		io->fallocate_mode = zeroes_mode(io->file, range->unmap);
		break;
	}
	step->fallocate_mode = io->fallocate_mode;
	step->offset = range->offset;
	step->len = range_step(range);
}

static int advance_transfer(struct block_io *io, int64_t result)
{
	uint64_t done = (uint64_t)result;

	/* The file ends here: somebody has cut it off since it was opened. */
	if (done == 0)
		return -ENODATA;
	if (done > io->len)
		return -EIO;
	io->len -= done;
	io->offset += done;
	while (io->iov_count > 0 && done >= io->iov[0].iov_len) {
		done -= io->iov[0].iov_len;
		io->iov++;
		io->iov_count--;
	}
	if (io->len == 0)
		return 0;
	io->iov[0].iov_base = (char *)io->iov[0].iov_base + done;
	io->iov[0].iov_len -= done;
	return 1;
}

/*
 * Remembers what the kernel cannot do: the way that this I/O has gone, whatever others have found
 * out meanwhile. Whether the same can be tried in the other way.
 */
static bool other_zeroes(struct block_io *io)
{
	struct block_file *file = io->file;

	if (io->fallocate_mode == ZERO_RANGE)
		file->no_zero_range = true;
	else
		file->no_punch_hole = true;
	if (file->no_zero_range && file->no_punch_hole)
		return false;
	return zeroes_mode(file, io->ranges[io->range].unmap) != io->fallocate_mode;
}

/* True if there is more of this range, or another. */
static bool advance_range(struct block_io *io)
{
	struct block_range *range = &io->ranges[io->range];
	const uint64_t done = range_step(range);

	range->offset += done;
	range->len -= done;
	return range->len > 0 || ++io->range < io->range_count;
}

int block_io_advance(struct block_io *io, int64_t result)
{
	if (result == -EINTR)
		return 1;
	if (result == -EOPNOTSUPP && io->kind == BLOCK_IO_WRITE_ZEROES && other_zeroes(io))
		return 1;
	if (result < 0)
		return (int)result;
	switch (io->kind) {
	case BLOCK_IO_READ:
	case BLOCK_IO_WRITE:
		return advance_transfer(io, result);
	case BLOCK_IO_SYNC:
		return 0;
	case BLOCK_IO_DISCARD:
	case BLOCK_IO_WRITE_ZEROES:
		break;
	}
	if (advance_range(io))
		return 1;
	/* Nobody relies on what has been discarded. */
	if (!io->durable || io->kind == BLOCK_IO_DISCARD)
		return 0;
	io->kind = BLOCK_IO_SYNC;
	return 1;
}

int64_t block_step_run(int fd, const struct block_step *step)
{
	uint64_t range[2] = { step->offset, step->len };
	int64_t result = 0;

	switch (step->kind) {
	case BLOCK_STEP_READ:
		result = preadv(fd, step->iov, (int)step->iov_count, (off_t)step->offset);
		break;
	case BLOCK_STEP_WRITE:
		result = pwritev2(fd, step->iov, (int)step->iov_count, (off_t)step->offset,
				  step->durable ? RWF_DSYNC : 0);
		break;
	case BLOCK_STEP_SYNC:
		result = fdatasync(fd);
		break;
	case BLOCK_STEP_FALLOCATE:
		result = fallocate(fd, step->fallocate_mode, (off_t)step->offset, (off_t)step->len);
		break;
	case BLOCK_STEP_DISCARD:
		result = ioctl(fd, BLKDISCARD, range);
		break;
	}
	return result < 0 ? -errno : result;
}

uint64_t block_step_cost(const struct block_step *step)
{
	switch (step->kind) {
	case BLOCK_STEP_READ:
	case BLOCK_STEP_WRITE:
		return step->len;
	case BLOCK_STEP_FALLOCATE:
		/* Giving pages back takes about an eighth of the time of copying them. */
		return step->len / 8 > BLOCK_STEP_MAX ? step->len / 8 : BLOCK_STEP_MAX;
	default:
		return BLOCK_STEP_MAX;
	}
}
