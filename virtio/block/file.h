/* SPDX-License-Identifier: Apache-2.0 */
/* The host's file behind a block device: a regular file or a block device, and what it can do. */
#ifndef MOTE_VIRTIO_BLOCK_FILE_H
#define MOTE_VIRTIO_BLOCK_FILE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct err;

#define BLOCK_SECTOR_SHIFT 9
#define BLOCK_SECTOR_SIZE UINT64_C(512)

struct block_file {
	int fd; /* owned; -1 closed */
	/*
	 * Holds the advisory lock; owned. A descriptor of its own, because io_uring keeps a
	 * registered file open for some time after its process has died, and with it that file's
	 * locks.
	 */
	int lock_fd;
	dev_t dev; /* of the inode */
	ino_t ino;
	bool read_only;
	bool block_device;
	uint64_t sectors;		/* whole ones */
	unsigned int physical_exponent; /* of sectors in the host's block; 0 unknown */
	bool discard;
	bool write_zeroes;
	bool in_memory; /* I/O never waits for a device: a file system without RWF_NOWAIT's need */
	/*
	 * The file system does not know RWF_NOWAIT. Where it can be polled, as FUSE can, io_uring
	 * takes it for a kind of socket that is always ready, and waits for the disk in the call
	 * that submits, unless it is told to hand the request to a worker.
	 */
	bool needs_worker;
	/* What the kernel has answered EOPNOTSUPP to. */
	bool no_zero_range;
	bool no_punch_hole;
};

/*
 * Opens, checks and locks the file: exclusively, or shared if read_only. `current`, which may be
 * NULL, is the file of the same device that this one is to replace; if it is the same one, its lock
 * passes to this one. `name` is the device's, for the sentence. 0 or -errno with err set; on
 * failure there is nothing to close.
 */
int block_file_open(struct block_file *file, const char *name, const char *path, bool read_only,
		    const struct block_file *current, struct err *err);
/* Safe on a closed object. */
void block_file_close(struct block_file *file);

#endif
