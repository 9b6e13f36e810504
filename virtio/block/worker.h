/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thread of a block device's own, for system calls that may wait for the disk: however slow that
 * is, and whatever the guest asks of it, the main thread goes on. It does one I/O after the other,
 * each with all its steps. Called by the main thread and, for cancelling, by a vCPU thread, under
 * the device's lock; what is in flight is at most BLOCK_ENGINE_DEPTH.
 */
#ifndef MOTE_VIRTIO_BLOCK_WORKER_H
#define MOTE_VIRTIO_BLOCK_WORKER_H

#include "virtio/block/io.h"

struct block_worker;
struct err;

/* Called once on the new thread, which ends if it fails: 0 or -errno with err set. */
typedef int block_confine(struct err *err);

/*
 * Starts the thread. event_fd, not owned, is written to when something is done; confine may be
 * NULL. 0 or -errno with err set; on failure *worker is NULL.
 */
int block_worker_open(struct block_worker **worker, int event_fd, block_confine *confine,
		      struct err *err);
/* Ends the thread. Nothing is in flight. NULL is fine. */
void block_worker_close(struct block_worker *worker);

/* The I/O is the worker's until it is taken back. */
void block_worker_submit(struct block_worker *worker, struct block_io *io);
/* The next one that is done, with its result, 0 or -errno; NULL none. */
struct block_io *block_worker_take(struct block_worker *worker, int *result);
/*
 * What has not begun is done with -ECANCELED, and what is being done is so at the end of its step.
 * Nothing more is submitted until all of it has been taken.
 */
void block_worker_cancel(struct block_worker *worker);

#endif
