/* SPDX-License-Identifier: Apache-2.0 */
#include "base/rate_limiter.h"

#include <errno.h>

#include "base/array.h"
#include "base/state.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"

#define MS INT64_C(1000000)

static struct rate_limiter limiter;

static void init_ops(int64_t size, int64_t burst, int64_t refill_ms)
{
	const struct rate_limiter_config config = { .ops = { size, burst, refill_ms } };

	rate_limiter_init(&limiter, &config, 0);
}

static void init_bytes(int64_t size, int64_t burst, int64_t refill_ms)
{
	const struct rate_limiter_config config = { .bandwidth = { size, burst, refill_ms } };

	rate_limiter_init(&limiter, &config, 0);
}

START_TEST(without_limits_everything_passes)
{
	const struct rate_limiter_config none = { 0 };
	const struct rate_limiter_config half = { .bandwidth = { 5, 0, 0 }, .ops = { 0, 9, 5 } };

	rate_limiter_init(&limiter, &none, 0);
	ck_assert(!rate_limiter_limits(&limiter));
	rate_limiter_init(&limiter, &half, 0);
	ck_assert(!rate_limiter_limits(&limiter));
	for (int i = 0; i < 100; i++)
		ck_assert_int_eq(rate_limiter_take(&limiter, UINT64_MAX, 0), 0);
	ck_assert_int_eq(rate_limiter_wait(&limiter, 0), 0);
}
END_TEST

START_TEST(full_bucket_then_linear_refill)
{
	init_ops(10, 0, 100);
	ck_assert(rate_limiter_limits(&limiter));
	for (int i = 0; i < 10; i++)
		ck_assert_int_eq(rate_limiter_take(&limiter, 1, 0), 0);
	ck_assert_int_gt(rate_limiter_take(&limiter, 1, 0), 0);
	ck_assert_int_le(rate_limiter_take(&limiter, 1, 0), 10 * MS + 1);
	ck_assert_int_gt(rate_limiter_take(&limiter, 1, 10 * MS - 1), 0);
	ck_assert_int_eq(rate_limiter_take(&limiter, 1, 10 * MS), 0);
	ck_assert_int_gt(rate_limiter_take(&limiter, 1, 10 * MS), 0);
	for (int i = 0; i < 5; i++)
		ck_assert_int_eq(rate_limiter_take(&limiter, 1, 60 * MS), 0);
	ck_assert_int_gt(rate_limiter_take(&limiter, 1, 60 * MS), 0);
}
END_TEST

START_TEST(bucket_never_holds_more_than_its_size)
{
	init_ops(3, 0, 1000);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(rate_limiter_take(&limiter, 1, INT64_MAX / 2), 0);
	ck_assert_int_gt(rate_limiter_take(&limiter, 1, INT64_MAX / 2), 0);
}
END_TEST

START_TEST(burst_is_spent_first_and_never_comes_back)
{
	init_ops(2, 5, 100);
	for (int i = 0; i < 7; i++)
		ck_assert_int_eq(rate_limiter_take(&limiter, 1, 0), 0);
	ck_assert_int_gt(rate_limiter_take(&limiter, 1, 0), 0);
	for (int i = 0; i < 2; i++)
		ck_assert_int_eq(rate_limiter_take(&limiter, 1, 10000 * MS), 0);
	ck_assert_int_gt(rate_limiter_take(&limiter, 1, 10000 * MS), 0);
}
END_TEST

START_TEST(oversized_request_passes_and_blocks_in_proportion)
{
	init_bytes(1000, 0, 100);
	ck_assert_int_eq(rate_limiter_take(&limiter, 5000, 0), 0);
	ck_assert_int_gt(rate_limiter_take(&limiter, 1, 399 * MS), 0);
	ck_assert_int_eq(rate_limiter_take(&limiter, 1, 401 * MS), 0);
}
END_TEST

START_TEST(what_is_refused_takes_nothing)
{
	const struct rate_limiter_config config = { .bandwidth = { 100, 0, 100 },
						    .ops = { 1, 0, 100 } };

	rate_limiter_init(&limiter, &config, 0);
	ck_assert_int_eq(rate_limiter_take(&limiter, 10, 0), 0);
	for (int i = 0; i < 50; i++)
		ck_assert_int_gt(rate_limiter_take(&limiter, 10, 0), 0);
	ck_assert_int_eq(limiter.bandwidth.budget, 90);
}
END_TEST

