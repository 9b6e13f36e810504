/* SPDX-License-Identifier: Apache-2.0 */
/* Only with signals that no sanitizer takes for itself. */
#include "vmm/fatal.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "base/log.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"

static void write_number(void *opaque, int number)
{
	const char *name = opaque;

	write_text("called", name);
	if (number != SIGHUP)
		_exit(99);
}

__attribute__((unused)) static void trap(void *opaque, int number)
{
	(void)opaque;
	(void)number;
	write_text("called", "once");
	__builtin_trap(); /* SIGILL */
}

static void set_up(void)
{
	unlink("called");
	unlink("child.log");
}

/* The status of a child that is watched and raises a signal. */
static int child_status(void (*last)(void *opaque, int number), int number, bool ignored)
{
	int status;
	pid_t child = fork();

	if (child == 0) {
		struct err err;

		signal(SIGHUP, ignored ? SIG_IGN : SIG_DFL);
		if (log_open("child.log", &err) < 0)
			_exit(98);
		fatal_watch(last, "opaque");
		raise(number);
		_exit(7);
	}
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_msg(WIFEXITED(status), "status 0x%x", (unsigned int)status);
	return WEXITSTATUS(status);
}

START_TEST(signal_is_logged_told_and_becomes_an_exit_code)
{
	char *text;

	ck_assert_int_eq(child_status(write_number, SIGHUP, false), 156);
	text = read_text("called");
	ck_assert_str_eq(text, "opaque");
	free(text);
	text = read_text("child.log");
	assert_contains(text, ":ERROR] The VMM ends by signal SIGHUP, sent by process ");
	ck_assert_int_eq(text[strlen(text) - 1], '\n');
	free(text);
}
END_TEST

#ifdef __SANITIZE_THREAD__ /* its own handler blocks every signal */
#define ON_THE_WAY_OUT
#else
#define ON_THE_WAY_OUT fault_on_the_way_out_ends_it,
START_TEST(fault_on_the_way_out_ends_it)
{
	char *text;

	ck_assert_int_eq(child_status(trap, SIGHUP, false), 157);
	text = read_text("called");
	ck_assert_str_eq(text, "once");
	free(text);
	/* The one that is being handled already. */
	ck_assert_int_eq(child_status(trap, SIGILL, false), 157);
}
END_TEST
#endif

START_TEST(ignored_signal_stays_ignored)
{
	ck_assert_int_eq(child_status(write_number, SIGHUP, true), 7);
	ck_assert_int_ne(access("called", F_OK), 0);
}
END_TEST

START_TEST(exit_codes)
{
	ck_assert_int_eq(fatal_exit_code(SIGSYS), 148);
	ck_assert_int_eq(fatal_exit_code(SIGBUS), 149);
	ck_assert_int_eq(fatal_exit_code(SIGSEGV), 150);
	ck_assert_int_eq(fatal_exit_code(SIGXFSZ), 151);
	ck_assert_int_eq(fatal_exit_code(SIGXCPU), 154);
	ck_assert_int_eq(fatal_exit_code(SIGPIPE), 155);
	ck_assert_int_eq(fatal_exit_code(SIGHUP), 156);
	ck_assert_int_eq(fatal_exit_code(SIGILL), 157);
	ck_assert_int_eq(fatal_exit_code(SIGABRT), 2);
	ck_assert_int_eq(fatal_exit_code(SIGUSR1), 2);
}
END_TEST

Suite *fatal_suite(void)
{
	return SUITE("fatal", set_up, NULL, signal_is_logged_told_and_becomes_an_exit_code,
		     ON_THE_WAY_OUT ignored_signal_stays_ignored, exit_codes);
}
