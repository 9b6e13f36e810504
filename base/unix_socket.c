/* SPDX-License-Identifier: Apache-2.0 */
#include "base/unix_socket.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"

static int fill(struct sockaddr_un *address, const char *path)
{
	const size_t len = strlen(path);

	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (len == 0)
		return -EINVAL;
	if (len >= sizeof(address->sun_path))
		return -ENAMETOOLONG;
	memcpy(address->sun_path, path, len);
	return 0;
}

int unix_socket_open(int flags)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);

	return fd < 0 ? -errno : fd;
}

int unix_socket_connect(int fd, const char *path)
{
	struct sockaddr_un address;
	int rc = fill(&address, path);

	if (rc == 0 && connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		rc = -errno;
	return rc;
}

int unix_socket_bind(int fd, const char *path)
{
	struct sockaddr_un address;
	int rc = fill(&address, path);

	if (rc == 0 && bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		rc = -errno;
	return rc;
}

int unix_socket_remove_stale(const char *path)
{
	struct stat st;
	int rc;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -ENOTSOCK;

	CLEANUP_FD int fd = unix_socket_open(SOCK_NONBLOCK);

	if (fd < 0)
		return fd;
	rc = unix_socket_connect(fd, path);
	/* Someone listens, with a full backlog. */
	if (rc == 0 || rc == -EAGAIN)
		return -EADDRINUSE;
	/* Whoever listened on it may have removed it since. */
	if (rc == -ENOENT)
		return 0;
	if (rc != -ECONNREFUSED)
		return rc;
	return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}
