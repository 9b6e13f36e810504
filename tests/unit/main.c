/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs all suites, or those that libcheck's environment names (CK_RUN_SUITE, CK_RUN_CASE);
 * CK_TAP_LOG_FILE_NAME=- with CK_VERBOSITY=silent gives TAP.
 */
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/array.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"

#define SUITE_FUNCTION(name) name##_suite,
static Suite *(*const suites[])(void) = { UNIT_SUITES(SUITE_FUNCTION) };

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static int run_suites(void)
{
	SRunner *runner = srunner_create(NULL);
	int failed;

	for (size_t i = 0; i < ARRAY_SIZE(suites); i++)
		srunner_add_suite(runner, suites[i]());
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(void)
{
	const char *parent = getenv("TMPDIR");
	char dir[4096];
	int status;

	snprintf(dir, sizeof(dir), "%s/mote-unit-XXXXXX", parent ? parent : "/tmp");
	if (!mkdtemp(dir) || chdir(dir) < 0) {
		perror(dir);
		return EXIT_FAILURE;
	}
	/* Seconds for a check: the library's own 4 are less than a busy disk may take. */
	setenv("CK_DEFAULT_TIMEOUT", "60", 0);
	/* As the programs do: a reader that has gone shows as EPIPE. */
	signal(SIGPIPE, SIG_IGN);
	status = run_suites();
	nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	return status;
}
