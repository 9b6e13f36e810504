/* SPDX-License-Identifier: Apache-2.0 */
#include "base/array.h"
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/unit/suites.h"
#include "tests/unit/support.h"

static int open_file(const char *text)
{
	int fd;

	write_text("file", text);
	fd = open("file", O_RDONLY | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	return fd;
}

START_TEST(close_forgets_the_descriptor_and_keeps_errno)
{
	int fd = dup(STDERR_FILENO);
	int copy = fd;

	errno = EDOM;
	fd_close(&fd);
	ck_assert_int_eq(errno, EDOM);
	ck_assert_int_eq(fd, -1);
	ck_assert_int_eq(fcntl(copy, F_GETFD), -1);
}
END_TEST

START_TEST(close_of_nothing_is_harmless)
{
	int fd = -1;

	errno = EDOM;
	fd_close(&fd);
	ck_assert_int_eq(errno, EDOM);
	ck_assert_int_eq(fd, -1);
}
END_TEST

START_TEST(cleanup_closes_at_the_end_of_the_scope)
{
	int copy;

	{
		CLEANUP_FD int fd = dup(STDERR_FILENO);

		copy = fd;
	}
	ck_assert_int_eq(fcntl(copy, F_GETFD), -1);
}
END_TEST

START_TEST(taken_descriptor_is_not_closed)
{
	int taken;

	{
		CLEANUP_FD int fd = dup(STDERR_FILENO);

		taken = fd_take(&fd);
		ck_assert_int_eq(fd, -1);
	}
	ck_assert_int_ne(fcntl(taken, F_GETFD), -1);
	close(taken);
}
END_TEST

START_TEST(pread_exact_reads_at_the_offset)
{
	CLEANUP_FD int fd = open_file("0123456789");
	char data[4] = "";

	ck_assert_int_eq(fd_pread_exact(fd, data, 3, 7), 0);
	ck_assert_str_eq(data, "789");
}
END_TEST

START_TEST(pread_exact_past_the_end_is_enodata)
{
	CLEANUP_FD int fd = open_file("0123456789");
	char data[4];

	ck_assert_int_eq(fd_pread_exact(fd, data, 4, 7), -ENODATA);
	ck_assert_int_eq(fd_pread_exact(fd, data, 1, 10), -ENODATA);
	ck_assert_int_eq(fd_pread_exact(fd, data, 1, UINT64_MAX), -ENODATA);
}
END_TEST

START_TEST(pread_exact_of_nothing_succeeds)
{
	CLEANUP_FD int fd = open_file("");

	ck_assert_int_eq(fd_pread_exact(fd, NULL, 0, 0), 0);
}
END_TEST

START_TEST(errors_are_returned)
{
	char byte = 0;

	ck_assert_int_eq(fd_pread_exact(-1, &byte, 1, 0), -EBADF);
	ck_assert_int_eq(fd_write_all(-1, &byte, 1), -EBADF);
}
END_TEST

struct reader {
	int fd;
	uint8_t data[1 << 18];
};

static void *read_slowly(void *opaque)
{
	struct reader *reader = opaque;

	read_all(reader->fd, reader->data, sizeof(reader->data));
	return NULL;
}

START_TEST(write_all_goes_on_after_a_partial_write)
{
	static struct reader reader;
	static uint8_t sent[sizeof(reader.data)];
	pthread_t thread;
	int ends[2];

	fill_pattern(sent, sizeof(sent));
	ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
	reader.fd = ends[0];
	ck_assert_int_eq(pthread_create(&thread, NULL, read_slowly, &reader), 0);
	ck_assert_int_eq(fd_write_all(ends[1], sent, sizeof(sent)), 0);
	pthread_join(thread, NULL);
	ck_assert_mem_eq(reader.data, sent, sizeof(sent));
	close(ends[0]);
	close(ends[1]);
}
END_TEST

/* A descriptor as if inherited: not closed on exec. */
static int given(int flags, char path[32])
{
	int fd;

	write_text("given", "contents");
	fd = open("given", flags);
	ck_assert_int_gt(fd, STDERR_FILENO);
	snprintf(path, 32, "/dev/fd/%d", fd);
	return fd;
}

START_TEST(given_descriptor_is_opened_as_a_path)
{
	char path[32], data[8];
	CLEANUP_FD int original = given(O_RDONLY, path);
	CLEANUP_FD int copy = fd_open(path, O_RDONLY | O_CLOEXEC);

	ck_assert_int_ge(copy, 0);
	ck_assert_int_ne(copy, original);
	ck_assert_int_eq(fcntl(copy, F_GETFD), FD_CLOEXEC);
	ck_assert_int_eq(fd_pread_exact(copy, data, sizeof(data), 0), 0);
	ck_assert_mem_eq(data, "contents", sizeof(data));
	/* And once more: it is not used up. */
	fd_close(&copy);
	copy = fd_open(path, O_RDONLY);
	ck_assert_int_ge(copy, 0);
}
END_TEST

START_TEST(own_descriptor_is_not_opened)
{
	char path[32];
	CLEANUP_FD int own = given(O_RDWR | O_CLOEXEC, path);

	ck_assert_int_ge(own, 0);
	ck_assert_int_eq(fd_open(path, O_RDONLY), -EBADF);
	ck_assert_int_eq(fd_open_append(path), -EBADF);
}
END_TEST

START_TEST(given_descriptor_is_opened_for_what_it_was_opened)
{
	static const struct {
		int given, wanted, rc;
	} table[] = {
		{ O_RDONLY, O_RDWR, -EACCES }, { O_RDONLY, O_WRONLY, -EACCES },
		{ O_WRONLY, O_RDWR, -EACCES }, { O_WRONLY, O_RDONLY, -EACCES },
		{ O_PATH, O_RDONLY, -EBADF },  { O_RDWR, O_RDONLY, 0 },
		{ O_RDWR, O_WRONLY, 0 },       { O_WRONLY, O_WRONLY, 0 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		char path[32];
		CLEANUP_FD int original = given(table[i].given, path);
		CLEANUP_FD int copy = fd_open(path, table[i].wanted);

		ck_assert_int_ge(original, 0);
		ck_assert_int_eq(copy < 0 ? copy : 0, table[i].rc);
	}
}
END_TEST

START_TEST(what_is_no_given_descriptor)
{
	static const char *const paths[] = {
		"/dev/fd/",    "/dev/fd/0",	     "/dev/fd/1",
		"/dev/fd/2",   "/dev/fd/-3",	     "/dev/fd/3x",
		"/dev/fd/999", "/dev/fd/4294967299", "/dev/fd/99999999999999999999"
	};

	for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
		ck_assert_int_eq(fd_open(paths[i], O_RDONLY), -EBADF);
	ck_assert_int_eq(fd_open("absent", O_RDONLY), -ENOENT);
	write_text("file", "x");
	CLEANUP_FD int fd = fd_open("file", O_RDONLY | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
}
END_TEST

START_TEST(given_descriptor_is_appended_to_without_waiting)
{
	char path[32];
	CLEANUP_FD int original = given(O_WRONLY, path);
	CLEANUP_FD int copy = fd_open_append(path);
	char *text;

	ck_assert_int_ge(original, 0);
	ck_assert_int_ge(copy, 0);
	ck_assert_int_eq(fcntl(copy, F_GETFL) & (O_APPEND | O_NONBLOCK), O_APPEND | O_NONBLOCK);
	ck_assert_int_eq(fd_write_all(copy, "!", 1), 0);
	text = read_text("given");
	ck_assert_str_eq(text, "contents!");
	free(text);
}
END_TEST

START_TEST(descriptor_is_called_by_the_name_it_was_given)
{
	ck_assert_int_eq(fd_set_name(7, "disk.ext4"), 0);
	ck_assert_int_eq(fd_set_name(8, ""), 0);
	ck_assert_str_eq(fd_name("/dev/fd/7"), "disk.ext4");
	ck_assert_str_eq(fd_name("/dev/fd/8"), "");
	ck_assert_str_eq(fd_name("/dev/fd/9"), "/dev/fd/9");
	ck_assert_str_eq(fd_name("/dev/fd/7x"), "/dev/fd/7x");
	ck_assert_str_eq(fd_name("/dev/fd/"), "/dev/fd/");
	ck_assert_str_eq(fd_name("/tmp/7"), "/tmp/7");
	for (int i = 2; i < FD_NAMES_MAX; i++)
		ck_assert_int_eq(fd_set_name(100 + i, "more"), 0);
	ck_assert_int_eq(fd_set_name(99, "too many"), -ENOSPC);
	ck_assert_str_eq(fd_name("/dev/fd/99"), "/dev/fd/99");
}
END_TEST

Suite *fd_suite(void)
{
	return SUITE("fd", NULL, NULL, close_forgets_the_descriptor_and_keeps_errno,
		     close_of_nothing_is_harmless, cleanup_closes_at_the_end_of_the_scope,
		     taken_descriptor_is_not_closed, pread_exact_reads_at_the_offset,
		     pread_exact_past_the_end_is_enodata, pread_exact_of_nothing_succeeds,
		     errors_are_returned, write_all_goes_on_after_a_partial_write,
		     given_descriptor_is_opened_as_a_path, own_descriptor_is_not_opened,
		     given_descriptor_is_opened_for_what_it_was_opened, what_is_no_given_descriptor,
		     given_descriptor_is_appended_to_without_waiting,
		     descriptor_is_called_by_the_name_it_was_given);
}
