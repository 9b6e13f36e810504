/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/setup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent-protocol/protocol.h"
#include "base/array.h"
#include "guest/failure.h"
#include "guest/metadata.h"
#include "guest/network.h"
#include "guest/program.h"

#define ROOT_DEVICE "/dev/vda"

#define BOOT_TIMER_ADDR 0xc0000000
#define BOOT_TIMER_VALUE 123
#define SLEEP_CONTROL_PORT 0x600
#define SLEEP_S5_NOW 0x34 /* SLP_TYP 5, SLP_EN */

/* Of the kernel's command line. */
struct words {
	const char *root;
	const char *overlay;
	const char *tmpfs[PROTOCOL_TMPFS_MAX];
	size_t tmpfs_count;
	const char *metadata;
	struct network network;
};

static const unsigned long safe = MS_NOSUID | MS_NODEV | MS_NOEXEC;

void setup_power_off(void)
{
	sync();
	/* So that a root that was written to is clean; another root does not mind. */
	(void)mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL);
	/* Kernels without ACPI do not know the sleep register; those with it find it themselves. */
	if (ioperm(SLEEP_CONTROL_PORT, 1, 1) == 0)
		outb(SLEEP_S5_NOW, SLEEP_CONTROL_PORT);
	reboot(RB_AUTOBOOT);
	for (;;)
		pause();
}

static void mount_at(const char *type, const char *target, unsigned long flags, const char *options)
{
	mkdir(target, 0755);
	/* A kernel without one of these still runs commands. */
	(void)mount(type, target, type, flags, options);
}

static void tell_boot_timer(void)
{
	int fd = open("/dev/mem", O_RDWR | O_SYNC | O_CLOEXEC);
	volatile uint8_t *timer;

	if (fd < 0)
		return;
	timer = mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, fd, BOOT_TIMER_ADDR);
	if (timer != MAP_FAILED) {
		*timer = BOOT_TIMER_VALUE;
		munmap((void *)(uintptr_t)timer, 4096);
	}
	close(fd);
}

/* Distribution kernels have drivers and file systems as modules; the list is in loading order. */
static void load_modules(void)
{
	FILE *list = fopen("/lib/modules/load", "re");
	char path[PATH_MAX];

	while (list && fgets(path, sizeof(path), list)) {
		int fd;

		path[strcspn(path, "\n")] = '\0';
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || syscall(SYS_finit_module, fd, "", 0) < 0)
			fprintf(stderr, "mote-init: module %s: %s\n", path, strerrordesc_np(errno));
		if (fd >= 0)
			close(fd);
	}
	if (list)
		fclose(list);
}

void setup_devices(void)
{
	mount_at("devtmpfs", "/dev", MS_NOSUID | MS_NOEXEC, "mode=755");
	tell_boot_timer();
	load_modules();
}

static int mount_image(const char *target, unsigned long flags)
{
	static const char *const types[] = { "ext4", "erofs" };

	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		if (mount(ROOT_DEVICE, target, types[i], flags, NULL) == 0)
			return 0;
		/* Another file system, or one that this kernel does not have. */
		if (errno != EINVAL && errno != ENODEV)
			return -1;
	}
	errno = EINVAL;
	return -1;
}

/* The upper layer's are those that programs see. */
static void copy_root_attributes(const char *image, const char *upper)
{
	struct stat st;

	if (stat(image, &st) < 0)
		return;
	if ((st.st_uid != 0 || st.st_gid != 0) && chown(upper, st.st_uid, st.st_gid) < 0)
		fprintf(stderr, "mote-init: the root's owner: %s\n", strerrordesc_np(errno));
	if ((st.st_mode & 07777) != 0755)
		chmod(upper, st.st_mode & 07777);
}

