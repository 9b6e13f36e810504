/* SPDX-License-Identifier: Apache-2.0 */
/* mote run: boots a microVM for one command and passes its input, output and status through. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "cli/agent_client.h"
#include "cli/cli.h"
#include "cli/passt.h"
#include "cli/run_options.h"
#include "cli/sandbox.h"

/* The guest powers off by itself once its command's status is reported. */
#define POWER_OFF_TIMEOUT_MS 2000
/* How long a VM may be silent that has written something else than frames. */
#define LINE_LOST_TIMEOUT_MS 5000

struct run {
	struct run_options options;
	struct passt passt;

	struct sandbox sandbox;
	struct agent_reader reader;
	bool ready; /* the agent has answered, the request is on its way */
	bool stdin_over;
	uint8_t out[PROTOCOL_HEADER_SIZE + PROTOCOL_PAYLOAD_MAX]; /* to the agent */
	size_t out_used;
	size_t out_at;
	bool line_lost; /* kernel messages are in between the frames now */
	bool done;
	bool interrupted; /* the command has been sent a signal */
	bool killed;	  /* a signal has ended the VM */
	int signal_fd;
	int status;
	int64_t command_done_ns;
};

static void finish(struct run *run, int status)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	run->command_done_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
	run->status = status;
	run->done = true;
}

/* The one place where bytes for the guest wait; false if there is no room for the frame. */
static bool queue_frame(struct run *run, uint8_t type, const void *payload, size_t size)
{
	if (sizeof(run->out) - run->out_used < PROTOCOL_HEADER_SIZE + size)
		return false;
	agent_frame_header(run->out + run->out_used, type, (uint32_t)size);
	memcpy(run->out + run->out_used + PROTOCOL_HEADER_SIZE, payload, size);
	run->out_used += PROTOCOL_HEADER_SIZE + size;
	return true;
}

static void flush_to_guest(struct run *run)
{
	ssize_t n =
		write(run->sandbox.console_in, run->out + run->out_at, run->out_used - run->out_at);

	if (n > 0)
		run->out_at += (size_t)n;
	/* When the VM is gone, its end is noticed by other means. */
	if (run->out_at == run->out_used || (n < 0 && errno != EAGAIN && errno != EINTR))
		run->out_at = run->out_used = 0;
}

static int send_request(struct run *run, char **argv, struct err *err)
{
	json_t *list = json_array();
	json_t *request;
	char *text;
	bool fits;

	for (; *argv; argv++)
		json_array_append_new(list, json_string(*argv));
	request = json_pack("{s:{s:o, s:O}}", "exec", "argv", list, "env", run->options.env);
	text = request ? json_dumps(request, JSON_COMPACT) : NULL;
	json_decref(request);
	if (!text)
		return err_set(err, EINVAL, "the command's arguments are not UTF-8");
	fits = strlen(text) <= PROTOCOL_PAYLOAD_MAX &&
	       queue_frame(run, PROTOCOL_REQUEST, text, strlen(text));
	free(text);
	return fits ? 0
		    : err_set(err, E2BIG,
			      "the command and its environment are longer than %d bytes",
			      PROTOCOL_PAYLOAD_MAX);
}

static int exit_status(const struct agent_frame *frame)
{
	json_t *result = json_loadb((const char *)frame->payload, frame->size, 0, NULL);
	const json_t *signal = json_object_get(result, "signal");
	const json_t *code = json_object_get(result, "code");
	int status = CLI_EXIT_SANDBOX;

	if (json_is_integer(signal))
		status = 128 + (int)(json_integer_value(signal) & 0x7f);
	else if (json_is_integer(code))
		status = (int)(json_integer_value(code) & 0xff);
	json_decref(result);
	return status;
}

