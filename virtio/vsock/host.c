/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/vsock/host.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/unix_socket.h"

#define PORT_SUFFIX_MAX (sizeof("_4294967295") - 1)
#define SOCKET_MODE 0600

/* Removes a socket that nobody listens on. */
static int remove_stale(const char *path, struct err *err)
{
	int rc = unix_socket_remove_stale(path);

	if (rc == -ENOTSOCK)
		return err_set(err, EEXIST, "vsock socket %s: exists and is not a socket", path);
	if (rc == -EADDRINUSE)
		return err_set(err, EADDRINUSE, "vsock socket %s: another program listens on it",
			       path);
	return rc < 0 ? err_sys(err, -rc, "vsock socket %s: it exists and cannot be replaced", path)
		      : 0;
}

/* The mode given to the descriptor is the file's, less the umask: never open to more than ours. */
static int create(int fd, const char *path, struct stat *st, struct err *err)
{
	int rc;

	if (fchmod(fd, SOCKET_MODE) < 0)
		return err_sys(err, errno, "vsock socket %s: mode", path);
	rc = unix_socket_bind(fd, path);
	if (rc == -EADDRINUSE) {
		rc = remove_stale(path, err);
		if (rc < 0)
			return rc;
		rc = unix_socket_bind(fd, path);
	}
	if (rc < 0)
		return err_sys(err, -rc, "vsock socket %s", path);
	if (lstat(path, st) < 0)
		return err_sys(err, errno, "vsock socket %s", path);
	if (((st->st_mode & ALLPERMS) != SOCKET_MODE && chmod(path, SOCKET_MODE) < 0) ||
	    listen(fd, SOMAXCONN) < 0) {
		rc = err_sys(err, errno, "vsock socket %s", path);
		unlink(path);
	}
	return rc;
}

/* Whether its socket is still where it was created. */
static bool is_there(const struct vsock_listener *listener)
{
	struct stat st;

	return listener->path && lstat(listener->path, &st) == 0 && st.st_dev == listener->device &&
	       st.st_ino == listener->inode;
}

int vsock_listener_open(struct vsock_listener *listener, const char *path,
			struct vsock_listener *replaces, struct err *err)
{
	struct stat st = { 0 };
	int rc;

	*listener = (struct vsock_listener){ .fd = -1 };
	if (path[0] == '\0')
		return err_set(err, EINVAL, "vsock socket: its path is empty");
	if (strlen(path) + PORT_SUFFIX_MAX >= UNIX_SOCKET_PATH_SIZE)
		return err_set(err, ENAMETOOLONG,
			       "vsock socket %s: the path is longer than %zu bytes", path,
			       UNIX_SOCKET_PATH_SIZE - PORT_SUFFIX_MAX - 1);

	if (replaces && is_there(replaces) && strcmp(replaces->path, path) == 0) {
		*listener = *replaces;
		*replaces = (struct vsock_listener){ .fd = -1 };
		return 0;
	}

	CLEANUP_FD int fd = unix_socket_open(SOCK_NONBLOCK);

	if (fd < 0)
		return err_sys(err, -fd, "vsock socket %s", path);
	listener->path = strdup(path);
	if (!listener->path)
		return err_sys(err, ENOMEM, "vsock socket %s", path);
	rc = create(fd, path, &st, err);
	if (rc < 0) {
		free(listener->path);
		listener->path = NULL;
		return rc;
	}
	listener->device = st.st_dev;
	listener->inode = st.st_ino;
	listener->fd = fd_take(&fd);
	return 0;
}

void vsock_listener_close(struct vsock_listener *listener)
{
	if (!listener->path)
		return;
	if (is_there(listener))
		unlink(listener->path);
	fd_close(&listener->fd);
	free(listener->path);
	listener->path = NULL;
}

int vsock_host_connect(const char *path)
{
	CLEANUP_FD int fd = unix_socket_open(SOCK_NONBLOCK);
	int rc;

	if (fd < 0)
		return fd;
	rc = unix_socket_connect(fd, path);
	return rc < 0 ? rc : fd_take(&fd);
}

int vsock_host_dial(const char *path, uint32_t port)
{
	char name[UNIX_SOCKET_PATH_SIZE];

	snprintf(name, sizeof(name), "%s_%" PRIu32, path, port);
	return vsock_host_connect(name);
}

/* A number of 32 bits in the `size` characters before the line's end; blanks may follow. */
static bool parse_port(const char *text, size_t size, uint32_t *port)
{
	uint64_t value = 0;
	size_t digits = 0;

	for (; digits < size && text[digits] >= '0' && text[digits] <= '9'; digits++) {
		value = value * 10 + (uint64_t)(text[digits] - '0');
		if (value > UINT32_MAX)
			return false;
	}
	for (size_t i = digits; i < size; i++) {
		if (text[i] != ' ' && text[i] != '\r')
			return false;
	}
	*port = (uint32_t)value;
	return digits > 0;
}

static int parse_command(const struct vsock_command *command, uint32_t *port)
{
	static const char word[] = "CONNECT ";
	const size_t word_size = sizeof(word) - 1;
	size_t size = command->used - 1u; /* without the newline */

	if (size <= word_size || strncasecmp(command->line, word, word_size) != 0 ||
	    !parse_port(command->line + word_size, size - word_size, port))
		return -EINVAL;
	return 1;
}

int vsock_command_read(struct vsock_command *command, int fd, uint32_t *port)
{
	while (command->used < sizeof(command->line)) {
		char *at = command->line + command->used;
		const char *newline;
		size_t size;
		ssize_t n = recv(fd, at, sizeof(command->line) - command->used,
				 MSG_PEEK | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		if (n == 0)
			return -ECONNRESET;
		newline = memchr(at, '\n', (size_t)n);
		size = newline ? (size_t)(newline + 1 - at) : (size_t)n;
		if (recv(fd, at, size, MSG_DONTWAIT) != (ssize_t)size)
			return -EIO;
		command->used = (uint8_t)(command->used + size);
		if (newline)
			return parse_command(command, port);
	}
	return -EMSGSIZE;
}

int vsock_command_answer(int fd, uint32_t host_port)
{
	char line[sizeof("OK 4294967295\n")];
	int size = snprintf(line, sizeof(line), "OK %" PRIu32 "\n", host_port);

	/* Nothing was written before, so that there is room for all of it. */
	return send(fd, line, (size_t)size, MSG_DONTWAIT | MSG_NOSIGNAL) == size ? 0 : -EPIPE;
}
