/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/image_job.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "cli/cli.h"
#include "host/paths.h"

#define SCRIPT "build-image.sh"
#define PROGRESS_FD 3
#define END_SECONDS 5
#define TEXT_MAX (4 << 20) /* bytes of a configuration; registries take no more either */
#define LINE 512
#define WARNING "warning: "
#define WARNINGS_MAX 8

/* Of what was read so far. */
struct lines {
	char next[LINE];
	size_t used;
	char last[LINE]; /* the last whole one that is not empty */
	char warnings[WARNINGS_MAX][LINE];
	int warned;
};

/* The script, while it runs. */
struct script {
	pid_t pid;
	int pid_fd;
	int progress_fd;
	int said_fd; /* its standard error */
	struct lines doing, said;
	bool is_terminal;
	bool interrupted; /* and asked to end */
	time_t patience;  /* until it is made to */
};

static _Noreturn void exec_script(const char *path, char *const argv[], int source, int progress,
				  int said)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	/* Of its own, so that all of it can be ended at once. */
	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (source >= 0)
		dup2(source, STDIN_FILENO);
	dup2(said, STDERR_FILENO);
	dup2(STDERR_FILENO, STDOUT_FILENO);
	if (progress == PROGRESS_FD)
		fcntl(progress, F_SETFD, 0);
	else
		dup2(progress, PROGRESS_FD);
	execv(path, argv);
	dprintf(STDERR_FILENO, "%s: %s\n", path, strerrordesc_np(errno));
	_exit(CLI_EXIT_FAILURE);
}

/* The end that is read never waits. */
static int open_pipe(int *read_end, int *write_end, struct err *err)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0)
		return err_sys(err, errno, "%s: its pipes", SCRIPT);
	*read_end = ends[0];
	*write_end = ends[1];
	fcntl(*read_end, F_SETFL, O_NONBLOCK);
	return 0;
}

static int start_script(struct script *script, const char *path, char *const argv[], int source,
			struct err *err)
{
	CLEANUP_FD int progress = -1, said = -1;
	int rc = open_pipe(&script->progress_fd, &progress, err);

	if (rc == 0)
		rc = open_pipe(&script->said_fd, &said, err);
	if (rc < 0)
		return rc;
	script->pid = fork();
	if (script->pid < 0)
		return err_sys(err, errno, "%s: fork", SCRIPT);
	if (script->pid == 0)
		exec_script(path, argv, source, progress, said);
	setpgid(script->pid, script->pid);
	script->pid_fd = (int)syscall(SYS_pidfd_open, script->pid, 0);
	return 0;
}

static void show(const struct script *script, time_t started)
{
	if (script->is_terminal && script->doing.last[0])
		fprintf(stderr, "\r\033[Kmote image: %s (%lld s)", script->doing.last,
			(long long)(time(NULL) - started));
}

static void end_line(struct lines *lines)
{
	lines->next[lines->used] = '\0';
	if (strncmp(lines->next, WARNING, strlen(WARNING)) == 0 && lines->warned < WARNINGS_MAX)
		memcpy(lines->warnings[lines->warned++], lines->next, lines->used + 1);
	else if (lines->used > 0)
		memcpy(lines->last, lines->next, lines->used + 1);
	lines->used = 0;
}

/* With names of the source in them. */
static void print_warnings(struct lines *lines, const char *about)
{
	for (int i = 0; i < lines->warned; i++) {
		cli_clean(lines->warnings[i]);
		fprintf(stderr, "mote: %s: %s\n", about, lines->warnings[i]);
	}
}

/* What there is at the moment. False at the end. */
static bool read_lines(struct lines *lines, int fd)
{
	char data[4096];
	ssize_t n = read(fd, data, sizeof(data));

	for (ssize_t i = 0; i < n; i++) {
		if (data[i] == '\n')
			end_line(lines);
		else if (lines->used < sizeof(lines->next) - 1)
			lines->next[lines->used++] = data[i];
	}
	return n > 0 || (n < 0 && errno == EINTR);
}

/* The first signal lets it tidy up, the second does not. */
static void end_script(struct script *script, int signal_fd)
{
	struct signalfd_siginfo info;

	if (read(signal_fd, &info, sizeof(info)) < 0 && !script->interrupted)
		return;
	kill(-script->pid, script->interrupted ? SIGKILL : SIGTERM);
	script->interrupted = true;
	script->patience = time(NULL) + END_SECONDS;
}

/* Until it ends, or a signal ends it; the status as waitpid has it. */
static int wait_script(struct script *script, int signal_fd)
{
	const time_t started = time(NULL);
	bool progress_over = false, said_all = false;
	int status = 0;

	for (;;) {
		struct pollfd fds[] = {
			{ .fd = script->pid_fd, .events = POLLIN },
			{ .fd = progress_over ? -1 : script->progress_fd, .events = POLLIN },
			{ .fd = said_all ? -1 : script->said_fd, .events = POLLIN },
			{ .fd = signal_fd, .events = POLLIN },
		};

		if (poll(fds, 4, script->is_terminal || script->interrupted ? 1000 : -1) < 0)
			continue;
		if (fds[1].revents)
			progress_over = !read_lines(&script->doing, script->progress_fd);
		if (fds[2].revents)
			said_all = !read_lines(&script->said, script->said_fd);
		if (fds[3].revents || (script->interrupted && time(NULL) > script->patience))
			end_script(script, signal_fd);
		show(script, started);
		if (fds[0].revents)
			break;
	}
	while (waitpid(script->pid, &status, 0) < 0 && errno == EINTR)
		;
	while (read_lines(&script->said, script->said_fd))
		;
	end_line(&script->said);
	while (read_lines(&script->doing, script->progress_fd))
		;
	if (script->is_terminal && script->doing.last[0])
		fputs("\r\033[K", stderr);
	return status;
}

