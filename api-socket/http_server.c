/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api-socket/http_connection.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/event_priority.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/unix_socket.h"

#define BACKLOG 128
/* Clients that are one too many and still read that they are; more just see the end. */
#define TURNED_AWAY_MAX 32

/* Frees what has ended: the only place that takes a connection out of the list. */
static void sweep(struct http_server *server)
{
	struct http_connection *connection = TAILQ_FIRST(&server->connections);

	while (connection) {
		struct http_connection *next = TAILQ_NEXT(connection, others);

		if (connection->ended) {
			TAILQ_REMOVE(&server->connections, connection, others);
			http_connection_free(connection);
		}
		connection = next;
	}
}

static void on_sweep(evutil_socket_t fd, short events, void *opaque)
{
	(void)fd;
	(void)events;
	sweep(opaque);
}

void http_server_sweep_later(struct http_server *server)
{
	event_active(server->sweep, EV_TIMEOUT, 0);
}

/* Those whose clients are gone, which the event loop has not come to yet, give their places back.
 */
static void end_dead(struct http_server *server)
{
	struct http_connection *connection;

	TAILQ_FOREACH(connection, &server->connections, others)
	{
		if (http_connection_is_dead(connection))
			http_connection_end(connection);
	}
}

static void accept_no_more(struct http_server *server)
{
	(void)event_del(server->acceptable);
	(void)evtimer_del(server->accept_timer);
}

/*
 * The listener stays readable while there is no descriptor for its client, or no memory: looking
 * again at once would be a busy loop, and nothing tells when there is one again.
 */
static void accept_later(struct http_server *server, int errnum)
{
	static const struct timeval later = { .tv_usec = 100000 };

	log_limited_line(&server->log_limit, LOG_WARN, "API: a client has to wait: %s",
			 strerrordesc_np(errnum));
	if (evtimer_add(server->accept_timer, &later) == 0)
		(void)event_del(server->acceptable);
}

/*
 * One a turn of the event loop: those that came before are served first, so that a client of many
 * short connections does not find its own earlier ones in the way.
 */
static void on_acceptable(evutil_socket_t listener, short events, void *opaque)
{
	struct http_server *server = opaque;
	int fd;

	(void)events;
	if (!http_server_take(server))
		return;
	fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0) {
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
			accept_later(server, errno);
		return;
	}
	if (server->count >= HTTP_CONNECTIONS_MAX)
		end_dead(server);
	if (server->count >= HTTP_CONNECTIONS_MAX && server->turned_away >= TURNED_AWAY_MAX)
		fd_close(&fd);
	else
		http_connection_open(server, fd, server->count < HTTP_CONNECTIONS_MAX);
}

static void on_accept_timer(evutil_socket_t fd, short events, void *opaque)
{
	struct http_server *server = opaque;

	(void)fd;
	(void)events;
	if (!server->paused)
		(void)event_add(server->acceptable, NULL);
}

/* Another is the first each time, and one that connects has its turn, so that nobody starves. */
static void on_limiter(evutil_socket_t fd, short events, void *opaque)
{
	struct http_server *server = opaque;
	struct http_connection *connection = TAILQ_FIRST(&server->connections);

	(void)fd;
	(void)events;
	server->paused = false;
	(void)event_add(server->acceptable, NULL);
	if (connection) {
		TAILQ_REMOVE(&server->connections, connection, others);
		TAILQ_INSERT_TAIL(&server->connections, connection, others);
	}
	on_acceptable(server->fd, 0, server);
	TAILQ_FOREACH(connection, &server->connections, others)
	{
		if (server->paused)
			break;
		http_connection_resume(connection);
	}
}

bool http_server_take(struct http_server *server)
{
	static const struct timeval pause = { .tv_usec = 20000 };
	struct http_connection *connection;

	if (server->paused)
		return false;
	if (!server->limited || rate_limiter_take(&server->limiter, 0, clock_ns()) == 0 ||
	    evtimer_add(server->limiter_timer, &pause) < 0)
		return true;
	server->paused = true;
	accept_no_more(server);
	TAILQ_FOREACH(connection, &server->connections, others)
	http_connection_pause(connection);
	return false;
}

void http_server_limit(struct http_server *server, bool limited)
{
	static const struct timeval now = { 0 };

	server->limited = limited;
	/* In a turn of its own: the caller may be on the way through the connections. */
	if (server->paused && !limited)
		(void)evtimer_add(server->limiter_timer, &now);
}

/* Removes a socket that nobody serves. 0, or -errno with err set if something else is there. */
static int clear_place(const char *path, struct err *err)
{
	int rc = unix_socket_remove_stale(path);

	if (rc == -ENOTSOCK)
		return err_set(err, EEXIST, "API socket %s: something else is there", path);
	if (rc == -EADDRINUSE)
		return err_set(err, EADDRINUSE, "API socket %s: in use by another process", path);
	return rc < 0 ? err_sys(err, -rc, "API socket %s", path) : 0;
}

/*
 * A name beside the socket's, for the moment until it listens. Nobody is to meet a socket that
 * refuses: who waits for the file connects as soon as it is there. The socket's own name where
 * there is no room for more.
 */
