/* SPDX-License-Identifier: Apache-2.0 */
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define GIVEN "/dev/fd/"

static struct {
	int fd;
	const char *name;
} names[FD_NAMES_MAX];
static unsigned int name_count;

void fd_close(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	errno = saved;
}

void fd_reserve_standard(void)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDWR);
	} while (fd >= 0 && fd <= STDERR_FILENO);
	fd_close(&fd);
}

int fd_take(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

/* The number behind "/dev/fd/"; -1 if it is none, or a standard one's. */
static int given_number(const char *text)
{
	int number = 0;

	for (; *text; text++) {
		if (*text < '0' || *text > '9' || number > INT_MAX / 10 - 1)
			return -1;
		number = number * 10 + (*text - '0');
	}
	return number > STDERR_FILENO ? number : -1;
}

static int copy_given(int given, int flags)
{
	const int wanted = flags & O_ACCMODE;
	const int descriptor = fcntl(given, F_GETFD);
	const int mode = descriptor < 0 ? -1 : fcntl(given, F_GETFL);
	int fd;

	if (mode < 0 || descriptor & FD_CLOEXEC || mode & O_PATH)
		return -EBADF;
	if ((mode & O_ACCMODE) != O_RDWR && (mode & O_ACCMODE) != wanted)
		return -EACCES;
	fd = fcntl(given, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	return fd < 0 ? -errno : fd;
}

int fd_open(const char *path, int flags)
{
	const char *number =
		strncmp(path, GIVEN, sizeof(GIVEN) - 1) == 0 ? path + sizeof(GIVEN) - 1 : NULL;
	int fd = number ? copy_given(given_number(number), flags) : open(path, flags);

	return fd == -1 ? -errno : fd;
}

int fd_set_name(int fd, const char *name)
{
	if (name_count == FD_NAMES_MAX)
		return -ENOSPC;
	names[name_count].fd = fd;
	names[name_count++].name = name;
	return 0;
}

const char *fd_name(const char *path)
{
	const int fd = strncmp(path, GIVEN, sizeof(GIVEN) - 1) == 0
			       ? given_number(path + sizeof(GIVEN) - 1)
			       : -1;

	for (unsigned int i = 0; fd >= 0 && i < name_count; i++) {
		if (names[i].fd == fd)
			return names[i].name;
	}
	return path;
}

/* It must not wait for a reader, nor overwrite. */
static int append_to_given(const char *path)
{
	const int fd = fd_open(path, O_WRONLY);

	if (fd >= 0)
		(void)fcntl(fd, F_SETFL, O_APPEND | O_NONBLOCK);
	return fd;
}

int fd_pread_exact(int fd, void *buffer, size_t len, uint64_t offset)
{
	char *at = buffer;

	while (len > 0) {
		if (offset > INT64_MAX)
			return -ENODATA;
		/* The call that the VMM's policy has anyway. */
		const struct iovec iov = { at, len };
		ssize_t n = preadv(fd, &iov, 1, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -ENODATA;
		at += n;
		len -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

int fd_open_append(const char *path)
{
	const int flags = O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
	int fd;

	if (strncmp(path, GIVEN, sizeof(GIVEN) - 1) == 0)
		return append_to_given(path);
	/* For reading, too: a fifo then keeps its lines while nobody reads it. */
	fd = open(path, O_RDWR | flags, 0600);
	if (fd < 0 && errno == EACCES)
		fd = open(path, O_WRONLY | flags, 0600);
	return fd < 0 ? -errno : fd;
}

int fd_write_all(int fd, const void *buffer, size_t len)
{
	const char *at = buffer;

	while (len > 0) {
		ssize_t n = write(fd, at, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		at += n;
		len -= (size_t)n;
	}
	return 0;
}

void fd_signal(int event_fd)
{
	const uint64_t one = 1;
	ssize_t n = write(event_fd, &one, sizeof(one));

	(void)n; /* it can only be full, and then it is readable already */
}

void fd_unsignal(int event_fd)
{
	uint64_t count;
	ssize_t n = read(event_fd, &count, sizeof(count));

	(void)n; /* it was unreadable */
}
