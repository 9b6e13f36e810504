/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of a block device: block.c opens, attaches and changes it, block_queue.c works. */
#ifndef MOTE_VIRTIO_BLOCK_INTERNAL_H
#define MOTE_VIRTIO_BLOCK_INTERNAL_H

#include <linux/virtio_blk.h>

#include "virtio/block/block.h"
#include "virtio/block/engine.h"
#include "virtio/block/file.h"
#include "virtio/block/request.h"

#define BLOCK_QUEUE_SIZE 256
/* Bytes in flight; one request may be larger, alone. */
#define BLOCK_IN_FLIGHT_MAX (UINT64_C(32) << 20)

struct block {
	struct virtio_device device; /* first */
	/* Constant once opened. */
	char *name; /* "drive ID" */
	char serial[BLOCK_ID_SIZE];
	bool read_only;
	bool writeback;
	enum block_engine_kind engine_kind; /* as it is configured */
	bool on_ring;			    /* what `engine` is */
	/*
	 * A slot for each I/O in flight: requests[i] owns iovs[i * VIRTQ_SIZE_MAX] and following.
	 * The last one given back is the next one used, so that only as many pages are touched as
	 * requests are ever in flight at a time.
	 */
	struct block_request *requests;
	struct iovec *iovs;

	/* Under the device's lock. */
	struct block_file file;
	struct virtio_blk_config config;
	struct rate_limiter limiter;
	struct block_engine *engine;	   /* a ring or a thread; NULL detached */
	struct block_engine *here;	   /* instead of it for a file in memory; NULL detached */
	uint16_t free[BLOCK_ENGINE_DEPTH]; /* indices of slots, a stack */
	unsigned int free_count;
	uint64_t cost_in_flight;    /* bytes, see BLOCK_IN_FLIGHT_MAX */
	struct block_request *held; /* popped; waits for the limiter or for others to end */
	bool throttled;		    /* it is the limiter, and was counted */
	bool pushed;		    /* something is to be published */
	struct block_metrics metrics;
	struct log_limit log_limit;

	/* Main thread only. */
	struct event_base *base; /* NULL detached */
	struct event *engine_event;
	struct event *limiter_timer;
	/*
	 * Another turn, as soon as the others have had theirs. A timer of 0: what event_active()
	 * activates runs before the file descriptors are looked at again.
	 */
	struct event *turn_timer;
	bool abandoned; /* detached with something in flight */
	struct block *next_abandoned;
};

/* The device's ops: block.c has what opens and closes, queue.c what works. */
bool block_reset(struct virtio_device *device);
void block_notified(struct virtio_device *device, unsigned int queue);
bool block_freeze(struct virtio_device *device, int64_t until_ns);

/* What the file and the configuration allow. While no driver is there (status 0). */
void block_offer_features(struct block *block);

/* All slots free. */
void block_init_slots(struct block *block);
/*
 * Before the start, because a filter of system calls then forbids to set up a ring or a thread. 0
 * or -errno with err set, after which block_close_engines() is due. Main thread.
 */
int block_open_engines(struct block *block, block_confine *confine, struct err *err);
/* Nothing is in flight. Main thread. */
void block_close_engines(struct block *block);

/* Waits until nothing is in flight; false if it is not by then. Main thread, under the lock. */
bool block_settle(struct block *block, int64_t until_ns);
/* Ends what is in flight; true if that is all. Under the lock; the main thread or a vCPU's. */
bool block_cancel(struct block *block);
/* Shows the driver what is done, and asks for another turn. Main thread, under the lock. */
void block_publish(struct block *block);
void block_request_turn(struct block *block);

void block_on_limiter(evutil_socket_t fd, short events, void *opaque);
void block_on_turn(evutil_socket_t fd, short events, void *opaque);

#endif
