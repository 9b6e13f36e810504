/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/session.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "cli/cli.h"
#include "cli/clock.h"

/* Input is not read before there is room for so much of it. */
#define STDIN_CHUNK PROTOCOL_PAYLOAD_MAX
/* The agent keeps time limits. Who has taken it over does not: it has so long. */
#define AGENT_GRACE_MS 5000

int session_open(struct session *session, struct err *err)
{
	static const int numbers[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH };
	sigset_t signals;

	memset(session, 0, offsetof(struct session, out));
	session->fd = -1;
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&signals);
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		sigaddset(&signals, numbers[i]);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	session->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	return session->signal_fd < 0 ? err_sys(err, errno, "signalfd") : 0;
}

void session_close(struct session *session)
{
	terminal_restore(&session->terminal);
	fd_close(&session->fd);
	/* Descriptor 0 is standard input, so a zeroed object is recognised by it. */
	if (session->signal_fd > 0)
		fd_close(&session->signal_fd);
}

/* The one place where bytes for the agent wait; false if there is no room for the frame. */
static bool queue_frame(struct session *session, uint8_t type, const void *payload, size_t size)
{
	if (sizeof(session->out) - session->out_used < PROTOCOL_HEADER_SIZE + size)
		return false;
	agent_frame_header(session->out + session->out_used, type, (uint32_t)size);
	memcpy(session->out + session->out_used + PROTOCOL_HEADER_SIZE, payload, size);
	session->out_used += PROTOCOL_HEADER_SIZE + size;
	return true;
}

static void flush(struct session *session)
{
	while (session->out_at < session->out_used) {
		ssize_t n = send(session->fd, session->out + session->out_at,
				 session->out_used - session->out_at, MSG_NOSIGNAL);

		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0 && errno != EINTR)
			break; /* that the agent has gone is noticed when reading */
		if (n > 0)
			session->out_at += (size_t)n;
	}
	session->out_at = session->out_used = 0;
}

static void end(struct session *session, enum session_end how, int status)
{
	session->result.end = how;
	session->result.status = status;
	/* What comes now does not concern the program. */
	terminal_restore(&session->terminal);
}

static json_t *tty_object(void)
{
	uint16_t rows, columns;

	(void)terminal_size(&rows, &columns);
	return json_pack("{s:i, s:i}", "rows", rows, "columns", columns);
}

/* NULL if something is not UTF-8. */
static char *request_text(const struct session_request *request)
{
	json_t *exec = json_pack("{s:O, s:O, s:s*, s:s*, s:o*, s:I, s:b, s:b}", "argv",
				 request->argv, "env", request->env, "cwd", request->cwd, "user",
				 request->user, "tty", request->tty ? tty_object() : NULL,
				 "timeout_ms", (json_int_t)request->timeout_ms, "keep",
				 request->keep, "stdin", !request->no_stdin);
	json_t *json = json_pack("{s:o*}", "exec", exec);
	char *text = exec && json ? json_dumps(json, JSON_COMPACT) : NULL;

	json_decref(json);
	return text;
}

int session_start(struct session *session, int fd, const struct session_request *request,
		  struct err *err)
{
	char *text = request_text(request);
	bool fits;

	session->fd = fd;
	session->tty = request->tty;
	session->window = PROTOCOL_STDIN_WINDOW;
	if (request->timeout_ms > 0)
		session->deadline_ms = clock_ms() + request->timeout_ms + AGENT_GRACE_MS;
	session->stdin_over = request->no_stdin;
	if (!text)
		return err_set(err, EINVAL, "the command's arguments are not UTF-8");
	fits = strlen(text) <= PROTOCOL_PAYLOAD_MAX &&
	       queue_frame(session, PROTOCOL_REQUEST, text, strlen(text));
	free(text);
	if (!fits)
		return err_set(err, E2BIG,
			       "the command and its environment are longer than %d bytes",
			       PROTOCOL_PAYLOAD_MAX);
	if (request->tty)
		terminal_make_raw(&session->terminal);
	flush(session);
	return 0;
}

static void send_size(struct session *session)
{
	uint16_t rows, columns;

	if (session->tty && session->fd >= 0 && terminal_size(&rows, &columns)) {
		const uint16_t payload[2] = { htole16(rows), htole16(columns) };

		queue_frame(session, PROTOCOL_WINDOW, payload, sizeof(payload));
	}
}

