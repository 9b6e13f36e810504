/* SPDX-License-Identifier: Apache-2.0 */
#include "host/jail.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/array.h"
#include "base/err.h"
#include "host/jail_user.h"
#include "host/paths.h"

/* What the VMM and the kernel use for a VM beside the guest's memory, page cache included. */
#define MEMORY_BESIDE ((uint64_t)256 << 20)
/* The main thread, KVM's and io_uring's workers. */
#define THREADS_BESIDE 64
#define PIDS_FILE "pids.max"

/* The directories of the jail's /run, as mote-jailer makes them, and takes them over. */
static int make_run(const struct jail *jail, char run[PATH_MAX], struct err *err)
{
	const char *const parts[] = { "", "/mote-vmm/", jail->id, "/root", "/run" };
	size_t used = 0;

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		int n = snprintf(run + used, PATH_MAX - used, "%s%s", i == 0 ? jail->base : "",
				 parts[i]);

		if (n < 0 || (size_t)n >= PATH_MAX - used)
			return err_set(err, ENAMETOOLONG, "%s: the path is too long", jail->base);
		used += (size_t)n;
		if (mkdir(run, 0755) < 0 && errno != EEXIST)
			return err_sys(err, errno, "%s", run);
	}
	return 0;
}

/* FOLDER/name leads to `target`. */
static int make_link(const char *folder, const char *name, const char *target, struct err *err)
{
	char link[PATH_MAX];

	if (snprintf(link, sizeof(link), "%s/%s", folder, name) >= (int)sizeof(link))
		return err_set(err, ENAMETOOLONG, "%s: the path is too long", folder);
	return symlink(target, link) < 0 ? err_sys(err, errno, "%s", link) : 0;
}

int jail_prepare(struct jail *jail, const char *id, const char *folder, char listen[PATH_MAX],
		 struct err *err)
{
	char run[PATH_MAX];
	int rc = paths_jails(jail->base, err);

	if (rc < 0)
		return rc;
	snprintf(jail->id, sizeof(jail->id), "%s", id);
	jail->uid = geteuid();
	jail->gid = getegid();
	if (jail->uid == 0) {
		rc = jail_user_choose(&jail->uid, err);
		jail->gid = jail->uid;
	}
	if (rc == 0)
		rc = make_run(jail, run, err);
	if (rc == 0)
		rc = make_link(folder, "run", run, err);
	if (rc == 0)
		rc = make_link(folder, "vsock", "run/vsock", err);
	if (rc == 0)
		rc = make_link(folder, "api", "run/api", err);
	if (rc == 0 && snprintf(listen, PATH_MAX, "%s/run/vsock", folder) >= PATH_MAX)
		rc = err_set(err, ENAMETOOLONG, "%s: the path is too long", folder);
	return rc;
}

int jail_share(const struct jail *jail, const char *socket, struct err *err)
{
	return lchown(socket, jail->uid, jail->gid) < 0 ? err_sys(err, errno, "%s", socket) : 0;
}

__attribute__((format(printf, 2, 3))) static void add(struct jail_arguments *arguments,
						      const char *fmt, ...)
{
	const size_t room = sizeof(arguments->text) - arguments->used;
	char *word = arguments->text + arguments->used;
	va_list args;
	int n;

	va_start(args, fmt);
	n = vsnprintf(word, room, fmt, args);
	va_end(args);
	/* What does not fit is seen at the end. */
	if (n < 0 || (size_t)n >= room || arguments->count == JAIL_ARGUMENTS_MAX - 1) {
		arguments->count = JAIL_ARGUMENTS_MAX;
		return;
	}
	if (arguments->count < JAIL_ARGUMENTS_MAX - 1)
		arguments->words[arguments->count++] = word;
	arguments->used += (unsigned int)n + 1;
}

/* As mote-jailer does: version 2 alone is one line, each hierarchy of version 1 one more. */
static bool cgroup_is_v2(void)
{
	FILE *file = fopen("/proc/self/cgroup", "re");
	char line[PATH_MAX + 64];
	bool alone = file && fgets(line, sizeof(line), file) && strncmp(line, "0::", 3) == 0 &&
		     !fgets(line, sizeof(line), file);

	if (file)
		fclose(file);
	return alone;
}

