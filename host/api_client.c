/* SPDX-License-Identifier: Apache-2.0 */
#include "host/api_client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/unix_socket.h"

_Static_assert(sizeof(((struct api_client *)0)->path) == UNIX_SOCKET_PATH_SIZE, "a path that fits");

/* A request on its way, and its answer. */
struct exchange {
	struct api_client *client;
	char *out; /* owned */
	size_t out_len;
	size_t out_at;
	struct api_reader reader;
	int64_t deadline_ns;
};

static int connect_socket(struct api_client *client, struct err *err)
{
	struct timeval limit = { .tv_sec = client->timeout_ms / 1000,
				 .tv_usec = client->timeout_ms % 1000 * 1000 };
	CLEANUP_FD int fd = unix_socket_open(0);
	int rc = fd;

	/* A server that does not take its connections would be waited for without end. */
	if (rc >= 0)
		rc = setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) < 0
			     ? -errno
			     : unix_socket_connect(fd, client->path);
	if (rc < 0)
		return err_sys(err, -rc, "API socket %s%s", client->path,
			       rc == -ENOENT || rc == -ECONNREFUSED ? ": nobody serves it" : "");
	if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
		return err_sys(err, errno, "API socket %s", client->path);
	client->fd = fd_take(&fd);
	client->used = false;
	return 0;
}

int api_client_open(struct api_client *client, const char *path, struct err *err)
{
	*client = (struct api_client){ .fd = -1, .timeout_ms = API_CLIENT_TIMEOUT_MS };
	if (!*path || strlen(path) >= sizeof(client->path))
		return err_set(err, ENAMETOOLONG,
			       "API socket %s: a path of 1 to %zu bytes is possible", path,
			       sizeof(client->path) - 1);
	memcpy(client->path, path, strlen(path) + 1);
	return connect_socket(client, err);
}

void api_client_close(struct api_client *client)
{
	fd_close(&client->fd);
}

/*
 * The server closes what is idle for long. What it says on a new connection before it is asked is
 * an answer, though: that there are too many.
 */
static int connect_again(struct api_client *client, struct err *err)
{
	char byte;

	if (client->fd >= 0 && client->used &&
	    (recv(client->fd, &byte, 1, MSG_PEEK) >= 0 || errno != EAGAIN))
		fd_close(&client->fd);
	return client->fd >= 0 ? 0 : connect_socket(client, err);
}

/* Nothing in these may end the request's line. */
static bool is_word(const char *text)
{
	if (!*text)
		return false;
	for (; *text; text++) {
		if ((unsigned char)*text <= ' ' || *text == 0x7f)
			return false;
	}
	return true;
}

static int write_request(struct exchange *exchange, const char *method, const char *path,
			 const char *body, size_t body_len, struct err *err)
{
	char *head;
	int n;

	if (!is_word(method) || !is_word(path) || *path != '/')
		return err_set(err, EINVAL,
			       "%s: a path that begins with / and has no spaces is expected", path);
	n = asprintf(&head,
		     "%s %s HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n"
		     "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
		     method, path, body ? body_len : 0);
	if (n < 0)
		return err_sys(err, ENOMEM, "the request");
	if (body) {
		char *whole = realloc(head, (size_t)n + body_len);

		if (!whole) {
			free(head);
			return err_sys(err, ENOMEM, "the request");
		}
		memcpy(whole + n, body, body_len);
		head = whole;
	}
	exchange->out = head;
	exchange->out_len = (size_t)n + (body ? body_len : 0);
	return 0;
}

/* -EAGAIN if nothing can be sent; a server that takes no more may still have an answer. */
static int send_some(struct exchange *exchange, bool *refused)
{
	ssize_t n = send(exchange->client->fd, exchange->out + exchange->out_at,
			 exchange->out_len - exchange->out_at, MSG_NOSIGNAL);

	if (n >= 0)
		exchange->out_at += (size_t)n;
	else if (errno == EPIPE || errno == ECONNRESET)
		*refused = true;
	else if (errno != EAGAIN && errno != EINTR)
		return -errno;
	return 0;
}

/* 1 when the answer is complete, 0 to go on, -errno with err set. */
static int receive_some(struct exchange *exchange, struct err *err)
{
	char data[16384];
	ssize_t n = recv(exchange->client->fd, data, sizeof(data), 0);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n < 0 && errno != ECONNRESET)
		return err_sys(err, errno, "reading its answer");
	return n <= 0 ? api_reader_end(&exchange->reader, err)
		      : api_reader_feed(&exchange->reader, data, (size_t)n, err);
}

static int wait_for(struct exchange *exchange, short events, short *ready, struct err *err)
{
	struct pollfd pollfd = { .fd = exchange->client->fd, .events = events };
	int64_t left_ms = (exchange->deadline_ns - clock_ns() + 999999) / 1000000;
	int n;

	/* A stream has begun and lasts as long as it lasts. */
	if (exchange->reader.answer->streamed)
		left_ms = -1;
	else if (left_ms <= 0)
		left_ms = 0;
	n = poll(&pollfd, 1, (int)left_ms);
	if (n < 0 && errno != EINTR)
		return err_sys(err, errno, "waiting for its answer");
	if (n == 0)
		return err_set(err, ETIMEDOUT, "no answer within %.3g s",
			       exchange->client->timeout_ms / 1000.0);
	*ready = n > 0 ? pollfd.revents : 0;
	return 0;
}

static int run_exchange(struct exchange *exchange, struct err *err)
{
	bool refused = false;
	int rc = 0;

	while (rc == 0) {
		bool sends = !refused && exchange->out_at < exchange->out_len;
		short ready = 0;

		rc = wait_for(exchange, (short)(POLLIN | (sends ? POLLOUT : 0)), &ready, err);
		if (rc == 0 && sends && ready & POLLOUT) {
			rc = send_some(exchange, &refused);
			if (rc < 0)
				rc = err_sys(err, -rc, "sending the request");
		}
		if (rc == 0 && ready & (POLLIN | POLLHUP | POLLERR))
			rc = receive_some(exchange, err);
	}
	return rc < 0 ? rc : 0;
}

int api_client_request(struct api_client *client, const char *method, const char *path,
		       const char *body, size_t body_len, struct api_answer *answer, api_sink *sink,
		       void *opaque, struct err *err)
{
	struct exchange exchange = { .client = client };
	struct err cause;
	int rc;

	api_reader_start(&exchange.reader, answer, sink, opaque);
	rc = write_request(&exchange, method, path, body, body_len, err);
	if (rc < 0)
		return rc;
	rc = connect_again(client, err);
	if (rc == 0) {
		client->used = true;
		exchange.deadline_ns = clock_ns() + client->timeout_ms * INT64_C(1000000);
		rc = run_exchange(&exchange, &cause);
		if (rc < 0)
			rc = err_set(err, -rc, "API socket %s: %s", client->path, cause.text);
		if (rc < 0 || exchange.out_at < exchange.out_len ||
		    !api_reader_keeps_alive(&exchange.reader))
			fd_close(&client->fd);
	}
	free(exchange.out);
	return rc;
}
