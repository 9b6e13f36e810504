/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/control.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/event_priority.h"
#include "base/fd.h"
#include "base/log.h"
#include "virtio/vsock/host.h"
#include "vmm/boot/layout.h"
#include "vmm/control_internal.h"
#include "vmm/kvm/cpu_template_named.h"
#include "vmm/kvm/stats.h"
#include "vmm/seccomp.h"

/*
 * How long the reader of the console may take for the last bytes of a VM that has ended; and of one
 * whose owner has ended it, who does not want to wait. A signal cuts it short.
 */
#define DRAIN_TIMEOUT_MS 5000
#define DRAIN_STOPPED_MS 100

#define AGENT_SHUTDOWN "{\"shutdown\": {\"grace_ms\": 3000}}"

#define METRICS_INTERVAL 60 /* seconds */

static const char *const state_names[] = { "Not started", "Running", "Paused", "Ended" };

const char *control_state_name(const struct control *control)
{
	return state_names[control->state];
}

static void set_state(struct control *control, enum control_state state)
{
	control->state = state;
	if (control->state_changed)
		control->state_changed(control->opaque);
}

#define BEFORE (1u << CONTROL_NOT_STARTED)
#define STARTED (1u << CONTROL_RUNNING | 1u << CONTROL_PAUSED)

static const struct {
	const char *name;
	unsigned int states; /* in which it is possible, by their bits */
} operations[] = {
	[CONTROL_OP_SET_BOOT_SOURCE] = { "Setting the boot source", BEFORE },
	[CONTROL_OP_SET_MACHINE] = { "Setting the machine configuration", BEFORE },
	[CONTROL_OP_SET_CPU_CONFIG] = { "Setting the CPU configuration", BEFORE },
	[CONTROL_OP_SET_LOGGER] = { "Setting the logger", BEFORE },
	[CONTROL_OP_SET_METRICS] = { "Setting the metrics", BEFORE },
	[CONTROL_OP_SET_SERIAL] = { "Setting the serial port", BEFORE },
	[CONTROL_OP_SET_DRIVE] = { "Configuring a drive", BEFORE },
	[CONTROL_OP_SET_INTERFACE] = { "Configuring a network interface", BEFORE },
	[CONTROL_OP_SET_VSOCK] = { "Configuring the vsock device", BEFORE },
	[CONTROL_OP_SET_MMDS] = { "Configuring the metadata service", BEFORE },
	[CONTROL_OP_REMOVE_DRIVE] = { "Removing a drive", BEFORE },
	[CONTROL_OP_REMOVE_INTERFACE] = { "Removing a network interface", BEFORE },
	[CONTROL_OP_START] = { "Starting", BEFORE },
	[CONTROL_OP_UPDATE_DRIVE] = { "Updating a drive", STARTED },
	[CONTROL_OP_UPDATE_INTERFACE] = { "Updating a network interface", STARTED },
	[CONTROL_OP_FLUSH_METRICS] = { "Flushing the metrics", STARTED },
	[CONTROL_OP_PAUSE] = { "Pausing", STARTED },
	[CONTROL_OP_RESUME] = { "Resuming", STARTED },
	[CONTROL_OP_SAVE] = { "Creating a snapshot", 1u << CONTROL_PAUSED },
	[CONTROL_OP_LOAD] = { "Loading a snapshot", BEFORE },
	[CONTROL_OP_SEND_CTRL_ALT_DEL] = { "SendCtrlAltDel", STARTED },
	[CONTROL_OP_STOP] = { "Stopping", STARTED },
};

int control_check(const struct control *control, enum control_operation operation, struct err *err)
{
	if (operations[operation].states & 1u << control->state)
		return 0;
	return err_set(err, EBUSY, "%s is not possible in the state \"%s\"",
		       operations[operation].name, control_state_name(control));
}

int control_open(struct control *control, struct event_base *base, struct err *err)
{
	memset(control, 0, sizeof(*control));
	control->base = base;
	control->process_start_ns = clock_ns();
	metrics_open(&control->metrics);
	return control_open_config(control, err);
}

static void detach_devices(struct control *control)
{
	if (!devices_detach(&control->devices))
		control->machine.memory_in_use = true;
}

