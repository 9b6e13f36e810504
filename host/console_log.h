/* SPDX-License-Identifier: Apache-2.0 */
/* The last that a guest wrote to its console, kept in a file of bounded size. */
#ifndef MOTE_HOST_CONSOLE_LOG_H
#define MOTE_HOST_CONSOLE_LOG_H

#include <stddef.h>
#include <stdint.h>

/* When the file is so long, it becomes PATH.old, and that is gone. */
#define CONSOLE_LOG_MAX (1 << 20)

struct console_log {
	const char *path; /* not owned */
	int fd;		  /* owned; 0: nothing has been written yet */
	size_t used;
};

/* Zero-initialise but for the path. That a file cannot be written is nobody's concern. */
void console_log_add(struct console_log *log, const void *data, size_t size);
void console_log_close(struct console_log *log);

#endif
