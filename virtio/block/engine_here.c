/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "virtio/block/engine.h"
#include "virtio/block/file.h"

struct here_engine {
	struct block_engine engine;
	struct block_io *current; /* larger than a turn; NULL none */
};

static bool here_has_room(const struct block_engine *engine)
{
	return engine->in_flight == 0;
}

static void finish(struct here_engine *here, int result)
{
	struct block_io *io = here->current;

	here->current = NULL;
	here->engine.in_flight--;
	here->engine.done(here->engine.opaque, io, result);
}

/* Works on the current I/O for one turn. */
static void work(struct here_engine *here)
{
	struct block_io *io = here->current;
	struct block_step step;
	uint64_t cost = 0;
	int rc;

	do {
		block_io_next(io, &step);
		cost += block_step_cost(&step);
		rc = block_io_advance(io, block_step_run(io->file->fd, &step));
	} while (rc > 0 && cost < BLOCK_TURN_MAX);
	if (rc <= 0)
		finish(here, rc);
}

static void here_submit(struct block_engine *engine, struct block_io *io)
{
	struct here_engine *here = (struct here_engine *)engine;

	here->current = io;
	engine->in_flight++;
	work(here);
}

static bool here_poll(struct block_engine *engine)
{
	struct here_engine *here = (struct here_engine *)engine;

	if (here->current)
		work(here);
	return here->current;
}

static void here_cancel(struct block_engine *engine)
{
	struct here_engine *here = (struct here_engine *)engine;

	if (here->current)
		finish(here, -ECANCELED);
}

/* Each I/O brings its file. */
static int here_set_file(struct block_engine *engine, int fd)
{
	(void)engine;
	(void)fd;
	return 0;
}

static void here_close(struct block_engine *engine)
{
	free(engine);
}

struct block_engine *block_engine_here_open(void)
{
	static const struct block_engine_ops ops = {
		.has_room = here_has_room,
		.submit = here_submit,
		.poll = here_poll,
		.cancel = here_cancel,
		.set_file = here_set_file,
		.close = here_close,
	};
	struct here_engine *here = calloc(1, sizeof(*here));

	if (!here)
		return NULL;
	here->engine.ops = &ops;
	here->engine.event_fd = -1;
	here->engine.discards = true;
	return &here->engine;
}
