/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of one microVM: configured, started, paused, resumed, stopped. All that drives a VM, be
 * it a configuration file or the API, calls this and nothing below it. Main thread only.
 *
 *	NOT_STARTED --start--> RUNNING <--pause/resume--> PAUSED
 *	                          \------- end, stop -------/--> ENDED
 */
#ifndef MOTE_VMM_CONTROL_H
#define MOTE_VMM_CONTROL_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "mmds/mmds.h"
#include "vmm/config.h"
#include "vmm/console.h"
#include "vmm/console_ring.h"
#include "vmm/devices.h"
#include "vmm/kvm/cpu_template.h"
#include "vmm/machine.h"
#include "vmm/metrics.h"
#include "vmm/snapshot/creator.h"

struct err;
struct state_reader;

enum control_state {
	CONTROL_NOT_STARTED,
	CONTROL_RUNNING,
	CONTROL_PAUSED,
	CONTROL_ENDED,
};

struct control {
	struct event_base *base; /* not owned */
	enum control_state state;
	struct machine_config machine_config;
	struct cpu_template cpu_template; /* owned */
	bool has_cpu_config;
	struct boot_files files;
	struct boot_source_config boot_source; /* owned */
	bool has_boot_source;
	struct devices devices;
	struct mmds *mmds;		/* owned; NULL: there is no metadata service */
	size_t mmds_size_limit;		/* of its document, which is made with it */
	struct mmds_config mmds_config; /* owned */
	bool has_mmds_config;
	struct logger_config logger; /* owned */
	struct serial_config serial; /* owned */
	int serial_fd;		     /* owned unless it is standard output itself */
	struct console_ring console_ring;
	struct creator creator;	  /* of files; without one there is no snapshot */
	bool boot_timer;	  /* log the boot time and its phases */
	bool filtered;		  /* from the start on, every thread is under its seccomp policy */
	int64_t process_start_ns; /* CLOCK_MONOTONIC */
	struct machine machine;
	struct console console;
	struct event *init_event;
	struct event *ended_event;
	struct metrics metrics;
	struct event *metrics_timer;
	int asked_fd; /* owned; on which the guest's agent was asked to end; -1: it was not */
	struct event *asked_event; /* owned; it answers, or hangs up */
	bool asks_when_resumed;	   /* the guest was paused when it was to be asked */
	/* Called whenever `state` has changed; may be NULL. */
	void (*state_changed)(void *opaque);
	/*
	 * Called once, from the event loop, when the boot timer has been written, or at the end of
	 * a VM in which it was not; if boot_timer. May be NULL.
	 */
	void (*timed)(void *opaque);
	/* Called once, from the event loop, when the VM has ended and its vCPUs are stopped. */
	void (*ended)(void *opaque, const struct vm_end *end);
	void *opaque;
};

/*
 * Sets the defaults; the caller then fills in the callbacks. 0 or -errno with err set and nothing
 * to close.
 */
int control_open(struct control *control, struct event_base *base, struct err *err);
/* Stops a running VM without calling back. */
void control_close(struct control *control);

/*
 * Configuration, before the start only. Files are opened and checked here, so that a mistake shows
 * early. A call that fails leaves what was configured before. 0 or -errno with err set.
 */
int control_set_machine(struct control *control, const struct machine_config *config,
			struct err *err);

/* These take what the configuration owns when they succeed. */
int control_set_boot_source(struct control *control, struct boot_source_config *config,
			    struct err *err);
int control_set_logger(struct control *control, struct logger_config *config, struct err *err);
int control_set_serial(struct control *control, struct serial_config *config, struct err *err);
int control_set_drive(struct control *control, struct drive_config *config, struct err *err);
int control_set_interface(struct control *control, struct network_interface_config *config,
			  struct err *err);
int control_set_vsock(struct control *control, struct vsock_device_config *config, struct err *err);
int control_set_cpu_config(struct control *control, struct cpu_template *template, struct err *err);
/* Which interfaces, that are configured already, the metadata service answers on, and how. */
int control_set_mmds(struct control *control, struct mmds_config *config, struct err *err);
/* Where a line goes at the start, every minute, when it is asked for and at the end. Once only. */
int control_set_metrics(struct control *control, struct metrics_config *config, struct err *err);

/* Before the start, too. -ENOENT if there is none of that id. */
int control_remove_drive(struct control *control, const char *id, struct err *err);
int control_remove_interface(struct control *control, const char *id, struct err *err);

/*
 * The metadata service, to be read and written, which is there in every state. After the start it
 * is an error if no interface answers for it.
 */
int control_metadata(struct control *control, struct mmds **mmds, struct err *err);

/* The whole of the kernel's command line as configured so far, to be freed; NULL without memory. */
char *control_cmdline(const struct control *control);

/* Of a VM that has been started. */
int control_update_drive(struct control *control, const struct drive_update *update,
			 struct err *err);
int control_update_interface(struct control *control, const struct network_interface_update *update,
			     struct err *err);

/* Writes a line of metrics now, if there is an output; of a VM that has been started. */
int control_flush_metrics(struct control *control, struct err *err);

/* A start that fails leaves the state as it was and nothing open. */
int control_start(struct control *control, struct err *err);
/*
 * Of a VM that is paused, or runs, already: nothing to do, and no error. While it is paused nothing
 * writes guest memory; -EBUSY if a disk does not end what is in flight, and the VM goes on.
 */
int control_pause(struct control *control, struct err *err);
int control_resume(struct control *control, struct err *err);
/*
 * Writes a VM that is paused to two new files, which take the place of what is there once they are
 * whole: its state with `config`, the text of what was configured, and its memory. It stays paused.
 * 0 or -errno with err set, and nothing of it is left. Returns when the disk has it.
 */
int control_save(struct control *control, const struct snapshot_create_config *files,
		 const char *config, struct err *err);
/*
 * The other way, in the place of control_start(), of what `sections` says, from SNAPSHOT_MACHINE
 * on. The devices are configured as they were. The VM is paused afterwards. 0 or -errno with err
 * set; then nothing is configured any more of machine, devices and metadata.
 */
struct control_load {
	int memory_fd;	     /* not owned; its content has to stay as it is */
	bool clock_realtime; /* the time that has passed since has passed for the guest's clocks */
};

int control_load(struct control *control, struct state_reader *sections,
		 const struct control_load *load, struct err *err);
/* Forgets machine, devices and metadata as they are configured; of a VM that is not started. */
void control_forget_config(struct control *control);
/* Whether nothing is configured that would be in a snapshot's way. 0 or -EBUSY with err set. */
int control_check_load(const struct control *control, struct err *err);

/*
 * Presses Ctrl, Alt and Del, which a paused guest sees once it is resumed. Without a keyboard
 * driver in the guest nothing comes of it but a line in the log.
 */
int control_send_ctrl_alt_del(struct control *control, struct err *err);
/* The same; false if the guest does not see it now. */
bool control_ask_to_end(struct control *control);
/* Ends the VM at once; `ended` is called from the event loop. */
int control_stop(struct control *control, const char *why, struct err *err);

/* Firecracker's words: "Not started", "Running", "Paused". */
const char *control_state_name(const struct control *control);

#endif
