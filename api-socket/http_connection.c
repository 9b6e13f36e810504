/* SPDX-License-Identifier: Apache-2.0 */
#include "api-socket/http_connection.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/event_priority.h"
#include "base/fd.h"

/* Output that waits for its reader while further requests are answered. */
#define OUTPUT_PAUSE (64 << 10)

static http_parser_settings settings;

static const char *status_text(unsigned int status)
{
	return http_status_str((enum http_status)status);
}

static void set_deadline(struct http_connection *connection, int seconds)
{
	const struct timeval after = { .tv_sec = seconds };

	if (seconds > 0)
		(void)evtimer_add(connection->deadline, &after);
	else
		(void)evtimer_del(connection->deadline);
}

static void forget_event(struct event **event)
{
	if (*event)
		event_free(*event);
	*event = NULL;
}

void http_connection_end(struct http_connection *connection)
{
	struct http_server *server = connection->server;

	if (connection->ended)
		return;
	connection->ended = true;
	connection->stream = HTTP_STREAM_NONE;
	if (connection->turned_away)
		server->turned_away--;
	else
		server->count--;
	forget_event(&connection->readable);
	forget_event(&connection->writable);
	forget_event(&connection->deadline);
	fd_close(&connection->fd);
	http_server_sweep_later(server);
}

void http_connection_free(struct http_connection *connection)
{
	if (connection->out)
		evbuffer_free(connection->out);
	free(connection->body);
	free(connection);
}

/* Refuses the request that comes in: nothing behind it can be understood. */
static int refuse(struct http_connection *connection, unsigned int status, const char *reason)
{
	connection->refused = status;
	connection->reason = reason;
	return -1;
}

static struct http_connection *connection_of(http_parser *parser)
{
	return parser->data;
}

static int on_message_begin(http_parser *parser)
{
	struct http_connection *connection = connection_of(parser);

	connection->in_request = true;
	connection->url_len = 0;
	connection->name_len = 0;
	connection->in_value = false;
	connection->wants_text = false;
	connection->expects_continue = false;
	connection->body_len = 0;
	return 0;
}

static int on_url(http_parser *parser, const char *at, size_t len)
{
	struct http_connection *connection = connection_of(parser);

	if (len >= sizeof(connection->url) - connection->url_len)
		return refuse(connection, HTTP_STATUS_URI_TOO_LONG, "the path is too long");
	memcpy(connection->url + connection->url_len, at, len);
	connection->url_len += len;
	return 0;
}

/* A field is longer than what matters: its end is left out, and it matters no more. */
static void append(char *field, size_t *used, const char *at, size_t len)
{
	if (len > HTTP_FIELD_SIZE - 1 - *used)
		len = HTTP_FIELD_SIZE - 1 - *used;
	memcpy(field + *used, at, len);
	*used += len;
}

static bool before(const char *a, const char *b)
{
	return a && (!b || a < b);
}

static void end_field(struct http_connection *connection)
{
	const char *name = connection->name;
	const char *value = connection->value;

	connection->name[connection->name_len] = '\0';
	connection->value[connection->value_len] = '\0';
	if (strcasecmp(name, "Accept") == 0)
		connection->wants_text =
			before(strcasestr(value, "text/plain"), strcasestr(value, "json"));
	else if (strcasecmp(name, "Expect") == 0)
		connection->expects_continue = strcasecmp(value, "100-continue") == 0;
	connection->name_len = 0;
	connection->in_value = false;
}

static int on_header_field(http_parser *parser, const char *at, size_t len)
{
	struct http_connection *connection = connection_of(parser);

	if (connection->in_value)
		end_field(connection);
	append(connection->name, &connection->name_len, at, len);
	return 0;
}

static int on_header_value(http_parser *parser, const char *at, size_t len)
{
	struct http_connection *connection = connection_of(parser);

	if (!connection->in_value)
		connection->value_len = 0;
	connection->in_value = true;
	append(connection->value, &connection->value_len, at, len);
	return 0;
}

