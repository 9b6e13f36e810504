/* SPDX-License-Identifier: Apache-2.0 */
#include "jailer/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/array.h"
#include "base/err.h"
#include "base/fd.h"
#include "jailer/args.h"
#include "jailer/cgroup.h"
#include "jailer/descriptors.h"
#include "jailer/prisoner.h"
#include "jailer/tree.h"

/* The VMM's. Others that end a process by default, like SIGQUIT, are the keeper's: it kills the
 * VMM. */
static const int forwarded[] = { SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGALRM };

struct keeper {
	const struct jailer_args *args;
	struct tree tree;
	struct cgroup cgroup;
	struct prison prison;
	sigset_t signals; /* all that it waits for */
	pid_t pid;
};

/*
 * All that would end the keeper by default is waited for, so that it leaves no jail, but what a
 * fault of its own raises. Those that are passed on stay blocked in the VMM until it has its
 * handlers: as a namespace's init it loses others.
 */
static void block_signals(sigset_t *signals, sigset_t *keepers)
{
	static const int left[] = { SIGSEGV, SIGBUS,  SIGILL,  SIGFPE, SIGSYS,	 SIGABRT, SIGTSTP,
				    SIGTTIN, SIGTTOU, SIGCONT, SIGURG, SIGWINCH, SIGPIPE };

	sigfillset(signals);
	for (size_t i = 0; i < ARRAY_SIZE(left); i++)
		sigdelset(signals, left[i]);
	*keepers = *signals;
	for (size_t i = 0; i < ARRAY_SIZE(forwarded); i++)
		sigdelset(keepers, forwarded[i]);
	sigprocmask(SIG_BLOCK, signals, NULL);
	/* Ignored by whoever started us, children would end without being waited for. */
	signal(SIGCHLD, SIG_DFL);
	signal(SIGPIPE, SIG_IGN);
}

static bool is_forwarded(int number)
{
	for (size_t i = 0; i < ARRAY_SIZE(forwarded); i++) {
		if (forwarded[i] == number)
			return true;
	}
	return false;
}

static int open_pipe(int *read_end, int *write_end, struct err *err)
{
	int pair[2];

	if (pipe2(pair, O_CLOEXEC) < 0)
		return err_sys(err, errno, "a pipe");
	*read_end = pair[0];
	*write_end = pair[1];
	return 0;
}

/*
 * In the host's network namespace are abstract sockets on which root's services listen for root and
 * do what it says; root of the jail is root to them. 0, or -EPERM.
 */
static int check_root_is_apart(const struct prison *prison, struct err *err)
{
	static const char callers[] = "/proc/self/ns/net";
	const struct jailer_args *args = prison->args;
	struct stat own, hosts;

	if (args->new_netns)
		return 0;
	/* The first process is in the host's; who may not look at it has its own to compare with.
	 */
	if ((prison->netns_fd >= 0 ? fstat(prison->netns_fd, &own) : stat(callers, &own)) < 0 ||
	    (stat("/proc/1/ns/net", &hosts) < 0 && stat(callers, &hosts) < 0))
		return err_sys(err, errno, "the host's network namespace");
	if (own.st_dev == hosts.st_dev && own.st_ino == hosts.st_ino)
		return err_set(err, EPERM,
			       "--uid %u --gid %u: root, in the host's network namespace, reaches "
			       "what listens for root there: it goes with --netns and another "
			       "one, or --new-netns",
			       args->uid, args->gid);
	return 0;
}

static int open_prison(struct keeper *keeper, struct err *err)
{
	const struct jailer_args *args = keeper->args;
	struct prison *prison = &keeper->prison;
	int rc;

	if (args->netns) {
		prison->netns_fd = open(args->netns, O_RDONLY | O_CLOEXEC);
		if (prison->netns_fd < 0)
			return err_sys(err, errno, "--netns %s", args->netns);
	}
	if (args->as_root) {
		rc = check_root_is_apart(prison, err);
		if (rc < 0)
			return rc;
	}
	if (args->daemonize) {
		prison->null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
		if (prison->null_fd < 0)
			return err_sys(err, errno, "/dev/null");
	}
	rc = open_pipe(&prison->go_read, &prison->go_write, err);
	return rc < 0 ? rc : open_pipe(&prison->fault_read, &prison->fault_write, err);
}

