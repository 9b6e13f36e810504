/* SPDX-License-Identifier: Apache-2.0 */
/* The socket device's Unix socket and the line that clients send. */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/array.h"
#include "base/err.h"
#include "tests/unit/suites.h"
#include "tests/unit/support.h"
#include "virtio/vsock/host.h"
#include "virtio/vsock/vsock.h"

#define PATH "host.sock"

static struct vsock_listener listener;
static struct err err;

static void set_up(void)
{
	unlink(PATH);
	memset(&listener, 0, sizeof(listener));
}

static void tear_down(void)
{
	vsock_listener_close(&listener);
	unlink(PATH);
}

static int make_socket(const char *path, bool listens)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memcpy(addr.sun_path, path, strlen(path));
	ck_assert_int_eq(bind(fd, (const struct sockaddr *)&addr, sizeof(addr)), 0);
	if (listens)
		ck_assert_int_eq(listen(fd, 1), 0);
	return fd;
}

static void expect_refusal(const char *path, int error, const char *text)
{
	unsigned int fds = count_open_fds();

	ck_assert_int_eq(vsock_listener_open(&listener, path, NULL, &err), error);
	assert_contains(err.text, text);
	ck_assert_uint_eq(count_open_fds(), fds);
}

static const mode_t umasks[] = { 0, 022, 077, 0777 };

START_TEST(socket_is_for_its_user_alone_whatever_the_umask)
{
	mode_t old = umask(umasks[_i]);
	struct stat st;

	ck_assert_int_eq(vsock_listener_open(&listener, PATH, NULL, &err), 0);
	umask(old);
	ck_assert_int_eq(lstat(PATH, &st), 0);
	ck_assert_uint_eq(st.st_mode, S_IFSOCK | 0600);
	vsock_listener_close(&listener);
	ck_assert_int_eq(lstat(PATH, &st), -1);
}
END_TEST

START_TEST(stale_socket_is_replaced)
{
	close(make_socket(PATH, true));
	ck_assert_int_eq(vsock_listener_open(&listener, PATH, NULL, &err), 0);
}
END_TEST

START_TEST(live_socket_is_refused)
{
	int other = make_socket(PATH, true);

	expect_refusal(PATH, -EADDRINUSE, "vsock socket host.sock: another program listens on it");
	ck_assert_int_eq(access(PATH, F_OK), 0);
	close(other);
}
END_TEST

START_TEST(file_is_refused_and_kept)
{
	write_text(PATH, "precious");
	expect_refusal(PATH, -EEXIST, "exists and is not a socket");
	ck_assert_int_eq(access(PATH, F_OK), 0);
}
END_TEST

START_TEST(missing_directory_is_refused)
{
	expect_refusal("no/such/v.sock", -ENOENT, "vsock socket no/such/v.sock: No such file");
	expect_refusal("", -EINVAL, "empty");
}
END_TEST

START_TEST(path_leaves_room_for_a_port)
{
	char path[98];

	memset(path, 'x', sizeof(path));
	path[97] = '\0';
	expect_refusal(path, -ENAMETOOLONG, "longer than 96 bytes");
	path[96] = '\0';
	ck_assert_int_eq(vsock_listener_open(&listener, path, NULL, &err), 0);

	char longest[128];

	snprintf(longest, sizeof(longest), "%s_4294967295", path);
	int server = make_socket(longest, true);
	int fd = vsock_host_dial(path, UINT32_MAX);

	ck_assert_int_ge(fd, 0);
	close(fd);
	close(server);
	unlink(longest);
}
END_TEST

START_TEST(another_socket_in_its_place_is_kept)
{
	ck_assert_int_eq(vsock_listener_open(&listener, PATH, NULL, &err), 0);
	unlink(PATH);
	close(make_socket(PATH, false));
	vsock_listener_close(&listener);
	ck_assert_int_eq(access(PATH, F_OK), 0);
}
END_TEST

static const uint64_t bad_cids[] = { 0, 1, 2, UINT32_MAX, UINT64_C(1) << 32, UINT64_MAX };

START_TEST(reserved_cid_is_refused)
{
	const struct vsock_config config = { bad_cids[_i], PATH };
	struct vsock *vsock;

	ck_assert_int_eq(vsock_open(&vsock, &config, &err), -EINVAL);
	ck_assert_ptr_null(vsock);
	assert_contains(err.text, "is not between 3 and 4294967294");
	ck_assert_int_eq(access(PATH, F_OK), -1);
}
END_TEST

