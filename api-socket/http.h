/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An HTTP/1.1 server on a Unix stream socket, in the event loop: as much of RFC 9112 as an API
 * needs, parsed by http_parser. What clients can do is bounded: connections, sizes of header and
 * body, the time that a request and an answer may take, the bytes that wait for a slow reader.
 */
#ifndef MOTE_API_SOCKET_HTTP_H
#define MOTE_API_SOCKET_HTTP_H

#include <event2/event.h>
#include <http_parser.h>
#include <stdbool.h>
#include <stddef.h>

struct err;
struct http_server;

#define HTTP_CONNECTIONS_MAX 10
#define HTTP_PATH_SIZE 256   /* with the terminating zero */
#define HTTP_HEADER_MAX 8192 /* bytes of a request's line and fields */
#define HTTP_BODY_MAX 51200  /* bytes, by default */
#define HTTP_OUTPUT_MAX                                                                            \
	(2 << 20) /* bytes that wait for a stream's reader, who is then dropped                    \
		   */
/*
 * Seconds: between requests; from a request's first byte to its last, and for taking an answer; for
 * closing after a refusal.
 */
#define HTTP_IDLE_TIME 60
#define HTTP_REQUEST_TIME 10
#define HTTP_LINGER_TIME 1

struct http_request {
	enum http_method method;
	const char *path; /* without a query */
	const char *body; /* not terminated */
	size_t body_len;
	bool wants_text; /* the Accept field has text/plain before JSON, or without it */
};

/* An answer that never ends; what is published to it goes to each of its readers. */
enum http_stream { HTTP_STREAM_NONE, HTTP_STREAM_EVENTS, HTTP_STREAM_CONSOLE };

struct http_answer {
	unsigned int status;
	const char *content_type; /* of the body; constant */
	char *body;		  /* owned (malloc); NULL none */
	size_t body_len;
	enum http_stream stream; /* its beginning is the body */
	bool deprecated; /* a field for the client to see that the request was in an old way */
};

/* Answers a request, whose strings live as long as the call. */
typedef void http_handler(void *opaque, const struct http_request *request,
			  struct http_answer *answer);

/*
 * Listens at path, mode 0600. A socket that nobody serves any more is replaced; one that lives, or
 * what is no socket, is an error. 0 or -errno with err set.
 */
int http_server_open(struct http_server **server, struct event_base *base, const char *path,
		     size_t body_max, http_handler *handle, void *opaque, struct err *err);
/* Ends all streams, closes all connections and removes the socket. NULL is fine. */
void http_server_close(struct http_server *server);

/*
 * While a VM runs, clients must not keep the thread that serves its devices: what they make it do
 * is limited to HTTP_RATE_BURST steps (requests, connections, reads) and HTTP_RATE a second behind
 * that; the rest waits.
 */
#define HTTP_RATE_BURST 100
#define HTTP_RATE 200
void http_server_limit(struct http_server *server, bool limited);

/* To every reader of the stream. */
void http_server_publish(struct http_server *server, enum http_stream stream, const char *data,
			 size_t len);
/* Ends all streams, and waits at most timeout_ms for all output to be taken. */
void http_server_finish(struct http_server *server, int timeout_ms);
/* Whether the stream has a reader. */
bool http_server_has_reader(const struct http_server *server, enum http_stream stream);

#endif
