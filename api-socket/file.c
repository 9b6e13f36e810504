/* SPDX-License-Identifier: Apache-2.0 */
#include "api-socket/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/fd.h"

int file_read(const char *what, const char *path, size_t max, char **text, size_t *len,
	      struct err *err)
{
	CLEANUP_FD int fd = fd_open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	const char *name = fd_name(path);
	struct stat st;
	int rc;

	if (fd < 0)
		return err_sys(err, -fd, "%s %s", what, name);
	if (fstat(fd, &st) < 0)
		return err_sys(err, errno, "%s %s", what, name);
	if (!S_ISREG(st.st_mode) || (uintmax_t)st.st_size > max)
		return err_set(err, EINVAL, "%s %s: not a regular file of at most %zu bytes", what,
			       name, max);
	*len = (size_t)st.st_size;
	*text = malloc(*len + 1);
	if (!*text)
		return err_sys(err, ENOMEM, "%s %s", what, name);
	rc = fd_pread_exact(fd, *text, *len, 0);
	if (rc == 0)
		return 0;
	free(*text);
	*text = NULL;
	return err_sys(err, -rc, "%s %s", what, name);
}
