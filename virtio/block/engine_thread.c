/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>

#include "base/err.h"
#include "base/fd.h"
#include "virtio/block/engine.h"

struct thread_engine {
	struct block_engine engine;
	struct block_worker *worker;
};

static bool thread_has_room(const struct block_engine *engine)
{
	return engine->in_flight < BLOCK_ENGINE_DEPTH;
}

static void thread_submit(struct block_engine *engine, struct block_io *io)
{
	engine->in_flight++;
	block_worker_submit(((struct thread_engine *)engine)->worker, io);
}

static bool thread_poll(struct block_engine *engine)
{
	struct block_worker *worker = ((struct thread_engine *)engine)->worker;
	struct block_io *io;
	int result;

	while ((io = block_worker_take(worker, &result))) {
		engine->in_flight--;
		engine->done(engine->opaque, io, result);
	}
	return false;
}

static void thread_cancel(struct block_engine *engine)
{
	block_worker_cancel(((struct thread_engine *)engine)->worker);
	(void)thread_poll(engine);
}

/* Each I/O brings its file. */
static int thread_set_file(struct block_engine *engine, int fd)
{
	(void)engine;
	(void)fd;
	return 0;
}

static void thread_close(struct block_engine *engine)
{
	block_worker_close(((struct thread_engine *)engine)->worker);
	fd_close(&engine->event_fd);
	free(engine);
}

struct block_engine *block_engine_thread_open(block_confine *confine, struct err *err)
{
	static const struct block_engine_ops ops = {
		.has_room = thread_has_room,
		.submit = thread_submit,
		.poll = thread_poll,
		.cancel = thread_cancel,
		.set_file = thread_set_file,
		.close = thread_close,
	};
	struct thread_engine *thread = calloc(1, sizeof(*thread));
	int rc;

	if (!thread) {
		err_sys(err, ENOMEM, "the thread of a drive");
		return NULL;
	}
	thread->engine.ops = &ops;
	thread->engine.discards = true;
	thread->engine.event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (thread->engine.event_fd < 0)
		rc = err_sys(err, errno, "the thread of a drive: eventfd");
	else
		rc = block_worker_open(&thread->worker, thread->engine.event_fd, confine, err);
	if (rc == 0)
		return &thread->engine;
	fd_close(&thread->engine.event_fd);
	free(thread);
	return NULL;
}
