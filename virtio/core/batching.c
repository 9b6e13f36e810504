/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/core/batching.h"

#include <sched.h>
#include <string.h>

/* Notifications that come less often than this make no batches. */
static const struct timeval QUIET = { .tv_usec = 10000 };

static bool set_policy(int policy)
{
	const struct sched_param param = { .sched_priority = 0 };

	return sched_setscheduler(0, policy, &param) == 0;
}

static void begin_round(struct batching *batching)
{
	batching->chains = 0;
	batching->notifications = 0;
}

static void turn_off(struct batching *batching)
{
	(void)set_policy(SCHED_OTHER);
	(void)evtimer_del(batching->timer);
	batching->on = false;
	begin_round(batching);
}

static void on_quiet(evutil_socket_t fd, short events, void *opaque)
{
	struct batching *batching = opaque;

	(void)fd;
	(void)events;
	if (batching->served == batching->served_then)
		turn_off(batching);
	batching->served_then = batching->served;
}

void batching_open(struct batching *batching, struct event_base *base)
{
	memset(batching, 0, sizeof(*batching));
	batching->pause = BATCHING_PAUSE_MIN;
	if (sched_getscheduler(0) == SCHED_OTHER)
		batching->timer = event_new(base, -1, EV_PERSIST, on_quiet, batching);
}

void batching_close(struct batching *batching)
{
	if (!batching->timer)
		return;
	if (batching->on)
		turn_off(batching);
	event_free(batching->timer);
	batching->timer = NULL;
}

static void try(struct batching *batching)
{
	if (event_add(batching->timer, &QUIET) < 0 || !set_policy(SCHED_BATCH)) {
		(void)evtimer_del(batching->timer);
	} else {
		batching->on = true;
		batching->stays = false;
		batching->served_then = batching->served;
		batching->chains_before = batching->chains;
		batching->notifications_before = batching->notifications;
	}
	begin_round(batching);
}

/* Whether a notification stands for at least twice as many chains as without. */
static bool worth_it(const struct batching *batching)
{
	return (uint64_t)batching->chains * batching->notifications_before >=
	       2 * (uint64_t)batching->chains_before * batching->notifications;
}

static void judge(struct batching *batching)
{
	if (worth_it(batching)) {
		batching->stays = true;
		batching->pause = BATCHING_PAUSE_MIN;
		begin_round(batching);
		return;
	}
	if (!batching->stays && batching->pause < BATCHING_PAUSE_MAX)
		batching->pause *= 2;
	turn_off(batching);
}

void batching_notified(struct batching *batching, unsigned int chains)
{
	if (!batching->timer || chains == 0)
		return;
	batching->chains += chains;
	batching->notifications++;
	batching->served++;
	if (!batching->on) {
		if (batching->notifications >= batching->pause)
			try(batching);
		return;
	}
	if (batching->notifications >= (batching->stays ? BATCHING_ROUND : BATCHING_TRIAL))
		judge(batching);
}