/* The image below; on top a drive, or memory if drive is NULL. */
static int mount_overlay(const char *drive, struct failure *failure)
{
	mkdir("/image", 0755);
	mkdir("/changes", 0755);
	if (mount_image("/image", MS_RDONLY) < 0)
		return failure_sys(failure, errno,
				   "the root image (" ROOT_DEVICE ") cannot be mounted");
	if ((drive ? mount(drive, "/changes", "ext4", 0, NULL)
		   : mount("tmpfs", "/changes", "tmpfs", 0, "mode=755")) < 0)
		return failure_sys(failure, errno, "the overlay's drive (%s) cannot be mounted",
				   drive ? drive : "memory");
	if (mkdir("/changes/upper", 0755) == 0)
		copy_root_attributes("/image", "/changes/upper");
	mkdir("/changes/work", 0755);
	/* Without redirect_dir directories of the image cannot be renamed. */
	if (mount("overlay", "/root-fs", "overlay", 0,
		  "lowerdir=/image,upperdir=/changes/upper,workdir=/changes/work,redirect_dir=on") <
	    0)
		return failure_sys(failure, errno, "the overlay over the root image");
	return 0;
}

static int mount_root(const char *mode, const char *overlay, struct failure *failure)
{
	mkdir("/root-fs", 0755);
	if (strcmp(mode, "rw") != 0) {
		if (mount_overlay(overlay, failure) < 0)
			return -1;
	} else if (mount_image("/root-fs", 0) < 0) {
		return failure_sys(failure, errno,
				   "the root image (" ROOT_DEVICE ") cannot be mounted");
	}
	/* The mounts of the old root stay behind, out of sight. */
	if (chdir("/root-fs") < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 ||
	    chdir("/") < 0)
		return failure_sys(failure, errno, "the root image cannot become the root");
	mount_at("devtmpfs", "/dev", MS_NOSUID | MS_NOEXEC, "mode=755");
	mount_at("proc", "/proc", safe, NULL);
	return 0;
}

