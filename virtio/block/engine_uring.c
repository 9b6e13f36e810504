/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two threads use the ring, under the device's lock: so neither IORING_SETUP_SINGLE_ISSUER nor
 * DEFER_TASKRUN. A vCPU thread only cancels; it takes no completion, for that can be a system call.
 */
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/ring_memory.h"
#include "virtio/block/engine.h"
#include "virtio/block/file.h"

#define REAP_BATCH 64
_Static_assert(BLOCK_ENGINE_DEPTH == RING_ENTRIES, "what a ring takes is another");
/* The file's index among the registered ones. */
#define FILE_INDEX 0

struct uring_engine {
	struct block_engine engine;
	struct io_uring ring;
	struct block_worker *worker; /* for what the ring cannot do; NULL without */
	/*
	 * What the kernel has not taken yet, in order. The first `prepared` have their entries in
	 * the ring, sqes[]: they stay there when the kernel is short of memory. Before them are
	 * `dropped` entries of I/Os that have been cancelled.
	 */
	struct block_io *queue[BLOCK_ENGINE_DEPTH];
	struct io_uring_sqe *sqes[BLOCK_ENGINE_DEPTH];
	unsigned int queued;
	unsigned int prepared;
	unsigned int dropped;
	bool cancelled; /* nothing is continued, until nothing is in flight */
	bool broken; /* nothing is given to the kernel any more; everything is done here and now */
};

static bool uring_has_room(const struct block_engine *engine)
{
	return engine->in_flight < BLOCK_ENGINE_DEPTH;
}

static void finish(struct uring_engine *uring, struct block_io *io, int result)
{
	uring->engine.in_flight--;
	if (uring->engine.in_flight == 0)
		uring->cancelled = false;
	uring->engine.done(uring->engine.opaque, io, result);
}

/* Puts an I/O's next step into the queue. The step's cost, 0 if the I/O is done. */
static uint64_t enqueue(struct uring_engine *uring, struct block_io *io)
{
	struct block_step step;
	int rc;

	do {
		block_io_next(io, &step);
		if (step.kind == BLOCK_STEP_DISCARD && uring->worker) {
			block_worker_submit(uring->worker, io);
			return 0;
		}
		if (step.kind != BLOCK_STEP_DISCARD && !uring->broken) {
			uring->queue[uring->queued++] = io;
			return block_step_cost(&step);
		}
		rc = block_io_advance(io, block_step_run(io->file->fd, &step));
	} while (rc > 0);
	finish(uring, io, rc);
	return 0;
}

static void uring_submit(struct block_engine *engine, struct block_io *io)
{
	struct uring_engine *uring = (struct uring_engine *)engine;

	engine->in_flight++;
	enqueue(uring, io);
}

static void prepare(struct io_uring_sqe *sqe, struct block_io *io)
{
	struct block_step step;

	block_io_next(io, &step);
	switch (step.kind) {
	case BLOCK_STEP_READ:
		if (step.iov_count == 1)
			io_uring_prep_read(sqe, FILE_INDEX, step.iov->iov_base, (unsigned)step.len,
					   step.offset);
		else
			io_uring_prep_readv(sqe, FILE_INDEX, step.iov, step.iov_count, step.offset);
		break;
	case BLOCK_STEP_WRITE:
		if (step.iov_count == 1)
			io_uring_prep_write(sqe, FILE_INDEX, step.iov->iov_base, (unsigned)step.len,
					    step.offset);
		else
			io_uring_prep_writev(sqe, FILE_INDEX, step.iov, step.iov_count,
					     step.offset);
		sqe->rw_flags = step.durable ? RWF_DSYNC : 0;
		break;
	case BLOCK_STEP_SYNC:
		io_uring_prep_fsync(sqe, FILE_INDEX, IORING_FSYNC_DATASYNC);
		break;
	case BLOCK_STEP_FALLOCATE:
	case BLOCK_STEP_DISCARD: /* never in the queue */
		io_uring_prep_fallocate(sqe, FILE_INDEX, step.fallocate_mode, (off_t)step.offset,
					(off_t)step.len);
		break;
	}
	io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE | (io->file->needs_worker ? IOSQE_ASYNC : 0));
	io_uring_sqe_set_data(sqe, io);
}

/*
 * The kernel refuses the ring for good. Entries stay in it, for nothing will be submitted again,
 * and what they were for is done with system calls.
 */
