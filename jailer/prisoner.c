/* SPDX-License-Identifier: Apache-2.0 */
#include "jailer/prisoner.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/array.h"
#include "base/err.h"
#include "base/fd.h"
#include "jailer/args.h"
#include "jailer/cgroup.h"
#include "jailer/filter.h"
#include "jailer/landlock.h"
#include "jailer/privileges.h"
#include "jailer/root.h"
#include "jailer/tree.h"

/* sched.h and linux/sched.h do not go together in Debian 12. */
extern int unshare(int flags);
extern int setns(int fd, int type);

/* Dies with the keeper, also if that has ended before this takes effect: its end of the pipe tells.
 */
static int die_with_keeper(const struct prison *prison, struct err *err)
{
	struct pollfd keeper = { .fd = prison->go_read };

	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		return err_sys(err, errno, "the VMM cannot be tied to its jailer");
	if (poll(&keeper, 1, 0) == 1 && keeper.revents & POLLHUP)
		_exit(EXIT_FAILURE);
	return 0;
}

static int enter_namespaces(const struct prison *prison, struct err *err)
{
	const int fresh = CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;
	const char *id = prison->args->id;

	if (unshare(fresh | (prison->args->new_netns ? CLONE_NEWNET : 0)) < 0)
		return err_sys(err, errno, "the jail's namespaces");
	if (prison->netns_fd >= 0 && setns(prison->netns_fd, CLONE_NEWNET) < 0)
		return err_sys(err, errno, "--netns %s", prison->args->netns);
	if (sethostname(id, strlen(id)) < 0)
		return err_sys(err, errno, "the jail's host name");
	return 0;
}

static int wait_for_tree(const struct prison *prison, struct err *err)
{
	char byte;
	ssize_t n;

	do {
		n = read(prison->go_read, &byte, 1);
	} while (n < 0 && errno == EINTR);
	/* Otherwise the keeper failed, and says so itself. */
	return n == 1 ? 0 : err_set(err, ECANCELED, "%s", "");
}

static int leave_terminal(const struct prison *prison, struct err *err)
{
	for (int fd = 0; prison->null_fd >= 0 && fd <= STDERR_FILENO; fd++) {
		if (dup2(prison->null_fd, fd) < 0)
			return err_sys(err, errno, "/dev/null");
	}
	return 0;
}

static int build(const struct prison *prison, struct err *err)
{
	const struct jailer_args *args = prison->args;
	int rc = die_with_keeper(prison, err);

	/* Characters cannot be pushed into a terminal that is not the session's own. */
	if (rc == 0 && setsid() < 0)
		rc = err_sys(err, errno, "setsid");
	/* Before its namespace, of which it becomes the root. */
	if (rc == 0)
		rc = cgroup_enter(prison->cgroup, err);
	if (rc == 0)
		rc = enter_namespaces(prison, err);
	if (rc == 0)
		rc = wait_for_tree(prison, err);
	if (rc == 0)
		rc = root_enter(prison->tree, err);
	if (rc == 0)
		rc = tree_give(prison->tree, err);
	if (rc == 0)
		rc = leave_terminal(prison, err);
	if (rc == 0)
		rc = privileges_limit(args, err);
	if (rc == 0)
		rc = privileges_drop(args, err);
	/* Another user has been forgotten as whose end to die of. */
	if (rc == 0)
		rc = die_with_keeper(prison, err);
	if (rc == 0)
		rc = landlock_enter(args->exec_name, !args->read_only_root, err);
	return rc < 0 ? rc : filter_enter(args->uffd, err);
}

static int64_t cpu_us(void)
{
	struct timespec used;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
	return (int64_t)used.tv_sec * 1000000 + used.tv_nsec / 1000;
}

/* Only returns if it fails. */
static void exec_vmm(const struct prison *prison, struct err *err)
{
	const struct jailer_args *args = prison->args;
	char path[JAILER_ID_LENGTH_MAX + 2], id[JAILER_ID_LENGTH_MAX + 1], start[24], cpu[24];
	char *const own[] = {
		path + 1, (char[]){ "--id" },
		id,	  (char[]){ "--start-time-us" },
		start,	  (char[]){ "--start-time-cpu-us" },
		cpu,
	};
	const size_t own_count = ARRAY_SIZE(own);
	char *const environment[] = { NULL };
	size_t count = 0;
	char **argv;

	while (args->vmm_args[count])
		count++;
	argv = calloc(own_count + count + 1, sizeof(*argv));
	if (!argv) {
		err_sys(err, ENOMEM, "the VMM's arguments");
		return;
	}
	snprintf(path, sizeof(path), "/%s", args->exec_name);
	snprintf(id, sizeof(id), "%s", args->id);
	snprintf(start, sizeof(start), "%lld", (long long)prison->start_us);
	snprintf(cpu, sizeof(cpu), "%lld", (long long)cpu_us());
	memcpy(argv, own, sizeof(own));
	memcpy(argv + own_count, args->vmm_args, count * sizeof(*argv));
	execve(path, argv, environment);
	err_sys(err, errno, "%s: exec in the jail", args->exec_name);
	free(argv);
}

static _Noreturn void be_prisoner(const struct prison *prison)
{
	struct err err = { "" };

	sigprocmask(SIG_UNBLOCK, &prison->keepers, NULL);
	close(prison->go_write);
	close(prison->fault_read);
	if (build(prison, &err) == 0)
		exec_vmm(prison, &err);
	(void)fd_write_all(prison->fault_write, err.text, strlen(err.text));
	_exit(EXIT_FAILURE);
}

pid_t prisoner_start(const struct prison *prison, struct err *err)
{
	const int into = cgroup_to_clone_into(prison->cgroup);
	struct clone_args clone = {
		.flags = CLONE_NEWPID,
		.exit_signal = SIGCHLD,
	};
	pid_t pid;

	if (into >= 0) {
		clone.flags |= CLONE_INTO_CGROUP;
		clone.cgroup = (unsigned long long)into;
	}
	if (prison->args->rootless)
		clone.flags |= CLONE_NEWUSER;
	pid = (pid_t)syscall(SYS_clone3, &clone, sizeof(clone));

	if (pid == 0)
		be_prisoner(prison);
	if (pid < 0)
		return err_sys(err, errno, "the jail's process%s",
			       prison->args->rootless ? ", in a user namespace" : "");
	return pid;
}
