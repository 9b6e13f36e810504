/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Steps of the jailer whose effects the one that is jailed cannot see, or only in a race: each in a
 * process of its own, as root, where a system call fails or something is another than it was.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/array.h"
#include "base/err.h"
#include "base/fd.h"
#include "jailer/args.h"
#include "jailer/privileges.h"
#include "jailer/root.h"
#include "jailer/tree.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"

#define USER 64017

static struct jailer_args args = { .id = "one", .exec_name = "vmm", .uid = USER, .gid = USER };

/* From now on this process's system call fails so, in each of its threads. */
static void refuse_call(unsigned int number, unsigned int errnum)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | errnum),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const struct sock_fprog program = { ARRAY_SIZE(filter), filter };

	ck_assert_int_eq(
		syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program),
		0);
}

static const struct {
	unsigned int call;
	int errnum;
	const char *says;
} needed[] = {
	{ SYS_setgroups, EDOM, "supplementary groups" },
	{ SYS_setresgid, EDOM, "--gid" },
	{ SYS_setresuid, EDOM, "--uid" },
	{ SYS_keyctl, EDOM, "session keyring" },
	{ SYS_capset, EDOM, "capabilities cannot be dropped" },
	/* As if it had been done. */
	{ SYS_setresgid, 0, "privileges are left" },
	{ SYS_setresuid, 0, "privileges are left" },
};

/* libcheck runs each test in a process of its own, which is root's no more after that. */
START_TEST(privileges_are_dropped_or_nothing_starts)
{
	struct err err = { "" };

	if (geteuid() != 0)
		return;
	refuse_call(needed[_i].call, (unsigned int)needed[_i].errnum);
	ck_assert_int_lt(privileges_drop(&args, &err), 0);
	assert_contains(err.text, needed[_i].says);
}
END_TEST

START_TEST(root_that_is_another_by_now_is_not_entered)
{
	struct tree tree = TREE_NONE;
	struct err err = { "" };

	if (geteuid() != 0)
		return;
	ck_assert_int_eq(mkdir("root", 0700), 0);
	tree.args = &args;
	ck_assert_ptr_nonnull(realpath("root", tree.path));
	tree.root_fd = open("root", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_eq(rename("root", "moved"), 0);
	ck_assert_int_eq(mkdir("root", 0700), 0);
	ck_assert_int_eq(unshare(CLONE_NEWNS), 0);
	ck_assert_int_eq(root_enter(&tree, &err), -ESTALE);
	assert_contains(err.text, "another directory than a moment ago");
	fd_close(&tree.root_fd);
	ck_assert_int_eq(rmdir("root"), 0);
	ck_assert_int_eq(rmdir("moved"), 0);
}
END_TEST

Suite *jail_steps_suite(void)
{
	Suite *suite = SUITE("jail_steps", NULL, NULL, root_that_is_another_by_now_is_not_entered);

	add_table_test(suite, NULL, NULL, privileges_are_dropped_or_nothing_starts,
		       ARRAY_SIZE(needed));
	return suite;
}
