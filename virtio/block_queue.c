/* SPDX-License-Identifier: Apache-2.0 */
/* From the queue to the engine and back. */
#include <errno.h>
#include <linux/virtio_blk.h>
#include <stddef.h>
#include <string.h>
#include <time.h>

#include "base/err.h"
#include "virtio/block_device.h"

/* What one turn in the event loop takes from the queue, and how often it looks again. */
#define TURN_REQUESTS 1024
#define TURN_ROUNDS 4

#define NS_PER_S INT64_C(1000000000)
/* A longer wait for the limiter is cut into such ones. */
#define LIMITER_WAIT_MAX (3600 * NS_PER_S)

struct turn {
	unsigned int requests;
	uint64_t bytes;
};

/* Why no more requests are taken. */
enum stop {
	STOP_EMPTY,
	STOP_TURN,    /* it is the others' turn */
	STOP_LIMITER, /* its timer runs */
	STOP_ENGINE,  /* no slot or no room; a completion follows */
	STOP_BROKEN,  /* the queue */
};

static struct block *block_of(struct virtio_device *device)
{
	return (struct block *)((char *)device - offsetof(struct block, device));
}

int64_t block_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * NS_PER_S + now.tv_nsec;
}

void block_init_slots(struct block *block)
{
	for (unsigned int i = 0; i < BLOCK_ENGINE_DEPTH; i++)
		block->free[i] = (uint16_t)(BLOCK_ENGINE_DEPTH - 1 - i);
	block->free_count = BLOCK_ENGINE_DEPTH;
}

static void release(struct block *block, struct block_request *request)
{
	block->free[block->free_count++] = (uint16_t)(request - block->requests);
}

void block_publish(struct block *block)
{
	if (block->pushed)
		virtio_device_publish(&block->device, &block->device.queues[0]);
	block->pushed = false;
}

void block_request_turn(struct block *block)
{
	const struct timeval now = { 0 };

	/* Fails for want of memory only; a later notification or completion does it, too. */
	if (block->turn_timer)
		(void)evtimer_add(block->turn_timer, &now);
}

/* Gives the chain back. `written` bytes of data, without the status. */
static void answer(struct block *block, struct block_request *request, uint8_t status,
		   uint64_t written)
{
	if (request->status)
		*(volatile uint8_t *)request->status = status;
	virtq_push(&block->device.queues[0], request->head,
		   request->status ? (uint32_t)written + 1 : 0);
	block->pushed = true;
	release(block, request);
}

static void count_success(struct block_metrics *metrics, const struct block_request *request)
{
	switch (request->type) {
	case VIRTIO_BLK_T_IN:
		metrics->read_count++;
		metrics->read_bytes += request->data_len;
		break;
	case VIRTIO_BLK_T_OUT:
		metrics->write_count++;
		metrics->write_bytes += request->data_len;
		break;
	case VIRTIO_BLK_T_FLUSH:
		metrics->flush_count++;
		break;
	case VIRTIO_BLK_T_DISCARD:
		metrics->discard_count++;
		break;
	default:
		metrics->write_zeroes_count++;
		break;
	}
}

static const char *type_name(uint32_t type)
{
	switch (type) {
	case VIRTIO_BLK_T_IN:
		return "read";
	case VIRTIO_BLK_T_OUT:
		return "write";
	case VIRTIO_BLK_T_FLUSH:
		return "flush";
	case VIRTIO_BLK_T_DISCARD:
		return "discard";
	default:
		return "write of zeroes";
	}
}

static uint64_t failed_sector(const struct block_request *request)
{
	const struct block_io *io = &request->io;

	if (request->type == VIRTIO_BLK_T_IN || request->type == VIRTIO_BLK_T_OUT)
		return io->offset / BLOCK_SECTOR_SIZE;
	return io->range < io->range_count ? io->ranges[io->range].offset / BLOCK_SECTOR_SIZE : 0;
}

static void log_failure(struct block *block, const struct block_request *request, int errnum)
{
	const char *cause =
		errnum == ENODATA ? "the file has become shorter" : strerrordesc_np(errnum);

	log_limited_line(&block->log_limit, LOG_ERROR, "%s: %s at sector %llu: %s", block->name,
			 type_name(request->type), (unsigned long long)failed_sector(request),
			 cause ? cause : "unknown error");
}

static void execute_failed(struct block *block, struct block_request *request, int errnum)
{
	block->metrics.execute_fails++;
	log_failure(block, request, errnum);
	answer(block, request, errnum == EOPNOTSUPP ? VIRTIO_BLK_S_UNSUPP : VIRTIO_BLK_S_IOERR, 0);
}

