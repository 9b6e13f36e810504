/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who does a block device's I/O: with system calls, one after the other (sync), or with io_uring.
 * Called under the device's lock, by the main thread; drain also by a vCPU thread.
 */
#ifndef MOTE_VIRTIO_BLOCK_ENGINE_H
#define MOTE_VIRTIO_BLOCK_ENGINE_H

#include <stdbool.h>

#include "virtio/block_io.h"

struct block_engine;
struct err;

/* What is in flight at most. */
#define BLOCK_ENGINE_DEPTH 256

struct block_engine_ops {
	/* Whether submit may be called. If not, there is something in flight. */
	bool (*has_room)(const struct block_engine *engine);
	/* Takes an I/O, which stays the caller's; it may be done before this returns. */
	void (*submit)(struct block_engine *engine, struct block_io *io);
	/*
	 * Behind the last submit of a batch and when event_fd is readable: starts what was
	 * submitted, takes what has ended. True if it is to be called again in another turn of the
	 * event loop, without an event.
	 */
	bool (*poll)(struct block_engine *engine);
	/*
	 * Waits until nothing is in flight. With `cancel`, what needs another step is not continued
	 * but done with -ECANCELED.
	 */
	void (*drain)(struct block_engine *engine, bool cancel);
	/* All I/O goes to this file from now on, not owned. Nothing is in flight. 0 or -errno. */
	int (*set_file)(struct block_engine *engine, int fd);
	/* Nothing is in flight. */
	void (*close)(struct block_engine *engine);
};

struct block_engine {
	const struct block_engine_ops *ops;
	int event_fd; /* non-blocking, readable when poll has something to do; -1 never. Owned */
	/* Called with each I/O's result, 0 or -errno, from submit, poll or drain. */
	void (*done)(void *opaque, struct block_io *io, int result);
	void *opaque;
};

/* NULL: no memory. */
struct block_engine *block_engine_sync_open(void);
/*
 * NULL with err set: the host's kernel refuses io_uring. fd is the file of all I/O, not owned. The
 * ring takes reads, writes, syncs and fallocates of its one registered file and nothing else, for
 * good: it is no way around a seccomp filter.
 */
struct block_engine *block_engine_uring_open(int fd, struct err *err);

#endif
