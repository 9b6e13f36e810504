/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/block/block.h"

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/state.h"
#include "virtio/block/internal.h"

/* A chain is as long as the queue, and has a header and a status besides the data. */
#define SEG_MAX (BLOCK_QUEUE_SIZE - 2)

#define GEOMETRY_HEADS 16
#define GEOMETRY_SECTORS 63

#define FEATURE(bit) (UINT64_C(1) << VIRTIO_BLK_F_##bit)

_Static_assert(BLOCK_QUEUE_SIZE <= VIRTQ_SIZE_MAX, "a slot has room for the longest chain");

const struct metric block_metric_table[] = {
	METRIC(block_metrics, activate_fails),
	METRIC(block_metrics, cfg_fails),
	METRIC(block_metrics, no_avail_buffer),
	METRIC_NEVER("event_fails"),
	METRIC(block_metrics, execute_fails),
	METRIC(block_metrics, invalid_reqs_count),
	METRIC(block_metrics, flush_count),
	METRIC(block_metrics, queue_event_count),
	METRIC(block_metrics, rate_limiter_event_count),
	METRIC(block_metrics, rate_limiter_throttled_events),
	METRIC(block_metrics, io_engine_throttled_events),
	METRIC(block_metrics, update_count),
	METRIC(block_metrics, update_fails),
	METRIC(block_metrics, read_bytes),
	METRIC(block_metrics, write_bytes),
	METRIC(block_metrics, read_count),
	METRIC(block_metrics, write_count),
	METRIC_NEVER("remaining_reqs_count"),
	METRIC_NEVER_TIMED("read_agg"),
	METRIC_NEVER_TIMED("write_agg"),
	METRIC_OWN(block_metrics, discard_count),
	METRIC_OWN(block_metrics, write_zeroes_count),
	METRIC_OWN(block_metrics, engine_async_count),
	METRIC_OWN(block_metrics, engine_sync_count),
	METRIC_OWN(block_metrics, engine_memory_count),
	{ NULL, 0 },
};

struct virtio_device *block_device(struct block *block)
{
	return &block->device;
}

struct block *block_of(struct virtio_device *device)
{
	return (struct block *)((char *)device - offsetof(struct block, device));
}

void block_offer_features(struct block *block)
{
	const struct block_file *file = &block->file;
	uint64_t features = FEATURE(SEG_MAX) | FEATURE(GEOMETRY) | FEATURE(BLK_SIZE);

	if (file->physical_exponent > 0)
		features |= FEATURE(TOPOLOGY);
	if (block->read_only)
		features |= FEATURE(RO);
	if (block->writeback)
		features |= FEATURE(FLUSH);
	if (file->discard)
		features |= FEATURE(DISCARD);
	if (file->write_zeroes)
		features |= FEATURE(WRITE_ZEROES);
	block->device.features = features;
}

/* 5.2.4; what belongs to a feature that is not offered has no meaning. */
static void fill_config(struct block *block)
{
	const struct block_file *file = &block->file;
	const uint64_t cylinders = file->sectors / (GEOMETRY_HEADS * GEOMETRY_SECTORS);
	const unsigned int physical_sectors = 1u << file->physical_exponent;

	block->config = (struct virtio_blk_config){
		.capacity = htole64(file->sectors),
		.seg_max = htole32(SEG_MAX),
		.geometry = {
			.cylinders = htole16((uint16_t)(cylinders < UINT16_MAX ? cylinders
									       : UINT16_MAX)),
			.heads = GEOMETRY_HEADS,
			.sectors = GEOMETRY_SECTORS,
		},
		.blk_size = htole32((uint32_t)BLOCK_SECTOR_SIZE),
		.physical_block_exp = (uint8_t)file->physical_exponent,
		.min_io_size = htole16((uint16_t)physical_sectors),
		.max_discard_sectors = htole32(block_range_sectors_max(file)),
		.max_discard_seg = htole32(BLOCK_RANGES_MAX),
		.discard_sector_alignment = htole32(physical_sectors),
		.max_write_zeroes_sectors = htole32(block_range_sectors_max(file)),
		.max_write_zeroes_seg = htole32(BLOCK_RANGES_MAX),
		.write_zeroes_may_unmap = 1,
	};
}

