/* SPDX-License-Identifier: Apache-2.0 */
/* mote run: boots a microVM for one command and passes its input, output and status through. */
#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "cli/cli.h"
#include "cli/detach.h"
#include "cli/run_options.h"
#include "cli/run_result.h"
#include "cli/run_volumes.h"
#include "cli/session.h"
#include "host/agent_connect.h"
#include "host/bytes.h"
#include "host/console_log.h"
#include "host/jail.h"
#include "host/passt.h"
#include "host/sandbox.h"
#include "host/transfer.h"
#include "host/vm.h"

/* A guest with something to write gets so long for it, or until a signal. */
#define POWER_OFF_TIMEOUT_MS 60000
/* How long a VM may go on whose agent has gone. */
#define AGENT_LOST_TIMEOUT_MS 5000
/* Any kernel is done by then. */
#define START_TIMEOUT_MS 60000

struct run {
	struct run_options options;
	struct vm vm;
	char vsock[PATH_MAX];
	char api_path[PATH_MAX];
	char socket[PATH_MAX]; /* what the jailed VMM connects to */
	char log_path[PATH_MAX];
	struct console_log console_log;
	struct passt passt;
	struct sandbox sandbox;
	int ready_fd; /* owned; who detached it waits there; -1: nobody */
	int listener; /* owned; the agent connects to it */
	struct session session;
	int64_t lost_ms;  /* of clock_ms(), when the agent was lost; 0: it was not */
	int64_t agent_us; /* since exec of mote-vmm; -1: not reached */
	int64_t done_us;
	struct err err; /* what went wrong */
	bool failed;	/* err is set */
};

/* What others are to know of it. */
static int set_state(struct run *run, const char *state)
{
	json_object_set_new(run->vm.meta, "state", json_string(state));
	return vm_save(&run->vm, &run->err);
}

static bool take_signal(void *opaque)
{
	return session_take_signal(opaque);
}

static int64_t since_start_us(const struct run *run)
{
	return (clock_ns() - run->sandbox.start_ns) / 1000;
}

/* A person or a platform can end what waits for the guest. */
static struct transfer_bounds volume_bounds(struct run *run)
{
	return (struct transfer_bounds){ .interrupt_fd = run->session.signal_fd,
					 .interrupted = take_signal,
					 .opaque = &run->session };
}

/* The agent is there: the request goes out on the stream that it has opened. */
static int start_session(struct run *run)
{
	const struct session_request *request = &run->options.request;
	const struct transfer_bounds bounds = volume_bounds(run);
	CLEANUP_FD int fd = agent_accept(run->listener, &run->err);
	int rc;

	if (fd < 0)
		return fd;
	fd_close(&run->listener);
	run->agent_us = since_start_us(run);
	rc = run_volumes_put(&run->options.volumes, run->vsock, request->user, &bounds, &run->err);
	if (rc == 0)
		rc = set_state(run, "running");
	if (rc == 0 && json_array_size(request->argv) > 0)
		rc = session_start(&run->session, fd_take(&fd), request, &run->err);
	if (rc == 0 && run->options.detach)
		detach_ready(&run->ready_fd, vm_string(run->vm.meta, "name"));
	return rc;
}

