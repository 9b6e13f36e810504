/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Token buckets for bytes and operations. A bucket starts full, with an additional burst that is
 * spent first and never refilled; the refill is linear. A request larger than the bucket passes
 * when there is anything in it and leaves a debt, which blocks in proportion. No locking.
 */
#ifndef MOTE_BASE_RATE_LIMITER_H
#define MOTE_BASE_RATE_LIMITER_H

#include <stdbool.h>
#include <stdint.h>

struct state_reader;
struct state_writer;

/* A size or refill time of 0 stands for no limit. */
struct token_bucket_config {
	int64_t size;		/* tokens: bytes or operations */
	int64_t one_time_burst; /* tokens on top, once */
	int64_t refill_time;	/* milliseconds from empty to full */
};

struct rate_limiter_config {
	struct token_bucket_config bandwidth;
	struct token_bucket_config ops;
};

struct token_bucket {
	uint64_t size;
	uint64_t refill_ns;
	uint64_t burst;	   /* what is left of it */
	int64_t budget;	   /* tokens; negative: debt */
	int64_t filled_ns; /* the time that budget is for, CLOCK_MONOTONIC */
};

struct rate_limiter {
	struct token_bucket bandwidth;
	struct token_bucket ops;
};

/* Full buckets at time now_ns (CLOCK_MONOTONIC). */
void rate_limiter_init(struct rate_limiter *limiter, const struct rate_limiter_config *config,
		       int64_t now_ns);

static inline bool rate_limiter_limits(const struct rate_limiter *limiter)
{
	return limiter->bandwidth.size > 0 || limiter->ops.size > 0;
}

/*
 * Takes one operation of that many bytes and returns 0; or takes nothing and returns the
 * nanoseconds (> 0) after which to ask again.
 */
int64_t rate_limiter_take(struct rate_limiter *limiter, uint64_t bytes, int64_t now_ns);

/* Gives one operation of that many bytes back, which was taken but not done. */
void rate_limiter_give_back(struct rate_limiter *limiter, uint64_t bytes);

/*
 * For operations whose size is known only afterwards: 0 if there is anything in the buckets, else
 * the nanoseconds after which to ask again; and then what the operation took, into debt if need be.
 */
int64_t rate_limiter_wait(struct rate_limiter *limiter, int64_t now_ns);
void rate_limiter_charge(struct rate_limiter *limiter, uint64_t bytes);

/*
 * The limits and what is left of them. The time from save to restore is none to the limiter, and
 * its clock may be another afterwards. 0, or -EINVAL for what no limiter can be.
 */
void rate_limiter_save(const struct rate_limiter *limiter, struct state_writer *out,
		       int64_t now_ns);
int rate_limiter_restore(struct rate_limiter *limiter, struct state_reader *in, int64_t now_ns);

#endif
