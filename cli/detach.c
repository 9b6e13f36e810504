/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/detach.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "cli/cli.h"

/* What comes over the pipe begins with one of these. */
#define READY '+'
#define FAILED '-'

static int wait_for_child(int fd)
{
	char text[ERR_TEXT_SIZE + 2];
	size_t used = 0;
	ssize_t n;

	while (used < sizeof(text) - 1 &&
	       ((n = read(fd, text + used, sizeof(text) - 1 - used)) > 0 ||
		(n < 0 && errno == EINTR)))
		used += n > 0 ? (size_t)n : 0;
	text[used] = '\0';
	if (text[0] == READY) {
		puts(text + 1);
		return EXIT_SUCCESS;
	}
	cli_clean(text);
	fprintf(stderr, "mote: %s\n",
		text[0] == FAILED ? text + 1 : "the supervisor of the microVM was killed");
	return CLI_EXIT_SANDBOX;
}

/*
 * Whoever holds one of the caller's descriptors for long holds his locks, and the ends of his
 * pipes. What this process has opened itself is closed on exec, what it was given is not.
 */
static void close_inherited(void)
{
	DIR *own = opendir("/proc/self/fd");
	struct dirent *entry;

	while (own && (entry = readdir(own)) != NULL) {
		const int fd = atoi(entry->d_name);

		if (fd > STDERR_FILENO && fcntl(fd, F_GETFD) == 0)
			close(fd);
	}
	if (own)
		closedir(own);
}

int detach_fork(int *status, struct err *err)
{
	const pid_t parent = getpid();
	int fds[2], nothing;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return err_sys(err, errno, "a pipe to the supervisor");
	pid = fork();
	if (pid < 0) {
		int rc = err_sys(err, errno, "the supervisor: fork");

		close(fds[0]);
		close(fds[1]);
		return rc;
	}
	if (pid > 0) {
		close(fds[1]);
		*status = wait_for_child(fds[0]);
		close(fds[0]);
		return 0;
	}
	close(fds[0]);
	/* Ctrl-C before it is ready ends the one who waits, who has not said its name then. */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(CLI_EXIT_SANDBOX);
	setsid();
	close_inherited();
	nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int fd = 0; nothing >= 0 && fd < 3; fd++)
		dup2(nothing, fd);
	if (nothing > 2)
		close(nothing);
	/* Not one of the standard ones, as they were open before. */
	return fds[1];
}

static void say(int *fd, char what, const char *text)
{
	char line[ERR_TEXT_SIZE + 2];
	int n = snprintf(line, sizeof(line), "%c%s", what, text);

	if (*fd >= 0)
		(void)fd_write_all(*fd, line,
				   (size_t)n < sizeof(line) ? (size_t)n : sizeof(line) - 1);
	fd_close(fd);
}

void detach_ready(int *fd, const char *line)
{
	prctl(PR_SET_PDEATHSIG, 0);
	say(fd, READY, line);
}

void detach_failed(int *fd, const char *sentence)
{
	say(fd, FAILED, sentence);
}
