/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a request wants of the file, and the steps in which an engine does it. One step is one
 * system call or one entry of a ring, and of bounded size; a step that transfers less than it might
 * is followed by another one.
 */
#ifndef MOTE_VIRTIO_BLOCK_IO_H
#define MOTE_VIRTIO_BLOCK_IO_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct block_file;

/* Of a discard or write-zeroes request (virtio 1.2, 5.2.6). */
#define BLOCK_RANGES_MAX 16
/* What an engine has in flight at most. */
#define BLOCK_ENGINE_DEPTH 256
/* Bytes of one step; and the share of a turn that a step without data is taken for. */
#define BLOCK_STEP_MAX (UINT64_C(4) << 20)
/* Bytes of one step of a discard or write-zeroes range. */
#define BLOCK_RANGE_STEP_MAX (UINT64_C(64) << 20)
/* Bytes that an engine moves before others have their turn in the event loop. */
#define BLOCK_TURN_MAX (UINT64_C(32) << 20)

enum block_io_kind {
	BLOCK_IO_READ,
	BLOCK_IO_WRITE,
	BLOCK_IO_SYNC,
	BLOCK_IO_DISCARD,
	BLOCK_IO_WRITE_ZEROES,
};

struct block_range {
	uint64_t offset;
	uint64_t len;
	bool unmap; /* zeroes may become a hole */
};

/* Filled by who submits it; changed by the steps. */
struct block_io {
	enum block_io_kind kind;
	bool durable;		 /* a write or its like is done when it is on the disk */
	struct block_file *file; /* not owned */
	/* READ and WRITE. */
	struct iovec *iov;
	unsigned int iov_count;
	uint64_t offset;
	uint64_t len; /* bytes left */
	struct iovec part;
	/* DISCARD and WRITE_ZEROES. */
	struct block_range ranges[BLOCK_RANGES_MAX];
	unsigned int range_count;
	unsigned int range; /* the next */
	int fallocate_mode; /* of its last step */
};

enum block_step_kind {
	BLOCK_STEP_READ,
	BLOCK_STEP_WRITE,
	BLOCK_STEP_SYNC,
	BLOCK_STEP_FALLOCATE,
	BLOCK_STEP_DISCARD, /* BLKDISCARD, which io_uring cannot do */
};

struct block_step {
	enum block_step_kind kind;
	bool durable;
	int fallocate_mode;
	const struct iovec *iov;
	unsigned int iov_count;
	uint64_t offset;
	uint64_t len;
};

/* The next step of an unfinished I/O. What it points to stays as it is until block_io_advance. */
void block_io_next(struct block_io *io, struct block_step *step);
/* Takes a step's result, bytes or -errno: 1 there is another step, 0 all done, -errno failed. */
int block_io_advance(struct block_io *io, int64_t result);
/* Does the step here and now; its result. */
int64_t block_step_run(int fd, const struct block_step *step);
/* Its share of a turn, in bytes. */
uint64_t block_step_cost(const struct block_step *step);

#endif
