/* SPDX-License-Identifier: Apache-2.0 */
/* From the queue to the engine and back. */
#include <errno.h>
#include <linux/virtio_blk.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "base/array.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "virtio/block/internal.h"

/* What one turn in the event loop takes from the queue, and how often it looks again. */
#define TURN_REQUESTS 1024
#define TURN_ROUNDS 4

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

void block_init_slots(struct block *block)
{
	for (unsigned int i = 0; i < BLOCK_ENGINE_DEPTH; i++)
		block->free[i] = (uint16_t)(BLOCK_ENGINE_DEPTH - 1 - i);
	block->free_count = BLOCK_ENGINE_DEPTH;
}

/* What a request may keep others waiting for: bytes, or what a step without data is taken for. */
static uint64_t cost(const struct block_request *request)
{
	switch (request->type) {
	case VIRTIO_BLK_T_IN:
	case VIRTIO_BLK_T_OUT:
		return request->data_len;
	default:
		return BLOCK_STEP_MAX;
	}
}

static void release(struct block *block, struct block_request *request)
{
	if (request->submitted)
		block->cost_in_flight -= cost(request);
	request->submitted = false;
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

	log_guest_line(&block->log_limit, LOG_ERROR, "%s: %s at sector %llu: %s", block->name,
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

	if (!block->device.active) {
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

static struct block_engine *engine_of(struct block *block)
{
	return block->file.in_memory ? block->here : block->engine;
}

static void count_engine(struct block *block)
{
	if (block->file.in_memory)
		block->metrics.engine_memory_count++;
	else if (block->on_ring)
		block->metrics.engine_async_count++;
	else
		block->metrics.engine_sync_count++;
}

static void use_engine(struct block *block, struct block_engine *engine)
{
	engine->done = request_done;
	engine->opaque = block;
}

static struct block_engine *open_engine(struct block *block, block_confine *confine,
					struct err *err)
{
	struct block_engine *engine;

	if (block->engine_kind == BLOCK_ENGINE_ASYNC) {
		engine = block_engine_uring_open(block->file.fd, block->file.block_device, confine,
						 err);
		block->on_ring = engine != NULL;
		if (engine)
			return engine;
		log_warn("%s: %s; using the Sync engine instead", block->name, err->text);
	}
	return block_engine_thread_open(confine, err);
}

int block_open_engines(struct block *block, block_confine *confine, struct err *err)
{
	block->here = block_engine_here_open();
	if (!block->here)
		return err_set(err, ENOMEM, "%s: no memory", block->name);
	use_engine(block, block->here);
	block->engine = open_engine(block, confine, err);
	if (!block->engine)
		return -EAGAIN;
	use_engine(block, block->engine);
	/* Edge-triggered: each completion is an edge, and nobody need read the eventfd. */
	block->engine_event = event_new(block->base, block->engine->event_fd,
					EV_READ | EV_PERSIST | EV_ET, on_engine, block);
	if (!block->engine_event || event_add(block->engine_event, NULL) < 0)
		return err_set(err, ENOMEM, "%s: no memory for its events", block->name);
	return 0;
}

void block_close_engines(struct block *block)
{
	struct block_engine *const engines[] = { block->here, block->engine };

	/* Before its eventfd is closed. */
	if (block->engine_event)
		event_free(block->engine_event);
	block->engine_event = NULL;
	for (size_t i = 0; i < ARRAY_SIZE(engines); i++) {
		if (engines[i])
			engines[i]->ops->close(engines[i]);
	}
	block->here = NULL;
	block->engine = NULL;
}

bool block_settle(struct block *block, int64_t until_ns)
{
	struct block_engine *engine = engine_of(block);

	while (engine && engine->in_flight > 0) {
		struct pollfd event = { .fd = engine->event_fd, .events = POLLIN };
		int64_t left;

		/* Before the engine is asked: what comes afterwards makes it readable again. */
		if (engine->event_fd >= 0)
			fd_unsignal(engine->event_fd);
		if (engine->ops->poll(engine))
			event.fd = -1; /* there is more to do at once */
		left = (until_ns - clock_ns()) / NS_PER_MS;
		if (engine->in_flight > 0 && left <= 0)
			return false;
		if (engine->in_flight > 0 && event.fd >= 0)
			(void)poll(&event, 1, (int)left);
	}
	return true;
}

bool block_cancel(struct block *block)
{
	struct block_engine *engine = engine_of(block);

	if (engine)
		engine->ops->cancel(engine);
	return !engine || engine->in_flight == 0;
}

static void start(struct block *block, struct block_request *request)
{
	struct block_engine *engine = engine_of(block);
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
	/* 5.2.6.2: a driver that declines FLUSH relies on a write that is done being stable. */
	io->durable = block->writeback && !virtio_has_feature(&block->device, VIRTIO_BLK_F_FLUSH);
	request->submitted = true;
	block->cost_in_flight += cost(request);
	count_engine(block);
	engine->ops->submit(engine, io);
}

/* 0, or nanoseconds until the request may be started. */
static int64_t throttle(struct block *block, const struct block_request *request)
{
	int64_t wait;
	struct timeval after;

	if (!rate_limiter_limits(&block->limiter))
		return 0;
	wait = rate_limiter_take(&block->limiter, request->data_len, clock_ns());
	if (wait == 0)
		return 0;
	if (!block->throttled)
		block->metrics.rate_limiter_throttled_events++;
	block->throttled = true;
	if (wait > LIMITER_WAIT_MAX)
		wait = LIMITER_WAIT_MAX;
	after.tv_sec = wait / NS_PER_S;
	after.tv_usec = wait % NS_PER_S / 1000 + 1;
	(void)evtimer_add(block->limiter_timer, &after);
	return wait;
}

static bool has_room(struct block *block)
{
	struct block_engine *engine = engine_of(block);

	return block->free_count > 0 && engine->ops->has_room(engine);
}

/* However large the requests are: what is in flight is what a reset or another file waits for. */
static bool fits(const struct block *block, const struct block_request *request)
{
	return block->cost_in_flight == 0 ||
	       block->cost_in_flight + cost(request) <= BLOCK_IN_FLIGHT_MAX;
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
		struct block_request *request = block->held;

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
		block->held = request;
		if (!fits(block, request)) {
			block->metrics.io_engine_throttled_events++;
			return STOP_ENGINE;
		}
		if (throttle(block, request) > 0)
			return STOP_LIMITER;
		block->held = NULL;
		block->throttled = false;
		turn->bytes += cost(request);
		start(block, request);
	}
	return STOP_TURN;
}

/* True if there is more to do, in another turn. */
static bool serve_queue(struct block *block, struct turn *turn)
{
	struct virtq *queue = &block->device.queues[0];
	struct block_engine *engine = engine_of(block);
	bool more = false;

	for (unsigned int round = 0; round < TURN_ROUNDS; round++) {
		enum stop stop;

		virtq_disable_notify(queue);
		stop = take_requests(block, turn);
		more = engine->ops->poll(engine);
		block_publish(block);
		switch (stop) {
		case STOP_EMPTY:
			if (!virtq_enable_notify(queue))
				return more;
			break;
		case STOP_ENGINE:
			/* What is in flight comes back, and with it we do. */
			if (!has_room(block) || (block->held && !fits(block, block->held)))
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
	struct block_engine *engine = engine_of(block);
	struct turn turn = { 0 };
	bool more;

	if (!block->base)
		return;
	more = engine->ops->poll(engine);
	if (block->device.resetting && engine->in_flight == 0)
		virtio_device_reset_done(&block->device);
	if (virtio_device_runs(&block->device) && block->device.queues[0].ready)
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

void block_notified(struct virtio_device *device, unsigned int queue)
{
	struct block *block = block_of(device);

	block->metrics.queue_event_count++;
	if (!block->held && !virtq_has_more(&device->queues[queue]))
		block->metrics.no_avail_buffer++;
	run(block);
}

static void let_go_of_held(struct block *block)
{
	if (block->held)
		release(block, block->held);
	block->held = NULL;
	block->throttled = false;
}

bool block_freeze(struct virtio_device *device, int64_t until_ns)
{
	struct block *block = block_of(device);
	bool settled;

	/* Nothing was popped after it. */
	if (block->held)
		virtq_unpop(&device->queues[0], 1);
	let_go_of_held(block);
	settled = block_settle(block, until_ns);
	if (settled && device->resetting)
		virtio_device_reset_done(device);
	else
		block_publish(block);
	return settled;
}

/* The engine's event brings the main thread to what has to end first. */
bool block_reset(struct virtio_device *device)
{
	struct block *block = block_of(device);

	let_go_of_held(block);
	block->pushed = false;
	/* The file may have been replaced by one that can more or less. */
	block_offer_features(block);
	return block_cancel(block);
}
