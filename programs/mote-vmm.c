/* SPDX-License-Identifier: Apache-2.0 */
/* mote-vmm: one microVM a process. Wiring only. */
#include <errno.h>
#include <event2/event.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "api-socket/api.h"
#include "api-socket/config_file.h"
#include "base/array.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/event_priority.h"
#include "base/fd.h"
#include "base/firecracker.h"
#include "base/log.h"
#include "base/record.h"
#include "programs/vmm_options.h"
#include "vmm/control.h"
#include "vmm/fatal.h"

/* How long a guest that was asked to shut down may take. */
static const struct timeval GRACE = { .tv_usec = 500000 };

struct run {
	struct event_base *base;
	struct control control;
	struct api api;
	struct event *terminate;
	struct event *interrupt;
	struct event *grace;
	bool asked; /* the guest, to shut down */
	int status;
};

static void on_state_changed(void *opaque)
{
	struct run *run = opaque;

	api_publish_state(&run->api);
}

static void on_timed(void *opaque)
{
	struct run *run = opaque;

	api_publish_phases(&run->api);
}

static void on_ended(void *opaque, const struct vm_end *end)
{
	struct run *run = opaque;

	run->status = vm_end_exit_status(end);
	log_line(run->status ? LOG_ERROR : LOG_INFO, "%s.", end->text);
	api_publish_end(&run->api, end);
	event_base_loopbreak(run->base);
}

static void on_grace_over(evutil_socket_t fd, short events, void *opaque)
{
	struct run *run = opaque;

	(void)fd;
	(void)events;
	(void)control_stop(&run->control, "it did not shut down when asked to", NULL);
}

/* The guest is asked first; if it cannot be, or at the second signal, it is ended. */
static void on_signal(evutil_socket_t number, short events, void *opaque)
{
	struct run *run = opaque;
	char why[32];

	(void)events;
	if (run->control.state == CONTROL_NOT_STARTED) {
		run->status = EXIT_SUCCESS;
		event_base_loopbreak(run->base);
		return;
	}
	if (!run->asked && control_ask_to_end(&run->control) &&
	    evtimer_add(run->grace, &GRACE) == 0) {
		run->asked = true;
		return;
	}
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
	record_error(err->text);
	return status;
}

static int set_metrics(struct control *control, const char *path, struct err *err)
{
	struct metrics_config config = { .metrics_path = strdup(path) };
	int rc = config.metrics_path ? control_set_metrics(control, &config, err)
				     : err_sys(err, ENOMEM, "--metrics-path %s", path);

	metrics_config_free(&config);
	return rc;
}

/*
 * SIGTERM and SIGINT wait until there are handlers for them: to the first process of a PID
 * namespace, which a jailed VMM is, a signal without one is lost.
 */
static void hold_signals(int how)
{
	sigset_t held;

	sigemptyset(&held);
	sigaddset(&held, SIGTERM);
	sigaddset(&held, SIGINT);
	sigprocmask(how, &held, NULL);
}

/*
 * The API's clients and signals come first: however much the devices have to do, after 5 ms of it
 * the loop looks whether the owner wants something.
 */
static struct event_base *open_loop(void)
{
	static const struct timeval dispatch_max = { .tv_usec = 5000 };
	struct event_config *config = event_config_new();
	struct event_base *base = NULL;

	if (config && event_config_set_max_dispatch_interval(config, &dispatch_max, -1,
							     EVENT_PRIORITY_FIRST + 1) == 0)
		base = event_base_new_with_config(config);
	if (config)
		event_config_free(config);
	if (base && event_base_priority_init(base, EVENT_PRIORITIES) < 0) {
		event_base_free(base);
		base = NULL;
	}
	return base;
}

static int open_events(struct run *run, struct err *err)
{
	run->terminate = evsignal_new(run->base, SIGTERM, on_signal, run);
	run->interrupt = evsignal_new(run->base, SIGINT, on_signal, run);
	run->grace = evtimer_new(run->base, on_grace_over, run);
	if (run->terminate && run->interrupt && run->grace &&
	    event_priority_set(run->terminate, EVENT_PRIORITY_FIRST) == 0 &&
	    event_priority_set(run->interrupt, EVENT_PRIORITY_FIRST) == 0 &&
	    event_priority_set(run->grace, EVENT_PRIORITY_FIRST) == 0 &&
	    event_add(run->terminate, NULL) == 0 && event_add(run->interrupt, NULL) == 0) {
		hold_signals(SIG_UNBLOCK);
		return 0;
	}
	return err_set(err, ENOMEM, "mote-vmm: no memory for its events");
}

