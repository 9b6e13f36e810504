/* SPDX-License-Identifier: Apache-2.0 */
/* mote-vmm: one microVM a process. Argument handling and wiring only. */
#include <errno.h>
#include <event2/event.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api-socket/config_file.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/log.h"
#include "vmm/control.h"

/* Firecracker's exit codes. */
#define EXIT_BAD_CONFIGURATION 152
#define EXIT_BAD_ARGUMENTS 153

#define ID_LENGTH_MAX 64

static const char usage[] =
	"usage: mote-vmm --no-api --config-file FILE [OPTION]...\n"
	"Runs one microVM until its guest ends.\n"
	"\n"
	"  --config-file FILE    the VM's configuration (JSON, Firecracker's format)\n"
	"  --no-api              do not serve an API socket\n"
	"  --id ID               the VM's name in the log\n"
	"  --log-path FILE       write the log there instead of to standard error\n"
	"  --level LEVEL         Error, Warning, Info (default) or Debug\n"
	"  --boot-timer          log the boot time and its phases\n"
	"  --start-time-us TIME  when the process was started, microseconds of CLOCK_MONOTONIC\n"
	"  --version, --help\n"
	"\n"
	"Exit status: 0 the guest powered off or reset, or was stopped; 160 its kernel panicked;\n"
	"161 triple fault; 162 KVM error; 152 bad configuration; 153 bad arguments; 1 other "
	"errors.\n";

struct options {
	const char *config_file;
	const char *log_path;
	bool no_api;
	bool boot_timer;
	long long start_time_us;
};

static int parse(int argc, char **argv, struct options *options)
{
	enum { CONFIG_FILE, NO_API, ID, LOG_PATH, LEVEL, BOOT_TIMER, START_TIME, VERSION, HELP };
	static const struct option names[] = {
		{ "config-file", required_argument, NULL, CONFIG_FILE },
		{ "no-api", no_argument, NULL, NO_API },
		{ "id", required_argument, NULL, ID },
		{ "log-path", required_argument, NULL, LOG_PATH },
		{ "level", required_argument, NULL, LEVEL },
		{ "boot-timer", no_argument, NULL, BOOT_TIMER },
		{ "start-time-us", required_argument, NULL, START_TIME },
		{ "version", no_argument, NULL, VERSION },
		{ "help", no_argument, NULL, HELP },
		{ NULL, 0, NULL, 0 },
	};
	enum log_level level;
	char *end;
	int option;

	while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
		switch (option) {
		case CONFIG_FILE:
			options->config_file = optarg;
			break;
		case NO_API:
			options->no_api = true;
			break;
		case ID:
			if (strlen(optarg) > ID_LENGTH_MAX) {
				fprintf(stderr, "mote-vmm: --id: longer than %d characters\n",
					ID_LENGTH_MAX);
				return EXIT_BAD_ARGUMENTS;
			}
			log_set_id(optarg);
			break;
		case LOG_PATH:
			options->log_path = optarg;
			break;
		case LEVEL:
			if (!log_level_parse(optarg, &level)) {
				fprintf(stderr, "mote-vmm: --level %s: no such level\n", optarg);
				return EXIT_BAD_ARGUMENTS;
			}
			log_set_level(level);
			break;
		case BOOT_TIMER:
			options->boot_timer = true;
			break;
		case START_TIME:
			options->start_time_us = strtoll(optarg, &end, 10);
			if (*end || end == optarg || options->start_time_us < 0 ||
			    options->start_time_us > INT64_MAX / 1000) {
				fprintf(stderr, "mote-vmm: --start-time-us %s: not a number\n",
					optarg);
				return EXIT_BAD_ARGUMENTS;
			}
			break;
		case VERSION:
			printf("mote-vmm %s\n", MOTE_VERSION);
			exit(EXIT_SUCCESS);
		case HELP:
			fputs(usage, stdout);
			exit(EXIT_SUCCESS);
		default:
			return EXIT_BAD_ARGUMENTS;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "mote-vmm: unexpected argument %s\n", argv[optind]);
		return EXIT_BAD_ARGUMENTS;
	}
	if (!options->no_api || !options->config_file) {
		fputs("mote-vmm: there is no API socket yet: --no-api and --config-file FILE are "
		      "needed\n",
		      stderr);
		return EXIT_BAD_ARGUMENTS;
	}
	return 0;
}

struct run {
	struct event_base *base;
	struct control control;
	int status;
};

static void on_ended(void *opaque, const struct vm_end *end)
{
	struct run *run = opaque;

	run->status = vm_end_exit_status(end);
	log_line(run->status ? LOG_ERROR : LOG_INFO, "%s.", end->text);
	event_base_loopbreak(run->base);
}

static void on_signal(evutil_socket_t number, short events, void *opaque)
{
	struct run *run = opaque;
	char why[32];

	(void)events;
	snprintf(why, sizeof(why), "signal %s", sigabbrev_np((int)number));
	(void)control_stop(&run->control, why, NULL);
}

static void on_libevent_log(int severity, const char *text)
{
	(void)severity;
	log_debug("libevent: %s", text);
}

static int fail(int status, const struct err *err)
{
	log_error("%s", err->text);
	return status;
}

static int run_vm(struct run *run, const struct options *options)
{
	struct event *terminate = evsignal_new(run->base, SIGTERM, on_signal, run);
	struct event *interrupt = evsignal_new(run->base, SIGINT, on_signal, run);
	struct err err;

	if (config_file_apply(&run->control, options->config_file, &err) < 0) {
		run->status = fail(EXIT_BAD_CONFIGURATION, &err);
	} else if (!terminate || !interrupt || event_add(terminate, NULL) < 0 ||
		   event_add(interrupt, NULL) < 0) {
		err_set(&err, ENOMEM, "mote-vmm: signal handlers");
		run->status = fail(EXIT_FAILURE, &err);
	} else if (control_start(&run->control, &err) < 0) {
		run->status = fail(EXIT_FAILURE, &err);
	} else {
		event_base_dispatch(run->base);
	}
	if (terminate)
		event_free(terminate);
	if (interrupt)
		event_free(interrupt);
	return run->status;
}

int main(int argc, char **argv)
{
	struct options options = { 0 };
	struct run run = { .status = EXIT_FAILURE };
	struct err err;
	sigset_t none;
	int status;

	fd_reserve_standard();
	status = parse(argc, argv, &options);
	if (status != 0)
		return status;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	/* Both show as errors of the call: EPIPE, and EFBIG where RLIMIT_FSIZE meets a drive. */
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	if (options.log_path && log_open(options.log_path, &err) < 0)
		return fail(EXIT_BAD_ARGUMENTS, &err);
	event_set_log_callback(on_libevent_log);
	run.base = event_base_new();
	if (!run.base) {
		err_set(&err, ENOMEM, "mote-vmm: no event loop");
		return fail(EXIT_FAILURE, &err);
	}
	control_open(&run.control, run.base);
	run.control.boot_timer = options.boot_timer;
	if (options.start_time_us > 0)
		run.control.process_start_ns = options.start_time_us * 1000;
	run.control.ended = on_ended;
	run.control.opaque = &run;
	status = run_vm(&run, &options);
	control_close(&run.control);
	event_base_free(run.base);
	return status;
}
