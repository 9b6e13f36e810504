/* SPDX-License-Identifier: Apache-2.0 */
#include "host/console_log.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>

#include "base/fd.h"

void console_log_add(struct console_log *log, const void *data, size_t size)
{
	char old[PATH_MAX];

	if (log->fd > 0 && log->used + size > CONSOLE_LOG_MAX) {
		console_log_close(log);
		if (snprintf(old, sizeof(old), "%s.old", log->path) < (int)sizeof(old))
			(void)rename(log->path, old);
	}
	if (log->fd <= 0) {
		int fd = open(log->path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC,
			      0600);

		if (fd < 0)
			return;
		log->fd = fd;
	}
	log->used += size;
	(void)fd_write_all(log->fd, data, size);
}

void console_log_close(struct console_log *log)
{
	if (log->fd > 0)
		fd_close(&log->fd);
	log->fd = 0;
	log->used = 0;
}