static void link_standard_streams(void)
{
	static const char *const links[][2] = {
		{ "/proc/self/fd", "/dev/fd" },
		{ "/proc/self/fd/0", "/dev/stdin" },
		{ "/proc/self/fd/1", "/dev/stdout" },
		{ "/proc/self/fd/2", "/dev/stderr" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(links); i++) {
		if (symlink(links[i][0], links[i][1]) < 0 && errno != EEXIST)
			fprintf(stderr, "mote-init: %s: %s\n", links[i][1], strerrordesc_np(errno));
	}
}

/* What an image has in /run and /tmp is for its programs; one without them gets them. */
static void make_temporary(bool in_memory)
{
	if (in_memory) {
		mount_at("tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=755");
		mount_at("tmpfs", "/tmp", MS_NOSUID | MS_NODEV, "mode=1777");
		return;
	}
	mkdir("/run", 0755);
	if (mkdir("/tmp", 0755) == 0)
		chmod("/tmp", 01777);
}

static void mount_rest(bool root_in_memory)
{
	mount_at("sysfs", "/sys", safe, NULL);
	mount_at("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "ptmxmode=666,mode=620,gid=5");
	mount_at("tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777");
	mount_at("mqueue", "/dev/mqueue", safe, NULL);
	link_standard_streams();
	make_temporary(root_in_memory);
	mount_at("cgroup2", "/sys/fs/cgroup", safe, NULL);
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return; /* a kernel without it */
	if (write(fd, text, strlen(text)) < 0)
		fprintf(stderr, "mote-init: %s: %s\n", path, strerrordesc_np(errno));
	close(fd);
}

/* PATH[:OPTION,...]; what is no flag of mount(2) is for the file system. */
static void mount_tmpfs(const char *word)
{
	static const struct {
		const char *name;
		unsigned long set;
		unsigned long clear;
	} flags[] = { { "exec", 0, MS_NOEXEC }, { "noexec", MS_NOEXEC, 0 },
		      { "suid", 0, MS_NOSUID }, { "nosuid", MS_NOSUID, 0 },
		      { "dev", 0, MS_NODEV },	{ "nodev", MS_NODEV, 0 },
		      { "ro", MS_RDONLY, 0 },	{ "rw", 0, MS_RDONLY } };
	char copy[PATH_MAX], options[PATH_MAX] = "mode=1777", *rest = copy, *option;
	unsigned long wanted = safe;
	const char *path;

	snprintf(copy, sizeof(copy), "%s", word);
	path = strsep(&rest, ":");
	while ((option = strsep(&rest, ",")) != NULL) {
		size_t i = 0, used = strlen(options);

		while (i < ARRAY_SIZE(flags) && strcmp(flags[i].name, option) != 0)
			i++;
		if (i < ARRAY_SIZE(flags))
			wanted = (wanted | flags[i].set) & ~flags[i].clear;
		else
			snprintf(options + used, sizeof(options) - used, ",%s", option);
	}
	if (program_make_directories(path) < 0 ||
	    mount("tmpfs", path, "tmpfs", wanted, options) < 0)
		fprintf(stderr, "mote-init: tmpfs %s: %s\n", word, strerrordesc_np(errno));
}

/* As docker and podman have them: no port is privileged, and anybody may ping. */
static void set_limits(void)
{
	static const struct rlimit files = { 1048576, 1048576 };
	static const struct rlimit processes = { RLIM_INFINITY, RLIM_INFINITY };

	write_file("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
	write_file("/proc/sys/net/ipv4/ping_group_range", "0 2147483647");
	(void)setrlimit(RLIMIT_NOFILE, &files);
	(void)setrlimit(RLIMIT_NPROC, &processes);
}

static void read_command_line(char *line, size_t size)
{
	int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, line, size - 1);

	if (fd >= 0)
		close(fd);
	line[n < 0 ? 0 : n] = '\0';
}

/* The last of a name counts. */
static void read_words(char *line, struct words *words)
{
	const struct {
		const char *name;
		const char **value;
	} known[] = {
		{ "mote.root=", &words->root },
		{ "mote.overlay=", &words->overlay },
		{ "mote.metadata=", &words->metadata },
		{ "mote.hostname=", &words->network.names.hostname },
		{ "mote.hosts=", &words->network.names.hosts },
		{ "mote.net=", &words->network.ipv4 },
		{ "mote.net6=", &words->network.ipv6 },
		{ "mote.dns=", &words->network.resolver.servers },
		{ "mote.search=", &words->network.resolver.search },
		{ "mote.resolver-options=", &words->network.resolver.options },
	};
	char *word;

	while ((word = strsep(&line, " \n")) != NULL) {
		if (strncmp(word, "mote.", 5) != 0)
			continue;
		if (strncmp(word, "mote.tmpfs=", 11) == 0 &&
		    words->tmpfs_count < PROTOCOL_TMPFS_MAX)
			words->tmpfs[words->tmpfs_count++] = word + 11;
		for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
			size_t length = strlen(known[i].name);

			if (strncmp(word, known[i].name, length) == 0)
				*known[i].value = word + length;
		}
	}
}

int setup_system(struct failure *failure)
{
	static char line[4096];
	struct words words = { .network.names.hostname = "microvm" };

	mount_at("proc", "/proc", safe, NULL);
	read_command_line(line, sizeof(line));
	read_words(line, &words);
	if (sethostname(words.network.names.hostname, strlen(words.network.names.hostname)) < 0)
		fprintf(stderr, "mote-init: host name: %s\n", strerrordesc_np(errno));
	if (words.root && mount_root(words.root, words.overlay, failure) < 0)
		return -1;
	mount_rest(!words.root);
	for (size_t i = 0; i < words.tmpfs_count; i++)
		mount_tmpfs(words.tmpfs[i]);
	set_limits();
	/* What a whole machine's own disk says of its names is its own affair. */
	words.network.names.keep = words.root && strcmp(words.root, "rw") == 0;
	if (network_set_up(&words.network, failure) < 0)
		return -1;
	return words.metadata ? metadata_serve(words.metadata, failure) : 0;
}