static void forget(struct event **event)
{
	if (*event)
		event_free(*event);
	*event = NULL;
}

static void stop_asking(struct control *control)
{
	forget(&control->asked_event);
	fd_close(&control->asked_fd);
}

void control_close_machine(struct control *control)
{
	stop_asking(control);
	vcpu_group_stop(&control->machine.vcpus);
	detach_devices(control);
	forget(&control->init_event);
	forget(&control->ended_event);
	forget(&control->metrics_timer);
	console_close(&control->console);
	machine_close(&control->machine);
}

void control_close(struct control *control)
{
	/* What it counts is about to go. */
	metrics_close(&control->metrics);
	control_close_machine(control);
	control_close_config(control);
}

int control_flush_metrics(struct control *control, struct err *err)
{
	int rc = control_check(control, CONTROL_OP_FLUSH_METRICS, err);

	if (rc < 0)
		return rc;
	rc = metrics_write(&control->metrics);
	return rc < 0 ? err_sys(err, -rc, "metrics_path %s", control->metrics.config.metrics_path)
		      : 0;
}

static void on_metrics_timer(evutil_socket_t fd, short events, void *opaque)
{
	struct control *control = opaque;

	(void)fd;
	(void)events;
	(void)metrics_write(&control->metrics);
}

static void log_exits(const struct vcpu_group *vcpus)
{
	for (unsigned int reason = 0; reason < VCPU_EXIT_REASONS; reason++) {
		const char *name = vcpu_exit_name(reason);
		uint64_t count = 0;

		for (unsigned int i = 0; i < vcpus->count; i++)
			count += vcpus->vcpus[i].exits[reason];
		if (count > 0)
			log_debug("KVM exits %s = %llu", name ? name : "other",
				  (unsigned long long)count);
	}
	if (!log_wants(LOG_DEBUG))
		return;
	for (unsigned int i = 0; i < vcpus->count; i++)
		stats_log(vcpus->vcpus[i].fd, i);
}

/* Who was to be told is told once. */
static void tell_times(struct control *control)
{
	if (!control->init_event)
		return;
	forget(&control->init_event);
	if (control->timed)
		control->timed(control->opaque);
}

static void on_init(evutil_socket_t fd, short events, void *opaque)
{
	(void)fd;
	(void)events;
	tell_times(opaque);
}

static void on_end(evutil_socket_t fd, short events, void *opaque)
{
	struct control *control = opaque;
	struct machine *machine = &control->machine;
	struct vm_end end;

	(void)fd;
	(void)events;
	vcpu_group_stop(&machine->vcpus);
	end = machine_end_reason(machine);
	serial_drain(&machine->serial,
		     end.kind == VM_END_STOPPED ? DRAIN_STOPPED_MS : DRAIN_TIMEOUT_MS);
	if (machine->phases.init_ns == 0)
		machine_log_phases(machine);
	tell_times(control);
	log_exits(&machine->vcpus);
	detach_devices(control);
	devices_log_metrics(&control->devices);
	(void)metrics_write(&control->metrics);
	event_del(control->metrics_timer);
	set_state(control, CONTROL_ENDED);
	forget(&control->ended_event);
	console_close(&control->console);
	if (control->ended)
		control->ended(control->opaque, &end);
}

static int watch(struct control *control, struct err *err)
{
	const struct timeval interval = { .tv_sec = METRICS_INTERVAL };
	int rc = console_open(&control->console, control->base, &control->machine.serial,
			      control->serial.serial_out_path ? -1 : STDIN_FILENO,
			      control->serial_fd, err);

	if (rc < 0)
		return rc;
	control->ended_event =
		event_new(control->base, control->machine.end_fd, EV_READ, on_end, control);
	control->metrics_timer =
		event_new(control->base, -1, EV_PERSIST, on_metrics_timer, control);
	if (control->boot_timer)
		control->init_event = event_new(control->base, control->machine.init_fd, EV_READ,
						on_init, control);
	if ((control->boot_timer &&
	     (!control->init_event || event_add(control->init_event, NULL) < 0)) ||
	    !control->ended_event ||
	    event_priority_set(control->ended_event, EVENT_PRIORITY_FIRST) < 0 ||
	    event_add(control->ended_event, NULL) < 0 || !control->metrics_timer ||
	    event_add(control->metrics_timer, &interval) < 0)
		return err_set(err, ENOMEM, "machine: no memory for its events");
	return 0;
}

