/* SPDX-License-Identifier: Apache-2.0 */
/* mote kill: ends microVMs. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "cli/agent_connect.h"
#include "cli/cli.h"
#include "cli/values.h"
#include "cli/vm.h"

#define DEFAULT_GRACE_MS 3000
#define GRACE_MAX_MS 60000
/* For a guest to power off, and its supervisor to clean up. */
#define END_TIMEOUT_MS 5000
/* If it has something to write before that. */
#define WRITE_TIMEOUT_MS 60000
/* For volumes to come back; each has ten minutes. */
#define VOLUMES_TIMEOUT_MS (60 * 60 * 1000)

static const char usage[] =
	"usage: mote kill [--force] [--grace TIME] [--json] NAME...\n"
	"Ends running microVMs: their programs get SIGTERM, and SIGKILL when TIME is over; what "
	"was\n"
	"written to their drives is there then, and what their command left in volumes, if it did "
	"end.\n"
	"One that is only starting just ends. NAME is a name or id that `mote ps` shows, or the\n"
	"beginning of one.\n"
	"\n"
	"  --grace TIME  how long programs may take, up to 60s (default 3s)\n"
	"  -f, --force   at once, as if the plug were pulled\n"
	"  --json        a list of those that have ended, and whether it was by force\n";

/* The VMM's supervisor notices, says so and cleans up. */
static bool pull_plug(const json_t *meta)
{
	/* The jailer kills the VMM, and removes the jail. */
	const int number = json_is_true(json_object_get(meta, "jailed")) ? SIGQUIT : SIGKILL;

	/* Where no VMM has been started yet, or has gone, there is nothing else to be ended. */
	if (!vm_signal(meta, VM_VMM, number))
		(void)vm_signal(meta, VM_SUPERVISOR, SIGTERM);
	if (vm_wait(meta, END_TIMEOUT_MS))
		return true;
	(void)vm_signal(meta, VM_SUPERVISOR, SIGKILL);
	return vm_wait(meta, END_TIMEOUT_MS);
}

static bool has_state(const json_t *meta, const char *state)
{
	struct err err;
	json_t *now = vm_find_running(vm_string(meta, "id"), &err);
	bool has = now && strcmp(vm_string(now, "state"), state) == 0;

	json_decref(now);
	return has;
}

/* Before there is a command the supervisor ends at its first signal. */
static bool end_start(const json_t *meta)
{
	return has_state(meta, VM_STARTING) && vm_signal(meta, VM_SUPERVISOR, SIGTERM) &&
	       vm_wait(meta, END_TIMEOUT_MS);
}

/* Its supervisor ends it when its command has ended and the volumes have come back. */
static bool end_command(const json_t *meta, int grace_ms)
{
	if (!has_state(meta, VM_ENDING)) {
		(void)vm_signal(meta, VM_SUPERVISOR, SIGTERM);
		if (vm_wait(meta, grace_ms))
			return true;
	}
	if (has_state(meta, VM_ENDING))
		return vm_wait(meta, VOLUMES_TIMEOUT_MS);
	fprintf(stderr, "mote: %s: its command did not end, so its volumes do not come back\n",
		vm_string(meta, "name"));
	return false;
}

static bool end_in_order(const json_t *meta, int grace_ms)
{
	const bool writable = json_is_true(json_object_get(meta, "writable"));

	if (end_start(meta))
		return true;
	if (json_is_true(json_object_get(meta, "volumes")) &&
	    json_array_size(json_object_get(meta, "command")) > 0) {
		if (end_command(meta, grace_ms))
			return true;
		grace_ms = 0;
	}
	/* An agent that does not answer gives no grace. */
	if (agent_shut_down(vm_string(meta, "vsock"), grace_ms, NULL) == 0 &&
	    vm_wait(meta, grace_ms + (writable ? WRITE_TIMEOUT_MS : END_TIMEOUT_MS)))
		return true;
	if (writable)
		fprintf(stderr,
			"mote: %s: the guest does not power off, and is ended: its drives may lack "
			"what it wrote last\n",
			vm_string(meta, "name"));
	return false;
}

/* Adds it to the list of those that have ended. */
static int end(const char *name, bool force, int grace_ms, json_t *list, struct err *err)
{
	json_t *meta = vm_find_running(name, err);
	bool ended = false;
	int rc = 0;

	if (!meta)
		return -ESRCH;
	if (!force)
		ended = end_in_order(meta, grace_ms);
	force = !ended;
	if (ended || pull_plug(meta))
		json_array_append_new(list,
				      json_pack("{s:s, s:s, s:b}", "id", vm_string(meta, "id"),
						"name", vm_string(meta, "name"), "forced", force));
	else
		rc = err_set(err, ETIMEDOUT, "microVM %s: its supervisor does not end", name);
	json_decref(meta);
	return rc;
}

int cli_kill(int argc, char **argv)
{
	static const struct option names[] = { { "force", no_argument, NULL, 'f' },
					       { "grace", required_argument, NULL, 'g' },
					       { "json", no_argument, NULL, 'j' },
					       { "help", no_argument, NULL, 'h' },
					       { NULL, 0, NULL, 0 } };
	int64_t grace_ms = DEFAULT_GRACE_MS;
	bool force = false, as_json = false;
	json_t *list;
	int option, status = EXIT_SUCCESS;
	struct err err;

	while ((option = getopt_long(argc, argv, "f", names, NULL)) != -1) {
		switch (option) {
		case 'f':
			force = true;
			break;
		case 'j':
			as_json = true;
			break;
		case 'g':
			if (value_duration(optarg, &grace_ms) == 0 && grace_ms <= GRACE_MAX_MS)
				break;
			fprintf(stderr, "mote kill: --grace %s: a time up to 60s is expected\n",
				optarg);
			return CLI_EXIT_USAGE;
		case 'h':
			fputs(usage, stdout);
			return EXIT_SUCCESS;
		default:
			return CLI_EXIT_USAGE;
		}
	}
	if (optind == argc) {
		fputs(usage, stderr);
		return CLI_EXIT_USAGE;
	}
	list = json_array();
	for (; optind < argc; optind++) {
		if (end(argv[optind], force, (int)grace_ms, list, &err) < 0)
			status = cli_fail(CLI_EXIT_FAILURE, &err);
	}
	if (as_json)
		cli_print_json(list);
	json_decref(list);
	return status;
}