/* Runs the script to its end: 0, or -1 with *status set to the exit status and all of it said. */
static int run_script(char *const argv[], int source, int signal_fd, const char *about, int *status)
{
	struct script script = { .pid_fd = -1,
				 .progress_fd = -1,
				 .said_fd = -1,
				 .is_terminal = isatty(STDERR_FILENO) == 1 };
	char path[PATH_MAX];
	struct err err;
	int end, rc;

	rc = paths_own(SCRIPT, path, &err);
	if (rc == 0)
		rc = start_script(&script, path, argv, source, &err);
	end = rc == 0 ? wait_script(&script, signal_fd) : -1;
	fd_close(&script.pid_fd);
	fd_close(&script.progress_fd);
	fd_close(&script.said_fd);
	if (rc < 0) {
		*status = cli_fail(CLI_EXIT_FAILURE, &err);
		return -1;
	}
	print_warnings(&script.doing, about);
	if (!script.interrupted && WIFEXITED(end) && WEXITSTATUS(end) == 0)
		return 0;
	/* The last line of what it said is why it failed, with names of the source in it. */
	cli_clean(script.said.last);
	*status = script.interrupted ? 128 + SIGINT : CLI_EXIT_FAILURE;
	fprintf(stderr, "mote: %s: %s\n", about,
		script.interrupted    ? "interrupted"
		: script.said.last[0] ? script.said.last
				      : "it ended for no reason that it gave");
	return -1;
}

/* A second signal while it is removed does not stop that. */
static void remove_scratch(const char *scratch)
{
	char *const argv[] = {
		(char[]){ SCRIPT },
		(char[]){ "--remove" },
		(char *)(uintptr_t)scratch,
		NULL,
	};
	int status;

	(void)run_script(argv, -1, -1, scratch, &status);
}

/* Removes what `stale` lists, which it gives up. */
static void remove_stale(json_t *stale)
{
	json_t *path;
	size_t i;

	json_array_foreach (stale, i, path)
		remove_scratch(json_string_value(path));
	json_decref(stale);
}

int image_job_open(struct image_job *job, struct image_store *store, int *status)
{
	sigset_t ends;
	json_t *stale;
	struct err err;

	sigemptyset(&ends);
	sigaddset(&ends, SIGINT);
	sigaddset(&ends, SIGTERM);
	sigaddset(&ends, SIGHUP);
	sigprocmask(SIG_BLOCK, &ends, &job->mask_before);
	job->lock_fd = -1;
	job->signal_fd = signalfd(-1, &ends, SFD_CLOEXEC | SFD_NONBLOCK);
	if (job->signal_fd < 0)
		err_sys(&err, errno, "signalfd");
	if (job->signal_fd < 0 ||
	    image_store_scratch(store, job->scratch, &job->lock_fd, &stale, &err) < 0) {
		fd_close(&job->signal_fd);
		sigprocmask(SIG_SETMASK, &job->mask_before, NULL);
		*status = cli_fail(CLI_EXIT_FAILURE, &err);
		return -1;
	}
	remove_stale(stale);
	return 0;
}

int image_job_run(const struct image_job *job, const char *format, const char *kind,
		  const char *detail, int max_mib, int source_fd, const char *about, int *status)
{
	char max_kib[24];
	char *const argv[] = {
		(char[]){ SCRIPT },
		(char *)(uintptr_t)format,
		(char *)(uintptr_t)kind,
		(char *)(uintptr_t)detail,
		(char *)(uintptr_t)job->scratch,
		max_kib,
		NULL,
	};

	snprintf(max_kib, sizeof(max_kib), "%lld", (long long)max_mib * 1024);
	return run_script(argv, source_fd, job->signal_fd, about, status);
}

char *image_job_read(const struct image_job *job, const char *name, size_t *length, struct err *err)
{
	char path[PATH_MAX];
	CLEANUP_FD int fd = -1;
	char *text;
	off_t size;
	int rc;

	snprintf(path, sizeof(path), "%.*s/%s", PATH_MAX - 64, job->scratch, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
	if (size < 0 || size > TEXT_MAX) {
		err_sys(err, size < 0 ? errno : EFBIG, "%s", path);
		return NULL;
	}
	text = malloc((size_t)size + 1);
	rc = text ? fd_pread_exact(fd, text, (size_t)size, 0) : -ENOMEM;
	if (rc < 0) {
		err_sys(err, -rc, "%s", path);
		free(text);
		return NULL;
	}
	text[size] = '\0';
	*length = (size_t)size;
	return text;
}

void image_job_close(struct image_job *job)
{
	remove_scratch(job->scratch);
	fd_close(&job->lock_fd);
	fd_close(&job->signal_fd);
	sigprocmask(SIG_SETMASK, &job->mask_before, NULL);
}

int image_prune(struct image_store *store)
{
	struct image_job job;
	int status;

	if (image_job_open(&job, store, &status) < 0)
		return status;
	image_job_close(&job);
	return EXIT_SUCCESS;
}