/* False at the end of the line. */
static bool read_console(struct run *run)
{
	char data[4096];
	ssize_t n = read(run->sandbox.console_fd, data, sizeof(data));

	if (n > 0)
		console_log_add(&run->console_log, data, (size_t)n);
	return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

static int network_ended(struct run *run)
{
	char why[256];

	passt_last_words(&run->passt, why, sizeof(why));
	return err_set(&run->err, EPIPE, "passt has ended, and with it the network: %s",
		       *why ? why : "it did not say why");
}

enum { FD_LISTENER = SESSION_FDS, FD_CONSOLE, FD_RECORDS, FD_LOG, FD_VMM, FD_PASST, FD_COUNT };

/* Of clock_ms(): for an agent to start, or for a VM to follow one that is lost. */
static int64_t give_up_ms(const struct run *run)
{
	if (run->session.result.end == SESSION_LOST)
		return run->lost_ms + AGENT_LOST_TIMEOUT_MS;
	return run->listener >= 0 ? run->sandbox.start_ns / 1000000 + START_TIMEOUT_MS : INT64_MAX;
}

/* 0, or -errno with run->err set if it is time for that. */
static int check_time(struct run *run)
{
	if (clock_ms() < give_up_ms(run))
		return 0;
	if (run->session.result.end == SESSION_LOST)
		return err_set(&run->err, EPIPE, "the guest's agent has gone");
	return err_set(&run->err, ETIMEDOUT, "the guest's agent was not there after %d s",
		       START_TIMEOUT_MS / 1000);
}

/* For poll(). */
static int timeout_ms(const struct run *run)
{
	const int64_t left_ms = give_up_ms(run) - clock_ms();
	const int session_ms = session_timeout_ms(&run->session);

	if (left_ms > INT_MAX)
		return session_ms;
	return left_ms < 0				 ? 0
	       : session_ms >= 0 && session_ms < left_ms ? session_ms
							 : (int)left_ms;
}

/* Until the session or the VM is over. 0 or -errno with run->err set. */
static int converse(struct run *run)
{
	struct sandbox *sandbox = &run->sandbox;
	struct session *session = &run->session;
	bool console_over = false, records_over = false, log_over = false;

	while (session->result.end == SESSION_RUNS || session->result.end == SESSION_LOST) {
		struct pollfd fds[FD_COUNT] = {
			[FD_LISTENER] = { .fd = run->listener, .events = POLLIN },
			[FD_CONSOLE] = { .fd = console_over ? -1 : sandbox->console_fd,
					 .events = POLLIN },
			[FD_RECORDS] = { .fd = records_over ? -1 : sandbox->record_fd,
					 .events = POLLIN },
			[FD_LOG] = { .fd = log_over ? -1 : sandbox->log_fd, .events = POLLIN },
			[FD_VMM] = { .fd = console_over && records_over && log_over
						   ? sandbox->pid_fd
						   : -1,
				     .events = POLLIN },
			[FD_PASST] = { .fd = run->passt.pid > 0 ? run->passt.pid_fd : -1,
				       .events = POLLIN },
		};
		int rc;

		if (session->result.end == SESSION_LOST && run->lost_ms == 0) {
			fd_close(&session->fd);
			run->lost_ms = clock_ms();
		}
		session_wait(session, fds);
		rc = poll(fds, FD_COUNT, timeout_ms(run));
		if (check_time(run) < 0)
			return -ETIMEDOUT;
		if (rc < 0)
			continue;
		if (fds[FD_RECORDS].revents)
			records_over = !sandbox_read_records(sandbox);
		if (fds[FD_LOG].revents)
			log_over = !sandbox_read_log(sandbox);
		if (fds[FD_CONSOLE].revents)
			console_over = !read_console(run);
		if (fds[FD_LISTENER].revents && start_session(run) < 0)
			return -ECONNABORTED;
		rc = session_serve(session, fds, &run->err);
		if (rc < 0)
			return rc;
		if (fds[FD_VMM].revents)
			break;
		if (fds[FD_PASST].revents && !console_over)
			return network_ended(run);
	}
	return 0;
}

/* Why a VM ended before its command did. */
static void explain_early_end(struct run *run)
{
	const struct sandbox *sandbox = &run->sandbox;
	const bool ran = sandbox->phases.first_instruction_us >= 0;

	if (ran && sandbox->phases.init_us < 0 && cli_why_no_linux())
		err_set(&run->err, EPIPE, "the guest did not boot: %s", cli_why_no_linux());
	else if (sandbox->error[0])
		err_set(&run->err, EPIPE, "%s", sandbox->error);
	else if (WIFSIGNALED(sandbox->status))
		err_set(&run->err, EPIPE, "mote-vmm was killed by signal %s",
			sigabbrev_np(WTERMSIG(sandbox->status)));
	else
		err_set(&run->err, EPIPE, "the guest ended before the command did: %s",
			sandbox->reason[0] ? sandbox->reason : "mote-vmm did not say why");
	run->failed = true;
}

static bool is_done(const struct run *run)
{
	enum session_end how = run->session.result.end;

	return how == SESSION_EXITED || how == SESSION_SIGNALED || how == SESSION_REFUSED;
}

/* By a signal or its time limit, which are no failures whatever was interrupted by them. */
static bool was_ended_here(const struct run *run)
{
	enum session_end how = run->session.result.end;

	return how == SESSION_LEFT || how == SESSION_OVERDUE;
}

/* Of standard output or error, which ends the program. */
static bool reader_has_gone(const struct run *run)
{
	return run->session.result.end == SESSION_LEFT &&
	       run->session.result.status == 128 + SIGPIPE;
}

/* A guest that has something to lose is asked to shut down; another one just ends. */
static void end_vm(struct run *run)
{
	const bool asked = (is_done(run) || run->session.result.end == SESSION_LEFT) &&
			   run->options.devices.writable && run->agent_us >= 0 &&
			   agent_shut_down(run->vsock, 0, NULL) == 0;

	if (!sandbox_finish(&run->sandbox, asked ? POWER_OFF_TIMEOUT_MS : 0,
			    run->session.signal_fd) &&
	    asked)
		fputs("mote: the guest was ended before it had powered off: its drives may lack "
		      "what it wrote last\n",
		      stderr);
	/* What it said last. */
	while (read_console(run)) {
		struct pollfd more = { .fd = run->sandbox.console_fd, .events = POLLIN };

		if (poll(&more, 1, 0) <= 0)
			break;
	}
}

/* All that others are to know of it before it has started; a new object. */
static json_t *describe(const struct run_options *options)
{
	return json_pack(
		"{s:s, s:I, s:s, s:o, s:i, s:i, s:b, s:b, s:b, s:b, s:O, s:O, s:O, s:i, s:I}",
		"state", VM_STARTING, "created", (json_int_t)time(NULL), "image",
		options->image_name ? options->image_name : "(busybox)", "command",
		bytes_readable_list(options->request.argv), "cpus", options->config.vcpu_count,
		"memory_mib", options->config.mem_size_mib, "detached", options->detach, "jailed",
		!options->jail.none, "writable", options->devices.writable, "volumes",
		options->volumes.count > 0, "drives", options->config.drives, "network",
		options->config.interfaces, "labels", options->settings.labels, "stop_signal",
		options->settings.stop_signal, "stop_timeout_ms",
		(json_int_t)options->settings.stop_timeout_ms);
}

static int listen_here(struct run *run)
{
	run->listener = agent_listen(run->vsock, &run->err);
	return run->listener;
}

static int listen_in_jail(struct run *run)
{
	struct run_options *options = &run->options;
	char path[PATH_MAX];
	int rc = jail_prepare(&options->jail, run->vm.id, run->vm.dir, path, &run->err);

	if (rc < 0)
		return rc;
	options->config.vsock = JAIL_VSOCK;
	options->config.api = JAIL_API;
	options->config.jail = &options->jail;
	options->config.tap = options->devices.net == RUN_NET_TAP;
	run->listener = agent_listen(path, &run->err);
	if (run->listener < 0)
		return run->listener;
	if (snprintf(run->socket, sizeof(run->socket), "%s_%d", path, PROTOCOL_PORT) >=
	    (int)sizeof(run->socket))
		return err_set(&run->err, ENAMETOOLONG, "%s: the path is too long", path);
	return jail_share(&options->jail, run->socket, &run->err);
}

static int prepare(struct run *run)
{
	int rc = vm_create(&run->vm, run->options.name, describe(&run->options), &run->err);

	if (rc < 0)
		return rc;
	if (!vm_path(&run->vm, "vsock", run->vsock) || !vm_path(&run->vm, "api", run->api_path) ||
	    !vm_path(&run->vm, "console.log", run->log_path))
		return err_set(&run->err, ENAMETOOLONG, "%s: the path is too long", run->vm.dir);
	run->console_log.path = run->log_path;
	run->options.config.vsock = run->vsock;
	run->options.config.api = run->api_path;
	rc = run->options.jail.none ? listen_here(run) : listen_in_jail(run);
	if (rc < 0)
		return rc;
	if (run->options.devices.net == RUN_NET_USER) {
		rc = passt_start(&run->passt, &run->options.ports, &run->err);
		if (rc < 0)
			return rc;
		run->options.config.passt_fd = run->passt.socket_fd;
	}
	rc = sandbox_start(&run->sandbox, &run->options.config, run->options.verbose, &run->err);
	passt_close_socket(&run->passt);
	if (rc < 0)
		return rc;
	vm_set_process(run->vm.meta, VM_VMM, run->sandbox.pid);
	rc = vm_save(&run->vm, &run->err);
	if (rc < 0)
		sandbox_close(&run->sandbox);
	return rc;
}

/* The volumes come back, and the guest is asked to end if it has something to lose. */
static void wind_up(struct run *run)
{
	const struct transfer_bounds bounds = volume_bounds(run);

	/* As the program ends outside of a VM. */
	if (reader_has_gone(run))
		fd_close(&run->session.fd);
	if (is_done(run))
		run->done_us = since_start_us(run);
	if (is_done(run) || reader_has_gone(run)) {
		/* Who ends it from now on waits for what comes back. */
		if (run->options.volumes.count > 0)
			(void)set_state(run, VM_ENDING);
		if (!run->failed)
			run->failed = run_volumes_get(&run->options.volumes, run->vsock, &bounds,
						      &run->err) < 0;
	}
	end_vm(run);
	if (was_ended_here(run) && !reader_has_gone(run))
		run->failed = false;
	/* One that was started without a command has no other end than this. */
	else if (!run->failed && !is_done(run) && !was_ended_here(run) &&
		 (!run->options.detach || json_array_size(run->options.request.argv) > 0 ||
		  sandbox_has_failed(&run->sandbox)))
		explain_early_end(run);
	sandbox_close(&run->sandbox);
}

static void run_command(struct run *run)
{
	run->failed = prepare(run) < 0;
	if (!run->failed) {
		run->failed = converse(run) < 0;
		wind_up(run);
	}
	passt_close(&run->passt);
	console_log_close(&run->console_log);
	fd_close(&run->listener);
	jail_remove(&run->options.jail, run->socket);
}

/* The folder of one that was detached tells how it ended, until it is removed. */
static void leave(struct run *run, int status)
{
	if (!run->options.detach || run->options.forget || run->ready_fd >= 0) {
		if (run->failed)
			detach_failed(&run->ready_fd, run->err.text);
		vm_remove(&run->vm);
		return;
	}
	json_object_set_new(run->vm.meta, "exit_status", json_integer(status));
	if (run->failed)
		json_object_set_new(run->vm.meta, "error", json_string(run->err.text));
	if (set_state(run, "ended") < 0)
		vm_remove(&run->vm);
	vm_close(&run->vm);
}

/* The status to exit with; what it is made of is left in *result. */
static int report(struct run *run, struct run_result *result)
{
	*result = (struct run_result){
		.session = &run->session.result,
		.phases = run->sandbox.phases,
		.agent_us = run->agent_us,
		.done_us = run->done_us,
		.error = run->failed ? run->err.text : NULL,
	};

	if (run->failed) {
		result->exit_status = cli_fail(CLI_EXIT_SANDBOX, &run->err);
	} else {
		result->exit_status = session_report(result->session);
		if (result->session->end == SESSION_REFUSED)
			result->error = result->session->error.text;
	}
	if (run->options.timing && is_done(run))
		run_result_print(result);
	return result->exit_status;
}

/* What a detached command writes goes to the log. */
static void log_output(void *opaque, const void *data, size_t size)
{
	console_log_add(opaque, data, size);
}

static int run_here(struct run *run)
{
	struct run_result result;
	struct err err;
	int status;

	if (session_open(&run->session, &run->err) < 0)
		return cli_fail(CLI_EXIT_SANDBOX, &run->err);
	if (run->options.detach) {
		run->options.request.no_stdin = true;
		run->session.sink = log_output;
		run->session.sink_opaque = &run->console_log;
	}
	run_command(run);
	session_close(&run->session);
	status = report(run, &result);
	leave(run, status);
	/* Nothing is left to be undone should a signal end us while nobody reads it. */
	session_release_signals(&run->session);
	if (run->options.json_result && run_result_write(&result, run->options.json_path, &err) < 0)
		return cli_fail(CLI_EXIT_SANDBOX, &err);
	return status;
}

int cli_run(int argc, char **argv)
{
	static struct run run = { .listener = -1,
				  .ready_fd = -1,
				  .agent_us = -1,
				  .done_us = -1,
				  .sandbox.phases = { -1, -1, -1, -1 } };
	int status;

	if (run_options_parse(&run.options, argc, argv, &status)) {
		if (run.options.detach)
			run.ready_fd = detach_fork(&status, &run.err);
		if (run.ready_fd < -1)
			status = cli_fail(CLI_EXIT_SANDBOX, &run.err);
		else if (run.ready_fd != 0)
			status = run_here(&run);
	}
	run_options_close(&run.options);
	return status;
}
