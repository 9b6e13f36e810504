/* SPDX-License-Identifier: Apache-2.0 */
/* mote doctor: whether this host can run microVMs, a line a fact, with what would mend it. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/io_uring.h>
#include <linux/kvm.h>
#include <linux/magic.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/ring_memory.h"
#include "cli/cli.h"
#include "cli/doctor_report.h"
#include "host/jail_user.h"
#include "host/paths.h"

enum verdict { GOOD, NOTE, BAD };

static bool all_good = true;
/* Without this option `mote run` refuses here; NULL: it needs none. */
static const char *needed_option;

__attribute__((format(printf, 2, 3))) static void fact(enum verdict verdict, const char *fmt, ...)
{
	static const char *const marks[] = { "ok  ", "note", "BAD " };
	va_list args;

	printf("%s  ", marks[verdict]);
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	putchar('\n');
	if (verdict == BAD)
		all_good = false;
}

/* The file's first line without its newline; false if it cannot be read. */
static bool read_line(const char *path, char *line, size_t size)
{
	FILE *file = fopen(path, "re");
	bool got = file && fgets(line, (int)size, file);

	if (file)
		fclose(file);
	if (got)
		line[strcspn(line, "\n")] = '\0';
	return got;
}

static bool exists(const char *path)
{
	return access(path, F_OK) == 0;
}

static void check_kvm(void)
{
	CLEANUP_FD int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	CLEANUP_FD int vm = -1;

	if (fd < 0 && errno == ENOENT) {
		fact(BAD,
		     "/dev/kvm is missing: load kvm_intel or kvm_amd, or, in a virtual machine, "
		     "ask its owner for nested virtualisation");
		return;
	}
	if (fd < 0 && errno == EACCES) {
		fact(BAD,
		     "/dev/kvm: permission denied: become a member of the group kvm (usermod -aG "
		     "kvm USER, then log in again)");
		return;
	}
	if (fd < 0) {
		fact(BAD, "/dev/kvm: %s", strerrordesc_np(errno));
		return;
	}
	if (ioctl(fd, KVM_GET_API_VERSION, 0) != KVM_API_VERSION) {
		fact(BAD, "/dev/kvm does not speak KVM API version %d", KVM_API_VERSION);
		return;
	}
	vm = ioctl(fd, KVM_CREATE_VM, 0);
	if (vm < 0)
		fact(BAD, "/dev/kvm: a VM cannot be created: %s", strerrordesc_np(errno));
	else
		fact(GOOD, "/dev/kvm can be opened and creates VMs");
}

const char *cli_why_no_linux(void)
{
	if (exists("/sys/module/kvm_intel") || exists("/sys/module/kvm_amd") ||
	    !exists("/sys/module/kvm_pvm"))
		return NULL;
	return "KVM is kvm_pvm, which emulates guest ring 0: small guests run, Linux does not "
	       "boot; use a host "
	       "with VMX or SVM, or tests/testhost/run";
}

static void check_kind(void)
{
	char flags[8192] = "", line[8192];
	FILE *file = fopen("/proc/cpuinfo", "re");
	bool nested;

	while (file && fgets(line, sizeof(line), file)) {
		if (strncmp(line, "flags", 5) == 0) {
			snprintf(flags, sizeof(flags), "%s", line);
			break;
		}
	}
	if (file)
		fclose(file);
	nested = strstr(flags, " hypervisor") != NULL;
	if (exists("/sys/module/kvm_intel") || exists("/sys/module/kvm_amd"))
		fact(GOOD, "KVM uses the processor's %s%s",
		     exists("/sys/module/kvm_intel") ? "VMX" : "SVM",
		     nested ? ", inside a virtual machine itself: exits are slow" : "");
	else if (cli_why_no_linux())
		fact(BAD, "%s", cli_why_no_linux());
	else
		fact(NOTE, "KVM's kind is not known: neither kvm_intel nor kvm_amd is loaded");
}

static void check_node(const char *path, const char *purpose, const char *mend)
{
	CLEANUP_FD int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd >= 0)
		fact(GOOD, "%s can be opened (%s)", path, purpose);
	else
		fact(NOTE, "%s: %s (%s): %s", path, strerrordesc_np(errno), purpose, mend);
}

