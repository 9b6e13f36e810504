/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/execution.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agent-protocol/protocol.h"
#include "guest/stream.h"

#define END_OF_TRANSMISSION "\x04"
/*
 * A program that writes little at a time wakes the agent each time. One that does so again within
 * this time is left alone for as long, and what it has written meanwhile is one frame.
 */
#define GATHER_NS 1000000
#define GATHER_BELOW 4096
/* The client is told of bytes taken when they are so many, or nothing waits any more. */
#define TAKEN_WORTH_TELLING (PROTOCOL_STDIN_WINDOW / 4)

/* Twice what a pipe holds, and two of them. */
#define LATE_MAX (4 * 65536)

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void close_end(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

struct execution *execution_start(json_t *request, const json_t *exec, struct failure *failure)
{
	struct execution *execution = calloc(1, sizeof(*execution));

	if (!execution) {
		failure_sys(failure, ENOMEM, "exec");
		json_decref(request);
		return NULL;
	}
	execution->request = request;
	if (program_parse(&execution->program, exec, failure) == 0) {
		cgroup_open(&execution->cgroup);
		if (program_start(&execution->program, &execution->cgroup, &execution->process,
				  failure) == 0) {
			if (execution->program.timeout_ms > 0)
				execution->deadline_ns =
					now_ns() + execution->program.timeout_ms * 1000000;
			return execution;
		}
		cgroup_close(&execution->cgroup);
	}
	json_decref(request);
	free(execution);
	return NULL;
}

static void kill_all(const struct execution *execution)
{
	cgroup_kill(&execution->cgroup);
	if (!execution->exited)
		kill(-execution->process.pid, SIGKILL);
}

void execution_free(struct execution *execution)
{
	if (!execution->program.keep)
		kill_all(execution);
	close_end(&execution->process.report);
	close_end(&execution->process.in);
	close_end(&execution->process.out);
	close_end(&execution->process.err);
	cgroup_close(&execution->cgroup);
	free(execution->input);
	json_decref(execution->request);
	free(execution);
}

static void feed(struct execution *execution)
{
	struct process *process = &execution->process;

	while (execution->input_used > 0 && process->in >= 0) {
		size_t part = PROTOCOL_STDIN_WINDOW - execution->input_at;
		ssize_t n = write(process->in, execution->input + execution->input_at,
				  part < execution->input_used ? part : execution->input_used);

		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0 && errno != EINTR)
			close_end(&process->in); /* it does not read any more */
		if (n > 0) {
			execution->input_at =
				(execution->input_at + (size_t)n) % PROTOCOL_STDIN_WINDOW;
			execution->input_used -= (size_t)n;
			execution->taken += (uint32_t)n;
		}
	}
	if (process->in < 0) {
		execution->taken += (uint32_t)execution->input_used;
		execution->input_used = 0;
	} else if (execution->input_ends) {
		/* A terminal has no end; its line discipline makes one of this. */
		if (!execution->program.tty)
			close_end(&process->in);
		else if (write(process->in, END_OF_TRANSMISSION, 1) < 0 && errno == EAGAIN)
			return;
		execution->input_ends = false;
	}
}

static bool take_input(struct execution *execution, const uint8_t *data, size_t size)
{
	if (execution->input_ends || size > PROTOCOL_STDIN_WINDOW - execution->input_used)
		return false;
	if (!execution->input)
		execution->input = malloc(PROTOCOL_STDIN_WINDOW);
	if (!execution->input)
		return false;
	for (size_t done = 0; done < size;) {
		size_t to = (execution->input_at + execution->input_used) % PROTOCOL_STDIN_WINDOW;
		size_t part = PROTOCOL_STDIN_WINDOW - to;

		if (part > size - done)
			part = size - done;
		memcpy(execution->input + to, data + done, part);
		execution->input_used += part;
		done += part;
	}
	feed(execution);
	return true;
}

/* Whether the program does something of its own about the signal, or nothing. */
static bool handles(pid_t pid, int number)
{
	unsigned long long ignored = 0, caught = 0;
	char path[32], line[128];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file)) {
		(void)sscanf(line, "SigIgn: %llx", &ignored);
		(void)sscanf(line, "SigCgt: %llx", &caught);
	}
	if (file)
		fclose(file);
	return ((ignored | caught) >> (number - 1) & 1) != 0;
}

/*
 * A group whose parents are all in another session is never stopped by the signals of a terminal:
 * nobody would be there to continue it. Here the client is.
 */
