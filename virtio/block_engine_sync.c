/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "virtio/block_engine.h"
#include "virtio/block_file.h"

struct sync_engine {
	struct block_engine engine;
	struct block_io *current; /* larger than a turn; NULL none */
};

static bool sync_has_room(const struct block_engine *engine)
{
	return !((const struct sync_engine *)engine)->current;
}

/* Works on the current I/O for one turn. */
static void work(struct sync_engine *sync)
{
	struct block_io *io = sync->current;
	struct block_step step;
	uint64_t cost = 0;
	int rc;

	do {
		block_io_next(io, &step);
		cost += block_step_cost(&step);
		rc = block_io_advance(io, block_step_run(io->file->fd, &step));
	} while (rc > 0 && cost < BLOCK_TURN_MAX);
	if (rc > 0)
		return;
	sync->current = NULL;
	sync->engine.done(sync->engine.opaque, io, rc);
}

static void sync_submit(struct block_engine *engine, struct block_io *io)
{
	struct sync_engine *sync = (struct sync_engine *)engine;

	sync->current = io;
	work(sync);
}

static bool sync_poll(struct block_engine *engine)
{
	struct sync_engine *sync = (struct sync_engine *)engine;

	if (sync->current)
		work(sync);
	return sync->current;
}

static void sync_drain(struct block_engine *engine, bool cancel)
{
	struct sync_engine *sync = (struct sync_engine *)engine;
	struct block_io *io = sync->current;

	if (io && cancel) {
		sync->current = NULL;
		engine->done(engine->opaque, io, -ECANCELED);
	}
	while (sync->current)
		work(sync);
}

/* Each I/O brings its file. */
static int sync_set_file(struct block_engine *engine, int fd)
{
	(void)engine;
	(void)fd;
	return 0;
}

static void sync_close(struct block_engine *engine)
{
	free(engine);
}

struct block_engine *block_engine_sync_open(void)
{
	static const struct block_engine_ops ops = {
		.has_room = sync_has_room,
		.submit = sync_submit,
		.poll = sync_poll,
		.drain = sync_drain,
		.set_file = sync_set_file,
		.close = sync_close,
	};
	struct sync_engine *sync = calloc(1, sizeof(*sync));

	if (!sync)
		return NULL;
	sync->engine.ops = &ops;
	sync->engine.event_fd = -1;
	return &sync->engine;
}
