/* SPDX-License-Identifier: Apache-2.0 */
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
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

Suite *fd_suite(void)
{
	return SUITE("fd", NULL, NULL, close_forgets_the_descriptor_and_keeps_errno,
		     close_of_nothing_is_harmless, cleanup_closes_at_the_end_of_the_scope,
		     taken_descriptor_is_not_closed, pread_exact_reads_at_the_offset,
		     pread_exact_past_the_end_is_enodata, pread_exact_of_nothing_succeeds,
		     errors_are_returned, write_all_goes_on_after_a_partial_write);
}
