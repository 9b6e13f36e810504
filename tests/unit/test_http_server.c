/* SPDX-License-Identifier: Apache-2.0 */
/* Many clients at once: who ends while others are served, and what bounds them. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "api-socket/http_connection.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/log.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"

#define PATH "api.sock"
#define READERS 6
#define ASK "GET /answer HTTP/1.1\r\n\r\n"
#define PUBLISH "GET /publish HTTP/1.1\r\n\r\n"
#define LISTEN "GET /events HTTP/1.1\r\n\r\n"

static struct event_base *base;
static struct http_server *server;
static unsigned int handled;
static char last_path[HTTP_PATH_SIZE];

/* /publish writes to the readers of events; /events makes one of its client; others get 204. */
static void handle(void *opaque, const struct http_request *request, struct http_answer *answer)
{
	(void)opaque;
	handled++;
	memcpy(last_path, request->path, strlen(request->path) + 1);
	answer->status = HTTP_STATUS_NO_CONTENT;
	if (strcmp(request->path, "/publish") == 0)
		http_server_publish(server, HTTP_STREAM_EVENTS, "event\n", 6);
	if (strcmp(request->path, "/events") != 0)
		return;
	answer->status = HTTP_STATUS_OK;
	answer->content_type = "text/plain";
	answer->stream = HTTP_STREAM_EVENTS;
}

static void set_up(void)
{
	struct err err;

	log_set_level(LOG_OFF);
	handled = 0;
	base = event_base_new();
	ck_assert_int_eq(http_server_open(&server, base, PATH, 1000, handle, NULL, &err), 0);
}

static void tear_down(void)
{
	http_server_close(server);
	event_base_free(base);
}

static void turns(unsigned int count)
{
	while (count-- > 0)
		event_base_loop(base, EVLOOP_NONBLOCK);
}