static int on_headers_complete(http_parser *parser)
{
	static const char continue_line[] = "HTTP/1.1 100 Continue\r\n\r\n";
	struct http_connection *connection = connection_of(parser);

	if (connection->in_value)
		end_field(connection);
	if (parser->http_major != 1)
		return refuse(connection, HTTP_STATUS_HTTP_VERSION_NOT_SUPPORTED,
			      "only HTTP/1.1 and HTTP/1.0 are spoken");
	if (parser->flags & F_CONTENTLENGTH &&
	    parser->content_length > connection->server->body_max)
		return refuse(connection, HTTP_STATUS_BAD_REQUEST, "the body is too large");
	if (connection->expects_continue &&
	    evbuffer_add(connection->out, continue_line, sizeof(continue_line) - 1) < 0)
		return -1;
	return 0;
}

static int on_body(http_parser *parser, const char *at, size_t len)
{
	struct http_connection *connection = connection_of(parser);
	char *body;

	if (len > connection->server->body_max - connection->body_len)
		return refuse(connection, HTTP_STATUS_BAD_REQUEST, "the body is too large");
	body = realloc(connection->body, connection->body_len + len);
	if (!body)
		return -1;
	memcpy(body + connection->body_len, at, len);
	connection->body = body;
	connection->body_len += len;
	return 0;
}

static int on_message_complete(http_parser *parser)
{
	connection_of(parser)->complete = true;
	/* What follows is parsed once this is answered. */
	http_parser_pause(parser, 1);
	return 0;
}

static int add_chunk(struct http_connection *connection, const char *data, size_t len)
{
	int rc = 0;

	if (len == 0)
		return 0;
	if (connection->chunked)
		rc = evbuffer_add_printf(connection->out, "%zx\r\n", len);
	if (rc >= 0)
		rc = evbuffer_add(connection->out, data, len);
	if (rc >= 0 && connection->chunked)
		rc = evbuffer_add(connection->out, "\r\n", 2);
	return rc < 0 ? -1 : 0;
}

static int send_answer(struct http_connection *connection, const struct http_answer *answer)
{
	struct evbuffer *out = connection->out;
	int rc = evbuffer_add_printf(out, "HTTP/1.1 %u %s\r\nServer: mote\r\nConnection: %s\r\n%s",
				     answer->status, status_text(answer->status),
				     connection->closing ? "close" : "keep-alive",
				     answer->deprecated ? "Deprecation: true\r\n" : "");

	if (rc < 0)
		return -1;
	if (answer->stream != HTTP_STREAM_NONE) {
		connection->stream = answer->stream;
		connection->chunked =
			connection->parser.http_major == 1 && connection->parser.http_minor >= 1;
		rc = evbuffer_add_printf(out, "Content-Type: %s\r\n%s\r\n", answer->content_type,
					 connection->chunked ? "Transfer-Encoding: chunked\r\n"
							     : "");
		return rc < 0 ? -1 : add_chunk(connection, answer->body, answer->body_len);
	}
	if (!answer->body)
		return evbuffer_add(out, "\r\n", 2);
	rc = evbuffer_add_printf(out, "Content-Type: %s\r\nContent-Length: %zu\r\n\r\n",
				 answer->content_type, answer->body_len);
	/* To HEAD a body would be the next answer. */
	if (rc >= 0 && connection->parser.method != HTTP_HEAD)
		rc = evbuffer_add(out, answer->body, answer->body_len);
	return rc < 0 ? -1 : 0;
}

/*
 * The path of a URL in origin or absolute form (RFC 9112, 3.2); false if it has none. Of slashes at
 * its beginning one is left, and one at its end goes.
 */
static bool cut_path(struct http_connection *connection, char path[HTTP_PATH_SIZE])
{
	struct http_parser_url parts;
	const char *from;
	size_t len;

	http_parser_url_init(&parts);
	if (http_parser_parse_url(connection->url, connection->url_len, 0, &parts) != 0 ||
	    !(parts.field_set & 1 << UF_PATH))
		return false;
	from = connection->url + parts.field_data[UF_PATH].off;
	for (len = parts.field_data[UF_PATH].len; len > 1 && from[1] == '/'; len--)
		from++;
	if (len > 1 && from[len - 1] == '/')
		len--;
	memcpy(path, from, len);
	path[len] = '\0';
	return true;
}

