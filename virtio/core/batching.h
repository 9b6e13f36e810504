/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When the main thread and the vCPUs share a processor, the scheduler lets the main thread run at
 * each notification, ahead of the vCPU that gave it: a driver with many requests to make is
 * interrupted after each of them, and none of them is served together with another. A thread under
 * SCHED_BATCH (sched(7)) does not preempt: it runs when the driver has nothing more to do, and then
 * finds all that was made available meanwhile. But one that waits for a busy vCPU waits long; so
 * the main thread is SCHED_BATCH only while that makes batches: now and then it tries for a few
 * notifications, stays if they stand for at least twice as many chains as before, and goes back
 * when they no longer do or notifications cease.
 *
 * Belongs to the thread that opens it, which must be SCHED_OTHER; of any other policy it was given
 * on purpose, and remains.
 */
#ifndef MOTE_VIRTIO_CORE_BATCHING_H
#define MOTE_VIRTIO_CORE_BATCHING_H

#include <event2/event.h>
#include <stdbool.h>

struct batching {
	bool on;	     /* the thread is SCHED_BATCH */
	bool stays;	     /* the trial has shown that it is worth it */
	unsigned int pause;  /* notifications from one trial to the next */
	unsigned int chains; /* of this round */
	unsigned int notifications;
	unsigned int chains_before; /* of the last round that was SCHED_OTHER */
	unsigned int notifications_before;
	unsigned int served;	  /* notifications, ever */
	unsigned int served_then; /* at the timer's last look */
	struct event *timer;	  /* owned; NULL: never on */
};

/* Notifications: from one trial to the next, at first and at most; in a trial; in a round. */
#define BATCHING_PAUSE_MIN 64u
#define BATCHING_PAUSE_MAX 2048u
#define BATCHING_TRIAL 4u
#define BATCHING_ROUND 16u

/* Without memory for a timer it is never on; nothing else fails. */
void batching_open(struct batching *batching, struct event_base *base);
/* The thread is what it was. Safe on a zeroed object. */
void batching_close(struct batching *batching);

/* A notification was served, and that many chains were taken from the queue. */
void batching_notified(struct batching *batching, unsigned int chains);

#endif
