/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The input is what several clients of one HTTP server do, turn by turn: connect, send requests or
 * raw bytes, read, half-close, close; what the limiter lets them do, and which timers fire. The
 * requests make the server publish to the others, begin streams, and change its limit.
 */
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "api-socket/http_connection.h"
#include "base/array.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/log.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/input.h"

#define CLIENTS (HTTP_CONNECTIONS_MAX + 4)
#define CROWD 40
#define OPERATIONS_MAX 200
#define LARGE (300 << 10)

static struct event_base *base;
static struct http_server *server;
static int clients[CLIENTS];
static char folder[] = "/tmp/mote-fuzz-XXXXXX";
static struct sockaddr_un address = { .sun_family = AF_UNIX };
static char large[LARGE];

static const char *const requests[] = {
	"GET / HTTP/1.1\r\n\r\n",
	"GET / HTTP/1.0\r\n\r\n",
	"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
	"GET http://host/ HTTP/1.1\r\n\r\n",
	"GET /events HTTP/1.1\r\n\r\n",
	"GET /events HTTP/1.0\r\n\r\n",
	"GET /console HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n",
	"PUT /publish HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
	"PUT /limit HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
	"PUT /unlimit HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
	"GET /large HTTP/1.1\r\nAccept: text/plain, application/json\r\n\r\n",
	"PUT / HTTP/1.1\r\nContent-Length: 2000\r\n\r\n",
	"GET / HTTP/1.1\r\nX:",
	"GET / HTTP/2.0\r\n\r\n",
	"GET / HTTP/1.1\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
	"CONNECT host:1 HTTP/1.1\r\n\r\n",
};

static const char *const paths[] = { "/events", "/console", "/publish",
				     "/limit",	"/unlimit", "/large" };

static void handle(void *opaque, const struct http_request *request, struct http_answer *answer)
{
	unsigned int i = 0;

	(void)opaque;
	REQUIRE(strlen(request->path) < HTTP_PATH_SIZE && request->body_len <= server->body_max);
	answer->status = HTTP_STATUS_NO_CONTENT;
	while (i < ARRAY_SIZE(paths) && strcmp(request->path, paths[i]) != 0)
		i++;
	switch (i) {
	case 0:
	case 1:
		answer->status = HTTP_STATUS_OK;
		answer->content_type = "text/plain";
		answer->stream = i == 0 ? HTTP_STREAM_EVENTS : HTTP_STREAM_CONSOLE;
		break;
	case 2:
		http_server_publish(server, HTTP_STREAM_EVENTS, large, request->body_len * 1000);
		http_server_publish(server, HTTP_STREAM_CONSOLE, "x", 1);
		break;
	case 3:
	case 4:
		http_server_limit(server, i == 3);
		break;
	case 5:
		answer->status = HTTP_STATUS_OK;
		answer->content_type = "text/plain";
		answer->body = strndup(large, request->wants_text ? LARGE : 100);
		answer->body_len = strlen(answer->body);
		break;
	}
}

static void clean(void)
{
	unlink(address.sun_path);
	rmdir(folder);
}

static void set_up(void)
{
	struct rlimit files;

	log_set_level(LOG_OFF);
	/* As the VMM does. */
	signal(SIGPIPE, SIG_IGN);
	memset(large, 'x', sizeof(large) - 1);
	REQUIRE(mkdtemp(folder));
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/s", folder);
	atexit(clean);
	base = event_base_new();
	/* Lowered and raised again while it runs. */
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = 1024 < files.rlim_max ? 1024 : files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
}

static void turns(unsigned int count)
{
	while (count-- > 0)
		event_base_loop(base, EVLOOP_NONBLOCK);
}

static void turn_without_descriptors(void)
{
	struct rlimit before, none;

	getrlimit(RLIMIT_NOFILE, &before);
	none = (struct rlimit){ .rlim_max = before.rlim_max };
	setrlimit(RLIMIT_NOFILE, &none);
	turns(1);
	setrlimit(RLIMIT_NOFILE, &before);
}

static int connected(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		fd_close(&fd);
	return fd;
}

/* Where there is none to be opened: a living one, another file, no folder, too long a name. */
static void open_another(unsigned int place)
{
	char path[200] = "";
	const char *const places[] = { address.sun_path, "/dev/null", "/dev/null/s", path };
	struct http_server *other;
	struct err err;

	memset(path, 'x', sizeof(path) - 1);
	REQUIRE(http_server_open(&other, base, places[place % 4], 1000, handle, NULL, &err) < 0);
	REQUIRE(!other);
}