static int client_without_a_turn(void)
{
	const struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = PATH };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	ck_assert_int_eq(connect(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static int client(void)
{
	int fd = client_without_a_turn();

	turns(2);
	return fd;
}

static void say(int fd, const char *text)
{
	ck_assert_int_eq(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* Whether the server has ended the connection; takes what it has sent. */
static bool has_ended(int fd)
{
	char text[4096];
	ssize_t n;

	while ((n = recv(fd, text, sizeof(text), 0)) > 0)
		continue;
	return n == 0 || errno != EAGAIN;
}

static unsigned int listed(void)
{
	const struct http_connection *connection;
	unsigned int count = 0;

	TAILQ_FOREACH(connection, &server->connections, others)
	count++;
	return count;
}

/* So many steps can be made, and no more however long it takes. */
static void leave_steps(int64_t steps)
{
	server->limiter.ops.budget = steps;
	server->limiter.ops.filled_ns = INT64_MAX;
}

static void limiter_fires(int64_t steps)
{
	leave_steps(steps);
	event_active(server->limiter_timer, EV_TIMEOUT, 0);
	turns(1);
}

/* The one that is first in the list is found dead by the accept that comes before its turn. */
/* Names and values of any length have room for what matters of them. */
START_TEST(long_fields_are_cut)
{
	static char text[6000];
	const int fd = client();

	for (unsigned int in_value = 0; in_value < 2; in_value++) {
		size_t used = (size_t)sprintf(text, "GET /answer HTTP/1.1\r\n%s",
					      in_value ? "Accept: " : "");

		memset(text + used, 'x', 5000);
		sprintf(text + used + 5000, "%s\r\n\r\n", in_value ? "" : ": x");
		say(fd, text);
		turns(10);
		ck_assert_uint_eq(handled, in_value + 1);
	}
	ck_assert(!has_ended(fd));
	close(fd);
}
END_TEST

START_TEST(only_a_socket_without_a_listener_gives_way)
{
	struct http_server *other;
	char long_path[200];
	struct err err;

	write_text("file", "precious");
	ck_assert_int_lt(http_server_open(&other, base, "file", 1000, handle, NULL, &err), 0);
	ck_assert_int_eq(access("file", F_OK), 0);
	ck_assert_int_lt(http_server_open(&other, base, PATH, 1000, handle, NULL, &err), 0);
	ck_assert_int_eq(access(PATH, F_OK), 0);
	memset(long_path, 'x', sizeof(long_path) - 1);
	long_path[sizeof(long_path) - 1] = '\0';
	ck_assert_int_eq(http_server_open(&other, base, long_path, 1000, handle, NULL, &err),
			 -ENAMETOOLONG);
}
END_TEST

/* What is created, in its order, in the folder that is watched. */
static unsigned int created(int inotify, char names[][NAME_MAX + 1], unsigned int most)
{
	char buffer[4096] __attribute__((aligned(8)));
	ssize_t n = read(inotify, buffer, sizeof(buffer));
	unsigned int count = 0;

	for (ssize_t at = 0; at < n;) {
		const struct inotify_event *event = (const void *)(buffer + at);

		ck_assert_uint_lt(count, most);
		strcpy(names[count++], event->name);
		at += (ssize_t)(sizeof(*event) + event->len);
	}
	return count;
}

/* Else who waits for the file finds nobody behind it: it has another name until it listens. */
START_TEST(the_socket_appears_when_it_listens)
{
	int inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	char names[2][NAME_MAX + 1];
	struct http_server *other;
	struct stat st;
	struct err err;

	ck_assert_int_eq(mkdir("folder", 0700), 0);
	ck_assert_int_ge(inotify_add_watch(inotify, "folder", IN_CREATE), 0);
	ck_assert_int_eq(http_server_open(&other, base, "folder/x.sock", 1000, handle, NULL, &err),
			 0);
	ck_assert_uint_eq(created(inotify, names, 2), 2);
	ck_assert_str_ne(names[0], "x.sock");
	ck_assert_str_eq(names[1], "x.sock");
	ck_assert_int_eq(stat("folder/x.sock", &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0600);
	ck_assert_uint_eq(st.st_nlink, 1);
	http_server_close(other);
	/* Nothing is left. */
	ck_assert_int_eq(rmdir("folder"), 0);
	close(inotify);
}
END_TEST

START_TEST(a_name_without_room_for_another_is_possible)
{
	const size_t longest = sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1;
	char folder[128], path[128];
	struct http_server *other;
	struct err err;

	memset(folder, 'f', longest - 2);
	folder[longest - 2] = '\0';
	ck_assert_int_eq(mkdir(folder, 0700), 0);
	ck_assert_int_eq(snprintf(path, sizeof(path), "%s/s", folder), (int)longest);
	ck_assert_int_eq(http_server_open(&other, base, path, 1000, handle, NULL, &err), 0);
	ck_assert_int_eq(access(path, F_OK), 0);
	http_server_close(other);
	ck_assert_int_eq(rmdir(folder), 0);
}
END_TEST

START_TEST(a_newcomer_takes_the_place_of_the_first)
{
	int fds[HTTP_CONNECTIONS_MAX], newcomer;

	for (unsigned int i = 0; i < HTTP_CONNECTIONS_MAX; i++)
		fds[i] = client();
	http_server_limit(server, true);
	leave_steps(0);
	say(fds[HTTP_CONNECTIONS_MAX - 1], ASK);
	turns(2);
	ck_assert(server->paused);
	for (unsigned int i = 0; i < HTTP_CONNECTIONS_MAX - 1; i++)
		close(fds[i]);
	newcomer = client_without_a_turn();
	limiter_fires(100);
	turns(2);
	ck_assert_uint_eq(handled, 1);
	ck_assert_uint_eq(listed(), 2);
	ck_assert_uint_eq(server->count, 2);
	say(newcomer, ASK);
	turns(2);
	ck_assert_uint_eq(handled, 2);
	close(newcomer);
	close(fds[HTTP_CONNECTIONS_MAX - 1]);
}
END_TEST

/* The one after it in the list ends while a handler runs. */
START_TEST(a_handler_ends_the_next_one)
{
	int first = client(), publisher = client(), reader = client(), last = client();

	say(reader, LISTEN);
	turns(2);
	http_server_limit(server, true);
	leave_steps(0);
	say(publisher, PUBLISH);
	say(last, ASK);
	turns(2);
	ck_assert(server->paused);
	close(reader);
	handled = 0;
	limiter_fires(100);
	turns(3);
	ck_assert_uint_eq(handled, 2);
	ck_assert_uint_eq(listed(), 3);
	close(first);
	close(publisher);
	close(last);
}
END_TEST

/* What is published to a reader that is gone ends it, in whichever order they are. */
START_TEST(readers_end_while_all_are_published_to)
{
	int fds[READERS];

	for (unsigned int i = 0; i < READERS; i++) {
		fds[i] = client();
		say(fds[i], LISTEN);
		turns(2);
	}
	for (unsigned int i = 0; i < READERS; i++)
		if (_i >> i & 1)
			fd_close(&fds[i]);
	http_server_publish(server, HTTP_STREAM_EVENTS, "one\n", 4);
	ck_assert_int_eq(server->count, READERS - __builtin_popcount((unsigned)_i));
	http_server_publish(server, HTTP_STREAM_EVENTS, "two\n", 4);
	turns(1);
	ck_assert_uint_eq(listed(), server->count);
	for (unsigned int i = 0; i < READERS; i++)
		fd_close(&fds[i]);
}
END_TEST

/* Many may end in one turn, and each gives its place back at once. */
START_TEST(a_place_is_free_before_the_memory_is)
{
	int fd = client();

	say(fd, LISTEN);
	turns(2);
	ck_assert(http_server_has_reader(server, HTTP_STREAM_EVENTS));
	http_connection_end(TAILQ_FIRST(&server->connections));
	ck_assert_uint_eq(server->count, 0);
	ck_assert_uint_eq(listed(), 1);
	ck_assert(!http_server_has_reader(server, HTTP_STREAM_EVENTS));
	ck_assert(has_ended(fd));
	http_connection_end(TAILQ_FIRST(&server->connections));
	ck_assert_uint_eq(server->count, 0);
	turns(1);
	ck_assert_uint_eq(listed(), 0);
	close(fd);
}
END_TEST

START_TEST(steps_are_limited)
{
	int fd = client();

	http_server_limit(server, true);
	leave_steps(5);
	for (unsigned int i = 0; i < 20; i++)
		say(fd, ASK);
	turns(10);
	ck_assert_uint_eq(handled, 5);
	ck_assert(server->paused);
	limiter_fires(7);
	turns(10);
	/* One of the seven is for asking whether somebody connects. */
	ck_assert_uint_eq(handled, 11);
	/* Without the limit the rest follows, though nothing else happens. */
	http_server_limit(server, false);
	turns(10);
	ck_assert_uint_eq(handled, 20);
	close(fd);
}
END_TEST

START_TEST(a_new_limit_is_no_full_bucket)
{
	http_server_limit(server, true);
	leave_steps(-3);
	http_server_limit(server, false);
	http_server_limit(server, true);
	ck_assert_int_eq(server->limiter.ops.budget, -3);
}
END_TEST

/* The listener stays readable: without descriptors that must not be a busy loop. */
START_TEST(clients_wait_for_a_descriptor)
{
	struct rlimit before, none;
	int fd, answered;

	getrlimit(RLIMIT_NOFILE, &before);
	fd = client_without_a_turn();
	none = (struct rlimit){ .rlim_cur = 0, .rlim_max = before.rlim_max };
	setrlimit(RLIMIT_NOFILE, &none);
	turns(1);
	ck_assert(!event_pending(server->acceptable, EV_READ, NULL));
	ck_assert(event_pending(server->accept_timer, EV_TIMEOUT, NULL));
	turns(2);
	ck_assert_uint_eq(server->count, 0);
	setrlimit(RLIMIT_NOFILE, &before);
	event_base_loop(base, EVLOOP_ONCE); /* the timer */
	turns(2);
	ck_assert_uint_eq(server->count, 1);
	say(fd, ASK);
	turns(2);
	answered = recv(fd, &(char){ 0 }, 1, 0) == 1;
	ck_assert(answered);
	close(fd);
}
END_TEST

static void ask_for(int fd, size_t path_len)
{
	char text[512];
	char path[400];

	memset(path, 'x', path_len);
	path[0] = '/';
	snprintf(text, sizeof(text), "GET %.*s HTTP/1.1\r\n\r\n", (int)path_len, path);
	say(fd, text);
	turns(3);
}

START_TEST(the_longest_path)
{
	char text[64] = "";
	int fd = client();

	ask_for(fd, HTTP_PATH_SIZE - 1);
	ck_assert_uint_eq(handled, 1);
	ck_assert_uint_eq(strlen(last_path), HTTP_PATH_SIZE - 1);
	while (recv(fd, text, sizeof(text) - 1, 0) > 0)
		continue;
	ask_for(fd, HTTP_PATH_SIZE);
	ck_assert_uint_eq(handled, 1);
	ck_assert_int_gt(recv(fd, text, sizeof(text) - 1, 0), 0);
	assert_contains(text, "HTTP/1.1 414 ");
	close(fd);
}
END_TEST

START_TEST(a_reader_that_does_not_read_is_dropped_at_the_bound)
{
	static char data[1 << 16];
	const struct http_connection *connection;
	size_t waiting = 0;
	int fd = client();

	say(fd, LISTEN);
	turns(2);
	connection = TAILQ_FIRST(&server->connections);
	memset(data, 'x', sizeof(data));
	while (server->count == 1) {
		waiting = evbuffer_get_length(connection->out);
		ck_assert_uint_le(waiting, HTTP_OUTPUT_MAX);
		http_server_publish(server, HTTP_STREAM_EVENTS, data, sizeof(data));
	}
	ck_assert_uint_gt(waiting, HTTP_OUTPUT_MAX - 2 * sizeof(data));
	turns(1);
	ck_assert_uint_eq(listed(), 0);
	close(fd);
}
END_TEST

Suite *http_server_suite(void)
{
	Suite *suite = SUITE("http_server", set_up, tear_down, long_fields_are_cut,
			     only_a_socket_without_a_listener_gives_way,
			     the_socket_appears_when_it_listens,
			     a_name_without_room_for_another_is_possible,
			     a_newcomer_takes_the_place_of_the_first, a_handler_ends_the_next_one,
			     a_place_is_free_before_the_memory_is, steps_are_limited,
			     a_new_limit_is_no_full_bucket, clients_wait_for_a_descriptor,
			     the_longest_path, a_reader_that_does_not_read_is_dropped_at_the_bound);

	add_table_test(suite, set_up, tear_down, readers_end_while_all_are_published_to,
		       1 << READERS);
	return suite;
}
