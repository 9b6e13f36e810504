/* SPDX-License-Identifier: Apache-2.0 */
#include "tree/unfinished.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tree/below.h"
#include "tree/tar.h"

void unfinished_set_times(int dir, struct timespec mtime)
{
	const struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, mtime };

	futimens(dir, times);
}

void unfinished_finish(struct unfinished *unfinished, int dir, const char *path)
{
	while (unfinished->depth > 0) {
		const size_t length = unfinished->list[unfinished->depth - 1].length;
		int fd;

		unfinished->path[length] = '\0';
		if (strncmp(path, unfinished->path, length) == 0 && path[length] == '/')
			return;
		unfinished->depth--;
		fd = below_open(dir, unfinished->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
		if (fd >= 0) {
			unfinished_set_times(fd, unfinished->list[unfinished->depth].mtime);
			close(fd);
		}
	}
}

void unfinished_begin(struct unfinished *unfinished, const char *path,
		      const struct tar_entry *entry)
{
	size_t length = strlen(path);

	memcpy(unfinished->path, path, length + 1);
	unfinished->list[unfinished->depth].length = length;
	unfinished->list[unfinished->depth].mtime =
		(struct timespec){ entry->mtime, entry->mtime_ns };
	unfinished->depth++;
}
