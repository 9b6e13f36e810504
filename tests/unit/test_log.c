/* SPDX-License-Identifier: Apache-2.0 */
#include "base/array.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"

#define LINE_MAX_BYTES 2048

static struct err err;

static void set_up(void)
{
	unlink("log");
	ck_assert_int_eq(log_open("log", &err), 0);
	log_set_level(LOG_INFO);
}

static void assert_matches(const char *text, const char *pattern)
{
	regex_t regex;

	ck_assert_int_eq(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
	ck_assert_msg(regexec(&regex, text, 0, NULL, 0) == 0, "\"%s\" is not like \"%s\"", text,
		      pattern);
	regfree(&regex);
}

START_TEST(line_has_time_id_thread_and_level)
{
	char *text;

	log_set_id("vm-7");
	log_set_thread_name("vcpu 0");
	log_warn("something with %d", 3);
	text = read_text("log");
	assert_matches(text, "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{9} "
			     "\\[vm-7:vcpu 0:WARN\\] something with 3\n$");
	free(text);
}
END_TEST

START_TEST(line_of_a_signal_handler_is_like_any_other)
{
	char long_text[2000], *text;

	log_set_id("vm-7");
	log_from_handler(LOG_ERROR, "ended\n2026");
	text = read_text("log");
	assert_matches(text, "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{9} "
			     "\\[vm-7:main:ERROR\\] ended\\?2026\n$");
	free(text);
	memset(long_text, 'x', sizeof(long_text) - 1);
	long_text[sizeof(long_text) - 1] = '\0';
	log_from_handler(LOG_ERROR, long_text);
	text = read_text("log");
	ck_assert_int_eq(text[strlen(text) - 1], '\n');
	ck_assert_uint_lt(strlen(text), LINE_MAX_BYTES);
	free(text);
}
END_TEST

START_TEST(lines_that_are_lost_are_counted)
{
	struct log_limit limit = { 0 };

	log_limited_line(&limit, LOG_WARN, "one");
	ck_assert_uint_eq(log_withheld_count(), 0);
	log_limited_line(&limit, LOG_WARN, "two");
	ck_assert_uint_eq(log_withheld_count(), 1);
	ck_assert_uint_eq(log_missed_count(), 0);
	ck_assert_int_eq(log_open("/dev/full", &err), 0);
	log_warn("three");
	ck_assert_uint_eq(log_missed_count(), 1);
}
END_TEST

/* How many lines the log has. */
static unsigned int count_lines(void)
{
	char *text = read_text("log");
	unsigned int lines = 0;

	for (const char *at = text; *at; at++)
		lines += *at == '\n';
	free(text);
	return lines;
}

#define THREADS 8
#define OBJECTS 1000 /* a thread's */

static void *log_from_many_objects(void *opaque)
{
	(void)opaque;
	for (unsigned int i = 0; i < OBJECTS; i++) {
		struct log_limit limit = { 0 };

		log_guest_line(&limit, LOG_WARN, "one of many");
		ck_assert_uint_eq(limit.withheld, limit.next_ns == 0);
	}
	return NULL;
}

START_TEST(lines_of_all_that_a_guest_has_are_limited_together)
{
	struct log_limit host = { 0 };
	pthread_t threads[THREADS];
	struct timespec start, end;
	unsigned int lines;

	clock_gettime(CLOCK_MONOTONIC, &start);
	for (unsigned int i = 0; i < THREADS; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, log_from_many_objects, NULL), 0);
	for (unsigned int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	clock_gettime(CLOCK_MONOTONIC, &end);
	lines = count_lines();
	ck_assert_uint_ge(lines, LOG_GUEST_BURST);
	ck_assert_uint_le(lines, LOG_GUEST_BURST + (uint64_t)(end.tv_sec - start.tv_sec) + 1);
	ck_assert_uint_eq(log_withheld_count(), THREADS * OBJECTS - lines);
	/* What the host has to say comes through. */
	log_limited_line(&host, LOG_WARN, "of the host");
	ck_assert_uint_eq(count_lines(), lines + 1);
}
END_TEST

START_TEST(lines_above_the_level_are_dropped)
{
	char *text;

	log_set_level(LOG_WARN);
	log_error("one");
	log_warn("two");
	log_info("three");
	log_debug("four");
	text = read_text("log");
	assert_contains(text, "one");
	assert_contains(text, "two");
	ck_assert_ptr_null(strstr(text, "three"));
	ck_assert_ptr_null(strstr(text, "four"));
	free(text);
}
END_TEST

START_TEST(wants_what_would_be_written)
{
	log_set_level(LOG_WARN);
	ck_assert(log_wants(LOG_ERROR));
	ck_assert(log_wants(LOG_WARN));
	ck_assert(!log_wants(LOG_INFO));
}
END_TEST

START_TEST(long_line_is_cut_and_ended)
{
	char words[2 * LINE_MAX_BYTES];
	char *text;

	memset(words, 'w', sizeof(words) - 1);
	words[sizeof(words) - 1] = '\0';
	log_info("%s", words);
	text = read_text("log");
	ck_assert_uint_eq(strlen(text), LINE_MAX_BYTES);
	ck_assert_int_eq(text[LINE_MAX_BYTES - 1], '\n');
	free(text);
}
END_TEST

START_TEST(open_appends_to_what_is_there)
{
	char *text;

	log_info("before");
	ck_assert_int_eq(log_open("log", &err), 0);
	log_info("behind");
	text = read_text("log");
	assert_contains(text, "before");
	assert_contains(text, "behind");
	free(text);
}
END_TEST

START_TEST(reopening_leaks_no_descriptor)
{
	unsigned int before = count_open_fds();

	ck_assert_int_eq(log_open("log", &err), 0);
	ck_assert_uint_eq(count_open_fds(), before);
}
END_TEST

START_TEST(failed_open_names_the_file_and_keeps_the_old_one)
{
	char *text;

	ck_assert_int_eq(log_open("missing/log", &err), -ENOENT);
	assert_contains(err.text, "missing/log");
	log_info("still here");
	text = read_text("log");
	assert_contains(text, "still here");
	free(text);
}
END_TEST

START_TEST(fifo_without_a_reader_keeps_what_it_has_room_for)
{
	char text[4096];
	ssize_t n;
	int fd;

	ck_assert_int_eq(mkfifo("log-fifo", 0600), 0);
	ck_assert_int_eq(log_open("log-fifo", &err), 0);
	log_info("before the reader");
	fd = open("log-fifo", O_RDONLY | O_NONBLOCK);
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	ck_assert_int_gt(n, 0);
	text[n] = '\0';
	assert_contains(text, "before the reader");
	/* Nobody takes it: lines are lost, and nobody waits. */
	for (int i = 0; i < 10000; i++)
		log_info("a line of a pipe that is full");
	ck_assert_uint_gt(log_missed_count(), 0);
}
END_TEST

/* Such as the shell's "while read line < fifo". */
START_TEST(fifo_keeps_lines_from_one_reader_to_the_next)
{
	char text[4096] = "";
	int fd;

	ck_assert_int_eq(mkfifo("log-fifo-2", 0600), 0);
	fd = open("log-fifo-2", O_RDONLY | O_NONBLOCK);
	ck_assert_int_eq(log_open("log-fifo-2", &err), 0);
	close(fd);
	log_info("between two readers");
	ck_assert_uint_eq(log_missed_count(), 0);
	fd = open("log-fifo-2", O_RDONLY | O_NONBLOCK);
	ck_assert_int_gt(read(fd, text, sizeof(text) - 1), 0);
	assert_contains(text, "between two readers");
	close(fd);
}
END_TEST

START_TEST(shows_level_and_origin_as_told)
{
	char *text;
	char origin[128];

	log_show(false, false);
	log_info("plain");
	log_show(false, true);
	snprintf(origin, sizeof(origin), "%s:%d] with its origin\n", __FILE__, __LINE__ + 1);
	log_info("with its origin");
	log_show(true, false);
	text = read_text("log");
	assert_contains(text, ":main] plain\n");
	assert_contains(text, origin);
	free(text);
}
END_TEST

START_TEST(module_is_a_prefix_of_the_source_file)
{
	char *text;

	log_set_module("virtio/");
	log_info("not this");
	log_set_module("tests/unit/test_l");
	log_info("but this");
	log_set_module(NULL);
	text = read_text("log");
	ck_assert_ptr_null(strstr(text, "not this"));
	assert_contains(text, "but this");
	free(text);
}
END_TEST

static const struct {
	const char *name;
	enum log_level level;
} levels[] = {
	{ "Error", LOG_ERROR }, { "Warning", LOG_WARN }, { "Warn", LOG_WARN },
	{ "Off", LOG_OFF },	{ "Info", LOG_INFO },	 { "Debug", LOG_DEBUG },
	{ "Trace", LOG_DEBUG }, { "error", LOG_ERROR },	 { "INFO", LOG_INFO },
};

START_TEST(level_is_known)
{
	enum log_level level;

	ck_assert_msg(log_level_parse(levels[_i].name, &level), "%s", levels[_i].name);
	ck_assert_int_eq(level, levels[_i].level);
}
END_TEST

START_TEST(other_levels_are_refused)
{
	enum log_level level;

	ck_assert(!log_level_parse("", &level));
	ck_assert(!log_level_parse("Warnings", &level));
	ck_assert(!log_level_parse("None", &level));
}
END_TEST

Suite *log_suite(void)
{
	Suite *suite = SUITE(
		"log", set_up, NULL, line_has_time_id_thread_and_level,
		line_of_a_signal_handler_is_like_any_other, lines_that_are_lost_are_counted,
		lines_of_all_that_a_guest_has_are_limited_together,
		lines_above_the_level_are_dropped, wants_what_would_be_written,
		long_line_is_cut_and_ended, open_appends_to_what_is_there,
		reopening_leaks_no_descriptor, failed_open_names_the_file_and_keeps_the_old_one,
		fifo_without_a_reader_keeps_what_it_has_room_for,
		fifo_keeps_lines_from_one_reader_to_the_next, shows_level_and_origin_as_told,
		module_is_a_prefix_of_the_source_file, other_levels_are_refused);

	add_table_test(suite, NULL, NULL, level_is_known, ARRAY_SIZE(levels));
	return suite;
}
