/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counters: uint64_t members of a struct, named by a table. Each belongs to one thread, or to who
 * holds its object's lock. Names are Firecracker's where it has the counter.
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
	return *(const uint64_t *)((const char *)counters + metric->offset);
}

/* Writes the counters that are not 0 to the log, level Debug: "object: name = value". */
void metrics_log(const char *object, const struct metric *table, const void *counters);

#endif
