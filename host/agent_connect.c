/* SPDX-License-Identifier: Apache-2.0 */
#include "host/agent_connect.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/unix_socket.h"
#include "host/agent_client.h"

/* Nearly every answer is there by then. */
#define SILENCE_MS 200

static int fault(struct err *err, int rc, const char *path)
{
	if (rc == -EINVAL && !*path)
		return err_set(err, EINVAL, "vsock socket: it has no path");
	if (rc == -ENAMETOOLONG)
		return err_set(err, ENAMETOOLONG, "vsock socket %s: the path is too long", path);
	return err_sys(err, -rc, "vsock socket %s", path);
}

/* "OK NUMBER\n" byte by byte, as what follows belongs to the stream. */
static int read_answer(int fd, const char *path, agent_silence *silence, const void *opaque,
		       struct err *err)
{
	const int64_t begin_ms = clock_ms();
	char line[32];
	size_t used = 0;

	while (used < sizeof(line)) {
		const int64_t limit_ms = silence ? SILENCE_MS : ANSWER_TIMEOUT_MS;
		const int64_t left_ms = begin_ms + limit_ms - clock_ms();
		struct pollfd readable = { .fd = fd, .events = POLLIN };
		ssize_t n;

		if (poll(&readable, 1, left_ms > 0 ? (int)left_ms : 0) == 0) {
			int rc = silence ? silence(opaque, err)
					 : err_set(err, ETIMEDOUT,
						   "%s: the guest's agent does not answer", path);

			if (rc < 0)
				return rc;
			silence = NULL;
			continue;
		}
		n = read(fd, line + used, 1);
		if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN))
			return err_set(err, ECONNREFUSED,
				       "%s: no agent in the guest takes the connection", path);
		if (n > 0 && line[used++] == '\n')
			return strncmp(line, "OK ", 3) == 0
				       ? 0
				       : err_set(err, EPROTO, "%s: this is no vsock socket", path);
	}
	return err_set(err, EPROTO, "%s: this is no vsock socket", path);
}

int agent_connect(const char *path, agent_silence *silence, const void *opaque, struct err *err)
{
	const struct timeval limit = { .tv_sec = ANSWER_TIMEOUT_MS / 1000 };
	CLEANUP_FD int fd = unix_socket_open(0);
	char command[32];
	int n, rc = fd;

	/* A VMM that takes no connections does not keep us. */
	if (rc >= 0)
		rc = setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) < 0
			     ? -errno
			     : unix_socket_connect(fd, path);
	if (rc < 0)
		return fault(err, rc, path);
	n = snprintf(command, sizeof(command), "CONNECT %d\n", PROTOCOL_PORT);
	if (send(fd, command, (size_t)n, MSG_NOSIGNAL) != n)
		return err_sys(err, errno, "vsock socket %s", path);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	rc = read_answer(fd, path, silence, opaque, err);
	return rc < 0 ? rc : fd_take(&fd);
}

int agent_listen(const char *path, struct err *err)
{
	CLEANUP_FD int fd = unix_socket_open(SOCK_NONBLOCK);
	char name[PATH_MAX];
	int rc = fd;

	if (!*path)
		return fault(err, -EINVAL, path);
	if (snprintf(name, sizeof(name), "%s_%d", path, PROTOCOL_PORT) >= (int)sizeof(name))
		return fault(err, -ENAMETOOLONG, path);
	if (rc >= 0)
		rc = unix_socket_bind(fd, name);
	if (rc == 0 && listen(fd, 1) < 0)
		rc = -errno;
	return rc < 0 ? fault(err, rc, name) : fd_take(&fd);
}

int agent_accept(int listener, struct err *err)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	return fd < 0 ? err_sys(err, errno, "the agent's connection") : fd;
}

int agent_shut_down(const char *path, int grace_ms, struct err *err)
{
	CLEANUP_FD int fd = agent_connect(path, NULL, NULL, err);
	uint8_t frame[PROTOCOL_HEADER_SIZE + 64];
	char *text = (char *)frame + PROTOCOL_HEADER_SIZE;
	int n;

	if (fd < 0)
		return fd;
	n = snprintf(text, sizeof(frame) - PROTOCOL_HEADER_SIZE, "{\"shutdown\":{\"grace_ms\":%d}}",
		     grace_ms);
	agent_frame_header(frame, PROTOCOL_REQUEST, (uint32_t)n);
	n += PROTOCOL_HEADER_SIZE;
	return send(fd, frame, (size_t)n, MSG_NOSIGNAL) == n
		       ? 0
		       : err_sys(err, errno, "vsock socket %s", path);
}