static void check_cgroup(void)
{
	struct statfs fs;
	char options[4096];
	FILE *mounts;
	bool favoured = false;

	if (statfs("/sys/fs/cgroup", &fs) < 0 || fs.f_type != CGROUP2_SUPER_MAGIC) {
		fact(NOTE,
		     "cgroup v2 is not what /sys/fs/cgroup is: boot with "
		     "systemd.unified_cgroup_hierarchy=1, or use mote-jailer --cgroup-version 1");
		return;
	}
	fact(GOOD, "cgroup v2 is mounted");
	mounts = fopen("/proc/mounts", "re");
	while (mounts && fgets(options, sizeof(options), mounts))
		favoured |= strstr(options, " cgroup2 ") && strstr(options, "favordynmods");
	if (mounts)
		fclose(mounts);
	if (!favoured)
		fact(NOTE,
		     "cgroup v2 is mounted without favordynmods: creating a VM can stall 20 to 40 "
		     "ms (mount -o remount,favordynmods /sys/fs/cgroup)");
}

/* Whether a process of ours gets one; it ends at once. */
static bool can_have_user_namespace(void)
{
	pid_t pid = fork();
	int status = 1;

	if (pid == 0)
		_exit(unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET) < 0);
	return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

/* Whether VMs can have cgroups beside ours, where mote-jailer makes them without root. */
static bool owns_cgroup(void)
{
	char line[PATH_MAX], path[PATH_MAX + 64];
	char *slash;

	if (!read_line("/proc/self/cgroup", line, sizeof(line)) || strncmp(line, "0::/", 4) != 0)
		return false;
	slash = strrchr(line, '/');
	snprintf(path, sizeof(path), "/sys/fs/cgroup%.*s", (int)(slash - line - 3), line + 3);
	if (access(path, W_OK) < 0)
		return false;
	snprintf(path, sizeof(path), "/sys/fs/cgroup%.*s/cgroup.procs", (int)(slash - line - 3),
		 line + 3);
	return access(path, W_OK) == 0;
}

static void check_limits(void)
{
	if (geteuid() == 0) {
		fact(GOOD, "limits of a VM can be set: cgroups are root's");
	} else if (owns_cgroup()) {
		fact(GOOD, "limits of a VM can be set: this cgroup was handed over");
	} else {
		needed_option = "--weaker-jail cgroup";
		fact(NOTE,
		     "limits of a VM need a cgroup that was handed over, and mote run refuses "
		     "without: systemd-run --user --scope mote run ..., or mote run "
		     "--weaker-jail cgroup");
	}
}

static void check_jail(void)
{
	const long landlock = syscall(SYS_landlock_create_ruleset, NULL, 0, 1);

	if (geteuid() == 0)
		fact(GOOD, "the jail can be another user's, being root");
	else if (can_have_user_namespace())
		fact(GOOD, "the jail can be a user namespace");
	else
		fact(BAD, "user namespaces are forbidden, and with them mote run's jail: sysctl "
			  "user.max_user_namespaces, kernel.unprivileged_userns_clone=1 or "
			  "AppArmor's leave (mote run --no-jail goes on without it)");
	check_limits();
	if (landlock > 0)
		fact(GOOD, "Landlock is there, version %ld", landlock);
	else
		fact(NOTE, "Landlock is not there: the jail has one wall less (boot with "
			   "lsm=landlock,...)");
}

/* Makes the rings of all drives that a VM can have, as a jailed VMM does: 0 or an errno. */
static int make_rings(void)
{
	const struct rlimit limit = { RING_MEMORY, RING_MEMORY };
	struct err err;
	unsigned int user;

	/* Whoever may not have more has what there is. */
	(void)setrlimit(RLIMIT_MEMLOCK, &limit);
	if (geteuid() == 0 && (jail_user_choose(&user, &err) < 0 || setuid(user) < 0))
		return ECANCELED;
	for (unsigned int i = 0; i < RINGS_MAX; i++) {
		struct io_uring_params params = { 0 };

		if (syscall(SYS_io_uring_setup, RING_ENTRIES, &params) < 0)
			return errno;
	}
	return 0;
}

/* In a process of its own, which what it takes upon itself ends with. */
static int try_rings(void)
{
	int status = -1;
	pid_t child = fork();

	if (child == 0)
		_exit(make_rings());
	if (child < 0 || waitpid(child, &status, 0) < 0 || !WIFEXITED(status))
		return ECANCELED;
	return WEXITSTATUS(status);
}