static void name_beside(char beside[UNIX_SOCKET_PATH_SIZE], const char *path)
{
	const char *slash = strrchr(path, '/');
	const size_t folder = slash ? (size_t)(slash + 1 - path) : 0;
	uint32_t number = 0;

	snprintf(beside, UNIX_SOCKET_PATH_SIZE, "%s", path);
	if (folder + sizeof(".12345678") > UNIX_SOCKET_PATH_SIZE ||
	    getrandom(&number, sizeof(number), GRND_NONBLOCK) != sizeof(number))
		return;
	snprintf(beside + folder, UNIX_SOCKET_PATH_SIZE - folder, ".%08x", number);
}

/* 0 or -errno; then there is no file of it. */
static int bind_and_listen(int fd, const char *path)
{
	char beside[UNIX_SOCKET_PATH_SIZE];
	bool moved;
	mode_t mask;
	int rc;

	name_beside(beside, path);
	moved = strcmp(beside, path) != 0;
	mask = umask(0177);
	rc = unix_socket_bind(fd, beside);
	umask(mask);
	if (rc < 0)
		return rc;
	if (listen(fd, BACKLOG) < 0 || (moved && link(beside, path) < 0))
		rc = -errno;
	if (moved || rc < 0)
		(void)unlink(beside);
	return rc;
}

static int listen_at(struct http_server *server, const char *path, struct err *err)
{
	int rc;

	if (strlen(path) >= UNIX_SOCKET_PATH_SIZE)
		return err_set(err, ENAMETOOLONG,
			       "API socket %s: a path of at most %zu bytes is "
			       "possible",
			       path, UNIX_SOCKET_PATH_SIZE - 1);
	rc = clear_place(path, err);
	if (rc < 0)
		return rc;
	server->fd = unix_socket_open(SOCK_NONBLOCK);
	if (server->fd < 0)
		return err_sys(err, -server->fd, "API socket %s", path);
	server->path = strdup(path);
	if (!server->path)
		return err_sys(err, ENOMEM, "API socket %s", path);
	rc = bind_and_listen(server->fd, path);
	if (rc < 0) {
		/* What is there now is another's. */
		free(server->path);
		server->path = NULL;
		return err_sys(err, -rc, "API socket %s", path);
	}
	return 0;
}

int http_server_open(struct http_server **opened, struct event_base *base, const char *path,
		     size_t body_max, http_handler *handle, void *opaque, struct err *err)
{
	static const struct rate_limiter_config limits = {
		.ops = { .size = HTTP_RATE_BURST,
			 .refill_time = HTTP_RATE_BURST * INT64_C(1000) / HTTP_RATE },
	};
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
	rate_limiter_init(&server->limiter, &limits, clock_ns());
	TAILQ_INIT(&server->connections);
	rc = listen_at(server, path, err);
	if (rc == 0) {
		server->acceptable =
			event_new(base, server->fd, EV_READ | EV_PERSIST, on_acceptable, server);
		server->limiter_timer = evtimer_new(base, on_limiter, server);
		server->accept_timer = evtimer_new(base, on_accept_timer, server);
		server->sweep = evtimer_new(base, on_sweep, server);
		if (!server->acceptable || !server->limiter_timer || !server->accept_timer ||
		    !server->sweep ||
		    event_priority_set(server->acceptable, EVENT_PRIORITY_FIRST) < 0 ||
		    event_priority_set(server->limiter_timer, EVENT_PRIORITY_FIRST) < 0 ||
		    event_priority_set(server->sweep, EVENT_PRIORITY_FIRST) < 0 ||
		    event_add(server->acceptable, NULL) < 0)
			rc = err_sys(err, ENOMEM, "API socket %s", path);
	}
	if (rc < 0) {
		http_server_close(server);
		return rc;
	}
	*opened = server;
	return 0;
}

static void free_event(struct event *event)
{
	if (event)
		event_free(event);
}

void http_server_close(struct http_server *server)
{
	struct http_connection *connection;

	if (!server)
		return;
	http_server_finish(server, 0);
	TAILQ_FOREACH(connection, &server->connections, others)
	http_connection_end(connection);
	sweep(server);
	free_event(server->acceptable);
	free_event(server->limiter_timer);
	free_event(server->accept_timer);
	free_event(server->sweep);
	if (server->path)
		(void)unlink(server->path);
	fd_close(&server->fd);
	free(server->path);
	free(server);
}

void http_server_publish(struct http_server *server, enum http_stream stream, const char *data,
			 size_t len)
{
	struct http_connection *connection;

	TAILQ_FOREACH(connection, &server->connections, others)
	{
		if (connection->stream == stream)
			http_connection_publish(connection, data, len);
	}
}

void http_server_finish(struct http_server *server, int timeout_ms)
{
	const int64_t end = clock_ns() + timeout_ms * INT64_C(1000000);
	struct http_connection *connection;

	TAILQ_FOREACH(connection, &server->connections, others)
	{
		while (http_connection_finish(connection)) {
			struct pollfd writable = { .fd = connection->fd, .events = POLLOUT };
			int64_t left = (end - clock_ns()) / 1000000;

			if (left <= 0 || poll(&writable, 1, (int)left) == 0)
				break;
		}
	}
}

bool http_server_has_reader(const struct http_server *server, enum http_stream stream)
{
	const struct http_connection *connection;

	TAILQ_FOREACH(connection, &server->connections, others)
	{
		if (connection->stream == stream)
			return true;
	}
	return false;
}
