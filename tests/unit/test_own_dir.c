/* SPDX-License-Identifier: Apache-2.0 */
#include "base/own_dir.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"

static struct err err;

/* Below the directory that the tests run in. */
static int open_here(const char *path, mode_t mode)
{
	char here[PATH_MAX / 2], whole[PATH_MAX];
	CLEANUP_FD int fd = -1;

	ck_assert_ptr_nonnull(getcwd(here, sizeof(here)));
	snprintf(whole, sizeof(whole), "%s/%s", here, path);
	fd = own_dir_open(whole, mode, &err);
	return fd < 0 ? fd : 0;
}

static void make(const char *script)
{
	ck_assert_int_eq(system("rm -rf d"), 0);
	ck_assert_int_eq(system(script), 0);
}

START_TEST(missing_ones_are_made)
{
	struct stat st;

	make("true");
	ck_assert_int_eq(open_here("d/e//f/", 0), -ENOENT);
	ck_assert_int_eq(open_here("d/e//f/", 0700), 0);
	ck_assert_int_eq(stat("d/e/f", &st), 0);
	ck_assert_int_eq(st.st_mode & 07777, 0700);
	ck_assert_int_eq(stat("d/e", &st), 0);
	ck_assert_int_eq(st.st_mode & 07777 & ~0755u, 0);
	ck_assert_int_eq(open_here("d/e/f", 0700), 0);
}
END_TEST

START_TEST(links_of_ones_own_are_followed)
{
	make("mkdir -p d/real/in && ln -s real d/link && ln -s \"$PWD/d/link/in\" d/absolute && "
	     "ln -s loop d/loop && touch d/file");
	ck_assert_int_eq(open_here("d/link/in", 0), 0);
	ck_assert_int_eq(open_here("d/absolute", 0), 0);
	ck_assert_int_eq(open_here("d/link/../link/./in", 0), 0);
	ck_assert_int_eq(open_here("d/link/new", 0700), 0);
	ck_assert_int_eq(access("d/real/new", F_OK), 0);
	ck_assert_int_eq(open_here("d/loop/x", 0), -ELOOP);
	ck_assert_int_eq(open_here("d/file", 0), -ENOTDIR);
	ck_assert_int_eq(own_dir_open("d", 0, &err), -EINVAL);
}
END_TEST

START_TEST(what_others_can_change_is_refused)
{
	make("mkdir -p d/open/in d/sticky/in && chmod 777 d/open && chmod 1777 d/sticky");
	ck_assert_int_eq(open_here("d/open/in", 0), -EPERM);
	assert_contains(err.text, "/d/open/in: others can write to it");
	ck_assert_int_eq(open_here("d/open", 0), -EPERM);
	ck_assert_int_eq(open_here("d/sticky", 0), -EPERM);
	ck_assert_int_eq(open_here("d/sticky/in", 0), 0);
}
END_TEST

START_TEST(what_another_user_owns_is_refused)
{
	if (geteuid() != 0)
		return;
	make("mkdir -p d/theirs/in d/real && chown 12345 d/theirs && ln -s real d/link && "
	     "chown -h 12345 d/link");
	ck_assert_int_eq(open_here("d/theirs", 0), -EPERM);
	assert_contains(err.text, "/d/theirs: belongs to another user (12345)");
	ck_assert_int_eq(open_here("d/theirs/in", 0), -EPERM);
	ck_assert_int_eq(open_here("d/theirs/new", 0700), -EPERM);
	ck_assert_int_ne(access("d/theirs/new", F_OK), 0);
	ck_assert_int_eq(open_here("d/link", 0), -EPERM);
	ck_assert_int_eq(open_here("d/link/new", 0700), -EPERM);
	ck_assert_int_ne(access("d/real/new", F_OK), 0);
}
END_TEST

Suite *own_dir_suite(void)
{
	return SUITE("own_dir", NULL, NULL, missing_ones_are_made, links_of_ones_own_are_followed,
		     what_others_can_change_is_refused, what_another_user_owns_is_refused);
}