static int confine_block(struct err *err)
{
	return seccomp_enter(SECCOMP_BLOCK, err);
}

int control_create_machine(struct control *control, struct err *err)
{
	struct virtio_device *list[LAYOUT_VIRTIO_MAX];
	const struct machine_parts parts = {
		.config = &control->machine_config,
		.cpu_template = &control->cpu_template,
		.devices = list,
		.device_count = devices_list(&control->devices, list),
		.serial_fd = control->serial_fd,
	};
	int rc = machine_create(&control->machine, &parts, err);

	if (rc < 0)
		return rc;
	control->machine.process_start_ns = control->process_start_ns;
	control->machine.console_ring = &control->console_ring;
	control->machine.boot_timer_logged = control->boot_timer;
	control->machine.vcpus.filtered = control->filtered;
	return 0;
}

int control_attach_machine(struct control *control, struct err *err)
{
	int rc = watch(control, err);

	if (rc == 0 && control->has_mmds_config)
		rc = devices_set_mmds(&control->devices, control->mmds, &control->mmds_config,
				      control->base, err);
	if (rc == 0)
		rc = devices_attach(&control->devices, &control->machine.memory, control->base,
				    control->filtered ? confine_block : NULL, err);
	return rc;
}

static int open_machine(struct control *control, struct err *err)
{
	int rc;

	free(control->files.cmdline);
	control->files.cmdline = control_cmdline(control);
	rc = cpu_template_named_check_host(
		(enum cpu_template_name)control->machine_config.cpu_template, err);
	if (rc == 0)
		rc = control_check_cmdline(control->files.cmdline, err);
	if (rc == 0)
		rc = control_create_machine(control, err);
	if (rc == 0)
		rc = machine_boot(&control->machine, &control->files, err);
	return rc < 0 ? rc : control_attach_machine(control, err);
}

static void add_metrics(struct control *control)
{
	const struct machine *machine = &control->machine;

	devices_add_metrics(&control->devices, &control->metrics);
	metrics_add(&control->metrics, METRICS_I8042, NULL, &machine->i8042.metrics, 1, 0);
	if (control->mmds)
		metrics_add(&control->metrics, METRICS_MMDS, NULL, mmds_metrics(control->mmds), 1,
			    0);
	metrics_add(&control->metrics, METRICS_UART, NULL, &machine->serial.metrics, 1, 0);
	metrics_add(&control->metrics, METRICS_VCPU, NULL, &machine->vcpus.vcpus[0].metrics,
		    machine->vcpus.count, sizeof(machine->vcpus.vcpus[0]));
}

static uint64_t microseconds_since(int64_t start_ns)
{
	return (uint64_t)(clock_ns() - start_ns) / 1000;
}

int control_begin(struct control *control, enum control_state state, struct err *err)
{
	/* There is no way back from it: the last that can fail. */
	int rc = control->filtered ? seccomp_enter(SECCOMP_MAIN, err) : 0;

	if (rc < 0)
		return rc;
	add_metrics(control);
	(void)metrics_write(&control->metrics);
	set_state(control, state);
	return 0;
}

int control_start(struct control *control, struct err *err)
{
	int rc = control_check(control, CONTROL_OP_START, err);

	if (rc < 0)
		return rc;
	if (!control->has_boot_source)
		return err_set(err, EINVAL, "boot-source: no kernel has been configured");
	rc = open_machine(control, err);
	if (rc == 0)
		rc = control_begin(control, CONTROL_RUNNING, err);
	if (rc < 0) {
		control_close_machine(control);
		return rc;
	}
	vcpu_group_resume(&control->machine.vcpus);
	return 0;
}

static void log_nobody_sees_it(void)
{
	log_warn("SendCtrlAltDel: the guest has no keyboard driver that would see it, nor "
		 "mote-init, "
		 "which would hear of it by a vsock.");
}

