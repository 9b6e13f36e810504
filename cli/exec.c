/* SPDX-License-Identifier: Apache-2.0 */
/* mote exec: a command in a microVM that runs. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "cli/agent_connect.h"
#include "cli/cli.h"
#include "cli/request_options.h"
#include "cli/session.h"
#include "cli/vm.h"

static const char usage[] =
	"usage: mote exec [OPTION]... NAME [--] COMMAND [ARGUMENT]...\n"
	"Runs COMMAND in the running microVM NAME, and exits with its status. NAME is a name or id "
	"that\n"
	"`mote ps` shows, or the beginning of one.\n"
	"\n" REQUEST_HELP
	"  -d, --detach         leave it running, and do not wait; its output is nobody's\n"
	"\n"
	"Exit status: COMMAND's own; 128 + N if signal N killed it; 124 if its time was over; 125 "
	"if\n"
	"the microVM failed or is not there; 126 if COMMAND cannot be run, 127 if it is not there; "
	"2\n"
	"for wrong usage. When mote exec ends, so does what COMMAND started.\n";

enum { HELP = 256 };

static const struct option names[] = {
	REQUEST_LONG,
	{ "detach", no_argument, NULL, 'd' },
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

static int run(const char *name, const struct session_request *request, bool detach)
{
	static struct session session;
	char path[PATH_MAX];
	struct err err;
	json_t *meta = vm_find_running(name, &err);
	int fd, rc;

	if (!meta)
		return cli_fail(CLI_EXIT_SANDBOX, &err);
	snprintf(path, sizeof(path), "%s", vm_string(meta, "vsock"));
	json_decref(meta);
	fd = agent_connect(path, &err);
	rc = fd < 0 ? fd : session_open(&session, &err);
	if (rc == 0)
		rc = session_start(&session, fd, request, &err);
	if (rc == 0)
		rc = converse(&session, detach, &err);
	session_close(&session);
	if (rc < 0)
		return cli_fail(CLI_EXIT_SANDBOX, &err);
	return detach && session.result.end == SESSION_RUNS ? EXIT_SUCCESS
							    : session_report(&session.result);
}

/* 1 to go on, else 0 or -1 with *status what to exit with. */
static int parse(int argc, char **argv, struct session_request *request, bool *detach, int *status)
{
	int option;

	*status = CLI_EXIT_USAGE;
	while ((option = getopt_long(argc, argv, "+d" REQUEST_SHORT, names, NULL)) != -1) {
		if (option == HELP) {
			fputs(usage, stdout);
			*status = EXIT_SUCCESS;
			return 0;
		}
		if (option == 'd')
			*detach = request->keep = request->no_stdin = true;
		else if (request_option(request, "exec", option, optarg) <= 0)
			return -1;
	}
	for (int i = optind + 1; i < argc; i++) {
		if (i == optind + 1 && strcmp(argv[i], "--") == 0)
			continue;
		if (json_array_append_new(request->argv, json_string(argv[i])) < 0)
			return request_usage_error("exec", "COMMAND", "", "it is not UTF-8");
	}
	return json_array_size(request->argv) > 0
		       ? 1
		       : request_usage_error("exec", "NAME COMMAND", "", "both are expected");
}

int cli_exec(int argc, char **argv)
{
	struct session_request request = { .argv = json_array(), .env = json_array() };
	bool detach = false;
	int status;

	if (parse(argc, argv, &request, &detach, &status) > 0)
		status = run(argv[optind], &request, detach);
	json_decref(request.argv);
	json_decref(request.env);
	return status;
}
