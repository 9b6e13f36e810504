/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What does a block device's I/O: io_uring; a thread, with system calls, one after the other; or
 * the main thread itself, for files in memory, where nothing waits. No call of an engine waits for
 * a disk. Called under the device's lock, by the main thread; cancel also by a vCPU thread.
 */
#ifndef MOTE_VIRTIO_BLOCK_ENGINE_H
#define MOTE_VIRTIO_BLOCK_ENGINE_H

#include <stdbool.h>

#include "virtio/block/io.h"
#include "virtio/block/worker.h"

struct block_engine;
struct err;

struct block_engine_ops {
	/* Whether submit may be called. If not, there is something in flight. */
	bool (*has_room)(const struct block_engine *engine);
	/* Takes an I/O, which stays the caller's; it may be done before this returns. */
	void (*submit)(struct block_engine *engine, struct block_io *io);
	/*
	 * After the last submit of a batch and when event_fd is readable: starts what was
	 * submitted, takes what has ended. True if it is to be called again in another turn of the
	 * event loop, without an event.
	 */
	bool (*poll)(struct block_engine *engine);
	/*
	 * Continues nothing: what needs another step, or has not begun, is done with -ECANCELED, at
	 * once or, where a step is being done, when that ends. Nothing is submitted until then.
	 */
	void (*cancel)(struct block_engine *engine);
	/*
	 * All I/O goes to this file from now on, not owned; -1: to none. Nothing is in flight. 0 or
	 * -errno.
	 */
	int (*set_file)(struct block_engine *engine, int fd);
	/* Nothing is in flight. */
	void (*close)(struct block_engine *engine);
};

struct block_engine {
	const struct block_engine_ops *ops;
	int event_fd; /* non-blocking, readable when poll has something to do; -1 never. Owned */
	unsigned int in_flight; /* submitted and not done */
	bool discards;		/* block devices, too */
	/* Called with each I/O's result, 0 or -errno, from submit, poll or cancel. */
	void (*done)(void *opaque, struct block_io *io, int result);
	void *opaque;
};

/* For files in memory. NULL: no memory. */
struct block_engine *block_engine_here_open(void);
/*
 * NULL with err set. The thread is there from now on, since a filter of system calls forbids to
 * start one later; confine, which may be NULL, puts it under its own.
 */
struct block_engine *block_engine_thread_open(block_confine *confine, struct err *err);
/*
 * NULL with err set: the host's kernel refuses io_uring. fd is the file of all I/O, not owned. The
 * ring takes reads, writes, syncs and fallocates of its one registered file and nothing else, for
 * good: it is no way around a seccomp filter. It cannot discard on a block device; for that, with
 * `discards`, it has a thread.
 */
struct block_engine *block_engine_uring_open(int fd, bool discards, block_confine *confine,
					     struct err *err);

#endif
