/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/agent.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#include "guest/execution.h"
#include "guest/request.h"
#include "guest/setup.h"
#include "guest/stream.h"

/* For programs that are asked to end by who asks the whole machine. */
#define SIGNAL_GRACE_MS 3000
/* For a host to take what was sent to it before the end. */
#define LINGER_S 1

enum state {
	STATE_CONNECTING, /* to the host */
	STATE_WAITING,	  /* for the request */
	STATE_EXECUTING,
	STATE_CLOSING, /* when all is sent */
	STATE_OVER,
};

struct connection {
	struct connection *next;
	enum state state;
	struct execution *execution; /* owned; may outlive the stream */
	uint8_t *request;	     /* owned; what has come of one in several frames, or NULL */
	size_t request_used;
	struct stream stream;
};

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int open_socket(void)
{
	return socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

static void add_connection(struct agent *agent, int fd, enum state state)
{
	struct connection *connection = malloc(sizeof(*connection));

	if (!connection) {
		close(fd);
		return;
	}
	connection->next = agent->connections;
	connection->state = state;
	connection->execution = NULL;
	connection->request = NULL;
	connection->request_used = 0;
	stream_open(&connection->stream, fd);
	agent->connections = connection;
	agent->count++;
}

static bool listen_for_clients(struct agent *agent)
{
	const struct sockaddr_vm address = { .svm_family = AF_VSOCK,
					     .svm_port = PROTOCOL_PORT,
					     .svm_cid = VMADDR_CID_ANY };

	agent->listener = open_socket();
	return agent->listener >= 0 &&
	       bind(agent->listener, (const struct sockaddr *)&address, sizeof(address)) == 0 &&
	       listen(agent->listener, AGENT_CONNECTIONS_MAX) == 0;
}

static void connect_to_host(struct agent *agent)
{
	const struct sockaddr_vm address = { .svm_family = AF_VSOCK,
					     .svm_port = PROTOCOL_PORT,
					     .svm_cid = VMADDR_CID_HOST };
	int fd = open_socket();

	if (fd < 0)
		return;
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 &&
	    errno != EINPROGRESS)
		close(fd);
	else
		add_connection(agent, fd, STATE_CONNECTING);
}

bool agent_open(struct agent *agent)
{
	sigset_t signals;

	memset(agent, 0, sizeof(*agent));
	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	sigaddset(&signals, SIGINT); /* Ctrl-Alt-Del */
	sigaddset(&signals, SIGTERM);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	signal(SIGPIPE, SIG_IGN);
	agent->signals = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	reboot(RB_DISABLE_CAD);
	if (!listen_for_clients(agent))
		return false;
	connect_to_host(agent);
	return true;
}

static void reap(struct agent *agent)
{
	struct rusage usage;
	int status;
	pid_t pid;

	while ((pid = wait4(-1, &status, WNOHANG, &usage)) > 0) {
		for (struct connection *at = agent->connections; at; at = at->next) {
			if (at->execution && !at->execution->exited &&
			    at->execution->process.pid == pid)
				execution_exited(at->execution, status, &usage);
		}
	}
	/* Nobody is left to wait for but clients that take what is left to say. */
	if (agent->ending && !agent->all_exited && pid < 0 && errno == ECHILD) {
		const int64_t last = now_ns() + LINGER_S * INT64_C(1000000000);

		agent->all_exited = true;
		agent->end_ns = agent->end_ns < last ? agent->end_ns : last;
	}
}

/* Whether every client has been sent what its program wrote, and how that ended. */
static bool all_is_said(const struct agent *agent)
{
	for (const struct connection *at = agent->connections; at; at = at->next) {
		if (at->stream.fd >= 0 &&
		    (at->state == STATE_EXECUTING || stream_pending(&at->stream)))
			return false;
	}
	return true;
}

/*
 * A machine that is off sends nothing: from now on close() waits for the host to have what was
 * sent, which its answer to the end of the stream says.
 */
static void linger(struct agent *agent)
{
	const struct linger wait = { .l_onoff = 1, .l_linger = LINGER_S };

	for (struct connection *at = agent->connections; at; at = at->next) {
		if (at->stream.fd >= 0)
			setsockopt(at->stream.fd, SOL_SOCKET, SO_LINGER, &wait, sizeof(wait));
	}
}

/* Asks all programs to end, and ends the machine when they have or the time is over. */
static void end(struct agent *agent, int64_t grace_ms)
{
	if (agent->ending)
		return;
	agent->ending = true;
	agent->end_ns = now_ns() + grace_ms * 1000000;
	linger(agent);
	kill(-1, SIGTERM);
	reap(agent);
}

