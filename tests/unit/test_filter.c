/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the jail's filter refuses, by the answer that only it gives: the calls are made by a process
 * that keeps its privileges, with arguments that the kernel would refuse in another way.
 */
#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/array.h"
#include "base/err.h"
#include "jailer/filter.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"

#define X32_BIT 0x40000000L
#define NOT_REFUSED 254

struct call {
	long number;
	long arguments[6];
};

#define CALL(name, ...)                                                                            \
	{                                                                                          \
		SYS_##name,                                                                        \
		{                                                                                  \
			__VA_ARGS__                                                                \
		}                                                                                  \
	}
#define NONSENSE -1, -1, -1, -1, -1, -1

/* clang-format off */
static const struct call refused[] = {
	CALL(mount, NONSENSE), CALL(umount2, NONSENSE), CALL(pivot_root, NONSENSE),
	CALL(chroot, NONSENSE), CALL(move_mount, NONSENSE), CALL(open_tree, NONSENSE),
	CALL(fsopen, NONSENSE), CALL(fsmount, NONSENSE), CALL(fsconfig, NONSENSE),
	CALL(fspick, NONSENSE), CALL(mount_setattr, NONSENSE), CALL(swapon, NONSENSE),
	CALL(swapoff, NONSENSE), CALL(quotactl, NONSENSE), CALL(quotactl_fd, NONSENSE),
	CALL(mknod, NONSENSE), CALL(mknodat, NONSENSE), CALL(open_by_handle_at, NONSENSE),
	CALL(name_to_handle_at, NONSENSE), CALL(unshare, NONSENSE), CALL(setns, NONSENSE),
	CALL(ptrace, NONSENSE), CALL(process_vm_readv, NONSENSE), CALL(process_vm_writev, NONSENSE),
	CALL(kcmp, NONSENSE), CALL(pidfd_open, NONSENSE), CALL(pidfd_getfd, NONSENSE),
	CALL(pidfd_send_signal, NONSENSE), CALL(process_madvise, NONSENSE),
	CALL(process_mrelease, NONSENSE), CALL(migrate_pages, NONSENSE),
	CALL(move_pages, NONSENSE), CALL(bpf, NONSENSE), CALL(perf_event_open, NONSENSE),
	CALL(keyctl, NONSENSE), CALL(add_key, NONSENSE), CALL(request_key, NONSENSE),
	CALL(fanotify_init, NONSENSE), CALL(splice, NONSENSE), CALL(tee, NONSENSE),
	CALL(vmsplice, NONSENSE), CALL(io_setup, NONSENSE), CALL(lookup_dcookie, NONSENSE),
	CALL(personality, NONSENSE), CALL(modify_ldt, NONSENSE), CALL(syslog, NONSENSE),
	CALL(uselib, NONSENSE), CALL(memfd_secret, NONSENSE), CALL(msgget, NONSENSE),
	CALL(semget, NONSENSE), CALL(shmget, NONSENSE), CALL(mq_open, NONSENSE),
	CALL(setxattr, NONSENSE), CALL(lsetxattr, NONSENSE), CALL(fsetxattr, NONSENSE),
	CALL(removexattr, NONSENSE), CALL(lremovexattr, NONSENSE), CALL(fremovexattr, NONSENSE),
	CALL(init_module, NONSENSE), CALL(finit_module, NONSENSE), CALL(delete_module, NONSENSE),
	CALL(kexec_load, NONSENSE), CALL(kexec_file_load, NONSENSE), CALL(reboot, NONSENSE),
	CALL(acct, NONSENSE), CALL(iopl, NONSENSE), CALL(ioperm, NONSENSE),
	CALL(settimeofday, NONSENSE), CALL(clock_settime, NONSENSE), CALL(clock_adjtime, NONSENSE),
	CALL(adjtimex, NONSENSE), CALL(sethostname, NONSENSE), CALL(setdomainname, NONSENSE),
	CALL(setuid, NONSENSE), CALL(setgid, NONSENSE), CALL(setreuid, NONSENSE),
	CALL(setregid, NONSENSE), CALL(setresuid, NONSENSE), CALL(setresgid, NONSENSE),
	CALL(setfsuid, NONSENSE), CALL(setfsgid, NONSENSE), CALL(setgroups, NONSENSE),
	CALL(capset, NONSENSE), CALL(vhangup, 0), CALL(userfaultfd, NONSENSE),
	/* By their arguments. */
	CALL(clone, CLONE_NEWNS), CALL(clone, CLONE_NEWUSER), CALL(clone, CLONE_NEWPID),
	CALL(clone, CLONE_NEWNET), CALL(clone, CLONE_NEWIPC), CALL(clone, CLONE_NEWUTS),
	CALL(clone, CLONE_NEWCGROUP), CALL(clone, CLONE_NEWNS | CLONE_VM),
	CALL(ioctl, -1, TIOCSCTTY), CALL(ioctl, -1, TIOCSTI),
	CALL(ioctl, -1, TIOCSTI | 1L << 32),
	CALL(prctl, PR_SET_DUMPABLE, 1), CALL(prctl, PR_SET_DUMPABLE, 2),
};

