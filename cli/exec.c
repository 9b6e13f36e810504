/* SPDX-License-Identifier: Apache-2.0 */
/* mote exec: a command in a microVM that runs. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/fd.h"
#include "cli/cli.h"
#include "cli/request_options.h"
#include "cli/run_result.h"
#include "cli/session.h"
#include "host/agent_connect.h"
#include "host/vm.h"

static const char usage[] =
	"usage: mote exec [OPTION]... NAME [--] COMMAND [ARGUMENT]...\n"
	"Runs COMMAND in the running microVM NAME, and exits with its status. NAME is a name or id "
	"that\n"
	"`mote ps` shows, or the beginning of one.\n"
	"\n" REQUEST_HELP
	"  -d, --detach         leave it running, and do not wait; its output is nobody's\n"
	"  --json-result[=FILE] one JSON object about how it ended and what it took, as the last "
	"line\n"
	"                       of standard error or in FILE\n"
	"\n"
	"Exit status: COMMAND's own; 128 + N if signal N killed it; 124 if its time was over; 125 "
	"if\n"
	"the microVM failed or is not there; 126 if COMMAND cannot be run, 127 if it is not there; "
	"2\n"
	"for wrong usage. When mote exec ends, so does what COMMAND started.\n";

enum { HELP = 256, JSON_RESULT };

struct exec_options {
	struct session_request request;
	bool detach;
	bool json_result;
	const char *json_path; /* NULL: standard error */
};

static const struct option names[] = {
	REQUEST_LONG,
	{ "detach", no_argument, NULL, 'd' },
	{ "json-result", optional_argument, NULL, JSON_RESULT },
	{ "help", no_argument, NULL, HELP },
	{ NULL, 0, NULL, 0 },
};

/* 0 or -errno with err set. */
static int converse(struct session *session, bool detach, struct err *err)
{
	while (session->result.end == SESSION_RUNS) {
		struct pollfd fds[SESSION_FDS];
		int rc;

		if (detach && session->started)
			return 0;
		session_wait(session, fds);
		if (poll(fds, SESSION_FDS, session_timeout_ms(session)) < 0)
			continue;
		rc = session_serve(session, fds, err);
		if (rc < 0)
			return rc;
	}
	if (session->result.end == SESSION_LOST)
		return err_set(err, EPIPE, "the microVM has ended");
	return 0;
}

static int check_awake(const void *meta, struct err *err)
{
	return vm_check_awake(meta, err);
}

/* Connects to the agent, and talks to it until all is said. 0 or -errno with err set. */
static int run(struct session *session, const char *name, const struct exec_options *options,
	       struct err *err)
{
	json_t *meta = vm_find_running(name, err);
	CLEANUP_FD int fd = -1;
	int rc;

	if (!meta)
		return -ESRCH;
	fd = agent_connect(vm_string(meta, "vsock"), check_awake, meta, err);
	json_decref(meta);
	rc = fd < 0 ? fd : session_open(session, err);
	if (rc == 0)
		rc = session_start(session, fd_take(&fd), &options->request, err);
	if (rc == 0)
		rc = converse(session, options->detach, err);
	return rc;
}

static int report(struct session *session, bool failed, const struct exec_options *options,
		  const struct err *cause)
{
	struct run_result result = { .session = &session->result,
				     .phases = { -1, -1, -1, -1 },
				     .agent_us = -1,
				     .done_us = -1,
				     .error = failed ? cause->text : NULL };
	struct err err;

	if (failed)
		result.exit_status = cli_fail(CLI_EXIT_SANDBOX, cause);
	else if (session->result.end != SESSION_RUNS)
		result.exit_status = session_report(&session->result);
	if (session->result.end == SESSION_REFUSED)
		result.error = session->result.error.text;
	session_release_signals(session);
	if (options->json_result && run_result_write(&result, options->json_path, &err) < 0)
		return cli_fail(CLI_EXIT_SANDBOX, &err);
	return result.exit_status;
}

/* 1 to go on, else 0 or -1 with *status what to exit with. */
static int parse(int argc, char **argv, struct exec_options *options, int *status)
{
	struct session_request *request = &options->request;
	int option;

	*status = CLI_EXIT_USAGE;
	while ((option = getopt_long(argc, argv, "+d" REQUEST_SHORT, names, NULL)) != -1) {
		if (option == HELP) {
			fputs(usage, stdout);
			*status = EXIT_SUCCESS;
			return 0;
		}
		if (option == 'd') {
			options->detach = request->keep = request->no_stdin = true;
		} else if (option == JSON_RESULT) {
			options->json_result = true;
			options->json_path = optarg;
		} else if (request_option(request, "exec", option, optarg) <= 0) {
			return -1;
		}
	}
	request_add_terminal(request);
	for (int i = optind + 1; i < argc; i++) {
		if (i == optind + 1 && strcmp(argv[i], "--") == 0)
			continue;
		if (json_array_append_new(request->argv, json_string_nocheck(argv[i])) < 0)
			return request_usage_error("exec", "COMMAND", "", "no memory");
	}
	return json_array_size(request->argv) > 0
		       ? 1
		       : request_usage_error("exec", "NAME COMMAND", "", "both are expected");
}

int cli_exec(int argc, char **argv)
{
	static struct session session;
	struct exec_options options = { .request = { .argv = json_array(), .env = json_array() } };
	struct err err;
	int status;

	session.fd = -1;
	if (parse(argc, argv, &options, &status) > 0) {
		bool failed = run(&session, argv[optind], &options, &err) < 0;

		session_close(&session);
		status = report(&session, failed, &options, &err);
	}
	json_decref(options.request.argv);
	json_decref(options.request.env);
	return status;
}