static int write_text(const char *path, const char *text)
{
	CLEANUP_FD int fd = open(path, O_WRONLY | O_CLOEXEC);

	return fd < 0 ? -errno : fd_write_all(fd, text, strlen(text));
}

/* In its user namespace the prisoner is the user that it is outside, and no other. */
static int map_user(const struct keeper *keeper, struct err *err)
{
	const struct {
		const char *file;
		unsigned int inside, outside;
	} maps[] = {
		{ "uid_map", keeper->args->uid, geteuid() },
		{ "gid_map", keeper->args->gid, getegid() },
	};
	char path[48], text[48];
	int rc;

	snprintf(path, sizeof(path), "/proc/%d/setgroups", keeper->pid);
	rc = write_text(path, "deny");
	for (size_t i = 0; rc == 0 && i < ARRAY_SIZE(maps); i++) {
		snprintf(path, sizeof(path), "/proc/%d/%s", keeper->pid, maps[i].file);
		snprintf(text, sizeof(text), "%u %u 1", maps[i].inside, maps[i].outside);
		rc = write_text(path, text);
	}
	return rc < 0 ? err_sys(err, -rc, "%s", path) : 0;
}

/* While the prisoner makes its namespaces. */
static int complete_tree(struct keeper *keeper, int exec_fd, struct err *err)
{
	int rc = keeper->args->rootless ? map_user(keeper, err) : 0;

	/* Before, its user could not write what maps the user. */
	if (rc == 0 && prctl(PR_SET_DUMPABLE, 0) < 0)
		rc = err_sys(err, errno, "PR_SET_DUMPABLE");
	if (rc == 0)
		rc = tree_add_devices(&keeper->tree, err);
	if (rc == 0)
		rc = tree_copy_exec(&keeper->tree, exec_fd, err);
	if (rc == 0)
		rc = tree_write_pid(&keeper->tree, keeper->pid, err);
	return rc < 0 ? rc : fd_write_all(keeper->prison.go_write, "g", 1);
}

/* Until exec, or the prisoner's end. */
static int read_fault(struct keeper *keeper, struct err *err)
{
	size_t used = 0;
	ssize_t n;

	fd_close(&keeper->prison.fault_write);
	do {
		n = read(keeper->prison.fault_read, err->text + used, sizeof(err->text) - 1 - used);
		used += n > 0 ? (size_t)n : 0;
	} while (n > 0 || (n < 0 && errno == EINTR));
	err->text[used] = '\0';
	return used > 0 ? -ECANCELED : 0;
}

static int open_cgroup(struct keeper *keeper, struct err *err)
{
	int rc = cgroup_open(&keeper->cgroup, keeper->args, err);
	struct err cause = *err;

	if (rc < 0 && keeper->args->rootless)
		err_set(err, -rc, "%.400s (--weaker-jail cgroup goes on without limits)",
			cause.text);
	if (rc < 0 && keeper->args->weaker_cgroup) {
		cgroup_remove(&keeper->cgroup);
		cgroup_close(&keeper->cgroup);
		rc = 0;
	}
	return rc;
}

static int start(struct keeper *keeper, struct err *err)
{
	CLEANUP_FD int exec_fd = tree_open_exec(keeper->args, err);
	int rc = exec_fd < 0 ? exec_fd : open_prison(keeper, err);

	if (rc == 0)
		rc = tree_open(&keeper->tree, keeper->args, err);
	if (rc == 0)
		rc = open_cgroup(keeper, err);
	if (rc == 0)
		keeper->pid = prisoner_start(&keeper->prison, err);
	if (rc < 0 || keeper->pid < 0)
		return rc < 0 ? rc : (int)keeper->pid;
	/* A prisoner that ended before its time closed it. */
	fd_close(&keeper->prison.go_read);
	rc = complete_tree(keeper, exec_fd, err);
	descriptors_close_kept(keeper->args);
	if (rc == 0 || rc == -EPIPE)
		rc = read_fault(keeper, err);
	return rc;
}