/* Its first words: that the guest's port is open, or nothing. */
static void on_asked(evutil_socket_t fd, short events, void *opaque)
{
	struct control *control = opaque;
	char word;
	ssize_t n = recv(fd, &word, 1, MSG_DONTWAIT);

	(void)events;
	if (n < 0 && errno == EAGAIN)
		return;
	if (n > 0) {
		forget(&control->asked_event);
		return;
	}
	stop_asking(control);
	log_nobody_sees_it();
}

/*
 * Of the guest's agent (docs/agent-protocol.md), where it has one, for kernels without a keyboard's
 * driver: a REQUEST, its length, and what the agent does when it is asked by the keyboard. False if
 * it cannot be asked.
 */
static bool ask_agent_to_end(struct control *control, const struct device *vsock)
{
	static const char words[] = "CONNECT 52\n"
				    "\x01\x20\0\0\0" AGENT_SHUTDOWN;

	_Static_assert(sizeof(AGENT_SHUTDOWN) - 1 == 0x20, "the frame's length is another");

	stop_asking(control);
	control->asked_fd = vsock_host_connect(vsock->config.vsock.uds_path);
	if (control->asked_fd < 0 || send(control->asked_fd, words, sizeof(words) - 1,
					  MSG_DONTWAIT | MSG_NOSIGNAL) != sizeof(words) - 1)
		return false;
	control->asked_event = event_new(control->base, control->asked_fd, EV_READ | EV_PERSIST,
					 on_asked, control);
	if (control->asked_event)
		(void)event_add(control->asked_event, NULL);
	return true;
}

static void send_ctrl_alt_del_by_vsock(struct control *control)
{
	const struct device *vsock = devices_next(&control->devices, DEVICE_VSOCK, NULL);
	bool possible = vsock && virtio_device_has_driver(vsock->virtio);

	/* A connection to a guest that is paused would not wait for long. */
	control->asks_when_resumed = possible && control->state == CONTROL_PAUSED;
	if (!control->asks_when_resumed && !(possible && ask_agent_to_end(control, vsock)))
		log_nobody_sees_it();
}

int control_pause(struct control *control, struct err *err)
{
	int64_t start_ns = clock_ns();
	int rc = control_check(control, CONTROL_OP_PAUSE, err);

	if (rc < 0 || control->state == CONTROL_PAUSED)
		return rc;
	vcpu_group_pause(&control->machine.vcpus);
	rc = devices_freeze(&control->devices, err);
	if (rc < 0) {
		vcpu_group_resume(&control->machine.vcpus);
		return rc;
	}
	control->metrics.latencies.vmm_pause_vm = microseconds_since(start_ns);
	set_state(control, CONTROL_PAUSED);
	return 0;
}

int control_resume(struct control *control, struct err *err)
{
	int64_t start_ns = clock_ns();
	int rc = control_check(control, CONTROL_OP_RESUME, err);

	if (rc < 0 || control->state == CONTROL_RUNNING)
		return rc;
	devices_thaw(&control->devices);
	vcpu_group_resume(&control->machine.vcpus);
	control->metrics.latencies.vmm_resume_vm = microseconds_since(start_ns);
	set_state(control, CONTROL_RUNNING);
	if (control->asks_when_resumed)
		send_ctrl_alt_del_by_vsock(control);
	return 0;
}

int control_send_ctrl_alt_del(struct control *control, struct err *err)
{
	int rc = control_check(control, CONTROL_OP_SEND_CTRL_ALT_DEL, err);

	if (rc < 0)
		return rc;
	rc = i8042_ctrl_alt_del(&control->machine.i8042);
	if (rc == -ENOBUFS)
		return err_set(err, EAGAIN,
			       "SendCtrlAltDel: the guest has not read the keys of before");
	if (rc < 0)
		send_ctrl_alt_del_by_vsock(control);
	return 0;
}

bool control_ask_to_end(struct control *control)
{
	return control->state == CONTROL_RUNNING &&
	       i8042_ctrl_alt_del(&control->machine.i8042) == 0;
}

int control_stop(struct control *control, const char *why, struct err *err)
{
	struct vm_end end = { .kind = VM_END_STOPPED };
	int rc = control_check(control, CONTROL_OP_STOP, err);

	if (rc < 0)
		return rc;
	snprintf(end.text, sizeof(end.text), "Stopped from the host: %s", why);
	machine_end(&control->machine, &end);
	return 0;
}