static void send_signal(const struct execution *execution, int number)
{
	const pid_t pid = execution->process.pid;
	const bool stops = number == SIGTSTP || number == SIGTTIN || number == SIGTTOU;

	kill(-pid, stops && !handles(pid, number) ? SIGSTOP : number);
}

bool execution_take(struct execution *execution, uint8_t type, const uint8_t *payload, size_t size)
{
	switch (type) {
	case PROTOCOL_STDIN:
		return take_input(execution, payload, size);
	case PROTOCOL_STDIN_END:
		execution->input_ends = true;
		feed(execution);
		return true;
	case PROTOCOL_SIGNAL:
		if (size != 1)
			return false;
		if (!execution->exited)
			send_signal(execution, payload[0]);
		return true;
	case PROTOCOL_WINDOW:
		if (size != 4)
			return false;
		if (execution->program.tty && execution->process.out >= 0)
			program_set_window(execution->process.out,
					   (uint16_t)(payload[0] | payload[1] << 8),
					   (uint16_t)(payload[2] | payload[3] << 8));
		return true;
	default:
		return false;
	}
}

void execution_wait(struct execution *execution, bool room, struct pollfd fds[EXECUTION_FDS])
{
	const struct process *process = &execution->process;
	bool ending = execution->exited && !execution->alone;

	room = room && (execution->resume_ns == 0 || execution->exited);
	fds[0] = (struct pollfd){ .fd = process->report, .events = POLLIN };
	fds[1] = (struct pollfd){ .fd = execution->input_used > 0 || execution->input_ends
						? process->in
						: -1,
				  .events = POLLOUT };
	fds[2] = (struct pollfd){ .fd = room ? process->out : -1, .events = POLLIN };
	fds[3] = (struct pollfd){ .fd = room ? process->err : -1, .events = POLLIN };
	fds[4] = (struct pollfd){ .fd = ending ? execution->cgroup.events_fd : -1,
				  .events = POLLPRI };
}

static void gather(struct execution *execution)
{
	int64_t now = now_ns();

	if (now - execution->read_ns < GATHER_NS)
		execution->resume_ns = now + GATHER_NS;
	execution->read_ns = now;
}

/* Passes on what there is, at most one frame of it; false if there was nothing, or no room. */
static bool forward(struct execution *execution, int *fd, uint8_t type, struct stream *stream)
{
	static uint8_t dropped[4096];
	size_t room = sizeof(dropped);
	uint8_t *to = stream ? stream_room(stream, &room) : dropped;
	ssize_t n;

	if (!to || *fd < 0)
		return false;
	n = read(*fd, to, room);
	if (n > 0 && stream)
		stream_add(stream, type, (size_t)n);
	if (n > 0 && execution->exited)
		execution->late += (uint64_t)n;
	if (n > 0 && n < GATHER_BELOW)
		gather(execution);
	/* EIO: the last one who had the terminal open has closed it. */
	if (n == 0 || (n < 0 && errno != EINTR && (errno != EAGAIN || execution->alone)))
		close_end(fd);
	return n > 0;
}

/* Once nobody else can write to the stream, nothing will tell of what is left in it. */
static void forward_all(struct execution *execution, int *fd, uint8_t type, struct stream *stream)
{
	while (forward(execution, fd, type, stream) && execution->alone)
		;
}

static void tell_taken(struct execution *execution, struct stream *stream)
{
	uint32_t taken = execution->taken;
	const uint8_t payload[4] = { (uint8_t)taken, (uint8_t)(taken >> 8), (uint8_t)(taken >> 16),
				     (uint8_t)(taken >> 24) };

	if (taken > 0 && (taken >= TAKEN_WORTH_TELLING || execution->input_used == 0) &&
	    stream_send(stream, PROTOCOL_TAKEN, payload, sizeof(payload)))
		execution->taken = 0;
}

static void read_report(struct execution *execution, struct stream *stream)
{
	int rc =
		program_report(execution->process.report, &execution->program, &execution->failure);

	execution->failed = execution->failed || rc < 0;
	if (rc == 0 && !execution->failed && execution->program.keep && stream)
		(void)stream_send(stream, PROTOCOL_STARTED, "", 0);
	if (rc <= 0)
		close_end(&execution->process.report);
}