START_TEST(charge_goes_into_debt)
{
	init_bytes(1000, 0, 100);
	ck_assert_int_eq(rate_limiter_wait(&limiter, 0), 0);
	rate_limiter_charge(&limiter, 3000);
	ck_assert_int_gt(rate_limiter_wait(&limiter, 0), 199 * MS);
	ck_assert_int_eq(rate_limiter_wait(&limiter, 201 * MS), 0);
}
END_TEST

/* Whatever the steps of time, what passes in the end is what the refill gives. */
START_TEST(rate_is_exact_over_time)
{
	static const int64_t steps[] = { 1, 999, 12345, 1000003, 7 * MS, 999 * MS };
	const int64_t end = 20000 * MS;
	uint64_t passed = 0;

	init_ops(7, 0, 13);
	for (int64_t now = 0; now < end; now += steps[_i] < 100000 ? 100003 : steps[_i]) {
		while (rate_limiter_take(&limiter, 1, now) == 0)
			passed++;
	}
	if (steps[_i] < 13 * MS)
		ck_assert_uint_ge(passed, 7 + 20000 / 13 * 7 - 8);
	ck_assert_uint_le(passed, 7 + 20000 * 7 / 13 + 1);
}
END_TEST

START_TEST(extreme_values_do_not_overflow)
{
	const struct rate_limiter_config config = {
		.bandwidth = { INT64_MAX, INT64_MAX, INT64_MAX },
		.ops = { 1, 0, INT64_MAX },
	};

	rate_limiter_init(&limiter, &config, 0);
	ck_assert_int_eq(rate_limiter_take(&limiter, UINT64_MAX, 0), 0);
	ck_assert_int_gt(rate_limiter_take(&limiter, UINT64_MAX, INT64_MAX), 0);
	rate_limiter_charge(&limiter, UINT64_MAX);
	ck_assert_int_gt(rate_limiter_wait(&limiter, INT64_MAX), 0);
	/* A clock that seems to go back does no harm. */
	ck_assert_int_gt(rate_limiter_wait(&limiter, 5), 0);
}
END_TEST

START_TEST(what_comes_back_does_not_overflow_the_bucket)
{
	init_bytes(1000, 0, 1000000);
	rate_limiter_charge(&limiter, 100);
	rate_limiter_give_back(&limiter, 500);
	ck_assert_int_eq(rate_limiter_take(&limiter, 1000, 0), 0);
	ck_assert_int_gt(rate_limiter_take(&limiter, 1, 0), 0);
	rate_limiter_give_back(&limiter, UINT64_MAX);
	ck_assert_int_eq(rate_limiter_take(&limiter, 1000, 0), 0);
	ck_assert_int_gt(rate_limiter_take(&limiter, 1, 0), 0);
}
END_TEST

START_TEST(clock_that_goes_back_fills_nothing)
{
	const struct rate_limiter_config config = { .ops = { 10, 0, 1000 } };

	rate_limiter_init(&limiter, &config, 5000 * MS);
	for (int i = 0; i < 10; i++)
		ck_assert_int_eq(rate_limiter_take(&limiter, 1, 5000 * MS), 0);
	ck_assert_int_gt(rate_limiter_take(&limiter, 1, 4000 * MS), 0);
}
END_TEST

static int restore(struct state_writer *saved, int64_t now_ns)
{
	struct state_reader reader = { .at = saved->data, .left = saved->size };
	int rc = rate_limiter_restore(&limiter, &reader, now_ns);

	state_writer_free(saved);
	if (rc == 0)
		ck_assert(state_is_done(&reader));
	return rc;
}

