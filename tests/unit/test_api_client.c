/* SPDX-License-Identifier: Apache-2.0 */
/* The client's connections, with a server that does what its script says. */
#include "base/array.h"
#include "host/api_client.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"

#define SOCKET "api.sock"
#define OK "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
#define EMPTY "HTTP/1.1 204 No Content\r\n\r\n"

/* A step of the server; each "answer" comes after one whole request. */
enum step_kind {
	END,
	ANSWER, /* reads a request, writes the text */
	WRITE,	/* writes the text at once */
	CLOSE,	/* the connection; the next one is accepted */
	HANG,	/* until the client goes */
};

struct step {
	enum step_kind kind;
	const char *text;
};

static struct {
	int listener;
	pthread_t thread;
	const struct step *steps;
	char requests[2][4096];
	unsigned int request_count;
	unsigned int connections;
} server;

static struct api_client client;
static struct api_answer answer;
static struct err err;

static void read_request(int fd)
{
	char *request = server.requests[server.request_count++ % 2];
	size_t used = 0, length = 0;
	char *end = NULL;

	memset(request, 0, sizeof(server.requests[0]));
	while (!end || used < (size_t)(end + 4 - request) + length) {
		ssize_t n = read(fd, request + used, sizeof(server.requests[0]) - 1 - used);

		if (n <= 0)
			return;
		used += (size_t)n;
		end = strstr(request, "\r\n\r\n");
		if (end)
			length = strtoul(strstr(request, "Content-Length: ") + 16, NULL, 10);
	}
}

static void *serve(void *opaque)
{
	int fd = -1;
	char byte;

	for (const struct step *step = server.steps; step->kind != END; step++) {
		if (fd < 0) {
			fd = accept(server.listener, NULL, NULL);
			server.connections++;
		}
		if (step->kind == ANSWER)
			read_request(fd);
		if (step->text)
			(void)send(fd, step->text, strlen(step->text), MSG_NOSIGNAL);
		while (step->kind == HANG && read(fd, &byte, 1) > 0)
			;
		if (step->kind == CLOSE || step->kind == HANG)
			fd_close(&fd);
	}
	fd_close(&fd);
	return opaque;
}

static void serve_steps(const struct step *steps)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = SOCKET };

	server.steps = steps;
	server.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(server.listener, (struct sockaddr *)&address, sizeof(address)), 0);
	ck_assert_int_eq(listen(server.listener, 8), 0);
	ck_assert_int_eq(pthread_create(&server.thread, NULL, serve, NULL), 0);
	ck_assert_int_eq(api_client_open(&client, SOCKET, &err), 0);
}

static void set_up(void)
{
	memset(&server, 0, sizeof(server));
	server.listener = -1;
	client.fd = -1;
	(void)unlink(SOCKET);
}

static void tear_down(void)
{
	api_answer_free(&answer);
	api_client_close(&client);
	if (server.listener >= 0)
		pthread_join(server.thread, NULL);
	fd_close(&server.listener);
	(void)unlink(SOCKET);
}

static int get(const char *path)
{
	api_answer_free(&answer);
	return api_client_request(&client, "GET", path, NULL, 0, &answer, NULL, NULL, &err);
}

START_TEST(several_requests_take_one_connection)
{
	static const struct step steps[] = { { ANSWER, OK }, { ANSWER, EMPTY }, { HANG }, { END } };

	serve_steps(steps);
	ck_assert_int_eq(get("/version"), 0);
	ck_assert_uint_eq(answer.status, 200);
	ck_assert_str_eq(answer.body, "{}");
	ck_assert_int_eq(strncmp(server.requests[0], "GET /version HTTP/1.1\r\n", 23), 0);
	assert_contains(server.requests[0], "\r\nContent-Length: 0\r\n");
	api_answer_free(&answer);
	ck_assert_int_eq(
		api_client_request(&client, "PUT", "/a", "{\"b\":1}", 7, &answer, NULL, NULL, &err),
		0);
	ck_assert_uint_eq(answer.status, 204);
	assert_contains(server.requests[1], "PUT /a HTTP/1.1\r\n");
	assert_contains(server.requests[1], "\r\nContent-Length: 7\r\n");
	assert_contains(server.requests[1], "\r\n\r\n{\"b\":1}");
	ck_assert_uint_eq(server.connections, 1);
}
END_TEST