/* What the filter refuses only with other arguments, and what a VMM lives on. */
static const struct call allowed[] = {
	CALL(read, NONSENSE), CALL(openat, NONSENSE), CALL(ioctl, -1, FIONREAD),
	CALL(io_uring_setup, NONSENSE), CALL(prctl, PR_SET_DUMPABLE, 0),
	CALL(prctl, PR_GET_SECCOMP), CALL(socket, AF_UNIX, -1), CALL(socketpair, AF_UNIX, -1),
	CALL(seccomp, NONSENSE), CALL(set_mempolicy_home_node, NONSENSE),
};
/* clang-format on */

static long make(const struct call *call)
{
	const long *a = call->arguments;

	return syscall(call->number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* The status of a process with the filter that makes the call: its errno. */
static int status_of(const struct call *call, bool uffd)
{
	int status;
	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		const struct rlimit none = { 0, 0 };
		const pid_t own = getpid();
		struct err err;
		long result;

		/* No terminal to lose, and no dump. */
		setsid();
		setrlimit(RLIMIT_CORE, &none);
		if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || filter_enter(uffd, &err) < 0)
			_exit(255);
		result = make(call);
		/* What should not have been made ends silently. */
		_exit(result < 0 && getpid() == own ? errno : NOT_REFUSED);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return status;
}

static void expect(const struct call *call, int errnum)
{
	const int status = status_of(call, false);

	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == errnum,
		      "call %ld (%lx, %lx): status %x, expected errno %d", call->number,
		      (unsigned long)call->arguments[0], (unsigned long)call->arguments[1],
		      (unsigned int)status, errnum);
}

START_TEST(test_refused)
{
	expect(&refused[_i], EPERM);
}
END_TEST

START_TEST(test_allowed)
{
	const int status = status_of(&allowed[_i], false);

	ck_assert(WIFEXITED(status));
	ck_assert_int_ne(WEXITSTATUS(status), 255);
	ck_assert_int_ne(WEXITSTATUS(status), EPERM);
	ck_assert_int_ne(WEXITSTATUS(status), EAFNOSUPPORT);
}
END_TEST

/* Only where it was asked for. */
START_TEST(test_userfaultfd)
{
	const struct call call = CALL(userfaultfd, NONSENSE);

	ck_assert_int_ne(WEXITSTATUS(status_of(&call, true)), EPERM);
}
END_TEST

/* Its flags are in memory: whoever calls it makes use of clone() then. */
START_TEST(test_clone3)
{
	const struct call call = CALL(clone3, NONSENSE);

	expect(&call, ENOSYS);
}
END_TEST

START_TEST(test_socket_families)
{
	for (long family = 0; family < AF_MAX; family++) {
		/* A type that there is not: a call that passes fails with EINVAL. */
		const struct call one = CALL(socket, family, -1);
		const struct call pair = CALL(socketpair, family, -1);

		if (family == AF_UNIX)
			continue;
		expect(&one, EAFNOSUPPORT);
		expect(&pair, EAFNOSUPPORT);
	}
}
END_TEST

/* statmount (457), setxattrat (463), open_tree_attr (467) and all that is to come. */
START_TEST(test_newer_calls)
{
	for (long number = SYS_set_mempolicy_home_node + 1; number < 600; number++) {
		const struct call call = { number, { NONSENSE } };

		expect(&call, ENOSYS);
	}
}
END_TEST

static void expect_killed(const struct call *call)
{
	const int status = status_of(call, false);

	ck_assert(WIFSIGNALED(status));
	ck_assert_int_eq(WTERMSIG(status), SIGSYS);
}

START_TEST(test_x32)
{
	const struct call calls[] = { { X32_BIT | SYS_getpid, { 0 } },
				      { X32_BIT | SYS_mount, { NONSENSE } },
				      { X32_BIT | 519, { NONSENSE } } };

	for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
		expect_killed(&calls[i]);
}
END_TEST

/* getpid, the way programs of 32 bits make it: its number there is that of writev here. */
static int end_of_32_bit_call(bool filtered)
{
	int status;
	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		const struct rlimit none = { 0, 0 };
		struct err err;
		long result = 20;

		setrlimit(RLIMIT_CORE, &none);
		signal(SIGSEGV, SIG_DFL);
		if (filtered &&
		    (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || filter_enter(false, &err) < 0))
			_exit(255);
		__asm__ volatile("int $0x80" : "+a"(result) : : "r8", "r9", "r10", "r11", "memory");
		_exit(result == getpid() ? 0 : 1);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return status;
}

START_TEST(test_32_bit_calls)
{
	const int without = end_of_32_bit_call(false), with = end_of_32_bit_call(true);

	/* A kernel without them ends the process by itself. */
	ck_assert(WIFSIGNALED(with));
	if (WIFEXITED(without))
		ck_assert_int_eq(WTERMSIG(with), SIGSYS);
}
END_TEST

Suite *filter_suite(void)
{
	Suite *suite = suite_create("filter");
	TCase *tests = tcase_create("filter");

	tcase_add_loop_test(tests, test_refused, 0, ARRAY_SIZE(refused));
	tcase_add_loop_test(tests, test_allowed, 0, ARRAY_SIZE(allowed));
	tcase_add_test(tests, test_userfaultfd);
	tcase_add_test(tests, test_clone3);
	tcase_add_test(tests, test_socket_families);
	tcase_add_test(tests, test_newer_calls);
	tcase_add_test(tests, test_x32);
	tcase_add_test(tests, test_32_bit_calls);
	suite_add_tcase(suite, tests);
	return suite;
}
