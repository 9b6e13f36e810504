/* SPDX-License-Identifier: Apache-2.0 */
/* What control.c (the states) and control_config.c (what is configured) have of each other. */
#ifndef MOTE_VMM_CONTROL_INTERNAL_H
#define MOTE_VMM_CONTROL_INTERNAL_H

#include "vmm/control.h"

/* 0 in that state, or -EBUSY with err saying that `action` is not possible. */
int control_expect(const struct control *control, enum control_state state, const char *action,
		   struct err *err);

/* The same for running or paused. */
int control_expect_started(const struct control *control, const char *action, struct err *err);

/* The defaults; 0 or -errno with err set and nothing open. */
int control_open_config(struct control *control, struct err *err);
void control_close_config(struct control *control);

/* 0 or -errno with err set; the text may be NULL. */
int control_check_cmdline(const char *cmdline, struct err *err);

#endif
