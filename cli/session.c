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

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "cli/cli.h"
#include "host/bytes.h"
#include "host/signals.h"

/* Input is not read before there is room for so much of it. */
#define STDIN_CHUNK PROTOCOL_PAYLOAD_MAX
/* The agent keeps time limits. Who has taken it over does not: it has so long. */
#define AGENT_GRACE_MS 5000

static void fill_signals(sigset_t *signals)
{
	sigemptyset(signals);
	for (int number = 1; number <= SIGRTMAX; number++) {
		if (signal_is_passed_on(number))
			sigaddset(signals, number);
	}
}

int session_open(struct session *session, struct err *err)
{
	sigset_t signals;

	memset(session, 0, offsetof(struct session, out));
	session->fd = -1;
	signal(SIGPIPE, SIG_IGN);
	fill_signals(&signals);
	sigprocmask(SIG_BLOCK, &signals, &session->mask_before);
	session->holds_signals = true;
	session->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	return session->signal_fd < 0 ? err_sys(err, errno, "signalfd") : 0;
}

static void forget_request(struct session *session)
{
	free(session->request);
	session->request = NULL;
	session->request_size = session->request_at = 0;
}

void session_close(struct session *session)
{
	terminal_restore(&session->terminal);
	forget_request(session);
	fd_close(&session->fd);
	/* Descriptor 0 is standard input, so a zeroed object is recognised by it. */
	if (session->signal_fd > 0)
		fd_close(&session->signal_fd);
}

void session_release_signals(struct session *session)
{
	const struct timespec now = { 0 };
	sigset_t signals;

	if (!session->holds_signals)
		return;
	fill_signals(&signals);
	while (sigtimedwait(&signals, NULL, &now) > 0)
		;
	sigprocmask(SIG_SETMASK, &session->mask_before, NULL);
	session->holds_signals = false;
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

/* All of it, in as many frames as it takes. */
static int queue_request(struct session *session, const char *text, struct err *err)
{
	const size_t size = strlen(text);
	const size_t frames = size / PROTOCOL_PAYLOAD_MAX + 1;
	uint8_t *to;

	if (size > PROTOCOL_REQUEST_MAX)
		return err_set(err, E2BIG,
			       "the command and its environment are longer than %d bytes as JSON",
			       PROTOCOL_REQUEST_MAX);
	session->request = malloc(size + frames * PROTOCOL_HEADER_SIZE);
	if (!session->request)
		return err_sys(err, ENOMEM, "the command");
	to = session->request;
	for (size_t at = 0, left = frames; left > 0; left--) {
		const size_t part = left > 1 ? PROTOCOL_PAYLOAD_MAX : size - at;

		agent_frame_header(to, left > 1 ? PROTOCOL_REQUEST_PART : PROTOCOL_REQUEST,
				   (uint32_t)part);
		memcpy(to + PROTOCOL_HEADER_SIZE, text + at, part);
		to += PROTOCOL_HEADER_SIZE + part;
		at += part;
	}
	session->request_size = (size_t)(to - session->request);
	return 0;
}

/* False if the rest has to wait. That the agent has gone is noticed when reading. */
static bool send_all(struct session *session, const uint8_t *data, size_t size, size_t *at)
{
	while (*at < size) {
		ssize_t n = send(session->fd, data + *at, size - *at, MSG_NOSIGNAL);

		if (n < 0 && errno == EAGAIN)
			return false;
		if (n < 0 && errno != EINTR)
			break;
		*at += n > 0 ? (size_t)n : 0;
	}
	return true;
}

static void flush(struct session *session)
{
	if (!send_all(session, session->request, session->request_size, &session->request_at))
		return;
	forget_request(session);
	if (send_all(session, session->out, session->out_used, &session->out_at))
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

/* NULL if the user is not UTF-8. */
static char *request_text(const struct session_request *request)
{
	json_t *exec = json_pack(
		"{s:o, s:o, s:o*, s:b, s:s*, s:o*, s:I, s:b, s:b, s:O*}", "argv",
		bytes_encode_list(request->argv), "env", bytes_encode_list(request->env), "cwd",
		request->cwd ? bytes_encode(request->cwd) : NULL, "make_cwd", request->make_cwd,
		"user", request->user, "tty", request->tty ? tty_object() : NULL, "timeout_ms",
		(json_int_t)request->timeout_ms, "keep", request->keep, "stdin", !request->no_stdin,
		"rlimits", request->rlimits);
	json_t *json = json_pack("{s:o*}", "exec", exec);
	char *text = exec && json ? json_dumps(json, JSON_COMPACT) : NULL;

	json_decref(json);
	return text;
}

int session_start(struct session *session, int fd, const struct session_request *request,
		  struct err *err)
{
	char *text = request_text(request);
	int rc;

	session->fd = fd;
	session->tty = request->tty;
	session->window = PROTOCOL_STDIN_WINDOW;
	if (request->timeout_ms > 0)
		session->deadline_ms = clock_ms() + request->timeout_ms + AGENT_GRACE_MS;
	session->stdin_over = request->no_stdin;
	if (!text)
		return err_set(err, EINVAL, "the user's name is not UTF-8");
	rc = queue_request(session, text, err);
	free(text);
	if (rc < 0)
		return rc;
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

/* Those that ask a program to end. One that nobody is at the terminal of takes HUP for other ends.
 */
static bool is_ending(const struct session *session, int number)
{
	return number == SIGINT || number == SIGTERM || number == SIGQUIT ||
	       (number == SIGHUP && !session->sink);
}

/* The program stops, and so does this process, until it gets CONT, which is passed on then. */
static void stop(struct session *session)
{
	terminal_restore(&session->terminal);
	raise(SIGSTOP);
	if (session->tty && session->fd >= 0)
		terminal_make_raw(&session->terminal);
}

/*
 * To the program, if it can be told; the second that asks it to end ends the session, as it does
 * not follow. In the background nobody waits, and whoever ends a microVM there has other ways.
 */
static void pass_on(struct session *session, uint8_t number)
{
	const bool ending = is_ending(session, number);

	if (session->fd >= 0 && !(ending && session->interrupted) &&
	    queue_frame(session, PROTOCOL_SIGNAL, &number, 1))
		session->interrupted = session->interrupted || (ending && !session->sink);
	else if (ending)
		end(session, SESSION_LEFT, 128 + number);
}

static void handle_signal(struct session *session)
{
	struct signalfd_siginfo info;

	if (read(session->signal_fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
		return;
	/* The guest's terminal makes a signal of it. */
	if (info.ssi_signo == SIGWINCH && session->tty)
		send_size(session);
	else
		pass_on(session, (uint8_t)info.ssi_signo);
	if (session->fd >= 0)
		flush(session);
	/* In the background there are still its output and its end to be taken. */
	if (info.ssi_signo == SIGTSTP && !session->sink)
		stop(session);
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
	bool pending = session->request || session->out_at < session->out_used;
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