static const char *memory_file(void)
{
	return cgroup_is_v2() ? "memory.max" : "memory.limit_in_bytes";
}

static void name_jail(const struct jail *jail, const char *jailer, const char *vmm,
		      struct jail_arguments *arguments)
{
	*arguments = (struct jail_arguments){ 0 };
	add(arguments, "%s", jailer);
	add(arguments, "--id=%s", jail->id);
	add(arguments, "--exec-file=%s", vmm);
	add(arguments, "--uid=%u", jail->uid);
	add(arguments, "--gid=%u", jail->gid);
	add(arguments, "--chroot-base-dir=%s", jail->base);
}

int jail_command(const struct jail *jail, const char *jailer, const struct jail_contents *contents,
		 struct jail_arguments *arguments)
{
	const uint64_t memory = ((uint64_t)contents->mem_size_mib << 20) + MEMORY_BESIDE;

	name_jail(jail, jailer, contents->vmm, arguments);
	add(arguments, "--read-only-root");
	add(arguments, "--cgroup=%s=%llu", memory_file(), (unsigned long long)memory);
	/* Past the limit there is no more, and what a guest has in memory is on no disk. */
	if (cgroup_is_v2() && access("/proc/swaps", F_OK) == 0)
		add(arguments, "--cgroup=memory.swap.max=0");
	add(arguments, "--cgroup=" PIDS_FILE "=%d", contents->vcpu_count + THREADS_BESIDE);
	if (jail->weaker_cgroup)
		add(arguments, "--weaker-jail=cgroup");
	/* The tap device is in the network namespace that mote is in. */
	add(arguments, contents->tap ? "--netns=/proc/self/ns/net" : "--new-netns");
	add(arguments, "--record-fd=%d", contents->record_fd);
	for (unsigned int i = 0; i < contents->count; i++)
		add(arguments, "--keep-fd=%d", contents->fds[i]);
	add(arguments, "--");
	return arguments->count < JAIL_ARGUMENTS_MAX ? 0 : -E2BIG;
}

/* What mote-jailer had made when it was killed. While it is still at it, it refuses this. */
static void remove_rest(const struct jail *jail)
{
	char jailer[PATH_MAX], vmm[PATH_MAX];
	struct jail_arguments arguments;
	posix_spawn_file_actions_t actions;
	pid_t pid;

	if (paths_own("mote-jailer", jailer, NULL) < 0 || paths_own("mote-vmm", vmm, NULL) < 0)
		return;
	name_jail(jail, jailer, vmm, &arguments);
	/* What it left in /run goes, too. */
	add(&arguments, "--read-only-root");
	/* Only which files they are counts. */
	add(&arguments, "--cgroup=%s=1G", memory_file());
	add(&arguments, "--cgroup=" PIDS_FILE "=1");
	add(&arguments, "--weaker-jail=cgroup");
	add(&arguments, "--remove");
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
	if (arguments.count < JAIL_ARGUMENTS_MAX &&
	    posix_spawn(&pid, jailer, &actions, NULL, arguments.words, environ) == 0) {
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	posix_spawn_file_actions_destroy(&actions);
}

void jail_remove(const struct jail *jail, const char *socket)
{
	const char *const parts[] = { "/root/run", "/root", "" };
	char path[PATH_MAX];

	if (!jail->id[0])
		return;
	unlink(socket);
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		if (snprintf(path, sizeof(path), "%s/mote-vmm/%s%s", jail->base, jail->id,
			     parts[i]) >= (int)sizeof(path))
			return;
		if (rmdir(path) < 0 && errno != ENOENT && i > 0) {
			remove_rest(jail);
			return;
		}
	}
}

void jail_sweep(const char *id)
{
	/* Whose it was makes no difference. */
	struct jail jail = { .uid = geteuid() ? geteuid() : JAIL_USER_FIRST,
			     .gid = geteuid() ? getegid() : JAIL_USER_FIRST };

	if (paths_jails(jail.base, NULL) < 0)
		return;
	snprintf(jail.id, sizeof(jail.id), "%s", id);
	jail_remove(&jail, "");
}
