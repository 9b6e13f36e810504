/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "api-socket/http_connection.h"
#include "base/err.h"
#include "base/fd.h"

#define BACKLOG 128
/* Clients that are one too many and still read that they are; more just see the end. */
#define TURNED_AWAY_MAX 32

/* Those whose clients are gone, which the event loop has not come to yet. */
static void close_dead(struct http_server *server)
{
	struct http_connection *connection = LIST_FIRST(&server->connections);

	while (connection) {
		struct http_connection *next = LIST_NEXT(connection, others);

		if (http_connection_is_dead(connection))
			http_connection_close(connection);
		connection = next;
	}
}

/*
 * One a turn of the event loop: those that came before are served first, so that a client of many
 * short connections does not find its own earlier ones in the way.
 */
static void on_acceptable(evutil_socket_t listener, short events, void *opaque)
{
	struct http_server *server = opaque;
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)events;
	if (fd < 0)
		return;
	if (server->count >= HTTP_CONNECTIONS_MAX)
		close_dead(server);
	if (server->count >= HTTP_CONNECTIONS_MAX && server->turned_away >= TURNED_AWAY_MAX)
		fd_close(&fd);
	else
		http_connection_open(server, fd, server->count < HTTP_CONNECTIONS_MAX);
}

/* Removes a socket that nobody serves. 0, or -errno with err set if something else is there. */
static int clear_place(const char *path, const struct sockaddr_un *address, struct err *err)
{
	CLEANUP_FD int fd = -1;
	struct stat st;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : err_sys(err, errno, "API socket %s", path);
	if (!S_ISSOCK(st.st_mode))
		return err_set(err, EEXIST, "API socket %s: something else is there", path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_sys(err, errno, "API socket %s", path);
	if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 ||
	    errno != ECONNREFUSED)
		return err_set(err, EADDRINUSE, "API socket %s: in use by another process", path);
	if (unlink(path) < 0)
		return err_sys(err, errno, "API socket %s", path);
	return 0;
}

static int listen_at(struct http_server *server, const char *path, struct err *err)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	mode_t mask;
	int rc;

	if (strlen(path) >= sizeof(address.sun_path))
		return err_set(err, ENAMETOOLONG,
			       "API socket %s: a path of at most %zu bytes is "
			       "possible",
			       path, sizeof(address.sun_path) - 1);
	strcpy(address.sun_path, path);
	rc = clear_place(path, &address, err);
	if (rc < 0)
		return rc;
	server->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (server->fd < 0)
		return err_sys(err, errno, "API socket %s", path);
	mask = umask(0177);
	rc = bind(server->fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
	umask(mask);
	if (rc < 0)
		return err_sys(err, -rc, "API socket %s", path);
	server->path = strdup(path);
	if (!server->path || listen(server->fd, BACKLOG) < 0) {
		rc = err_sys(err, server->path ? errno : ENOMEM, "API socket %s", path);
		(void)unlink(path);
		return rc;
	}
	return 0;
}

int http_server_open(struct http_server **opened, struct event_base *base, const char *path,
		     size_t body_max, http_handler *handle, void *opaque, struct err *err)
{
	struct http_server *server = calloc(1, sizeof(*server));
	int rc;

	*opened = NULL;
	if (!server)
		return err_sys(err, ENOMEM, "API socket %s", path);
	server->base = base;
	server->fd = -1;
	server->body_max = body_max;
	server->handle = handle;
	server->opaque = opaque;
	LIST_INIT(&server->connections);
	rc = listen_at(server, path, err);
	if (rc == 0) {
		server->acceptable =
			event_new(base, server->fd, EV_READ | EV_PERSIST, on_acceptable, server);
		if (!server->acceptable || event_add(server->acceptable, NULL) < 0)
			rc = err_sys(err, ENOMEM, "API socket %s", path);
	}
	if (rc < 0) {
		http_server_close(server);
		return rc;
	}
	*opened = server;
	return 0;
}

void http_server_close(struct http_server *server)
{
	if (!server)
		return;
	while (!LIST_EMPTY(&server->connections))
		http_connection_close(LIST_FIRST(&server->connections));
	if (server->acceptable)
		event_free(server->acceptable);
	if (server->path)
		(void)unlink(server->path);
	fd_close(&server->fd);
	free(server->path);
	free(server);
}

void http_server_publish(struct http_server *server, enum http_stream stream, const char *data,
			 size_t len)
{
	struct http_connection *connection = LIST_FIRST(&server->connections);

	while (connection) {
		struct http_connection *next = LIST_NEXT(connection, others);

		if (connection->stream == stream)
			http_connection_publish(connection, data, len);
		connection = next;
	}
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void http_server_finish(struct http_server *server, int timeout_ms)
{
	const int64_t end = now_ms() + timeout_ms;
	struct http_connection *connection = LIST_FIRST(&server->connections);

	while (connection) {
		struct http_connection *next = LIST_NEXT(connection, others);

		while (http_connection_finish(connection)) {
			struct pollfd writable = { .fd = connection->fd, .events = POLLOUT };
			int64_t left = end - now_ms();

			if (left <= 0 || poll(&writable, 1, (int)left) == 0)
				break;
		}
		connection = next;
	}
}

bool http_server_has_reader(const struct http_server *server, enum http_stream stream)
{
	const struct http_connection *connection;

	LIST_FOREACH(connection, &server->connections, others)
	{
		if (connection->stream == stream)
			return true;
	}
	return false;
}
