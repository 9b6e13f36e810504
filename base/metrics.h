/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counters: uint64_t members of a struct, named by a table. Each belongs to one thread, or to who
 * holds its object's lock; it may be read by any. Names are Firecracker's where it has the counter.
 */
#ifndef MOTE_BASE_METRICS_H
#define MOTE_BASE_METRICS_H

#include <stddef.h>
#include <stdint.h>

/* A table ends with a NULL name. */
struct metric {
	const char *name;
	size_t offset; /* of a uint64_t */
};

#define METRIC(type, member)                                                                       \
	{                                                                                          \
#member, offsetof(struct type, member)                                             \
	}

/* The counter's value in `counters`. */
static inline uint64_t metric_value(const struct metric *metric, const void *counters)
{
	return __atomic_load_n((const uint64_t *)((const char *)counters + metric->offset),
			       __ATOMIC_RELAXED);
}

/* For a counter of another thread than the main one: those who read it see it whole. */
static inline void metric_add(uint64_t *counter, uint64_t amount)
{
	__atomic_store_n(counter, *counter + amount, __ATOMIC_RELAXED);
}

/* Writes the counters that are not 0 to the log, level Debug: "object: name = value". */
void metrics_log(const char *object, const struct metric *table, const void *counters);

#endif
