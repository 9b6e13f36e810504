/* SPDX-License-Identifier: Apache-2.0 */
#include "base/array.h"
#include "jailer/args.h"

#include <errno.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/err.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"

#define NEEDED                                                                                     \
	"mote-jailer", "--id", "vm-1", "--exec-file", "/a/mote-vmm", "--uid", "7", "--gid", "8"
#define PARSE(...) parse((const char *const[]){ NEEDED, ##__VA_ARGS__, NULL })

static struct jailer_args args;
static struct err err;

static int parse(const char *const *words)
{
	static char *argv[64];
	int argc = 0;

	for (; words[argc]; argc++)
		argv[argc] = (char *)(uintptr_t)words[argc];
	argv[argc] = NULL;
	err.text[0] = '\0';
	return jailer_args_parse(argc, argv, &args, &err);
}

START_TEST(what_is_needed_and_the_defaults)
{
	ck_assert_int_eq(PARSE(), 0);
	ck_assert_str_eq(args.id, "vm-1");
	ck_assert_str_eq(args.exec_file, "/a/mote-vmm");
	ck_assert_str_eq(args.exec_name, "mote-vmm");
	ck_assert_str_eq(args.chroot_base, "/srv/jailer");
	ck_assert_str_eq(args.parent_cgroup, "mote-vmm");
	ck_assert_uint_eq(args.uid, 7);
	ck_assert_uint_eq(args.gid, 8);
	ck_assert_ptr_null(args.netns);
	ck_assert_uint_eq(args.cgroup_version, 0);
	ck_assert_uint_eq(args.cgroup_count, 0);
	ck_assert_uint_eq(args.limits.no_file, 2048);
	ck_assert_uint_eq(args.limits.fsize, RLIM_INFINITY);
	ck_assert_uint_eq(args.limits.nproc, RLIM_INFINITY);
	ck_assert_uint_eq(args.keep_count, 0);
	ck_assert(!args.daemonize && !args.uffd && !args.read_only_root && !args.new_netns);
	ck_assert(args.tun);
	ck_assert_ptr_null(args.vmm_args[0]);
}
END_TEST

START_TEST(every_option)
{
	ck_assert_int_eq(PARSE("--chroot-base-dir", "/b", "--netns", "/n", "--cgroup", "pids.max=9",
			       "--cgroup", "cgroup.freeze=a=b", "--cgroup-version", "2",
			       "--parent-cgroup", "x/y", "--resource-limit", "fsize=1",
			       "--resource-limit", "no-file=2", "--resource-limit", "nproc=3",
			       "--daemonize", "--new-pid-ns", "--uffd", "--read-only-root"),
			 0);
	ck_assert_str_eq(args.chroot_base, "/b");
	ck_assert_str_eq(args.netns, "/n");
	ck_assert(args.tun && args.daemonize && args.uffd && args.read_only_root);
	ck_assert_uint_eq(args.cgroup_version, 2);
	ck_assert_str_eq(args.parent_cgroup, "x/y");
	ck_assert_uint_eq(args.cgroup_count, 2);
	ck_assert_str_eq(args.cgroup[0].controller, "pids");
	ck_assert_str_eq(args.cgroup[0].file, "pids.max");
	ck_assert_str_eq(args.cgroup[0].value, "9");
	/* The files of every cgroup need no controller; a value is what follows the first '='. */
	ck_assert_str_eq(args.cgroup[1].controller, "");
	ck_assert_str_eq(args.cgroup[1].file, "cgroup.freeze");
	ck_assert_str_eq(args.cgroup[1].value, "a=b");
	ck_assert_uint_eq(args.limits.fsize, 1);
	ck_assert_uint_eq(args.limits.no_file, 2);
	ck_assert_uint_eq(args.limits.nproc, 3);
}
END_TEST

START_TEST(a_network_namespace_of_its_own_has_no_taps)
{
	ck_assert_int_eq(PARSE("--new-netns"), 0);
	ck_assert(args.new_netns && !args.tun);
	ck_assert_int_eq(PARSE("--new-netns", "--tun"), 0);
	ck_assert(args.tun);
	ck_assert_int_eq(PARSE("--new-netns", "--netns", "/n"), -EINVAL);
	assert_contains(err.text, "--new-netns");
}
END_TEST

START_TEST(root_is_told_apart)
{
	ck_assert_int_eq(PARSE(), 0);
	ck_assert(!args.as_root);
	ck_assert_int_eq(PARSE("--uid", "0"), 0);
	ck_assert(args.as_root == (geteuid() == 0) && args.uid == 0);
	ck_assert_int_eq(PARSE("--gid", "0"), 0);
	ck_assert(args.as_root == (geteuid() == 0) && args.gid == 0);
}
END_TEST

START_TEST(values_may_be_joined_by_an_equals_sign)
{
	ck_assert_int_eq(PARSE("--cgroup=memory.max=1G", "--chroot-base-dir=/b"), 0);
	ck_assert_str_eq(args.cgroup[0].file, "memory.max");
	ck_assert_str_eq(args.cgroup[0].value, "1G");
	ck_assert_str_eq(args.chroot_base, "/b");
}
END_TEST