static const struct {
	const char *line;
	int expected;
	uint32_t port;
	const char *rest;
} commands[] = {
	{ "CONNECT 52\n", 1, 52, "" },
	{ "connect 52\n", 1, 52, "" },
	{ "CONNECT 4294967295\r\nrest", 1, UINT32_MAX, "rest" },
	{ "CONNECT 0 \n", 1, 0, "" },
	{ "CONNECT 1\n\n", 1, 1, "\n" },
	{ "CONNECT 0000000000000000000052\n", 1, 52, "" },
	{ "CONNECT 00000000000000000000052\n", 1, 52, "" },
	{ "CONNECT 000000000000000000000052\n", -EMSGSIZE, 0, "\n" },
	{ "CONNECT 52", 0, 0, "" },
	{ "", 0, 0, "" },
	{ "\n", -EINVAL, 0, "" },
	{ "CONNECT\n", -EINVAL, 0, "" },
	{ "CONNECT \n", -EINVAL, 0, "" },
	{ "CONNECT  \n", -EINVAL, 0, "" },
	{ "CONNECT52\n", -EINVAL, 0, "" },
	{ "CONNECT 4294967296\n", -EINVAL, 0, "" },
	{ "CONNECT 18446744073709551668\n", -EINVAL, 0, "" },
	{ "CONNECT -1\n", -EINVAL, 0, "" },
	{ "CONNECT 5x\n", -EINVAL, 0, "" },
	{ "GET / HTTP/1.1\n", -EINVAL, 0, "" },
};

static void expect_command(size_t row, bool byte_by_byte)
{
	struct vsock_command command = { 0 };
	const char *line = commands[row].line;
	size_t size = strlen(line), at = 0;
	char rest[64] = { 0 };
	uint32_t port = 0;
	int ends[2], rc = 0;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	while (rc == 0 && at < size) {
		size_t part = byte_by_byte ? 1 : size;

		ck_assert_int_eq(write(ends[0], line + at, part), (ssize_t)part);
		at += part;
		rc = vsock_command_read(&command, ends[1], &port);
	}
	ck_assert_int_eq(write(ends[0], line + at, size - at), (ssize_t)(size - at));
	ck_assert_int_eq(rc, commands[row].expected);
	ck_assert_uint_eq(port, commands[row].port);
	ck_assert_int_ge(recv(ends[1], rest, sizeof(rest), MSG_DONTWAIT), -1);
	ck_assert_str_eq(rest, commands[row].rest);
	close(ends[0]);
	close(ends[1]);
}

START_TEST(command_is_read_and_nothing_behind_it)
{
	expect_command((size_t)_i, false);
}
END_TEST

START_TEST(command_may_come_in_pieces)
{
	expect_command((size_t)_i, true);
}
END_TEST

START_TEST(client_that_leaves_is_noticed)
{
	struct vsock_command command = { 0 };
	uint32_t port;
	int ends[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	ck_assert_int_eq(write(ends[0], "CONN", 4), 4);
	close(ends[0]);
	ck_assert_int_eq(vsock_command_read(&command, ends[1], &port), -ECONNRESET);
	close(ends[1]);
}
END_TEST

Suite *vsock_host_suite(void)
{
	Suite *suite = SUITE("vsock_host", set_up, tear_down, stale_socket_is_replaced,
			     live_socket_is_refused, file_is_refused_and_kept,
			     missing_directory_is_refused, path_leaves_room_for_a_port,
			     another_socket_in_its_place_is_kept, client_that_leaves_is_noticed);

	add_table_test(suite, set_up, tear_down, socket_is_for_its_user_alone_whatever_the_umask,
		       ARRAY_SIZE(umasks));
	add_table_test(suite, set_up, tear_down, reserved_cid_is_refused, ARRAY_SIZE(bad_cids));
	add_table_test(suite, set_up, tear_down, command_is_read_and_nothing_behind_it,
		       ARRAY_SIZE(commands));
	add_table_test(suite, set_up, tear_down, command_may_come_in_pieces, ARRAY_SIZE(commands));
	return suite;
}