/* 0, or -1 if the connection cannot go on. */
static int answer_request(struct http_connection *connection)
{
	struct http_server *server = connection->server;
	struct http_answer answer = { 0 };
	char path[HTTP_PATH_SIZE];
	const struct http_request request = {
		.method = (enum http_method)connection->parser.method,
		.path = path,
		.body = connection->body,
		.body_len = connection->body_len,
		.wants_text = connection->wants_text,
	};
	int rc;

	connection->complete = false;
	connection->in_request = false;
	connection->answered = true;
	if (!http_should_keep_alive(&connection->parser))
		connection->closing = true;
	if (!cut_path(connection, path))
		return refuse(connection, HTTP_STATUS_BAD_REQUEST, "the path is not understood");
	server->handle(server->opaque, &request, &answer);
	rc = send_answer(connection, &answer);
	free(answer.body);
	free(connection->body);
	connection->body = NULL;
	connection->body_len = 0;
	http_parser_pause(&connection->parser, 0);
	return rc;
}

/* Parses and answers what is there. 0, or -1 if the connection cannot go on. */
static int work(struct http_connection *connection)
{
	while (connection->in_start < connection->in_end && !connection->closing &&
	       connection->stream == HTTP_STREAM_NONE &&
	       evbuffer_get_length(connection->out) < OUTPUT_PAUSE &&
	       http_server_take(connection->server)) {
		size_t len = connection->in_end - connection->in_start;
		size_t used = http_parser_execute(&connection->parser, &settings,
						  connection->in + connection->in_start, len);
		enum http_errno error = HTTP_PARSER_ERRNO(&connection->parser);

		connection->in_start += used;
		if (connection->complete) {
			if (answer_request(connection) < 0)
				return -1;
		} else if (error != HPE_OK) {
			if (!connection->refused)
				refuse(connection, HTTP_STATUS_BAD_REQUEST,
				       error == HPE_HEADER_OVERFLOW
					       ? "the header is too large"
					       : http_errno_description(error));
			return -1;
		}
	}
	return 0;
}

/* Writes what can be written. False if the connection has ended. */
static bool flush(struct http_connection *connection)
{
	while (evbuffer_get_length(connection->out) > 0) {
		if (evbuffer_write(connection->out, connection->fd) >= 0)
			continue;
		if (errno == EAGAIN || errno == EINTR)
			break;
		http_connection_end(connection);
		return false;
	}
	if (evbuffer_get_length(connection->out) > 0) {
		if (!event_pending(connection->writable, EV_WRITE, NULL)) {
			(void)event_add(connection->writable, NULL);
			set_deadline(connection, HTTP_REQUEST_TIME);
		}
		return true;
	}
	if (!connection->closing)
		return true;
	if (!connection->refused) {
		http_connection_end(connection);
		return false;
	}
	/* With input unread, closing would be a reset: the client must see the answer first. */
	if (!connection->lingers) {
		(void)shutdown(connection->fd, SHUT_WR);
		set_deadline(connection, HTTP_LINGER_TIME);
	}
	connection->lingers = true;
	return true;
}