static void crowd(void)
{
	int fds[CROWD];

	for (unsigned int i = 0; i < CROWD; i++) {
		fds[i] = connected();
		turns(1);
	}
	for (unsigned int i = 0; i < CROWD; i++)
		fd_close(&fds[i]);
}

static void send_text(int fd, const void *text, size_t size, unsigned int times)
{
	while (fd >= 0 && times-- > 0 && send(fd, text, size, MSG_NOSIGNAL) == (ssize_t)size)
		continue;
}

static void deadline_passes(unsigned int index)
{
	struct http_connection *connection;

	TAILQ_FOREACH(connection, &server->connections, others)
	{
		if (index-- == 0 && !connection->ended) {
			event_active(connection->deadline, EV_TIMEOUT, 0);
			return;
		}
	}
}

static void operate(struct input *input)
{
	static char buffer[1 << 16];
	const uint8_t operation = take(input), argument = take(input);
	int *fd = &clients[argument % CLIENTS];
	const char *text;
	size_t size;

	switch (operation % 16) {
	case 0:
		fd_close(fd);
		*fd = connected();
		break;
	case 1:
	case 2:
		text = requests[take(input) % (ARRAY_SIZE(requests))];
		send_text(*fd, text, strlen(text), operation % 16 == 1 ? 1 : 1 + argument);
		break;
	case 3:
		size = take(input);
		size = size < input->size ? size : input->size;
		send_text(*fd, input->data, size, size > 0);
		input->data += size;
		input->size -= size;
		break;
	case 4:
		if (*fd >= 0 && recv(*fd, buffer, sizeof(buffer), 0) < 0)
			REQUIRE(errno == EAGAIN || errno == ECONNRESET);
		break;
	case 5:
		if (*fd >= 0)
			shutdown(*fd, argument & 64 ? SHUT_WR : SHUT_RD);
		break;
	case 6:
		fd_close(fd);
		break;
	case 7:
		server->limiter.ops.budget = argument % 8;
		server->limiter.ops.filled_ns = INT64_MAX;
		if (argument & 64)
			http_server_limit(server, argument & 128);
		break;
	case 8:
		if (event_pending(server->limiter_timer, EV_TIMEOUT, NULL))
			event_active(server->limiter_timer, EV_TIMEOUT, 0);
		break;
	case 9:
		if (event_pending(server->accept_timer, EV_TIMEOUT, NULL))
			event_active(server->accept_timer, EV_TIMEOUT, 0);
		break;
	case 10:
		deadline_passes(argument);
		break;
	case 11:
		turn_without_descriptors();
		break;
	case 12:
		http_server_publish(server, argument & 1 ? HTTP_STREAM_EVENTS : HTTP_STREAM_CONSOLE,
				    large, (size_t)argument << 10);
		break;
	case 13:
		crowd();
		break;
	case 14:
		open_another(argument);
		break;
	default:
		turns(1 + argument % 4);
		break;
	}
}

static void check(void)
{
	const struct http_connection *connection;
	unsigned int served = 0, turned_away = 0;
	bool reads = false;

	TAILQ_FOREACH(connection, &server->connections, others)
	{
		REQUIRE(connection->in_start <= connection->in_end &&
			connection->in_end <= sizeof(connection->in));
		if (connection->ended)
			continue;
		reads |= connection->stream == HTTP_STREAM_EVENTS;
		if (connection->turned_away)
			turned_away++;
		else
			served++;
		REQUIRE(connection->body_len <= server->body_max);
		REQUIRE(evbuffer_get_length(connection->out) <= HTTP_OUTPUT_MAX + 4096);
	}
	REQUIRE(served == server->count && served <= HTTP_CONNECTIONS_MAX);
	REQUIRE(turned_away == server->turned_away);
	REQUIRE(reads == http_server_has_reader(server, HTTP_STREAM_EVENTS));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = { data, size };
	struct err err;

	if (!base)
		set_up();
	REQUIRE(http_server_open(&server, base, address.sun_path, 1000, handle, NULL, &err) == 0);
	http_server_limit(server, take(&input) & 1);
	server->limiter.ops.filled_ns = INT64_MAX;
	for (unsigned int i = 0; i < CLIENTS; i++) {
		clients[i] = connected();
		turns(1);
	}
	for (unsigned int i = 0; i < OPERATIONS_MAX && input.size > 0; i++) {
		operate(&input);
		check();
	}
	http_server_finish(server, 0);
	check();
	http_server_close(server);
	for (unsigned int i = 0; i < CLIENTS; i++)
		fd_close(&clients[i]);
	return 0;
}
