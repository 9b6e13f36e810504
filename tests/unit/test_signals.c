/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>

#include "base/array.h"
#include "host/signals.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"

START_TEST(names_and_numbers)
{
	ck_assert_int_eq(signal_number("SIGINT"), SIGINT);
	ck_assert_int_eq(signal_number("int"), SIGINT);
	ck_assert_int_eq(signal_number("Usr1"), SIGUSR1);
	ck_assert_int_eq(signal_number("28"), 28);
	ck_assert_int_eq(signal_number("SIGRTMIN+3"), SIGRTMIN + 3);
	ck_assert_int_eq(signal_number("RTMIN"), SIGRTMIN);
	ck_assert_int_eq(signal_number("rtmax-1"), SIGRTMAX - 1);
}
END_TEST

static const char *const wrong[] = { "",	"SIG",	   "INTS",     "0",	 "-1", "65",
				     "RTMIN-1", "RTMAX+1", "RTMIN+31", "RTMIN+", "9x" };

START_TEST(what_is_none)
{
	ck_assert_int_eq(signal_number(wrong[_i]), -1);
}
END_TEST

START_TEST(those_passed_on)
{
	static const int passed[] = { SIGHUP,	SIGINT,	 SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2,
				      SIGWINCH, SIGCONT, SIGTSTP, SIGALRM, SIGURG,  SIGIO };
	static const int kept[] = {
		-1, 0, SIGKILL, SIGSTOP, SIGCHLD, SIGPIPE, SIGTTIN, SIGSEGV, 65
	};

	for (size_t i = 0; i < ARRAY_SIZE(passed); i++)
		ck_assert(signal_is_passed_on(passed[i]));
	for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
		ck_assert(!signal_is_passed_on(kept[i]));
	ck_assert(signal_is_passed_on(SIGRTMIN) && signal_is_passed_on(SIGRTMAX));
}
END_TEST

Suite *signals_suite(void)
{
	Suite *suite = SUITE("signals", NULL, NULL, names_and_numbers, those_passed_on);

	add_table_test(suite, NULL, NULL, what_is_none, ARRAY_SIZE(wrong));
	return suite;
}
