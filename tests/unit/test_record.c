/* SPDX-License-Identifier: Apache-2.0 */
#include "base/record.h"

#include <fcntl.h>
#include <jansson.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/suites.h"
#include "tests/unit/support.h"

static int ends[2];

static void setup(void)
{
	ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
	record_to(ends[1]);
}

static void teardown(void)
{
	record_to(-1);
	close(ends[0]);
	close(ends[1]);
}

/* What a record of this sentence reads as, to be freed. */
static json_t *recorded(const char *sentence)
{
	char line[RECORD_MAX];
	json_t *record;
	ssize_t n;

	record_error(sentence);
	n = read(ends[0], line, sizeof(line));
	ck_assert_int_gt(n, 0);
	ck_assert_int_eq(line[n - 1], '\n');
	ck_assert_ptr_eq(memchr(line, '\n', (size_t)n), line + n - 1);
	record = json_loadb(line, (size_t)n, JSON_REJECT_DUPLICATES, NULL);
	ck_assert_ptr_nonnull(record);
	ck_assert_str_eq(json_string_value(json_object_get(record, "event")), "error");
	return record;
}

static void check_error(const char *sentence, const char *expected)
{
	json_t *record = recorded(sentence);

	ck_assert_str_eq(json_string_value(json_object_get(record, "error")), expected);
	json_decref(record);
}

START_TEST(error_is_one_line_of_json)
{
	char longest[2000], kept[512];

	check_error("drive a: /x: No such file or directory",
		    "drive a: /x: No such file or directory");
	check_error("\"quoted\" \\ and é", "\"quoted\" \\ and é");
	check_error("two\nlines\x1b[2J", "two?lines?[2J");
	check_error("not UTF-8: \xff\xc3", "not UTF-8: ??");
	memset(longest, '"', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	memset(kept, '"', sizeof(kept) - 1);
	kept[sizeof(kept) - 1] = '\0';
	check_error(longest, kept);
}
END_TEST

START_TEST(nothing_is_written_without_a_descriptor)
{
	char byte;

	record_to(-1);
	record_error("lost");
	record_to(1000);
	record_error("lost");
	ck_assert_int_eq(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
	ck_assert_int_eq(read(ends[0], &byte, 1), -1);
}
END_TEST

/* A record is there whole or not at all, and whoever writes it goes on. */
START_TEST(slow_reader_is_not_waited_for)
{
	static char line[RECORD_MAX], read_back[RECORD_MAX];
	unsigned int written = 0;
	ssize_t n;

	memset(line, 'x', sizeof(line));
	line[sizeof(line) - 1] = '\n';
	for (int i = 0; i < 1000; i++)
		record_write(line, sizeof(line));
	ck_assert_int_eq(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
	while ((n = read(ends[0], read_back, sizeof(read_back))) > 0) {
		ck_assert_int_eq(n, RECORD_MAX);
		ck_assert_mem_eq(read_back, line, sizeof(line));
		written++;
	}
	ck_assert_uint_gt(written, 0);
	ck_assert_uint_lt(written, 1000);
	record_write(line, sizeof(line));
	ck_assert_int_eq(read(ends[0], read_back, sizeof(read_back)), RECORD_MAX);
}
END_TEST

START_TEST(reader_that_has_gone_is_no_error)
{
	close(ends[0]);
	record_error("nobody reads it");
	ends[0] = dup(ends[1]);
}
END_TEST

Suite *record_suite(void)
{
	return SUITE("record", setup, teardown, error_is_one_line_of_json,
		     nothing_is_written_without_a_descriptor, slow_reader_is_not_waited_for,
		     reader_that_has_gone_is_no_error);
}
