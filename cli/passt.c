/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/passt.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "cli/cli.h"

#define END_TIMEOUT_MS 2000

/* It speaks when all is well, too: what it says is kept for the sentence about its failure. */
static _Noreturn void exec_passt(int fd, int said_fd)
{
	char number[16];
	char *const argv[] = {
		(char[]){ "passt" },
		(char[]){ "--foreground" },
		(char[]){ "--stderr" },
		(char[]){ "--quiet" },
		(char[]){ "--ipv4-only" },
		(char[]){ "--no-map-gw" },
		(char[]){ "--address" },
		(char[]){ PASST_GUEST },
		(char[]){ "--netmask" },
		(char[]){ PASST_PREFIX },
		(char[]){ "--gateway" },
		(char[]){ PASST_GATEWAY },
		(char[]){ "--dns-forward" },
		(char[]){ PASST_DNS },
		(char[]){ "--fd" },
		number,
		NULL,
	};
	int own = dup(fd); /* without close-on-exec */
	sigset_t none;

	snprintf(number, sizeof(number), "%d", own);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setpgid(0, 0);
	dup2(said_fd, STDERR_FILENO);
	execvp(argv[0], argv);
	dprintf(STDERR_FILENO, "%s; it is in the Debian package passt\n", strerrordesc_np(errno));
	_exit(CLI_EXIT_SANDBOX);
}

int passt_start(struct passt *passt, struct err *err)
{
	CLEANUP_FD int ours = -1, theirs = -1, said = memfd_create("passt", MFD_CLOEXEC);
	int pair[2];
	pid_t pid;

	memset(passt, 0, sizeof(*passt));
	if (said < 0)
		return err_sys(err, errno, "passt: memfd_create");
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return err_sys(err, errno, "a socket to passt");
	ours = pair[0];
	theirs = pair[1];
	pid = fork();
	if (pid < 0)
		return err_sys(err, errno, "passt: fork");
	if (pid == 0)
		exec_passt(theirs, said);
	passt->pid = pid;
	passt->pid_fd = (int)syscall(SYS_pidfd_open, pid, 0);
	passt->socket_fd = fd_take(&ours);
	passt->said_fd = fd_take(&said);
	if (passt->pid_fd < 0) {
		int rc = err_sys(err, errno, "passt: pidfd_open");

		passt_close(passt);
		return rc;
	}
	return 0;
}

void passt_last_words(const struct passt *passt, char *text, size_t size)
{
	ssize_t n = pread(passt->said_fd, text, size - 1, 0);
	char *line;

	while (n > 0 && text[n - 1] == '\n')
		n--;
	text[n > 0 ? n : 0] = '\0';
	line = strrchr(text, '\n');
	if (line)
		memmove(text, line + 1, strlen(line));
}

void passt_close_socket(struct passt *passt)
{
	if (passt->pid > 0)
		fd_close(&passt->socket_fd);
}

void passt_close(struct passt *passt)
{
	struct pollfd ended = { .fd = passt->pid_fd, .events = POLLIN };

	if (passt->pid == 0)
		return;
	/* It ends by itself with its last connection. */
	fd_close(&passt->socket_fd);
	if (passt->pid_fd < 0 || poll(&ended, 1, END_TIMEOUT_MS) <= 0)
		kill(passt->pid, SIGKILL);
	while (waitpid(passt->pid, NULL, 0) < 0 && errno == EINTR)
		;
	fd_close(&passt->pid_fd);
	fd_close(&passt->said_fd);
	memset(passt, 0, sizeof(*passt));
}
