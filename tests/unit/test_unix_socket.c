/* SPDX-License-Identifier: Apache-2.0 */
#include "base/unix_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"

/* A socket at `path`, which a program listens on or not. */
static int make(const char *path, bool listens)
{
	int fd = unix_socket_open(SOCK_NONBLOCK);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
	ck_assert_int_eq(unix_socket_bind(fd, path), 0);
	if (listens)
		ck_assert_int_eq(listen(fd, 0), 0);
	return fd;
}

static int connect_to(const char *path)
{
	CLEANUP_FD int fd = unix_socket_open(SOCK_NONBLOCK);

	return unix_socket_connect(fd, path);
}

START_TEST(path_has_to_fit)
{
	char path[UNIX_SOCKET_PATH_SIZE + 1];
	CLEANUP_FD int fd = -1;

	memset(path, 'a', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	ck_assert_int_eq(connect_to(path), -ENAMETOOLONG);
	path[sizeof(path) - 2] = '\0';
	fd = make(path, true);
	ck_assert_int_eq(connect_to(path), 0);
}
END_TEST

/* An abstract name would be anybody's. */
START_TEST(empty_path_is_refused)
{
	CLEANUP_FD int fd = unix_socket_open(0);

	ck_assert_int_eq(unix_socket_bind(fd, ""), -EINVAL);
	ck_assert_int_eq(connect_to(""), -EINVAL);
}
END_TEST

START_TEST(only_what_nobody_listens_on_is_removed)
{
	int fd = make("socket", false);

	ck_assert_int_eq(unix_socket_remove_stale("nothing"), 0);
	ck_assert_int_eq(unix_socket_remove_stale("socket"), 0);
	ck_assert_int_eq(access("socket", F_OK), -1);
	fd_close(&fd);
	fd = make("socket", true);
	ck_assert_int_eq(unix_socket_remove_stale("socket"), -EADDRINUSE);
	/* Its backlog is full now. */
	ck_assert_int_eq(unix_socket_remove_stale("socket"), -EADDRINUSE);
	ck_assert_int_eq(unix_socket_remove_stale("socket"), -EADDRINUSE);
	ck_assert_int_eq(access("socket", F_OK), 0);
	fd_close(&fd);
	ck_assert_int_eq(unix_socket_remove_stale("socket"), 0);
	ck_assert_int_eq(access("socket", F_OK), -1);
}
END_TEST

/* One that cannot be told to be unused. */
START_TEST(socket_of_another_kind_stays)
{
	const struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "datagrams" };
	CLEANUP_FD int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	ck_assert_int_eq(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
	ck_assert_int_eq(unix_socket_remove_stale("datagrams"), -EPROTOTYPE);
	ck_assert_int_eq(access("datagrams", F_OK), 0);
}
END_TEST

START_TEST(what_is_no_socket_stays)
{
	write_text("file", "text");
	ck_assert_int_eq(mkfifo("fifo", 0600), 0);
	ck_assert_int_eq(symlink("nowhere", "link"), 0);
	ck_assert_int_eq(unix_socket_remove_stale("file"), -ENOTSOCK);
	ck_assert_int_eq(unix_socket_remove_stale("fifo"), -ENOTSOCK);
	ck_assert_int_eq(unix_socket_remove_stale("link"), -ENOTSOCK);
	ck_assert_int_eq(unix_socket_remove_stale("."), -ENOTSOCK);
	ck_assert_int_eq(unix_socket_remove_stale("file/socket"), -ENOTDIR);
	ck_assert_int_eq(access("file", F_OK), 0);
}
END_TEST

Suite *unix_socket_suite(void)
{
	return SUITE("unix_socket", NULL, NULL, path_has_to_fit, empty_path_is_refused,
		     only_what_nobody_listens_on_is_removed, socket_of_another_kind_stays,
		     what_is_no_socket_stays);
}
