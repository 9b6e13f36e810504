/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/core/batching.h"

#include <event2/event.h>
#include <sched.h>

#include "tests/unit/suites.h"
#include "tests/unit/support.h"

static struct event_base *base;
static struct batching batching;

static void set_up(void)
{
	base = event_base_new();
	batching_open(&batching, base);
}

static void tear_down(void)
{
	batching_close(&batching);
	event_base_free(base);
}

static void notify(unsigned int times, unsigned int chains)
{
	for (unsigned int i = 0; i < times; i++)
		batching_notified(&batching, chains);
}

#define assert_policy(policy) ck_assert_int_eq(sched_getscheduler(0), policy)

START_TEST(tries_after_a_pause)
{
	notify(BATCHING_PAUSE_MIN - 1, 1);
	assert_policy(SCHED_OTHER);
	notify(1, 1);
	assert_policy(SCHED_BATCH);
}
END_TEST

START_TEST(notifications_without_chains_do_not_count)
{
	notify(10 * BATCHING_PAUSE_MIN, 0);
	assert_policy(SCHED_OTHER);
}
END_TEST

START_TEST(shallow_queue_ends_the_trial_and_the_next_pause_is_longer)
{
	notify(BATCHING_PAUSE_MIN, 1);
	notify(BATCHING_TRIAL - 1, 1);
	assert_policy(SCHED_BATCH);
	notify(1, 1);
	assert_policy(SCHED_OTHER);
	notify(2 * BATCHING_PAUSE_MIN - 1, 1);
	assert_policy(SCHED_OTHER);
	notify(1, 1);
	assert_policy(SCHED_BATCH);
}
END_TEST

START_TEST(pause_has_a_maximum)
{
	unsigned int trials = 0;

	for (unsigned int i = 0; i < 20 * BATCHING_PAUSE_MAX; i++) {
		bool was = batching.on;

		notify(1, 1);
		trials += batching.on && !was;
	}
	ck_assert_uint_ge(trials, 20);
	ck_assert_uint_lt(trials, 30);
}
END_TEST

START_TEST(deep_queue_keeps_it_until_it_is_shallow)
{
	notify(BATCHING_PAUSE_MIN, 1);
	notify(100 * BATCHING_ROUND + BATCHING_TRIAL, 8);
	assert_policy(SCHED_BATCH);
	notify(BATCHING_ROUND, 1);
	assert_policy(SCHED_OTHER);
	/* It was worth it: the next trial comes soon. */
	notify(BATCHING_PAUSE_MIN, 1);
	assert_policy(SCHED_BATCH);
}
END_TEST

START_TEST(batches_that_come_by_themselves_are_no_reason)
{
	notify(BATCHING_PAUSE_MIN, 8);
	assert_policy(SCHED_BATCH);
	notify(BATCHING_TRIAL, 15);
	assert_policy(SCHED_OTHER);
}
END_TEST

START_TEST(silence_ends_it)
{
	notify(BATCHING_PAUSE_MIN, 1);
	notify(BATCHING_TRIAL + 3, 8);
	assert_policy(SCHED_BATCH);
	while (sched_getscheduler(0) == SCHED_BATCH)
		ck_assert_int_eq(event_base_loop(base, EVLOOP_ONCE), 0);
	/* The timer is gone, too. */
	ck_assert_int_eq(event_base_loop(base, EVLOOP_ONCE), 1);
}
END_TEST

START_TEST(closing_restores_the_policy)
{
	notify(BATCHING_PAUSE_MIN, 1);
	assert_policy(SCHED_BATCH);
	batching_close(&batching);
	assert_policy(SCHED_OTHER);
	batching_close(&batching);
	notify(BATCHING_PAUSE_MIN, 1);
	assert_policy(SCHED_OTHER);
}
END_TEST

START_TEST(policy_given_from_outside_remains)
{
	const struct sched_param param = { .sched_priority = 0 };

	batching_close(&batching);
	ck_assert_int_eq(sched_setscheduler(0, SCHED_IDLE, &param), 0);
	batching_open(&batching, base);
	notify(BATCHING_PAUSE_MIN, 1);
	notify(BATCHING_TRIAL, 1);
	assert_policy(SCHED_IDLE);
}
END_TEST

Suite *batching_suite(void)
{
	return SUITE("batching", set_up, tear_down, tries_after_a_pause,
		     notifications_without_chains_do_not_count,
		     shallow_queue_ends_the_trial_and_the_next_pause_is_longer, pause_has_a_maximum,
		     deep_queue_keeps_it_until_it_is_shallow,
		     batches_that_come_by_themselves_are_no_reason, silence_ends_it,
		     closing_restores_the_policy, policy_given_from_outside_remains);
}
