/* SPDX-License-Identifier: Apache-2.0 */
#include "base/array.h"
#include "vmm/control.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "tests/unit/images.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"

static struct control control;
static struct err err;
static unsigned int fds_before;

static void set_up(void)
{
	struct elf_image elf;

	elf_image_init(&elf);
	write_file("vmlinux", &elf, sizeof(elf));
	write_text("initrd.img", "initrd");
	fds_before = count_open_fds();
	ck_assert_int_eq(control_open(&control, NULL, NULL), 0);
}

static void tear_down(void)
{
	control_close(&control);
	ck_assert_uint_eq(count_open_fds(), fds_before);
}

static int set_boot_source(const char *kernel, const char *initrd, const char *boot_args)
{
	struct boot_source_config config = {
		.kernel_image_path = strdup(kernel),
		.initrd_path = initrd ? strdup(initrd) : NULL,
		.boot_args = boot_args ? strdup(boot_args) : NULL,
	};
	int rc = control_set_boot_source(&control, &config, &err);

	boot_source_config_free(&config);
	return rc;
}

static int set_serial(const char *path)
{
	struct serial_config config = { .serial_out_path = path ? strdup(path) : NULL };
	int rc = control_set_serial(&control, &config, &err);

	serial_config_free(&config);
	return rc;
}

static int set_machine(int64_t vcpu_count, int64_t mem_size_mib, bool smt, int huge_pages)
{
	const struct machine_config config = { .vcpu_count = vcpu_count,
					       .mem_size_mib = mem_size_mib,
					       .smt = smt,
					       .huge_pages = huge_pages };

	return control_set_machine(&control, &config, &err);
}

static void assert_wrong_state(int rc, const char *action)
{
	ck_assert_int_eq(rc, -EBUSY);
	assert_contains(err.text, action);
	assert_contains(err.text, control_state_name(&control));
}

/* Itself, or another description of the same pipe or terminal. */
static bool is_standard_output(int fd)
{
	struct stat a, b;

	return fstat(fd, &a) == 0 && fstat(STDOUT_FILENO, &b) == 0 && a.st_dev == b.st_dev &&
	       a.st_ino == b.st_ino;
}

START_TEST(defaults_are_one_vcpu_and_128_mib)
{
	ck_assert_str_eq(control_state_name(&control), "Not started");
	ck_assert_int_eq(control.machine_config.vcpu_count, 1);
	ck_assert_int_eq(control.machine_config.mem_size_mib, 128);
	ck_assert(is_standard_output(control.serial_fd));
}
END_TEST

START_TEST(nothing_but_a_start_is_possible_before_it)
{
	assert_wrong_state(control_pause(&control, &err), "Pausing");
	assert_wrong_state(control_resume(&control, &err), "Resuming");
	assert_wrong_state(control_stop(&control, "test", &err), "Stopping");
}
END_TEST

START_TEST(start_needs_a_boot_source)
{
	ck_assert_int_eq(control_start(&control, &err), -EINVAL);
	assert_contains(err.text, "boot-source");
	ck_assert_int_eq(control.state, CONTROL_NOT_STARTED);
}
END_TEST

static const enum control_state later_states[] = { CONTROL_RUNNING, CONTROL_PAUSED, CONTROL_ENDED };

START_TEST(configuration_ends_with_the_start)
{
	control.state = later_states[_i];
	assert_wrong_state(set_boot_source("vmlinux", NULL, NULL), "boot source");
	assert_wrong_state(set_machine(1, 128, false, HUGE_PAGES_NONE), "machine configuration");
	assert_wrong_state(set_serial("late"), "serial port");
	assert_wrong_state(control_start(&control, &err), "Starting");
	ck_assert_int_ne(access("late", F_OK), 0);
}
END_TEST

static void assert_cmdline(const char *expected)
{
	char *cmdline = control_cmdline(&control);

	ck_assert_str_eq(cmdline, expected);
	free(cmdline);
}

START_TEST(boot_source_gets_default_arguments)
{
	ck_assert_int_eq(set_boot_source("vmlinux", NULL, NULL), 0);
	assert_cmdline(CONFIG_DEFAULT_BOOT_ARGS " pci=off");
	ck_assert_int_eq(control.files.initrd_fd, -1);
}
END_TEST

