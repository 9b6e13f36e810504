/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log: one line an event, written with one write(2), from any thread.
 * Format: TIMESTAMP [ID:THREAD:LEVEL:FILE:LINE] TEXT, the timestamp in UTC with nanoseconds, the
 * level, file and line as log_show says.
 */
#ifndef MOTE_BASE_LOG_H
#define MOTE_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

struct err;

enum log_level { LOG_OFF = -1, LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* Level names as Firecracker spells them: Off, Error, Warning (or Warn), Info, Debug (or Trace). */
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

/* Whether lines name their level (they do unless told otherwise), and their file and line. */
void log_show(bool show_level, bool show_origin);
/* Only lines from files whose path begins so; NULL: all. Not copied. */
void log_set_module(const char *module);

void log_line_at(const char *file, int line, enum log_level level, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
#define log_line(...) log_line_at(__FILE__, __LINE__, __VA_ARGS__)

/* For lines that can come too often: one a second for each object that has such a limit. */
struct log_limit {
	int64_t next_ns; /* CLOCK_MONOTONIC; zeroed: at once */
	uint64_t withheld;
};

/* Not thread-safe for one limit. A line that is written says how many before it were not. */
void log_limited_line_at(const char *file, int line, struct log_limit *limit, enum log_level level,
			 const char *fmt, ...) __attribute__((format(printf, 5, 6)));
#define log_limited_line(...) log_limited_line_at(__FILE__, __LINE__, __VA_ARGS__)

/*
 * The same for lines that a guest can cause, which has many objects: of all of them together so
 * many lines at once, and one a second from then on. What the host's side has to say is not held
 * back by it.
 */
#define LOG_GUEST_BURST 20
void log_guest_line_at(const char *file, int line, struct log_limit *limit, enum log_level level,
		       const char *fmt, ...) __attribute__((format(printf, 5, 6)));
#define log_guest_line(...) log_guest_line_at(__FILE__, __LINE__, __VA_ARGS__)

/*
 * The same for signal handlers (signal-safety(7)): what has been put together already, without its
 * origin, and whatever the module.
 */
void log_from_handler(enum log_level level, const char *text);

/* How many lines could not be written, and how many were withheld by a limit. */
uint64_t log_missed_count(void);
uint64_t log_withheld_count(void);

#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)
#define log_warn(...) log_line(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_DEBUG, __VA_ARGS__)

#endif