START_TEST(answer_in_parts)
{
	static const struct step steps[] = {
		{ ANSWER, "HTTP/1.1 200 OK\r\nTransfer-Enco" },
		{ WRITE, "ding: chunked\r\n\r\n3\r" },
		{ WRITE, "\nabc\r\n0\r\n" },
		{ WRITE, "\r\n" },
		{ HANG },
		{ END },
	};

	serve_steps(steps);
	ck_assert_int_eq(get("/"), 0);
	ck_assert_str_eq(answer.body, "abc");
}
END_TEST

/* The server has closed in between, or has sent what nobody asked for. */
static const struct step again[][5] = {
	{ { ANSWER, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n" },
	  { CLOSE },
	  { ANSWER, OK },
	  { END } },
	{ { ANSWER, EMPTY }, { CLOSE }, { ANSWER, OK }, { END } },
	{ { ANSWER, EMPTY }, { WRITE, EMPTY }, { HANG }, { ANSWER, OK }, { END } },
	{ { ANSWER, EMPTY EMPTY }, { HANG }, { ANSWER, OK }, { END } },
};

START_TEST(connection_that_is_of_no_use_is_replaced)
{
	char byte;

	serve_steps(again[_i]);
	ck_assert_int_eq(get("/"), 0);
	ck_assert_uint_eq(answer.status, 204);
	/* What the server does unasked must have come. */
	if (client.fd >= 0 && _i > 0) {
		struct timeval never = { .tv_sec = 60 };
		fd_set fds;

		FD_ZERO(&fds);
		FD_SET(client.fd, &fds);
		ck_assert_int_eq(select(client.fd + 1, &fds, NULL, NULL, &never), 1);
		(void)recv(client.fd, &byte, 1, MSG_PEEK);
	}
	ck_assert_int_eq(get("/"), 0);
	ck_assert_uint_eq(answer.status, 200);
	ck_assert_uint_eq(server.connections, 2);
}
END_TEST

static const struct {
	struct step steps[4];
	int rc;
	const char *says;
} failures[] = {
	{ { { ANSWER, NULL }, { CLOSE } }, -EPROTO, "the connection ended without an answer" },
	{ { { ANSWER, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab" }, { CLOSE } },
	  -EPROTO,
	  "ended in the middle of the answer" },
	{ { { ANSWER, "220 smtp ready\r\n" }, { HANG } }, -EPROTO, "no answer in HTTP/1.1" },
	{ { { ANSWER, NULL }, { HANG } }, -ETIMEDOUT, "no answer within 0.05 s" },
	{ { { ANSWER, "HTTP/1.1 200 OK\r\n" }, { HANG } }, -ETIMEDOUT, "no answer within 0.05 s" },
	{ { { ANSWER, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab" }, { HANG } },
	  -ETIMEDOUT,
	  "no answer within 0.05 s" },
};

START_TEST(failure_names_the_socket_and_the_cause)
{
	serve_steps(failures[_i].steps);
	client.timeout_ms = failures[_i].rc == -ETIMEDOUT ? 50 : API_CLIENT_TIMEOUT_MS;
	ck_assert_int_eq(get("/"), failures[_i].rc);
	assert_contains(err.text, "API socket " SOCKET ": ");
	assert_contains(err.text, failures[_i].says);
	ck_assert_int_eq(client.fd, -1);
}
END_TEST

/* A server that refuses in the middle of a request reads no more of it. */
START_TEST(answer_before_the_end_of_the_request)
{
	static const struct step steps[] = {
		{ WRITE, "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n" }, { CLOSE }, { END }
	};
	static char body[4 << 20];

	serve_steps(steps);
	ck_assert_int_eq(api_client_request(&client, "PUT", "/", body, sizeof(body), &answer, NULL,
					    NULL, &err),
			 0);
	ck_assert_uint_eq(answer.status, 413);
	ck_assert_int_eq(client.fd, -1);
}
END_TEST

static int count(void *opaque, const char *data, size_t len, struct err *cause)
{
	size_t *total = opaque;

	(void)data;
	*total += len;
	/* Past the time that an answer may take. */
	if (*total < 6)
		poll(NULL, 0, client.timeout_ms + 1);
	return *total < 6 ? 0 : err_set(cause, ECANCELED, "enough");
}

START_TEST(stream_has_no_time_limit_and_ends_when_the_sink_says)
{
	static const struct step steps[] = {
		{ ANSWER, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n" },
		{ WRITE, "3\r\ndef\r\n" },
		{ HANG },
		{ END },
	};
	size_t total = 0;

	serve_steps(steps);
	client.timeout_ms = 500;
	ck_assert_int_eq(api_client_request(&client, "GET", "/events", NULL, 0, &answer, count,
					    &total, &err),
			 -ECANCELED);
	ck_assert_uint_eq(total, 6);
	assert_contains(err.text, "enough");
}
END_TEST

START_TEST(socket_that_nobody_serves)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = SOCKET };
	CLEANUP_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ck_assert_int_eq(api_client_open(&client, SOCKET, &err), -ENOENT);
	ck_assert_str_eq(err.text,
			 "API socket " SOCKET ": nobody serves it: No such file or directory");
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	ck_assert_int_eq(api_client_open(&client, SOCKET, &err), -ECONNREFUSED);
	ck_assert_str_eq(err.text, "API socket " SOCKET ": nobody serves it: Connection refused");
	ck_assert_int_eq(client.fd, -1);
}
END_TEST

START_TEST(path_of_the_socket_has_a_length)
{
	char path[200];

	ck_assert_int_eq(api_client_open(&client, "", &err), -ENAMETOOLONG);
	memset(path, 'a', sizeof(path));
	path[108] = '\0';
	ck_assert_int_eq(api_client_open(&client, path, &err), -ENAMETOOLONG);
	path[107] = '\0';
	ck_assert_int_eq(api_client_open(&client, path, &err), -ENOENT);
}
END_TEST

static const char *const bad_paths[] = { "", "a", "/a b", "/a\r\nX: y", "/\x7f", "/a\tb" };

START_TEST(path_cannot_be_more_than_a_path)
{
	static const struct step steps[] = { { HANG }, { END } };

	serve_steps(steps);
	ck_assert_int_eq(get(bad_paths[_i]), -EINVAL);
}
END_TEST

START_TEST(nothing_stays_open)
{
	static const struct step steps[] = { { ANSWER, OK }, { HANG }, { END } };
	unsigned int before;

	serve_steps(steps);
	ck_assert_int_eq(get("/"), 0);
	before = count_open_fds();
	api_client_close(&client);
	pthread_join(server.thread, NULL);
	ck_assert_uint_eq(count_open_fds(), before - 2);
	fd_close(&server.listener);
}
END_TEST

Suite *api_client_suite(void)
{
	Suite *suite = SUITE("api_client", set_up, tear_down, several_requests_take_one_connection,
			     answer_in_parts, answer_before_the_end_of_the_request,
			     stream_has_no_time_limit_and_ends_when_the_sink_says,
			     socket_that_nobody_serves, path_of_the_socket_has_a_length,
			     nothing_stays_open);

	add_table_test(suite, set_up, tear_down, connection_that_is_of_no_use_is_replaced,
		       ARRAY_SIZE(again));
	add_table_test(suite, set_up, tear_down, failure_names_the_socket_and_the_cause,
		       ARRAY_SIZE(failures));
	add_table_test(suite, set_up, tear_down, path_cannot_be_more_than_a_path,
		       ARRAY_SIZE(bad_paths));
	return suite;
}
