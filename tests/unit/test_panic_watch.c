/* SPDX-License-Identifier: Apache-2.0 */
#include "base/array.h"
#include "vmm/platform/panic_watch.h"

#include "tests/unit/suites.h"
#include "tests/unit/support.h"

#define PREFIX "Kernel panic - not syncing: "

static struct panic_watch watch;

static void set_up(void)
{
	memset(&watch, 0, sizeof(watch));
}

static void feed(const char *text)
{
	for (; *text; text++)
		panic_watch_byte(&watch, (uint8_t)*text);
}

static const struct {
	const char *console, *cause;
} panics[] = {
	{ PREFIX "Attempted to kill init!\n", "Attempted to kill init!" },
	{ "[    1.234567] " PREFIX "x\r\n", "x" },
	{ "Kern" PREFIX "x\n", "x" },
	{ "KKK" PREFIX "x\n", "x" },
	{ "Kernel panic - not Kernel panic\n" PREFIX "x\n", "x" },
	{ "Kernel panic - not syncing:" PREFIX "x\n", "x" },
	{ PREFIX "\n", "" },
	{ PREFIX "\x1b[31mred\x1b[0m\ttab\x80\xff!\n", "[31mred[0mtab!" },
	{ PREFIX "cause\nand more\n", "cause" },
	{ PREFIX "unfinished", "unfinished" },
	{ PREFIX "first\n" PREFIX "second\n", "second" },
};

START_TEST(panic_is_seen_with_its_cause)
{
	feed(panics[_i].console);
	ck_assert(watch.seen);
	ck_assert_str_eq(watch.cause, panics[_i].cause);
}
END_TEST

static const char *const others[] = {
	"",
	"Kernel panic - not syncing:",
	"kernel panic - not syncing: x\n",
	"Kernel panic - syncing: x\n",
	"Kernel\npanic - not syncing: x\n",
};

START_TEST(other_output_is_no_panic)
{
	feed(others[_i]);
	ck_assert(!watch.seen);
}
END_TEST

START_TEST(long_cause_is_cut)
{
	feed(PREFIX);
	for (int i = 0; i < 2 * PANIC_CAUSE_SIZE; i++)
		feed("a");
	ck_assert_uint_eq(strlen(watch.cause), PANIC_CAUSE_SIZE - 1);
	feed("\nbehind\n");
	ck_assert_uint_eq(strlen(watch.cause), PANIC_CAUSE_SIZE - 1);
}
END_TEST

Suite *panic_watch_suite(void)
{
	Suite *suite = SUITE("panic_watch", set_up, NULL, long_cause_is_cut);

	add_table_test(suite, set_up, NULL, panic_is_seen_with_its_cause, ARRAY_SIZE(panics));
	add_table_test(suite, set_up, NULL, other_output_is_no_panic, ARRAY_SIZE(others));
	return suite;
}