static int allocate(struct block *block, const struct block_config *config, struct err *err)
{
	block->requests = calloc(BLOCK_ENGINE_DEPTH, sizeof(*block->requests));
	block->iovs = calloc((size_t)BLOCK_ENGINE_DEPTH * VIRTQ_SIZE_MAX, sizeof(*block->iovs));
	if (asprintf(&block->name, "drive %s", config->id) < 0)
		block->name = NULL;
	if (!block->requests || !block->iovs || !block->name)
		return err_set(err, ENOMEM, "drive %s: no memory", config->id);
	block_init_slots(block);
	/* Padded with zeroes, not terminated (5.2.6.1). */
	memcpy(block->serial, config->id, strnlen(config->id, sizeof(block->serial)));
	return 0;
}

/*
 * The kernel still works for it: on the device's memory, its file and guest memory. The list keeps
 * it for as long as that may be, which is the rest of the process's life.
 */
static void abandon(struct block *block)
{
	static struct block *all;

	log_warn("%s: what is in flight does not end; the disk is too slow to wait for it",
		 block->name);
	if (block->engine_event)
		event_free(block->engine_event);
	block->engine_event = NULL;
	block->abandoned = true;
	block->next_abandoned = all;
	all = block;
}

static int attach(struct virtio_device *device, const struct virtio_host *host, struct err *err)
{
	struct block *block = block_of(device);

	block->base = host->base;
	block->limiter_timer = evtimer_new(host->base, block_on_limiter, block);
	block->turn_timer = evtimer_new(host->base, block_on_turn, block);
	if (!block->limiter_timer || !block->turn_timer)
		return err_set(err, ENOMEM, "%s: no memory for its events", block->name);
	return block_open_engines(block, host->confine, err);
}

static bool detach(struct virtio_device *device, int64_t until_ns)
{
	struct block *block = block_of(device);
	bool settled;

	if (!block->base)
		return !block->abandoned;
	pthread_mutex_lock(&device->lock);
	device->active = false;
	settled = block_cancel(block) || block_settle(block, until_ns);
	pthread_mutex_unlock(&device->lock);
	if (block->limiter_timer)
		event_free(block->limiter_timer);
	if (block->turn_timer)
		event_free(block->turn_timer);
	block->limiter_timer = NULL;
	block->turn_timer = NULL;
	block->base = NULL;
	if (settled) {
		block_close_engines(block);
		return true;
	}
	abandon(block);
	return false;
}

static void close_block(struct virtio_device *device)
{
	struct block *block = block_of(device);

	virtio_device_release(device);
	block_file_close(&block->file);
	free(block->requests);
	free(block->iovs);
	free(block->name);
	free(block);
}

/* What is in flight has ended, and what was throttled is in the queue again. */
static void save(const struct virtio_device *device, struct state_writer *out)
{
	const struct block *block = (const struct block *)device;

	state_put_u64(out, block->file.sectors);
	state_put_bytes(out, block->serial, sizeof(block->serial));
	rate_limiter_save(&block->limiter, out, clock_ns());
}

static int restore(struct virtio_device *device, struct state_reader *in, uint32_t version,
		   struct err *err)
{
	struct block *block = block_of(device);
	const uint64_t sectors = state_get_u64(in);
	struct rate_limiter limiter;
	char serial[BLOCK_ID_SIZE];
	int rc;

	(void)version;
	state_get_bytes(in, serial, sizeof(serial));
	if (rate_limiter_restore(&limiter, in, clock_ns()) < 0)
		return err_set(err, EINVAL, "%s: saved rate limiter that cannot be", block->name);
	rc = virtio_device_read_all(device, in, err);
	if (rc < 0)
		return rc;
	if (memcmp(serial, block->serial, sizeof(serial)) != 0)
		return err_set(err, EINVAL, "%s: it had another serial number when it was saved",
			       block->name);
	if (sectors != block->file.sectors)
		return err_set(err, EINVAL,
			       "%s: has %" PRIu64 " bytes, and %" PRIu64 " when it was saved",
			       block->name, block->file.sectors * BLOCK_SECTOR_SIZE,
			       sectors * BLOCK_SECTOR_SIZE);
	block->limiter = limiter;
	return 0;
}