static void count_startup(struct api_server_metrics *metrics, const struct vmm_options *options)
{
	struct timespec used;
	int64_t used_us;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
	used_us = used.tv_sec * INT64_C(1000000) + used.tv_nsec / 1000 - options->start_cpu_us +
		  options->parent_cpu_us;
	metrics->process_startup_time_cpu_us = used_us > 0 ? (uint64_t)used_us : 0;
	if (options->start_time_us > 0)
		metrics->process_startup_time_us =
			(uint64_t)(clock_ns() / 1000 - options->start_time_us);
}

static int run_vm(struct run *run, const struct vmm_options *options)
{
	struct err err;

	if (api_open(&run->api, &run->control, options->id, options->api_sock, options->body_max,
		     &err) < 0)
		return fail(EXIT_FAILURE, &err);
	count_startup(&run->control.metrics.api_server, options);
	if ((options->metadata &&
	     metadata_file_apply(&run->control, options->metadata, &err) < 0) ||
	    (options->config_file &&
	     config_file_apply(&run->control, options->config_file, &err) < 0))
		return fail(EXIT_BAD_CONFIGURATION, &err);
	if (open_events(run, &err) < 0 ||
	    (options->config_file && control_start(&run->control, &err) < 0))
		return fail(EXIT_FAILURE, &err);
	event_base_dispatch(run->base);
	return run->status;
}

static void close_run(struct run *run)
{
	struct event *const events[] = { run->terminate, run->interrupt, run->grace };

	/* One more of them must not end the process before its socket is removed. */
	hold_signals(SIG_BLOCK);
	for (size_t i = 0; i < ARRAY_SIZE(events); i++) {
		if (events[i])
			event_free(events[i]);
	}
	run->control.state_changed = NULL;
	api_close(&run->api);
	control_close(&run->control);
	creator_close(&run->control.creator);
	event_base_free(run->base);
}

int main(int argc, char **argv)
{
	struct run run = { .status = EXIT_FAILURE };
	struct creator creator = { .fd = -1 };
	struct vmm_options options;
	struct err err;
	int status;

	/* Whoever handles core dumps gets nothing of what a guest had, or put, in it. */
	prctl(PR_SET_DUMPABLE, 0);
	fd_reserve_standard();
	status = vmm_options_parse(argc, argv, &options);
	if (status != 0)
		return status < 0 ? EXIT_SUCCESS : status;
	hold_signals(SIG_SETMASK);
	/* Both show as errors of the call: EPIPE, and EFBIG where RLIMIT_FSIZE meets a drive. */
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	if (options.log_path && log_open(options.log_path, &err) < 0)
		return fail(EXIT_BAD_ARGUMENTS, &err);
	log_debug("Running Firecracker v" FIRECRACKER_VERSION " (mote-vmm %s)", MOTE_VERSION);
	if (options.wants_pci)
		log_warn("--enable-pci: mote has no PCI; its devices are on virtio-mmio");
	if (options.api_sock && creator_open(&creator, !options.no_seccomp, &err) < 0)
		return fail(EXIT_FAILURE, &err);
	event_set_log_callback(on_libevent_log);
	run.base = open_loop();
	if (!run.base) {
		err_set(&err, ENOMEM, "mote-vmm: no event loop");
		return fail(EXIT_FAILURE, &err);
	}
	if (control_open(&run.control, run.base, &err) < 0)
		return fail(EXIT_FAILURE, &err);
	run.control.creator = creator;
	run.control.mmds_size_limit = options.mmds_size_limit;
	run.control.boot_timer = options.boot_timer;
	run.control.filtered = !options.no_seccomp;
	if (options.start_time_us > 0)
		run.control.process_start_ns = options.start_time_us * 1000;
	run.control.ended = on_ended;
	run.control.state_changed = on_state_changed;
	run.control.timed = on_timed;
	run.control.opaque = &run;
	run.control.metrics.id = options.id;
	fatal_watch(metrics_fatal, &run.control.metrics);
	if (options.metrics_path && set_metrics(&run.control, options.metrics_path, &err) < 0)
		status = fail(EXIT_BAD_ARGUMENTS, &err);
	else
		status = run_vm(&run, &options);
	close_run(&run);
	log_debug("Firecracker exiting %s. exit_code=%d",
		  status == EXIT_SUCCESS ? "successfully" : "with error", status);
	return status;
}
