/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"
#include "base/array.h"
#include "base/clock.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/printable.h"
#include "base/text.h"

static int log_fd = STDERR_FILENO;
static enum log_level log_max = LOG_INFO;
static const char *log_id = "anonymous-instance";
static bool log_shows_level = true;
static bool log_shows_origin;
static const char *log_module;
static _Thread_local const char *thread_name = "main";
static uint64_t missed_count, withheld_count;
static int64_t guest_paid_ns; /* up to when the lines of the guest's objects are paid for */

static const char *const level_names[] = { "ERROR", "WARN", "INFO", "DEBUG" };

bool log_level_parse(const char *name, enum log_level *level)
{
	static const struct {
		const char *name;
		enum log_level level;
	} names[] = {
		{ "Off", LOG_OFF },	{ "Error", LOG_ERROR }, { "Warning", LOG_WARN },
		{ "Warn", LOG_WARN },	{ "Info", LOG_INFO },	{ "Debug", LOG_DEBUG },
		{ "Trace", LOG_DEBUG },
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (strcasecmp(name, names[i].name) == 0) {
			*level = names[i].level;
			return true;
		}
	}
	return false;
}

int log_open(const char *path, struct err *err)
{
	int fd = fd_open_append(path);

	if (fd < 0)
		return err_sys(err, -fd, "log file %s", path);
	if (log_fd != STDERR_FILENO)
		fd_close(&log_fd);
	log_fd = fd;
	return 0;
}

void log_set_id(const char *id)
{
	log_id = id;
}

void log_set_level(enum log_level level)
{
	log_max = level;
}

bool log_wants(enum log_level level)
{
	return level <= log_max;
}

void log_show(bool show_level, bool show_origin)
{
	log_shows_level = show_level;
	log_shows_origin = show_origin;
}

void log_set_module(const char *module)
{
	log_module = module;
}

void log_set_thread_name(const char *name)
{
	thread_name = name;
}

/*
 * The calendar date of a day counted from 1970-01-01. gmtime_r would read the time zone's files,
 * which a jailed process does not have.
 */
static void date_of_day(int64_t day, int *year, int *month, int *day_of_month)
{
	/* Counted from 0000-03-01, so that the leap day is the last of its year. */
	int64_t days = day + 719468;
	int64_t era = days / 146097;
	int64_t of_era = days % 146097;
	int64_t year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
	int64_t of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
	int64_t month_from_march = (5 * of_year + 2) / 153;

	*day_of_month = (int)(of_year - (153 * month_from_march + 2) / 5 + 1);
	*month = (int)(month_from_march < 10 ? month_from_march + 3 : month_from_march - 9);
	*year = (int)(year_of_era + era * 400 + (*month <= 2 ? 1 : 0));
}

/* A build for tests: whatever reads a line but a person finds no word in it that it knows. */
static void scramble(char *line, size_t used)
{
#ifdef MOTE_LOG_SCRAMBLED
	for (size_t i = 0; i < used; i++) {
		const char lower = (char)(line[i] | 0x20);

		if (lower >= 'a' && lower <= 'z')
			line[i] = (char)(line[i] + (lower < 'n' ? 13 : -13));
	}
#else
	(void)line;
	(void)used;
#endif
}

/* Writes a line of `used` characters, with room for one more. */
static void finish_line(char *line, size_t used)
{
	scramble(line, used);
	/* Text that came from outside must not look like another line, or command the terminal. */
	printable_line(line, used);
	line[used++] = '\n';
	/* A log that cannot be written must not stop the VM. */
	if (fd_write_all(log_fd, line, used) < 0)
		__atomic_fetch_add(&missed_count, 1, __ATOMIC_RELAXED);
}

/* Where a line comes from. */
struct origin {
	const char *file;
	int line;
	enum log_level level;
};

static bool wanted(const struct origin *origin)
{
	return log_wants(origin->level) &&
	       (!log_module || strncmp(origin->file, log_module, strlen(log_module)) == 0);
}

