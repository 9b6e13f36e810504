/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/block/worker.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/log.h"
#include "virtio/block/file.h"

/* Of the thread, which calls nothing that needs more. */
#define STACK_SIZE (64 << 10)

struct done {
	struct block_io *io;
	int result;
};

/* A ring with a place for all that can be in flight; the indices run freely. */
#define PLACE(index) ((index) % BLOCK_ENGINE_DEPTH)

struct block_worker {
	pthread_t thread;
	int event_fd;
	block_confine *confine;

	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* Under the lock. */
	struct block_io *waiting[BLOCK_ENGINE_DEPTH];
	unsigned int first_waiting, end_waiting;
	struct done done[BLOCK_ENGINE_DEPTH];
	unsigned int first_done, end_done;
	bool started; /* with `failed` set if the thread could not be confined */
	struct err failure;
	int failed;
	bool ending;
	bool cancelled;
};

static void add_done(struct block_worker *worker, struct block_io *io, int result)
{
	worker->done[PLACE(worker->end_done++)] = (struct done){ io, result };
}

static bool is_cancelled(struct block_worker *worker)
{
	bool cancelled;

	pthread_mutex_lock(&worker->lock);
	cancelled = worker->cancelled;
	pthread_mutex_unlock(&worker->lock);
	return cancelled;
}

static int do_io(struct block_worker *worker, struct block_io *io)
{
	struct block_step step;
	int rc;

	do {
		if (is_cancelled(worker))
			return -ECANCELED;
		block_io_next(io, &step);
		rc = block_io_advance(io, block_step_run(io->file->fd, &step));
	} while (rc > 0);
	return rc;
}

/* Says how the start went; false if the thread is to end. */
static bool start(struct block_worker *worker)
{
	int rc = worker->confine ? worker->confine(&worker->failure) : 0;

	pthread_mutex_lock(&worker->lock);
	worker->failed = rc;
	worker->started = true;
	pthread_cond_broadcast(&worker->changed);
	pthread_mutex_unlock(&worker->lock);
	return rc == 0;
}

static struct block_io *next_io(struct block_worker *worker)
{
	struct block_io *io = NULL;

	pthread_mutex_lock(&worker->lock);
	while (!worker->ending && worker->first_waiting == worker->end_waiting)
		pthread_cond_wait(&worker->changed, &worker->lock);
	if (!worker->ending)
		io = worker->waiting[PLACE(worker->first_waiting++)];
	pthread_mutex_unlock(&worker->lock);
	return io;
}

static void *worker_thread(void *opaque)
{
	struct block_worker *worker = opaque;
	struct block_io *io;

	pthread_setname_np(pthread_self(), "block");
	log_set_thread_name("block");
	if (!start(worker))
		return NULL;
	while ((io = next_io(worker))) {
		int result = do_io(worker, io);

		pthread_mutex_lock(&worker->lock);
		add_done(worker, io, result);
		pthread_mutex_unlock(&worker->lock);
		fd_signal(worker->event_fd);
	}
	return NULL;
}

static int start_thread(struct block_worker *worker, struct err *err)
{
	pthread_attr_t attr;
	int rc;

	pthread_attr_init(&attr);
	(void)pthread_attr_setstacksize(&attr, STACK_SIZE);
	rc = pthread_create(&worker->thread, &attr, worker_thread, worker);
	pthread_attr_destroy(&attr);
	if (rc != 0)
		return err_sys(err, rc, "the thread of a drive");
	pthread_mutex_lock(&worker->lock);
	while (!worker->started)
		pthread_cond_wait(&worker->changed, &worker->lock);
	pthread_mutex_unlock(&worker->lock);
	if (worker->failed == 0)
		return 0;
	pthread_join(worker->thread, NULL);
	*err = worker->failure;
	return worker->failed;
}

static void destroy(struct block_worker *worker)
{
	pthread_cond_destroy(&worker->changed);
	pthread_mutex_destroy(&worker->lock);
	free(worker);
}

int block_worker_open(struct block_worker **opened, int event_fd, block_confine *confine,
		      struct err *err)
{
	struct block_worker *worker = calloc(1, sizeof(*worker));
	int rc;

	*opened = NULL;
	if (!worker)
		return err_sys(err, ENOMEM, "the thread of a drive");
	worker->event_fd = event_fd;
	worker->confine = confine;
	pthread_mutex_init(&worker->lock, NULL);
	pthread_cond_init(&worker->changed, NULL);
	rc = start_thread(worker, err);
	if (rc < 0)
		destroy(worker);
	else
		*opened = worker;
	return rc;
}

void block_worker_close(struct block_worker *worker)
{
	if (!worker)
		return;
	pthread_mutex_lock(&worker->lock);
	worker->ending = true;
	pthread_cond_broadcast(&worker->changed);
	pthread_mutex_unlock(&worker->lock);
	pthread_join(worker->thread, NULL);
	destroy(worker);
}

void block_worker_submit(struct block_worker *worker, struct block_io *io)
{
	pthread_mutex_lock(&worker->lock);
	worker->cancelled = false;
	worker->waiting[PLACE(worker->end_waiting++)] = io;
	pthread_cond_signal(&worker->changed);
	pthread_mutex_unlock(&worker->lock);
}

struct block_io *block_worker_take(struct block_worker *worker, int *result)
{
	struct block_io *io = NULL;

	pthread_mutex_lock(&worker->lock);
	if (worker->first_done != worker->end_done) {
		const struct done *done = &worker->done[PLACE(worker->first_done++)];

		io = done->io;
		*result = done->result;
	}
	pthread_mutex_unlock(&worker->lock);
	return io;
}

void block_worker_cancel(struct block_worker *worker)
{
	pthread_mutex_lock(&worker->lock);
	worker->cancelled = true;
	while (worker->first_waiting != worker->end_waiting)
		add_done(worker, worker->waiting[PLACE(worker->first_waiting++)], -ECANCELED);
	pthread_mutex_unlock(&worker->lock);
}