bool http_connection_is_dead(const struct http_connection *connection)
{
	char byte;

	return connection->ended || recv(connection->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

static void send_refusal(struct http_connection *connection)
{
	static const char body[] = "{\"error\": \"%s\"}";

	if (!connection->refused)
		refuse(connection, HTTP_STATUS_INTERNAL_SERVER_ERROR, "no memory");
	connection->closing = true;
	(void)evbuffer_add_printf(connection->out,
				  "HTTP/1.1 %u %s\r\nConnection: close\r\n"
				  "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
				  connection->refused, status_text(connection->refused),
				  sizeof(body) - sizeof("%s") + strlen(connection->reason));
	(void)evbuffer_add_printf(connection->out, body, connection->reason);
}

/* After whatever has happened: go on reading, or wait for the reader of the output. */
static void proceed(struct http_connection *connection)
{
	for (;;) {
		if (work(connection) < 0)
			send_refusal(connection);
		if (connection->ended || !flush(connection))
			return;
		if (evbuffer_get_length(connection->out) > 0) {
			(void)event_del(connection->readable);
			return;
		}
		if (connection->in_start == connection->in_end || connection->server->paused)
			break;
		if (connection->stream != HTTP_STREAM_NONE || connection->closing)
			connection->in_start = connection->in_end;
	}
	if (!connection->server->paused)
		(void)event_add(connection->readable, NULL);
	if (connection->lingers)
		return;
	/* A request's time counts from its first byte: one now and then does not hold it open. */
	if (connection->stream != HTTP_STREAM_NONE)
		set_deadline(connection, 0);
	else if (connection->answered || connection->in_request != connection->timed_request)
		set_deadline(connection,
			     connection->in_request ? HTTP_REQUEST_TIME : HTTP_IDLE_TIME);
	connection->timed_request = connection->in_request;
	connection->answered = false;
}

static void on_readable(evutil_socket_t fd, short events, void *opaque)
{
	struct http_connection *connection = opaque;
	ssize_t n = read(fd, connection->in, sizeof(connection->in));

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		http_connection_end(connection);
		return;
	}
	connection->in_start = 0;
	connection->in_end = (size_t)n;
	proceed(connection);
}

static void on_writable(evutil_socket_t fd, short events, void *opaque)
{
	(void)fd;
	(void)events;
	proceed(opaque);
}

static void on_deadline(evutil_socket_t fd, short events, void *opaque)
{
	(void)fd;
	(void)events;
	http_connection_end(opaque);
}

void http_connection_pause(struct http_connection *connection)
{
	if (!connection->ended)
		(void)event_del(connection->readable);
}

void http_connection_resume(struct http_connection *connection)
{
	if (!connection->ended && evbuffer_get_length(connection->out) == 0)
		proceed(connection);
}

void http_connection_publish(struct http_connection *connection, const char *data, size_t len)
{
	if (connection->ended)
		return;
	if (evbuffer_get_length(connection->out) + len > HTTP_OUTPUT_MAX ||
	    add_chunk(connection, data, len) < 0)
		http_connection_end(connection);
	else
		(void)flush(connection);
}

bool http_connection_finish(struct http_connection *connection)
{
	if (connection->ended)
		return false;
	if (connection->stream != HTTP_STREAM_NONE && !connection->closing && connection->chunked)
		(void)evbuffer_add(connection->out, "0\r\n\r\n", 5);
	connection->closing = true;
	return flush(connection);
}

void http_connection_open(struct http_server *server, int fd, bool serve)
{
	struct http_connection *connection = calloc(1, sizeof(*connection));

	if (!connection) {
		fd_close(&fd);
		return;
	}
	if (!settings.on_url) {
		http_parser_set_max_header_size(HTTP_HEADER_MAX);
		settings = (http_parser_settings){
			.on_message_begin = on_message_begin,
			.on_url = on_url,
			.on_header_field = on_header_field,
			.on_header_value = on_header_value,
			.on_headers_complete = on_headers_complete,
			.on_body = on_body,
			.on_message_complete = on_message_complete,
		};
	}
	connection->server = server;
	connection->fd = fd;
	TAILQ_INSERT_TAIL(&server->connections, connection, others);
	connection->turned_away = !serve;
	if (serve)
		server->count++;
	else
		server->turned_away++;
	http_parser_init(&connection->parser, HTTP_REQUEST);
	connection->parser.data = connection;
	connection->readable =
		event_new(server->base, fd, EV_READ | EV_PERSIST, on_readable, connection);
	connection->writable = event_new(server->base, fd, EV_WRITE, on_writable, connection);
	connection->deadline = evtimer_new(server->base, on_deadline, connection);
	connection->out = evbuffer_new();
	if (!connection->readable || !connection->writable || !connection->deadline ||
	    !connection->out ||
	    event_priority_set(connection->readable, EVENT_PRIORITY_FIRST) < 0 ||
	    event_priority_set(connection->writable, EVENT_PRIORITY_FIRST) < 0 ||
	    event_priority_set(connection->deadline, EVENT_PRIORITY_FIRST) < 0 ||
	    event_add(connection->readable, NULL) < 0) {
		http_connection_end(connection);
		return;
	}
	set_deadline(connection, HTTP_IDLE_TIME);
	if (serve)
		return;
	refuse(connection, HTTP_STATUS_SERVICE_UNAVAILABLE, "too many connections");
	send_refusal(connection);
	proceed(connection);
}
