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
#include "cli/cli.h"
#include "host/agent_connect.h"
#include "host/signals.h"
#include "host/values.h"
#include "host/vm.h"

#define GRACE_MAX_MS 60000
/* For a guest to power off, and its supervisor to clean up. */
#define END_TIMEOUT_MS 5000
/* If it has something to write before that. */
#define WRITE_TIMEOUT_MS 60000
/* For volumes to come back; each has ten minutes. */
#define VOLUMES_TIMEOUT_MS (60 * 60 * 1000)

static const char usage[] =
	"usage: mote kill [OPTION]... NAME...\n"
	"Ends running microVMs: the command gets the stop signal of mote run or of its image, else "
	"TERM,\n"
	"and what is left is killed when TIME is over; without a command all programs get TERM. "
	"What "
	"was\n"
	"written to drives is there then, and what the command left in volumes, if it did end. One "
	"that\n"
	"is only starting just ends. NAME is a name or id that `mote ps` shows, or the beginning "
	"of "
	"one.\n"
	"\n"
	"  --grace TIME         how long it may take, up to 60s (default: what mote run had as\n"
	"                       --stop-timeout, 10s)\n"
	"  -s, --signal SIGNAL  give the command this signal, and leave it at that; KILL is "
	"--force\n"
	"  -f, --force          at once, as if the plug were pulled\n"
	"  --json               a list of those that have ended, and whether it was by force\n";

struct kill_options {
	bool force;
	bool as_json;
	int64_t grace_ms; /* -1: the microVM's own */
	int signal;	  /* 0: end it */
};

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

static bool has_command(const json_t *meta)
{
	return json_array_size(json_object_get(meta, "command")) > 0;
}

/* What its supervisor passes on; it would not do that with others. */
static int stop_signal(const json_t *meta)
{
	const int number = (int)vm_number(meta, "stop_signal");

	return signal_is_passed_on(number) ? number : SIGTERM;
}

/* Its supervisor ends it when its command has ended and the volumes have come back. */
static bool end_command(const json_t *meta, int grace_ms)
{
	if (!has_state(meta, VM_ENDING)) {
		(void)vm_signal(meta, VM_SUPERVISOR, stop_signal(meta));
		if (vm_wait(meta, grace_ms))
			return true;
	}
	if (has_state(meta, VM_ENDING))
		return vm_wait(meta, VOLUMES_TIMEOUT_MS);
	if (json_is_true(json_object_get(meta, "volumes")))
		fprintf(stderr,
			"mote: %s: its command did not end, so its volumes do not come back\n",
			vm_string(meta, "name"));
	return false;
}

static bool end_in_order(const json_t *meta, int grace_ms)
{
	const bool writable = json_is_true(json_object_get(meta, "writable"));

	if (end_start(meta))
		return true;
	if (has_command(meta)) {
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

static int signal_command(const json_t *meta, int number, struct err *err)
{
	if (!has_command(meta))
		return err_set(err, EINVAL, "microVM %s: it has no command that gets signals",
			       vm_string(meta, "name"));
	if (!signal_is_passed_on(number))
		return err_set(err, EINVAL, "microVM %s: signal %d is not passed on to commands",
			       vm_string(meta, "name"), number);
	return vm_signal(meta, VM_SUPERVISOR, number)
		       ? 0
		       : err_set(err, ESRCH, "microVM %s: it has ended", vm_string(meta, "name"));
}

/* Adds it to the list of those that have ended. */
static int end(const json_t *meta, const struct kill_options *options, json_t *list,
	       struct err *err)
{
	const int64_t grace_ms =
		options->grace_ms >= 0 ? options->grace_ms : vm_number(meta, "stop_timeout_ms");
	const bool ended =
		!options->force &&
		end_in_order(meta, grace_ms < GRACE_MAX_MS ? (int)grace_ms : GRACE_MAX_MS);

	if (!ended && !pull_plug(meta))
		return err_set(err, ETIMEDOUT, "microVM %s: its supervisor does not end",
			       vm_string(meta, "name"));
	json_array_append_new(list, json_pack("{s:s, s:s, s:b}", "id", vm_string(meta, "id"),
					      "name", vm_string(meta, "name"), "forced", !ended));
	return 0;
}

static int kill_one(const char *name, const struct kill_options *options, json_t *list,
		    struct err *err)
{
	json_t *meta = vm_find_running(name, err);
	int rc;

	if (!meta)
		return -ESRCH;
	rc = options->signal > 0 ? signal_command(meta, options->signal, err)
				 : end(meta, options, list, err);
	json_decref(meta);
	return rc;
}

/* 0, or -1 with all said and *status what to exit with. */
static int parse(int argc, char **argv, struct kill_options *options, int *status)
{
	static const struct option names[] = { { "force", no_argument, NULL, 'f' },
					       { "grace", required_argument, NULL, 'g' },
					       { "signal", required_argument, NULL, 's' },
					       { "json", no_argument, NULL, 'j' },
					       { "help", no_argument, NULL, 'h' },
					       { NULL, 0, NULL, 0 } };
	int option;

	*status = CLI_EXIT_USAGE;
	while ((option = getopt_long(argc, argv, "fs:", names, NULL)) != -1) {
		switch (option) {
		case 'f':
			options->force = true;
			break;
		case 'j':
			options->as_json = true;
			break;
		case 'g':
			if (value_duration(optarg, &options->grace_ms) == 0 &&
			    options->grace_ms <= GRACE_MAX_MS)
				break;
			fprintf(stderr, "mote kill: --grace %s: a time up to 60s is expected\n",
				optarg);
			return -1;
		case 's':
			options->signal = signal_number(optarg);
			if (options->signal > 0)
				break;
			fprintf(stderr, "mote kill: --signal %s: there is none of this name\n",
				optarg);
			return -1;
		case 'h':
			fputs(usage, stdout);
			*status = EXIT_SUCCESS;
			return -1;
		default:
			return -1;
		}
	}
	if (optind < argc)
		return 0;
	fputs(usage, stderr);
	return -1;
}

int cli_kill(int argc, char **argv)
{
	struct kill_options options = { .grace_ms = -1 };
	int status;
	json_t *list;
	struct err err;

	if (parse(argc, argv, &options, &status) < 0)
		return status;
	if (options.signal == SIGKILL) {
		options.force = true;
		options.signal = 0;
	}
	status = EXIT_SUCCESS;
	list = json_array();
	for (; optind < argc; optind++) {
		if (kill_one(argv[optind], &options, list, &err) < 0)
			status = cli_fail(CLI_EXIT_FAILURE, &err);
	}
	if (options.as_json)
		cli_print_json(list);
	json_decref(list);
	return status;
}
