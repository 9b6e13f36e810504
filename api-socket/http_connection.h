/* SPDX-License-Identifier: Apache-2.0 */
/* One client of the HTTP server: its requests are answered one after the other. */
#ifndef MOTE_API_SOCKET_HTTP_CONNECTION_H
#define MOTE_API_SOCKET_HTTP_CONNECTION_H

#include <event2/buffer.h>
#include <event2/event.h>
#include <http_parser.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/queue.h>

#include "api-socket/http.h"
#include "base/log.h"
#include "base/rate_limiter.h"

#define HTTP_INPUT_SIZE 16384
#define HTTP_FIELD_SIZE 256 /* of a header field that matters, with the terminating zero */

struct http_connection {
	TAILQ_ENTRY(http_connection) others;
	struct http_server *server; /* not owned */
	int fd;			    /* owned */
	struct event *readable;
	struct event *writable;
	struct event *deadline;
	struct evbuffer *out;

	http_parser parser;
	/* What was read and is not yet parsed. */
	char in[HTTP_INPUT_SIZE];
	size_t in_start;
	size_t in_end;

	/* The request that comes in. */
	bool in_request; /* its first byte is there */
	bool complete;
	unsigned int refused; /* the status that it is refused with */
	const char *reason;
	char url[HTTP_PATH_SIZE];
	size_t url_len;
	char name[HTTP_FIELD_SIZE]; /* the header field that is being read */
	size_t name_len;
	char value[HTTP_FIELD_SIZE];
	size_t value_len;
	bool in_value;
	bool wants_text;
	bool expects_continue;
	char *body; /* owned */
	size_t body_len;

	bool timed_request; /* what the deadline is for */
	bool answered;	    /* since it was set */
	enum http_stream stream;
	bool chunked;
	bool turned_away;
	bool closing; /* once its output is written */
	bool lingers; /* only waits for the client to close, or for the deadline */
	bool ended;   /* has no descriptor, no events and no place any more, and is to be freed */
};

TAILQ_HEAD(http_connections, http_connection);

/* What all connections of a server share. */
struct http_server {
	struct event_base *base; /* not owned */
	char *path;		 /* owned */
	int fd;			 /* owned */
	struct event *acceptable;
	size_t body_max;
	http_handler *handle;
	void *opaque;
	struct http_connections connections;
	unsigned int count; /* of connections that are served */
	bool limited;
	bool paused; /* until limiter_timer */
	struct rate_limiter limiter;
	struct event *limiter_timer;
	struct event *accept_timer; /* until descriptors may be there again */
	struct log_limit log_limit;
	struct event *sweep;	  /* the end of the turn, with something to free */
	unsigned int turned_away; /* of those that only linger with their 503 */
};

/* Whether one more step may be made now; if not, the server is paused. */
bool http_server_take(struct http_server *server);

/*
 * Takes fd, whatever comes of it. With `serve` false it is answered that it is one too many.
 *
 * A connection may end at any time: in each of the following functions, and, since whatever is
 * called may publish to others, in every handler and in every loop over the connections. So
 * http_connection_end() only marks it: it stays in the server's list, where all of the following do
 * nothing with it, and is freed by the server alone, at the end of the event loop's turn, when
 * nobody is on the way through the list.
 */
void http_connection_open(struct http_server *server, int fd, bool serve);
void http_connection_end(struct http_connection *connection);

/* The server's: frees one that has ended, and is in no list. */
void http_connection_free(struct http_connection *connection);
void http_server_sweep_later(struct http_server *server);

/* Whether it has ended, or the client has closed it and said nothing before that is unread. */
bool http_connection_is_dead(const struct http_connection *connection);

/* Reads nothing more; and goes on. */
void http_connection_pause(struct http_connection *connection);
void http_connection_resume(struct http_connection *connection);

/* For a reader of a stream. */
void http_connection_publish(struct http_connection *connection, const char *data, size_t len);

/* Ends a stream, and goes on with the output. False if nothing is left, and it has ended. */
bool http_connection_finish(struct http_connection *connection);

#endif
