/* SPDX-License-Identifier: Apache-2.0 */
/* A virtio block device on a raw file or block device of the host (virtio 1.2, 5.2). */
#ifndef MOTE_VIRTIO_BLOCK_BLOCK_H
#define MOTE_VIRTIO_BLOCK_BLOCK_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/metrics.h"
#include "base/rate_limiter.h"
#include "virtio/block/worker.h"
#include "virtio/core/device.h"

struct err;
struct block;

enum block_engine_kind {
	BLOCK_ENGINE_ASYNC, /* io_uring, where the host's kernel allows it; else Sync, and a log
			       line */
	BLOCK_ENGINE_SYNC,  /* a thread that makes system calls, one after the other */
};

struct block_config {
	const char *id; /* names it in the log; its first 20 bytes are the serial number (GET_ID) */
	const char *path; /* of the host's file */
	bool read_only;
	bool writeback; /* offer FLUSH, which syncs the file; without it a flush does nothing */
	enum block_engine_kind engine;
	struct rate_limiter_config limiter;
	/* The drive that is closed if this one opens, whose lock on the file is no obstacle; or
	   NULL. */
	const struct block *replaces;
};

struct block_metrics {
	uint64_t activate_fails;
	uint64_t cfg_fails;
	uint64_t no_avail_buffer;
	uint64_t execute_fails;
	uint64_t invalid_reqs_count;
	uint64_t flush_count;
	uint64_t queue_event_count;
	uint64_t rate_limiter_event_count;
	uint64_t rate_limiter_throttled_events;
	uint64_t io_engine_throttled_events;
	uint64_t update_count;
	uint64_t update_fails;
	uint64_t read_bytes;
	uint64_t write_bytes;
	uint64_t read_count;
	uint64_t write_count;
	uint64_t discard_count;
	uint64_t write_zeroes_count;
	/* Requests by what served them: io_uring, a thread, or at once, for files in memory. */
	uint64_t engine_async_count;
	uint64_t engine_sync_count;
	uint64_t engine_memory_count;
};

extern const struct metric block_metric_table[];

/*
 * Opens and checks the file; the configuration's strings are copied. The device is freed by
 * virtio_device_close. 0 or -errno with err set; on failure *block is NULL.
 */
int block_open(struct block **block, const struct block_config *config, struct err *err);
struct virtio_device *block_device(struct block *block);
/* Of a virtio_device that is one. */
struct block *block_of(struct virtio_device *device);

/*
 * Replaces the file of a device, running or not: what is in flight ends on the old one, for which
 * BLOCK_SETTLE_MS are enough or the call fails; the driver is told the new capacity. 0 or -errno
 * with err set, then nothing has changed. Main thread.
 */
#define BLOCK_SETTLE_MS 500
int block_replace_file(struct block *block, const char *path, struct err *err);
/* New limits, buckets full. Main thread. */
void block_set_limiter(struct block *block, const struct rate_limiter_config *limiter);

#endif