/* The first signal goes to the command, if it can be told; the next ends the VM. */
static void handle_signal(struct run *run)
{
	struct signalfd_siginfo info;
	uint8_t number;

	if (read(run->signal_fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
		return;
	number = (uint8_t)info.ssi_signo;
	if (run->ready && !run->interrupted && queue_frame(run, PROTOCOL_SIGNAL, &number, 1)) {
		run->interrupted = true;
		return;
	}
	run->killed = true;
	finish(run, 128 + number);
}

/*
 * Passes the command's output on. A reader that is slow is waited for, but signals still work; one
 * that has gone ends the run as it would end the command outside a VM.
 */
static int write_output(struct run *run, int fd, const uint8_t *data, size_t size, struct err *err)
{
	while (size > 0 && !run->done) {
		struct pollfd fds[] = {
			{ .fd = fd, .events = POLLOUT },
			{ .fd = run->signal_fd, .events = POLLIN },
		};
		ssize_t n;

		if (poll(fds, 2, -1) < 0)
			continue;
		if (fds[1].revents) {
			handle_signal(run);
			/* What is to be sent must not wait for the reader. */
			flush_to_guest(run);
		}
		if (!fds[0].revents)
			continue;
		n = write(fd, data, size < PIPE_BUF ? size : PIPE_BUF);
		if (n < 0 && errno == EPIPE) {
			run->killed = true;
			finish(run, 128 + SIGPIPE);
		} else if (n < 0 && errno != EAGAIN && errno != EINTR) {
			return err_sys(err, errno, "standard %s",
				       fd == STDOUT_FILENO ? "output" : "error");
		} else if (n > 0) {
			data += n;
			size -= (size_t)n;
		}
	}
	return 0;
}

static int handle_frame(struct run *run, const struct agent_frame *frame, char **argv,
			struct err *err)
{
	switch (frame->type) {
	case PROTOCOL_READY:
		if (run->ready)
			return err_set(err, EPROTO, "the guest's agent was started twice");
		run->ready = true;
		return send_request(run, argv, err);
	case PROTOCOL_STDOUT:
	case PROTOCOL_STDERR:
		return write_output(run,
				    frame->type == PROTOCOL_STDOUT ? STDOUT_FILENO : STDERR_FILENO,
				    frame->payload, frame->size, err);
	case PROTOCOL_EXIT:
		finish(run, exit_status(frame));
		return 0;
	case PROTOCOL_ERROR:
		fprintf(stderr, "mote: %.*s\n", (int)frame->size, (const char *)frame->payload);
		finish(run, CLI_EXIT_CANNOT_RUN);
		return 0;
	default:
		return err_set(err, EPROTO, "the guest's agent sent a frame of unknown type %u",
			       frame->type);
	}
}

/* 1 while there may be more, 0 at the end of the line, -errno with err set. */
static int read_console(struct run *run, char **argv, struct err *err)
{
	struct agent_frame frame;
	size_t room;
	uint8_t *to = agent_reader_room(&run->reader, &room);
	ssize_t n = read(run->sandbox.console_out, to, room);
	int rc;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 1;
	if (n <= 0)
		return 0;
	if (run->line_lost)
		return 1;
	agent_reader_added(&run->reader, (size_t)n);
	while (!run->done && (rc = agent_reader_next(&run->reader, &frame, err)) != 0) {
		if (rc < 0) {
			/* A kernel that panics or restarts says so on this line: wait for its end.
			 */
			run->line_lost = true;
			return 1;
		}
		rc = handle_frame(run, &frame, argv, err);
		if (rc < 0)
			return rc;
	}
	return 1;
}

static void read_stdin(struct run *run)
{
	uint8_t data[4096]; /* small, as the serial line is slow and a command may not read */
	ssize_t n = read(STDIN_FILENO, data, sizeof(data));

	if (n > 0)
		queue_frame(run, PROTOCOL_STDIN, data, (size_t)n);
	else if (n == 0 || (errno != EINTR && errno != EAGAIN))
		run->stdin_over = queue_frame(run, PROTOCOL_STDIN_END, "", 0);
}

static int open_signals(struct err *err)
{
	sigset_t signals;
	int fd;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGHUP);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	return fd < 0 ? err_sys(err, errno, "signalfd") : fd;
}

static int network_ended(const struct run *run, struct err *err)
{
	char why[256];

	passt_last_words(&run->passt, why, sizeof(why));
	return err_set(err, EPIPE, "passt has ended, and with it the network: %s",
		       *why ? why : "it did not say why");
}

static int converse(struct run *run, char **argv, struct err *err)
{
	struct sandbox *sandbox = &run->sandbox;
	bool line_over = false, log_over = false;

	while (!run->done) {
		bool pending = run->out_used > 0;
		struct pollfd fds[] = {
			{ .fd = line_over ? -1 : sandbox->console_out, .events = POLLIN },
			{ .fd = log_over ? -1 : sandbox->log_fd, .events = POLLIN },
			{ .fd = pending ? sandbox->console_in : -1, .events = POLLOUT },
			{ .fd = run->ready && !pending && !run->stdin_over ? STDIN_FILENO : -1,
			  .events = POLLIN },
			{ .fd = run->signal_fd, .events = POLLIN },
			{ .fd = line_over && log_over ? sandbox->pid_fd : -1, .events = POLLIN },
			{ .fd = run->passt.pid > 0 ? run->passt.pid_fd : -1, .events = POLLIN },
		};
		int rc;

		rc = poll(fds, sizeof(fds) / sizeof(fds[0]),
			  run->line_lost ? LINE_LOST_TIMEOUT_MS : -1);
		if (rc == 0)
			return -EPROTO; /* err has been set by the reader */
		if (rc < 0)
			continue;
		if (fds[1].revents)
			log_over = !sandbox_read_log(sandbox);
		if (fds[0].revents) {
			rc = read_console(run, argv, err);
			if (rc < 0)
				return rc;
			line_over = rc == 0;
		}
		if (fds[2].revents)
			flush_to_guest(run);
		if (fds[3].revents)
			read_stdin(run);
		if (fds[4].revents)
			handle_signal(run);
		if (fds[5].revents)
			break;
		if (fds[6].revents && !line_over)
			return network_ended(run, err);
	}
	return 0;
}

static void print_phase(const char *name, int64_t us, int64_t *previous_us)
{
	if (us < 0)
		return;
	fprintf(stderr, "  %-26s %9.2f ms  (+%.2f)\n", name, (double)us / 1000,
		(double)(us - *previous_us) / 1000);
	*previous_us = us;
}

static void print_timing(const struct run *run)
{
	const struct sandbox_phases *phases = &run->sandbox.phases;
	int64_t previous = 0;

	fprintf(stderr, "mote: time since exec of mote-vmm:\n");
	print_phase("KVM ready", phases->kvm_ready_us, &previous);
	print_phase("kernel loaded", phases->kernel_loaded_us, &previous);
	print_phase("first guest instruction", phases->first_instruction_us, &previous);
	print_phase("guest init", phases->init_us, &previous);
	print_phase("command done", (run->command_done_ns - run->sandbox.start_ns) / 1000,
		    &previous);
}

/* Says why a VM ended before its command did. */
static int report_early_end(const struct run *run)
{
	const struct sandbox *sandbox = &run->sandbox;

	if (sandbox->last_error[0])
		fprintf(stderr, "mote: %s\n", sandbox->last_error);
	else if (WIFSIGNALED(sandbox->status))
		fprintf(stderr, "mote: mote-vmm was killed by signal %s\n",
			sigabbrev_np(WTERMSIG(sandbox->status)));
	else
		fprintf(stderr, "mote: the guest ended before the command did: %s\n",
			sandbox->last_info);
	return CLI_EXIT_SANDBOX;
}

static int run_command(struct run *run, char **argv)
{
	CLEANUP_FD int signal_fd = -1;
	struct err err;
	int rc;

	signal_fd = open_signals(&err);
	if (signal_fd < 0)
		return cli_fail(CLI_EXIT_SANDBOX, &err);
	run->signal_fd = signal_fd;
	if (run->options.devices.net == RUN_NET_USER) {
		if (passt_start(&run->passt, &err) < 0)
			return cli_fail(CLI_EXIT_SANDBOX, &err);
		run->options.config.passt_fd = run->passt.socket_fd;
	}
	rc = sandbox_start(&run->sandbox, &run->options.config, run->options.verbose, &err);
	passt_close_socket(&run->passt);
	if (rc < 0) {
		passt_close(&run->passt);
		return cli_fail(CLI_EXIT_SANDBOX, &err);
	}
	rc = converse(run, argv, &err);
	sandbox_finish(&run->sandbox, run->done && !run->killed ? POWER_OFF_TIMEOUT_MS : 0);
	if (rc < 0)
		run->status = cli_fail(CLI_EXIT_SANDBOX, &err);
	else if (!run->done)
		run->status = report_early_end(run);
	else if (run->options.timing)
		print_timing(run);
	sandbox_close(&run->sandbox);
	passt_close(&run->passt);
	return run->status;
}

int cli_run(int argc, char **argv)
{
	static struct run run;
	int status;

	if (run_options_parse(&run.options, argc, argv, &status))
		status = run_command(&run, argv + optind);
	run_options_close(&run.options);
	return status;
}