static int wait_for_end(const struct keeper *keeper)
{
	int status, number;

	for (;;) {
		pid_t ended = waitpid(keeper->pid, &status, WNOHANG);

		if (ended == keeper->pid)
			return status;
		if (sigwait(&keeper->signals, &number) != 0 || number == SIGCHLD)
			continue;
		kill(keeper->pid, is_forwarded(number) ? number : SIGKILL);
		if (!is_forwarded(number))
			cgroup_thaw(&keeper->cgroup);
	}
}

static void close_keeper(struct keeper *keeper)
{
	int *const fds[] = { &keeper->prison.netns_fd,	 &keeper->prison.null_fd,
			     &keeper->prison.go_read,	 &keeper->prison.go_write,
			     &keeper->prison.fault_read, &keeper->prison.fault_write };

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		fd_close(fds[i]);
	cgroup_remove(&keeper->cgroup);
	cgroup_close(&keeper->cgroup);
	tree_remove(&keeper->tree);
	tree_close(&keeper->tree);
}

/* In the foreground: until the VMM runs, or the keeper has said why it does not. */
static _Noreturn void wait_for_keeper(pid_t pid, int running_fd)
{
	int status = 0;
	char byte;
	ssize_t n;

	do {
		n = read(running_fd, &byte, 1);
	} while (n < 0 && errno == EINTR);
	while (n != 1 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	exit(WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAILURE);
}

/* Returns in the background; the foreground ends in here. */
static int daemonize(int *running_fd, struct err *err)
{
	CLEANUP_FD int running_read = -1;
	pid_t pid;
	int rc = open_pipe(&running_read, running_fd, err);

	if (rc < 0)
		return rc;
	pid = fork();
	if (pid < 0)
		return err_sys(err, errno, "fork");
	if (pid > 0) {
		fd_close(running_fd);
		wait_for_keeper(pid, running_read);
	}
	setsid();
	return 0;
}

/* From start to end; the VMM's status, or -errno. */
static int keep(struct keeper *keeper, int *running_fd, struct err *err)
{
	int rc = start(keeper, err);

	if (rc == 0)
		rc = descriptors_detach(err);
	if (rc < 0 && keeper->pid > 0) {
		kill(keeper->pid, SIGKILL);
		cgroup_thaw(&keeper->cgroup);
	}
	if (rc == 0 && *running_fd >= 0)
		(void)fd_write_all(*running_fd, "r", 1);
	if (rc == 0)
		fd_close(running_fd);
	if (keeper->pid > 0) {
		int status = wait_for_end(keeper);

		rc = rc < 0 ? rc : status;
	}
	return rc;
}

/* What is opened is removed in the end. */
static int open_left_over(struct keeper *keeper, struct err *err)
{
	int rc = tree_open(&keeper->tree, keeper->args, err);

	return rc < 0 ? rc : open_cgroup(keeper, err);
}

int keeper_run(const struct jailer_args *args, int64_t start_us, struct err *err)
{
	CLEANUP_FD int running_fd = -1;
	struct keeper keeper = {
		.args = args,
		.tree = TREE_NONE,
		.prison = { .args = args,
			    .netns_fd = -1,
			    .null_fd = -1,
			    .go_read = -1,
			    .go_write = -1,
			    .fault_read = -1,
			    .fault_write = -1,
			    .start_us = start_us },
	};
	int rc;

	keeper.prison.tree = &keeper.tree;
	keeper.prison.cgroup = &keeper.cgroup;
	rc = descriptors_prepare(args, err);
	if (rc == 0 && args->daemonize)
		rc = daemonize(&running_fd, err);
	if (rc < 0)
		return rc;
	block_signals(&keeper.signals, &keeper.prison.keepers);
	rc = args->remove ? open_left_over(&keeper, err) : keep(&keeper, &running_fd, err);
	close_keeper(&keeper);
	return rc;
}