static void handle_signals(struct agent *agent)
{
	struct signalfd_siginfo info;

	while (read(agent->signals, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		if (info.ssi_signo != SIGCHLD)
			end(agent, SIGNAL_GRACE_MS);
	}
	reap(agent);
}

static void client_left(struct connection *connection)
{
	stream_close(&connection->stream);
	if (connection->state == STATE_EXECUTING)
		execution_abandon(connection->execution);
	else
		connection->state = STATE_OVER;
}

static void fail(struct connection *connection, const struct failure *failure)
{
	(void)stream_send_failure(&connection->stream, failure);
	connection->state = STATE_CLOSING;
}

static void begin(struct agent *agent, struct connection *connection, const uint8_t *payload,
		  size_t size)
{
	struct request request = { .streams = agent->count, .epoch = &agent->epoch };
	struct failure failure;

	if (agent->broken) {
		fail(connection, &agent->failure);
		return;
	}
	switch (request_begin(&request, &connection->stream, payload, size, &failure)) {
	case REQUEST_EXECUTES:
		connection->execution = request.execution;
		connection->state = STATE_EXECUTING;
		break;
	case REQUEST_ENDS:
		end(agent, request.grace_ms);
		connection->state = STATE_CLOSING;
		break;
	case REQUEST_ANSWERED:
		connection->state = STATE_CLOSING;
		break;
	case REQUEST_GIVEN:
		client_left(connection);
		break;
	default:
		fail(connection, &failure);
		break;
	}
}

/* The client does not keep to the protocol. */
static void refuse(struct connection *connection)
{
	struct failure failure;

	failure_set(&failure, "a frame that cannot come here");
	if (connection->execution)
		execution_abandon(connection->execution);
	fail(connection, &failure);
}

static void forget_request(struct connection *connection)
{
	free(connection->request);
	connection->request = NULL;
	connection->request_used = 0;
}

static bool add_to_request(struct connection *connection, const uint8_t *payload, size_t size)
{
	uint8_t *longer;

	if (size > PROTOCOL_REQUEST_MAX - connection->request_used)
		return false;
	longer = realloc(connection->request, connection->request_used + size + 1);
	if (!longer)
		return false;
	connection->request = longer;
	memcpy(longer + connection->request_used, payload, size);
	connection->request_used += size;
	return true;
}

static void take_request(struct agent *agent, struct connection *connection, uint8_t type,
			 const uint8_t *payload, size_t size)
{
	const bool in_parts = type == PROTOCOL_REQUEST_PART || connection->request;

	if (in_parts && !add_to_request(connection, payload, size)) {
		refuse(connection);
	} else if (type == PROTOCOL_REQUEST && in_parts) {
		begin(agent, connection, connection->request, connection->request_used);
		forget_request(connection);
	} else if (type == PROTOCOL_REQUEST) {
		begin(agent, connection, payload, size);
	}
}

static bool takes_frames(const struct connection *connection)
{
	return connection->state == STATE_WAITING || connection->state == STATE_EXECUTING;
}

static void take_frames(struct agent *agent, struct connection *connection)
{
	struct stream *stream = &connection->stream;
	ssize_t size = 0;

	while (takes_frames(connection) && (size = stream_frame(stream)) > 0) {
		const uint8_t *payload = stream->in + PROTOCOL_HEADER_SIZE;
		size_t payload_size = (size_t)size - PROTOCOL_HEADER_SIZE;

		if (connection->state == STATE_EXECUTING) {
			if (!execution_take(connection->execution, stream->in[0], payload,
					    payload_size))
				refuse(connection);
		} else if (stream->in[0] == PROTOCOL_REQUEST ||
			   stream->in[0] == PROTOCOL_REQUEST_PART) {
			take_request(agent, connection, stream->in[0], payload, payload_size);
		} else {
			refuse(connection);
		}
		stream_drop(stream, (size_t)size);
	}
	if (size < 0)
		refuse(connection);
}

static bool is_connected(int fd)
{
	int error = 0;
	socklen_t size = sizeof(error);

	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0;
}

static void serve_stream(struct agent *agent, struct connection *connection, short events)
{
	struct stream *stream = &connection->stream;

	if (connection->state == STATE_CONNECTING) {
		if (!events)
			return;
		/* Nobody there waits for this guest. */
		if (!is_connected(stream->fd)) {
			client_left(connection);
			return;
		}
		connection->state = STATE_WAITING;
	}
	if (events & (POLLIN | POLLHUP | POLLERR)) {
		if (!stream_receive(stream))
			client_left(connection);
		else if (connection->state == STATE_CLOSING)
			stream->in_used = 0; /* what comes too late is not wanted */
		else
			take_frames(agent, connection);
	}
}

/* What there is to write is written at once, and waited for only if it is not taken. */
static void flush(struct connection *connection)
{
	struct stream *stream = &connection->stream;

	if (stream->fd < 0 || connection->state == STATE_CONNECTING)
		return;
	if (!stream_flush(stream))
		client_left(connection);
	else if (connection->state == STATE_CLOSING && !stream_pending(stream))
		client_left(connection);
}

static void serve(struct agent *agent, struct connection *connection, const struct pollfd *fds)
{
	struct stream *stream = &connection->stream;

	if (stream->fd >= 0)
		serve_stream(agent, connection, fds[0].revents);
	if (connection->execution &&
	    execution_serve(connection->execution,
			    connection->state == STATE_EXECUTING && stream->fd >= 0 ? stream : NULL,
			    fds + 1)) {
		if (execution_is_over(connection->execution)) {
			execution_free(connection->execution);
			connection->execution = NULL;
		}
		if (connection->state == STATE_EXECUTING)
			connection->state = stream->fd >= 0 ? STATE_CLOSING : STATE_OVER;
	}
	flush(connection);
}

static void remove_those_over(struct agent *agent)
{
	struct connection **at = &agent->connections;

	while (*at) {
		struct connection *connection = *at;

		/* A program that does not end yet is still to be waited for. */
		if (connection->state != STATE_OVER || connection->execution) {
			at = &connection->next;
			continue;
		}
		*at = connection->next;
		stream_close(&connection->stream);
		forget_request(connection);
		free(connection);
		agent->count--;
	}
}

static void accept_clients(struct agent *agent)
{
	int fd;

	while (agent->count < AGENT_CONNECTIONS_MAX &&
	       (fd = accept4(agent->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0)
		add_connection(agent, fd, STATE_WAITING);
}

static void wait_for(struct connection *connection, struct pollfd *fds)
{
	struct stream *stream = &connection->stream;
	size_t room;
	bool has_room = true;

	fds[0] = (struct pollfd){ .fd = stream->fd, .events = POLLIN };
	if (stream_pending(stream) || connection->state == STATE_CONNECTING)
		fds[0].events |= POLLOUT;
	for (int i = 0; i < EXECUTION_FDS; i++)
		fds[1 + i].fd = -1;
	if (!connection->execution)
		return;
	if (stream->fd >= 0)
		has_room = stream_room(stream, &room) != NULL;
	execution_wait(connection->execution, has_room, fds + 1);
}

/* In milliseconds, as poll wants it; -1: for ever. */
static int time_left(const struct agent *agent)
{
	int64_t first = agent->ending ? agent->end_ns : INT64_MAX, left;

	for (const struct connection *at = agent->connections; at; at = at->next) {
		int64_t next = at->execution ? execution_next_ns(at->execution) : INT64_MAX;

		if (next < first)
			first = next;
	}
	if (first == INT64_MAX)
		return -1;
	left = (first - now_ns() + 999999) / 1000000;
	return left < 0 ? 0 : left > INT32_MAX ? INT32_MAX : (int)left;
}

static void handle_time(struct agent *agent)
{
	int64_t now = now_ns();

	for (struct connection *at = agent->connections; at; at = at->next) {
		if (at->execution)
			execution_expire(at->execution, now);
	}
	if (agent->ending && (agent->end_ns <= now || (agent->all_exited && all_is_said(agent)))) {
		kill(-1, SIGKILL);
		setup_power_off();
	}
}

void agent_run(struct agent *agent)
{
	static struct pollfd fds[2 + AGENT_CONNECTIONS_MAX * (1 + EXECUTION_FDS)];

	for (;;) {
		nfds_t count = 2;
		size_t i = 2;

		fds[0] = (struct pollfd){ .fd = agent->signals, .events = POLLIN };
		fds[1] = (struct pollfd){ .fd = agent->count < AGENT_CONNECTIONS_MAX
							? agent->listener
							: -1,
					  .events = POLLIN };
		for (struct connection *at = agent->connections; at; at = at->next) {
			wait_for(at, fds + count);
			count += 1 + EXECUTION_FDS;
		}
		if (poll(fds, count, time_left(agent)) < 0)
			continue;
		if (fds[0].revents)
			handle_signals(agent);
		for (struct connection *at = agent->connections; at;
		     at = at->next, i += 1 + EXECUTION_FDS)
			serve(agent, at, fds + i);
		remove_those_over(agent);
		if (fds[1].revents)
			accept_clients(agent);
		handle_time(agent);
	}
}