static const struct virtio_ops ops = {
	.attach = attach,
	.reset = block_reset,
	.notified = block_notified,
	.freeze = block_freeze,
	.state_version = 1,
	.save = save,
	.restore = restore,
	.changing_features = FEATURE(TOPOLOGY) | FEATURE(DISCARD) | FEATURE(WRITE_ZEROES),
	.detach = detach,
	.close = close_block,
	.counters = block_metric_table,
};

int block_open(struct block **opened, const struct block_config *config, struct err *err)
{
	const uint16_t queue_size = BLOCK_QUEUE_SIZE;
	struct block *block = calloc(1, sizeof(*block));
	int rc;

	*opened = NULL;
	if (!block)
		return err_set(err, ENOMEM, "drive %s: no memory", config->id);
	block->file.fd = -1;
	block->file.lock_fd = -1;
	block->read_only = config->read_only;
	block->writeback = config->writeback;
	block->engine_kind = config->engine;
	rate_limiter_init(&block->limiter, &config->limiter, clock_ns());
	rc = allocate(block, config, err);
	if (rc == 0)
		rc = virtio_device_open(&block->device, &ops, VIRTIO_ID_BLOCK, block->name,
					&queue_size, 1, err);
	/* Last: from here on the one that is replaced may be without its lock. */
	if (rc == 0)
		rc = block_file_open(&block->file, block->name, config->path, config->read_only,
				     config->replaces ? &config->replaces->file : NULL, err);
	if (rc < 0) {
		close_block(&block->device);
		return rc;
	}
	fill_config(block);
	block_offer_features(block);
	block->device.counters = &block->metrics;
	block->device.config = &block->config;
	block->device.config_size = sizeof(block->config);
	*opened = block;
	return 0;
}

/* For another file, with nothing in flight on the one that is there. */
static int prepare_engine(struct block *block, struct block_file *file, struct err *err)
{
	int rc;

	if (!block->base)
		return 0;
	if (!block_settle(block, clock_ns() + BLOCK_SETTLE_MS * NS_PER_MS))
		return err_set(
			err, EBUSY,
			"%s: what is in flight on its present file does not end in time, and "
			"nothing has changed",
			block->name);
	rc = block->engine->ops->set_file(block->engine, file->in_memory ? -1 : file->fd);
	if (rc < 0)
		return err_sys(err, -rc, "%s: io_uring", block->name);
	/* A thread for it cannot be started any more. */
	if (file->block_device && !block->engine->discards)
		file->discard = false;
	return 0;
}

int block_replace_file(struct block *block, const char *path, struct err *err)
{
	struct virtio_device *device = &block->device;
	struct block_file file, old;
	int rc = block_file_open(&file, block->name, path, block->read_only, &block->file, err);

	pthread_mutex_lock(&device->lock);
	if (rc == 0) {
		rc = prepare_engine(block, &file, err);
		if (rc < 0)
			block_file_close(&file);
	}
	if (rc < 0) {
		block->metrics.update_fails++;
	} else {
		old = block->file;
		block->file = file;
		block_file_close(&old);
		fill_config(block);
		/* A driver that is there has made its choice, which each request is checked for. */
		if (device->status == 0)
			block_offer_features(block);
		virtio_device_config_changed(device);
		block->metrics.update_count++;
	}
	block_publish(block);
	block_request_turn(block);
	pthread_mutex_unlock(&device->lock);
	return rc;
}

void block_set_limiter(struct block *block, const struct rate_limiter_config *limiter)
{
	pthread_mutex_lock(&block->device.lock);
	rate_limiter_init(&block->limiter, limiter, clock_ns());
	block_request_turn(block);
	pthread_mutex_unlock(&block->device.lock);
}