START_TEST(boot_source_keeps_its_own_arguments)
{
	ck_assert_int_eq(set_boot_source("vmlinux", "initrd.img", "quiet"), 0);
	assert_cmdline("quiet pci=off");
	ck_assert_int_ge(control.files.initrd_fd, 0);
}
END_TEST

static int set_drive(const char *id, const char *path, bool root, bool read_only)
{
	struct drive_config config = {
		.drive_id = strdup(id),
		.path_on_host = strdup(path),
		.is_root_device = root,
		.is_read_only = read_only,
	};
	int rc = control_set_drive(&control, &config, &err);

	drive_config_free(&config);
	return rc;
}

START_TEST(devices_stand_before_what_is_for_init)
{
	write_text("disk.img", "a sector or so");
	ck_assert_int_eq(set_boot_source("vmlinux", NULL, "quiet -- single"), 0);
	ck_assert_int_eq(set_drive("data", "initrd.img", false, true), 0);
	ck_assert_int_eq(set_drive("rootfs", "disk.img", true, false), 0);
	assert_cmdline("quiet pci=off root=/dev/vda rw virtio_mmio.device=4K@0xc0001000:5 "
		       "virtio_mmio.device=4K@0xc0002000:6 -- single");
}
END_TEST

START_TEST(drive_may_be_configured_again)
{
	unsigned int fds;

	ck_assert_int_eq(set_drive("data", "initrd.img", false, false), 0);
	fds = count_open_fds();
	/* Its own lock is not in the way, of whichever kind. */
	ck_assert_int_eq(set_drive("data", "initrd.img", false, false), 0);
	ck_assert_int_eq(set_drive("data", "initrd.img", false, true), 0);
	ck_assert_int_eq(set_drive("data", "initrd.img", false, false), 0);
	ck_assert_uint_eq(count_open_fds(), fds);
	/* That of another is. */
	ck_assert_int_eq(set_drive("other", "initrd.img", false, true), -EBUSY);
	assert_contains(err.text, "drive other: initrd.img: in use");
	ck_assert_int_lt(set_drive("data", "missing.img", false, false), 0);
	ck_assert_uint_eq(control.devices.count, 1);
	ck_assert_str_eq(control.devices.list[0].config.drive.path_on_host, "initrd.img");
}
END_TEST

START_TEST(there_is_one_root_drive)
{
	ck_assert_int_eq(set_drive("a", "initrd.img", true, true), 0);
	ck_assert_int_eq(set_drive("b", "initrd.img", true, true), -EINVAL);
	assert_contains(err.text, "drive a is it already");
	ck_assert_int_eq(set_drive("b b", "initrd.img", false, true), -EINVAL);
	assert_contains(err.text, "drive_id");
}
END_TEST

START_TEST(boot_source_may_be_replaced)
{
	unsigned int fds;

	ck_assert_int_eq(set_boot_source("vmlinux", "initrd.img", "one"), 0);
	fds = count_open_fds();
	ck_assert_int_eq(set_boot_source("vmlinux", "initrd.img", "two"), 0);
	assert_cmdline("two pci=off");
	ck_assert_uint_eq(count_open_fds(), fds);
}
END_TEST

static char long_args[4096];

static const struct {
	const char *kernel, *initrd, *boot_args, *says;
} bad_boot_sources[] = {
	{ "missing", NULL, NULL, "missing" },
	{ "initrd.img", NULL, NULL, "initrd.img: not an ELF" },
	{ "vmlinux", "missing.img", NULL, "initrd missing.img" },
	{ "vmlinux", ".", NULL, "initrd .: not a regular file" },
	{ "vmlinux", NULL, long_args, "kernel command line of 4095 bytes" },
};

START_TEST(failed_boot_source_leaves_the_one_before)
{
	unsigned int fds;

	memset(long_args, 'a', sizeof(long_args) - 1);
	ck_assert_int_eq(set_boot_source("vmlinux", "initrd.img", "good"), 0);
	fds = count_open_fds();
	ck_assert_int_lt(set_boot_source(bad_boot_sources[_i].kernel, bad_boot_sources[_i].initrd,
					 bad_boot_sources[_i].boot_args),
			 0);
	assert_contains(err.text, bad_boot_sources[_i].says);
	ck_assert(control.has_boot_source);
	assert_cmdline("good pci=off");
	ck_assert_str_eq(control.files.kernel.path, "vmlinux");
	ck_assert_uint_eq(count_open_fds(), fds);
}
END_TEST