static void check_io_uring(void)
{
	static const char otherwise[] = "drives use the Sync engine";
	char value[16] = "";
	int errnum = try_rings();

	if (errnum == 0)
		fact(GOOD, "io_uring works under the jail's limits");
	else if (errnum == ENOSYS)
		fact(NOTE, "io_uring is not in this kernel: %s", otherwise);
	else if (errnum == EPERM &&
		 read_line("/proc/sys/kernel/io_uring_disabled", value, sizeof(value)) &&
		 strcmp(value, "0") != 0)
		fact(NOTE,
		     "io_uring is restricted (kernel.io_uring_disabled=%s): %s; sysctl "
		     "kernel.io_uring_disabled=0 allows it",
		     value, otherwise);
	else if (errnum == EPERM)
		fact(NOTE, "io_uring is forbidden by a seccomp filter: %s", otherwise);
	else if (errnum == ENOMEM)
		fact(NOTE,
		     "io_uring lacks locked memory for the drives of a VM: %s where it does not "
		     "suffice; a limit of %u KiB does (LimitMEMLOCK=, ulimit -l)",
		     otherwise, RING_MEMORY / 1024);
	else
		fact(NOTE, "io_uring does not work (%s): %s", strerrordesc_np(errnum), otherwise);
}

static void check_userfaultfd(void)
{
	CLEANUP_FD int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);

	if (fd >= 0 || exists("/dev/userfaultfd"))
		fact(GOOD, "userfaultfd is there");
	else
		fact(NOTE,
		     "userfaultfd: %s: sysctl vm.unprivileged_userfaultfd=1 allows it (needed only "
		     "for restoring snapshots lazily)",
		     strerrordesc_np(errno));
}

static void check_huge_page_mitigation(void)
{
	char value[16];

	if (!read_line("/sys/module/kvm/parameters/nx_huge_pages", value, sizeof(value)))
		return;
	if (strcmp(value, "never") == 0)
		fact(GOOD, "kvm.nx_huge_pages is never: creating a VM does not start a worker");
	else
		fact(NOTE,
		     "kvm.nx_huge_pages is %s: creating a VM starts a worker, which can stall 20 "
		     "to "
		     "40 ms; with processors that do not need it, boot with "
		     "kvm.nx_huge_pages=never",
		     value);
}

/* In a report that is sent somewhere no path of the user's is told. */
static void check_files(bool report)
{
	char path[PATH_MAX];
	struct err err;

	if (paths_kernel("microvm", path, &err) < 0)
		fact(BAD, "%s", report ? "the guest kernel is missing" : err.text);
	else
		fact(GOOD, "the guest kernel is there");
	if (paths_own("initrd.cpio", path, &err) < 0)
		fact(BAD, "%s: \"make\" builds it",
		     report ? "the default root file system is missing" : err.text);
	else
		fact(GOOD, "the default root file system is there");
}

static void check_memory(void)
{
	unsigned long long kib = 0;
	char line[256];
	FILE *file = fopen("/proc/meminfo", "re");

	while (file && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
			break;
	}
	if (file)
		fclose(file);
	if (kib >= 256 * 1024)
		fact(GOOD, "%llu MiB of memory are available", kib >> 10);
	else
		fact(BAD,
		     "%llu MiB of memory are available: too little for a guest of 128 MiB and its "
		     "host: end something",
		     kib >> 10);
}

int cli_doctor(int argc, char **argv)
{
	static const char usage[] =
		"usage: mote doctor [--report]\n"
		"Says whether this host can run microVMs; the exit status is 0 if it can.\n"
		"\n"
		"  --report   say before that what processor, kernel and KVM the host has; the "
		"whole\n"
		"             is fit to be sent: it names no host, user, address or file of "
		"yours\n";
	const bool report = argc == 2 && strcmp(argv[1], "--report") == 0;

	if (argc == 2 && strcmp(argv[1], "--help") == 0) {
		fputs(usage, stdout);
		return EXIT_SUCCESS;
	}
	if (argc > 1 && !report) {
		fputs(usage, stderr);
		return CLI_EXIT_USAGE;
	}
	if (report)
		doctor_report();
	check_kvm();
	check_kind();
	check_node("/dev/net/tun", "network interfaces", "modprobe tun, and CAP_NET_ADMIN");
	check_cgroup();
	check_jail();
	check_io_uring();
	check_userfaultfd();
	check_huge_page_mitigation();
	check_files(report);
	check_memory();
	if (!all_good)
		puts("\nThis host cannot run microVMs yet: see the lines marked BAD.");
	else if (needed_option)
		printf("\nThis host can run microVMs, with mote run %s.\n", needed_option);
	else
		puts("\nThis host can run microVMs.");
	return all_good ? EXIT_SUCCESS : CLI_EXIT_FAILURE;
}