static void give_up(struct uring_engine *uring)
{
	struct block_io *queue[BLOCK_ENGINE_DEPTH];
	const unsigned int queued = uring->queued;

	for (unsigned int i = 0; i < queued; i++)
		queue[i] = uring->queue[i];
	uring->broken = true;
	uring->queued = 0;
	uring->prepared = 0;
	for (unsigned int i = 0; i < queued; i++)
		enqueue(uring, queue[i]);
}

static void remove_taken(struct uring_engine *uring, unsigned int taken)
{
	const unsigned int dropped = taken < uring->dropped ? taken : uring->dropped;

	uring->dropped -= dropped;
	taken -= dropped;
	uring->queued -= taken;
	uring->prepared -= taken;
	for (unsigned int i = 0; i < uring->queued; i++)
		uring->queue[i] = uring->queue[i + taken];
	for (unsigned int i = 0; i < uring->prepared; i++)
		uring->sqes[i] = uring->sqes[i + taken];
}

static void start_queue(struct uring_engine *uring)
{
	int taken;

	for (; uring->prepared < uring->queued; uring->prepared++) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);

		/* Never NULL: the ring has as many entries as there are I/Os. */
		if (!sqe)
			break;
		prepare(sqe, uring->queue[uring->prepared]);
		uring->sqes[uring->prepared] = sqe;
	}
	if (uring->prepared + uring->dropped == 0)
		return;
	taken = io_uring_submit(&uring->ring);
	if (taken == -EAGAIN || taken == -EBUSY || taken == -EINTR)
		return;
	if (taken < 0) {
		log_warn("io_uring_enter: %s; continuing without io_uring",
			 strerrordesc_np(-taken));
		give_up(uring);
		return;
	}
	remove_taken(uring, (unsigned int)taken);
}

/* Takes all completions that are there. The cost of the steps that followed. */
static uint64_t reap(struct uring_engine *uring)
{
	struct io_uring_cqe *cqes[REAP_BATCH];
	uint64_t cost = 0;
	unsigned int count;

	while ((count = io_uring_peek_batch_cqe(&uring->ring, cqes, REAP_BATCH)) > 0) {
		for (unsigned int i = 0; i < count; i++) {
			struct block_io *io = io_uring_cqe_get_data(cqes[i]);
			int rc;

			if (!io) /* a dropped entry's */
				continue;
			rc = block_io_advance(io, cqes[i]->res);
			if (rc <= 0)
				finish(uring, io, rc);
			else if (uring->cancelled)
				finish(uring, io, -ECANCELED);
			else
				cost += enqueue(uring, io);
		}
		io_uring_cq_advance(&uring->ring, count);
	}
	return cost;
}

static void take_from_worker(struct uring_engine *uring)
{
	struct block_io *io;
	int result;

	while (uring->worker && (io = block_worker_take(uring->worker, &result)))
		finish(uring, io, result);
}

static bool uring_poll(struct block_engine *engine)
{
	struct uring_engine *uring = (struct uring_engine *)engine;
	uint64_t cost = 0;

	take_from_worker(uring);
	do {
		start_queue(uring);
		/* What needed no waiting, such as a read of cached data, is complete already. */
		if (io_uring_cq_ready(&uring->ring) == 0)
			break;
		cost += reap(uring);
	} while (uring->queued > 0 && cost < BLOCK_TURN_MAX);
	return uring->queued > 0;
}

/* An entry that the kernel has not taken becomes one that does nothing. */
static void drop_entry(struct io_uring_sqe *sqe)
{
	io_uring_prep_nop(sqe);
	io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
	io_uring_sqe_set_data(sqe, NULL);
}

static void uring_cancel(struct block_engine *engine)
{
	struct uring_engine *uring = (struct uring_engine *)engine;
	const unsigned int queued = uring->queued;

	if (engine->in_flight == 0)
		return;
	uring->cancelled = true;
	for (unsigned int i = 0; i < uring->prepared; i++)
		drop_entry(uring->sqes[i]);
	uring->dropped += uring->prepared;
	uring->prepared = 0;
	uring->queued = 0;
	for (unsigned int i = 0; i < queued; i++)
		finish(uring, uring->queue[i], -ECANCELED);
	if (uring->worker)
		block_worker_cancel(uring->worker);
	take_from_worker(uring);
}