static void request_done(void *opaque, struct block_io *io, int result)
{
	struct block_request *request =
		(struct block_request *)((char *)io - offsetof(struct block_request, io));
	struct block *block = opaque;

	if (block->dropping || !block->device.active) {
		release(block, request);
		return;
	}
	if (result < 0) {
		execute_failed(block, request, -result);
		return;
	}
	count_success(&block->metrics, request);
	answer(block, request, VIRTIO_BLK_S_OK,
	       request->type == VIRTIO_BLK_T_IN ? request->data_len : 0);
}

static void run(struct block *block);

static void on_engine(evutil_socket_t fd, short events, void *opaque)
{
	struct block *block = opaque;

	(void)fd;
	(void)events;
	pthread_mutex_lock(&block->device.lock);
	run(block);
	pthread_mutex_unlock(&block->device.lock);
}

static void use_engine(struct block *block, struct block_engine *engine)
{
	engine->done = request_done;
	engine->opaque = block;
	block->engine = engine;
}

/*
 * On a file system in memory that does not know RWF_NOWAIT, io_uring would hand each request to a
 * worker thread, though it waits for nothing: there the Async engine, too, does it here and now.
 */
void block_open_uring(struct block *block)
{
	struct block_engine *engine;
	struct err err;

	if (block->engine_kind != BLOCK_ENGINE_ASYNC || block->file.in_memory)
		return;
	engine = block_engine_uring_open(block->file.fd, &err);
	if (!engine) {
		log_warn("%s: %s; using the Sync engine instead", block->name, err.text);
		return;
	}
	/* Edge-triggered: each completion is an edge, and nobody need read the eventfd. */
	block->engine_event = event_new(block->base, engine->event_fd, EV_READ | EV_PERSIST | EV_ET,
					on_engine, block);
	if (block->engine_event && event_add(block->engine_event, NULL) == 0) {
		use_engine(block, engine);
		return;
	}
	if (block->engine_event)
		event_free(block->engine_event);
	block->engine_event = NULL;
	engine->ops->close(engine);
}

static bool have_engine(struct block *block)
{
	struct block_engine *engine;

	if (block->engine)
		return true;
	engine = block_engine_sync_open();
	if (engine)
		use_engine(block, engine);
	return engine != NULL;
}

static void drain_engine(struct block *block, bool cancel)
{
	block->dropping = cancel;
	block->engine->ops->drain(block->engine, cancel);
	block->dropping = false;
}

void block_set_engine_file(struct block *block, const struct block_file *file)
{
	struct block_engine *engine = block->engine;

	if (!engine)
		return;
	drain_engine(block, false);
	if (!file->in_memory && engine->ops->set_file(engine, file->fd) == 0)
		return;
	block_close_engine(block, false);
}

void block_close_engine(struct block *block, bool cancel)
{
	struct block_engine *engine = block->engine;

	if (!engine)
		return;
	drain_engine(block, cancel);
	/* Before its eventfd is closed. */
	if (block->engine_event)
		event_free(block->engine_event);
	block->engine_event = NULL;
	engine->ops->close(engine);
	block->engine = NULL;
}

static void start(struct block *block, struct block_request *request)
{
	struct block_io *io = &request->io;
	uint8_t status = block_request_check(request, &block->file, block->device.driver_features);

	if (status != VIRTIO_BLK_S_OK) {
		block->metrics.invalid_reqs_count++;
		rate_limiter_give_back(&block->limiter, request->data_len);
		answer(block, request, status, 0);
		return;
	}
	if (request->type == VIRTIO_BLK_T_GET_ID) {
		block_part_write(&request->in, block->serial, sizeof(block->serial));
		answer(block, request, VIRTIO_BLK_S_OK, sizeof(block->serial));
		return;
	}
	if (request->type == VIRTIO_BLK_T_FLUSH && !block->writeback) {
		count_success(&block->metrics, request);
		answer(block, request, VIRTIO_BLK_S_OK, 0);
		return;
	}
	if (!have_engine(block)) {
		execute_failed(block, request, ENOMEM);
		return;
	}
	/* 5.2.6.2: a driver that declines FLUSH relies on a write that is done being stable. */
	io->durable = block->writeback && !virtio_has_feature(&block->device, VIRTIO_BLK_F_FLUSH);
	block->engine->ops->submit(block->engine, io);
}

/* What starting it may keep the others waiting for. */
static uint64_t cost(const struct block_request *request)
{
	switch (request->type) {
	case VIRTIO_BLK_T_FLUSH:
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
		return BLOCK_STEP_MAX;
	default:
		return request->data_len;
	}
}

