/* SPDX-License-Identifier: Apache-2.0 */
#include "tree/below.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int below_open(int dir, const char *path, uint64_t flags)
{
	const struct open_how how = { .flags = flags | O_CLOEXEC,
				      .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS };

	return (int)syscall(SYS_openat2, dir, path, &how, sizeof(how));
}

bool below_clean(const char *path, unsigned int strip, char clean[PATH_MAX])
{
	size_t used = 0;

	clean[0] = '\0';
	while (*path) {
		size_t length = strcspn(path, "/");
		const char *part = path;

		path += length;
		path += strspn(path, "/");
		if (length == 0 || (length == 1 && part[0] == '.'))
			continue;
		if (length == 2 && part[0] == '.' && part[1] == '.')
			return false;
		if (strip > 0) {
			strip--;
			continue;
		}
		if (used + length + 2 > PATH_MAX)
			return false;
		if (used > 0)
			clean[used++] = '/';
		memcpy(clean + used, part, length);
		used += length;
		clean[used] = '\0';
	}
	return true;
}
