/* SPDX-License-Identifier: Apache-2.0 */
#include "base/text.h"

#include "tests/unit/suites.h"
#include "tests/unit/support.h"

START_TEST(parts_are_put_together)
{
	char buffer[128];
	struct text text = text_in(buffer, sizeof(buffer));

	text_add(&text, "a ");
	text_add_number(&text, 0);
	text_add(&text, " ");
	text_add_number(&text, UINT64_MAX);
	text_add(&text, " ");
	text_add_digits(&text, 7, 3);
	text_add(&text, " ");
	text_add_digits(&text, 12345, 3);
	text_add(&text, " ");
	text_add_hex(&text, 0);
	text_add(&text, " ");
	text_add_hex(&text, 0xfedcba9876543210);
	ck_assert_str_eq(buffer, "a 0 18446744073709551615 007 12345 0x0 0xfedcba9876543210");
	ck_assert_uint_eq(text.used, strlen(buffer));
	ck_assert(!text.cut);
}
END_TEST

START_TEST(what_does_not_fit_is_left_out)
{
	char buffer[8] = "xxxxxxx";
	struct text text = text_in(buffer, 6);

	text_add(&text, "12345");
	ck_assert(!text.cut);
	text_add(&text, "");
	ck_assert(!text.cut);
	text_add_number(&text, 6);
	ck_assert(text.cut);
	ck_assert_str_eq(buffer, "12345");
	ck_assert_uint_eq(text.used, 5);
	ck_assert_int_eq(buffer[6], 'x');
}
END_TEST

START_TEST(buffer_of_one_byte_stays_empty)
{
	char buffer[2] = "xx";
	struct text text = text_in(buffer, 1);

	text_add(&text, "1");
	ck_assert(text.cut);
	ck_assert_int_eq(buffer[0], '\0');
	ck_assert_int_eq(buffer[1], 'x');
}
END_TEST

Suite *text_suite(void)
{
	return SUITE("text", NULL, NULL, parts_are_put_together, what_does_not_fit_is_left_out,
		     buffer_of_one_byte_stays_empty);
}