/* The first signal goes to the program, if it can be told; the next ends the session. */
static void handle_signal(struct session *session)
{
	struct signalfd_siginfo info;
	uint8_t number;

	if (read(session->signal_fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
		return;
	number = (uint8_t)info.ssi_signo;
	if (number == SIGWINCH) {
		send_size(session);
	} else if (session->fd >= 0 && !session->interrupted &&
		   queue_frame(session, PROTOCOL_SIGNAL, &number, 1)) {
		session->interrupted = true;
	} else {
		end(session, SESSION_LEFT, 128 + number);
	}
	if (session->fd >= 0)
		flush(session);
}

/*
 * Passes the program's output on. A reader that is slow is waited for, but signals still work; one
 * that has gone ends the session as it would end the program outside a VM.
 */
static int write_output(struct session *session, int fd, const uint8_t *data, size_t size,
			struct err *err)
{
	if (session->sink) {
		session->sink(session->sink_opaque, data, size);
		return 0;
	}
	while (size > 0 && session->result.end == SESSION_RUNS) {
		struct pollfd fds[] = {
			{ .fd = fd, .events = POLLOUT },
			{ .fd = session->signal_fd, .events = POLLIN },
		};
		const int64_t begin_ms = clock_ms();
		ssize_t n = poll(fds, 2, -1);

		/* The guest is not to blame for it. */
		if (session->deadline_ms > 0)
			session->deadline_ms += clock_ms() - begin_ms;
		if (n < 0)
			continue;
		if (fds[1].revents)
			handle_signal(session);
		if (!fds[0].revents)
			continue;
		/* Into a pipe that is writable so much goes without waiting. */
		n = write(fd, data, size < PIPE_BUF ? size : PIPE_BUF);
		if (n < 0 && errno == EPIPE)
			end(session, SESSION_LEFT, 128 + SIGPIPE);
		else if (n < 0 && errno != EAGAIN && errno != EINTR)
			return err_sys(err, errno, "standard %s",
				       fd == STDOUT_FILENO ? "output" : "error");
		else if (n > 0) {
			data += n;
			size -= (size_t)n;
		}
	}
	return 0;
}

static int write_gathered(struct session *session, struct err *err)
{
	size_t size = session->gathered;

	session->gathered = 0;
	return write_output(session, session->gathered_fd, session->output, size, err);
}

/* A program that writes byte by byte makes as many frames. */
static int take_output(struct session *session, int fd, const struct agent_frame *frame,
		       struct err *err)
{
	if (session->gathered > 0 && (fd != session->gathered_fd ||
				      frame->size > sizeof(session->output) - session->gathered)) {
		int rc = write_gathered(session, err);

		if (rc < 0)
			return rc;
	}
	memcpy(session->output + session->gathered, frame->payload, frame->size);
	session->gathered_fd = fd;
	session->gathered += frame->size;
	return 0;
}

static void take_exit(struct session *session, const struct agent_frame *frame)
{
	struct session_result *result = &session->result;
	json_t *json = json_loadb((const char *)frame->payload, frame->size, 0, NULL);
	int timed_out = 0, oom_killed = 0;
	json_int_t code = -1, number = 0, user_us = 0, system_us = 0, peak = 0;

	if (json_unpack(json, "{s?I, s?I, s?b, s?b, s?I, s?I, s?I}", "code", &code, "signal",
			&number, "timed_out", &timed_out, "oom_killed", &oom_killed, "user_us",
			&user_us, "system_us", &system_us, "memory_peak_bytes", &peak) < 0)
		code = number = -1;
	json_decref(json);
	result->timed_out = timed_out;
	result->oom_killed = oom_killed;
	result->user_us = (uint64_t)user_us;
	result->system_us = (uint64_t)system_us;
	result->memory_peak_bytes = (uint64_t)peak;
	if (number > 0 && number < NSIG) {
		end(session, SESSION_SIGNALED, (int)number);
	} else if (number == 0 && code >= 0 && code < 256) {
		end(session, SESSION_EXITED, (int)code);
	} else {
		err_set(&result->error, EPROTO, "the guest's agent does not say how it ended");
		end(session, SESSION_REFUSED, CLI_EXIT_SANDBOX);
	}
}

static void take_error(struct session *session, const struct agent_frame *frame)
{
	json_t *json = json_loadb((const char *)frame->payload, frame->size, 0, NULL);
	int status = CLI_EXIT_SANDBOX;

	agent_error_text(json, &session->result.error);
	(void)json_unpack(json, "{s:i}", "status", &status);
	end(session, SESSION_REFUSED, status > 0 && status < 256 ? status : CLI_EXIT_SANDBOX);
	json_decref(json);
}

/* All output before it has been passed on first. */
static int take_end(struct session *session, const struct agent_frame *frame, struct err *err)
{
	int rc = write_gathered(session, err);

	if (rc < 0 || session->result.end != SESSION_RUNS)
		return rc;
	if (frame->type == PROTOCOL_EXIT)
		take_exit(session, frame);
	else
		take_error(session, frame);
	return 0;
}

static int take_frame(struct session *session, const struct agent_frame *frame, struct err *err)
{
	uint32_t taken;

	switch (frame->type) {
	case PROTOCOL_STDOUT:
		session->result.stdout_bytes += frame->size;
		return take_output(session, STDOUT_FILENO, frame, err);
	case PROTOCOL_STDERR:
		session->result.stderr_bytes += frame->size;
		return take_output(session, STDERR_FILENO, frame, err);
	case PROTOCOL_EXIT:
	case PROTOCOL_ERROR:
		return take_end(session, frame, err);
	case PROTOCOL_STARTED:
		session->started = true;
		return 0;
	case PROTOCOL_TAKEN:
		if (frame->size != sizeof(taken))
			break;
		memcpy(&taken, frame->payload, sizeof(taken));
		taken = le32toh(taken);
		if (taken > PROTOCOL_STDIN_WINDOW - session->window)
			break;
		session->window += taken;
		return 0;
	default:
		break;
	}
	return err_set(err, EPROTO, "the guest's agent sent a frame of type %u that cannot be",
		       frame->type);
}

static int receive(struct session *session, struct err *err)
{
	struct agent_frame frame;
	size_t room;
	uint8_t *to = agent_reader_room(&session->reader, &room);
	ssize_t n = read(session->fd, to, room);
	int rc = 0;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0) {
		end(session, SESSION_LOST, CLI_EXIT_SANDBOX);
		return 0;
	}
	agent_reader_added(&session->reader, (size_t)n);
	while (session->result.end == SESSION_RUNS &&
	       (rc = agent_reader_next(&session->reader, &frame, err)) > 0) {
		rc = take_frame(session, &frame, err);
		if (rc < 0)
			return rc;
	}
	return rc < 0 ? rc : write_gathered(session, err);
}

static void read_stdin(struct session *session)
{
	static uint8_t data[STDIN_CHUNK];
	size_t room = sizeof(session->out) - session->out_used - PROTOCOL_HEADER_SIZE;
	ssize_t n;

	if (room > session->window)
		room = session->window;
	if (room > sizeof(data))
		room = sizeof(data);
	n = read(STDIN_FILENO, data, room);
	if (n > 0) {
		session->window -= (uint32_t)n;
		session->result.stdin_bytes += (uint64_t)n;
		queue_frame(session, PROTOCOL_STDIN, data, (size_t)n);
	} else if (n == 0 || (errno != EINTR && errno != EAGAIN)) {
		session->stdin_over = queue_frame(session, PROTOCOL_STDIN_END, "", 0);
	}
}

void session_wait(const struct session *session, struct pollfd fds[SESSION_FDS])
{
	bool pending = session->out_at < session->out_used;
	bool reads = session->fd >= 0 && !session->stdin_over && !pending && session->window > 0;

	fds[0] = (struct pollfd){ .fd = session->fd,
				  .events = (short)(POLLIN | (pending ? POLLOUT : 0)) };
	fds[1] = (struct pollfd){ .fd = reads ? STDIN_FILENO : -1, .events = POLLIN };
	fds[2] = (struct pollfd){ .fd = session->signal_fd, .events = POLLIN };
}

int session_timeout_ms(const struct session *session)
{
	const int64_t left = session->deadline_ms - clock_ms();

	if (session->deadline_ms == 0 || session->result.end != SESSION_RUNS)
		return -1;
	return left < 0 ? 0 : left < INT_MAX ? (int)left : INT_MAX;
}

bool session_take_signal(struct session *session)
{
	const bool interrupted = session->interrupted;

	/* There is no program that it could be for. */
	session->interrupted = true;
	handle_signal(session);
	session->interrupted = interrupted;
	return session->result.end == SESSION_LEFT;
}

int session_serve(struct session *session, const struct pollfd fds[SESSION_FDS], struct err *err)
{
	int rc = 0;

	if (fds[2].revents)
		handle_signal(session);
	if (fds[1].revents && session->result.end == SESSION_RUNS)
		read_stdin(session);
	if (session->fd >= 0)
		flush(session);
	if (fds[0].revents & (POLLIN | POLLHUP | POLLERR) && session->result.end == SESSION_RUNS)
		rc = receive(session, err);
	if (rc == 0 && session_timeout_ms(session) == 0) {
		session->result.timed_out = true;
		end(session, SESSION_OVERDUE, CLI_EXIT_TIMEOUT);
	}
	return rc;
}

int session_report(const struct session_result *result)
{
	int status = result->end == SESSION_SIGNALED ? 128 + result->status : result->status;

	if (result->end == SESSION_REFUSED) {
		(void)cli_fail(status, &result->error);
	} else if (result->end == SESSION_OVERDUE) {
		fputs("mote: the command's time was over, and the guest did not end it\n", stderr);
	} else if (result->timed_out) {
		fputs("mote: the command was killed as its time was over\n", stderr);
		return CLI_EXIT_TIMEOUT;
	} else if (result->oom_killed && status == 128 + SIGKILL) {
		fputs("mote: the command was killed as the guest had no memory left\n", stderr);
	}
	return status;
}
