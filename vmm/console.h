/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connects a serial port to descriptors in the event loop: output that its reader was too slow for,
 * and input.
 */
#ifndef MOTE_VMM_CONSOLE_H
#define MOTE_VMM_CONSOLE_H

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <termios.h>

struct err;
struct serial;

struct console {
	struct serial *serial;
	int in_fd;  /* not owned; -1 no input, or its end was reached */
	int out_fd; /* not owned */
	struct event *notified;
	struct event *flush_timer;
	struct event *writable;
	struct event *readable;
	bool terminal_changed;
	struct termios terminal; /* as it was */
};

/*
 * in_fd may be -1. A terminal there is switched to pass single characters without echo until
 * console_close; its interrupt keys keep working. 0 or -errno with err set.
 */
int console_open(struct console *console, struct event_base *base, struct serial *serial, int in_fd,
		 int out_fd, struct err *err);
/* Safe on a zeroed object. */
void console_close(struct console *console);

#endif
