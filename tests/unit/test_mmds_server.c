/* SPDX-License-Identifier: Apache-2.0 */
/* Clients of the Unix socket, in one loop with it. */
#include "base/array.h"
#include "mmds/server.h"

#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "mmds/mmds.h"
#include "mmds/store.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"
#include "virtio/vsock/host.h"

#define GET(path) "GET " path " HTTP/1.1\r\nHost: a\r\n\r\n"
#define LIMIT 600000
#define BIG 500000 /* more than a socket takes */
#define TURNS 100

static struct mmds *mmds;
static struct server *server;
static struct event_base *base;
static struct err err;
static char text[2 * BIG];

static void set_up(void)
{
	static char big[BIG + 1];
	json_t *data;

	memset(big, 'b', BIG);
	data = json_pack("{s:s, s:s}", "name", "demo", "big", big);
	base = event_base_new();
	ck_assert_int_eq(mmds_open(&mmds, LIMIT, &err), 0);
	ck_assert_int_eq(mmds_put(mmds, data, &err), 0);
	json_decref(data);
	ck_assert_int_eq(server_open(&server, mmds, "socket_80", base, &err), 0);
}

static void tear_down(void)
{
	const struct mmds_metrics *metrics = mmds_metrics(mmds);

	server_close(server);
	ck_assert_uint_eq(metrics->connections_created, metrics->connections_destroyed);
	ck_assert_int_eq(access("socket_80", F_OK), -1);
	mmds_close(mmds);
	event_base_free(base);
}

static void turn(void)
{
	ck_assert_int_ge(event_base_loop(base, EVLOOP_NONBLOCK), 0);
}

static int dial(void)
{
	int fd = vsock_host_dial("socket", 80);

	ck_assert_int_ge(fd, 0);
	return fd;
}

static void say(int fd, const char *request)
{
	ck_assert_int_eq(send(fd, request, strlen(request), MSG_NOSIGNAL), (int)strlen(request));
}

/* Until there is so much, or the end of it: what has come, in `text`. True at the end. */
static bool hear(int fd, size_t size)
{
	size_t used = 0;
	ssize_t n = -1;

	for (int i = 0; i < TURNS && used < size && n != 0; i++) {
		turn();
		n = recv(fd, text + used, sizeof(text) - 1 - used, MSG_DONTWAIT);
		used += n > 0 ? (size_t)n : 0;
	}
	text[used] = '\0';
	return n == 0;
}

static unsigned int status(void)
{
	unsigned int number = 0;

	ck_assert_int_eq(sscanf(text, "HTTP/1.%*u %u ", &number), 1);
	return number;
}

START_TEST(requests_of_one_connection_are_answered_in_turn)
{
	CLEANUP_FD int fd = dial();

	say(fd, GET("/name") GET("/none") "GET /na");
	ck_assert(!hear(fd, sizeof(text)));
	ck_assert_uint_eq(status(), 200);
	assert_contains(text, "\r\n\r\ndemoHTTP/1.1 404 ");
	say(fd, "me HTTP/1.0\r\n\r\n");
	ck_assert(hear(fd, sizeof(text)));
	assert_contains(text, "\r\n\r\ndemo");
}
END_TEST

START_TEST(tokens_are_needed_where_they_are)
{
	CLEANUP_FD int fd = dial();
	char request[256];

	mmds_configure(mmds, MMDS_V2, false);
	say(fd, GET("/name"));
	ck_assert(!hear(fd, 1));
	ck_assert_uint_eq(status(), 401);
	say(fd, "PUT /latest/api/token HTTP/1.1\r\nX-metadata-token-ttl-seconds: 9\r\n\r\n");
	ck_assert(!hear(fd, 1));
	snprintf(request, sizeof(request), "GET /name HTTP/1.1\r\nX-metadata-token: %s\r\n\r\n",
		 strstr(text, "\r\n\r\n") + 4);
	say(fd, request);
	ck_assert(!hear(fd, 1));
	ck_assert_uint_eq(status(), 200);
}
END_TEST

START_TEST(who_has_said_all_is_still_answered)
{
	CLEANUP_FD int fd = dial();

	say(fd, GET("/big") GET("/name"));
	shutdown(fd, SHUT_WR);
	ck_assert(hear(fd, sizeof(text)));
	ck_assert_ptr_nonnull(strstr(text, "bbHTTP/1.1 200 OK"));
	assert_contains(text, "\r\n\r\ndemo");
}
END_TEST

