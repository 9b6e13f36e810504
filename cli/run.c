/* SPDX-License-Identifier: Apache-2.0 */
/* mote run: boots a microVM for one command and passes its input, output and status through. */
#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "cli/agent_connect.h"
#include "cli/cli.h"
#include "cli/console_log.h"
#include "cli/jail.h"
#include "cli/passt.h"
#include "cli/run_options.h"
#include "cli/run_result.h"
#include "cli/sandbox.h"
#include "cli/session.h"
#include "cli/vm.h"

/* A guest with something to write gets so long for it. */
#define POWER_OFF_TIMEOUT_MS 10000
/* How long a VM may go on whose agent has gone. */
#define AGENT_LOST_TIMEOUT_MS 5000

struct run {
	struct run_options options;
	struct vm vm;
	char vsock[PATH_MAX];
	char socket[PATH_MAX]; /* what the jailed VMM connects to */
	char log_path[PATH_MAX];
	struct console_log console_log;
	struct passt passt;
	struct sandbox sandbox;
	int listener; /* owned; the agent connects to it */
	struct session session;
	int64_t agent_us; /* since exec of mote-vmm; -1: not reached */
	int64_t done_us;
	struct err err; /* what went wrong */
	bool failed;	/* err is set */
};

static int64_t since_start_us(const struct run *run)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return ((int64_t)now.tv_sec * 1000000000 + now.tv_nsec - run->sandbox.start_ns) / 1000;
}

/* The agent is there: the request goes out on the stream that it has opened. */
static int start_session(struct run *run)
{
	int fd = agent_accept(run->listener, &run->err);

	if (fd < 0)
		return fd;
	fd_close(&run->listener);
	run->agent_us = since_start_us(run);
	return session_start(&run->session, fd, &run->options.request, &run->err);
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

enum { FD_LISTENER = SESSION_FDS, FD_CONSOLE, FD_LOG, FD_VMM, FD_PASST, FD_COUNT };

/* Until the session or the VM is over. 0 or -errno with run->err set. */
static int converse(struct run *run)
{
	struct sandbox *sandbox = &run->sandbox;
	struct session *session = &run->session;
	bool console_over = false, log_over = false;

	while (session->result.end == SESSION_RUNS || session->result.end == SESSION_LOST) {
		bool lost = session->result.end == SESSION_LOST;
		struct pollfd fds[FD_COUNT] = {
			[FD_LISTENER] = { .fd = run->listener, .events = POLLIN },
			[FD_CONSOLE] = { .fd = console_over ? -1 : sandbox->console_fd,
					 .events = POLLIN },
			[FD_LOG] = { .fd = log_over ? -1 : sandbox->log_fd, .events = POLLIN },
			[FD_VMM] = { .fd = console_over && log_over ? sandbox->pid_fd : -1,
				     .events = POLLIN },
			[FD_PASST] = { .fd = run->passt.pid > 0 ? run->passt.pid_fd : -1,
				       .events = POLLIN },
		};
		int rc;

		if (lost)
			fd_close(&session->fd);
		session_wait(session, fds);
		rc = poll(fds, FD_COUNT, lost ? AGENT_LOST_TIMEOUT_MS : -1);
		if (rc == 0)
			return err_set(&run->err, EPIPE, "the guest's agent has gone");
		if (rc < 0)
			continue;
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

	if (sandbox->last_error[0])
		err_set(&run->err, EPIPE, "%s", sandbox->last_error);
	else if (WIFSIGNALED(sandbox->status))
		err_set(&run->err, EPIPE, "mote-vmm was killed by signal %s",
			sigabbrev_np(WTERMSIG(sandbox->status)));
	else
		err_set(&run->err, EPIPE, "the guest ended before the command did: %s",
			sandbox->last_info);
	run->failed = true;
}

static bool is_done(const struct run *run)
{
	enum session_end how = run->session.result.end;

	return how == SESSION_EXITED || how == SESSION_SIGNALED || how == SESSION_REFUSED;
}

/* A guest that has something to lose is asked to shut down; another one just ends. */
static void end_vm(struct run *run)
{
	int timeout_ms = 0;

	if (is_done(run) && run->options.devices.writable &&
	    agent_shut_down(run->vsock, 0, NULL) == 0)
		timeout_ms = POWER_OFF_TIMEOUT_MS;
	sandbox_finish(&run->sandbox, timeout_ms);
	/* What it said last. */
	while (read_console(run)) {
		struct pollfd more = { .fd = run->sandbox.console_fd, .events = POLLIN };

		if (poll(&more, 1, 0) <= 0)
			break;
	}
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
	int rc = jail_prepare(&options->jail, &run->vm, path, &run->err);

	if (rc < 0)
		return rc;
	options->config.vsock = JAIL_VSOCK;
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
	int rc = vm_create(&run->vm, run->options.name, &run->err);

	if (rc < 0)
		return rc;
	if (!vm_path(&run->vm, "vsock", run->vsock) ||
	    !vm_path(&run->vm, "console.log", run->log_path))
		return err_set(&run->err, ENAMETOOLONG, "%s: the path is too long", run->vm.dir);
	run->console_log.path = run->log_path;
	run->options.config.vsock = run->vsock;
	rc = run->options.jail.none ? listen_here(run) : listen_in_jail(run);
	if (rc < 0)
		return rc;
	if (run->options.devices.net == RUN_NET_USER) {
		rc = passt_start(&run->passt, &run->err);
		if (rc < 0)
			return rc;
		run->options.config.passt_fd = run->passt.socket_fd;
	}
	rc = sandbox_start(&run->sandbox, &run->options.config, run->options.verbose, &run->err);
	passt_close_socket(&run->passt);
	return rc;
}

static void run_command(struct run *run)
{
	run->failed = prepare(run) < 0;
	if (!run->failed) {
		run->failed = converse(run) < 0;
		if (is_done(run))
			run->done_us = since_start_us(run);
		end_vm(run);
		if (!run->failed && !is_done(run) && run->session.result.end != SESSION_LEFT)
			explain_early_end(run);
		sandbox_close(&run->sandbox);
	}
	passt_close(&run->passt);
	console_log_close(&run->console_log);
	fd_close(&run->listener);
	jail_remove(&run->options.jail, run->socket);
	vm_remove(&run->vm);
}

static int report(struct run *run)
{
	struct run_result result = {
		.session = &run->session.result,
		.phases = run->sandbox.phases,
		.agent_us = run->agent_us,
		.done_us = run->done_us,
		.error = run->failed ? run->err.text : NULL,
	};
	struct err err;

	if (run->failed) {
		result.exit_status = cli_fail(CLI_EXIT_SANDBOX, &run->err);
	} else {
		result.exit_status = session_report(result.session);
		if (result.session->end == SESSION_REFUSED)
			result.error = result.session->error;
	}
	if (run->options.timing && is_done(run))
		run_result_print(&result);
	if (run->options.json_result && run_result_write(&result, run->options.json_path, &err) < 0)
		return cli_fail(CLI_EXIT_SANDBOX, &err);
	return result.exit_status;
}

int cli_run(int argc, char **argv)
{
	static struct run run = {
		.listener = -1, .agent_us = -1, .done_us = -1, .sandbox.phases = { -1, -1, -1, -1 }
	};
	int status;

	if (run_options_parse(&run.options, argc, argv, &status)) {
		if (session_open(&run.session, &run.err) < 0) {
			status = cli_fail(CLI_EXIT_SANDBOX, &run.err);
		} else {
			run_command(&run);
			session_close(&run.session);
			status = report(&run);
		}
	}
	run_options_close(&run.options);
	return status;
}
