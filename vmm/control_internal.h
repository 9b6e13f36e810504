/* SPDX-License-Identifier: Apache-2.0 */
/* What control.c (the states) and control_config.c (what is configured) have of each other. */
#ifndef MOTE_VMM_CONTROL_INTERNAL_H
#define MOTE_VMM_CONTROL_INTERNAL_H

#include "vmm/control.h"

/* What can be asked of a VM; in which states, a table in control.c says. */
enum control_operation {
	CONTROL_OP_SET_BOOT_SOURCE,
	CONTROL_OP_SET_MACHINE,
	CONTROL_OP_SET_CPU_CONFIG,
	CONTROL_OP_SET_LOGGER,
	CONTROL_OP_SET_METRICS,
	CONTROL_OP_SET_SERIAL,
	CONTROL_OP_SET_DRIVE,
	CONTROL_OP_SET_INTERFACE,
	CONTROL_OP_SET_VSOCK,
	CONTROL_OP_SET_MMDS,
	CONTROL_OP_REMOVE_DRIVE,
	CONTROL_OP_REMOVE_INTERFACE,
	CONTROL_OP_START,
	CONTROL_OP_UPDATE_DRIVE,
	CONTROL_OP_UPDATE_INTERFACE,
	CONTROL_OP_FLUSH_METRICS,
	CONTROL_OP_PAUSE,
	CONTROL_OP_RESUME,
	CONTROL_OP_SAVE,
	CONTROL_OP_LOAD,
	CONTROL_OP_SEND_CTRL_ALT_DEL,
	CONTROL_OP_STOP,
};

/* 0, or -EBUSY with err saying that this is not possible in the present state. */
int control_check(const struct control *control, enum control_operation operation, struct err *err);

/* The machine as configured, which holds nothing yet. 0 or -errno with err set and none there. */
int control_create_machine(struct control *control, struct err *err);
/* Its devices and its console are at work in the event loop. 0 or -errno with err set. */
int control_attach_machine(struct control *control, struct err *err);
/*
 * Under its policy, if that is wanted, and in its first state; only the vCPUs stand still. 0 or
 * -errno with err set.
 */
int control_begin(struct control *control, enum control_state state, struct err *err);
/* Back to a VM without a machine. Safe when it has none, or half of one. */
void control_close_machine(struct control *control);

/* The defaults; 0 or -errno with err set and nothing open. */
int control_open_config(struct control *control, struct err *err);
void control_close_config(struct control *control);

/* 0 or -errno with err set; the text may be NULL. */
int control_check_cmdline(const char *cmdline, struct err *err);

#endif
