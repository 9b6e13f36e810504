/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log: one line an event, written with one write(2), from any thread.
 * Format: TIMESTAMP [ID:THREAD:LEVEL] TEXT, the timestamp in UTC with nanoseconds.
 */
#ifndef MOTE_BASE_LOG_H
#define MOTE_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

struct err;

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* Level names as Firecracker spells them: Error, Warning (or Warn), Info, Debug (or Trace). */
bool log_level_parse(const char *name, enum log_level *level);

/*
 * Appends to the file, fifo or device at path from now on; before that lines go to standard error.
 * 0 or -errno with err set.
 */
int log_open(const char *path, struct err *err);

/* Call before the first thread is started. id is not copied and must live on. */
void log_set_id(const char *id);
void log_set_level(enum log_level level);
/* Whether a line of this level would be written. */
bool log_wants(enum log_level level);
void log_set_thread_name(const char *name);

void log_line(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* For lines that a guest can cause: one a second for each object that has such a limit. */
struct log_limit {
	int64_t next_ns; /* CLOCK_MONOTONIC; zeroed: at once */
	uint64_t withheld;
};

/* Not thread-safe for one limit. A line that is written says how many before it were not. */
void log_limited_line(struct log_limit *limit, enum log_level level, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)
#define log_warn(...) log_line(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_DEBUG, __VA_ARGS__)

#endif