START_TEST(the_vmms_arguments_are_not_looked_at)
{
	ck_assert_int_eq(PARSE("--", "--id", "x/y", "--", "--uffd"), 0);
	ck_assert_str_eq(args.id, "vm-1");
	ck_assert(!args.uffd);
	ck_assert_str_eq(args.vmm_args[0], "--id");
	ck_assert_str_eq(args.vmm_args[1], "x/y");
	ck_assert_str_eq(args.vmm_args[2], "--");
	ck_assert_str_eq(args.vmm_args[3], "--uffd");
	ck_assert_ptr_null(args.vmm_args[4]);
}
END_TEST

START_TEST(kept_descriptors_are_in_order)
{
	ck_assert_int_eq(
		PARSE("--keep-fd", "9", "--keep-fd", "3", "--keep-fd", "1", "--keep-fd", "5"), 0);
	ck_assert_uint_eq(args.keep_count, 3);
	ck_assert_int_eq(args.keep_fds[0], 3);
	ck_assert_int_eq(args.keep_fds[1], 5);
	ck_assert_int_eq(args.keep_fds[2], 9);
}
END_TEST

static const struct {
	const char *option;
	const char *value;
	const char *says;
} wrong[] = {
	{ "--id", "", "--id: " },
	{ "--id", "a/b", "--id: " },
	{ "--id", "a.b", "--id: " },
	{ "--id", "a\n", "--id: " },
	{ "--id", "12345678901234567890123456789012345678901234567890123456789012345", "--id: " },
	{ "--exec-file", "/a/", "not a name" },
	{ "--exec-file", "..", "not a name" },
	{ "--exec-file", "/a/b c", "not a name" },
	{ "--uid", "4294967295", "not a number" },
	{ "--uid", " 1", "not a number" },
	{ "--gid", "99999999999999999999999", "not a number" },
	{ "--cgroup", "memory.max", "FILE=VALUE" },
	{ "--cgroup", "memory.max=", "FILE=VALUE" },
	{ "--cgroup", "memory.max=1\nx", "FILE=VALUE" },
	{ "--cgroup", "a/b.c=1", "not a file" },
	{ "--cgroup", "memory=1", "not a file" },
	{ "--cgroup", ".x=1", "not a file" },
	{ "--cgroup-version", "0", "1 or 2" },
	{ "--parent-cgroup", "", "relative" },
	{ "--parent-cgroup", "/x", "relative" },
	{ "--parent-cgroup", "x/../y", "relative" },
	{ "--parent-cgroup", "x/./y", "relative" },
	{ "--resource-limit", "fsize", "is expected" },
	{ "--resource-limit", "fsize=18446744073709551615", "not a number" },
	{ "--resource-limit", "fsize=-1", "not a number" },
	{ "--resource-limit", "no-file=", "not a number" },
	{ "--keep-fd", "-1", "not a descriptor" },
	{ "--keep-fd", "2147483648", "not a descriptor" },
	{ "--nonsense", "1", "no such option" },
	{ "unexpected", NULL, "unexpected" },
	{ "--id", NULL, "a value" },
};

START_TEST(what_is_wrong_is_named)
{
	ck_assert_int_eq(PARSE(wrong[_i].option, wrong[_i].value), -EINVAL);
	assert_contains(err.text, wrong[_i].says);
	ck_assert_ptr_null(strchr(err.text, '\n'));
}
END_TEST

START_TEST(each_of_the_four_is_needed)
{
	static const char *const words[] = { NEEDED };

	for (size_t left_out = 1; left_out < ARRAY_SIZE(words); left_out += 2) {
		const char *some[ARRAY_SIZE(words) - 1] = { NULL };
		size_t count = 0;

		for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
			if (i != left_out && i != left_out + 1)
				some[count++] = words[i];
		}
		ck_assert_int_eq(parse(some), -EINVAL);
		assert_contains(err.text, "are needed");
	}
}
END_TEST

START_TEST(too_many_are_refused)
{
	const char *words[9 + 2 * JAILER_KEEP_FDS_MAX + 3] = { NEEDED };
	static char numbers[JAILER_KEEP_FDS_MAX + 1][16];
	size_t count = 9;

	for (int i = 0; i < JAILER_KEEP_FDS_MAX; i++) {
		snprintf(numbers[i], sizeof(numbers[i]), "%d", 10 + i);
		words[count++] = "--keep-fd";
		words[count++] = numbers[i];
	}
	static char *argv[ARRAY_SIZE(words)];

	for (size_t i = 0; i < count; i++)
		argv[i] = (char *)(uintptr_t)words[i];
	ck_assert_int_eq(jailer_args_parse((int)count, argv, &args, &err), 0);
	argv[count++] = (char[]){ "--keep-fd" };
	argv[count++] = (char[]){ "99" };
	ck_assert_int_eq(jailer_args_parse((int)count, argv, &args, &err), -EINVAL);
	assert_contains(err.text, "too many");
}
END_TEST

Suite *jailer_args_suite(void)
{
	Suite *suite = SUITE("jailer_args", NULL, NULL, what_is_needed_and_the_defaults,
			     a_network_namespace_of_its_own_has_no_taps, every_option,
			     root_is_told_apart, values_may_be_joined_by_an_equals_sign,
			     the_vmms_arguments_are_not_looked_at, kept_descriptors_are_in_order,
			     each_of_the_four_is_needed, too_many_are_refused);

	add_table_test(suite, NULL, NULL, what_is_wrong_is_named, ARRAY_SIZE(wrong));
	return suite;
}