/* On a host whose clock is another. */
START_TEST(restored_limiter_goes_on_where_it_was)
{
	const struct rate_limiter_config config = { .bandwidth = { 1000, 500, 1000 },
						    .ops = { 3, 0, 600 } };
	const int64_t now = 7 * MS;
	struct state_writer saved = { 0 };

	rate_limiter_init(&limiter, &config, 9000 * MS);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(rate_limiter_take(&limiter, 100, 9000 * MS), 0);
	rate_limiter_save(&limiter, &saved, 9050 * MS);
	memset(&limiter, 0, sizeof(limiter));
	ck_assert_int_eq(restore(&saved, now), 0);
	ck_assert_int_gt(rate_limiter_take(&limiter, 100, now + 150 * MS - 1), 0);
	ck_assert_int_eq(rate_limiter_take(&limiter, 1200, now + 150 * MS), 0);
	/* Neither the burst nor the bucket was new. */
	ck_assert_uint_eq(limiter.bandwidth.burst, 0);
	ck_assert_int_eq(limiter.bandwidth.budget, 0);
}
END_TEST

static void put_bucket(struct state_writer *out, const uint64_t values[5])
{
	for (int i = 0; i < 5; i++)
		state_put_u64(out, values[i]);
}

static const uint64_t impossible[][5] = {
	{ UINT64_C(15) << 60, 1, 0, UINT64_C(14) << 60, 0 }, /* size */
	{ 1, 0, 0, 0, 0 },				     /* no time to refill it */
	{ 1, 1, 0, 2, 0 },				     /* more than the size in it */
	{ 1, 1, 0, UINT64_C(1) << 63, 0 },		     /* debt */
	{ 1, 1, 0, 0, UINT64_C(1) << 62 },		     /* elapsed */
};

START_TEST(impossible_limiter_is_refused)
{
	static const uint64_t good[5] = { 1, 1, 1, 1, 1 };
	struct state_writer saved = { 0 };

	put_bucket(&saved, impossible[_i]);
	put_bucket(&saved, good);
	ck_assert_int_eq(restore(&saved, 0), -EINVAL);
	put_bucket(&saved, good);
	put_bucket(&saved, impossible[_i]);
	ck_assert_int_eq(restore(&saved, 0), -EINVAL);
	put_bucket(&saved, good);
	put_bucket(&saved, good);
	ck_assert_int_eq(restore(&saved, 0), 0);
}
END_TEST

/* Undefined behaviour would be seen by its sanitizer. */
START_TEST(extreme_restored_values_do_not_overflow)
{
	static const uint64_t extremes[] = { 0,		 1,	   INT64_MAX / 2,     INT64_MAX,
					     UINT64_MAX, 1u << 31, 0xc000000000000001 };
	const size_t count = ARRAY_SIZE(extremes);
	unsigned int restored = 0;

	for (size_t i = 0; i < count * count * count * count * count; i++) {
		const uint64_t values[5] = {
			extremes[i % count],
			extremes[i / count % count],
			extremes[i / count / count % count],
			extremes[i / count / count / count % count],
			extremes[i / count / count / count / count],
		};
		struct state_writer saved = { 0 };

		put_bucket(&saved, values);
		put_bucket(&saved, values);
		if (restore(&saved, 1000) < 0)
			continue;
		restored++;
		for (unsigned int at = 0; at < 3; at++) {
			ck_assert_int_ge(rate_limiter_take(&limiter, extremes[i % count], 2000), 0);
			ck_assert_int_ge(rate_limiter_wait(&limiter, INT64_MAX / 4), 0);
			if (rate_limiter_wait(&limiter, INT64_MAX / 4) == 0)
				rate_limiter_charge(&limiter, UINT64_MAX);
			rate_limiter_give_back(&limiter, INT64_MAX);
		}
	}
	ck_assert_uint_gt(restored, 100);
}
END_TEST

Suite *rate_limiter_suite(void)
{
	Suite *suite = SUITE(
		"rate_limiter", NULL, NULL, without_limits_everything_passes,
		full_bucket_then_linear_refill, bucket_never_holds_more_than_its_size,
		burst_is_spent_first_and_never_comes_back,
		oversized_request_passes_and_blocks_in_proportion, what_is_refused_takes_nothing,
		charge_goes_into_debt, extreme_values_do_not_overflow,
		what_comes_back_does_not_overflow_the_bucket, clock_that_goes_back_fills_nothing,
		restored_limiter_goes_on_where_it_was, extreme_restored_values_do_not_overflow);

	add_table_test(suite, NULL, NULL, rate_is_exact_over_time, 6);
	add_table_test(suite, NULL, NULL, impossible_limiter_is_refused, ARRAY_SIZE(impossible));
	return suite;
}