static uint64_t microseconds(struct timeval time)
{
	return (uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_usec;
}

static bool send_exit(const struct execution *execution, struct stream *stream)
{
	const struct rusage *rusage = &execution->usage;
	/* Of the first process and those that it waited for, where there are no control groups. */
	struct cgroup_usage usage = {
		.user_us = microseconds(rusage->ru_utime),
		.system_us = microseconds(rusage->ru_stime),
		.memory_peak = (uint64_t)rusage->ru_maxrss << 10,
	};
	bool signalled = WIFSIGNALED(execution->status);
	char text[384];
	int n;

	(void)cgroup_usage(&execution->cgroup, &usage);
	n = snprintf(text, sizeof(text),
		     "{\"%s\": %d, \"timed_out\": %s, \"oom_killed\": %s, \"user_us\": %llu, "
		     "\"system_us\": %llu, \"memory_peak_bytes\": %llu}",
		     signalled ? "signal" : "code",
		     signalled ? WTERMSIG(execution->status) : WEXITSTATUS(execution->status),
		     execution->timed_out ? "true" : "false",
		     usage.oom_kills > 0 ? "true" : "false", (unsigned long long)usage.user_us,
		     (unsigned long long)usage.system_us, (unsigned long long)usage.memory_peak);
	return stream_send(stream, PROTOCOL_EXIT, text, (size_t)n);
}

/* False if there was no room to tell it. */
static bool send_end(const struct execution *execution, struct stream *stream)
{
	return execution->failed ? stream_send_failure(stream, &execution->failure)
				 : send_exit(execution, stream);
}

bool execution_is_over(const struct execution *execution)
{
	const struct process *process = &execution->process;

	return execution->exited && process->report < 0 && process->out < 0 && process->err < 0;
}

/*
 * What the first process of a program that is kept has written is out: nothing is there to be read,
 * or more than a pipe and a terminal can hold has come since.
 */
static bool has_said_all(const struct execution *execution)
{
	struct pollfd fds[] = { { .fd = execution->process.out, .events = POLLIN },
				{ .fd = execution->process.err, .events = POLLIN } };

	return execution->program.keep && execution->exited && execution->process.report < 0 &&
	       (execution->late > LATE_MAX || poll(fds, 2, 0) == 0);
}

bool execution_serve(struct execution *execution, struct stream *stream,
		     const struct pollfd fds[EXECUTION_FDS])
{
	struct process *process = &execution->process;
	bool exited = execution->exited;

	if (fds[0].revents)
		read_report(execution, stream);
	if (fds[1].revents)
		feed(execution);
	if (exited && !execution->alone)
		execution->alone = !cgroup_populated(&execution->cgroup);
	/* Whoever comes first may leave no room for the other. */
	execution->err_first = !execution->err_first;
	if (execution->err_first && (fds[3].revents || exited))
		forward_all(execution, &process->err, PROTOCOL_STDERR, stream);
	if (fds[2].revents || exited)
		forward_all(execution, &process->out, PROTOCOL_STDOUT, stream);
	if (!execution->err_first && (fds[3].revents || exited))
		forward_all(execution, &process->err, PROTOCOL_STDERR, stream);
	if (stream)
		tell_taken(execution, stream);
	if (!stream || execution->told)
		return execution_is_over(execution);
	if (exited && (execution_is_over(execution) || has_said_all(execution)))
		execution->told = send_end(execution, stream);
	return execution->told;
}

void execution_exited(struct execution *execution, int status, const struct rusage *usage)
{
	execution->exited = true;
	execution->status = status;
	execution->usage = *usage;
	execution->deadline_ns = 0;
	/* The program is over with its first process; what others are left would have no client. */
	if (!execution->program.keep && cgroup_populated(&execution->cgroup))
		cgroup_kill(&execution->cgroup);
	else if (!execution->program.keep && execution->cgroup.fd < 0)
		kill(-execution->process.pid, SIGKILL);
	close_end(&execution->process.in);
}

void execution_abandon(struct execution *execution)
{
	execution->input_ends = true;
	if (!execution->program.keep)
		kill_all(execution);
}

int64_t execution_next_ns(const struct execution *execution)
{
	int64_t next = execution->deadline_ns > 0 ? execution->deadline_ns : INT64_MAX;

	return execution->resume_ns > 0 && execution->resume_ns < next ? execution->resume_ns
								       : next;
}

void execution_expire(struct execution *execution, int64_t now)
{
	if (execution->resume_ns <= now)
		execution->resume_ns = 0;
	if (execution->deadline_ns == 0 || execution->deadline_ns > now)
		return;
	execution->timed_out = true;
	execution->deadline_ns = 0;
	kill_all(execution);
}
