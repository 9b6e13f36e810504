/* SPDX-License-Identifier: Apache-2.0 */
#include "base/err.h"

#include <errno.h>

#include "tests/unit/suites.h"
#include "tests/unit/support.h"

static struct err err;
static char long_text[2 * ERR_TEXT_SIZE];

static void set_up(void)
{
	memset(&err, 'x', sizeof(err));
	memset(long_text, 'a', sizeof(long_text) - 1);
}

START_TEST(set_formats_and_returns_the_negative_errno)
{
	ck_assert_int_eq(err_set(&err, EINVAL, "drive %s: %d", "root", 7), -EINVAL);
	ck_assert_str_eq(err.text, "drive root: 7");
}
END_TEST

START_TEST(sys_appends_the_cause)
{
	ck_assert_int_eq(err_sys(&err, ENOENT, "drive %s", "root"), -ENOENT);
	ck_assert_str_eq(err.text, "drive root: No such file or directory");
}
END_TEST

START_TEST(sys_survives_a_number_that_is_no_errno)
{
	ck_assert_int_eq(err_sys(&err, 9999, "drive"), -9999);
	ck_assert_str_eq(err.text, "drive: unknown error");
}
END_TEST

START_TEST(err_may_be_null)
{
	ck_assert_int_eq(err_set(NULL, EIO, "x"), -EIO);
	ck_assert_int_eq(err_sys(NULL, EIO, "x"), -EIO);
}
END_TEST

START_TEST(long_sentence_is_cut)
{
	err_set(&err, EIO, "%s", long_text);
	ck_assert_uint_eq(strlen(err.text), ERR_TEXT_SIZE - 1);
}
END_TEST

START_TEST(long_sentence_is_cut_before_its_cause)
{
	err_sys(&err, EIO, "%s", long_text);
	ck_assert_uint_eq(strlen(err.text), ERR_TEXT_SIZE - 1);
}
END_TEST

START_TEST(cause_is_cut_where_the_room_ends)
{
	err_sys(&err, EIO, "%.*s", ERR_TEXT_SIZE - 5, long_text);
	ck_assert_str_eq(err.text + ERR_TEXT_SIZE - 5, ": In");
}
END_TEST

/* JSON cannot carry half a character, so neither may the sentence. */
START_TEST(cut_keeps_utf8_characters_whole)
{
	err_set(&err, EIO, "%.*s\u20ac", ERR_TEXT_SIZE - 2, long_text);
	ck_assert_uint_eq(strlen(err.text), ERR_TEXT_SIZE - 2);
}
END_TEST

Suite *err_suite(void)
{
	return SUITE("err", set_up, NULL, set_formats_and_returns_the_negative_errno,
		     sys_appends_the_cause, sys_survives_a_number_that_is_no_errno, err_may_be_null,
		     long_sentence_is_cut, long_sentence_is_cut_before_its_cause,
		     cause_is_cut_where_the_room_ends, cut_keeps_utf8_characters_whole);
}
