/* SPDX-License-Identifier: Apache-2.0 */
#include "base/array.h"
#include "host/values.h"

#include <errno.h>

#include "tests/unit/suites.h"
#include "tests/unit/support.h"

static const struct {
	const char *text;
	int mib; /* -1: refused */
} sizes[] = {
	{ "128", 128 },	      { "512M", 512 },
	{ "1G", 1024 },	      { "2GiB", 2048 },
	{ "3gb", 3072 },      { "7mib", 7 },
	{ "0", -1 },	      { "-1", -1 },
	{ "", -1 },	      { "M", -1 },
	{ "1.5G", -1 },	      { "1K", -1 },
	{ "1G ", -1 },	      { " 1G", -1 },
	{ "+1", -1 },	      { "2097151G", 2147482624 },
	{ "2097152G", -1 },   { "2147483647", 2147483647 },
	{ "2147483648", -1 },
};

START_TEST(size_in_mib)
{
	int mib = -1;

	ck_assert_int_eq(value_mib(sizes[_i].text, &mib), sizes[_i].mib < 0 ? -EINVAL : 0);
	ck_assert_int_eq(mib, sizes[_i].mib);
}
END_TEST

static const struct {
	const char *text;
	int64_t ms; /* -1: refused */
} durations[] = {
	{ "10", 10000 },   { "10s", 10000 },	  { "500ms", 500 }, { "1.5m", 90000 },
	{ "2h", 7200000 }, { "0.001", 1 },	  { "0", -1 },	    { "0.4ms", -1 },
	{ "-1", -1 },	   { "inf", -1 },	  { "nan", -1 },    { "0x10", -1 },
	{ "1e3", -1 },	   { "1d", -1 },	  { "", -1 },	    { "s", -1 },
	{ "1 s", -1 },	   { "9999999999h", -1 },
};

START_TEST(duration_in_ms)
{
	int64_t ms = -1;

	ck_assert_int_eq(value_duration(durations[_i].text, &ms),
			 durations[_i].ms < 0 ? -EINVAL : 0);
	ck_assert_int_eq(ms, durations[_i].ms);
}
END_TEST

START_TEST(number_from_1)
{
	int number = -1;

	ck_assert_int_eq(value_number("32", &number), 0);
	ck_assert_int_eq(number, 32);
	ck_assert_int_eq(value_number("0", &number), -EINVAL);
	ck_assert_int_eq(value_number("2147483648", &number), -EINVAL);
	ck_assert_int_eq(value_number("1x", &number), -EINVAL);
	ck_assert_int_eq(value_number("", &number), -EINVAL);
}
END_TEST

Suite *values_suite(void)
{
	Suite *suite = SUITE("values", NULL, NULL, number_from_1);

	add_table_test(suite, NULL, NULL, size_in_mib, ARRAY_SIZE(sizes));
	add_table_test(suite, NULL, NULL, duration_in_ms, ARRAY_SIZE(durations));
	return suite;
}