static const struct {
	int64_t vcpu_count, mem_size_mib;
	bool smt;
	int huge_pages;
	const char *says; /* NULL: it is good */
} machines[] = {
	{ 1, 1, false, HUGE_PAGES_NONE, NULL },
	{ 32, 128, false, HUGE_PAGES_NONE, NULL },
	{ 1, 128, true, HUGE_PAGES_NONE, NULL },
	{ 32, 128, true, HUGE_PAGES_NONE, NULL },
	{ 3, 129, false, HUGE_PAGES_TRANSPARENT, NULL },
	{ 1, 128, false, HUGE_PAGES_2M, NULL },
	{ 0, 128, false, HUGE_PAGES_NONE, "vcpu_count: 0" },
	{ -1, 128, false, HUGE_PAGES_NONE, "vcpu_count: -1" },
	{ 33, 128, false, HUGE_PAGES_NONE, "vcpu_count: 33" },
	{ 3, 128, true, HUGE_PAGES_NONE, "smt" },
	{ 1, 0, false, HUGE_PAGES_NONE, "mem_size_mib: 0" },
	{ 1, INT64_MAX, false, HUGE_PAGES_NONE, "mem_size_mib" },
	{ 1, INT64_MIN, false, HUGE_PAGES_NONE, "mem_size_mib" },
	{ 1, 129, false, HUGE_PAGES_2M, "mem_size_mib" },
};

START_TEST(machine_is_checked)
{
	int rc = set_machine(machines[_i].vcpu_count, machines[_i].mem_size_mib, machines[_i].smt,
			     machines[_i].huge_pages);

	ck_assert_int_eq(rc, machines[_i].says ? -EINVAL : 0);
	if (machines[_i].says)
		assert_contains(err.text, machines[_i].says);
	ck_assert_int_eq(control.machine_config.mem_size_mib,
			 machines[_i].says ? 128 : machines[_i].mem_size_mib);
}
END_TEST

START_TEST(serial_output_goes_to_a_private_file)
{
	struct stat st;

	ck_assert_int_eq(set_serial("console"), 0);
	ck_assert(!is_standard_output(control.serial_fd));
	ck_assert_int_eq(stat("console", &st), 0);
	ck_assert_uint_eq(st.st_mode & 0777, 0600);
}
END_TEST

START_TEST(serial_output_may_go_back_to_standard_output)
{
	const unsigned int before = count_open_fds();

	ck_assert_int_eq(set_serial("console"), 0);
	ck_assert_int_eq(set_serial(NULL), 0);
	ck_assert(is_standard_output(control.serial_fd));
	ck_assert_uint_eq(count_open_fds(), before);
}
END_TEST

START_TEST(failed_serial_output_leaves_the_one_before)
{
	int fd;

	ck_assert_int_eq(set_serial("console"), 0);
	fd = control.serial_fd;
	ck_assert_int_eq(set_serial("missing/console"), -ENOENT);
	assert_contains(err.text, "serial_out_path missing/console");
	ck_assert_int_eq(control.serial_fd, fd);
}
END_TEST

Suite *control_suite(void)
{
	Suite *suite = SUITE("control", set_up, tear_down, defaults_are_one_vcpu_and_128_mib,
			     nothing_but_a_start_is_possible_before_it, start_needs_a_boot_source,
			     boot_source_gets_default_arguments,
			     boot_source_keeps_its_own_arguments, boot_source_may_be_replaced,
			     devices_stand_before_what_is_for_init, drive_may_be_configured_again,
			     there_is_one_root_drive, serial_output_goes_to_a_private_file,
			     serial_output_may_go_back_to_standard_output,
			     failed_serial_output_leaves_the_one_before);

	add_table_test(suite, set_up, tear_down, configuration_ends_with_the_start,
		       ARRAY_SIZE(later_states));
	add_table_test(suite, set_up, tear_down, failed_boot_source_leaves_the_one_before,
		       ARRAY_SIZE(bad_boot_sources));
	add_table_test(suite, set_up, tear_down, machine_is_checked, ARRAY_SIZE(machines));
	return suite;
}