START_TEST(half_a_request_is_not_answered)
{
	CLEANUP_FD int fd = dial();

	say(fd, "GET /name HTTP/1.1\r\n");
	shutdown(fd, SHUT_WR);
	ck_assert(hear(fd, 1));
	ck_assert_str_eq(text, "");
}
END_TEST

/* Whatever else it says, its answer arrives: a close with that unread would break it off. */
START_TEST(last_answer_arrives)
{
	CLEANUP_FD int fd = dial();

	say(fd, "POST / HTTP/1.1\r\nContent-Length: 61440\r\n\r\n");
	for (int i = 0; i < 15; i++) {
		static char body[SERVER_REQUEST_MAX];

		ck_assert_int_eq(send(fd, body, sizeof(body), MSG_NOSIGNAL), sizeof(body));
		turn();
	}
	ck_assert(hear(fd, sizeof(text)));
	ck_assert_uint_eq(status(), 400);
	ck_assert_uint_eq(mmds_metrics(mmds)->connections_destroyed, 0);
	shutdown(fd, SHUT_WR);
	for (int i = 0; i < TURNS && mmds_metrics(mmds)->connections_destroyed == 0; i++)
		turn();
	ck_assert_uint_eq(mmds_metrics(mmds)->connections_destroyed, 1);
}
END_TEST

START_TEST(too_long_a_request_ends_its_connection)
{
	static char request[SERVER_REQUEST_MAX + 1];
	CLEANUP_FD int fd = dial();

	memset(request, 'a', SERVER_REQUEST_MAX);
	say(fd, request);
	ck_assert(hear(fd, 1));
	ck_assert_uint_eq(mmds_metrics(mmds)->rx_accepted_err, 1);
}
END_TEST

/* And those who do not read their answers make room at their end only. */
START_TEST(more_than_there_is_room_for_wait)
{
	int fds[SERVER_CONNECTIONS + 5];

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = dial();
		say(fds[i], GET("/name"));
	}
	ck_assert(!hear(fds[ARRAY_SIZE(fds) - 1], 1));
	ck_assert_str_eq(text, "");
	ck_assert_uint_eq(mmds_metrics(mmds)->connections_created, SERVER_CONNECTIONS);
	for (size_t i = 0; i < 5; i++)
		fd_close(&fds[i]);
	ck_assert(!hear(fds[ARRAY_SIZE(fds) - 1], 1));
	ck_assert_uint_eq(status(), 200);
	for (size_t i = 5; i < ARRAY_SIZE(fds); i++)
		fd_close(&fds[i]);
}
END_TEST

START_TEST(what_is_not_read_is_limited)
{
	int fds[SERVER_CONNECTIONS];
	unsigned int refused = 0;

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = dial();
		turn();
		say(fds[i], GET("/big"));
	}
	for (int i = 0; i < TURNS; i++)
		turn();
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		/* The first four do not read theirs at all. */
		if (i >= 4 * LIMIT / BIG) {
			(void)hear(fds[i], BIG);
			refused += status() == 503;
		}
		fd_close(&fds[i]);
	}
	/* Four of the largest there can be. */
	ck_assert_uint_eq(refused, ARRAY_SIZE(fds) - 4 * LIMIT / BIG);
	fds[0] = dial();
	say(fds[0], GET("/big"));
	(void)hear(fds[0], BIG);
	ck_assert_uint_eq(status(), 200);
	fd_close(&fds[0]);
}
END_TEST

START_TEST(socket_of_somebody_else_is_not_taken)
{
	struct server *other;

	ck_assert_int_eq(server_open(&other, mmds, "socket_80", base, &err), -EADDRINUSE);
	ck_assert_ptr_null(other);
	assert_contains(err.text, "socket_80");
}
END_TEST

Suite *mmds_server_suite(void)
{
	return SUITE("mmds_server", set_up, tear_down,
		     requests_of_one_connection_are_answered_in_turn,
		     tokens_are_needed_where_they_are, who_has_said_all_is_still_answered,
		     half_a_request_is_not_answered, last_answer_arrives,
		     too_long_a_request_ends_its_connection, more_than_there_is_room_for_wait,
		     what_is_not_read_is_limited, socket_of_somebody_else_is_not_taken);
}
