/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counters: uint64_t members of a struct, named by a table. Each belongs to one thread, or to who
 * holds its object's lock; it may be read by any. Names are Firecracker's where it has the counter.
 */
#ifndef MOTE_BASE_METRICS_H
#define MOTE_BASE_METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum metric_kind {
	METRIC_COUNTED,
	METRIC_OWN,   /* mote's own, of which a line in Firecracker's format says nothing */
	METRIC_NEVER, /* Firecracker's, of what mote does not have or count: 0 in such a line */
	METRIC_NEVER_TIMED, /* the same, and an object of three */
};

/* A table ends with a NULL name. */
struct metric {
	const char *name;
	size_t offset; /* of a uint64_t, if it is counted */
	enum metric_kind kind;
};

static inline bool metric_is_counted(const struct metric *metric)
{
	return metric->kind == METRIC_COUNTED || metric->kind == METRIC_OWN;
}

/* clang-format off */
#define METRIC(type, member) { #member, offsetof(struct type, member), METRIC_COUNTED }
#define METRIC_AS(type, name, member) { name, offsetof(struct type, member), METRIC_COUNTED }
#define METRIC_OWN(type, member) { #member, offsetof(struct type, member), METRIC_OWN }
#define METRIC_NEVER(name) { name, 0, METRIC_NEVER }
#define METRIC_NEVER_TIMED(name) { name, 0, METRIC_NEVER_TIMED }
/* clang-format on */

/* The counter's value in `counters`; 0 if it is not counted. */
static inline uint64_t metric_value(const struct metric *metric, const void *counters)
{
	if (!metric_is_counted(metric))
		return 0;
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
