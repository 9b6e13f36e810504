/* SPDX-License-Identifier: Apache-2.0 */
/* mote ps, inspect and rm: what VMs there are. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/err.h"
#include "cli/cli.h"
#include "host/vm.h"

static const char ps_usage[] = "usage: mote ps [-a] [--json]\n"
			       "Lists the running microVMs.\n"
			       "\n"
			       "  -a, --all   those too that were started with --detach and have "
			       "ended (mote rm forgets them)\n"
			       "  --json      a list of what mote inspect shows\n";

static const char inspect_usage[] = "usage: mote inspect [--json] NAME...\n"
				    "Prints what is known of microVMs as a list in JSON, with "
				    "--json or without. NAME is a name\n"
				    "or id that `mote ps -a` shows, or the beginning of one.\n";

static const char rm_usage[] = "usage: mote rm NAME...\n"
			       "Forgets microVMs that have ended: their logs and how they ended.\n";

static void print_age(int64_t created)
{
	int64_t seconds = (int64_t)time(NULL) - created;

	if (seconds < 120)
		printf("%3llds ", (long long)seconds);
	else if (seconds < 120 * 60)
		printf("%3lldm ", (long long)seconds / 60);
	else
		printf("%3lldh ", (long long)seconds / 3600);
}

/* An image's words are those of whoever made it. */
static void print_command(const json_t *command)
{
	size_t i;
	json_t *word;

	json_array_foreach (command, i, word) {
		char *text = strdup(json_string_value(word));

		if (text)
			cli_clean(text);
		printf("%s%s", i ? " " : "", text ? text : "");
		free(text);
	}
}

static void print_one(const json_t *meta)
{
	char state[32];

	if (json_is_true(json_object_get(meta, "running")))
		snprintf(state, sizeof(state), "%s", vm_string(meta, "state"));
	else
		snprintf(state, sizeof(state), "ended (%d)", (int)vm_number(meta, "exit_status"));
	printf("%-12s  %-20s %-11s ", vm_string(meta, "id"), vm_string(meta, "name"), state);
	print_age(vm_number(meta, "created"));
	printf(" %2d %5d  %-20s ", (int)vm_number(meta, "cpus"), (int)vm_number(meta, "memory_mib"),
	       vm_string(meta, "image"));
	print_command(json_object_get(meta, "command"));
	putchar('\n');
}

static void tell_pause(json_t *meta)
{
	if (vm_is_paused(meta))
		json_object_set_new(meta, "state", json_string("paused"));
}

static int list(bool all, bool as_json)
{
	json_t *vms, *meta;
	struct err err;
	size_t i;

	if (vm_list(&vms, &err) < 0)
		return cli_fail(CLI_EXIT_FAILURE, &err);
	for (i = json_array_size(vms); i-- > 0;) {
		meta = json_array_get(vms, i);
		if (json_is_true(json_object_get(meta, "running")))
			tell_pause(meta);
		else if (!all)
			json_array_remove(vms, i);
	}
	if (as_json) {
		cli_print_json(vms);
	} else {
		printf("%-12s  %-20s %-11s  AGE CPU   MiB  %-20s COMMAND\n", "ID", "NAME", "STATE",
		       "IMAGE");
		json_array_foreach (vms, i, meta)
			print_one(meta);
	}
	json_decref(vms);
	return EXIT_SUCCESS;
}

int cli_ps(int argc, char **argv)
{
	static const struct option names[] = { { "all", no_argument, NULL, 'a' },
					       { "json", no_argument, NULL, 'j' },
					       { "help", no_argument, NULL, 'h' },
					       { NULL, 0, NULL, 0 } };
	bool all = false, as_json = false;
	int option;

	while ((option = getopt_long(argc, argv, "a", names, NULL)) != -1) {
		switch (option) {
		case 'a':
			all = true;
			break;
		case 'j':
			as_json = true;
			break;
		case 'h':
			fputs(ps_usage, stdout);
			return EXIT_SUCCESS;
		default:
			return CLI_EXIT_USAGE;
		}
	}
	if (optind < argc) {
		fputs(ps_usage, stderr);
		return CLI_EXIT_USAGE;
	}
	return list(all, as_json);
}

/* Whether there is nothing to do but what *status says. */
static bool help_only(int argc, char **argv, const char *usage, int *status)
{
	bool help = argc == 2 && strcmp(argv[1], "--help") == 0;

	if (!help && argc > 1 && argv[1][0] != '-')
		return false;
	fputs(usage, help ? stdout : stderr);
	*status = help ? EXIT_SUCCESS : CLI_EXIT_USAGE;
	return true;
}

int cli_inspect(int argc, char **argv)
{
	json_t *found = json_array();
	struct err err;
	int status = EXIT_SUCCESS;

	if (argc > 1 && strcmp(argv[1], "--json") == 0) {
		argc--;
		argv++;
	}
	if (help_only(argc, argv, inspect_usage, &status)) {
		json_decref(found);
		return status;
	}
	for (int i = 1; i < argc; i++) {
		json_t *meta = vm_find(argv[i], &err);

		if (meta) {
			tell_pause(meta);
			json_array_append_new(found, meta);
		} else {
			status = cli_fail(CLI_EXIT_FAILURE, &err);
		}
	}
	cli_print_json(found);
	json_decref(found);
	return status;
}

int cli_rm(int argc, char **argv)
{
	struct err err;
	int status = EXIT_SUCCESS;

	if (help_only(argc, argv, rm_usage, &status))
		return status;
	for (int i = 1; i < argc; i++) {
		json_t *meta = vm_find(argv[i], &err);
		int rc = meta ? 0 : -1;

		if (meta && json_is_true(json_object_get(meta, "running")))
			rc = err_set(&err, EBUSY, "microVM %s: it is running (mote kill ends it)",
				     argv[i]);
		else if (meta)
			rc = vm_forget(meta, &err);
		if (rc < 0)
			status = cli_fail(CLI_EXIT_FAILURE, &err);
		json_decref(meta);
	}
	return status;
}