__attribute__((format(printf, 3, 0))) static void
write_line(const struct origin *origin, uint64_t withheld, const char *fmt, va_list args)
{
	char place[128] = "";
	char line[2048];
	struct timespec now;
	int year, month, day, second;
	int used, n;

	clock_gettime(CLOCK_REALTIME, &now);
	date_of_day(now.tv_sec / 86400, &year, &month, &day);
	second = (int)(now.tv_sec % 86400);
	if (log_shows_origin)
		snprintf(place, sizeof(place), ":%s:%d", origin->file, origin->line);
	used = snprintf(line, sizeof(line), "%04d-%02d-%02dT%02d:%02d:%02d.%09ld [%s:%s%s%s%s] ",
			year, month, day, second / 3600, second / 60 % 60, second % 60, now.tv_nsec,
			log_id, thread_name, log_shows_level ? ":" : "",
			log_shows_level ? level_names[origin->level] : "", place);
	if (used < 0 || used >= (int)sizeof(line))
		return;
	n = vsnprintf(line + used, sizeof(line) - (size_t)used, fmt, args);
	if (n < 0)
		return;
	used += n;
	if (withheld != 0 && used < (int)sizeof(line)) {
		n = snprintf(line + used, sizeof(line) - (size_t)used,
			     " (%" PRIu64 " such lines before it withheld)", withheld);
		used += n > 0 ? n : 0;
	}
	if (used > (int)sizeof(line) - 1)
		used = (int)sizeof(line) - 1;
	finish_line(line, (size_t)used);
}

void log_from_handler(enum log_level level, const char *text)
{
	char line[1024];
	struct text out = text_in(line, sizeof(line) - 1);
	struct timespec now;
	int year, month, day;
	uint64_t second;

	if (!log_wants(level))
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	date_of_day(now.tv_sec / 86400, &year, &month, &day);
	second = (uint64_t)now.tv_sec % 86400;
	text_add_digits(&out, (uint64_t)year, 4);
	text_add(&out, "-");
	text_add_digits(&out, (uint64_t)month, 2);
	text_add(&out, "-");
	text_add_digits(&out, (uint64_t)day, 2);
	text_add(&out, "T");
	text_add_digits(&out, second / 3600, 2);
	text_add(&out, ":");
	text_add_digits(&out, second / 60 % 60, 2);
	text_add(&out, ":");
	text_add_digits(&out, second % 60, 2);
	text_add(&out, ".");
	text_add_digits(&out, (uint64_t)now.tv_nsec, 9);
	text_add(&out, " [");
	text_add(&out, log_id);
	text_add(&out, ":");
	text_add(&out, thread_name);
	text_add(&out, log_shows_level ? ":" : "");
	text_add(&out, log_shows_level ? level_names[level] : "");
	text_add(&out, "] ");
	text_add(&out, text);
	finish_line(line, out.used);
}

uint64_t log_missed_count(void)
{
	return __atomic_load_n(&missed_count, __ATOMIC_RELAXED);
}

uint64_t log_withheld_count(void)
{
	return __atomic_load_n(&withheld_count, __ATOMIC_RELAXED);
}

void log_line_at(const char *file, int line, enum log_level level, const char *fmt, ...)
{
	const struct origin origin = { file, line, level };
	va_list args;

	if (!wanted(&origin))
		return;
	va_start(args, fmt);
	write_line(&origin, 0, fmt, args);
	va_end(args);
}

/* Takes one of the lines that all guest's objects have together, unless none is left. */
static bool take_guest_line(int64_t at)
{
	int64_t paid = __atomic_load_n(&guest_paid_ns, __ATOMIC_RELAXED), next;

	do {
		next = (paid > at ? paid : at) + NS_PER_S;
		if (next > at + LOG_GUEST_BURST * NS_PER_S)
			return false;
	} while (!__atomic_compare_exchange_n(&guest_paid_ns, &paid, next, true, __ATOMIC_RELAXED,
					      __ATOMIC_RELAXED));
	return true;
}

__attribute__((format(printf, 4, 0))) static void limited_line(const struct origin *origin,
							       struct log_limit *limit,
							       bool of_guest, const char *fmt,
							       va_list args)
{
	int64_t at = clock_ns();

	if (at < limit->next_ns || (of_guest && !take_guest_line(at))) {
		limit->withheld++;
		__atomic_fetch_add(&withheld_count, 1, __ATOMIC_RELAXED);
		return;
	}
	write_line(origin, limit->withheld, fmt, args);
	limit->withheld = 0;
	limit->next_ns = at + NS_PER_S;
}

void log_limited_line_at(const char *file, int line, struct log_limit *limit, enum log_level level,
			 const char *fmt, ...)
{
	const struct origin origin = { file, line, level };
	va_list args;

	if (!wanted(&origin))
		return;
	va_start(args, fmt);
	limited_line(&origin, limit, false, fmt, args);
	va_end(args);
}

void log_guest_line_at(const char *file, int line, struct log_limit *limit, enum log_level level,
		       const char *fmt, ...)
{
	const struct origin origin = { file, line, level };
	va_list args;

	if (!wanted(&origin))
		return;
	va_start(args, fmt);
	limited_line(&origin, limit, true, fmt, args);
	va_end(args);
}