/* 0, or nanoseconds until the request may be started. */
static int64_t throttle(struct block *block, const struct block_request *request)
{
	int64_t wait;
	struct timeval after;

	if (!rate_limiter_limits(&block->limiter))
		return 0;
	wait = rate_limiter_take(&block->limiter, request->data_len, block_now_ns());
	if (wait == 0)
		return 0;
	if (!block->throttled)
		block->metrics.rate_limiter_throttled_events++;
	if (wait > LIMITER_WAIT_MAX)
		wait = LIMITER_WAIT_MAX;
	after.tv_sec = wait / NS_PER_S;
	after.tv_usec = wait % NS_PER_S / 1000 + 1;
	(void)evtimer_add(block->limiter_timer, &after);
	return wait;
}

static bool has_room(const struct block *block)
{
	return block->free_count > 0 &&
	       (!block->engine || block->engine->ops->has_room(block->engine));
}

/* 1 with the request in a slot of its own, which it may have left again; 0 none; -EPROTO. */
static int pop(struct block *block, struct block_request **popped)
{
	const uint16_t index = block->free[block->free_count - 1];
	struct block_request *request = &block->requests[index];
	struct virtq_chain chain;
	int rc = virtq_pop(&block->device.queues[0], &chain,
			   &block->iovs[(size_t)index * VIRTQ_SIZE_MAX], VIRTQ_SIZE_MAX);

	*popped = NULL;
	if (rc <= 0)
		return rc;
	block->free_count--;
	if (block_request_parse(request, &chain) == 0) {
		*popped = request;
		return 1;
	}
	block->metrics.invalid_reqs_count++;
	answer(block, request, VIRTIO_BLK_S_IOERR, 0);
	return 1;
}

static enum stop take_requests(struct block *block, struct turn *turn)
{
	struct virtio_device *device = &block->device;

	while (turn->requests < TURN_REQUESTS && turn->bytes < BLOCK_TURN_MAX) {
		struct block_request *request = block->throttled;

		if (!request && !virtq_has_more(&device->queues[0]))
			return STOP_EMPTY;
		if (!has_room(block)) {
			block->metrics.io_engine_throttled_events++;
			return STOP_ENGINE;
		}
		if (!request) {
			int rc = pop(block, &request);

			if (rc == 0)
				return STOP_EMPTY;
			if (rc < 0) {
				virtio_device_fail(device, "%s", virtq_error(&device->queues[0]));
				return STOP_BROKEN;
			}
			turn->requests++;
			if (!request)
				continue;
		}
		if (throttle(block, request) > 0) {
			block->throttled = request;
			return STOP_LIMITER;
		}
		block->throttled = NULL;
		turn->bytes += cost(request);
		start(block, request);
	}
	return STOP_TURN;
}

/* True if there is more to do, in another turn. */
static bool serve_queue(struct block *block, struct turn *turn)
{
	struct virtq *queue = &block->device.queues[0];
	bool more = false;

	for (unsigned int round = 0; round < TURN_ROUNDS; round++) {
		enum stop stop;

		virtq_disable_notify(queue);
		stop = take_requests(block, turn);
		more = block->engine && block->engine->ops->poll(block->engine);
		block_publish(block);
		switch (stop) {
		case STOP_EMPTY:
			if (!virtq_enable_notify(queue))
				return more;
			break;
		case STOP_ENGINE:
			/* What is in flight comes back, and with it we do. */
			if (!has_room(block))
				return more;
			break;
		case STOP_LIMITER:
		case STOP_BROKEN:
			return more;
		case STOP_TURN:
			return true;
		}
	}
	return true;
}

/* On the main thread, under the lock, whatever has happened. */
static void run(struct block *block)
{
	struct turn turn = { 0 };
	bool more;

	if (!block->base)
		return;
	more = block->engine && block->engine->ops->poll(block->engine);

	if (block->device.active && block->device.queues[0].ready)
		more = serve_queue(block, &turn);
	if (more)
		block_request_turn(block);
}

void block_on_turn(evutil_socket_t fd, short events, void *opaque)
{
	on_engine(fd, events, opaque);
}

void block_on_limiter(evutil_socket_t fd, short events, void *opaque)
{
	struct block *block = opaque;

	(void)fd;
	(void)events;
	pthread_mutex_lock(&block->device.lock);
	block->metrics.rate_limiter_event_count++;
	run(block);
	pthread_mutex_unlock(&block->device.lock);
}

static void notified(struct virtio_device *device, unsigned int queue)
{
	struct block *block = block_of(device);

	block->metrics.queue_event_count++;
	if (!block->throttled && !virtq_has_more(&device->queues[queue]))
		block->metrics.no_avail_buffer++;
	run(block);
}

static void reset(struct virtio_device *device)
{
	struct block *block = block_of(device);

	if (block->engine)
		drain_engine(block, true);
	if (block->throttled)
		release(block, block->throttled);
	block->throttled = NULL;
	block->pushed = false;
	/* The file may have been replaced by one that can more or less. */
	block_offer_features(block);
}

const struct virtio_ops block_ops = {
	.reset = reset,
	.notified = notified,
};