static int uring_set_file(struct block_engine *engine, int fd)
{
	struct uring_engine *uring = (struct uring_engine *)engine;
	int rc = io_uring_register_files_update(&uring->ring, FILE_INDEX, &fd, 1);

	return rc < 0 ? rc : 0;
}

static void uring_close(struct block_engine *engine)
{
	struct uring_engine *uring = (struct uring_engine *)engine;

	/* The ring goes in its own time, but the file is to be closed on return. */
	(void)io_uring_unregister_files(&uring->ring);
	io_uring_queue_exit(&uring->ring);
	block_worker_close(uring->worker);
	fd_close(&engine->event_fd);
	free(uring);
}

/* Debian 12's liburing declares calls for these two operations, but has them not. */
static int register_ring(const struct io_uring *ring, unsigned int operation, void *argument,
			 unsigned int count)
{
	long rc = syscall(SYS_io_uring_register, ring->ring_fd, operation, argument, count);

	return rc < 0 ? -errno : 0;
}

static int restrict_ring(const struct io_uring *ring)
{
	static const uint8_t operations[] = {
		IORING_OP_READ,	 IORING_OP_READV,     IORING_OP_WRITE, IORING_OP_WRITEV,
		IORING_OP_FSYNC, IORING_OP_FALLOCATE, IORING_OP_NOP,
	};
	static const uint8_t registrations[] = {
		IORING_REGISTER_FILES,	 IORING_REGISTER_FILES_UPDATE, IORING_UNREGISTER_FILES,
		IORING_REGISTER_EVENTFD, IORING_REGISTER_ENABLE_RINGS,
	};
	struct io_uring_restriction allowed[sizeof(operations) + sizeof(registrations) + 2] = {
		{ .opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED,
		  .sqe_flags = IOSQE_FIXED_FILE | IOSQE_ASYNC },
		{ .opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED, .sqe_flags = IOSQE_FIXED_FILE },
	};
	unsigned int count = 2;

	for (size_t i = 0; i < sizeof(operations); i++) {
		allowed[count].opcode = IORING_RESTRICTION_SQE_OP;
		allowed[count++].sqe_op = operations[i];
	}
	for (size_t i = 0; i < sizeof(registrations); i++) {
		allowed[count].opcode = IORING_RESTRICTION_REGISTER_OP;
		allowed[count++].register_op = registrations[i];
	}
	return register_ring(ring, IORING_REGISTER_RESTRICTIONS, allowed, count);
}

/* 0 or -errno; on failure the ring is gone. */
static int open_ring(struct uring_engine *uring, int fd)
{
	struct io_uring *ring = &uring->ring;
	int rc = io_uring_queue_init(BLOCK_ENGINE_DEPTH, ring, IORING_SETUP_R_DISABLED);

	if (rc < 0)
		return rc;
	rc = restrict_ring(ring);
	if (rc == 0)
		rc = io_uring_register_files(ring, &fd, 1);
	if (rc == 0)
		rc = io_uring_register_eventfd(ring, uring->engine.event_fd);
	if (rc == 0)
		rc = register_ring(ring, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
	if (rc < 0)
		io_uring_queue_exit(ring);
	return rc;
}

struct block_engine *block_engine_uring_open(int fd, bool discards, block_confine *confine,
					     struct err *err)
{
	static const struct block_engine_ops ops = {
		.has_room = uring_has_room,
		.submit = uring_submit,
		.poll = uring_poll,
		.cancel = uring_cancel,
		.set_file = uring_set_file,
		.close = uring_close,
	};
	struct uring_engine *uring = calloc(1, sizeof(*uring));
	int rc;

	if (!uring) {
		err_sys(err, ENOMEM, "io_uring");
		return NULL;
	}
	uring->engine.ops = &ops;
	uring->engine.discards = discards;
	uring->engine.event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	rc = uring->engine.event_fd < 0 ? -errno : open_ring(uring, fd);
	if (rc < 0)
		err_sys(err, -rc, "io_uring");
	if (rc == 0 && discards) {
		rc = block_worker_open(&uring->worker, uring->engine.event_fd, confine, err);
		if (rc < 0)
			io_uring_queue_exit(&uring->ring);
	}
	if (rc == 0)
		return &uring->engine;
	fd_close(&uring->engine.event_fd);
	free(uring);
	return NULL;
}
