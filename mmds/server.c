/* SPDX-License-Identifier: Apache-2.0 */
#include "mmds/server.h"

#include <errno.h>
#include <event2/event_struct.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "base/err.h"
#include "base/fd.h"
#include "mmds/answer.h"
#include "mmds/internal.h"
#include "virtio/vsock/host.h"

/* Where a descriptor is missing, or memory, it is tried again. */
static const struct timeval retry = { .tv_sec = 1 };
static const struct timeval idle = { .tv_sec = SERVER_IDLE_S };

struct client {
	struct server *server;
	int fd;		    /* owned; -1: the place is free */
	struct event event; /* pending unless it is free */
	bool ends;	    /* the last answer is sent; what still comes is dropped */
	struct answer answer;
	size_t sent; /* of the answer */
	size_t in_size;
	char in[SERVER_REQUEST_MAX];
};

struct server {
	struct mmds *mmds; /* not owned, as base */
	struct event_base *base;
	struct vsock_listener listener;
	struct event *accept_event;
	struct event *retry_event;
	struct client clients[SERVER_CONNECTIONS];
};

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void close_client(struct client *client)
{
	if (client->fd < 0)
		return;
	event_del(&client->event);
	fd_close(&client->fd);
	answer_free(client->server->mmds, &client->answer);
	client->server->mmds->metrics.connections_destroyed++;
}

static size_t request_size(const struct client *client)
{
	return answer_request_size(client->in, client->in_size);
}

/* False if it is over: it has said all, and has its answers, or it will not get them. */
static bool receive(struct client *client)
{
	ssize_t n = recv(client->fd, client->in + client->in_size,
			 sizeof(client->in) - client->in_size, MSG_DONTWAIT);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	/* After the last answer it is dropped: a close with it unread would break that off. */
	if (!client->ends)
		client->in_size += (size_t)n;
	return n > 0;
}

static bool make_answer(struct client *client)
{
	struct mmds *mmds = client->server->mmds;
	const size_t size = request_size(client);

	if (size == 0 && client->in_size == sizeof(client->in))
		mmds->metrics.rx_accepted_err++;
	if (size == 0)
		return client->in_size < sizeof(client->in);
	client->sent = 0;
	if (answer_make(mmds, client->in, size, now_ns(), &client->answer) < 0)
		return false;
	client->in_size -= size;
	memmove(client->in, client->in + size, client->in_size);
	return true;
}

static bool send_answer(struct client *client)
{
	struct answer *answer = &client->answer;
	ssize_t n = send(client->fd, answer->text + client->sent, answer->size - client->sent,
			 MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	client->sent += (size_t)n;
	client->server->mmds->metrics.tx_bytes += (uint64_t)n;
	if (client->sent < answer->size)
		return true;
	client->ends = answer->close;
	answer_free(client->server->mmds, answer);
	return !client->ends || shutdown(client->fd, SHUT_WR) == 0;
}

static void on_client(evutil_socket_t fd, short events, void *opaque);

/* It is heard when it has its answer, and of its requests one is answered a turn. */
static bool wait_for(struct client *client)
{
	const bool writes = client->answer.text || (!client->ends && request_size(client) > 0);

	return event_assign(&client->event, client->server->base, client->fd,
			    writes ? EV_WRITE : EV_READ, on_client, client) == 0 &&
	       event_add(&client->event, &idle) == 0;
}

static void on_client(evutil_socket_t fd, short events, void *opaque)
{
	struct client *client = opaque;
	bool goes_on = !(events & EV_TIMEOUT);

	(void)fd;
	if (goes_on && events & EV_READ)
		goes_on = receive(client);
	if (goes_on && !client->answer.text && !client->ends)
		goes_on = make_answer(client);
	if (goes_on && client->answer.text)
		goes_on = send_answer(client);
	if (goes_on && wait_for(client))
		return;
	close_client(client);
	/* There is room again. */
	event_add(client->server->accept_event, NULL);
}

static struct client *find_place(struct server *server)
{
	for (unsigned int i = 0; i < SERVER_CONNECTIONS; i++) {
		if (server->clients[i].fd < 0)
			return &server->clients[i];
	}
	return NULL;
}

static void on_acceptable(evutil_socket_t fd, short events, void *opaque)
{
	struct server *server = opaque;
	struct client *client = find_place(server);

	(void)events;
	if (!client) {
		event_del(server->accept_event);
		return;
	}
	client->fd = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (client->fd < 0) {
		/* It stays in the backlog, for which the event would come again at once. */
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED &&
		    event_add(server->retry_event, &retry) == 0)
			event_del(server->accept_event);
		return;
	}
	client->ends = false;
	client->in_size = 0;
	server->mmds->metrics.connections_created++;
	if (!wait_for(client))
		close_client(client);
}

static void on_retry(evutil_socket_t fd, short events, void *opaque)
{
	struct server *server = opaque;

	(void)fd;
	(void)events;
	event_add(server->accept_event, NULL);
}

int server_open(struct server **opened, struct mmds *mmds, const char *path,
		struct event_base *base, struct err *err)
{
	struct server *server = calloc(1, sizeof(*server));
	int rc;

	*opened = NULL;
	if (!server)
		return err_sys(err, ENOMEM, "metadata");
	server->mmds = mmds;
	server->base = base;
	for (unsigned int i = 0; i < SERVER_CONNECTIONS; i++)
		server->clients[i] = (struct client){ .server = server, .fd = -1 };
	rc = vsock_listener_open(&server->listener, path, NULL, err);
	if (rc == 0) {
		server->accept_event = event_new(base, server->listener.fd, EV_READ | EV_PERSIST,
						 on_acceptable, server);
		server->retry_event = evtimer_new(base, on_retry, server);
		if (!server->accept_event || !server->retry_event ||
		    event_add(server->accept_event, NULL) < 0)
			rc = err_sys(err, ENOMEM, "metadata: events");
	}
	if (rc < 0) {
		server_close(server);
		return rc;
	}
	*opened = server;
	return 0;
}

void server_close(struct server *server)
{
	if (!server)
		return;
	for (unsigned int i = 0; i < SERVER_CONNECTIONS; i++)
		close_client(&server->clients[i]);
	if (server->accept_event)
		event_free(server->accept_event);
	if (server->retry_event)
		event_free(server->retry_event);
	vsock_listener_close(&server->listener);
	free(server);
}
