/* SPDX-License-Identifier: Apache-2.0 */
/* mote stats: what microVMs use, as the host and as their guests see it. */
#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/array.h"
#include "base/err.h"
#include "base/fd.h"
#include "cli/cli.h"
#include "host/agent_connect.h"
#include "host/transfer.h"
#include "host/vm.h"

static const char usage[] = "usage: mote stats [--json] [NAME]...\n"
			    "Prints what running microVMs use, all of them or those named: the "
			    "processor time and memory of\n"
			    "their VMMs on the host, and what their guests say.\n";

/* Processor time and resident memory of a process; zero if it is gone. */
static void read_process(pid_t pid, uint64_t *cpu_us, uint64_t *rss)
{
	char path[64], text[1024];
	unsigned long long user = 0, system = 0;
	long long pages = 0;
	const char *rest;
	size_t n = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	file = fopen(path, "re");
	if (file) {
		n = fread(text, 1, sizeof(text) - 1, file);
		fclose(file);
	}
	text[n] = '\0';
	/* Behind the name, which may be anything: state is field 3, utime 14, rss 24. */
	rest = strrchr(text, ')');
	if (rest)
		(void)sscanf(rest,
			     ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %*d %*d %*d "
			     "%*d %*d %*d %*u %*u %lld",
			     &user, &system, &pages);
	*cpu_us = (user + system) * 1000000 / (uint64_t)sysconf(_SC_CLK_TCK);
	*rss = (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* In a jail it is the jailer's one child. */
static pid_t vmm_of(const json_t *meta)
{
	CLEANUP_FD int jailer = vm_open_process(meta, VM_VMM);
	pid_t pid = jailer < 0 ? 0 : (pid_t)vm_number(meta, VM_VMM);
	char path[64];
	int child = 0;
	FILE *file;

	if (pid == 0 || !json_is_true(json_object_get(meta, "jailed")))
		return pid;
	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)pid, (int)pid);
	file = fopen(path, "re");
	if (file) {
		if (fscanf(file, "%d", &child) != 1)
			child = 0;
		fclose(file);
	}
	return child;
}

/* Of what a guest says only that which is expected. */
static json_t *known_numbers(const json_t *guest)
{
	static const char *const names[] = { "uptime_s",	   "cpu_us",
					     "memory_total_bytes", "memory_available_bytes",
					     "root_total_bytes",   "root_available_bytes",
					     "processes",	   "streams" };
	json_t *known = json_object();

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		const json_t *value = json_object_get(guest, names[i]);

		if (json_is_integer(value) && json_integer_value(value) >= 0)
			json_object_set_new(known, names[i],
					    json_integer(json_integer_value(value)));
	}
	return known;
}

static json_t *stats_of(const json_t *meta)
{
	static const struct transfer_bounds bounds = { .time_ms = ANSWER_TIMEOUT_MS };
	struct err err;
	json_t *guest = NULL;
	uint64_t cpu_us, rss;
	json_t *object;

	if (vm_is_paused(meta))
		err_set(&err, EAGAIN, "paused");
	else
		guest = transfer_ask(vm_string(meta, "vsock"), "{\"stats\":{}}", &bounds, &err);
	read_process(vmm_of(meta), &cpu_us, &rss);
	object = json_pack("{s:s, s:s, s:I, s:I}", "id", vm_string(meta, "id"), "name",
			   vm_string(meta, "name"), "host_cpu_us", (json_int_t)cpu_us,
			   "host_memory_bytes", (json_int_t)rss);
	if (guest)
		json_object_set_new(object, "guest", known_numbers(guest));
	else
		json_object_set_new(object, "error", json_string(err.text));
	json_decref(guest);
	return object;
}

static void print_one(const json_t *object)
{
	const json_t *guest = json_object_get(object, "guest");

	printf("%-20s %8.2f %8lld", vm_string(object, "name"),
	       (double)vm_number(object, "host_cpu_us") / 1e6,
	       (long long)vm_number(object, "host_memory_bytes") >> 20);
	if (guest)
		printf(" %8.2f %7lld/%-7lld %6lld\n", (double)vm_number(guest, "cpu_us") / 1e6,
		       (long long)(vm_number(guest, "memory_total_bytes") -
				   vm_number(guest, "memory_available_bytes")) >>
			       20,
		       (long long)vm_number(guest, "memory_total_bytes") >> 20,
		       (long long)vm_number(guest, "processes"));
	else
		printf("  %s\n", vm_string(object, "error"));
}

static void print(const json_t *all, bool as_json)
{
	size_t i;
	json_t *object;

	if (as_json) {
		cli_print_json(all);
		return;
	}
	printf("%-20s %8s %8s %8s %15s %6s\n", "NAME", "CPU s", "MiB", "guest s", "guest MiB",
	       "procs");
	json_array_foreach (all, i, object)
		print_one(object);
}

/* Of those named, or of all that run. */
static int collect(json_t *all, char *const *names, struct err *err)
{
	json_t *list, *meta;
	size_t i;

	for (; *names; names++) {
		meta = vm_find_running(*names, err);
		if (!meta)
			return -1;
		json_array_append_new(all, stats_of(meta));
		json_decref(meta);
		if (!names[1])
			return 0;
	}
	if (vm_list(&list, err) < 0)
		return -1;
	json_array_foreach (list, i, meta) {
		if (json_is_true(json_object_get(meta, "running")))
			json_array_append_new(all, stats_of(meta));
	}
	json_decref(list);
	return 0;
}

int cli_stats(int argc, char **argv)
{
	static const struct option names[] = { { "json", no_argument, NULL, 'j' },
					       { "help", no_argument, NULL, 'h' },
					       { NULL, 0, NULL, 0 } };
	bool as_json = false;
	json_t *all;
	struct err err;
	int option, status = EXIT_SUCCESS;

	while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
		if (option == 'h') {
			fputs(usage, stdout);
			return EXIT_SUCCESS;
		}
		if (option != 'j')
			return CLI_EXIT_USAGE;
		as_json = true;
	}
	all = json_array();
	if (collect(all, argv + optind, &err) < 0)
		status = cli_fail(CLI_EXIT_FAILURE, &err);
	else
		print(all, as_json);
	json_decref(all);
	return status;
}
