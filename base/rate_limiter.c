/* SPDX-License-Identifier: Apache-2.0 */
#include "base/rate_limiter.h"

#include <errno.h>

#include "base/clock.h"
#include "base/state.h"

/* One request's, at most: none passes while there is a debt. */
#define DEBT_MAX (INT64_MAX / 2)
/* So that what passes after a restore can be added. */
#define ELAPSED_MAX (INT64_MAX / 2)

static void bucket_init(struct token_bucket *bucket, const struct token_bucket_config *config,
			int64_t now_ns)
{
	*bucket = (struct token_bucket){ .filled_ns = now_ns };
	if (config->size <= 0 || config->refill_time <= 0)
		return;
	bucket->size = (uint64_t)config->size;
	if (__builtin_mul_overflow((uint64_t)config->refill_time, NS_PER_MS, &bucket->refill_ns))
		bucket->refill_ns = UINT64_MAX;
	bucket->burst = config->one_time_burst > 0 ? (uint64_t)config->one_time_burst : 0;
	bucket->budget = config->size;
}

void rate_limiter_init(struct rate_limiter *limiter, const struct rate_limiter_config *config,
		       int64_t now_ns)
{
	bucket_init(&limiter->bandwidth, &config->bandwidth, now_ns);
	bucket_init(&limiter->ops, &config->ops, now_ns);
}

static void refill(struct token_bucket *bucket, int64_t now_ns)
{
	uint64_t elapsed, tokens;

	if (now_ns <= bucket->filled_ns)
		return;
	elapsed = (uint64_t)(now_ns - bucket->filled_ns);
	tokens = (uint64_t)((unsigned __int128)elapsed * bucket->size / bucket->refill_ns);
	if (tokens == 0)
		return;
	if (tokens >= (unsigned __int128)((__int128)bucket->size - bucket->budget)) {
		bucket->budget = (int64_t)bucket->size;
		bucket->filled_ns = now_ns;
		return;
	}
	bucket->budget = (int64_t)((__int128)bucket->budget + tokens);
	/* Only the time that those whole tokens took, so that the rest of it is not lost. */
	bucket->filled_ns +=
		(int64_t)((unsigned __int128)tokens * bucket->refill_ns / bucket->size);
}

/* The tokens that must be there for a request to pass. */
static int64_t needed(const struct token_bucket *bucket, uint64_t tokens)
{
	uint64_t beyond_burst = tokens > bucket->burst ? tokens - bucket->burst : 0;

	if (beyond_burst > bucket->size)
		return 1;
	return (int64_t)beyond_burst;
}

/* 0 if they are there, else nanoseconds until they will be. */
static int64_t wait_for(struct token_bucket *bucket, uint64_t tokens, int64_t now_ns)
{
	unsigned __int128 wait;

	if (bucket->size == 0 || needed(bucket, tokens) == 0)
		return 0;
	refill(bucket, now_ns);
	if (bucket->budget >= needed(bucket, tokens))
		return 0;
	wait = (unsigned __int128)((__int128)needed(bucket, tokens) - bucket->budget) *
		       bucket->refill_ns / bucket->size +
	       1;
	/* What of it has already passed since filled_ns is too little to be a token. */
	return wait > INT64_MAX ? INT64_MAX : (int64_t)wait;
}

static void take(struct token_bucket *bucket, uint64_t tokens)
{
	uint64_t from_burst = tokens < bucket->burst ? tokens : bucket->burst;
	uint64_t rest = tokens - from_burst;

	if (bucket->size == 0)
		return;
	bucket->burst -= from_burst;
	bucket->budget -= rest > DEBT_MAX ? DEBT_MAX : (int64_t)rest;
}

int64_t rate_limiter_take(struct rate_limiter *limiter, uint64_t bytes, int64_t now_ns)
{
	int64_t wait_bytes = wait_for(&limiter->bandwidth, bytes, now_ns);
	int64_t wait_ops = wait_for(&limiter->ops, 1, now_ns);

	if (wait_bytes > 0 || wait_ops > 0)
		return wait_bytes > wait_ops ? wait_bytes : wait_ops;
	take(&limiter->bandwidth, bytes);
	take(&limiter->ops, 1);
	return 0;
}

int64_t rate_limiter_wait(struct rate_limiter *limiter, int64_t now_ns)
{
	int64_t wait_bytes = wait_for(&limiter->bandwidth, 1, now_ns);
	int64_t wait_ops = wait_for(&limiter->ops, 1, now_ns);

	return wait_bytes > wait_ops ? wait_bytes : wait_ops;
}

void rate_limiter_charge(struct rate_limiter *limiter, uint64_t bytes)
{
	take(&limiter->bandwidth, bytes);
	take(&limiter->ops, 1);
}

static void give_back(struct token_bucket *bucket, uint64_t tokens)
{
	if (bucket->size == 0)
		return;
	if (__builtin_add_overflow(bucket->budget, tokens, &bucket->budget) ||
	    bucket->budget > (int64_t)bucket->size)
		bucket->budget = (int64_t)bucket->size;
}

void rate_limiter_give_back(struct rate_limiter *limiter, uint64_t bytes)
{
	give_back(&limiter->bandwidth, bytes);
	give_back(&limiter->ops, 1);
}

static void save_bucket(const struct token_bucket *bucket, struct state_writer *out, int64_t now_ns)
{
	state_put_u64(out, bucket->size);
	state_put_u64(out, bucket->refill_ns);
	state_put_u64(out, bucket->burst);
	state_put_u64(out, (uint64_t)bucket->budget);
	state_put_u64(out, (uint64_t)(now_ns - bucket->filled_ns));
}

static int restore_bucket(struct token_bucket *bucket, struct state_reader *in, int64_t now_ns)
{
	uint64_t elapsed;

	bucket->size = state_get_u64(in);
	bucket->refill_ns = state_get_u64(in);
	bucket->burst = state_get_u64(in);
	bucket->budget = (int64_t)state_get_u64(in);
	elapsed = state_get_u64(in);
	if (elapsed > ELAPSED_MAX)
		return -EINVAL;
	bucket->filled_ns = now_ns - (int64_t)elapsed;
	if (bucket->size > INT64_MAX || bucket->budget > (int64_t)bucket->size ||
	    bucket->budget < -DEBT_MAX)
		return -EINVAL;
	return bucket->size > 0 && bucket->refill_ns == 0 ? -EINVAL : 0;
}

void rate_limiter_save(const struct rate_limiter *limiter, struct state_writer *out, int64_t now_ns)
{
	save_bucket(&limiter->bandwidth, out, now_ns);
	save_bucket(&limiter->ops, out, now_ns);
}

int rate_limiter_restore(struct rate_limiter *limiter, struct state_reader *in, int64_t now_ns)
{
	int rc = restore_bucket(&limiter->bandwidth, in, now_ns);

	return rc < 0 ? rc : restore_bucket(&limiter->ops, in, now_ns);
}
